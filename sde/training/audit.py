"""The audit before the first step: the data as the model will see them."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from sde.autoencoder.base import Autoencoder
from sde.condition.tree import check_labels
from sde.data.dataset import Dataset
from sde.data.names import CLASS_NAMES, class_title
from sde.data.outliers import OUTLIER_GAP, outliers
from sde.device import double
from sde.model.classifier import NoisyClassifier
from sde.model.denoiser import Preconditioned
from sde.process.base import SDE
from sde.training.ignored_inputs import ignored_inputs

MAX_PRIOR_MISMATCH = 1e-3
"""Nats per dimension of ``prior_mismatch`` above which a process ends too early."""


def prior_mismatch(sde: SDE, mean: Tensor, var: Tensor) -> tuple[float, float]:
    """Bounds on KL(q(x_T) || prior), in nats per dimension, from the data's mean m and variance v in model units.

    With a = alpha(t_max), s = sigma(t_max) and the prior N(0, p^2), for each dimension and averaged over them:

        lower = KL(N(a m, a^2 v + s^2) || N(0, p^2)),   upper = E_x0 KL(N(a x0, s^2) || N(0, p^2)).

    The lower one compares moments; what is left out, correlations and shape, only adds. The upper one is the prior term
    of the variational bound (Kingma et al. 2021, eq. 11), above the KL of the mixture by convexity. mean, var (*event).
    """
    t = double(sde.t_max)
    signal, noise, prior = (2 * sde.log_alpha(t)).exp(), sde.sigma(t) ** 2, sde.prior_std() ** 2
    surplus = (noise - prior) / prior
    shift, spread = signal * mean.square() / prior, signal * var / prior
    lower = 0.5 * (surplus + spread - torch.log1p(surplus + spread) + shift)
    upper = 0.5 * (surplus - torch.log1p(surplus) + spread + shift)
    return lower.mean().item(), upper.mean().item()


def describe(data: Dataset) -> dict:
    """Plain values: of the items their count, shape, type and range, in model units the mean, standard deviation over
    everything and root mean square; the number of items of each class, or None."""
    statistics, (mean, var) = data.statistics, data.moments
    return {
        "count": len(data),
        "measured": statistics.count,
        "event_shape": list(data.event_shape),
        "dtype": str(data.items.dtype).removeprefix("torch."),
        "levels": data.transform.num_levels,
        "low": statistics.low,
        "high": statistics.high,
        "mean": mean.mean().item(),
        "std": (var.mean() + mean.var(correction=0)).sqrt().item(),
        "sigma_data": data.sigma_data,
        "classes": data.class_counts,
    }


def audit(data: Dataset, model: Preconditioned | NoisyClassifier | Autoencoder) -> list[str]:
    """Lines on the data as ``model`` will see them. Warns of what is unlikely to be meant, and raises ValueError for
    what cannot be: items that are not finite, labels out of range, a network that ignores its input.

    ``model`` is a Denoiser, a FlowMap, a NoisyClassifier or an Autoencoder, before it is compiled or spread over
    devices; it stays as it is.
    """
    about = describe(data)
    _warn_of_units(data, about)
    _warn_of_outliers(data)
    inner = f", latents of {'x'.join(map(str, data.inner_shape))}" if data.transform.learned else ""
    units = f"in model units{inner}: mean {about['mean']:.3f}, std {about['std']:.3f}"
    if isinstance(model, Autoencoder):
        return [_items_line(data, about), units]
    if model.num_classes and data.labels is not None:
        check_labels(data.labels, model.num_classes)
    lower, upper = prior_mismatch(model.sde, *data.moments)
    lines = [
        _items_line(data, about),
        f"{units}, sigma_data {about['sigma_data']:.3f} (the model's: {model.sigma_data:.3f})",
        f"prior: KL(q(x_T) || prior) is between {lower:.1e} and {upper:.1e} nats per dimension"
        if upper > 0
        else "prior: the process ends at pure noise, which is the prior itself",
    ]
    _warn_of_noise(data, model, upper)
    _warn_of_conditions(data)
    ignored = ignored_inputs(model, data.inner_shape)
    if ignored:
        raise ValueError(
            f"the network ignores {', and '.join(ignored)}: use it in the network's forward, or train without "
            "conditions by conditional=False"
        )
    if data.about.get("columns"):
        lines.append(f"columns: {', '.join(data.about['columns'])}")
    if data.conditions:
        lines.append(
            "conditions: "
            + ", ".join(f"{kind} {'x'.join(map(str, shape))}" for kind, shape in data.condition_shapes.items())
        )
    return lines + ([] if about["classes"] is None else [_histogram(about["classes"], data.about.get(CLASS_NAMES, ()))])


def _items_line(data: Dataset, about: dict) -> str:
    """The line on the items themselves."""
    measured = "" if about["measured"] == len(data) else f" (of {about['measured']:,} measured)"
    kind = f"{about['levels']} levels" if about["levels"] else "continuous"
    sizes = "" if data.sizes is None else f" and sizes from {int(data.sizes.min())} to {int(data.sizes.max())}"
    shape = "x".join(map(str, data.event_shape)) + sizes
    return (
        f"data: {len(data):,} items of shape {shape}, {about['dtype']}, {kind}, from "
        f"{about['low']:g} to {about['high']:g}{measured}"
    )


def _histogram(counts: list[int], names: Sequence[str] = ()) -> str:
    if len(counts) <= 12:
        shown = [f"{label} ({names[label]})" if label < len(names) else str(label) for label in range(len(counts))]
        return "items of class " + ", ".join(f"{label}: {count:,}" for label, count in zip(shown, counts, strict=True))
    least, most = counts.index(min(counts)), counts.index(max(counts))
    return (
        f"{len(counts):,} classes of {counts[least]:,} ({class_title(least, names)}) to {counts[most]:,} "
        f"({class_title(most, names)}) items, "
        f"{sum(counts) / len(counts):.1f} on average"
    )


def _warn(sentence: str) -> None:
    warnings.warn(sentence, UserWarning, stacklevel=4)


def _warn_of_units(data: Dataset, about: dict) -> None:
    """Data that are probably read in another way than meant."""
    statistics, transform, event = data.statistics, data.transform.outer, data.event_shape
    if not transform.num_levels and statistics.whole and statistics.low >= 0 and 10 < statistics.high <= 255:
        _warn(
            f"the items are floats, but all of them whole numbers from {statistics.low:g} to {statistics.high:g}: they "
            "are taken as continuous, in channel 0 by model = (data - "
            f"{transform.shift[0]:.4g}) / {transform.scale[0]:.4g}; for quantized data, set num_levels=256"
        )
    std, scale = statistics.channels()[1], double(transform.scale)
    by_channel = std.shape == scale.shape and not transform.num_levels
    squeezed = ((std > 0) & (std < 0.1 * scale)).nonzero().flatten().tolist() if by_channel else []
    if squeezed:
        channel = squeezed[0]
        _warn(
            f"channel {channel} of the data is scaled by {scale[channel]:.4g}, but its standard deviation is "
            f"{std[channel]:.4g} in the {statistics.count:,} items that were measured: a few values elsewhere are far "
            "from all others; repair or remove such items"
        )
    elif data.transform.learned and (abs(about["mean"]) > 1 or not 0.1 <= about["std"] <= 3):
        _warn(
            f"in model units the latents have mean {about['mean']:.3g} and standard deviation {about['std']:.3g}: "
            "their autoencoder was made for other items, or for other values of them"
        )
    elif abs(about["mean"]) > 1 or not 0.1 <= about["std"] <= 3:
        chosen = f"levels = {transform.num_levels}" if transform.num_levels else f"scale {transform.scale[0]:.3g}"
        _warn(
            f"in model units the data have mean {about['mean']:.3g} and standard deviation {about['std']:.3g}: a "
            f"transform with {chosen} does not fit values from {about['low']:g} to {about['high']:g}; look at "
            "`num_levels`"
        )
    # What is real in a single item varies in none.
    measured = statistics.var if statistics.counts is None else statistics.var[statistics.counts > 1]
    constant = int((measured == 0).sum())
    if constant and not transform.num_levels:
        _warn(
            f"{constant} of {statistics.var.numel()} dimensions of the data are constant: they have no density, so "
            "that likelihoods will say how small t_min is; leave them out, or declare `num_levels`"
        )
    last, none = len(event) > 1 and event[-1] <= 4 < event[0], len(event) == 2 and event[0] == event[1] > 4
    if last or none:
        remedy = "the last axis holds the channels" if last else "they are images without an axis of channels"
        _warn(
            f"items of shape {event} are read as {event[0]} channels of size {'x'.join(map(str, event[1:]))}: if "
            f"{remedy}, set channels={'last' if last else 'none'}"
        )
    missing = [label for label, count in enumerate(about["classes"] or []) if not count]
    if missing:
        _warn(
            f"{len(missing)} of {data.num_classes} classes have no training items (first: {missing[0]}): samples of "
            "them will be arbitrary; number the classes without gaps"
        )


def _warn_of_outliers(data: Dataset) -> None:
    """Single values that squeeze the others of their channel together."""
    found = outliers(data)
    if found:
        channel, number, value = found[0]
        held = f"the value {value:.4g}" if number == 1 else f"{number} values such as {value:.4g}"
        more = f" (the first of {len(found)} such channels)" if len(found) > 1 else ""
        _warn(
            f"channel {channel} of the data{more} has {held}, more than {OUTLIER_GAP:g} times as far from its median "
            "as all others, and most of its variance is from there: the model will hardly tell the others apart; "
            "repair or remove such items"
        )


def _warn_of_noise(data: Dataset, model: Preconditioned | NoisyClassifier, upper: float) -> None:
    """A process or preconditioning made for data of another size."""
    measured, sde = data.sigma_data, model.sde
    if not 0.5 <= model.sigma_data / measured <= 2:
        _warn(
            f"sigma_data = {model.sigma_data:g}, but the root mean square of the data in model units is "
            f"{measured:.3g}: leave it at 0 to use the measured one"
        )
    if upper > MAX_PRIOR_MISMATCH:
        ratio = sde.noise_level(double(sde.t_max)).item()
        needed = measured * (0.5 / MAX_PRIOR_MISMATCH) ** 0.5
        _warn(
            f"the process ends before the data are noise: sigma / alpha = {ratio:.3g} at t_max leaves up to "
            f"{upper:.2g} nats per dimension between q(x_T) and the prior; data of root mean square {measured:.3g} "
            f"need {needed:.3g}, by a larger `beta_max` or `sigma_max`"
        )


def _warn_of_conditions(data: Dataset) -> None:
    """Conditions that say nothing."""
    for kind, (_, std) in data.condition_moments.items():
        constant = (std == 0).nonzero().flatten().tolist()
        if constant:
            _warn(
                f"{len(constant)} of {len(std)} features of the condition {kind!r} are constant (first: "
                f"{constant[0]}): the model cannot learn what they do; leave them out"
            )
