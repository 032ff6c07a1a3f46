"""The judge: a classifier of a run's real training items, to judge samples by and to compare sets in its features."""

import hashlib
import json
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from score_sde.kinds import named_beside
from score_sde.kinds.base import Kind
from score_sde.run.folder import Run
from sde.condition.tree import require_labels
from sde.data import Dataset
from sde.data.statistics import spread
from sde.data.transform import Transform
from sde.files import write_whole

FEATURES = 64
SETTINGS: dict[str, Any] = {"features": FEATURES, "width": 32, "steps": 800, "batch_size": 128, "lr": 3e-3, "seed": 0}
"""What the network is made and trained by; another value is another network, in another file."""
FINGERPRINT_ITEMS = 1000
"""Training items that tell data apart, and the scale of features."""


class EvaluationClassifier(nn.Module):
    """Logits (B, classes) of items x (B, *event) in data units, by a small network that has seen no noise and no
    sample, that of the ``kind`` of data. ``digest`` is a hash of its data and settings."""

    def __init__(
        self, event_shape: tuple[int, ...], classes: int, transform: Transform, digest: str, kind: Kind
    ) -> None:
        super().__init__()
        self.transform, self.digest = transform, digest
        self.body, self.last = kind.judge(event_shape, SETTINGS["width"], FEATURES), nn.Linear(FEATURES, classes)
        self.register_buffer("scale", torch.ones(()))

    def features(self, x: Tensor) -> Tensor:
        """The layer before the last (B, 64) of x (B, *event), with a mean variance of 1 over training items."""
        return self._body(x) / self.scale

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self._body(x))

    def _body(self, x: Tensor) -> Tensor:
        return self.body(self.transform.encode(x).to(self.last.weight.dtype))

    def learn(self, data: Dataset) -> None:
        """Cross-entropy on random batches, Adam, a learning rate that rises and falls."""
        steps, generator = SETTINGS["steps"], torch.Generator().manual_seed(SETTINGS["seed"])
        optimizer = torch.optim.Adam(self.parameters(), lr=SETTINGS["lr"])
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, SETTINGS["lr"], total_steps=steps)
        for _ in range(steps):
            x, cond = data.batch(torch.randint(len(data), (SETTINGS["batch_size"],), generator=generator))
            labels = require_labels(cond)
            optimizer.zero_grad()
            F.cross_entropy(self(x), labels).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            self.scale = self._body(data.batch(spread(len(data), FINGERPRINT_ITEMS))[0]).var(0).mean().sqrt()

    def unfit(self, held_out: Dataset) -> str:
        """The sentence about a judge that is right too seldom to be used, "" for one that may be: its accuracy on
        held-out items, the mean over their classes, must be at least half way from chance to 1."""
        x, cond = held_out.batch(spread(len(held_out), FINGERPRINT_ITEMS))
        found, labels = self.classes(x), require_labels(cond)
        known = labels[labels >= 0].unique()
        if len(known) < 2:
            return "" if len(known) else "no held-out item has a class, so that nobody knows how often it is right"
        right = torch.stack([(found[labels == one] == one).double().mean() for one in known]).mean().item()
        least = (1 + 1 / len(known)) / 2
        if right >= least:
            return ""
        return (
            f"the classifier of real items is right about {right:.1%} of held-out ones (mean over {len(known)} "
            f"classes), and below {least:.1%} it judges nobody"
        )

    @torch.no_grad()
    def classes(self, x: Tensor, batch_size: int = 500) -> Tensor:
        """The classes (n,), on the CPU, that it takes the items x (n, *event) for."""
        device = self.last.weight.device
        return torch.cat([self(part.to(device)).argmax(1).cpu() for part in x.split(batch_size)])


def evaluation_classifier(run: Run, training: Dataset) -> EvaluationClassifier:
    """The classifier of a run's training items, in float64 on the CPU: trained once, and kept in the run's features/
    under its digest. Raises ValueError for data without classes, and for a damaged file."""
    classes = training.num_classes
    if training.labels is None or classes is None:
        raise ValueError("the data have no classes, so no classifier of them can be trained")
    digest = _digest(training, run.kind)
    path = run.folder / "features" / f"classifier-{digest[:12]}.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SETTINGS["seed"])
        network = EvaluationClassifier(training.event_shape, classes, training.transform.outer, digest, run.kind)

    def make() -> None:
        if not path.exists():
            print("training a small classifier of the real training items, once ...")
            network.learn(training)
            write_whole(path, to_safetensors(network.state_dict()))

    run.world.broadcast_from_main(make)
    try:
        network.load_state_dict(from_safetensors(path.read_bytes()))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged ({str(error).splitlines()[0]}): delete it, it is made again") from None
    return network.double().eval()


def _digest(data: Dataset, kind: Kind) -> str:
    """Of items spread over the set, their number and classes, the transform and SETTINGS, and the kind where it is not
    the one that the shape tells."""
    x, cond = data.batch(spread(len(data), FINGERPRINT_ITEMS))
    labels = require_labels(cond)
    named = named_beside(kind, data.event_shape)
    described = [len(data), data.num_classes, data.event_shape, data.transform.outer.digest, SETTINGS, named]
    about = json.dumps(described if named else described[:-1])
    return hashlib.sha256(about.encode() + x.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
