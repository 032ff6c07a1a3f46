"""Compiling on the command line and in training: when it pays, what is kept, what is said, and that nothing changes."""

import copy

import numpy as np
import pytest
import torch

import score_sde.run.compiling as sampling
import score_sde.training.compiling as training
from samplers.compiled import attach, is_compiled
from score_sde.config.config import config_path, read_config, resolve
from score_sde.run.folder import Run
from score_sde.training.rehearsal import Rehearsal
from score_sde.training.session import Session
from sde.distributed.world import World
from sde.training.loss import denoising_loss
from tests.oracles.machine import Machine
from tests.score_sde.runs import call, run_of
from tests.sde.small_training import SPEC, same, trainer


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def counted(monkeypatch):
    """The graphs that torch would compile, each run as it is."""
    graphs, compile = [], torch.compile

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    def compiled(function, backend=None, mode=None, **options):
        return compile(function, backend=counting, **options)

    counting = backend
    monkeypatch.setattr(torch, "compile", compiled)
    return graphs


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    return run_of("points", tmp_path_factory.mktemp("run") / "points")


def a_run(tmp_path, *overrides, compile="auto"):
    return Run(tmp_path, resolve(read_config(config_path("points")), list(overrides)), torch.device("cpu"),
               compile=compile)  # fmt: skip


def trying(monkeypatch, eager, compiled, compiling=30.0, least=0.0):
    """Calls take these seconds; how often a trial was made."""
    made = []

    def seconds(run, model, event_shape, rows):
        graphs = is_compiled(model.network)
        first = compiling if graphs and len(made) > 0 and made[-1] == "begun" else 0.0
        if first:
            made[-1] = "compiled"
        return (compiled if graphs else eager) * rows / 4 + first

    def fastest(ways, **options):
        made.append("tried")
        return Machine({"eager": eager, "compiled": compiled}).fastest(min_speedup=options["min_speedup"])

    real = sampling._try

    def begun(*arguments):
        made.append("begun")
        return real(*arguments)

    monkeypatch.setattr(sampling, "_try", begun)
    monkeypatch.setattr(sampling, "_seconds", seconds)
    monkeypatch.setattr(sampling, "fastest", fastest)
    monkeypatch.setattr(sampling, "lacking", lambda device: None)
    monkeypatch.setattr(sampling, "LEAST_SECONDS", least)
    return made


def test_short_runs_try_nothing(tmp_path, monkeypatch, capsys):
    made = trying(monkeypatch, 0.1, 0.05, least=300.0)
    assert not sampling.pays(a_run(tmp_path), trainer().module, (3,), 4, 2999)
    assert (made, capsys.readouterr().out, [*tmp_path.iterdir()]) == ([], "", [])
    assert not sampling.pays(a_run(tmp_path), trainer().module, (3,), 4, None)


def test_long_runs_try_once_and_keep_it(tmp_path, monkeypatch, capsys):
    made, model = trying(monkeypatch, 0.1, 0.05), trainer().module
    assert sampling.pays(a_run(tmp_path), model, (3,), 4, 100)
    assert made == ["compiled", "tried"]
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith(
        "a network call of 4 rows takes 100 ms in eager, 50 ms in compiled (6 turns): compiled is 2"
    )
    assert said[-1].endswith(f"compiling took 30 s, kept in {tmp_path / 'compiled.json'}")
    # 0.05 s are saved by each call, and 30 s are to be earned back.
    assert not sampling.pays(a_run(tmp_path), model, (3,), 4, 598)
    assert sampling.pays(a_run(tmp_path), model, (3,), 4, 602)
    assert made == ["compiled", "tried"]


def test_what_is_no_faster_for_sure_is_left(tmp_path, monkeypatch):
    trying(monkeypatch, 0.1, 0.1)
    forgotten = resets(monkeypatch)
    assert not sampling.pays(a_run(tmp_path), trainer().module, (3,), 4, 10**6)
    assert forgotten == ["reset"]
    assert not sampling.pays(a_run(tmp_path), trainer().module, (3,), 4, 10**6)


