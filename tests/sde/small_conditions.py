"""Files of data with every kind of condition."""

import numpy as np


def arrays(tmp_path, count=60, **more):
    """An .npz of points, and the path to it."""
    rng = np.random.default_rng(0)
    vector = rng.normal(size=(count, 3)) * [1, 5, 0.2] + [0, 10, 3]
    held = {"x": rng.normal(size=(count, 2)), "vector": vector, "sequence": rng.normal(size=(count, 4, 2)),
            "image": rng.integers(0, 5, (count, 1, 2, 2)), "labels": np.arange(count) % 3}  # fmt: skip
    path = tmp_path / "arrays.npz"
    np.savez(path, **held | more)
    return path, held | more
