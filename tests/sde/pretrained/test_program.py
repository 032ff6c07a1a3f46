"""Denoisers as programs of torch.export: the same D in any number of rows, without this project."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from sde import VPSDE, Denoiser, Transform
from sde.networks import NETWORKS
from sde.pretrained.exports import EXPORTS
from sde.pretrained.program import PROGRAM, write_program
from tests.batteries.networks import OWN, randomise

SMALL = {
    "unet": {"channels": 8, "channel_mult": (1,), "num_res_blocks": 1, "attention_resolutions": (8,)},
    "ncsnpp": {"channels": 8, "channel_mult": (1,), "num_res_blocks": 1, "attention_resolutions": (8,)},
    "adm": {"channels": 32, "channel_mult": (1,), "num_res_blocks": 1, "attention_resolutions": (8,)},
    "linear_attention_unet": {"channels": 8, "channel_mult": (1,), "heads": (2,), "head_channels": (4,)},
    "dit": {"width": 16, "depth": 1, "heads": 2},
    "mlp": {"width": 8, "layers": 1},
    "hdit": {"widths": (8,), "depths": (1,), "head_widths": (8,), "mapping_width": 8},
    "mapped_unet": {"widths": (8,), "depths": (1,), "attended_levels": (0,), "mapping_width": 8},
}


def model(name, classes, **options):
    torch.manual_seed(0)
    shape = (6,) if name == "mlp" else (3, 8, 8)
    network = randomise(NETWORKS[name](shape, classes, **SMALL[name])).float()
    return Denoiser(network, VPSDE(), "v", 0.5, Transform((1.0,), (2.0,)), True, shape, **options).eval()


@pytest.mark.parametrize(("name", "classes"), [*((name, 3) for name in OWN), ("mlp", None)])
def test_every_network_goes_out_and_comes_back(name, classes, tmp_path):
    ours = model(name, classes)
    (path,) = write_program(ours, tmp_path / "export")
    assert path == tmp_path / "export" / PROGRAM
    theirs = torch.export.load(path).module()
    for rows in (1, 2, 5):
        x, t = torch.randn(rows, *ours.event_shape), torch.linspace(0.1, 1, rows)
        labels = torch.arange(rows) % (classes or 1) - 1
        cond = None if classes is None else {"labels": labels}
        with torch.no_grad():
            torch.testing.assert_close(theirs(x, t, cond), ours(x, t, cond), rtol=1e-4, atol=1e-5)


def test_it_needs_torch_alone(tmp_path):
    ours = model("mlp", None)
    write_program(ours, tmp_path)
    x = torch.randn(4, 6)
    torch.save((x, ours(x, torch.full((4,), 0.3)).detach()), tmp_path / "wanted.pt")
    program = (
        "import sys, torch; from pathlib import Path; here = Path(sys.argv[1])\n"
        f"run = torch.export.load(here / '{PROGRAM}').module()\n"
        "x, wanted = torch.load(here / 'wanted.pt')\n"
        "torch.testing.assert_close(run(x, torch.full((4,), 0.3), None), wanted, rtol=1e-4, atol=1e-5)\n"
        "assert not any(name.split('.')[0] in ('sde', 'samplers', 'score_sde') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=tmp_path, env={"PATH": ""})


class Counting(nn.Module):
    num_classes = None

    def forward(self, x, c_noise, cond=None):
        return x * float(x.sum().item())


def test_what_cannot_be_traced_is_refused(tmp_path):
    untraceable = Denoiser(Counting(), VPSDE(), event_shape=(3,))
    with pytest.raises(ValueError, match=r"torch\.export cannot trace this network \(.+\): it cannot be a program"):
        write_program(untraceable, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="does not say what shape its items have"):
        EXPORTS["torch_export"](Denoiser(Counting(), VPSDE()), tmp_path / "out")
