"""The spectrum of signals: what they are compared in where the entries themselves say little."""

import math

import torch
from torch import Tensor

FLOOR = 1e-6
"""Power, of that of white noise with the variance 1, below which there is silence."""


def log_spectrum(x: Tensor) -> Tensor:
    """Of signals x (n, channels, length) in model units, per channel and frequency mean and standard deviation over
    time of the log magnitude of the short-time Fourier transform, (n, channels * 2 * frequencies), float64:

        log(|sum_k w_k x_{j + k} e^{-2 pi i f k / W}|^2 / sum_k w_k^2 + FLOOR) / 2

    with Hann's w in windows of W entries, half of which overlap. W is the power of two next to sqrt(2 length), so that
    there are about as many frequencies as windows; of no more than 16 entries there is one window, of all, and its log
    magnitudes alone. Phases and places in time are not told.
    """
    length, x = x.shape[-1], x.double()
    if length <= 16:
        power = torch.fft.rfft(x).abs().square() / length
        return (power + FLOOR).log().flatten(1) / 2
    width = min(length, 2 ** round(math.log2(2 * length) / 2))
    window = torch.hann_window(width, dtype=x.dtype, device=x.device)
    frames = x.unfold(-1, width, width // 2) * window
    power = torch.fft.rfft(frames).abs().square() / window.square().sum()
    logs = (power + FLOOR).log() / 2
    return torch.stack([logs.mean(2), logs.std(2, correction=0)], 2).flatten(1)
