"""Error, network calls and seconds of log_likelihood against a plain one-probe RK45 by scipy.

    python benchmarks/likelihood.py [--items 64] [--targets ring,gmm16,digits]
    python benchmarks/likelihood.py --config cifar10 --batch_size 8 [--repeats 3]

On exact scores under VPSDE() the error is the rms distance to the exact log-density, in nats a dimension. With
``--config`` the network is the config's on random weights, and the error is the distance to the plain one with the same
probe, beside which stands what one probe leaves. The plain one integrates the batch as one vector with
one error norm, by scipy's RK45 at rtol = atol = 1e-5, and takes velocity and divergence from one network call. Timings
are interleaved, medians. The last line is JSON.
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
from commands.run import choose_device
from samplers import log_likelihood
from samplers.calls import CallCounter
from samplers.divergence import draw_probes
from sde import VPSDE


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


WAYS = {
    "plain RK45, one probe": plain,
    "one probe at 1e-3": lambda model, x: log_likelihood(model, x, probes=1, rtol=1e-3, atol=1e-3).nats,
    "one probe at 1e-5": lambda model, x: log_likelihood(model, x, probes=1).nats,
    "16 probes at 1e-4": lambda model, x: log_likelihood(model, x, probes=16, rtol=1e-4, atol=1e-4).nats,
    "exact trace at 1e-5": lambda model, x: log_likelihood(model, x).nats,
}


def measure(model, x: Tensor, exact: dict[str, Tensor], repeats: int, ways: list[str]) -> dict[str, dict]:
    """Root mean square error a dimension, calls and median seconds of each way."""
    found = {way: {"seconds": []} for way in ways}
    for _ in range(repeats):
        for way in ways:
            with CallCounter(model, len(x)) as counter:
                start = time.perf_counter()
                nats = WAYS[way](model, x)
                found[way]["seconds"].append(time.perf_counter() - start)
            gap = nats.double().cpu() - exact[way].double().cpu()
            found[way] |= {
                "rms": gap.square().mean().sqrt().item() / x[0].numel(),
                "calls": counter.calls.mean().item(),
            }
    return {way: row | {"seconds": statistics.median(row["seconds"])} for way, row in found.items()}


def show(title: str, rows: dict[str, dict]) -> None:
    """A Markdown table."""
    print(f"\n| {title} | rms error, nats/dim | calls | seconds |\n|---|---|---|---|")
    for way, row in rows.items():
        print(f"| {way} | {row['rms']:.1e} | {row['calls']:.0f} | {row['seconds']:.2f} |", flush=True)


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
    results = {}
    if network is None:
        for name in options.targets.split(","):
            model = TARGETS[name]()
            model.sde = VPSDE()
            x = model.draw(options.items, torch.Generator().manual_seed(1))
            t_min = torch.tensor(model.sde.t_min, dtype=torch.float64)
            results[name] = measure(model, x, dict.fromkeys(WAYS, model.log_prob(x, t_min)), options.repeats, [*WAYS])
            show(name, results[name])
    else:
        ways = ["plain RK45, one probe", "one probe at 1e-3"]
        # Networks begin with zeros at their ends, whose flow is linear and whose trace no probe misses.
        with torch.no_grad():
            for parameter in network.parameters():
                if not parameter.any():
                    parameter.normal_(0, 0.05)
        x = 0.5 * torch.randn(options.batch_size, *network.event_shape, device=device)
        spread = log_likelihood(network, x, probes=2, rtol=1e-3, atol=1e-3)
        limit = (2**0.5 * spread.stderr).square().mean().sqrt().item() / x[0].numel()
        plain_values = plain(network, x)
        results[options.config] = measure(network, x, dict.fromkeys(ways, plain_values), options.repeats, ways)
        show(f"{options.config}, distance to the plain one", results[options.config])
        print(f"\none probe leaves {limit:.1e} nats/dim")
        results["one probe leaves"] = limit
    print("\n" + json.dumps(results))


if __name__ == "__main__":
    main()
