"""Fast: what a device does with the project in a second, beside what it could."""

from benchmarks.fast.card import card
from benchmarks.fast.input import noise, reading
from benchmarks.fast.kernels import kernels
from benchmarks.fast.likelihood import likelihood
from benchmarks.fast.networks import dit, unet
from benchmarks.fast.sampling import sampling, sampling_dit, small_models
from benchmarks.sections import Section

SECTIONS = {
    # The others are held to what it finds.
    "card": Section(card, 8),
    "unet": Section(unet, 95),
    "dit": Section(dit, 30),
    "sampling": Section(sampling, 40),
    "small_models": Section(small_models, 25),
    "likelihood": Section(likelihood, 15),
    "sampling_dit": Section(sampling_dit, 15),
    "noise": Section(noise, 5),
    "reading": Section(reading, 12),
    "kernels": Section(kernels, 5),
}
"""By name, those with a goal first."""
