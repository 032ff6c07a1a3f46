"""--mode edit (SDEdit): the law that it keeps, that it is the library, and a sentence for every mistake."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from samplers import SAMPLERS, generate
from score_sde.run.sampling import draw
from sde import Transform
from sde.checkpoint.models import load_model
from sde.guidance.classifier_free import ClassifierFree
from tests.oracles.exact import Gaussian
from tests.score_sde.runs import call, untrained

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    x = np.random.default_rng(0).integers(0, 16, (40, *SHAPE))
    folder = tmp_path_factory.mktemp("runs") / "run"
    return untrained(folder, x, np.arange(40) % 2, "--config.data.num_levels=16")


def edit(capsys, run, out, *flags):
    start = ["--mode", "edit", "--workdir", run.folder, "--out", out, "--steps", 3, "--sampler", "ancestral"]
    status, result, error = call(capsys, *start, *flags)
    assert status == 0, error
    return dict(np.load(f"{out}.npz")), result


@pytest.mark.parametrize("sampler", ["unipc", "sa_solver"])
def test_data_that_are_noised_and_brought_back_have_the_law_of_data(process, sampler):
    """Mean and variance over starts drawn from the data, and what is kept of each start: x_t = alpha x_0 + sigma z is
    correlated with x_0, and the flow, a monotone map, loses no more of that."""
    mean, std, count = 13.0, 4.0, 4000
    transform = Transform((3.0,), (10.0,))
    model = Gaussian(process, torch.tensor([1.0], dtype=torch.float64), 0.4, transform=transform)
    start = mean + std * torch.randn((count, 1), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t = process.t_of_log_snr(torch.tensor(-1.0, dtype=torch.float64))
    x = generate(model, SAMPLERS[sampler](), count, (1,), steps=40, grid="log_snr", start=start, start_time=t.item(),
                 batch_size=count).x  # fmt: skip
    # Four standard errors, and one per cent for the steps and the noise that is left at t_min.
    assert x.mean().item() == pytest.approx(mean, abs=std * (4 * count**-0.5 + 0.01))
    assert x.std().item() == pytest.approx(std, rel=4 * (2 * count) ** -0.5 + 0.01)
    if sampler == "unipc":
        kept = (1 + (process.sigma(t) / (0.4 * process.alpha(t))).square().item()) ** -0.5
        assert torch.corrcoef(torch.cat([x, start], 1).T)[0, 1].item() == pytest.approx(kept, abs=4 * count**-0.5)


@pytest.mark.rendered
def test_edit_is_the_library(run, tmp_path, capsys):
    flags = ["--items", "4,1,7", "--start_time", "0.2,0.6", "--labels", "1,0", "--guidance_scale", 2, "--seed", 3]
    numbers, result = edit(capsys, run, tmp_path / "e", *flags)
    _, held_out = run.data()
    x, cond = held_out.batch(torch.tensor([4, 1, 7]))
    model = ClassifierFree(load_model(run.model_file), torch.tensor([1, 0, 1]), 2.0)
    for i, time in enumerate((0.2, 0.6)):
        expected = generate(model, SAMPLERS["ancestral"](), 3, SHAPE, steps=3, seed=3, start=x, start_time=time)
        assert np.abs(numbers["x"][:, i] - expected.x.numpy()).max() <= 1, "floored, and else the same"
        assert np.abs(numbers["x"][:, i] - expected.x.numpy()).mean() < 0.01
        assert result["nfe"][i] == expected.mean_nfe
        assert result["changes"][i] == pytest.approx((expected.x - x).square().mean().sqrt().item(), rel=0.01)
    assert np.array_equal(numbers["input"], x)
    assert np.array_equal(numbers["labels"], cond["labels"])
    assert (numbers["index"].tolist(), numbers["conditions"].tolist()) == ([4, 1, 7], [1, 0, 1])
    assert result["start_times"] == numbers["start_times"].tolist() == [0.2, 0.6]
    with Image.open(result["picture"]) as image:
        assert image.height > 3 * 8
    parts, _ = edit(capsys, run, tmp_path / "p", *flags, "--batch_size", 1)
    assert np.abs(parts["x"] - numbers["x"]).max() <= 1
    assert np.abs(parts["x"] - numbers["x"]).mean() < 0.01


def test_little_noise_changes_little(run, tmp_path, capsys):
    _, result = edit(capsys, run, tmp_path / "e", "--start_time", "0.002,0.1,0.9")
    assert result["changes"][0] < result["changes"][1] < result["changes"][2]
    assert result["changes"][0] < 0.5
    assert result["num_items"] == 8


def test_a_time_that_is_given_twice_is_taken_once(run, tmp_path, capsys):
    numbers, result = edit(capsys, run, tmp_path / "e", "--start_time", "0.5,0.2,0.50", "--items", 1)
    assert result["start_times"] == [0.5, 0.2]
    assert numbers["x"].shape[:2] == (1, 2)


def test_files_of_ones_own(run, tmp_path, capsys):
    numbers, _ = edit(capsys, run, tmp_path / "e", "--items", "2", "--start_time", "0.5")
    np.savez(tmp_path / "own.npz", x=numbers["input"])
    Image.fromarray((numbers["input"][0, 0] * 17).astype(np.uint8)).save(tmp_path / "own.png")
    for name in ("own.npz", "own.png"):
        again, _ = edit(capsys, run, tmp_path / "f", "--input", tmp_path / name, "--start_time", "0.5")
        assert np.array_equal(again["x"], numbers["x"])


def test_classes_in_a_file_of_ones_own_are_those_of_its_items(run, tmp_path, capsys):
    np.savez(tmp_path / "own.npz", x=np.zeros((2, *SHAPE)), labels=np.array([1, 0]))
    flags = ["--input", tmp_path / "own.npz", "--start_time", "0.5", "--labels", "data"]
    numbers, _ = edit(capsys, run, tmp_path / "e", *flags)
    assert numbers["labels"].tolist() == numbers["conditions"].tolist() == [1, 0]


@pytest.mark.parametrize(("flags", "words"), [
    (["--start_time", "0.5,1.5"], "--start_time=0.5,1.5: 1.5 is out of range, allowed are times above t_min = 0.001"),
    (["--start_time", "0.001"], "0.001 is out of range"),
    (["--start_time", "nan"], "nan is out of range"),
    (["--start_time", "late"], "--start_time=late: needs times, as in 0.3,0.5,0.7"),
    (["--grid", "0.5,0.1,0.01"], "--grid=0.5,0.1,0.01 begins at one time, --start_time=0.3,0.5,0.7 has 3"),
    (["--grid", "0.5,0.1,0.01", "--start_time", "0.6"], "grid starts at 0.5"),
    (["--sampler", "auto"], "--sampler=auto: a plan begins at noise"),
    (["--items", "10"], "10 is out of range, allowed are 0 to 9"),
    (["--items", "1", "--num_samples", "3"], "--items=1 and --num_samples=3: each says which items to take"),
    (["--labels", "2"], "class 2 is out of range"),
    (["--guidance_scale", "2"], "give --labels"),
    (["--task", "inpaint"], "--task is for --mode restore"),
])  # fmt: skip
def test_mistakes(run, capsys, flags, words):
    status, result, error = call(capsys, "--mode", "edit", "--workdir", run.folder, *flags)
    assert (status, result) == (2, None)
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert not (run.folder / "samples").exists()


class Second:
    """The second of two processes, as far as drawing knows."""

    is_main, size = True, 2

    def rows(self, n):
        return slice(n // 2, n)

    def gather(self, part):
        return [part]


def test_processes_share_the_starts(run):
    model, sampler = load_model(run.model_file), SAMPLERS["ddim"]()
    start = run.data()[1].batch(torch.arange(4))[0]
    options = {"steps": 3, "start": start, "start_time": 0.4}
    whole = generate(model, sampler, 4, SHAPE, **options)
    part = draw(replace(run, world=Second()), model, sampler, 4, SHAPE, **options)
    assert part.seeds == whole.seeds[2:]
    assert (part.x - whole.x[2:]).abs().max() <= 1
    assert (part.x - whole.x[2:]).abs().mean() < 0.01
