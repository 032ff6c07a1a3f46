"""The judge: a classifier of images, in a network's features or on their pixels, and features that are kept on disk."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from sde.files import whole
from sde.networks.efficientnet_lite import load_efficientnet_lite

CHUNK = 256
"""Images whose features are one file: what was done is not done again when a long run is cut."""
INVERSE_PENALTY = {"features": 0.003, "pixels": 0.003}
"""The classifier's C, on standardized entries."""
SIDE = 32
"""The pixels per side that the judge on pixels sees at most."""


@dataclass(frozen=True)
class Features:
    """EfficientNet-Lite's features, of the weights in a file, kept in ``folder``."""

    weights: Path
    folder: Path
    device: str = "cpu"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(n, 1280) of images (n, 3, height, width), uint8."""
        digest, network = hashlib.sha256(self.weights.read_bytes()).digest(), None
        found = []
        for part in np.array_split(images, range(CHUNK, len(images), CHUNK)):
            content = digest + str(part.shape).encode() + np.ascontiguousarray(part).tobytes()
            path = self.folder / f"{hashlib.sha256(content).hexdigest()[:24]}.npy"
            if not path.exists():
                network = network or load_efficientnet_lite(self.weights).to(self.device)
                with torch.no_grad(), whole(path) as file:
                    np.save(file, network(torch.from_numpy(part).to(self.device)).cpu().numpy())
            found.append(np.load(path))
        return np.concatenate(found)


def pixels(images: np.ndarray) -> np.ndarray:
    """(n, d) of images (n, 3, height, width), uint8: their pixels in 0..1, means over squares where they are larger
    than SIDE."""
    x = torch.from_numpy(images).float() / 255
    return (F.adaptive_avg_pool2d(x, SIDE) if max(x.shape[2:]) > SIDE else x).flatten(1).numpy()


class Judge:
    """Multinomial logistic regression in which each category weighs the same, fitted to rows (n, d) of ``labels``
    (n,)."""

    def __init__(self, rows: np.ndarray, labels: np.ndarray, inverse_penalty: float) -> None:
        machine = LogisticRegression(C=inverse_penalty, class_weight="balanced", max_iter=500)
        self.machine = make_pipeline(StandardScaler(), machine).fit(rows, labels)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """The categories (n,) that rows (n, d) look like."""
        return self.machine.predict(rows)
