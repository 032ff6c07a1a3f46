"""--mode compare: samplers, and several runs, at equal network calls from the same noise: which to use at what cost."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from samplers import FLOW_MAP_SAMPLERS, Samples
from score_sde.comparison.candidates import Candidate
from score_sde.comparison.entrants import STUDENT_CALLS, Entrant, open_entrants
from score_sde.comparison.pareto import JACKKNIFE_GROUPS, RULE
from score_sde.comparison.pictures import pictures
from score_sde.comparison.ranking import show, tabulate
from score_sde.comparison.reference import Reference
from score_sde.comparison.sampling import ODE_TOLERANCE, ROUNDS, Drawn, end_of, sample_all, solved
from score_sde.config.naming import with_keys
from score_sde.config.schema import CHOICES_OF_SAMPLER
from score_sde.evaluation.features import EXTRACTORS, extractor
from score_sde.metrics.metric import METRICS
from score_sde.pages.comparison import compare_page
from score_sde.run.compiling import FLAG, pays
from score_sde.run.folder import Run, event_shape_of
from score_sde.run.guidance import UNGUIDED, GuidanceOptions
from score_sde.run.inputs import read_names
from score_sde.run.items import open_split
from score_sde.run.lock import one_writer
from score_sde.run.outputs import stem
from score_sde.run.sizes import sizes_of_samples
from sde.condition.tree import labels_of
from sde.files import finite, write_json, write_whole

MAX_SOLVED = 64
"""Samples, at most, whose probability-flow ODE is solved."""
CALLS, CALLS_OF_RUNS = "5,10,20", "1,2,3,4,5,8,10,20"
"""Network calls at which samplers of one run are compared, and those of several, students among them."""


def compare(
    run: Run,
    *,
    runs: str | None = None,
    samplers: str = "auto,dpmpp,unipc,heun,ddim,ancestral,pc,ode",
    nfe: str | None = None,
    metrics: str = "frechet",
    features: str = EXTRACTORS[0],
    download: bool = False,
    num_samples: int = 256,
    split: str = "test",
    seed: int = 0,
    labels: str | None = None,
    prompt: str | None = None,
    condition: str | None = None,
    guidance: GuidanceOptions = UNGUIDED,
    batch_size: int = 256,
    out: str | None = None,
) -> dict:
    """Compare samplers, and several runs, by calls, time and metrics, from the same noise; write a page and numbers."""
    begin = time.perf_counter()
    # Of a score model; students jump.
    names = read_names("--samplers", samplers, [name for name in CHOICES_OF_SAMPLER if name not in FLOW_MAP_SAMPLERS])
    measures = read_names("--metrics", metrics, METRICS)
    budgets = read_calls(nfe or (CALLS_OF_RUNS if runs else CALLS))
    open_split(run, split, sampled=True)
    held_out, training, _ = open_split(run, "test", sampled=True)
    entrants = open_entrants(run, runs, guidance, labels, condition, prompt, num_samples, seed)
    first = entrants[0]
    cond = first.cond
    if not (labels or first.guides.denoiser.conditions) and labels_of(cond) is not None:
        labels = "data"
    found = extractor(run, features, training, download)
    given = {"seed": seed, "labels": labels, "condition": condition, "prompt": prompt}
    commands = {one.label: one.command(given, num_samples) for one in entrants}

    def alone() -> dict:
        # Times are those of one process.
        targets = labels_of(cond)
        # Below 0 are those of no class.
        targets = targets if targets is not None and (targets >= 0).all() else None
        reference = Reference(training, held_out, found, measures, targets, samples=num_samples, split=split)
        reference.check()
        sizes = None if training.sizes is None else sizes_of_samples(run, num_samples, seed)
        candidates, notes = _candidates(entrants, names, budgets, budgets if nfe else STUDENT_CALLS)
        if not candidates:
            raise ValueError(
                f"--nfe={nfe} leaves nothing to compare, {' '.join(notes).rstrip('.')}; allow more calls, among which "
                "the closing denoising one counts"
            )
        ran, exact, failures = _sampled(entrants, candidates, num_samples, seed, batch_size, sizes)
        notes += failures
        ends = {label: end_of(flow) for label, flow in exact.items()}
        rows = tabulate(ran, reference, ends, training, commands)
        flow = None
        if exact:
            solution = next(iter(exact.values()))
            flow = {"samples": len(solution.x), "tolerance": ODE_TOLERANCE, "nfe": solution.mean_nfe}
        about = given | {"guidance": asdict(guidance), "event_shape": list(held_out.event_shape)}
        about |= {"kind": run.kind.name, "flow": flow, "runs": [str(one.run.folder) for one in entrants]}
        record = _record(run, reference, num_samples) | about | {"rows": rows, "notes": notes}
        record["run"] = ", ".join(one.label for one in entrants) if runs else run.folder.name
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
        recommended = {key: chosen[key] for key in ("run", "sampler", "steps", "nfe", "value", "reading", "command")}
        ties = [{key: row[key] for key in ("run", "sampler", "steps", "nfe", "value")} for row in rows if row["tied"]]
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


def _candidates(
    entrants: Sequence[Entrant], names: Sequence[str], budgets: Sequence[int], student_budgets: Sequence[int]
) -> tuple[list[Candidate], list[str]]:
    found: list[Candidate] = []
    notes: list[str] = []
    for one in entrants:
        its, left_out = one.candidates(names, budgets, student_budgets)
        found, notes = found + its, notes + left_out
    return found, notes


def _sampled(
    entrants: Sequence[Entrant],
    candidates: Sequence[Candidate],
    count: int,
    seed: int,
    batch_size: int,
    sizes: Tensor | None,
) -> tuple[list[tuple[Candidate, Drawn]], dict[str, Samples], list[str]]:
    """The candidates that came to their end with what they drew, by run the exact flow of the first samples, and
    notes."""
    first = entrants[0]
    run, model, shape = first.run, first.model, event_shape_of(first.guides.denoiser)
    rows = min(-(-count // ROUNDS), batch_size)
    chunks = -(-count // (ROUNDS * rows)) * ROUNDS
    with with_keys(**FLAG):
        compile = pays(run, model, shape, rows, chunks * sum(candidate.budget or 0 for candidate in candidates))
        sampled = sample_all(
            model, candidates, count, shape, seed=seed, batch_size=batch_size, sizes=sizes,
            values=any(one.solvable for one in entrants), compile=compile, progress=True,
        )  # fmt: skip
    notes = [found.failure for found in sampled if found.failure]
    ran = [(candidate, found) for candidate, found in zip(candidates, sampled, strict=True) if not found.failure]
    if not ran:
        raise ArithmeticError(f"no sampler ran to its end: {' '.join(notes)}")
    exact, few = {}, min(count, MAX_SOLVED)
    for one in entrants:
        if one.solvable and any(it.deterministic for it, _ in ran if it.flow == one.label):
            try:
                part = one.model.rows(slice(0, MAX_SOLVED))
                own = None if sizes is None else sizes[:few]
                exact[one.label] = solved(
                    part, few, shape, seed=seed, batch_size=batch_size, sizes=own, compile=compile
                )
            except ArithmeticError as error:
                of = f" of {one.label}" if one.label else ""
                notes.append(f"There are no errors against the exact flow{of}, which was not solved: {error}.")
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
        "items": len(reference.items),
        "against": reference.word,
        "division": [reference.division.n, reference.division.m],
        "real": {name: reference.real[name].record() for name in reference.metrics},
        "jackknife_groups": JACKKNIFE_GROUPS,
        "rounds": ROUNDS,
        "device": run.device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rule": RULE,
    }
