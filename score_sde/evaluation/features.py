"""Features of items, in which --mode evaluate measures: the data themselves, their spectrum, a classifier's, or those
of a named network."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from score_sde.evaluation.judge import evaluation_classifier
from score_sde.kinds import named_beside
from score_sde.run.folder import Run
from sde.data import Dataset
from sde.device import has_float64
from sde.distributed.world import World
from sde.files import file_digest
from sde.networks.efficientnet_lite import load_efficientnet_lite

EXTRACTORS = ("data", "spectrum", "classifier", "inception")
WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
"""The file that torch-fidelity keeps in torch's cache of downloads."""


@dataclass(frozen=True)
class Extracted:
    """Of some items: their ``features`` (n, d), float64 on the CPU, and the ``prints`` (n,) by which equal items are
    known."""

    features: Tensor
    prints: list[bytes]

    def __len__(self) -> int:
        return len(self.prints)

    def rows(self, index: Tensor) -> "Extracted":
        """Those at some positions."""
        return Extracted(self.features[index], [self.prints[i] for i in index.tolist()])

    def found_in(self, others: "Extracted") -> int:
        """How many of the items equal one of the others to the last bit."""
        known = {*others.prints}
        return sum(one in known for one in self.prints)

    def repeated(self) -> int:
        """How many of the items equal another of them to the last bit."""
        return sum(count for count in Counter(self.prints).values() if count > 1)


@dataclass(frozen=True)
class Extractor:
    """``function`` takes items (B, *event) in data units on ``device`` to features (B, d); ``name`` says which, and
    ``digest`` is a hash of all that makes them."""

    name: str
    digest: str
    function: Callable[[Tensor], Tensor]
    device: torch.device

    def __call__(self, world: World, items: Callable[[slice], Tensor], count: int, batch_size: int) -> Extracted:
        """Of the ``count`` items at slices, ``batch_size`` at a time; several processes share the work, and each gets
        all of it. Raises ValueError for features that are not finite."""
        parts = world.all_gather_flat([self._part(items(rows)) for rows in world.batches(count, batch_size)])
        features = torch.cat([part.features for part in parts])
        if not features.isfinite().all():
            bad = int((~features.isfinite().all(1)).sum())
            raise ValueError(f"--features={self.name}: {bad} of {count} items have features that are not finite")
        return Extracted(features, [one for part in parts for one in part.prints])

    @torch.no_grad()
    def _part(self, x: Tensor) -> Extracted:
        features = self.function(x.to(self.device))
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(x):
            given = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"--features={self.name}: {len(x)} items gave {given}, it needs a tensor ({len(x)}, d)")
        prints = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in x.cpu().double().numpy()]
        return Extracted(features.cpu().double(), prints)


def extractor(run: Run, name: str, training: Dataset, download: bool = False) -> Extractor:
    """The extractor of ``--features``: one of EXTRACTORS, or the path of a TorchScript file or of weights of
    EfficientNet-Lite."""
    device = run.device if has_float64(run.device) else torch.device("cpu")
    if download and name != "inception":
        raise ValueError(f"--download is for --features inception; --features {name} would ignore it")
    kind = run.kind
    if name in ("data", "spectrum"):
        named = named_beside(kind, training.event_shape)
        function = kind.features(training.transform.outer)
        if name == "spectrum":
            function, named = kind.spectrum(training.transform.outer, training.event_shape, "--features=spectrum"), name
        digest = hashlib.sha256(f"{training.transform.outer.digest}{named}".encode()).hexdigest()
        return Extractor(name, digest, function, device)
    if name == "classifier":
        judge = evaluation_classifier(run, training).to(device)
        unfit = judge.unfit(run.data()[1])
        if unfit:
            raise ValueError(f"--features=classifier: {unfit}; use --features data, or spectrum for signals")
        return Extractor("classifier", judge.digest, judge.features, device)
    network, digest = _inception(download) if name == "inception" else _of_file(name)
    network = network.to(device).eval()
    convert = kind.network_input(training.transform.outer, training.event_shape, f"--features={name}")
    return Extractor(name, digest, lambda x: network(convert(x)), device)


def _of_file(path: str) -> tuple[torch.nn.Module, str]:
    """The network of a file, (B, 3, height, width) bytes -> (B, d), and the file's hash."""
    if not Path(path).is_file():
        raise ValueError(
            f"--features={path}: needs {', '.join(EXTRACTORS)}, or a TorchScript file that exists, or one of weights "
            "of EfficientNet-Lite (.safetensors)"
        )
    try:
        network = load_efficientnet_lite(Path(path)) if path.endswith(".safetensors") else _scripted(path)
    except ValueError as error:
        raise ValueError(f"--features={error}") from None
    return network, file_digest(Path(path))


def _scripted(path: str) -> torch.nn.Module:
    """A TorchScript module of a file. Raises ValueError, which begins with the path, for any other file."""
    try:
        # Opened here: torch refuses names that are not UTF-8.
        with open(path, "rb") as file:
            module = torch.jit.load(file, map_location="cpu")
    except RuntimeError as error:
        raise ValueError(
            f"{path} is no TorchScript file ({str(error).strip().splitlines()[0][:80]}): save one with "
            "torch.jit.script(module).save(path), as docs/evaluation.md shows"
        ) from None
    return _Scripted(module, path)


class _Scripted(torch.nn.Module):
    def __init__(self, module: torch.jit.ScriptModule, path: str) -> None:
        super().__init__()
        self.module, self.path = module, path
        # The Inception file of Karras et al. returns its features only when it is told to.
        forward: Any = module.forward
        named = any(argument.name == "return_features" for argument in forward.schema.arguments)
        self.options = {"return_features": True} if named else {}

    def forward(self, x: Tensor) -> Tensor:
        try:
            return self.module(x, **self.options)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1][:160]
            raise ValueError(
                f"--features={self.path} failed on bytes of shape {tuple(x.shape)} ({reason}): it must take uint8 "
                "images (B, 3, height, width) from 0 to 255, resize and scale them by itself, and return (B, d)"
            ) from None


def _inception(download: bool) -> tuple[torch.nn.Module, str]:
    """torch-fidelity's Inception, the one of the FID, and the hash of its weights."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise ValueError(
            "--features=inception needs torch-fidelity, which is not installed: pip install 'score-sde[inception]', or "
            "name a TorchScript file of it"
        ) from None
    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS
    if not (path.exists() or download):
        raise ValueError(
            f"--features=inception: its weights are not in {path}, and nothing is downloaded unasked: add --download "
            "(95 MB from github.com), or put the file there"
        )
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path) if path.exists() else None)
    return _First(network), file_digest(path)


class _First(torch.nn.Module):
    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[0]
