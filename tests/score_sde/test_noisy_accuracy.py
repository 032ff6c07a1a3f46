"""Accuracy of a noise-conditional classifier by noise level: exact on Gaussians, recorded, printed and drawn."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from score_sde.cli import main
from score_sde.evaluation.noisy_accuracy import NUM_LEVELS, NoisyAccuracy
from score_sde.plots.curves import ACCURACY, present
from sde.data import Dataset
from sde.data.transform import Transform
from tests.oracles.exact import GaussianMixture
from tests.score_sde.runs import call

MEANS, STD = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), 0.5


class Bayes(torch.nn.Module):
    """Exact logits of p(y | x_t); ``flipped`` says the other class."""

    num_classes = 2

    def __init__(self, sde, flipped=False):
        super().__init__()
        self.sde, self.mixture, self.sign = sde, GaussianMixture(sde, MEANS, STD), -1 if flipped else 1

    def forward(self, x, t):
        return self.sign * self.mixture.component_logits(x, t)


def test_the_best_classifier_of_two_gaussians(process):
    """Right with probability Phi(alpha m / sqrt(alpha^2 s^2 + sigma^2)) at every level, from the data to the noise."""
    labels = torch.arange(1000) % 2
    x = MEANS[labels] + STD * torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    noisy = NoisyAccuracy(Dataset(x, labels, 2, Transform()), Bayes(process), torch.device("cpu"))
    found = noisy.by_noise(Bayes(process))
    assert found == noisy.by_noise(Bayes(process)), "the same noise every time"
    sigma = np.array([level["noise_level"] for level in found])
    ends = (-0.5 * process.log_snr(torch.tensor([process.t_min, process.t_signal], dtype=torch.float64))).numpy()
    np.testing.assert_allclose(
        np.log(sigma), ends[0] + (ends[1] - ends[0]) * (np.arange(NUM_LEVELS) + 0.5) / NUM_LEVELS
    )
    expected = torch.special.ndtr(torch.from_numpy((STD**2 + sigma**2) ** -0.5)).numpy()
    error = np.sqrt(expected * (1 - expected) / 1000)
    accuracy = np.array([level["accuracy"] for level in found])
    assert (np.abs(accuracy - expected) < 4 * error + 1e-9).all()
    flipped = np.array([level["accuracy"] for level in noisy.by_noise(Bayes(process, flipped=True))])
    np.testing.assert_allclose(accuracy + flipped, 1)


def test_chance_is_the_largest_class(process):
    data = Dataset(torch.randn(10, 2), torch.tensor([2] * 6 + [0] * 4), 3, Transform())
    assert NoisyAccuracy(data, Bayes(process), torch.device("cpu")).chance == 0.6


@pytest.mark.rendered
def test_it_is_recorded_printed_and_drawn(trained, capsys):
    for path in (*trained.glob("classifier*.*"), *trained.glob("checkpoints/classifier*")):
        path.unlink()
    status = main.main(["--mode", "train_classifier", "--workdir", str(trained), "--config.classifier.steps=40"])
    out, _ = capsys.readouterr()
    assert status == 0
    result = json.loads(out.strip().splitlines()[-1])
    lines = [json.loads(line) for line in (trained / "classifier_metrics.jsonl").read_text().splitlines()]
    measured = [line for line in lines if "accuracy_by_noise" in line]
    assert [line["step"] for line in measured] == [10, 20, 30, 40]
    last = {f"{level['noise_level']:.3g}": level["accuracy"] for level in measured[-1]["accuracy_by_noise"]}
    assert result["accuracy"] == last
    assert len(last) == NUM_LEVELS
    assert 0.45 < result["chance"] < 0.55
    sentence = out[out.index("held-out accuracy by noise level") :].splitlines()[0]
    assert all(f"{sigma}: {value:.1%}" in sentence for sigma, value in last.items())
    with Image.open(trained / "classifier_curves.png") as image:
        tall = image.height
    assert tall > 1000, "loss, gradient norm and accuracy"
    # The same command, with nothing left to do, says it again.
    status, again, _ = call(capsys, "--mode", "train_classifier", "--workdir", trained)
    assert (status, again["accuracy"]) == (0, last)


def test_what_is_drawn():
    by_noise = [{"noise_level": 0.1, "accuracy": 0.9}, {"noise_level": 10.0, "accuracy": 0.3}]
    lines = [{"step": 5, "loss": 1.0}, {"step": 7, "accuracy_by_noise": by_noise, "chance": 0.25}]
    assert present([ACCURACY], lines) == [ACCURACY]
    assert present([ACCURACY], lines[:1]) == []
    figure, axes = plt.subplots()
    ACCURACY.draw(axes, lines)
    curves = {line.get_label(): np.array(line.get_data()) for line in axes.lines}
    plt.close(figure)
    np.testing.assert_array_equal(curves["step 7"], [[0.1, 10], [0.9, 0.3]])
    assert set(curves["the most frequent class"][1]) == {0.25}
    assert axes.get_xscale() == "log"
