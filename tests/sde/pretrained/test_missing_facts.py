"""What files do not say is asked for at once, by name and meaning; and what is told is of its kind, used or not."""

import re

import pytest
import torch

from sde.pretrained import SOURCES, load_pretrained, read_pretrained
from sde.pretrained.facts import Facts
from sde.pretrained.foreign import AS_PUBLISHED, check_size
from tests.oracles.foreign import fixture
from tests.oracles.score_sde_file import NCSNPP, SMALL, ours, written

FREE = {"score_sde": {"device"}, "diffusers": {"solver_p"}}
"""Options of any type."""


@pytest.mark.parametrize("source", SOURCES)
def test_every_option_has_a_kind(source):
    options, kinds = SOURCES[source].OPTIONS, SOURCES[source].OPTION_KINDS
    assert {*options} - {*kinds} == FREE.get(source, set())
    assert {*kinds} <= {*options}
    for name in kinds:
        with pytest.raises(ValueError, match=rf"^facts: {name} = .*: needs "):
            Facts({name: object()}, options, kinds)


FILES = {
    "score_sde-ve-ncsnpp-continuous": "checkpoint_1.pth",
    "score_sde-vp-ddpm-discrete": "checkpoint_1.pth",
    "guided-diffusion": "ema_0.9999_000001.pt",
}
USUAL = {"noise_schedule": "linear", "diffusion_steps": 1000, "rescale_timesteps": False, "sigma_min": 0.01,
         "sigma_max": 50, "num_scales": 40, "beta_min": 0.1, "beta_max": 20, "fir_kernel": [1, 3, 3, 1],
         "fir": False, "skip_rescale": False}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_is_asked_for_is_enough(name):
    """Nothing but the answers to the one sentence; and without any of them it is asked for by itself."""
    found = fixture(name)
    path, about = found.folder / FILES[name], found.about
    known = USUAL | about.get("model", {}) | about.get("data", {}) | about.get("kwargs", {})
    known |= {key: about[key] for key in ("sde", "continuous") if key in about}
    with pytest.raises(ValueError, match=r"^facts: .* are needed: the file does not say them$") as asked:
        read_pretrained(path)
    names = re.findall(r"(\w+) \(", str(asked.value))
    assert len(names) > 3
    told = {name: known[name] for name in names}
    read_pretrained(path, facts=told)
    if name == "guided-diffusion":
        told.pop("rescale_timesteps")
        read_pretrained(path, facts=told)


def test_what_linear_attention_leaves_open(tmp_path):
    found = fixture("denoising-diffusion-pytorch")
    content = torch.load(found.folder / "model-1.pt", weights_only=False)
    del content["model"]["loss_weight"], content["ema"]["ema_model.loss_weight"]
    torch.save(content, tmp_path / "model-1.pt")
    with pytest.raises(ValueError, match=r"^facts: image_size \(.*\) and objective \(.*\) are needed"):
        read_pretrained(tmp_path / "model-1.pt")
    read_pretrained(tmp_path / "model-1.pt", facts={"objective": "pred_v"})


def test_sizes_that_a_network_does_not_take():
    path = fixture("denoising-diffusion-pytorch").folder / "model-1.pt"
    for size in (17, [16, 17]):
        with pytest.raises(ValueError, match=r"^facts: image_size = 17: the network of the file takes multiples of 2"):
            read_pretrained(path, facts={"image_size": size})
    for size in (0, -2):
        with pytest.raises(ValueError, match=f"^facts: image_size = {size}: .* as 2$"):
            read_pretrained(path, facts={"image_size": size})
    with pytest.raises(ValueError, match="needs one side, or height and width"):
        read_pretrained(path, facts={"image_size": [16]})
    check_size("input_size", (8, 12), (4, 6))
    with pytest.raises(ValueError, match=r"^facts: input_size = 14: .* multiples of 6 alone, as 12$"):
        check_size("input_size", (8, 14), (4, 6))


def test_facts_of_no_use_are_read_all_the_same():
    path = fixture("denoising-diffusion-pytorch").folder / "model-1.pt"
    with pytest.raises(ValueError, match=r"^facts: flash_attn = 'no': needs true or false$"):
        load_pretrained(path, facts={"image_size": 16, "flash_attn": "no"})
    with pytest.raises(ValueError, match=r"^facts: image_size = '16': needs a whole number or a list of numbers$"):
        load_pretrained(path, facts={"image_size": "16"})


def test_of_a_state_dict_by_itself_nobody_says_whether_it_is_averaged(tmp_path):
    facts, path = SMALL | NCSNPP | {"name": "ncsnpp"}, tmp_path / "checkpoint_1.pth"
    written(path, ours(facts), facts)
    assert read_pretrained(path, weights="raw", facts=facts).origin["weights"] == "raw"
    torch.save(torch.load(path)["model"], path)
    assert read_pretrained(path, weights="raw", facts=facts).origin["weights"] == AS_PUBLISHED
