"""The spectrum of signals."""

import math

import pytest
import torch

from score_sde.kinds import KINDS
from score_sde.kinds.spectrum import FLOOR, log_spectrum
from sde.data.transform import Transform


def test_a_tone_is_its_frequency_and_no_phase():
    time = torch.arange(512, dtype=torch.float64)
    tones = torch.stack([torch.sin(2 * math.pi * 4 / 32 * time + phase) for phase in (0.0, 1.0)])[:, None]
    found = log_spectrum(tones).view(2, 1, 2, 17)
    assert found[:, 0, 0].argmax(1).tolist() == [4, 4]
    # Hann's window: |sum w e|^2 = (W / 4)^2 at the tone, sum w^2 = 3 W / 8.
    peak = 0.5 * math.log((32 / 4) ** 2 / (3 * 32 / 8) + FLOOR)
    torch.testing.assert_close(found[:, 0, 0, 4], torch.full((2,), peak, dtype=torch.float64), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(found[:, 0, 1, 4], torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-2)
    torch.testing.assert_close(log_spectrum(-tones), log_spectrum(tones))


def test_white_noise_is_flat():
    """E log |z|^2 of a complex normal number is minus Euler's constant."""
    x = torch.randn(50, 2, 2048, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inner = log_spectrum(x).view(50, 2, 2, -1)[:, :, 0, 1:-1]
    torch.testing.assert_close(inner.mean((0, 1)), torch.full((31,), -0.57722 / 2).double(), rtol=0, atol=0.05)


@pytest.mark.parametrize("length", [1, 2, 16, 17, 30, 96, 16000])
def test_of_any_length_and_of_silence(length):
    found = log_spectrum(torch.zeros(3, 2, length))
    assert found.isfinite().all()
    assert found.shape[1] <= 2 * 2 * (math.sqrt(2 * length) + 2)


def test_only_signals_have_one():
    features = KINDS["signal"].spectrum(Transform((1.0,), (2.0,)), (1, 64), "--features=spectrum")
    x = torch.randn(4, 1, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(features(1 + 2 * x), log_spectrum(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"--features=spectrum is for signals, .* shape \(1, 8, 8\): use data"):
        KINDS["image"].spectrum(Transform(), (1, 8, 8), "--features=spectrum")
