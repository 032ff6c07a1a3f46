"""Run folder: config.json, model.safetensors, those of a classifier and an autoencoder, checkpoints/, metrics.jsonl,
samples/."""

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from score_sde.config.component import Component
from score_sde.config.config import pick, read_run_config, resolve
from score_sde.config.naming import FOLDER, with_keys
from score_sde.config.options import Config, PrecisionOptions, own_keys
from score_sde.config.program import program, quoted
from score_sde.kinds import KINDS, kind_of
from score_sde.kinds.base import About, Kind
from score_sde.run.device import arrange
from score_sde.run.latents import latents_of
from score_sde.run.low_rank import Updates
from score_sde.run.pipelines import LoadedPipeline
from score_sde.run.text import encoder_of_config
from score_sde.run.trained import as_trained
from sde import Denoiser, NoisyClassifier
from sde.autoencoder import Autoencoder, LatentTransform, in_latents
from sde.checkpoint.models import load_model, load_text, load_transform
from sde.checkpoint.snapshots import stored_spec
from sde.checkpoint.states import Checkpoints
from sde.condition.text import TextEncoder
from sde.data import Split, load_dataset
from sde.data.captions import TEXT
from sde.data.names import CLASS_NAMES
from sde.data.sizes import law_of
from sde.distillation import FlowMap
from sde.distributed.world import World
from sde.files import write_json
from sde.model.denoiser import Preconditioned


