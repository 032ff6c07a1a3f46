"""--mode check: what is wrong with a run, measured and in words."""

import dataclasses

from torch import Tensor

from score_sde.diagnosis.causes import Finding
from score_sde.diagnosis.diagnosis import diagnose
from score_sde.diagnosis.examination import (
    averaging,
    disagreements,
    linear_filter,
    mean_and_error,
    newest_state,
    of_conditions,
    of_posterior_means,
    of_samples,
    raw_model,
)
from score_sde.diagnosis.students import diagnose_student, examine_student, table_of_student
from score_sde.evaluation.denoising_errors import DenoisingErrors
from score_sde.evaluation.validation import Validation
from score_sde.run.folder import Run
from score_sde.training.log import Metrics
from sde import Denoiser
from sde.condition.tree import condition_kinds
from sde.data import Dataset
from sde.distillation import FlowMap
from sde.training.audit import prior_mismatch

MIN_SAMPLES = 16
"""Items, below which chance alone looks like a fault."""


def check(run: Run, *, num_samples: int = 256, batch_size: int = 256) -> dict:
    """Measure a run on held-out data and say what is wrong with it, and what to do."""
    if num_samples < MIN_SAMPLES:
        raise ValueError(
            f"--num_samples={num_samples}: a fault cannot be told from chance with fewer than {MIN_SAMPLES} items"
        )
    (training, held_out), model = run.data(), run.sampled_model()
    if model.event_shape != held_out.event_shape:
        raise ValueError(
            f"the model has items of shape {model.event_shape}, the data {held_out.event_shape}: name the data "
            "of training in config.data"
        )
    if model.num_classes and (held_out.num_classes or 0) > model.num_classes:
        raise ValueError(
            f"the model has {model.num_classes} classes, the data {held_out.num_classes}: name the data of training in "
            "config.data"
        )
    bad = sum(int((~p.isfinite()).sum()) for p in model.parameters())
    if bad:
        remedy = "name other --weights"
        if run.weights_file == run.model_file:
            remedy = "delete it and give the training command again, which writes it from the checkpoint"
        raise ValueError(
            f"{run.weights_file}: {bad:,} of its weights are NaN or infinite, so that nothing can be measured: {remedy}"
        )
    if isinstance(model, FlowMap):
        measured = examine_student(run, model, training, held_out, num_samples, batch_size)
        findings, lines = diagnose_student(measured), [*table_of_student(run, measured), *lines_of_samples(measured)]
    else:
        measured = measure(run, model, training, held_out, num_samples, batch_size)
        findings, lines = diagnose(measured), table(run, measured)
    for line in [*lines, *verdict(findings)]:
        print(line)
    return {
        "mode": "check",
        "workdir": str(run.folder),
        "weights": run.weights,
        "faults": [finding.fault for finding in findings],
        "findings": [finding._asdict() for finding in findings],
        **measured,
    }


def measure(run: Run, model: Denoiser, training: Dataset, held_out: Dataset, items: int, batch_size: int) -> dict:
    """All that ``diagnose`` asks for and the table shows, as plain numbers. Errors are those of ``DenoisingErrors``; in
    ``"error"`` they are means over the levels, with standard errors over the items."""
    settings = run.config.training
    at = DenoisingErrors(held_out, model, settings.optimization.times, run.device, items, batch_size=batch_size)
    trained_on = DenoisingErrors(training, model, settings.optimization.times, run.device, items, batch_size=batch_size)
    nearest = Validation(
        held_out, training, model.sde, settings.optimization.times, settings.loss_weighting, device=run.device
    )
    state, missing = newest_state(run, model)
    raw = raw_model(model, state) if state else None
    if state and not raw:
        missing = "the newest training state is another network's"
    conditional = at.cond is not None
    errors = {"averaged": at.errors(model), "training": trained_on.errors(model)}
    errors["linear"] = at.errors(linear_filter(model, at, training))
    if raw:
        errors["raw"] = at.errors(raw)
    told = {which: at.errors(model, which) for which in ("other", "none") if conditional}
    error: dict[str, float | None] = {name: values.mean().item() for name, values in errors.items()}
    error["averaged_none"] = told["none"].mean().item() if conditional else None
    error["raw_none"] = at.errors(raw, "none").mean().item() if raw and conditional else None
    sensitivity = at.sensitivity(model, "time", *told)
    score, calibrated = at.scores(model).mean(1).T.tolist()
    return {
        "step": state and state["step"],
        "steps": settings.steps,
        "items": len(at.x),
        "missing": missing,
        "disagreements": disagreements(run, model, held_out, state),
        "range": {
            "model": dataclasses.asdict(model.transform.outer),
            "data": dataclasses.asdict(held_out.transform.outer),
            "sigma_data": [model.sigma_data, training.sigma_data],
            "measured": not run.config.model.sigma_data,
        },
        "levels": by_level(at.noise_level, errors, score, calibrated),
        "error": error,
        "error_stderr": {name: mean_and_error(values.mean(0))[1] for name, values in errors.items()},
        # Of another file of weights the run's decay says nothing.
        "averaging": averaging(model, raw, state, settings.ema_decay)
        if raw and state and run.weights_file == run.model_file
        else None,
        "sensitivity": sensitivity | {"raw_output": at.sensitivity(raw)["output"] if raw else None},
        "conditional": bool(condition_kinds(model)),
        "conditions": of_conditions(at, errors["averaged"], **told) if conditional else None,
        "null_trained": model.null_trained,
        "samples": of_samples(model, at, training, nearest),
        "posterior_means": of_posterior_means(model, training, run.device),
        "prior": list(prior_mismatch(model.sde, *training.moments)),
        "held_out_losses": [
            line["held_out_loss"] for line in Metrics(run.folder / "metrics.jsonl").read() if "held_out_loss" in line
        ],
    }


