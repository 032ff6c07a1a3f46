"""Fast: what a device does with the project in a second, beside what it could."""

from benchmarks.fast.card import card
from benchmarks.fast.kernels import kernels
from benchmarks.fast.likelihood import likelihood
from benchmarks.fast.networks import dit, unet
from benchmarks.fast.sampling import sampling, small_models
from benchmarks.sections import Section

SECTIONS = {
    "card": Section(card, 10),
    "unet": Section(unet, 140, 30),
    "sampling": Section(sampling, 60),
    "small_models": Section(small_models, 40, 40),
    "kernels": Section(kernels, 25),
    "likelihood": Section(likelihood, 30),
    "dit": Section(dit, 60),
}
