"""Accuracy of deterministic samplers and of ``plan`` by network calls, on exact scores or on a trained model.

    python benchmarks/accuracy.py [--targets ring,digits,gmm16] [--nfe 5,10] [--seeds 0,1,2] [--plot FILE.png]
    python benchmarks/accuracy.py --targets others
    python benchmarks/accuracy.py --workdir runs/digits [--samples 64]

The protocol is in docs/accuracy.md. Tables are Markdown; the last line is JSON.
"""

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.targets import FIXED, OTHERS, PEERS, TARGETS, Case, Fixed, mixture, trained
from samplers import pilot_count, plan
from samplers.grid import make_grid

GRIDS = {"l": "log_snr", "k": "karras"}

Row = dict[int, tuple[float, str]]
"""Errors by number of calls, each with a note, the grid's letter for a fixed sampler."""


def fixed_row(case: Case, fixed: Fixed, columns: list[int]) -> Row:
    """The errors of a sampler with as many steps as ``columns`` of calls allow, each on its better grid."""
    row = {}
    for calls in columns:
        steps = calls // fixed.stages
        found = []
        for letter, grid in GRIDS.items():
            error, counted = case.error(fixed.sampler, make_grid(case.model.sde, grid, steps))
            if counted > calls:
                raise RuntimeError(f"{fixed.sampler} took {counted} calls where {calls} were allowed")
            found.append((error, letter))
        row[calls] = min(found)
    return row


def plan_row(case: Case, columns: list[int], seeds: list[int]) -> tuple[Row, list[dict]]:
    """The medians over seeds of the errors of plans, and what each plan was."""
    row, records = {}, []
    for calls in columns:
        for seed in seeds:
            begun = time.perf_counter()
            found = plan(case.for_rows(pilot_count(calls)), tuple(case.start.shape[1:]), calls, seed=seed)
            seconds = time.perf_counter() - begun
            error, counted = case.error(found.sampler, found.times)
            if counted > calls:
                raise RuntimeError(f"a plan took {counted} calls where {calls} were allowed")
            choice = next(name for name, value in found.errors.items() if value == found.error)
            pilots = {"choice": choice, "pilots_error": found.error, "cost": found.cost, "seconds": round(seconds, 2)}
            records.append({"nfe": calls, "seed": seed, "error": error} | pilots)
        row[calls] = (statistics.median(r["error"] for r in records if r["nfe"] == calls), "")
    return row, records


def ratio(above: Row, below: Row) -> Row:
    """Column by column."""
    return {calls: (above[calls][0] / below[calls][0], "") for calls in above if calls in below}


def geometric(row: Row) -> float:
    """The geometric mean of a row."""
    return math.exp(statistics.fmean(math.log(value) for value, _ in row.values()))


def compare(rows: dict[str, Row], peers: dict[int, float], columns: list[int]) -> dict[str, Row]:
    """The best rows and their ratios."""
    fixed = [row for name, row in rows.items() if name != "plan"]
    best = {}
    if fixed:
        best["best fixed"] = {calls: (min(row[calls][0] for row in fixed), "") for calls in columns}
    if "plan" in rows:
        best["plan"] = rows["plan"]
    if peers:
        best["best peer"] = {calls: (peers[calls], "") for calls in columns if calls in peers}
    pairs = [("plan", "best fixed"), ("plan", "best peer"), ("best fixed", "best peer")]
    return best | {f"{a} / {b}": ratio(best[a], best[b]) for a, b in pairs if best.get(a) and best.get(b)}


def print_table(title: str, rows: dict[str, Row], columns: list[int]) -> None:
    """As Markdown; ratios with their geometric mean."""
    print(f"\n| {title} | " + " | ".join(map(str, columns)) + " | mean |\n" + "|---" * (len(columns) + 2) + "|")
    for name, row in rows.items():
        ratios = " / " in name
        cells = [
            f"{value:.2f}" if ratios else f"{value:.1e} {note}".replace("e-0", "e-").replace("e+00", "").strip()
            for value, note in (row[calls] for calls in columns if calls in row)
        ]
        cells += [""] * (len(columns) - len(cells))
        print(f"| {name} | " + " | ".join(cells) + f" | {f'{geometric(row):.2f}' if ratios else ''} |", flush=True)


