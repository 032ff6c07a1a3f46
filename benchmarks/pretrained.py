"""Time and memory of loading foreign weights of about 60 M parameters, each in a process of its own:
``python benchmarks/pretrained.py``. Random weights of CIFAR-10's NCSN++, as score_sde writes it, and of ADM, as
guided-diffusion does; the peak is that of the process above one that has imported torch and loaded nothing."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from sde import VESDE, Denoiser, NoiseInput
from sde.networks.adm import ADM
from sde.networks.ncsnpp import NCSNpp
from sde.pretrained.foreign import pixels
from sde.pretrained.names.adm import guided_diffusion_names
from sde.pretrained.score_sde.checkpoint import write_score_sde

MIB = 2**20


def score_sde_file(folder: Path) -> tuple[Path, dict[str, Any]]:
    """A checkpoint with averages, and its facts."""
    network = NCSNpp(
        (3, 32, 32), None, channels=128, channel_mult=(1, 2, 2, 2), num_res_blocks=4, attention_resolutions=(16,),
        frequency_unit="cycle", centered=False, scale_by_sigma=True, log_sigma=(1.0, 0.0),
    )  # fmt: skip
    told = NoiseInput("log_noise_level", 1.0)
    model = Denoiser(network, VESDE(0.01, 50.0), "score", 1.0, pixels(0.0), True, (3, 32, 32), noise_input=told,
                     scaled_input=False)  # fmt: skip
    path, config = write_score_sde(model, folder / "score_sde")
    return path, json.loads(config.read_text())


def guided_diffusion_file(folder: Path) -> tuple[Path, dict[str, Any]]:
    """A state dict, and its facts."""
    network = ADM(
        (3, 32, 32), None, channels=128, channel_mult=(1, 2, 2, 2), num_res_blocks=4, attention_resolutions=(16, 8),
        head_channels=64, group_channels=1,
    )  # fmt: skip
    names = guided_diffusion_names(network, "heads, qkv, channels")
    state = {key: value for key, value in network.state_dict().items() if not key.endswith("frequencies")}
    path = folder / "ema_0.9999_000001.pt"
    torch.save({names[key].name: names[key].back(value).contiguous() for key, value in state.items()}, path)
    told = {"image_size": 32, "model_channels": 128, "num_head_channels": 64, "schedule": "cosine, 1000 steps"}
    return path, told | {"use_new_attention_order": False}


CHILD = """
import json, re, sys, time
import torch
def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1024
sys.path.insert(0, sys.argv[1])
# What the process was before counts no more (Linux).
open("/proc/self/clear_refs", "w").write("5")
before, begin = peak(), time.perf_counter()
from sde.pretrained import load_pretrained
model = load_pretrained(sys.argv[2], weights=sys.argv[4], facts=json.loads(open(sys.argv[3]).read()))
# Files are mapped: what was not used was not read.
total = sum(p.double().sum().item() for p in model.parameters())
found = [time.perf_counter() - begin, peak() - before, sum(p.numel() for p in model.parameters())]
del model
open("/proc/self/clear_refs", "w").write("5")
begin = time.perf_counter()
from score_sde.cli.main import main
folder, source = sys.argv[3] + "-run-" + sys.argv[4], ["--facts", sys.argv[3], "--weights", sys.argv[4]]
assert main(["--mode", "import", "--pretrained", sys.argv[2], "--workdir", folder, *source]) == 0
print(json.dumps([*found, time.perf_counter() - begin, peak() - before]))
"""
"""What is measured: seconds, MiB at most above those of ``import torch``, and parameters, of load_pretrained; and
seconds and MiB of --mode import."""


def main() -> None:
    """Prints a row for each file."""
    root = str(Path(__file__).resolve().parents[1])
    with tempfile.TemporaryDirectory() as name:
        for make, weights in ((score_sde_file, "ema"), (score_sde_file, "raw"), (guided_diffusion_file, "ema")):
            path, facts = make(Path(name))
            told = Path(name) / f"{make.__name__}.json"
            told.write_text(json.dumps(facts))
            command = [sys.executable, "-c", CHILD, root, str(path), str(told), weights]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seconds, peak, parameters, more_seconds, more_peak = json.loads(out.splitlines()[-1])
            size = 4 * parameters / MIB
            print(
                f"{make.__name__} ({weights}): {parameters / 1e6:.1f} M parameters, {size:.0f} MiB; load_pretrained "
                f"{seconds:.1f} s, {peak / size:.2f} times that at most; --mode import {more_seconds:.1f} s, "
                f"{more_peak / size:.2f} times"
            )


if __name__ == "__main__":
    main()
