"""Mistakes on the command line: a sentence for every one, and nothing written."""

import pytest

from tests.score_sde.runs import call

MISTAKES = [
    (["--mode", "smaple"], "did you mean sample"),
    (["--workdir", "x"], "--mode"),
    (["--mode", "sample", "--workdir", "nowhere"], "nowhere has no config.json"),
    (["--mode", "train", "--config", "digit"], "cifar10_edm, cifar10_ncsnpp, digits, digits_edges, digits_flow, "),
    (["--mode", "train", "--wrkdir=x"], "wrkdir"),
    (["--mode", "sample", "RUN", "--sampler", "heunn"], "did you mean heun"),
    (["--mode", "sample", "RUN", "--sampler", "eab"], "--sampler = 'eab' has a new name: take deis"),
    (["--mode", "sample", "RUN", "--config.sampler.name=sde"], "name = 'sde' has a new name: take reverse_sde"),
    (["--mode", "sample", "RUN", "--sampler", "seeds"],
     "take sa_solver, with --config.sampler.solver_order=1, with --config.sampler.prediction=noise"),
    (["--mode", "compare", "RUN", "--samplers", "ddim,dpmpp_sde"], "'dpmpp_sde' has a new name: take sa_solver"),
    (["--mode", "sample", "RUN", "--sampler", "ddim", "--config.sampler.eta=2"], "eta = 2"),
    (["--mode", "sample", "RUN", "--sampler", "ddim", "--config.sampler.etaa=1"], "did you mean eta"),
    (["--mode", "sample", "RUN", "--sampler", "pc", "--config.sampler.predictor=dpmpp"], "euler_maruyama"),
    (["--mode", "train", "RUN", "--steps", "5"], "--config.training.steps"),
    (["--mode", "sample", "RUN", "--probes", "5"], "--probes is for --mode likelihood"),
    (["--mode", "sample", "RUN", "--config.sde.beta_max=3"], "only config.sampler can be changed"),
    (["--mode", "likelihood", "RUN", "--config.data.test_fraction=0.5"], "trained on would count as held-out"),
    (["--mode", "train_classifier", "NEW"], "is no run folder"),
    (["--mode", "train_classifier", "RUN", "--config.classifier.max_grad_norm=-1"],
     "config.classifier.max_grad_norm = -1.0: needs zero"),
    (["--mode", "sample", "RUN", "--grid", "karas"], "did you mean karras"),
    (["--mode", "sample", "RUN", "--grid", "0.5,0.2,0.001"],
     "--grid: it starts at t = 0.5 and alpha / sigma = 0.293, where x is not pure noise; let it start at t_max = 1, or "
     "give --mode edit --items and --start_time"),
    (["--mode", "visualize", "RUN", "--grid", "0.5,0.2,0.001"], "--grid: it starts at t = 0.5"),
    (["--mode", "sample", "RUN", "--compile", "onn"], "--compile = 'onn': needs one of auto, on, off"),
    (["--mode", "likelihood", "RUN", "--compile", "on"], "--mode likelihood would ignore it"),
    (["--mode", "train", "NEW", "--config.training.compile=yes"], "config.training.compile = 'yes': needs one of"),
    (["--mode", "sample", "RUN", "--steps", "0"], "steps"),
    (["--mode", "sample", "RUN", "--steps", "two"], "two"),
    (["--mode", "sample", "RUN", "--labels", "0,2"], "class 2 is out of range, allowed are 0 to 1"),
    (["--mode", "sample", "RUN", "--labels", "cat"], "0,1,2"),
    (["--mode", "sample", "RUN", "--labels", "none", "--guidance_scale", "2"], "give --labels"),
    (["--mode", "sample", "RUN", "--seed", "-1"], "seed"),
    (["--mode", "sample", "RUN", "--config", "points"], "--config is for --mode train"),
    (["--mode", "sample", "RUN", "--device", "cuda:7"], "--device=cuda:7"),
    (["--mode", "sample", "RUN", "extra"], "unknown argument extra"),
    (["--mode", "likelihood", "RUN", "--split", "valid"], "test or train"),
    (["--mode", "likelihood", "RUN", "--labels", "3"], "needs data"),
    (["--mode", "likelihood", "RUN", "--rtol", "0"], "rtol"),
    (["--mode", "encode", "RUN", "--split", "valid"], "test or train"),
    (["--mode", "encode", "RUN", "--rtol", "0"], "rtol"),
    (["--mode", "encode", "RUN", "--labels", "5"], "allowed are 0 to 1"),
    (["--mode", "encode", "RUN", "--guidance_scale", "2"], "give --labels"),
    (["--mode", "encode", "RUN", "--steps", "5"], "--steps is for --mode sample"),
    (["--mode", "encode", "RUN", "--items", "1,2"], "--items is for --mode interpolate"),
    (["--mode", "encode", "RUN", "--dtype", "float16"], "is of a --pipeline, and there is none"),
    (["--mode", "encode", "RUN", "--num_samples", "0"], "num_samples"),
    (["--mode", "encode", "RUN", "--config.sampler.name=pc"], "only config.data can be changed"),
    (["--mode", "interpolate", "RUN", "--items", "3"], "needs pairs"),
    (["--mode", "interpolate", "RUN", "--items", "3,4,5"], "odd number"),
    (["--mode", "interpolate", "RUN", "--items", "3,99999"], "99999 is out of range, allowed are 0 to 2499"),
    (["--mode", "interpolate", "RUN", "--items=-1,2"], "-1 is out of range"),
    (["--mode", "interpolate", "RUN", "--items", "a,b"], "needs pairs of numbers"),
    (["--mode", "interpolate", "RUN", "--seed_pairs", "1"], "needs pairs"),
    (["--mode", "interpolate", "RUN", "--items", "1,2", "--seed_pairs", "1,2"], "both given"),
    (["--mode", "interpolate", "RUN", "--seed_pairs", "1,2", "--labels", "data"], "no classes here"),
    (["--mode", "interpolate", "RUN", "--frames", "1"], "frames"),
    (["--mode", "interpolate", "RUN", "--seed", "1"], "--seed is for --mode"),
    (["--mode", "train", "RUN", "--config.training.stepz=3"], "did you mean steps"),
    (["--mode", "train", "RUN", "--config.training.steps=many"], "many"),
    (["--mode", "train", "RUN", "--config.sde.name=vpp"], "did you mean vp"),
    (["--mode", "train", "RUN", "--config.sde.beta_max=10"], "another config.sde"),
    (["--mode", "train", "RUN", "--config", "points", "--config.model.network.width=32"], "another config"),
    (["--mode", "train", "NEW", "--config", "points", "--config.training.loss_weighting=edmm"], "did you mean edm"),
    (["--mode", "train", "NEW", "--config", "points", "--config.training.batch_size=1000000"], "at most 22500"),
    (["--mode", "train", "NEW", "--config", "points", "--config.model.network.depth=3"], "depth"),
    (["--mode", "train", "NEW", "--config", "points", "--config.model.network.width=-1"], "config.model.network"),
    (["--mode", "train", "NEW", "--config", "points", "--config.training.sample_every=0"], "sample_every = 0"),
    (["--mode", "train", "NEW", "--config", "points", "--config.data.workers=-1"], "config.data.workers = -1: needs"),
    (["--mode", "train", "NEW", "--config", "points", "--config.training.ema_decay=1.0"],
     "config.training.ema_decay: decay = 1.0"),
    (["--mode", "train", "NEW", "--config", "points", "--config.training.extra_ema_decays=0.9,1.5"],
     "config.training.extra_ema_decays: decay = 1.5: needs a number from 0"),
    (["--mode", "train", "NEW", "--config", "points", "--config.training.power_ema_stds=0.5,"],
     "config.training.power_ema_stds: relative_std = 0.5: needs a number above 0"),
    (["--mode", "train", "NEW", "--threads", "0"], "threads"),
    (["--mode", "train", "NEW", "--threads", "-2"], "threads"),
    (["--mode", "train", "NEW", "--config", "digits", "--config.data.root=mine"], "config.data.root = 'mine': "
     "config.data.dataset = 'digits' has no use for it; leave it out, or take config.data.dataset=mnist or images or "
     "points"),
    (["--mode", "encode", "RUN", "--config.data.color_mode=L"], "or take config.data.dataset=images"),
    (["--mode", "train", "NEW", "--config", "mnist"], "config.data.root = data/mnist does not exist"),
    (["--mode", "train", "NEW", "--config", "digits", "--config.model.network.attention_resolutions=(5,)"],
     "resolutions are 8, 4"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_mistakes(trained, tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": ["--workdir", str(trained)], "NEW": ["--workdir", str(tmp_path / "new")]}
    before = sorted(p.name for p in trained.rglob("*"))
    status, _, err = call(capsys, *[part for a in arguments for part in places.get(a, [a])])
    assert status == 2
    sentence = err.strip().splitlines()[-1]
    assert sentence.startswith("error: ")
    assert words in sentence
    assert "Traceback" not in err
    assert before == sorted(p.name for p in trained.rglob("*")), "nothing was written"


@pytest.mark.parametrize(("text", "words"), [
    ('{"training": {"lr_rate": 1e-3}}', "unknown key config.training.lr_rate: did you mean lr"),
    ('{"model": {"network": {"name": "mlp", "num_layers": 3}}}', "did you mean layers"),
    ('{"training": {"lr": "1e-4"}}', "config.training.lr = '1e-4': needs a float, like 0.001"),
    ('{"training": {"steps": 10.5}}', "config.training.steps = 10.5: needs a int"),
    ('{"data": {"event_shape": 28}}', "config.data.event_shape = 28: needs a tuple"),
])  # fmt: skip
def test_row_36_mistakes_in_a_config_file(tmp_path, capsys, text, words):
    file = tmp_path / "own.py"
    file.write_text(f"from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict({text})\n")
    status, _, err = call(capsys, "--mode", "train", "--config", file, "--workdir", tmp_path / "run")
    assert status == 2
    assert words in err
    assert not (tmp_path / "run").exists()