def draw(cases: dict[str, dict[str, Row]], path: Path) -> None:
    """One panel per case: error against calls."""
    import matplotlib.pyplot as plt

    styles = {
        "ddim": {"color": "#9a9a9a", "marker": "v"},
        "heun": {"color": "#c49a3a", "marker": "s"},
        "dpmpp-2": {"color": "#3a9a5b", "marker": "^"},
        "deis-3-v": {"color": "#7a5bb0", "marker": "D"},
        "best fixed": {"color": "#1f6fb5", "marker": "o", "linewidth": 2},
        "best peer": {"color": "black", "linestyle": "--", "linewidth": 1.8},
        "plan": {"color": "#d1342f", "marker": "o", "linewidth": 2.6},
    }
    figure, panels = plt.subplots(1, len(cases), figsize=(16, 5.4), squeeze=False, sharey=True, layout="constrained")
    for panel, (title, rows) in zip(panels[0], cases.items(), strict=True):
        for name, style in styles.items():
            if row := rows.get(name):
                label = {"best fixed": "best of our fixed samplers", "best peer": "best of the peers"}.get(name, name)
                errors = [value for value, _ in row.values()]
                panel.plot(list(row), errors, label=label, **{"markersize": 5, "linewidth": 1.3} | style)
        panel.set(xscale="log", yscale="log", title=title, xlabel="network calls")
        columns = list(next(iter(rows.values())))
        panel.set_xticks(columns, list(map(str, columns)))
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("error")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def parse() -> argparse.Namespace:
    """The options, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default="ring,digits,gmm16", help="comma-separated; others: the further nine")
    parser.add_argument("--workdir", type=Path, help="a run folder: measure on its trained model, not on targets")
    parser.add_argument("--samples", type=int, help="starting points; default: 256, or 64 of a trained model")
    parser.add_argument("--nfe", help="comma-separated; default: 5,8,10,15,20,30,50, or up to 20 of a trained model")
    parser.add_argument("--samplers", help=f"comma-separated; default: all of plan, {', '.join(FIXED)}")
    parser.add_argument("--seeds", default="0", help="of the plans' pilots, comma-separated; their median is reported")
    parser.add_argument("--quantile", type=float, default=0.5, help="of the samples' errors; default: 0.5, the median")
    parser.add_argument("--plot", type=Path, help="a PNG to draw")
    options = parser.parse_args()
    names = list(OTHERS) if options.targets == "others" else options.targets.split(",")
    options.targets = [str(options.workdir)] if options.workdir else names
    options.samplers = options.samplers.split(",") if options.samplers else ["plan", *FIXED]
    for flag, chosen, known in (
        ("targets", names, [*TARGETS, *OTHERS, "others"]),
        ("samplers", options.samplers, ["plan", *FIXED]),
    ):
        if unknown := [name for name in chosen if name not in known]:
            parser.error(f"--{flag}: {unknown[0]!r} is none of {', '.join(known)}")
    calls = options.nfe or ("5,8,10,15,20" if options.workdir else "5,8,10,15,20,30,50")
    try:
        options.nfe, options.seeds = ([int(n) for n in text.split(",")] for text in (calls, options.seeds))
    except ValueError as error:
        parser.error(f"--nfe and --seeds need whole numbers: {error}")
    if options.workdir and not (options.workdir / "model.safetensors").exists():
        parser.error(
            f"--workdir={options.workdir}: there is no model.safetensors; train with main.py --mode train first"
        )
    if not 0 <= options.quantile <= 1:
        parser.error(f"--quantile={options.quantile}: needs a number from 0 to 1")
    if min(options.nfe) < 3:
        parser.error(f"--nfe={min(options.nfe)}: needs at least 3, a step of dpmpp-3-singlestep")
    return options


def main() -> None:
    """Measure and print."""
    options = parse()
    cases, plans, means = {}, {}, {}
    for name in options.targets:
        run, count, at = options.workdir, options.samples, options.quantile
        case = trained(run, count or 64, at) if run else mixture(name, count or 256, at)
        rows: dict[str, Row] = {}
        for sampler in options.samplers:
            if sampler == "plan":
                rows["plan"], plans[name] = plan_row(case, options.nfe, options.seeds)
            else:
                rows[sampler] = fixed_row(case, FIXED[sampler], options.nfe)
        best = compare(rows, PEERS.get(name, {}) if at == 0.5 else {}, options.nfe)
        print_table(name, {key: row for key, row in rows.items() if key != "plan"} | best, options.nfe)
        cases[name] = rows | best
    for key in (key for key in best if " / " in key):
        cells = {(n, c): value for n, rows in cases.items() for c, value in rows.get(key, {}).items()}
        means[key] = round(geometric(cells), 4)
        print(f"\n{key}: geometric mean over all {means[key]:.2f}", end="")
    if options.plot:
        draw(cases, options.plot)
    errors = {n: {k: {c: v[0] for c, v in row.items()} for k, row in rows.items()} for n, rows in cases.items()}
    result = {"seeds": options.seeds, "quantile": at, "errors": errors, "plans": plans, "means": means}
    print("\n\n" + json.dumps(result))


if __name__ == "__main__":
    main()
