"""The trainer: one optimizer step after the other. Knows no sampler."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sde.autoencoder.base import Autoencoder
from sde.condition.tree import condition_kinds
from sde.data import Dataset
from sde.device import differentiating, forked_random, seed_random
from sde.distributed.world import World, unsynchronized
from sde.model.classifier import NoisyClassifier
from sde.model.denoiser import Preconditioned
from sde.training.augmentation import AS_THEY_ARE, Augmentation
from sde.training.batches import Batches, Placed, seed_of
from sde.training.ema import Averages
from sde.training.loss import BatchNoise
from sde.training.modes import Modes, trained_parameters
from sde.training.options import OPTIMIZERS, TrainingOptions
from sde.training.uncertainty import UncertaintyWeighting

Trained = Preconditioned | NoisyClassifier | Autoencoder
"""What is trained."""

Loss = Callable[[Any, Tensor, Any, BatchNoise], Tensor]
"""(module, x0 in model units, conditions in data units, draws) -> losses (B,)"""


class StepResult(NamedTuple):
    """What a step did: this process's ``losses`` (B,) at ``times`` (B,); over all processes the mean ``loss`` () and
    ``objective`` (), which is what was minimized, another one under uncertainty weighting alone, and the ``norm`` ()
    of the gradient; the number ``hit`` () of the first parameter whose gradient is not finite; whether the step was
    ``skipped`` (). On the device, except for the times."""

    losses: Tensor
    times: Tensor
    loss: Tensor
    objective: Tensor
    norm: Tensor
    hit: Tensor
    skipped: Tensor


def check_batch(options: TrainingOptions, data: Dataset) -> None:
    """Raise ValueError for batches that are larger than the data."""
    if options.batch_size > len(data):
        raise ValueError(
            f"batch_size = {options.batch_size} is larger than the {len(data)} training items: at most {len(data)}"
        )


class Trainer:
    """A module, its EMA and its optimizer. A step takes its items, augmented, and random numbers from ``batches``,
    which ``workers`` threads read ahead. Parameters without ``requires_grad`` are neither optimized nor averaged, and
    modules that have no others are in eval mode throughout, as those stay that are in eval mode within a module in
    training mode. With ``uncertainty`` the losses are weighted by it, and its weights trained with the module's. Raises
    ValueError where those are sharded, where all is frozen, and as ``Augmentation.check`` does."""

    def __init__(
        self,
        module: Trained,
        data: Dataset,
        loss: Loss,
        options: TrainingOptions,
        world: World | None = None,
        workers: int = 0,
        uncertainty: UncertaintyWeighting | None = None,
        augmentation: Augmentation = AS_THEY_ARE,
    ) -> None:
        check_batch(options, data)
        kinds = condition_kinds(module) if isinstance(module, Preconditioned) else ()
        augmentation.check(data.event_shape, data.sizes is not None, kinds, data.codes is not None)
        self.module: Any = module
        self.loss, self.options = loss, options
        self.world = world or World()
        self.sharded = self.world.size > 1 and options.parallel == "fsdp"
        if self.sharded and uncertainty is not None:
            raise ValueError("parallel = 'fsdp': `uncertainty_weighting` is not split with the network; take ddp")
        self.device = next(module.parameters()).device
        # Autoencoders have no process, and are told no times.
        sde = getattr(module, "sde", None)
        self.batches = Batches(data, sde, options, self.world, self.device, workers, augmentation)
        self.data = self.batches.data
        self.step = self.seen = self.skipped = 0
        self.uncertainty = None if uncertainty is None else uncertainty.to(self.device)
        self.modes = Modes(module)
        # First, because sharding puts other parameters in the place of the module's.
        self.replica = self.world.distribute(module, options.parallel)
        self.parameters = trained_parameters(module)
        if not self.parameters:
            raise ValueError("every parameter of the module is frozen: there is nothing to train")
        own = () if uncertainty is None else uncertainty.named_parameters()
        self.trained = self.parameters | {f"uncertainty.{name}": p for name, p in own}
        """All that the optimizer moves: the module's own parameters, and those of the uncertainty."""
        groups: list[dict] = [{"params": [*self.parameters.values()]}]
        if uncertainty is not None:
            groups.append({"params": [*uncertainty.parameters()], "weight_decay": 0.0})
        self.optimizer = OPTIMIZERS[options.optimizer](groups, lr=options.lr, fused=True, **options.adam)
        self.ema = Averages(
            module, options.ema_decay, options.extra_ema_decays, options.power_ema_stds, options.ema_rampup_ratio
        )

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return self.options.lr_at(self.seen, self.batches.offset)

    def micro_batch(self, number: int) -> Placed:
        """x0 in model units and conditions, on the device, and random numbers of a micro-batch of the next step."""
        return self.batches.get(self.step * self.options.gradient_accumulation + number)

    def call(self, x0: Tensor, draws: BatchNoise) -> Tensor:
        """A call of the module as samplers make it."""
        return self.module(x0, draws.t)

    def close(self) -> None:
        """End the threads that read ahead."""
        self.batches.close()

    def training_step(self) -> StepResult:
        """One step, skipped where the loss or a gradient is not finite; nothing is read back from the device. Neither
        inference mode nor no_grad nor autocast around it reaches into it."""
        with differentiating(self.device):
            return self._training_step()

    def _training_step(self) -> StepResult:
        options, losses, times, objectives = self.options, [], [], []
        self.modes.train()
        self.optimizer.zero_grad()
        for number in range(options.gradient_accumulation):
            x0, cond, draws = self.micro_batch(number)
            # Dropout layers draw from the global state, which fit restores at its end.
            seed_random(self.device, seed_of(options.seed, self.seen, 1 + number, self.world.rank))
            with unsynchronized(self.replica, number == options.gradient_accumulation - 1):
                part = self.loss(self.replica, x0, cond, draws)
                objective = self._weighted(part, draws).mean()
                (objective / options.gradient_accumulation).backward()
            losses.append(part.detach())
            times.append(draws.t)
            objectives.append(objective.detach())
        if self.uncertainty is not None:
            # The module's own are averaged on their way.
            for p in self.uncertainty.parameters():
                p.grad = None if p.grad is None else self.world.mean(p.grad)
        gradients = [p.grad for p in self.trained.values() if p.grad is not None]
        norms = self.world.full_tensor(torch.stack(torch._foreach_norm(gradients)))
        loss, norm = self.world.mean(torch.cat(losses).mean()), norms.norm()
        minimized = loss if self.uncertainty is None else self.world.mean(torch.stack(objectives).mean())
        skipped = ~(loss.isfinite() & norm.isfinite())
        if options.max_grad_norm:
            # The fused step divides by it on its way, in float32, which saves a pass over all gradients.
            self.optimizer.grad_scale = ((norm + 1e-6) / options.max_grad_norm).clamp(min=1).float()
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        # Fused optimizers leave everything as it is where this says so, without telling the host.
        self.optimizer.found_inf = skipped.float()
        self.optimizer.step()
        self.ema.update(self.module)
        self.step += 1
        self.seen += options.batch_size
        hit = norms.isfinite().int().argmin()
        return StepResult(torch.cat(losses), torch.cat(times), loss, minimized, norm, hit, skipped)

    def _weighted(self, losses: Tensor, draws: BatchNoise) -> Tensor:
        return losses if self.uncertainty is None else self.uncertainty(losses, draws.t)

    def dry_run(self, batch: Placed | None = None) -> None:
        """The passes of a micro-batch, by default the first one of a step, for the memory and time they take; changes
        nothing."""
        buffers = {name: value.clone() for name, value in self.module.named_buffers()}
        with differentiating(self.device), forked_random(self.device):
            self.modes.train()
            x0, cond, draws = batch or self.micro_batch(0)
            self._weighted(self.loss(self.replica, x0, cond, draws), draws).mean().backward()
        self.optimizer.zero_grad()
        for name, value in self.module.named_buffers():
            value.copy_(buffers[name])

    def state_dict(self) -> dict:
        """Everything that a continued run needs. Raises FloatingPointError where a parameter is not finite."""
        finite = {name: self.world.local(p).isfinite().all() for name, p in self.trained.items()}
        bad = self.world.all_gather_flat([name for name, good in finite.items() if not good])
        if bad:
            raise FloatingPointError(
                f"{bad[0]} is not finite after step {self.step}, and was not saved: try a smaller `lr`"
            )
        return {
            **{name: getattr(self, name) for name in ("step", "seen", "skipped")},
            "module": self.module.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **({} if self.uncertainty is None else {"uncertainty": self.uncertainty.state_dict()}),
        }

    def state_template(self) -> dict:
        """``state_dict()`` with everything in it that the optimizer will remember, to be read into."""
        if not self.optimizer.state:
            # A skipped step makes it, and changes nothing.
            for parameter in self.trained.values():
                parameter.grad = torch.zeros_like(parameter)
            self.optimizer.found_inf = torch.ones((), device=self.device)
            self.optimizer.grad_scale = None
            self.optimizer.step()
            self.optimizer.zero_grad()
        return self.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Continue from ``state_dict()``. Raises ValueError that names what differs where it is another module's."""
        held = {name: tuple(value.shape) for name, value in state["module"].items()}
        here = {name: tuple(value.shape) for name, value in self.module.state_dict().items()}
        other = [
            f"{name} is {held.get(name, 'missing')} there and {here.get(name, 'missing')} here"
            for name in sorted(here.keys() | held.keys())
            if held.get(name) != here.get(name)
        ]
        if other:
            more = f" and {len(other) - 3} more" if len(other) > 3 else ""
            raise ValueError(f"{', '.join(other[:3])}{more}")
        if ("uncertainty" in state) != (self.uncertainty is not None):
            there = "uncertainty" in state
            raise ValueError(f"`uncertainty_weighting` is {there} there, and {not there} here")
        if self.sharded:
            from sde.distributed.sharding import shard_like

            state = shard_like(state, self.state_template())
        self.module.load_state_dict(state["module"])
        self.ema.load_state_dict(state["ema"])
        if self.uncertainty is not None:
            self.uncertainty.load_state_dict(state["uncertainty"])
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, moments in self.optimizer.state.items():
            # Fused steps on CUDA refuse moments that lie in memory otherwise than their parameter.
            for name, value in moments.items():
                if value.shape == parameter.shape and value.stride() != parameter.stride():
                    moments[name] = torch.empty_like(parameter).copy_(value)
        for number, group in enumerate(self.optimizer.param_groups):
            group.update(self.options.adam, weight_decay=0.0 if number else self.options.weight_decay)
        self.step, self.seen, self.skipped = (state[name] for name in ("step", "seen", "skipped"))
        # With another size of batches than before, steps and items are not in proportion.
        self.batches.start_at(self.seen - self.step * self.options.batch_size)
