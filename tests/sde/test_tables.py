"""Tables: what the first line is, which columns are taken, what cells may hold, and the sentence for all else."""

import warnings

import numpy as np
import pytest
import torch

from sde.data.arrays import open_array, read_array
from tests.sde.small_data import config, load_dataset, refused


def written(tmp_path, text, encoding="utf-8", name="t.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def table(tmp_path, text, encoding="utf-8", **options):
    """Rows, labels and what was warned of."""
    path = written(tmp_path, text, encoding)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        x, labels, _ = read_array(path, **options)
    return x.tolist(), None if labels is None else labels.tolist(), [str(w.message) for w in said]


ROWS = [[1.5, -2.0], [0.25, 300.0]]


@pytest.mark.parametrize(("text", "rows", "labels"), [
    ("1.5,-2\n0.25,3e2\n", ROWS, None),
    ("\ufeffage;height\r\n1.5;-2\r\n\r\n0.25;3e2", ROWS, None),
    ("age;height\n1,5;-2\n0,25;3e2", ROWS, None),
    ("1,5\t-2,0\n,25\t300,0\n", ROWS, None),
    ('a\tb\n1.5\t"-2"\n0.25\t3e2\n', ROWS, None),
    ('"x;y",b\n1.5,-2\n0.25,300\n', ROWS, None),
    ("# a,b\n1.5,-2\n0.25,3e2\n", ROWS, None),
    ("# made by hand\n# a,b\n1.5,-2\n0.25,3e2\n", ROWS, None),
    ("a,Label,b\n1.5,1,-2\n0.25,0,3e2\n", ROWS, [1, 0]),
    ("a,label,b\n1.5,1.0,-2\n0.25,0.0,3e2\n", ROWS, [1, 0]),
    ("\ufefflabels,a\n0,4\n1,5\n", [[4.0], [5.0]], [0, 1]),
    ("1\n2\n", [[1.0], [2.0]], None),
    ("label,2019,2020\n0,1.5,-2\n1,0.25,300\n", ROWS, [0, 1]),
])  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tables(tmp_path, text, rows, labels, encoding):
    if encoding == "utf-16":
        text = text.removeprefix("\ufeff")
    x, found, said = table(tmp_path, text, encoding)
    assert (x, found) == (rows, labels)
    assert all("taken for the names" in sentence for sentence in said)


def rows_of(count, width, start=0.5):
    return [[start + i + 10.25 * j for j in range(width)] for i in range(count)]


def csv(rows, header=""):
    return header + "".join(",".join(map(str, row)) + "\n" for row in rows)


@pytest.mark.parametrize("header", ["2019,2020,2021", "0,1,2", "1,2,3"])
def test_a_line_of_numbers_as_names(tmp_path, header):
    rows = rows_of(5, 3)
    x, _, said = table(tmp_path, csv(rows, f"{header}\n"))
    assert x == rows
    assert said == [f"{tmp_path / 't.csv'}: the first line, {header.replace(',', ', ')}, is taken for the names of the "
                    "columns; if it is a row, put a line of names in front of it"]  # fmt: skip


def test_years_and_numbers_over_integers(tmp_path):
    r = np.random.default_rng(0)
    counts = r.integers(0, 300, (20, 6)).tolist()
    for header in ("2019,2020,2021,2022,2023,2024", "0,1,2,3,4,5"):
        assert table(tmp_path, csv(counts, f"{header}\n"))[0] == counts
    # What is like the rows below is a row.
    for rows in ([[1, 2], [3, 5], [0, 1], [7, 1]], [[2019, 2020], [2000, 1990], [1987, 2011], [1995, 1996]]):
        assert table(tmp_path, csv(rows)) == (rows, None, [])


@pytest.mark.parametrize("header", [",a,b", "Unnamed: 0,a,b", "index,a,b", "row_id,a,b", ""])
def test_columns_that_number_the_rows(tmp_path, header):
    """As pandas writes an index, whatever its numbers; without a name those from 0 or 1 on."""
    rows = rows_of(6, 2)
    for order in (range(6), range(1, 7), *([[4, 0, 17, 5, 9, 2]] if header else [])):
        x, _, said = table(tmp_path, csv([[i, *row] for i, row in zip(order, rows, strict=True)], header + "\n"))
        assert x == rows
        assert len(said) == 1
        assert "is left out, as it only numbers the rows; to keep it, " in said[0]


def test_a_column_of_ones_own_is_kept(tmp_path):
    rows = [[3.0, 0.5], [0.0, 1.5], [2.0, 0.25], [5.0, 1.0]]
    assert table(tmp_path, csv(rows)) == (rows, None, [])
    for first in ([0, 1, 1, 3], [1, 3, 7, 8], [2, 3, 4, 5]):
        ascending = [[i, row[1]] for i, row in zip(first, rows, strict=True)]
        assert table(tmp_path, csv(ascending, "t,a\n")) == (ascending, None, [])
    assert table(tmp_path, csv([[2, 0.5], [2, 1.5], [3, 1.0]], "id,a\n"))[0] == [[2, 0.5], [2, 1.5], [3, 1.0]]
    numbered = csv([[i, *row] for i, row in enumerate(rows)], "t,a,b\n")
    asked = load_dataset(**config("points", root=written(tmp_path, numbered), columns=("t", "b"), test_fraction=0.25))
    assert asked[0].about == {"columns": ["t", "b"]}
    assert sorted(torch.cat([part.items for part in asked]).tolist()) == [[i, row[1]] for i, row in enumerate(rows)]
    # Points of a model of two columns may well begin 0, 1, 2, 3.
    own = [[0.0, 0.5], [1.0, 0.25], [2.0, 3.5], [3.0, 1.5]]
    assert table(tmp_path, csv(own), width=2) == (own, None, [])
    assert table(tmp_path, csv([[0, *own[0]]]), width=2)[0] == own[:1]


def test_items_take_the_columns_of_the_data_by_name(tmp_path):
    text = "b,note,a\n1,x,2\n3,y,4\n"
    assert table(tmp_path, text, columns=("a", "b"), width=2)[0] == [[2.0, 1.0], [4.0, 3.0]]
    assert table(tmp_path, "1,2\n3,4\n", columns=("a", "b"), width=2)[0] == [[1.0, 2.0], [3.0, 4.0]]
    path = written(tmp_path, text)
    refused(f"{path}: there is no column c: there are b, note, a",
            read_array, path, None, ("a", "c"), 2)  # fmt: skip
    refused(f"{path}: config.data.columns: there is no column c: there are b, note, a",
            open_array, path, "first", (), ("c",))  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), [
    ("a,b\n1,2\n3,abc\n", "line 3, column b: 'abc' is not a number"),
    ("1.5,two\n3,4\n", "line 1, column 2: 'two' is not a number"),
    ("1_000,2\n3,4\n", "line 1, column 1: '1_000' is not a number"),
    ("a,b\n1,2\n3\n", "line 3 has 1 cells, not 2 like the first"),
    ("a,label\n1,0\n2,cat\n", "line 3, column label: 'cat' is not an integer"),
    ("a,label\n1,0\n2,0.5\n", "line 3, column label: '0.5' is not an integer"),
    ("a,label\n1,cat\n2,7\n", "line 3, column label: '7' is not a name like those before"),
    ("a,label\n1,cat\n2,\n", "line 3, column label: '' is not a name like those before"),
    ("label,labels,x\n1,0,2\n", "2 columns are named as labels: keep one"),
    ("a,city,b\n1,Rome,2\n3,Bonn,4\n", "line 2, column city: 'Rome' is not a number; the column holds text: to leave "
     "it out, set config.data.columns to a,b; to make classes of it, name it label"),
    ("day,b\n2020-01-02,2\n2020-01-03,4\n", "line 2, column day: '2020-01-02' is not a number; the column holds dates: "
     "to leave it out, set config.data.columns to b"),
    ("a;b\n1,5;2\n2.5;3\n", "2.5 has a decimal point and 1,5 a decimal comma: write all numbers alike"),
])  # fmt: skip
def test_cells_that_are_not_numbers(tmp_path, text, reason):
    path = written(tmp_path, text)
    refused(f"{path} is not a table of numbers ({reason})", read_array, path)


