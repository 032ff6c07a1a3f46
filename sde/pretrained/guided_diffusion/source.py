"""guided-diffusion's files, and improved-diffusion's: state dicts of ADM and of its classifier."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor

from sde.model.noise_input import NoiseInput
from sde.networks.adm import ADM
from sde.networks.adm_classifier import ADMClassifier
from sde.networks.mapping import geometric_frequencies
from sde.pretrained.contents import Contents
from sde.pretrained.facts import MISSING, Facts
from sde.pretrained.foreign import AS_PUBLISHED, Foreign, check_size, empty_network, pixels
from sde.pretrained.guided_diffusion.agreement import check_agreement, fitting, size_of
from sde.pretrained.guided_diffusion.heads import all_told, heads_missing, heads_of, is_single, order_of
from sde.pretrained.guided_diffusion.keys import Architecture
from sde.pretrained.guided_diffusion.options import OPTION_KINDS as OPTION_KINDS
from sde.pretrained.guided_diffusion.options import OPTIONS as OPTIONS
from sde.pretrained.guided_diffusion.options import WHOLE
from sde.pretrained.names.adm import guided_diffusion_names
from sde.pretrained.names.theirs import translate
from sde.pretrained.schedules import linear_or_cosine, schedule_of, settle_schedule, told_flag

PROJECT = "guided-diffusion (Dhariwal and Nichol 2021; code MIT, weights as their publisher says)"

KNOWN_BY = {"time_embed.0.weight", "input_blocks.0.0.weight", "input_blocks.1.0.in_layers.0.weight", "out.0.weight"}
SCHEDULE = ("noise_schedule", "diffusion_steps")
ASSUMED = (
    "noise_schedule and diffusion_steps are not told: the classifier is taken as one of the linear schedule of 1000 "
    "steps, as the project's own are; tell them where it was trained on another"
)
FREQUENCIES = "encoder.embedding.mapping.frequencies"


def recognizes(contents: Contents) -> bool:
    """Whether a file is the state dict of one of guided-diffusion's networks."""
    return contents.kind == "torch" and contents.tensors().keys() >= KNOWN_BY


def read(contents: Contents, weights: str, facts: Facts) -> Foreign:
    """``ema_*.pt``, ``model*.pt``, and the files that are published: one network each, with averaged or raw weights as
    its name says, where it does. What has to be told are the size of images, the heads of attention and the order of q,
    k and v, and the schedule. Raises ValueError for a network of super-resolution, and as ``Source.read`` does."""
    tensors = contents.tensors()
    held = _held(contents.path.name, weights)
    found = fitting(tensors, facts)
    _require(tensors, found, facts)
    shape = found[0]
    if shape.pool is None and shape.outputs not in (shape.inputs, 2 * shape.inputs):
        raise ValueError(
            f"the network takes {shape.inputs} channels and returns {shape.outputs}: one of super-resolution, whose "
            "condition is a smaller image, is not read"
        )
    size = facts.settle("image_size", size_of(tensors, shape), int)
    check_agreement(shape, size, facts)
    classifier = shape.pool is not None
    check_size("image_size", [size], shape.factor)
    told = _tells_schedule(facts)
    # A classifier's logits depend on the number of the step alone.
    name, steps = settle_schedule(facts, *SCHEDULE) if told or not classifier else ("linear", 1000)
    process = linear_or_cosine(name, steps)
    num_classes = shape.outputs if classifier else shape.num_classes
    network = {
        "name": "adm",
        "channels": shape.base,
        "channel_mult": shape.channel_mult,
        "num_res_blocks": shape.num_res_blocks,
        "attention_resolutions": tuple(size >> level for level, there in enumerate(shape.attended) if there),
        "dropout": facts.get("dropout", 0.0),
        "adaptive": shape.adaptive,
        "resample_blocks": shape.resampled == "block",
        "resample_conv": shape.resampled != "pool",
        "group_channels": 1,
        **heads_of(shape, facts),
        **({"pool": shape.pool} if classifier else {"learned_variance": shape.outputs == 2 * shape.inputs}),
    }
    event_shape = (shape.inputs, size, size)
    ours = cast(ADM | ADMClassifier, empty_network(network, event_shape, num_classes, classifier))
    names = guided_diffusion_names(ours, order_of(shape, network, facts))
    tables = {FREQUENCIES: geometric_frequencies(shape.base // 2)}
    return Foreign(
        network=network,
        event_shape=event_shape,
        num_classes=num_classes,
        sde=process,
        state=translate(tensors, names, ours.state_dict(), computed=tables),
        parametrization="denoised" if told_flag(facts, "predict_xstart") else "noise",
        noise_input=NoiseInput("time", (steps - 1) * _per_step(facts, steps)),
        scaled_input=False,
        transform=pixels(),
        null_trained=shape.num_classes is None,
        classifier=classifier,
        levels=process.times.flip(0),
        origin={"weights": held},
        assumed="" if told or not classifier else ASSUMED,
    )


def _tells_schedule(facts: Facts) -> bool:
    return any(facts.told(name) is not MISSING for name in ("schedule", *SCHEDULE))


def _require(tensors: Mapping[str, Tensor], found: Sequence[Architecture], facts: Facts) -> None:
    """Ask at once for all that keys, shapes and facts leave open; ``found`` are the architectures that fit them."""
    shape, classifier = found[0], found[0].pool is not None
    needed: dict[str, Any] = {"image_size": size_of(tensors, shape)}
    if len(found) > 1:
        needed["num_res_blocks"] = MISSING
    if not classifier and shape.outputs == shape.inputs and shape.inputs % 2 == 0:
        # Else half of them may be a smaller image, and half of the outputs variances.
        needed["in_channels"] = MISSING
    if not classifier or _tells_schedule(facts):
        needed |= dict(zip(SCHEDULE, schedule_of(facts), strict=True))
        steps = facts.told("diffusion_steps") if needed["diffusion_steps"] is MISSING else needed["diffusion_steps"]
        if steps != 1000 and facts.told("schedule") is MISSING:
            needed["rescale_timesteps"] = MISSING
    if heads_missing(shape, facts):
        needed["num_head_channels"] = MISSING if facts.told("num_head_channels") is MISSING else 0
        needed["num_heads"] = 0 if needed["num_head_channels"] is MISSING else MISSING
    if not any(all_told(facts, names) for names in WHOLE) and not (
        not heads_missing(shape, facts) and is_single(shape, heads_of(shape, facts))
    ):
        needed["use_new_attention_order"] = MISSING
    facts.require(needed)


def _per_step(facts: Facts, steps: int) -> float:
    """By how much the time that the network is told rises with a step. improved-diffusion rescales it where nothing is
    told, guided-diffusion does not: they agree on a thousand steps alone. A text ``schedule`` names all that is on."""
    if steps != 1000 and facts.told("schedule") is MISSING:
        facts.settle("rescale_timesteps", kind=bool)
    return 1000 / steps if told_flag(facts, "rescale_timesteps") else 1.0


def _held(file: str, weights: str) -> str:
    """Which weights a file holds, in words. Raises ValueError where its name says that they are the others."""
    raw = re.fullmatch(r"model\d+\.pt", file) is not None
    if (raw and weights == "ema") or (file.startswith("ema_") and weights == "raw"):
        held, others = ("raw", "ema_RATE_STEP.pt") if raw else ("averaged", "modelSTEP.pt")
        raise ValueError(f"weights = {weights!r}: {file} holds the {held} weights alone, the others are in {others}")
    return weights if raw or file.startswith("ema_") else AS_PUBLISHED
