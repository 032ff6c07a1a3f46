"""The examination of a run by --mode check: weights, data, samples and descriptions, as plain numbers."""

import copy
import json
import math
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from samplers import DPMSolverPP, generate
from score_sde.config.config import differences
from score_sde.config.schema import options_of
from score_sde.diagnosis.linear_denoiser import LinearDenoiser
from score_sde.evaluation.denoising_errors import DenoisingErrors
from score_sde.evaluation.validation import Validation
from score_sde.run.folder import Run
from score_sde.run.items import encoded_items
from score_sde.training.beginning import inherited
from score_sde.training.spec import denoiser_spec
from sde import Denoiser
from sde.checkpoint.snapshots import stored_spec
from sde.data import Dataset
from sde.data.sizes import cut, real
from sde.data.statistics import spread
from sde.guidance.conditional import Conditional
from sde.model.law import law_by_level
from sde.networks import network_of
from sde.training.ema import EMA
from sde.training.loss import BatchNoise
from sde.training.modes import trained_parameters

SAMPLING_STEPS = 20
LAW_ITEMS = 64
"""Training items that posterior means are compared with."""
FILTER_ITEMS, FILTER_NUMBERS = 2000, 2**24
"""Training items, and numbers in them, that the linear filter is made of at most."""


def newest_state(run: Run, model: Denoiser) -> tuple[dict | None, str]:
    """The newest training state that reads, or None, and what there is to say of others, or why there is none."""
    like = {"module": model.state_dict(), "ema": {"average": dict(trained_parameters(model))}}
    try:
        state, passed = run.checkpoints("denoiser").load(lambda: like)
    except ValueError as error:
        return None, str(error)
    return state, "; ".join(passed) if state else f"{run.folder / 'checkpoints'} holds no training state"


def raw_model(model: Denoiser, state: dict) -> Denoiser | None:
    """The model with the weights that the optimizer holds; None where they are another network's."""
    raw = copy.deepcopy(model)
    try:
        raw.load_state_dict(state["module"])
    except RuntimeError:
        return None
    return raw


def describe(spec: dict) -> dict:
    """What can be compared of two descriptions of a model: process, network, parametrization, conditions, control and
    low-rank updates."""
    network = dict(spec["network"])
    # The network of a pipeline is described by its folder.
    if "pipeline" not in spec.get("base", {}):
        network = options_of(network_of(network["name"])) | network
    network.pop("activation_checkpointing", None)
    keys = ("sde", "parametrization", "num_classes", "null_trained", "lora")
    # Not their moments, which are those of the split.
    shapes = {kind: about["shape"] for kind, about in spec.get("conditions", {}).items()}
    control = {key: value for key, value in spec.get("control", {}).items() if key in ("name", "hint_channels")}
    parts = {"network": network, "conditions": shapes, "control": control}
    return json.loads(json.dumps(parts | {key: spec.get(key) for key in keys}))


def configured(run: Run, data: Dataset, stored: dict) -> dict:
    """The spec of the model that config.json would build of these data: of a control, and of updates of a pipeline,
    which have the rest from their base, what is ``stored`` with what config.json says of them."""
    if "control" in stored:
        own = {"name": run.config.data.control, "hint_channels": run.config.control.hint_channels}
        return stored | {"control": own}
    if "pipeline" in stored.get("base", {}):
        lora = run.config.model.updates.lora
        return stored | {"lora": None if lora is None else asdict(lora)}
    return denoiser_spec(run.config, data, inherited(run))


def disagreements(run: Run, model: Denoiser, data: Dataset, state: dict | None) -> list[dict]:
    """The keys in which config.json, as it would build a model of these data, and the model file differ: ``"key"``,
    ``"config"``, ``"model"``, and ``"checkpoint"``, what the newest training state says, or None."""
    stored = stored_spec(run.weights_file)
    # Every process that is stored is a dataclass.
    process = asdict(model.sde)  # type: ignore[call-overload]
    stored |= {"sde": {**process, "name": stored["sde"]["name"]}}
    held = describe(json.loads(state["spec"])) if state else {}
    found = []
    for key, config, file in differences(describe(configured(run, data, stored)), describe(stored), ""):
        value: Any = held
        for part in key[1:].split("."):
            value = value.get(part) if isinstance(value, dict) else None
        found.append({"key": key[1:], "config": config, "model": file, "checkpoint": value})
    return found


def mean_age(updates: int, decay: float) -> float:
    """Mean age in steps of what is in an EMA after ``updates``: sum of (updates - k) times the weight of the parameters
    of update k, those before the first among them. In time it is half the length of a plain mean of the same age."""
    ema, age = EMA(nn.Module(), decay), 0.0
    for ema.updates in range(1, updates + 1):
        age = (1 - ema.weight()) * (age + 1)
    return age


