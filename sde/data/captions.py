"""Captions: texts that belong to items, as folders and arrays hold them."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from sde.data.names import composed

TEXT = "text"
"""The condition that ``Dataset.with_text`` makes of captions."""

ARRAYS = ("captions", "caption", "texts", "text", "prompts")
"""Names of the array beside items that holds their captions."""

TABLES = ("metadata.jsonl", "metadata.csv", "captions.jsonl", "captions.csv")
"""Files of captions in a folder of images, the first of them that there is: as ``datasets`` of Hugging Face writes them
for its imagefolder, or a table of names and captions."""

FILES, TEXTS = ("file_name", "file", "filename", "image", "name"), ("text", "caption", "captions", "prompt")
"""Columns of such a table: what an image is called, relative to the table's folder, and its caption."""

MOST_NAMED = 5
"""Images without a caption that are named at most."""


def caption_array(held: Mapping[str, np.ndarray], count: int) -> list[str]:
    """The captions of ``count`` items, of the array among these that is called as ARRAYS says. Raises ValueError where
    there is none, and for other numbers of texts and empty ones."""
    name = next((name for name in ARRAYS if name in held), None)
    if name is None:
        raise ValueError(f"there are no captions: store an array of texts named {ARRAYS[0]} beside the items")
    array = held[name]
    if array.shape != (count,) or array.dtype.kind not in "US":
        raise ValueError(
            f"the array {name} has shape {array.shape} and type {array.dtype}: needs ({count},) texts, one per item"
        )
    texts = [one_line(x.decode("utf-8", "replace") if isinstance(x, bytes) else x) for x in array.tolist()]
    check_captions({f"item {number}": text for number, text in enumerate(texts)}, "items", f"the array {name}")
    return texts


def folder_captions(names: Sequence[str], files: Iterable[str], read: Callable[[str], bytes]) -> list[str]:
    """The captions of images of a folder, whose ``names`` are relative to it, among all its ``files``, which ``read``
    reads: of the tables in it and in its sub-folders, or else of the text files beside the images, a.txt of a.png.

    Raises ValueError, which names images, where some have no caption, or several, and for tables that are none.
    """
    known = {*files}
    tables = [next((name for name in TABLES if _in(folder, name) in known), None) for folder in _folders(names)]
    told: dict[str, str] = {}
    for folder, table in zip(_folders(names), tables, strict=True):
        if table is None:
            continue
        for image, text in _rows(_in(folder, table), read):
            place = composed(_in(folder, image))
            if told.get(place, text) != text:
                raise ValueError(f"{_in(folder, table)} has several captions of {image}: each image takes one")
            told[place] = text
    where = " and ".join(sorted({table for table in tables if table}))
    if not where:
        beside = {name: str(PurePosixPath(name).with_suffix(".txt")) for name in names}
        told = {composed(name): one_line(_text(beside[name], read)) for name in names if beside[name] in known}
        where = "text files beside the images, as a.txt of a.png"
        if not told:
            raise ValueError(
                f"the {len(names)} images have no captions: put a.txt beside a.png, or one of {', '.join(TABLES)} into "
                "the folder"
            )
    found = {name: told.get(composed(name), "") for name in names}
    check_captions(found, "images", where)
    return [*found.values()]


def check_captions(texts: Mapping[str, str], what: str, where: str) -> None:
    """Raise ValueError, which names them, for items that have no caption; ``where`` says where it was looked for."""
    missing = [name for name, text in texts.items() if not text]
    if missing:
        shown = ", ".join(missing[:MOST_NAMED]) + (", ..." if len(missing) > MOST_NAMED else "")
        raise ValueError(
            f"{len(missing)} of {len(texts)} {what} have no caption in {where}: {shown}; caption them, or leave them "
            "out"
        )


def one_line(text: str) -> str:
    """A caption with single spaces in place of all white space, and none around it."""
    return " ".join(text.split())


def _folders(names: Sequence[str]) -> list[str]:
    """The folders that images lie in, and all above these, "" for the first."""
    return sorted({str(folder) if folder.parts else "" for name in names for folder in PurePosixPath(name).parents})


def _in(folder: str, name: str) -> str:
    return str(PurePosixPath(folder, name)) if folder else str(PurePosixPath(name))


def _text(name: str, read: Callable[[str], bytes]) -> str:
    try:
        return read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is no text in UTF-8 ({error}): store it in that encoding") from None


def _rows(table: str, read: Callable[[str], bytes]) -> Iterator[tuple[str, str]]:
    """The names of images and their captions, of a table."""
    text = _text(table, read)
    if table.endswith(".csv"):
        lines = [line for line in csv.reader(io.StringIO(text)) if line]
        header = [column.strip().lower() for column in lines[0]] if lines else []
        if not ({*header} & {*FILES} and {*header} & {*TEXTS}):
            if any(len(line) != 2 for line in lines):
                raise ValueError(
                    f"{table} has the columns {', '.join(header)}: needs {FILES[0]} and {TEXTS[0]}, or two columns, "
                    "names and captions (in quotes where a comma is in them)"
                )
            header, lines = [FILES[0], TEXTS[0]], [[], *lines]
        long = next((number for number, line in enumerate(lines[1:], 1) if len(line) > len(header)), None)
        if long is not None:
            raise ValueError(
                f"row {long} of {table} has {len(lines[long])} values, and its columns are {', '.join(header)}: put "
                "captions with a comma in quotes"
            )
        rows = [dict(zip(header, line, strict=False)) for line in lines[1:]]
    else:
        # Other ends of lines may lie within a text.
        rows = [_object(table, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for number, row in enumerate(rows, 1):
        image, caption = (next((row[key] for key in keys if key in row), None) for keys in (FILES, TEXTS))
        if isinstance(caption, list) and len(caption) == 1:
            caption = caption[0]
        if not isinstance(image, str) or not isinstance(caption, str):
            raise ValueError(
                f"row {number} of {table} has {', '.join(row) or 'nothing'}: needs texts {FILES[0]} and {TEXTS[0]}, "
                "one caption of one image"
            )
        yield image, one_line(caption)


def _object(table: str, number: int, line: str) -> dict:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number} of {table} is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"line {number} of {table} is no object: needs {FILES[0]} and {TEXTS[0]}")
    return found
