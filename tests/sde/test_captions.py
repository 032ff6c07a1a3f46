"""Captions: text files beside images, tables, arrays; what is missing is named; rows that an encoder makes of them."""

import json
import zipfile

import numpy as np
import pytest
import torch

from sde.condition.text import TEXT_ENCODERS
from sde.condition.text.token_vectors import TokenVectors
from sde.condition.text.tokenizer import Characters
from sde.data import Dataset, caption_rows
from sde.data.folders import Folder
from sde.data.transform import Transform
from tests.sde.small_data import config, load_dataset
from tests.sde.test_folders import pictures

NAMES = ["one/a.png", "one/b.png", "sub.dir/c.v2.png"]
TOLD = {"one/a.png": "a red heart", "one/b.png": "a blue car, parked", "sub.dir/c.v2.png": "naïve café"}


def write_texts(root):
    for name, text in TOLD.items():
        (root / name).with_suffix(".txt").write_text(f"{text}\n", "utf-8")


def write_csv(root):
    (root / "captions.csv").write_text("".join(f'{name},"{text}"\n' for name, text in TOLD.items()), "utf-8")


def write_csv_with_header(root):
    rows = "".join(f'7,"{text}",{name}\n' for name, text in TOLD.items())
    (root / "metadata.csv").write_text(f"id,text,file_name\n{rows}", "utf-8-sig")


def write_lines(root):
    # Of all ends of lines that Unicode has, those of files alone are some.
    told = {"file_name": NAMES[0], "text": TOLD[NAMES[0]].replace(" ", "\u2028")}
    lines = [json.dumps({"file_name": name, "text": text, "width": 4}) for name, text in TOLD.items()]
    lines[0] = json.dumps(told, ensure_ascii=False)
    (root / "metadata.jsonl").write_bytes(("\r\n".join(lines) + "\r\n\r\n").encode())


def write_lines_in_folders(root):
    (root / "metadata.jsonl").write_text(
        "\n".join(json.dumps({"file_name": n, "caption": TOLD[n]}) for n in NAMES[:2]), "utf-8"
    )
    (root / "sub.dir/captions.jsonl").write_text(json.dumps({"image": "c.v2.png", "captions": [TOLD[NAMES[2]]]}))


WRITERS = [write_texts, write_csv, write_csv_with_header, write_lines, write_lines_in_folders]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_captions_belong_to_their_images(tmp_path, write, packed):
    root = pictures(tmp_path / "images", *NAMES)
    write(root)
    if packed:
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
            for path in sorted(root.rglob("*.*")):
                if path.is_file():
                    archive.write(path, path.relative_to(root).as_posix())
        root = tmp_path / "images.zip"
    folder = Folder(root)
    assert folder.captions() == [TOLD[name] for name in folder.names]


def many(tmp_path, count=900, missing=(3, 400, 899)):
    root = pictures(tmp_path, *(f"{i:04}.png" for i in range(count)))
    rows = [json.dumps({"file_name": f"{i:04}.png", "text": f"number {i}"}) for i in range(count) if i not in missing]
    (root / "metadata.jsonl").write_text("\n".join(rows))
    return root


def test_images_without_a_caption_are_named(tmp_path):
    root = many(tmp_path / "some", 30, (3, 7, 29))
    sentence = "3 of 30 images have no caption in metadata.jsonl: 0003.png, 0007.png, 0029.png; caption them, or leave"
    with pytest.raises(ValueError, match=sentence):
        Folder(root).captions()
    root = many(tmp_path / "few", 9, range(8))
    with pytest.raises(ValueError, match=r"8 of 9 images .*: 0000.png, .*, 0004.png, ...; caption"):
        Folder(root).captions()


@pytest.mark.parametrize(("name", "content", "sentence"), [
    ("captions.csv", "a.png,red,heart\n", r"captions.csv has the columns a.png, red, heart: needs file_name and text"),
    ("captions.csv", "file_name,text\na.png,red, round heart\n", "row 1 of captions.csv has 3 values, .* in quotes"),
    ("metadata.jsonl", "{\n", "line 1 of metadata.jsonl is no JSON"),
    ("metadata.jsonl", "[1]\n", "line 1 of metadata.jsonl is no object"),
    ("metadata.jsonl", '{"file_name": "a.png"}\n', "row 1 of metadata.jsonl has file_name: needs texts"),
    ("metadata.jsonl", '{"file_name": "a.png", "text": ["one", "two"]}', "one caption of one image"),
    ("captions.csv", "a.png,one\na.png,two\n", "captions.csv has several captions of a.png: each image takes one"),
    ("captions.csv", "b.png,one\n", "1 of 1 images have no caption in captions.csv: a.png"),
    ("a.txt", " \n", "1 of 1 images have no caption in text files beside the images"),
    ("b.txt", "a cat", "the 1 images have no captions: put a.txt beside a.png, or one of metadata.jsonl"),
])  # fmt: skip
def test_other_tables_are_refused(tmp_path, name, content, sentence):
    root = pictures(tmp_path, "a.png")
    (root / name).write_text(content)
    with pytest.raises(ValueError, match=sentence):
        Folder(root).captions()


