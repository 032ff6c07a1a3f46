"""Transforms of specs: elementwise ones and autoencoders as plain values, and with fresh weights from them."""

from collections.abc import Mapping

from sde.autoencoder import Autoencoder, LatentTransform, autoencoder_of
from sde.data.transform import Transform, TransformLike
from sde.named import construct


def build_transform(described: dict) -> Transform | LatentTransform:
    """The transform of a spec, whose number of levels is stored as "levels"; a learned one, whose "autoencoder" is
    described as ``build_autoencoder`` takes it and its "outer" transform as other ones, with fresh weights."""
    if "autoencoder" in described:
        return LatentTransform(build_autoencoder(described["autoencoder"]), _elementwise(described["outer"]))
    return _elementwise(described)


def _elementwise(described: Mapping) -> Transform:
    num_levels = described.get("num_levels", described.get("levels"))
    return Transform(described["shift"], described["scale"], num_levels)


def describe_transform(transform: TransformLike) -> dict:
    """The inverse of ``build_transform``. Raises ValueError for a learned one whose autoencoder has no ``spec``."""
    if isinstance(transform, LatentTransform):
        spec = transform.autoencoder.spec
        if spec is None:
            kind = type(transform.autoencoder).__name__
            raise ValueError(f"the {kind} cannot be stored: build it by build_autoencoder, or set its spec")
        return {"autoencoder": dict(spec), "outer": describe_transform(transform.outer)}
    outer = transform.outer
    return {"shift": list(outer.shift), "scale": list(outer.scale), "levels": outer.num_levels}


def build_autoencoder(described: Mapping) -> Autoencoder:
    """An autoencoder with fresh weights of its ``name`` in AUTOENCODERS or import path, its ``event_shape`` and other
    options, which its ``spec`` says from then on."""
    options = dict(described)
    name, event_shape = options.pop("name"), tuple(options.pop("event_shape"))
    built = construct(autoencoder_of(name, "autoencoder"), "autoencoder", name, options, event_shape)
    built.spec = dict(described)
    return built


def autoencoder_described(spec: Mapping) -> dict:
    """What ``build_autoencoder`` takes, of the spec of an autoencoder's own file, which has the keys network and
    event_shape. What else it holds, the ``outer`` transform that leads from data units to the autoencoder's, is for
    others."""
    return {**spec["network"], "event_shape": list(spec["event_shape"])}