def by_level(sigma: Tensor, errors: dict[str, Tensor], score: list[float], calibrated: list[float]) -> list[dict]:
    """A dict per level: sigma / alpha, the mean of each error and its standard error, and of the averaged weights
    E|sigma score + z|^2 per dimension beside E|z|^2 - E|sigma score|^2, which is the same of a calibrated score."""
    columns = {name: values.mean(1).tolist() for name, values in errors.items()}
    stderr = (errors["averaged"].std(1) / errors["averaged"].shape[1] ** 0.5).tolist()
    return [
        {
            "noise_level": noise,
            **{name: values[i] for name, values in columns.items()},
            "stderr": stderr[i],
            "score": score[i],
            "score_calibrated": calibrated[i],
        }
        for i, noise in enumerate(sigma.tolist())
    ]


COLUMNS = {
    "noise_level": "sigma/alpha",
    "raw": "raw",
    "averaged": "averaged",
    "stderr": "+-",
    "training": "training",
    "linear": "filter",
    "score": "score",
    "score_calibrated": "calibrated",
}


def table(run: Run, m: dict) -> list[str]:
    """The measurements as lines of text."""
    known = ", ".join(part for part in (m["step"] and f"step {m['step']}", m["missing"]) if part)
    lines = [
        f"{run.folder}: {run.weights}, {known}; error of {m['items']} held-out items by noise level, 1 is c_skip x:",
        "".join(f"{title:>12}" for title in COLUMNS.values()),
    ]
    for level in m["levels"]:
        lines.append("".join(f"{_number(level.get(name)):>12}" for name in COLUMNS))
    lines += lines_of_samples(m)
    if m["posterior_means"]:
        worst = max(m["posterior_means"], key=lambda level: level["std"])
        lines.append(
            f"posterior means: standard deviation up to {worst['std']:.3g} at sigma/alpha {worst['noise_level']:.3g}; "
            f"of training items {worst['data_std']:.3g} (model units)"
        )
    lines.append(f"prior: KL between {m['prior'][0]:.1e} and {m['prior'][1]:.1e} nats per dimension")
    if m["averaging"]:
        lines.append(
            f"average: {m['averaging']['mean_age']:,.0f} steps old on average, of {m['averaging']['updates']:,}, "
            f"{m['averaging']['from_raw']:.1%} from the raw weights"
        )
    said = f"network: another noise level changes its output by {m['sensitivity']['time']:.0%}"
    if m["conditions"] and m["conditions"]["items"]:
        said += (
            f", another condition by {m['sensitivity']['other']:.0%}, none by "
            f"{m['sensitivity']['none']:.0%}; its own condition is better than another item's for "
            f"{m['conditions']['wins']:.0%} of {m['conditions']['items']} items"
        )
    return [*lines, said]


def lines_of_samples(m: dict) -> list[str]:
    """A line on samples beside the data."""
    samples = m["samples"]
    return [
        f"samples: {samples['count']} from {samples['range'][0]:.4g} to {samples['range'][1]:.4g}, training items from "
        f"{samples['data_range'][0]:.4g} to {samples['data_range'][1]:.4g}; "
        + ", ".join(
            f"{word} {samples[key][0]:.3g} ({samples['data_' + key][0]:.3g} +- {samples[key + '_stderr'][0]:.2g})"
            for key, word in (("mean", "mean"), ("std", "standard deviation"))
        )
        + (" in channel 0" if len(samples["mean"]) > 1 else "")
        + ("" if samples["nearest"] is None else f"; distance to training items {samples['nearest']:.2f} of held-out's")
    ]


def verdict(findings: list[Finding]) -> list[str]:
    """A line for each fault, or one that there is none."""
    if not findings:
        return ["no fault found"]
    return [f"{finding.fault}: {finding.evidence}\n  remedy: {finding.remedy}" for finding in findings]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if value < 100 else f"{value:.3g}"
