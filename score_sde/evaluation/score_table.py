"""The table of scores that --mode evaluate prints."""

from score_sde.evaluation.perturbations import words
from score_sde.evaluation.scores import NOT_TOLD, Sets
from score_sde.metrics.metric import METRICS
from score_sde.metrics.neighbors import CLOSE_SHARE
from score_sde.metrics.splits import DIVISIONS

Row = tuple[str, str, str, str, str]


def show(values: dict[str, dict], sets: Sets, features: str, split: str) -> None:
    """A line for each of the ``scores``: the value, its interval, that of real items, and what it means."""
    rows: list[Row] = [("", "samples", "95 % interval", "real items", "")]
    measured = [name for name in METRICS if "value" in values.get(name, {})]
    told = []
    for name in measured:
        own, metric = values[name], METRICS[name]
        real = own["reference"]
        found = f"{_number(real['value'])} +- {_number(real['spread'])}"
        # What it would tell is a line of its own: the table would be wider than screens are.
        least = words(own["power"]) if "power" in own else ""
        told += [f"    {metric.title}: {least}"] * bool(least)
        rows.append(_row(metric.title + " *" * metric.biased, own, found, NOT_TOLD if least else own["reading"]))
    if "value" in values.get("accuracy", {}):
        own = values["accuracy"]
        rows.append(_row("accuracy of the class", own, _number(own["reference"]["value"]), own["reading"]))
    if "control_f1" in values:
        own = values["control_f1"]
        text = f"{own['control']} as asked for; {_number(own['chance'])} for those of another"
        rows.append(_row(f"F1 of the {own['control']}", own, "1", text))
    if "memorization" in values:
        rows += _too_many(values["memorization"], {
            "nearer": ("memorized: nearer", 0.5, "nearer to training items than held-out ones"),
            "close": ("memorized: close", CLOSE_SHARE, "as near as the nearest 5 % of held-out items"),
            "copies": ("memorized: copies", 0.0, "equal to a training item"),
        })  # fmt: skip
    rows += _too_many(values["duplicates"], {
        "exact": ("duplicates: exact", 0.0, "equal to another sample"),
        "near": ("duplicates: near", CLOSE_SHARE, "as near to another as the nearest 5 % of real items"),
    })  # fmt: skip
    count, dimension = sets.real.features.shape
    print(f"{len(sets.samples):,} samples against {count:,} {split} items, {dimension} features ({features}):")
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for name, *cells, text in rows:
        aligned = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        print("  ".join(["", name.ljust(widths[0]), *aligned, text]).rstrip())
    if told:
        print("  those that do not tell the samples from real items would tell, of spoilt real items:")
        print("\n".join(told))
    division = sets.division
    print(
        f"  real items: mean and standard deviation over {DIVISIONS} random splits of the {count + len(sets.others):,} "
        f"real items, {division.n:,} in the samples' place against {division.m:,}; told from them is a value that at "
        "most 1 in 100 of such splits would reach"
    )
    differ = [METRICS[name].title for name in measured if values[name]["reference"]["differ"]]
    if differ:
        print(
            f"  training and test items themselves are told apart by the {', the '.join(differ)}: samples no further "
            "away are not told from real items"
        )
    if any(METRICS[name].biased for name in measured):
        print("  * finite sets, of real items too, make it too large; the interval and the number before it do not")
    for name in values:
        if "refused" in values[name]:
            print(f"  left out: {values[name]['refused']}")


def _too_many(found: dict[str, dict], texts: dict[str, tuple[str, float, str]]) -> list[Row]:
    """Rows of shares that should not be above those of new items."""
    rows = []
    for name, (title, ideal, text) in texts.items():
        if name in found:
            verdict = "more" if found[name]["low"] > ideal else "no more"
            rows.append(_row(title, found[name], _number(ideal), f"{text}: {verdict} than new ones"))
    return rows


def _row(title: str, own: dict, real: str, text: str) -> Row:
    interval = f"{_number(own['low'])} to {_number(own['high'])}"
    if title.endswith("*"):
        interval = f"{_number(own['corrected'])}, {interval}"
    return title, _number(own["value"]), interval, real, text


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) >= 0.0995 and abs(value) < 1000 else f"{value:.3g}"
