"""Time of the sampling loop over that of its bare network calls: what samplers and preconditioning cost.

    python benchmarks/loop.py [--batch_size 16] [--steps 100] [--repeats 51] [--samplers ddim,heun] [--sde vp]
    python benchmarks/loop.py --config cifar10 --batch_size 16 --steps 5 --repeats 3

Without ``--config`` the network is trivial (it returns its input) and the data are points in the plane; with it, the
network is the config's, on random weights. Loop and bare calls, as many as the loop made, are interleaved in one run;
medians. The last line is JSON.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measure import ADAPTIVE, random_model, seconds
from samplers import SAMPLERS, SCORE_SAMPLERS, SeededNoise, sample
from samplers.grid import make_grid
from score_sde.run.device import choose_device
from sde import SDES, Denoiser
from sde.guidance import ClassifierFree


class Nothing(nn.Module):
    """A network that takes no time; counts its calls."""

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0
        self.num_classes = getattr(inner, "num_classes", 10)

    def forward(self, x: Tensor, c_noise: Tensor, cond=None) -> Tensor:
        self.calls += 1
        return x if self.inner is None else self.inner(x, c_noise, cond)


def build(options: argparse.Namespace, overrides: list[str], device: torch.device) -> tuple[Denoiser, tuple[int, ...]]:
    """The score model, and the shape of its data."""
    if options.config is None:
        return Denoiser(Nothing(), SDES[options.sde]()).to(device).eval(), (2,)
    _, data, model = random_model(options.config, overrides, device)
    model.eval()
    model.network = Nothing(model.network)
    return model, data.event_shape


@torch.no_grad()
def measure(model: Denoiser, name: str, x: Tensor, options: argparse.Namespace) -> dict[str, float]:
    """Medians for one sampler."""
    labels = torch.arange(len(x), device=x.device) % 10
    sampled = ClassifierFree(model, labels, 2.0) if options.guided else model
    # Guidance takes both of its branches in one batch.
    seen = torch.cat([x, x]) if options.guided else x
    sampler = SAMPLERS[name]()
    times = make_grid(model.sde, sampler.grid, options.steps)
    c_noise = x.new_zeros(len(seen))

    def loop() -> None:
        noise = SeededNoise(range(len(x))) if options.seeded else torch.randn_like
        sample(sampled, sampler, x * model.sde.prior_std(), times, noise)

    model.network.calls = 0
    loop()
    calls = model.network.calls

    def bare() -> None:
        for _ in range(calls):
            model.network(seen, c_noise, None)

    taken = {"loop": [], "bare": []}
    for _ in range(options.repeats):
        for key, function in (("loop", loop), ("bare", bare)):
            taken[key].append(seconds(function, x.device))
    whole, network = (statistics.median(taken[key]) for key in ("loop", "bare"))
    return {
        "nfe": calls,
        "loop_s": round(whole, 5),
        "bare_s": round(network, 5),
        "us_per_step": round(1e6 * (whole - network) / options.steps, 1),
        "us_per_call": round(1e6 * (whole - network) / calls, 1),
        "ratio": round(whole / network, 4),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="a config file, or the name of one in configs/; default: a trivial network")
    parser.add_argument("--sde", default="vp", choices=tuple(SDES), help="of the trivial network")
    parser.add_argument("--guided", action="store_true", help="with classifier-free guidance")
    parser.add_argument("--samplers", help="comma-separated; default: all with fixed steps")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=51)
    parser.add_argument("--seeded", action="store_true", help="noise of seeds, as generate has, not randn_like")
    parser.add_argument("--device", default="auto")
    options, overrides = parser.parse_known_args()
    names = options.samplers.split(",") if options.samplers else [n for n in SCORE_SAMPLERS if n not in ADAPTIVE]
    try:
        if unknown := [name for name in names if name not in SCORE_SAMPLERS]:
            raise ValueError(f"--samplers={options.samplers}: {unknown[0]} is none of {', '.join(SCORE_SAMPLERS)}")
        device = choose_device(options.device)
        model, event_shape = build(options, overrides, device)
    except ValueError as error:
        parser.error(str(error))
    x = torch.randn(options.batch_size, *event_shape, device=device)
    results = {}
    print(f"{'sampler':16s} {'nfe':>6s} {'loop, s':>9s} {'bare, s':>9s} {'us/step over':>13s} {'loop / bare':>12s}")
    for name in names:
        found = results[name] = measure(model, name, x, options)
        print(
            f"{name:16s} {found['nfe']:6d} {found['loop_s']:9.4f} {found['bare_s']:9.4f} "
            f"{found['us_per_step']:13.1f} {found['ratio']:12.3f}",
            flush=True,
        )
    print(
        json.dumps(
            {
                "config": options.config,
                "batch_size": options.batch_size,
                "steps": options.steps,
                "device": str(device),
                "threads": torch.get_num_threads(),
                "samplers": results,
            }
        )
    )


if __name__ == "__main__":
    main()