def distance(state: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Root mean square difference of the parameters, relative to that of ``other``."""
    squares = [
        ((state[name].double() - p.double()).square().sum(), p.double().square().sum()) for name, p in other.items()
    ]
    apart, size = (sum(parts) for parts in zip(*squares, strict=True))
    return (apart / size).sqrt().item()


def averaging(model: Denoiser, raw: Denoiser, state: dict, decay: float) -> dict:
    """How old the average is, and how far the file's weights are from it and from the raw ones."""
    weights = {name: p.detach().cpu() for name, p in trained_parameters(model).items()}
    updates = state["ema"]["updates"]
    return {
        "updates": updates,
        "mean_age": mean_age(updates, decay),
        "from_raw": distance(weights, {name: p.detach().cpu() for name, p in trained_parameters(raw).items()}),
        "from_checkpoint": distance(weights, state["ema"]["average"]),
    }


def linear_filter(model: Denoiser, at: DenoisingErrors, training: Dataset) -> LinearDenoiser:
    """The linear denoiser of training items spread over the set, as they are trained on."""
    index = spread(len(training), min(FILTER_ITEMS, max(2, FILTER_NUMBERS // math.prod(training.inner_shape))))
    x, transform = training.batch(index)[0], at.transform
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(x.shape, generator=generator)
    spread_out = transform.dequantize(x, u if training.dequantized else 0.5)
    draws = BatchNoise.draw(model.sde, (len(x), *training.inner_shape), generator)
    items = cut(draws.encode(spread_out, transform), training.sizes_of(index)).to(at.device)
    return LinearDenoiser.fitted(model.sde, items, model.sigma_data, at.t)


def mean_and_error(values: Tensor) -> list[float]:
    """Mean and standard error of values (n,); NaN where there are too few."""
    return [values.mean().item(), (values.std() / len(values) ** 0.5).item() if len(values) > 1 else math.nan]


def of_conditions(at: DenoisingErrors, own: Tensor, other: Tensor, none: Tensor) -> dict:
    """What conditions do for errors (levels, n), those with the items' ``own``, an ``other`` item's and ``none``.
    ``"gain"`` of own over other and ``"gain_of_none"`` of none over other are means over the levels, with standard
    errors over the ``"items"`` whose two conditions differ; ``"wins"`` is for how many of them own is better."""
    error, other, none = (found.mean(0)[at.has_other_condition] for found in (own, other, none))
    return {
        "items": len(error),
        "gain": mean_and_error(other - error),
        "gain_of_none": mean_and_error(other - none),
        "wins": (other > error).double().mean().item(),
        "error": {"own": error.mean().item(), "other": other.mean().item(), "none": none.mean().item()},
    }


def channel_moments(x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and standard deviation of each channel of items (n, channels, ...), and the standard errors of both, from
    the spread over the items; (channels,). Of padded items, by their ``sizes`` (n,), those of the real entries."""
    if sizes is not None:
        return _real_moments(x.double(), real(sizes, x.shape[1:]).expand_as(x))
    x = x.double().reshape(len(x), x.shape[1] if x.ndim > 1 else 1, -1)
    mean = x.mean((0, 2))
    squares = (x - mean[:, None]).square().mean(2)
    std, root = squares.mean(0).sqrt(), len(x) ** 0.5
    # A channel that is constant has no spread, and no error of it.
    error = torch.where(std > 0, squares.std(0) / root / (2 * std), 0.0)
    return mean, std, x.mean(2).std(0) / root, error


def _real_moments(x: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the ratio of two means over the items, sums over entries that are real, with its error by the delta method."""
    x, inside = (part.reshape(len(x), x.shape[1], -1) for part in (torch.where(inside, x, 0), inside.double()))
    counts, root = inside.sum(2), len(x) ** 0.5

    def ratio(sums: Tensor) -> tuple[Tensor, Tensor]:
        value = sums.sum(0) / counts.sum(0).clamp(min=1)
        return value, (sums - value * counts).std(0) / counts.mean(0).clamp(min=1 / len(x)) / root

    mean, error = ratio(x.sum(2))
    variance, spread_of = ratio((inside * (x - mean[:, None]).square()).sum(2))
    return mean, variance.sqrt(), error, spread_of / (2 * variance.sqrt())


def of_posterior_means(model: Denoiser, training: Dataset, device: torch.device) -> list[dict]:
    """The law of D by noise level, the noisiest first, beside that of training items; see ``sde.model.law``."""
    x0, told, sizes = encoded_items(training, LAW_ITEMS, model, device)
    return [level._asdict() for level in law_by_level(model, x0, told, sizes=sizes)]


def of_samples(model: Denoiser, at: DenoisingErrors, training: Dataset, nearest: Validation) -> dict:
    """Samples by 20 steps of DPM-Solver++ under the items' own conditions beside training items, in data units: moments
    and range, and distances to the nearest training items."""
    count = len(at.x)
    bound = model if at.cond is None else Conditional(model, at.cond)
    drawn = generate(
        bound,
        DPMSolverPP(),
        count,
        training.event_shape,
        steps=SAMPLING_STEPS,
        batch_size=at.batch_size,
        sizes=at.sizes,
    )
    return law_of_samples(drawn.x, at.sizes, training, nearest)


def law_of_samples(x: Tensor, sizes: Tensor | None, training: Dataset, nearest: Validation) -> dict:
    """Samples x (n, *event) beside training items, as ``of_samples`` has them."""
    index = spread(len(training), 2000)
    mean, std, *errors = channel_moments(x, sizes)
    data_mean, data_std, *data_errors = channel_moments(training.batch(index)[0].cpu(), training.sizes_of(index))
    error = [(a.square() + b.square()).sqrt().tolist() for a, b in zip(errors, data_errors, strict=True)]
    return {
        "count": len(x),
        "mean": mean.tolist(),
        "std": std.tolist(),
        "data_mean": data_mean.tolist(),
        "data_std": data_std.tolist(),
        "mean_stderr": error[0],
        "std_stderr": error[1],
        "range": [x.min().item(), x.max().item()],
        "data_range": [training.statistics.low, training.statistics.high],
        "nearest": nearest.nearest(x)["ratio"],
    }
