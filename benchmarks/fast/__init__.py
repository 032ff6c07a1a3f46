"""Fast: what a device does with the project in a second, beside what it could."""

from benchmarks.fast.card import card
from benchmarks.fast.input import noise, reading
from benchmarks.fast.kernels import kernels
from benchmarks.fast.likelihood import likelihood
from benchmarks.fast.networks import dit, unet
from benchmarks.fast.sampling import sampling, sampling_dit, small_models
from benchmarks.sections import Section

SECTIONS = {
    "card": Section(card, 15),
    "unet": Section(unet, 170),
    "sampling": Section(sampling, 80),
    "small_models": Section(small_models, 50),
    "noise": Section(noise, 10),
    "reading": Section(reading, 15),
    "likelihood": Section(likelihood, 40),
    "kernels": Section(kernels, 25),
    "dit": Section(dit, 60),
    "sampling_dit": Section(sampling_dit, 40),
}
"""By name, what matters most first: the last ones are those for which no time may be left."""