def test_long_calls_are_tried_with_fewer_rows(tmp_path, monkeypatch, capsys):
    trying(monkeypatch, 0.1, 0.05)
    assert sampling.pays(a_run(tmp_path), trainer().module, (3,), 1000, 100)
    # Of 0.2 s at most, at 0.025 s a row, but not fewer than the few of the guess.
    assert "a network call of 8 rows takes" in capsys.readouterr().out
    # Each call of 1000 rows saves 12.5 s, of the 30 that are to be earned back.
    assert not sampling.pays(a_run(tmp_path), trainer().module, (3,), 1000, 2)
    assert sampling.pays(a_run(tmp_path), trainer().module, (3,), 1000, 3)


def test_small_networks_on_cuda_are_left(tmp_path, monkeypatch):
    """Of which runs would be captured as a whole."""
    made, model, run = trying(monkeypatch, 0.1, 0.05), trainer().module, a_run(tmp_path)
    run.device = torch.device("cuda")
    assert not sampling.pays(run, model, (3,), 4, 10**6)
    assert made == []
    monkeypatch.setattr("samplers.loop.captured.MOST_PARAMETERS", 0)
    monkeypatch.setattr(sampling, "_circumstances", lambda *arguments: "a card")
    assert sampling.pays(run, model, (3,), 4, 10**6)


def test_what_is_asked_for_is_not_tried(tmp_path, monkeypatch):
    made = trying(monkeypatch, 0.1, 0.05)
    assert sampling.pays(a_run(tmp_path, compile="on"), trainer().module, (3,), 4, None)
    assert not sampling.pays(a_run(tmp_path, compile="off"), trainer().module, (3,), 4, 10**9)
    assert made == []


@pytest.mark.parametrize("arguments", [
    ["sample", "--sampler", "ancestral", "--labels", "0", "--guidance_scale", "2"],
    ["encode", "--num_samples", "5", "--batch_size", "2", "--rtol", "1e-2", "--atol", "1e-2"],
    ["edit", "--items", "0,1", "--start_time", "0.3,0.5"],
    ["interpolate", "--items", "0,1", "--frames", "3", "--rtol", "1e-2", "--atol", "1e-2"],
    ["restore", "--task", "inpaint", "--mask", "random:0.5", "--items", "0", "--method", "replacement", "--steps", "3"],
    ["compare", "--samplers", "ddim,heun", "--nfe", "5", "--num_samples", "20"],
    ["guidance_sweep", "--guidance_scale", "1,2", "--num_samples", "20", "--steps", "2", "--labels", "0,1"],
    ["evaluate", "--num_samples", "50", "--steps", "2", "--metrics", "frechet", "--subsamples", "5"],
    ["visualize", "--plots", "denoised", "--num_samples", "4", "--steps", "3"],
], ids=lambda arguments: arguments[0])  # fmt: skip
def test_a_command_is_one_graph(points, counted, capsys, tmp_path, arguments):
    mode, *flags = arguments
    status, result, err = call(capsys, "--mode", mode, "--workdir", points.folder, "--compile", "on", *flags,
                               "--out", tmp_path / "a")  # fmt: skip
    assert (status, err) == (0, "")
    assert result["settings"]["compile"] == "on"
    assert len(counted) == 1


def test_samples_of_a_compiled_command_are_the_same(points, counted, capsys, tmp_path):
    for way in ("on", "off"):
        call(capsys, "--mode", "sample", "--workdir", points.folder, "--compile", way, "--steps", "4",
             "--num_samples", "7", "--batch_size", "3", "--out", tmp_path / way)  # fmt: skip
    on, off = (np.load(tmp_path / f"{way}.npz")["x"] for way in ("on", "off"))
    np.testing.assert_allclose(on, off, atol=1e-5)
    assert len(counted) == 1


def test_without_a_compiler_the_sentence_comes_first(points, monkeypatch, capsys, tmp_path):
    def nothing():
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", nothing)
    status, _, err = call(capsys, "--mode", "sample", "--workdir", points.folder, "--compile", "on", "--out",
                          tmp_path / "a")  # fmt: skip
    assert status == 2
    assert err.startswith("error: --compile=on: needs a C++ compiler, ")
    assert err.endswith("install it, or leave --compile out\n")
    status, _, err = call(capsys, "--mode", "train", "--config", "points", "--workdir", tmp_path / "r",
                          "--config.training.compile=on", "--config.training.steps=2")  # fmt: skip
    assert status == 2
    assert err.startswith("error: config.training.compile: needs a C++ compiler, ")
    assert not (tmp_path / "r" / "model.safetensors").exists()
    # Left to itself, it stays as it is.
    assert not sampling.pays(a_run(tmp_path), trainer().module, (3,), 4, 10**9)


