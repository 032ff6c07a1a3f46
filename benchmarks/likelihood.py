"""Error, network calls and seconds of log_likelihood against a plain one-probe RK45 by scipy.

    python benchmarks/likelihood.py [--items 64] [--targets ring,gmm16,digits]
    python benchmarks/likelihood.py --config cifar10 --batch_size 8 [--repeats 3]

The scores are exact under VPSDE(), and the error is the rms distance to the exact log-density, in nats per dimension.
With ``--config`` they are those of a mixture of 64 smooth random images of the config's shape, and every call pays a
pass of the config's network as well, whose output counts for nothing: the error stays exact and the time is the
network's. The plain one integrates the batch as one vector with one error norm, by scipy's RK45, and takes velocity and
divergence from one network call. Timings are interleaved, medians. The last line is JSON.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measure import random_model
from benchmarks.targets import TARGETS
from samplers import log_likelihood
from samplers.calls import Watch
from samplers.likelihood.divergence import draw_probes
from score_sde.run.device import choose_device
from sde import VPSDE, Denoiser, ScoreModel
from tests.oracles.exact import GaussianMixture


def plain(model, x: Tensor, rtol: float = 1e-5, atol: float = 1e-5) -> Tensor:
    """log p(x) (B,) in model units as the score-SDE code has it: the batch is one vector to scipy."""
    sde, probe = model.sde, draw_probes(tuple(x.shape), 1, 0, 0)[0].to(x)
    size = x.numel()

    def derivative(t: float, state: np.ndarray) -> np.ndarray:
        leaf = torch.from_numpy(state[:size]).to(x).view_as(x).requires_grad_()
        velocity = model.velocity(leaf, torch.tensor(t, dtype=torch.float64))
        (product,) = torch.autograd.grad(velocity, leaf, probe)
        trace = (product * probe).flatten(1).sum(1)
        return np.concatenate([part.detach().cpu().double().numpy().ravel() for part in (velocity, trace)])

    start = np.concatenate([x.cpu().double().numpy().ravel(), np.zeros(len(x))])
    end = solve_ivp(derivative, (sde.t_min, sde.t_max), start, rtol=rtol, atol=atol, method="RK45").y[:, -1]
    latent, trace = torch.from_numpy(end[:size]).view(x.shape), torch.from_numpy(end[size:])
    return sde.prior_log_prob(latent) + trace


class Priced(ScoreModel):
    """The exact score of a mixture of images at the price of a network; one call of it counts as one."""

    def __init__(self, network: Denoiser, modes: int = 64, std: float = 0.1) -> None:
        super().__init__(VPSDE(t_min=network.sde.t_min))
        self.network = network
        self.exact = GaussianMixture(self.sde, smooth(modes, network.event_shape), std)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.exact.forward(x, t) + 0 * self.network(x, t)

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """Exact log p_t(x), in float64."""
        exact = GaussianMixture(self.sde, self.exact.means.double(), self.exact.std)
        return exact.log_prob(x.double(), t)


def smooth(count: int, event_shape: tuple[int, ...], exponent: float = 1.2) -> Tensor:
    """Random items (count, *event) of std 0.5 whose spectrum falls as that of photographs does."""
    _, *space = event_shape
    frequencies = np.meshgrid(*[np.fft.fftfreq(size) for size in space], indexing="ij")
    radius = np.maximum(np.sqrt(sum(f**2 for f in frequencies)), 1 / max(space))
    noise = np.random.default_rng(0).standard_normal((count, *event_shape))
    axes = tuple(range(2, noise.ndim))
    items = np.fft.ifftn(np.fft.fftn(noise, axes=axes) / radius**exponent, axes=axes).real
    return torch.from_numpy(0.5 * items / items.std()).float()


WAYS = {
    "plain RK45 at 1e-5, one probe": plain,
    "plain RK45 at 1e-3, one probe": lambda model, x: plain(model, x, 1e-3, 1e-3),
    "one probe at 1e-3": lambda model, x: log_likelihood(model, x, probes=1, rtol=1e-3, atol=1e-3).nats,
    "one probe at 1e-5": lambda model, x: log_likelihood(model, x, probes=1).nats,
    "16 probes at 1e-4": lambda model, x: log_likelihood(model, x, probes=16, rtol=1e-4, atol=1e-4).nats,
    "exact trace at 1e-5": lambda model, x: log_likelihood(model, x).nats,
}
PRICED = [*WAYS][:3]
"""What is measured with ``--config``: the others take a hundred times as long there."""


def measure(model, x: Tensor, exact: Tensor, repeats: int, ways: list[str]) -> dict[str, dict]:
    """Root mean square error per dimension, calls and median seconds of each way."""
    found = {way: {"seconds": []} for way in ways}
    for _ in range(repeats):
        for way in ways:
            with Watch(model, len(x)) as counter:
                start = time.perf_counter()
                nats = WAYS[way](model, x)
                found[way]["seconds"].append(time.perf_counter() - start)
            gap = nats.double().cpu() - exact.double().cpu()
            found[way] |= {
                "rms": gap.square().mean().sqrt().item() / x[0].numel(),
                "nfe": counter.nfe.mean().item(),
            }
    return {way: row | {"seconds": statistics.median(row["seconds"])} for way, row in found.items()}


def show(title: str, rows: dict[str, dict]) -> None:
    """A Markdown table."""
    print(f"\n| {title} | rms error, nats/dim | calls | seconds |\n|---|---|---|---|")
    for way, row in rows.items():
        print(f"| {way} | {row['rms']:.1e} | {row['nfe']:.0f} | {row['seconds']:.2f} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default="ring,gmm16,digits", help="comma-separated")
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--config", help="measure the network of a config instead")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    options, overrides = parser.parse_known_args()
    try:
        if unknown := [name for name in options.targets.split(",") if name not in TARGETS]:
            raise ValueError(f"--targets={options.targets}: {unknown[0]} is none of {', '.join(TARGETS)}")
        device = choose_device(options.device)
        network = random_model(options.config, overrides, device)[2].eval() if options.config else None
    except ValueError as error:
        parser.error(str(error))
    if network is None:
        models = {name: TARGETS[name]() for name in options.targets.split(",")}
        for model in models.values():
            model.sde = VPSDE()
    else:
        models = {options.config: Priced(network).to(device)}
    results = {}
    for name, model in models.items():
        exact = getattr(model, "exact", model)
        count = options.batch_size if network else options.items
        x = exact.draw(count, torch.Generator().manual_seed(1)).to(device)
        density = model.log_prob(x, torch.tensor(model.sde.t_min, dtype=torch.float64))
        results[name] = measure(model, x, density, options.repeats, PRICED if network else [*WAYS])
        show(name, results[name])
        # The spread of four probes tells what one leaves, whatever the solver; the network's price is not needed.
        stderr = log_likelihood(exact, x, probes=4, rtol=1e-4, atol=1e-4).stderr
        limit = 2 * stderr.square().mean().sqrt().item() / x[0].numel()
        print(f"\none probe leaves {limit:.1e} nats/dim")
        results[name]["one probe leaves"] = limit
    print("\n" + json.dumps(results))


if __name__ == "__main__":
    main()
