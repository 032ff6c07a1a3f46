"""Kernels that a sampler starts on a GPU in each step, and how often it waits for one, counted where there is none.

    python benchmarks/launches.py [--steps 10] [--against diffusers]

The device is simulated (tests/oracles/simulated_device.py): values lie on the CPU, what would be a kernel is counted.
The network is one multiplication, so that the kernels are those of the sampler and of the preconditioned call.
``--against diffusers`` (to be installed beside this project) counts its schedulers on the same network,
``scale_model_input`` included. The last line is JSON.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measure import ADAPTIVE
from samplers import SAMPLERS, SCORE_SAMPLERS, generate, log_likelihood
from sde import VPSDE, Denoiser
from tests.oracles import simulated_device as sim

SHAPE = (4, 1, 8, 8)
PEERS = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpmpp": "DPMSolverMultistepScheduler",
    "deis": "DEISMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "heun": "HeunDiscreteScheduler",
    "ancestral": "DDPMScheduler",
}


class Factor(nn.Module):
    """A network of one multiplication."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.7]))

    def forward(self, x: Tensor, c_noise: Tensor, cond=None) -> Tensor:
        return x * self.weight


def counted(function) -> tuple[int, int]:
    """Kernels started and waits of function()."""
    with torch.no_grad(), sim.watching() as seen:
        function()
    return seen.launches.total(), len(seen.waits)


def ours(steps: int) -> dict[str, dict[str, float]]:
    """Of each sampler, per step, or where it chooses its steps per network call; and of the likelihood."""
    model = Denoiser(Factor(), VPSDE()).eval().to(sim.NAME)
    rows = {}
    for name, factory in ((name, SAMPLERS[name]) for name in SCORE_SAMPLERS):
        fixed, taken = name not in ADAPTIVE, []

        def run(factory=factory, taken=taken, fixed=fixed) -> None:
            taken += generate(
                model, factory(), len(SHAPE[1:]) + 1, SHAPE[1:], seed=3, **({"steps": steps} if fixed else {})
            ).nfe.tolist()

        launches, waits = counted(run)
        # An adaptive sampler of single samples makes its calls one after the other.
        calls = steps if fixed else sum(taken) / (1 if name == "reverse_sde" else len(taken))
        rows[name] = {"launches": round(launches / calls, 1), "waits": waits if fixed else round(waits / calls, 2)}
    x = torch.linspace(-1, 1, 256).view(SHAPE).to(sim.NAME)
    found = []
    with sim.watching() as seen:
        found += log_likelihood(model, x, rtol=1e-3, atol=1e-3, probes=2).nfe.tolist()
    rows["likelihood"] = {"launches": round(seen.launches.total() / max(found), 1), "waits": len(seen.waits)}
    return rows


def peers(steps: int) -> dict[str, float]:
    """Of diffusers' schedulers, per step, with the network's call."""
    import diffusers

    network = Factor().to(sim.NAME)
    rows = {}
    for name, kind in PEERS.items():
        scheduler = getattr(diffusers, kind)()
        scheduler.set_timesteps(steps)
        x = torch.ones(SHAPE).to(sim.NAME)

        def run(scheduler=scheduler, x=x) -> None:
            for t in scheduler.timesteps:
                output = network(scheduler.scale_model_input(x, t), t)
                x = scheduler.step(output, t, x).prev_sample

        try:
            rows[name] = round(counted(run)[0] / steps, 1)
        except RuntimeError as error:
            print(f"diffusers {kind}: {str(error).splitlines()[0]}", file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--against", choices=["diffusers"])
    options = parser.parse_args()
    if not sim.available:
        raise SystemExit(f"torch {torch.__version__} has no interface for devices that are written in Python")
    sim.install()
    rows, others = ours(options.steps), peers(options.steps) if options.against else {}
    print("| sampler | kernels per step, or per call where it is adaptive | waits | diffusers |\n|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {row['launches']} | {row['waits']} | {others.get(name, '')} |")
    print(json.dumps({"steps": options.steps, "ours": rows, "diffusers": others}))


if __name__ == "__main__":
    main()
