"""Precision, memory layout and memory of training: what is tried, what is kept, what is said."""

import pytest
import torch

from score_sde.cli.command import continued
from score_sde.config.config import read_config, resolve
from score_sde.run.device import arrange
from score_sde.run.folder import Run
from score_sde.training import precision as speed
from score_sde.training import rehearsal
from score_sde.training.memory import dry_run, out_of_memory
from score_sde.training.rehearsal import Rehearsal
from sde import VPSDE, Denoiser
from sde.autoencoder import LatentTransform, LinearAutoencoder, in_latents
from sde.checkpoint.spec import build_denoiser
from sde.data import Dataset
from sde.data.transform import Transform
from sde.networks import MLP
from sde.training.augmentation import Augmentation
from sde.training.loss import denoising_loss
from sde.training.options import TrainingOptions
from tests.oracles.machine import Machine
from tests.sde.small_training import same, trainer

UNET = {"network": {"name": "unet", "channels": 8}, "event_shape": [1, 8, 8], "num_classes": None,
        "sde": {"name": "vp"}, "parametrization": "edm", "sigma_data": 1.0,
        "transform": {"shift": [0.0], "scale": [1.0], "levels": None}, "null_trained": True}  # fmt: skip


def run(tmp_path, *overrides):
    from score_sde.config.config import config_path

    return Run(tmp_path, resolve(read_config(config_path("points")), list(overrides)), torch.device("cpu"))


def settled(tmp_path, monkeypatch, capsys, seconds, *overrides, small=0):
    """What is chosen where passes take these seconds, and what was printed."""

    def tried(*arguments):
        ways = {" ".join(choice): seconds[choice] for choice in arguments[-1]}
        return Machine(ways).fastest()

    monkeypatch.setattr(speed, "LEAST_PARAMETERS", small)
    monkeypatch.setattr(speed, "_try", tried)
    where, training = run(tmp_path, *overrides), trainer()
    options = where.config.training.optimization
    found = speed.settle(Rehearsal(where, training.module, training.data, denoising_loss, options))
    kept = where.with_speed(found).config.training
    assert (kept.precision, kept.memory_format) == (found.precision, found.memory_format)
    return (found.precision, found.memory_format), training.module, capsys.readouterr().out


SECONDS = {("float32", "contiguous"): 0.1, ("float32", "channels_last"): 0.09, ("bfloat16", "contiguous"): 0.07,
           ("bfloat16", "channels_last"): 0.05}  # fmt: skip


def test_the_fastest_is_chosen_and_kept(tmp_path, monkeypatch, capsys):
    chosen, module, out = settled(tmp_path, monkeypatch, capsys, SECONDS)
    assert chosen == ("bfloat16", "channels_last")
    assert module.autocast == torch.bfloat16
    assert out.splitlines()[-1] == (
        "a training pass takes 100 ms in float32 contiguous, 90 ms in float32 channels_last, 70 ms in bfloat16 "
        "contiguous, 50 ms in bfloat16 channels_last (6 turns): bfloat16 channels_last is 2 times as fast (98% sure of "
        "2 to 2) as float32 contiguous; training in bfloat16 channels_last"
    )


def test_a_small_gain_is_none(tmp_path, monkeypatch, capsys):
    seconds = {choice: max(value, 0.09) for choice, value in SECONDS.items()}
    assert settled(tmp_path, monkeypatch, capsys, seconds)[0] == ("float32", "contiguous")


def test_small_networks_try_nothing(tmp_path, monkeypatch, capsys):
    chosen, module, out = settled(tmp_path, monkeypatch, capsys, SECONDS, small=10**9)
    assert (chosen, module.autocast, out) == (("float32", "contiguous"), None, "")


def test_what_is_asked_for_is_done(tmp_path, monkeypatch, capsys):
    chosen = settled(tmp_path, monkeypatch, capsys, SECONDS, "--config.training.precision=float32",
                     "--config.training.memory_format=contiguous")  # fmt: skip
    assert chosen[0] == ("float32", "contiguous")