@pytest.mark.parametrize("gap", ["", "NA", "nan", "?", " "])
def test_gaps(tmp_path, gap):
    path = written(tmp_path, f"a,b\n1.5,2\n3.5,{gap}\n{gap},4\n")
    refused(f"{path}: line 3, column b holds no number (2 cells are): fill the gap, or remove the row",
            read_array, path)  # fmt: skip
    hidden = np.array([[False, False], [False, True], [True, False]])
    assert read_array(path, hidden)[0].tolist() == [[1.5, 2.0], [3.5, 0.0], [0.0, 4.0]]


def test_tables_without_numbers(tmp_path):
    for text in ("", "a,b\n", "\n\n", "label\n1\n"):
        path = written(tmp_path, text)
        refused(f"{path} holds no numbers: needs a row per item", read_array, path)
    path.write_bytes(b"gr\xf6\xdfe,b\n1,2\n")
    with pytest.raises(ValueError, match=r"t\.csv is not a table of numbers \('utf-8' codec.*: save it as UTF-8\)$"):
        read_array(path)


def test_names_of_classes(tmp_path):
    path = written(
        tmp_path, "a,label\n" + "".join(f"{i}.5,{name}\n" for i, name in enumerate(["cat", "dog", "cat"] * 4))
    )
    train, held_out = load_dataset(**config("points", root=path))
    assert train.about["class_names"] == held_out.about["class_names"] == ["cat", "dog"]
    for part in (train, held_out):
        assert [["cat", "dog", "cat"][int(x) % 3] for x in part.items[:, 0]] == [["cat", "dog"][y] for y in part.labels]
