"""What the coverage of a set is where both sets have one law."""


def ideal_coverage(n: int, m: int, k: int = 5) -> float:
    """The mean of ``coverage`` where n samples and m data have one law: of the n + m - 1 others in order of their
    distance, the first k are not all data."""
    missed = 1.0
    for j in range(k):
        missed *= (m - 1 - j) / (n + m - 1 - j)
    return 1 - missed
