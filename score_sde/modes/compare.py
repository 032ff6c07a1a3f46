"""--mode compare: samplers at equal network calls from the same noise: which to use at what cost."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from samplers import ODE, Samples
from samplers.protocol import suits
from score_sde.comparison.candidates import Candidate, find_candidates, suited
from score_sde.comparison.pareto import JACKKNIFE_GROUPS, RULE
from score_sde.comparison.ranking import show, tabulate
from score_sde.comparison.reference import Reference
from score_sde.comparison.sampling import ODE_TOLERANCE, ROUNDS, Drawn, sample_all, solved
from score_sde.config.naming import with_keys
from score_sde.config.program import program, quoted
from score_sde.config.schema import CHOICES_OF_SAMPLER
from score_sde.evaluation.features import EXTRACTORS, extractor
from score_sde.metrics.metric import METRICS
from score_sde.pages.comparison import compare_page
from score_sde.pages.items import items
from score_sde.plots.pictures import drawn, limits_of, outside
from score_sde.run.compiling import FLAG, pays
from score_sde.run.conditions import read_condition
from score_sde.run.folder import Run, event_shape_of
from score_sde.run.guides import UNGUIDED, GuidanceOptions, Guides
from score_sde.run.inputs import read_names
from score_sde.run.items import open_split
from score_sde.run.lock import one_writer
from score_sde.run.outputs import stem
from score_sde.run.sampling import path_of
from score_sde.run.sizes import sizes_of_samples
from sde.condition.tree import Condition, labels_of
from sde.data import Dataset
from sde.data.statistics import spread
from sde.files import finite, write_json, write_whole

MAX_SOLVED = 64
"""Samples, at most, whose probability-flow ODE is solved."""


def compare(
    run: Run,
    *,
    samplers: str = "auto,dpmpp,unipc,heun,ddim,ancestral,pc,ode",
    nfe: str = "5,10,20",
    metrics: str = "frechet",
    features: str = EXTRACTORS[0],
    download: bool = False,
    num_samples: int = 256,
    seed: int = 0,
    labels: str | None = None,
    condition: str | None = None,
    guidance: GuidanceOptions = UNGUIDED,
    batch_size: int = 256,
    out: str | None = None,
) -> dict:
    """Compare samplers by network calls, time and metrics, from the same noise; write a page and a ``.json``."""
    begin = time.perf_counter()
    names = read_names("--samplers", samplers, CHOICES_OF_SAMPLER)
    measures = read_names("--metrics", metrics, METRICS)
    budgets = read_calls(nfe)
    held_out, training, denoiser = open_split(run, "test")
    guides = Guides(run, denoiser, guidance)
    names, left_out = suited(names, denoiser.sde)
    for sentence in left_out:
        print(sentence)
    cond = read_condition(run, guides, labels, condition, num_samples, seed=seed, by_law=True)
    if not (labels or guides.denoiser.conditions) and labels_of(cond) is not None:
        labels = "data"
    found = extractor(run, features, training, download)
    given = {"seed": seed, "labels": labels, "condition": condition}
    common = command(run, given | asdict(guidance), num_samples)

    def alone() -> dict:
        # Times are those of one process.
        targets = labels_of(cond)
        # Below 0 are those of no class.
        targets = targets if targets is not None and (targets >= 0).all() else None
        reference = Reference(training, held_out, found, measures, targets, samples=num_samples)
        reference.check()
        sizes = None if training.sizes is None else sizes_of_samples(run, num_samples, seed)
        ran, exact, notes = _sampled(run, guides, cond, names, budgets, num_samples, seed, batch_size, sizes)
        notes = left_out + notes
        ends = None if exact is None else path_of(exact).denoised[-1]
        rows = tabulate(ran, reference, ends, training, common)
        flow = None
        if exact is not None:
            flow = {"samples": len(exact.x), "tolerance": ODE_TOLERANCE, "nfe": exact.mean_nfe}
        about = given | {"guidance": asdict(guidance), "event_shape": list(held_out.event_shape)}
        about |= {"kind": run.kind.name, "flow": flow}
        record = _record(run, reference, num_samples) | about | {"rows": rows, "notes": notes}
        content = compare_page(record, pictures(run, ran, exact, held_out, targets))

        def keep(base: Path) -> tuple[Path, Path]:
            page, numbers = Path(f"{base}.html"), Path(f"{base}.json")
            write_whole(page, content)
            write_json(numbers, finite(record))
            return page, numbers

        page, numbers = keep(stem(run, out, "compare", ".json", "compare"))
        if not out:
            # Every comparison is kept, and the latest one, a page with its own numbers, has a name without a number.
            latest = run.folder / "compare" / "compare"
            with one_writer(latest.with_name(".lock"), "--mode compare", "wait for its end", wait=True):
                page, numbers = keep(latest)
        show(record)
        chosen = next(row for row in rows if row["recommended"])
        recommended = {key: chosen[key] for key in ("sampler", "steps", "nfe", "value", "reading", "command")}
        ties = [{key: row[key] for key in ("sampler", "steps", "nfe", "value")} for row in rows if row["tied"]]
        seconds = round(time.perf_counter() - begin, 1)
        print(f"compared in {seconds:g} s: {page}, {numbers}")
        return {
            "mode": "compare",
            "num_samples": num_samples,
            "metric": measures[0],
            "recommended": recommended,
            "tied": ties,
            "page": str(page),
            "numbers": str(numbers),
            "seconds": seconds,
        }

    return run.world.broadcast_from_main(alone)


def read_calls(text: str) -> list[int]:
    """``--nfe``, as in 5,10,20: numbers of network calls, rising."""
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = [0]
    if numbers[0] < 1:
        raise ValueError(f"--nfe={text}: needs numbers of network calls of at least 1, as in 5,10,20")
    return numbers


def _sampled(
    run: Run,
    guides: Guides,
    cond: Condition | None,
    names: Sequence[str],
    budgets: Sequence[int],
    count: int,
    seed: int,
    batch_size: int,
    sizes: Tensor | None,
) -> tuple[list[tuple[Candidate, Drawn]], Samples | None, list[str]]:
    """The candidates that came to their end with what they drew, the exact flow of the first samples, and notes."""
    candidates, notes = find_candidates(run, guides, cond, names, budgets)
    model, shape = guides(cond), event_shape_of(guides.denoiser)
    solvable = suits(ODE(), model.sde)
    rows = min(-(-count // ROUNDS), batch_size)
    chunks = -(-count // (ROUNDS * rows)) * ROUNDS
    with with_keys(**FLAG):
        compile = pays(run, model, shape, rows, chunks * sum(candidate.budget or 0 for candidate in candidates))
        sampled = sample_all(
            model, candidates, count, shape, seed=seed, batch_size=batch_size, sizes=sizes, values=solvable,
            compile=compile, progress=True,
        )  # fmt: skip
    notes += [found.failure for found in sampled if found.failure]
    ran = [(candidate, found) for candidate, found in zip(candidates, sampled, strict=True) if not found.failure]
    if not ran:
        raise ArithmeticError(f"no sampler ran to its end: {' '.join(notes)}")
    exact = None
    if solvable and any(candidate.deterministic for candidate, _ in ran):
        try:
            first = model.rows(slice(0, MAX_SOLVED))
            few = min(count, MAX_SOLVED)
            own = None if sizes is None else sizes[:few]
            exact = solved(first, few, shape, seed=seed, batch_size=batch_size, sizes=own, compile=compile)
        except ArithmeticError as error:
            notes.append(f"There are no errors against the exact flow, which was not solved: {error}.")
    return ran, exact, notes


def _record(run: Run, reference: Reference, count: int) -> dict:
    """The circumstances of a comparison, for its JSON."""
    used = reference.extractor
    return {
        "mode": "compare",
        "run": run.folder.name,
        "weights": run.weights,
        "num_samples": count,
        "metrics": list(reference.metrics),
        "extractor": {"name": used.name, "sha256": used.digest, "features": reference.dim},
        "features": reference.width,
        "held_out": len(reference.items),
        "real": {name: reference.real[name].record() for name in reference.metrics},
        "jackknife_groups": JACKKNIFE_GROUPS,
        "rounds": ROUNDS,
        "device": run.device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rule": RULE,
    }


def command(run: Run, given: dict, count: int) -> str:
    """The command that draws the samples with the values of flags that were ``given``, but for the sampler."""
    values = {"workdir": run.folder, "weights": run.weights, **given}
    usual = {"weights": Run.weights, "labels": None, "condition": None, "seed": 0, **asdict(UNGUIDED)}
    unusual = {name: value for name, value in values.items() if name not in usual or value != usual[name]}
    flags = [f"--{name} {quoted(value)}" for name, value in unusual.items()]
    return " ".join([f"{program()} --mode sample", *flags, f"--num_samples {count}"])


def pictures(
    run: Run, ran: Sequence[tuple[Candidate, Drawn]], exact: Samples | None, held_out: Dataset, labels: Tensor | None
) -> dict[str, list[tuple[str, bytes | str]]]:
    """Headings, and below each captions with PNGs or HTML: the first samples of the candidates by their budget, those
    of the exact flow, and held-out items. Nothing for what has no picture."""
    kind, levels = run.kind, held_out.transform.num_levels
    count = kind.examples(held_out.event_shape)
    index = spread(len(held_out), count)
    real, their = held_out.batch(index)
    # One scale for all, that of real items, so that a sampler that goes astray does not make the others alike.
    limits = limits_of(real, kind=kind, levels=levels, sizes=held_out.sizes_of(index))

    def shown(
        caption: str, x: Tensor, own: Tensor | None, sizes: Tensor | None = None
    ) -> list[tuple[str, bytes | str]]:
        own = None if own is None else own[:count]
        first = None if sizes is None else sizes[:count]
        picture = drawn(x[:count], kind=kind, levels=levels, labels=own, sizes=first, limits=limits)
        away = outside(x[:count], limits, kind=kind) if limits is not None else 0
        caption += f", {away} of {min(count, len(x))} outside" * bool(away)
        both = picture, items(x, kind, levels, held_out.about, sizes)
        return [(caption, content) for content in both if content]

    found: dict[str, list[tuple[str, bytes | str]]] = {}
    for candidate, its in ran:
        heading = f"{candidate.budget} network calls" if candidate.budget else "Steps of its own choice"
        caption = candidate.name if candidate.budget else f"{candidate.name}, tolerance {candidate.tolerance:g}"
        found.setdefault(heading, []).extend(shown(caption, its.x, labels, its.sizes))
    last = found.setdefault("To compare with", [])
    if exact is not None:
        last += shown("the exact flow", exact.x, None if labels is None else labels[: len(exact.x)], exact.sizes)
    last += shown("held-out items", real, labels_of(their), held_out.sizes_of(index))
    return {heading: parts for heading, parts in found.items() if parts}
