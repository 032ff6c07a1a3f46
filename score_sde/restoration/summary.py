"""A restoration in words: its result, and the scores of its items, as lines."""

from score_sde.restoration.scores import INTERVAL, expected_coverage

SHOWN_ITEMS = 16
"""Items whose scores are printed; the .csv has all."""


def describe(result: dict, masked: bool, source: str) -> list[str]:
    """The result in words, lines."""
    share = f"{100 * result['observed']:.1f} %"
    count, per_item = result["num_items"], result["samples_per_item"]
    sigma_y, error = result["sigma_y"], result["measurement_error"]
    ratio = f", {error / sigma_y:.3g} of sigma_y = {sigma_y:g}" if sigma_y else ""
    times = f" x {result['repaint_steps']}" if result["repaint_steps"] > 1 else ""
    lines = [
        f"mask observes {share}" if masked else f"{result['task']}: {share} as many values as an item has are measured",
        f"{count} item{'s' * (count > 1)} ({source}), {per_item} sample{'s' * (per_item > 1)} each by "
        f"{result['why']} with {result['sampler']}{times}, {result['nfe']:g} network calls each, "
        f"{result['seconds']:.1f} s",
        f"  measurement error {error:.3g} in data units (rms){ratio}",
    ]
    if result["furthest"] is not None:
        lines.append(
            f"  the samples reach {result['furthest']:.3g} standard deviations from the data's mean, the data "
            f"{result['data_reach']:.3g}"
        )
    if "psnr" not in result:
        return lines
    where = "the hidden entries" if masked else "all entries"
    lines.append(
        f"  over {where}: PSNR {result['psnr']:.2f} dB, of the samples' mean {result['psnr_mean']:.2f} dB"
        + (
            f", CRPS {result['crps']:.4g} in data units, the central {100 * INTERVAL:.0f} % interval of {per_item} "
            f"samples covers {result['coverage']:.1%} (of exact ones about {expected_coverage(per_item):.0%})"
            if result["crps"] is not None
            else ""
        )
    )
    if count > 1:
        lines += item_table(result["items"])
    return lines


def item_table(rows: list[dict]) -> list[str]:
    """The first rows of the scores per item as lines of text."""
    heads = [name for name, value in rows[0].items() if value is not None]
    lines = ["".join(f"{head:>11}" for head in heads)]
    for row in rows[:SHOWN_ITEMS]:
        lines.append("".join(f"{row[head]:>11}" if head == "item" else f"{row[head]:>11.4g}" for head in heads))
    return lines + [f"  ... and {len(rows) - SHOWN_ITEMS} more in the .csv"] * (len(rows) > SHOWN_ITEMS)