def settled(tmp_path, monkeypatch, capsys, seconds, *overrides, small=0, least=0.0):
    monkeypatch.setattr(training, "LEAST_PARAMETERS", small)
    monkeypatch.setattr(training, "LEAST_SECONDS", least)
    monkeypatch.setattr(training, "lacking", lambda device: None)

    def fastest(ways, min_speedup, **options):
        return Machine(dict(zip(ways, seconds, strict=True))).fastest(min_speedup=min_speedup)

    monkeypatch.setattr(training, "fastest", fastest)
    where, its = a_run(tmp_path, *overrides), trainer()
    found = training.settle_compiling(Rehearsal(where, its.module, its.data, denoising_loss, its.options))
    assert is_compiled(its.module.network) == (found.compile == "on")
    assert where.with_speed(found).config.training.compile == found.compile
    return found.compile, capsys.readouterr().out


def resets(monkeypatch):
    """How often torch was told to forget its graphs."""
    made = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: made.append("reset"))
    return made


def test_training_tries_once_and_keeps_it(tmp_path, monkeypatch, capsys):
    forgotten = resets(monkeypatch)
    way, out = settled(tmp_path, monkeypatch, capsys, (0.1, 0.08))
    assert way == "on"
    assert out.splitlines()[-1].endswith("; training compiled")
    assert not forgotten
    way, out = settled(tmp_path, monkeypatch, capsys, (0.1, 0.098))
    assert way == "off"
    assert out.splitlines()[-1].endswith("; training as it is")
    assert forgotten == ["reset"]


@pytest.mark.parametrize("limit", [{"small": 10**9}, {"least": 1e9}])
def test_short_training_and_small_networks_try_nothing(tmp_path, monkeypatch, capsys, limit):
    """And keep "auto", so that a longer run that goes on from there may try."""
    assert settled(tmp_path, monkeypatch, capsys, (0.1, 0.05), **limit) == ("auto", "")


def test_training_does_what_is_asked_for(tmp_path, monkeypatch, capsys):
    for way in ("on", "off"):
        assert settled(tmp_path, monkeypatch, capsys, (0.1, 0.05), f"--config.training.compile={way}") == (way, "")


def test_split_weights_are_not_compiled(tmp_path, monkeypatch):
    run, its = a_run(tmp_path, "--config.training.compile=on"), trainer()
    run.world = World(0, 2)
    options = a_run(tmp_path, "--config.training.parallel=fsdp").config.training.optimization
    with pytest.raises(ValueError, match=r"config.training.compile = 'on': .*config.training.parallel = 'fsdp' splits"):
        training.settle_compiling(Rehearsal(run, its.module, its.data, denoising_loss, options))


def test_compiled_training_is_the_same_and_goes_on_from_either(counted):
    plain, ours = trainer(6, dropout=0.0), trainer(6, dropout=0.0)
    attach(ours.module.network)
    names = list(plain.state_dict()["module"])
    for _ in range(3):
        for one in (plain, ours):
            one.training_step()
    state = ours.state_dict()
    assert list(state["module"]) == names
    again, eager = trainer(6, dropout=0.0), trainer(6, dropout=0.0)
    attach(again.module.network)
    for one in (again, eager):
        one.load_state_dict(copy.deepcopy(state))
    for _ in range(3):
        for one in (plain, ours, again, eager):
            one.training_step()
    assert same(ours.state_dict(), again.state_dict())
    for one in (plain, eager):
        for name, value in one.state_dict()["module"].items():
            torch.testing.assert_close(ours.state_dict()["module"][name], value, rtol=0, atol=1e-5)
    assert len(counted) == 1


def test_what_is_looked_at_in_between_is_not_compiled(tmp_path):
    run, its = a_run(tmp_path), trainer(1)
    session = Session(run, its, "denoiser", run.model_file, SPEC)
    assert session.raw() is its.module
    attach(its.module.network)
    raw = session.raw()
    assert not is_compiled(raw.network)
    assert same(raw.state_dict(), its.module.state_dict())
    assert not raw.training
