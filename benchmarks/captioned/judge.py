"""The judge: a classifier of images, in a network's features or on their pixels, and features that are kept on disk."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from sde.files import file_digest, whole
from sde.networks.efficientnet_lite import load_efficientnet_lite

CHUNK = 256
"""Images whose features are written at once: what was done is not done again when a long run is cut."""
INVERSE_PENALTY = 1e-3
"""The classifier's C, on standardized entries; on emoji, tenfold changes of it move accuracies by about 3 points."""
SIDE = 32
"""The pixels per side that the judge on pixels sees at most."""


class Features:
    """EfficientNet-Lite's features of images, of the weights in a file; what is ``known`` is kept in a folder, image by
    image."""

    def __init__(self, weights: Path, folder: Path, device: str = "cpu") -> None:
        self.network = load_efficientnet_lite(weights).to(device)
        self.folder, self.device = folder / file_digest(weights)[:16], device
        self.known: dict[bytes, np.ndarray] = {}
        for path in sorted(self.folder.glob("*.npz")):
            with np.load(path) as held:
                self.known |= dict(zip(map(bytes, held["keys"]), held["rows"], strict=True))

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(n, 1280) of images (n, 3, height, width), uint8."""
        keys = [
            hashlib.blake2b(f"{image.shape}".encode() + image.tobytes(), digest_size=16).digest() for image in images
        ]
        missing = [*{key: image for key, image in zip(keys, images, strict=True) if key not in self.known}.items()]
        for start in range(0, len(missing), CHUNK):
            new, part = zip(*missing[start : start + CHUNK], strict=True)
            rows = self.network(torch.from_numpy(np.stack(part)).to(self.device)).cpu().numpy()
            with whole(self.folder / f"{new[0].hex()}.npz") as file:
                np.savez(file, keys=np.array([[*key] for key in new], np.uint8), rows=rows)
            self.known |= dict(zip(new, rows, strict=True))
        return np.stack([self.known[key] for key in keys])


def pixels(images: np.ndarray) -> np.ndarray:
    """(n, d) of images (n, 3, height, width), uint8: their pixels in 0..1, means over squares where they are larger
    than SIDE."""
    x = torch.from_numpy(images).float() / 255
    return (F.adaptive_avg_pool2d(x, SIDE) if max(x.shape[2:]) > SIDE else x).flatten(1).numpy()


class Judge:
    """Multinomial logistic regression in which each category weighs the same, fitted to rows (n, d) of ``labels``
    (n,)."""

    def __init__(self, rows: np.ndarray, labels: np.ndarray, inverse_penalty: float = INVERSE_PENALTY) -> None:
        machine = LogisticRegression(C=inverse_penalty, class_weight="balanced", max_iter=500)
        self.machine = make_pipeline(StandardScaler(), machine).fit(rows, labels)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """The categories (n,) that rows (n, d) look like."""
        return self.machine.predict(rows)