def test_trying_leaves_the_model_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "PASS_SECONDS", 0.001)
    where, training = run(tmp_path, "--config.training.batch_size=8"), trainer()
    before = {name: value.clone() for name, value in training.module.state_dict().items()}
    random = torch.get_rng_state()
    choices = [*SECONDS]
    options = where.config.training.optimization
    found = speed._try(Rehearsal(where, training.module, training.data, denoising_loss, options), choices)
    assert [*found.seconds] == [" ".join(choice) for choice in choices]
    assert all(0 < value < 60 for times in found.seconds.values() for value in times)
    assert found.turns >= 6
    assert same(before, training.module.state_dict())
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None for p in training.module.parameters())


@pytest.mark.parametrize(("each", "most", "count"), [(0.001, 32, 32), (0.01, 32, 16), (0.03, 24, 4), (1.0, 32, 1)])
def test_few_items_are_enough(monkeypatch, each, most, count):
    """As many as take up to PASS_SECONDS, which leaves time for turns."""
    machine = Machine({})
    monkeypatch.setattr(rehearsal.time, "perf_counter", machine)
    assert rehearsal.few(lambda n: machine.work("pass", n * each), most, torch.device("cpu")) == count


def test_what_was_found_is_kept_until_asked_again(tmp_path):
    """A run that goes on keeps it, whether or not its config is named again; "auto" on the command line tries again."""
    found = {"precision": "bfloat16", "memory_format": "channels_last"}
    run(tmp_path, *(f"--config.training.{key}={value}" for key, value in found.items())).write_config()
    (tmp_path / "checkpoints" / "denoiser-0000001.pt").mkdir(parents=True)
    again = "--config.training.precision=auto"
    for overrides, precision in (([], "bfloat16"), ([again], "auto"), (["--config.training.steps=7"], "bfloat16")):
        training = continued(run(tmp_path, *overrides), overrides).config.training
        assert (training.precision, training.memory_format) == (precision, "channels_last")


def test_layouts_change_no_value():
    model = build_denoiser(UNET).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor(0.4)
    before = model(x, t)
    arrange(model.network, "channels_last")
    weight = model.network.encoder.levels[0][0].block.conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x, t), before)
    arrange(model.network, "contiguous")
    assert weight.is_contiguous()


def test_rehearsal_of_memory_changes_nothing():
    rehearsed, straight = trainer(3), trainer(3)
    assert "GiB" in dry_run(rehearsed)
    for run in (rehearsed, straight):
        with torch.random.fork_rng():
            for _ in range(3):
                run.training_step()
    assert same(rehearsed.state_dict(), straight.state_dict())


@pytest.mark.parametrize(("error", "section", "words"), [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "training",
     r"out of memory \(CUDA .*--config.training.gradient_accumulation=2 \(now 1\), or "
     r"--config.training.precision=bfloat16 \(now float32\), or --config.training.batch_size=256 \(now 512\)"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "classifier", "config.classifier.batch_size="),
])  # fmt: skip
def test_out_of_memory_names_remedies(tmp_path, error, section, words):
    config = run(tmp_path, "--config.training.precision=float32", "--config.training.batch_size=512").config
    with pytest.raises(ValueError, match=words), out_of_memory(config, section):
        raise error


def test_other_errors_pass(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory(run(tmp_path).config):
        raise RuntimeError("shapes do not fit")


def test_what_is_tried_is_what_is_trained(tmp_path):
    """Items are augmented before an autoencoder makes latents of them that are no images, and the network is told."""
    coder = LinearAutoencoder.of(torch.linalg.qr(torch.randn(64, 5))[0].T, (1, 8, 8), (5,))
    images = Dataset(torch.randn(12, 1, 8, 8), None, None, Transform((0.5,), (2.0,)))
    data, seen = in_latents(images, LatentTransform(coder, images.transform)), []
    model = Denoiser(MLP((5,), width=8, layers=1), VPSDE(), transform=data.transform)

    def loss(model, x0, cond, draws):
        seen.append((x0, cond["augmentation"]))
        return denoising_loss(model, x0, None, draws)

    augmentation = Augmentation("edm", 0.0, augment_dim=9)
    passes, most = Rehearsal(run(tmp_path), model, data, loss, TrainingOptions(batch_size=12), augmentation).passes()
    passes(most)
    x0, told = seen[0]
    mirrored = told[:, 0] > 0
    assert 0 < mirrored.sum() < most == 12
    wanted = torch.where(mirrored.view(-1, 1, 1, 1), images.items.flip(-1), images.items)
    torch.testing.assert_close(x0, data.transform.encode(wanted), rtol=1e-4, atol=1e-4)