@dataclass
class Run:
    """A run folder and the options of the command."""

    folder: Path
    config: Config
    device: torch.device
    world: World = field(default_factory=World)
    weights: str = "model.safetensors"
    imports: tuple[str, ...] = ()
    compile: str = "auto"
    """Whether its networks are compiled, one of COMPILING."""
    init: Path | None = None
    """The weights of another run, with which training begins."""
    updates: Updates = Updates()
    """Files of low-rank updates, which are merged with the model."""
    pipeline: LoadedPipeline | None = None
    """What is loaded in place of the model file of a folder, which then takes the outputs alone."""
    init_pipeline: LoadedPipeline | None = None
    """The pipeline with which training of low-rank updates begins."""
    settings: dict[str, str] = field(default_factory=dict)
    """What the command set, by flag or key, which goes into the files it writes."""

    @property
    def model_file(self) -> Path:
        """The denoiser, EMA weights."""
        return self.folder / "model.safetensors"

    @property
    def weights_file(self) -> Path:
        """What the modes that use a trained model take: the model file, or another average."""
        return self.folder / self.weights

    @property
    def classifier_file(self) -> Path:
        """The noise-conditional classifier, EMA weights."""
        return self.folder / "classifier.safetensors"

    @property
    def autoencoder_file(self) -> Path:
        """The autoencoder, EMA weights."""
        return self.folder / "autoencoder.safetensors"

    @property
    def started(self) -> bool:
        """Whether training has left something to go on from."""
        return any((self.folder / "checkpoints").glob("*-*"))

    def checkpoints(self, name: str) -> Checkpoints:
        """The training states of a module."""
        return Checkpoints(self.folder / "checkpoints", name, self.world)

    def with_speed(self, speed: PrecisionOptions) -> "Run":
        """The same run with the precision and memory format that were settled."""
        run = replace(self, config=self.config.settled(**asdict(speed)))
        # What was read of the data stays read.
        vars(run).update({name: value for name, value in vars(self).items() if name not in vars(run)})
        return run

    @property
    def usual_sampler(self) -> Component:
        """What draws samples unless the command says otherwise, by config.json; of a pipeline, which has none, the
        default."""
        return resolve({} if self.pipeline else read_run_config(self.folder), []).sampler

    @cached_property
    def kind(self) -> Kind:
        """The kind of the data: that of ``config.data.kind``, or found from their files, and last from their shape."""
        data = self.config.data
        if data.kind:
            return KINDS[pick("config.data.kind", data.kind, KINDS)]
        return kind_of(self.event_shape, data.root)

    @cached_property
    def event_shape(self) -> tuple[int, ...]:
        """That of the model, for which the data need not be there, or of the data."""
        spec = {} if "items" in vars(self) else self.spec
        return tuple(spec["event_shape"]) if spec else self.items[0].event_shape

    @property
    def about(self) -> About:
        """Plain values of the data that writing an item needs, from the model, or from the data."""
        spec = {} if "items" in vars(self) else self.spec
        return spec.get("about", {}) if spec else self.items[0].about

    @property
    def sizes(self) -> list[list[int]] | None:
        """The law of the sizes of training items, pairs of a size and its count, from the model, or from the data; None
        for items that are real as a whole."""
        spec = {} if "items" in vars(self) else self.spec
        if spec:
            return spec.get("sizes")
        sizes = self.items[0].sizes
        return None if sizes is None else law_of(sizes)

    @property
    def class_counts(self) -> list[int] | None:
        """How many training items each class has, from the model, or from data that were read; None where neither
        tells, as runs of earlier versions do not."""
        known = self.spec.get("class_counts")
        return self.items[0].class_counts if known is None and "items" in vars(self) else known

    @property
    def levels(self) -> list[float]:
        """The times of the steps that the source of the weights takes itself; none where it has none."""
        return self.spec.get("levels") or []

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes by their numbers, where they have some."""
        return tuple(self.about.get(CLASS_NAMES, ()))

    @cached_property
    def begins_with(self) -> Path | None:
        """The weights of another run that training begins with: of a model that has no training state to go on from."""
        return None if self.checkpoints("denoiser").paths() else self.init

    @cached_property
    def _described(self) -> Path | None:
        """What says what the model is: the file of the weights, or where there is none the newest training state; of
        training that begins with another run, that. None where there is nothing yet."""
        own = (self.weights_file, *self.checkpoints("denoiser").paths())
        files = own if self.begins_with is None else (self.begins_with,)
        return next((path for path in files if path.is_file()), None)

    @cached_property
    def spec(self) -> dict:
        """What the model is, as its weights or its newest training state say; nothing where there is nothing yet."""
        if self.pipeline is not None:
            return self.pipeline.spec
        return {} if self._described is None else stored_spec(self._described)

    @cached_property
    def loaded(self) -> LoadedPipeline | None:
        """The pipeline that the model is, or that it updates; None for other models."""
        base = {} if self.pipeline else self.spec.get("base") or {}
        if "pipeline" in base:
            return LoadedPipeline(base["pipeline"], size=tuple(base["size"]))
        return self.pipeline or self.init_pipeline

    def values(self) -> dict:
        """The config as plain values, with what it leaves to be found."""
        values = self.config.to_dict()
        values["data"]["kind"] = self.kind.name
        usual = resolve({}, [])
        # Of students, and of models with a control, alone.
        for section in ("distillation", "control"):
            if getattr(self.config, section) == getattr(usual, section):
                del values[section]
        if TEXT not in self.config.data.conditions:
            # Of models that are told captions alone.
            del values["model"]["text"]
        return values

    def write_config(self) -> None:
        """config.json, resolved, and the names of the classes in classes.json, where they have some."""
        write_json(self.folder / "config.json", self.values())
        if self.class_names:
            write_json(self.folder / "classes.json", {str(i): name for i, name in enumerate(self.class_names)})

    @cached_property
    def items(self) -> Split:
        """The training and held-out data as they are, without the latents of an autoencoder."""
        own = {name: f"config.data.{name}" for name in own_keys(self.config.data.dataset)}
        with with_keys("data", **own):
            return as_trained(load_dataset(**self.config.data.arguments()), self.spec)

    @cached_property
    def text(self) -> TextEncoder | None:
        """The text encoder of the model, or of one that is still to be trained the one that the config describes; None
        for a model that is told no captions."""
        if self.loaded is not None:
            return self.loaded.model.text
        described = self._described
        if described is not None and (self.spec.get("text") or self.begins_with is None):
            return load_text(described)
        return None if TEXT not in self.config.data.conditions else encoder_of_config(self.config, self.items)

    @cached_property
    def _split(self) -> Split:
        train, test = self._with_text(self.items)
        learned = self._latents
        if learned is None or learned.num_levels != train.transform.num_levels:
            return train, test
        return in_latents(train, learned), in_latents(test, learned)

    def _with_text(self, parts: Split) -> Split:
        """Both parts of the data, with what the model is told of their captions, where it is."""
        if self.text is None or TEXT not in self.config.data.conditions:
            return parts
        with with_keys("data", "model.text"):
            return parts[0].with_text(self.text), parts[1].with_text(self.text)

    @property
    def _latents(self) -> LatentTransform | None:
        """The learned transform of the model, or of the autoencoder that the config names for one that is still to be
        trained, on the device; None for a model of items as they are."""
        if self.loaded is not None:
            transform = self.loaded.model.transform
            return transform.to(self.device) if isinstance(transform, LatentTransform) else None
        described, named = self._described, self.config.model.autoencoder
        with with_keys(imports="--imports"):
            found = None if described is None else load_transform(described, self.allowed_imports)
            if found is None and named and (described is None or self.begins_with is not None):
                train, scale = self.items[0], self.config.model.latent_scale
                found = latents_of(named, self.folder, scale, train, self.allowed_imports, self.device)
        return None if found is None else found.to(self.device)

    @property
    def names_data(self) -> bool:
        """Whether the config says where the data are, as that of weights from elsewhere may not."""
        return bool(self.config.data.root) or self.config.data.dataset not in ("images", "mnist")

    def data(self) -> Split:
        """The training and held-out data, which are read once."""
        return self._split

    @cached_property
    def student(self) -> dict | None:
        """How the flow map of a student was distilled; None where the model is a denoiser, or there is none yet."""
        return self.spec.get("flow_map")

    @property
    def no_score(self) -> str:
        """What a student says to whoever asks for a score."""
        taught = (self.student or {}).get("teacher")
        return (
            f"--workdir={self.folder} holds a student, which jumps from noise to data: it has no score, and so no "
            "likelihood, no latents, and nothing that edits, restores or shows its way"
            + (f"; its teacher has: --workdir={quoted(taught)}" if taught else "")
        )

    def model(self) -> Denoiser:
        """The trained denoiser on the device, in full precision: adaptive solvers would control its rounding. Raises
        ValueError for a student, which has no score."""
        model = self.sampled_model()
        if isinstance(model, FlowMap):
            raise ValueError(self.no_score)
        return model

    def sampled_model(self) -> Denoiser | FlowMap:
        """What samples are drawn by: ``model``, or of a student its flow map."""
        if self.pipeline is not None:
            return self.pipeline.model.to(self.device)
        if self.model_file.exists() and not self.weights_file.exists():
            raise ValueError(
                f"--weights={self.weights}: there is no such file in {self.folder}; beside model.safetensors it holds "
                f"{len([*self.folder.glob('ema/*.safetensors')])} in ema/ and "
                f"{len([*self.folder.glob('checkpoints/denoiser-*.pt')])} in checkpoints/"
            )
        with with_keys(**FOLDER, imports="--imports"):
            kind = "denoiser" if self.student is None else "flow_map"
            model: Any = load_model(self.weights_file, kind, self.allowed_imports).to(self.device)
        self.updates.merge(model)
        arrange(model.network, self.config.training.memory_format)
        return model

    def classifier(self) -> NoisyClassifier:
        """The trained classifier on the device."""
        return self._beside(self.classifier_file, "classifier")

    def autoencoder(self) -> Autoencoder:
        """The trained autoencoder on the device."""
        return self._beside(self.autoencoder_file, "autoencoder")

    def _beside(self, file: Path, kind: str) -> Any:
        """What is trained by a mode of its own name. Raises ValueError where it is not there."""
        if not file.exists():
            raise ValueError(
                f"{file} does not exist: train it with `{program()} --mode train_{kind} --workdir "
                f"{quoted(self.folder)}`"
            )
        with with_keys(imports="--imports"):
            return load_model(file, kind, self.allowed_imports).to(self.device)

    @property
    def allowed_imports(self) -> set[str]:
        """The import paths that the user named: in the config of the run, and by ``--imports``."""
        config = self.config
        named = (config.model.network, config.classifier.network, config.autoencoder.network, config.sde)
        return {*(component.name for component in named), *self.imports}

    def load(self, path: Path) -> Denoiser:
        """The denoiser of a file, on the CPU. Raises ValueError for one that asks to import what nobody named."""
        with with_keys(imports="--imports"):
            return load_model(path, "denoiser", self.allowed_imports)


def event_shape_of(model: Preconditioned) -> tuple[int, ...]:
    """Shape of the items of a trained model. Raises ValueError for one that does not say."""
    if model.event_shape is None:
        raise ValueError("the model does not say what shape its items have: build it with event_shape")
    return model.event_shape
