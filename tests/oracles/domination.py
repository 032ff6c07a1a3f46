"""Which candidates are dominated, by definition."""


def dominated(row, rows, cost):
    return any(
        other[cost] <= row[cost]
        and other["behind"] <= row["behind"]
        and (other[cost], other["behind"]) != (row[cost], row["behind"])
        for other in rows
    )