def test_a_text_in_another_encoding_is_refused(tmp_path):
    root = pictures(tmp_path, "a.png")
    (root / "a.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a.txt is no text in UTF-8"):
        Folder(root).captions()


def test_a_split_keeps_captions_with_their_items(tmp_path):
    """Of images in folders of parts, each with a table, and of one folder that is split."""
    root = many(tmp_path / "whole", 20, ())
    parts = load_dataset(**config("images", root=root, conditions=("text",), test_fraction=0.25))
    for part in parts:
        grays = part.items[:, 0, 0, 0].tolist()
        assert part.captions == [f"number {gray}" for gray in grays]
    for name in ("train", "test"):
        many(tmp_path / "parts" / name, 6, ())
    with pytest.warns(UserWarning, match="held out"):
        train, test = load_dataset(**config("images", root=tmp_path / "parts", conditions=("text",)))
    assert train.captions == test.captions == [f"number {i}" for i in range(6)]


def test_arrays_hold_captions_beside_classes(tmp_path):
    x, texts = np.arange(24.0).reshape(12, 2), np.array([f"text  {i}\n" for i in range(12)])
    path = tmp_path / "data.npz"
    np.savez(path, x=x, captions=texts, labels=np.arange(12) % 2)
    parts = load_dataset(**config("points", root=path, conditions=("text",), test_fraction=0.25))
    for part in parts:
        assert part.captions == [f"text {int(a / 2)}" for a in part.items[:, 0]]
        # By which samples can be judged, though the model is not told them.
        assert part.labels.tolist() == [int(a / 2) % 2 for a in part.items[:, 0]]
    assert load_dataset(**config("points", root=path, test_fraction=0.25))[0].captions is None
    np.savez(path, x=x, captions=[*texts[:10], "", " "])
    with pytest.raises(ValueError, match="2 of 12 items have no caption in the array captions: item 10, item 11;"):
        load_dataset(**config("points", root=path, conditions=("text",), test_fraction=0.25))
    np.savez(path, x=x, captions=np.arange(12))
    with pytest.raises(ValueError, match=r"the array captions has shape \(12,\) and type int64: needs \(12,\) texts"):
        load_dataset(**config("points", root=path, conditions=("text",), test_fraction=0.25))
    np.savez(path, x=x)
    with pytest.raises(ValueError, match="there are no captions: store an array of texts named captions"):
        load_dataset(**config("points", root=path, conditions=("text",), test_fraction=0.25))
    with pytest.raises(ValueError, match="the data have no captions; take the data sets images or points"):
        load_dataset(**config("digits", conditions=("text",)))


def told(captions, **more):
    return Dataset(torch.arange(len(captions) * 2.0).view(-1, 2), None, None, Transform(), captions=captions, **more)


def test_conditions_are_what_the_encoder_makes_of_each_caption(monkeypatch):
    captions = ["ab", "b", "ab", "cab"]
    encoder = TEXT_ENCODERS["token_vectors"](captions)
    data = told(captions).with_text(encoder)
    index, expected = torch.tensor([3, 0, 2]), encoder(["cab", "ab", "ab"])
    monkeypatch.setattr(caption_rows, "AT_ONCE", 0)
    for found in (data, told(captions).with_text(encoder)):
        cond = found.batch(index)[1]
        assert {*cond} == {"sequence", "vector"}
        assert found.condition_shapes == encoder.shapes
        for kind, c in cond.items():
            assert torch.equal(c.nan_to_num(9), expected[kind].nan_to_num(9))
    assert isinstance(found.conditions["vector"], caption_rows.CaptionRows)
    assert found.to(torch.device("cpu")) is not None


def test_captions_that_do_not_belong_are_refused():
    with pytest.raises(ValueError, match="there are 1 captions for 2 items"):
        Dataset(torch.zeros(2, 2), None, None, Transform(), captions=["a"])
    encoder = TokenVectors(Characters("a"), None, 2)
    with pytest.raises(ValueError, match="have no captions"):
        Dataset(torch.zeros(2, 2), None, None, Transform()).with_text(encoder)
    with pytest.raises(ValueError, match="captions and the data both give the condition 'vector'"):
        told(["a", "a"], conditions={"vector": torch.zeros(2, 3)}).with_text(encoder)
