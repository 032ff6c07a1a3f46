"""--mode export: a run's model as other libraries load it."""

from pathlib import Path

from score_sde.config.config import pick
from score_sde.config.naming import with_keys, with_words
from score_sde.run.folder import Run
from sde.checkpoint.models import load_unmerged
from sde.checkpoint.snapshots import stored_spec
from sde.files import write_json
from sde.pretrained.exports import EXPORTS, FLOW_MAP_EXPORTS, UPDATES


def export(run: Run, *, format: str = "torch_export", out: str | None = None) -> dict:
    """Write the model as other libraries load it; what their format cannot express is refused.

    Beside it stands ``about.json``: the shape of items, the process, and the transform from data to model units.
    """
    write = EXPORTS[pick("--format", format, EXPORTS)]
    if run.student is not None and format not in FLOW_MAP_EXPORTS:
        raise ValueError(
            f"--format={format}: has no place for a student, which is told two noise levels; take "
            f"{' or '.join(FLOW_MAP_EXPORTS)}"
        )
    folder = run.folder / "export" / format if out is None else Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--out={folder} exists and is not an empty folder: name another one")
    spec = stored_spec(run.weights_file)
    with with_keys(imports="--imports"):
        model = (
            load_unmerged(run.weights_file, imports=run.allowed_imports) if format in UPDATES else run.sampled_model()
        )
    with with_words(f"--format={format}", lora_rank="config.model.lora_rank", lora="--lora"):
        files = write(model, folder)
    about = {name: spec.get(name) for name in ("event_shape", "num_classes", "sde", "transform", "origin", "flow_map")}
    write_json(folder / "about.json", about)
    names = ", ".join(path.relative_to(folder).as_posix() for path in files)
    print(f"{run.weights_file} as {format}: {names} and about.json in {folder}")
    return {"mode": "export", "format": format, "folder": str(folder), "files": [str(path) for path in files]}
