"""Noises that are told, for steps whose answer is known."""

import torch


def unit(x):
    return torch.ones_like(x)


def nothing(x):
    return torch.zeros_like(x)


def never(x):
    raise AssertionError("drew noise")


def clock(sde, t):
    return (-sde.log_snr(t)).exp()
