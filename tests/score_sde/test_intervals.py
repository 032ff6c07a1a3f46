"""The 95 % intervals hold the truth; benchmarks/coverage.py has the same in full."""

import pytest

from benchmarks.coverage import Case, cases, coverage, frechet, gaussian, line, of

SMALL = cases(60, 50)
PLANE = gaussian(2, 1), gaussian(2, 2, shift=0.8, spread=1.3)
CASES = {
    "frechet": Case(*PLANE, 60, 50, of("frechet"), frechet(*PLANE)),
    "kernel": SMALL["kernel"],
    "energy": SMALL["energy"],
    "sliced_wasserstein": Case(line(0, 1), line(0.8, 1.5), 60, 50, of("sliced_wasserstein"), 0.8**2 + 0.5**2),
    "accuracy": SMALL["accuracy"],
    "nearer": SMALL["memorized: nearer"],
}


@pytest.mark.parametrize("name", CASES)
def test_intervals_hold_the_truth(name):
    found = coverage(CASES[name], 200, 20)
    assert 0.9 <= found["covered"] <= 0.99


def test_the_bias_goes():
    law = gaussian(6, 1, decay=1.0)
    found = coverage(Case(law, law, 60, 50, of("frechet"), 0.0), 50, 10)
    assert found["value"] > 0.1
    assert abs(found["corrected"]) < found["value"] / 4
