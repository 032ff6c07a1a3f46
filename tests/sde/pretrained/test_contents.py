"""Files of foreign weights are read without running anything that they name."""

import collections
import io
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from sde.pretrained import load_pretrained, pickles
from sde.pretrained.contents import read_contents


def read_pickle(content):
    return pickles.read_pickle(io.BytesIO(content))


class Runs:
    """A value whose reading would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_is_not_run(tmp_path, save):
    path, made = tmp_path / "weights.pt", tmp_path / "made"
    save({"ema": torch.ones(2), "more": Runs(made)}, path)
    with pytest.raises(ValueError, match=r"weights\.pt was not loaded: it names posix\.mkdir"):
        load_pretrained(path)
    assert not made.exists()


def test_a_name_is_refused_before_what_stands_in_front_of_it_is_built(tmp_path):
    """A class that is not known is refused where it is named, whatever would be done with it."""
    content = pickle.dumps([torch.ones(2), collections.Counter])
    with pytest.raises(ValueError, match=r"it names collections\.Counter"):
        read_pickle(content)


@pytest.mark.parametrize("name", ["eval", "getattr", "__import__", "exec"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_builtins_are_refused(name, protocol):
    import builtins

    with pytest.raises(ValueError, match=rf"it names builtins\.{name}"):
        read_pickle(pickle.dumps(getattr(builtins, name), protocol))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_values_and_tensors_are_themselves(protocol):
    view = torch.arange(12.0).view(3, 4).t()[1:]
    value = {
        "view": view,
        "half": torch.ones(2, dtype=torch.bfloat16),
        "parameter": nn.Parameter(torch.ones(3)),
        "array": np.arange(6, dtype=">i4").reshape(2, 3),
        "scalar": np.float32(0.5),
        "set": {1, 2},
        "dtype": torch.float16,
        "device": torch.device("cuda:0"),
        "shape": torch.Size([1, 2]),
        "order": collections.OrderedDict(a=1),
    }
    found = read_pickle(pickle.dumps(value, protocol))
    assert torch.equal(found["view"], view)
    assert found["half"].dtype == torch.bfloat16
    assert torch.equal(found["parameter"], torch.ones(3))
    assert np.array_equal(found["array"].value, value["array"])
    assert (found["scalar"], found["set"], found["dtype"], found["shape"]) == (0.5, {1, 2}, torch.float16, (1, 2))
    assert found["order"] == {"a": 1}


def reduced(function, *arguments, state=None):
    """A value that a pickle makes of a call, and a state."""

    class Made:
        def __reduce__(self):
            return (function, arguments) if state is None else (function, arguments, state)

    return Made()


def test_a_state_is_given_to_objects_of_the_pickle_alone():
    """Not to what they are built by, which serves the next file, too, and not to tensors."""
    built = pickle.dumps(torch._utils._rebuild_parameter)[:-1] + b"N" + pickle.BUILD + pickle.STOP
    with pytest.raises(ValueError, match="it gives a state to a function"):
        read_pickle(built)
    with pytest.raises(ValueError, match="it gives a state to a Tensor"):
        read_pickle(pickle.dumps(torch.ones(2))[:-1] + b"N" + pickle.BUILD + pickle.STOP)
    order = collections.OrderedDict(a=1)
    order.versions = {"": 1}
    assert read_pickle(pickle.dumps(order)) == {"a": 1}


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (5,), (1,)), (1, (4,), (1,)), (0, (2, 2), (3, 1)), (0, (2,), (-1,)), (-1, (2,), (1,)), (0, (2, 3), (2, 1))],
)
def test_a_tensor_lies_within_its_storage(offset, size, stride, tmp_path):
    """Of four numbers: what lies behind them is not read."""
    storage = torch.arange(4.0)._typed_storage()
    made = reduced(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, collections.OrderedDict())
    with pytest.raises(ValueError, match="larger than its storage"):
        read_pickle(pickle.dumps(made))


def test_a_whole_storage_and_none_of_it():
    def made(offset, size, stride):
        parts = (torch.arange(4.0)._typed_storage(), offset, size, stride, False, collections.OrderedDict())
        return read_pickle(pickle.dumps(reduced(torch._utils._rebuild_tensor_v2, *parts)))

    assert made(1, (2, 2), (0, 2)).tolist() == [[1, 3], [1, 3]]
    assert made(4, (0, 7), (7, 1)).shape == (0, 7)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_torch_lie_within_their_storage(zipped, tmp_path):
    class Longer(torch.Tensor):
        def __reduce_ex__(self, protocol):
            parts = (torch.arange(4.0)._typed_storage(), 0, (900,), (1,), False, collections.OrderedDict())
            return torch._utils._rebuild_tensor_v2, parts

    torch.save({"w": Longer()}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"w\.pt was not loaded: .*(out of bounds|wrong byte size|resizable)"):
        read_contents(tmp_path / "w.pt")


def test_advice_of_torch_is_not_ours(tmp_path):
    """In a storage within a pickle, too."""
    inner = io.BytesIO()
    torch.save(Runs(tmp_path / "made"), inner)
    made = reduced(torch.storage._load_from_bytes, inner.getvalue())
    with pytest.raises(ValueError, match=r"^it names posix\.mkdir, which"):
        read_pickle(pickle.dumps(made))
    torch.save(eval, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"it names (builtins\.)?eval, which a file of weights has no need of"):
        read_contents(tmp_path / "w.pt")
    (tmp_path / "w.pt").write_bytes(
        b"\x80\x02" + b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\x02M\xe9\x03.\x80\x02}q\x01.\x80\x02\xff"
    )
    with pytest.raises(ValueError, match="cut short") as error:
        read_contents(tmp_path / "w.pt")
    assert not re.search("weights_only|trust|file an issue", str(error.value))


def test_modules_that_are_damaged():
    module = nn.Sequential(nn.Linear(2, 3))
    for state, sentence in (
        ({"_modules": {"0": module}}, "contains itself"),
        ({"_parameters": {"weight": [1.0]}}, "holds a list as 0.weight, where a tensor belongs"),
        ({"_parameters": [torch.ones(1)]}, "whose parameters are not by name"),
        ({"_buffers": {1: torch.ones(1)}}, "whose buffers are not by name"),
    ):
        inner = pickle.loads(pickle.dumps(module))
        if "_modules" in state:
            state = {"_modules": {"0": inner}}
        vars(inner[0]).update(state)
        with pytest.raises(ValueError, match=sentence):
            dict(read_pickle(pickle.dumps(inner)).tensors())


def test_modules_are_their_tensors():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    module.register_buffer("passing", torch.ones(1), persistent=False)
    found = dict(read_pickle(pickle.dumps(module)).tensors())
    wanted = module.state_dict()
    assert [*found] == [*wanted]
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_old_and_new_files_of_torch(tmp_path):
    value = {"model": {"weight": torch.ones(2)}, "step": np.int64(3), "loss": np.float64(0.5)}
    value["array"] = np.arange(6, dtype=">f4").reshape(2, 3).T
    for zipped in (True, False):
        torch.save(value, tmp_path / "weights.pt", _use_new_zipfile_serialization=zipped)
        found = read_contents(tmp_path / "weights.pt")
        assert found.kind == "torch"
        assert torch.equal(found.tensors("model")["weight"], torch.ones(2))
        assert (found.data["step"], found.data["loss"]) == (3, 0.5)
        assert np.array_equal(found.data["array"], value["array"])
        assert found.tensors("nothing") == found.tensors("step") == {}


@pytest.mark.parametrize("kind", ["zip", "old", "pickle", "safetensors"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_cut_short(tmp_path, kind, part):
    from safetensors.torch import save

    file, value = io.BytesIO(), {"weight": torch.randn(400)}
    if kind == "safetensors":
        content = save(value)
    elif kind == "pickle":
        content = pickle.dumps(value)
    else:
        torch.save(value, file, _use_new_zipfile_serialization=kind == "zip")
        content = file.getvalue()
    path = tmp_path / "weights"
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ValueError, match=r"weights was not loaded: it .*(cut short|nor whole)"):
        load_pretrained(path)


def test_what_is_no_file_of_weights(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        load_pretrained(tmp_path / "nothing")
    (tmp_path / "text").write_text("weights")
    with pytest.raises(ValueError, match="neither a file of torch"):
        load_pretrained(tmp_path / "text")
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(ValueError, match="archive was not loaded"):
        load_pretrained(tmp_path / "archive")
    torch.save({"a": torch.ones(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match=r"other is none of .*: it holds a torch with a"):
        load_pretrained(tmp_path / "other")


def test_what_may_have_been_meant(tmp_path):
    """A file beside what was named, and files that are something else."""
    with pytest.raises(ValueError, match=r"is none of .*: it is a folder without such a file"):
        load_pretrained(tmp_path)
    torch.save({"a": torch.ones(1)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"is none of .*: it is a folder; did you mean .*model\.pt\?"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"it may be a part of the folder .*: name that"):
        load_pretrained(tmp_path / "model.pt")
    np.savez(tmp_path / "x.npz", x=np.ones(2))
    with pytest.raises(ValueError, match=r"it is an archive of arrays \(\.npz\), and holds no weights"):
        load_pretrained(tmp_path / "x.npz")
    with pytest.raises(ValueError, match="source = 'score_sdee': needs auto or one of"):
        load_pretrained(tmp_path / "x.npz", source="score-sdeE")


def test_a_folder_is_its_json_files(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text('{"a": 1}')
    found = read_contents(tmp_path)
    assert (found.kind, found.data) == ("folder", {"unet/config.json": {"a": 1}})
    # Others are not looked at.
    (tmp_path / "unet" / "tokens.json").write_text("{")
    assert read_contents(tmp_path).data == found.data
    for text in ("{", "[" * 100_000):
        (tmp_path / "model_index.json").write_text(text)
        with pytest.raises(ValueError, match=r"model_index\.json was not read"):
            read_contents(tmp_path)
