"""Whether the project is right on a device, and how fast it is there: all of it in one command of six minutes.

    python benchmarks/device.py [--device cuda] [--seconds 360] [--out FOLDER] [--sections right,unet]
    python benchmarks/device.py --device cpu --small

Nothing but the repository is needed beside torch and what comes with it: ``make wheels``, run where there is a network,
leaves the other packages in wheels/, from where they are taken. Each section prints its table; one that fails, or is
not done within its part of the time, is named, and the next one runs. What a section leaves of its part is the others'.
With ``--out`` the results are in FOLDER/device.json as well. On a GPU the sections of *right* compare with the CPU in
float32, on a CPU with float64. The card's settings are not touched. Exit status 1 where a section failed.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sections import WHOLE
from benchmarks.wheels import provide


def chosen(asked: str, groups: dict[str, dict]) -> dict:
    """Sections by name, of names of sections and groups separated by commas; all where nothing is asked."""
    sections = {name: section for group in groups.values() for name, section in group.items()}
    if not asked:
        return sections
    names: list[str] = []
    for name in asked.split(","):
        if name not in sections and name not in groups:
            raise ValueError(f"--sections={asked}: {name!r} is none of {', '.join([*groups, *sections])}")
        names += groups.get(name, [name])
    return {name: sections[name] for name in dict.fromkeys(names)}


def numbered(device):
    """The device, one of CUDA with its number, as some of torch's functions ask for, and the current one from now
    on."""
    import torch

    if device.type != "cuda":
        return device
    device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    torch.cuda.set_device(device)
    return device


def described(device) -> dict:
    """The machine, as a result must name it."""
    import torch

    card = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {os.cpu_count()} cores"
    cuda = torch.version.cuda if device.type == "cuda" else None
    return {"device": card, "torch": torch.__version__, "cuda": cuda, "threads": torch.get_num_threads()}


def main() -> int:
    """Run the sections and print; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="any that torch knows; default: the accelerator")
    parser.add_argument("--small", action="store_true", help="a small version of every section, for a trial on a CPU")
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"of the whole, of which each section has its part; default {WHOLE:g}, three times that with --small, "
        "as a CPU may be busy",
    )
    parser.add_argument("--out", type=Path, help="a folder for device.json")
    parser.add_argument("--sections", default="", help="names separated by commas, or right, or fast; default: all")
    options = parser.parse_args()
    begin, whole = time.perf_counter(), options.seconds or WHOLE * (3 if options.small else 1)
    try:
        found = provide()
        import torch

        from benchmarks import fast, report, right, sections
        from score_sde.run.device import choose_device

        asked = chosen(options.sections, {"right": right.SECTIONS, "fast": fast.SECTIONS})
        device = numbered(choose_device(options.device))
        setting = sections.Setting(device, "small" if options.small else "full")
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if options.small and setting.device.type == "cpu":
        # Tensors are tiny: several threads would wait for each other.
        torch.set_num_threads(1)
    if "waiting" in asked:
        right.prepare(setting)
    machine = described(setting.device)
    print(", ".join(f"{name} {value}" for name, value in machine.items() if value is not None))
    print(f"from wheels: {', '.join(found) or 'nothing'}")
    if options.small:
        print("small versions of all sections: they show that it runs; what titles say of sizes is of the full ones")
    sys.stdout.flush()
    results = []
    for number, (name, section) in enumerate(asked.items(), 1):
        left = whole - (time.perf_counter() - begin)
        its = sections.share(section, [*asked.values()][number:], left)
        results.append(sections.run(name, section, setting, its))
        print(report.shown(results[-1]), flush=True)
        if options.out:
            # After every section, so that a run that is cut off leaves what it found.
            record = {**machine, "size": setting.size, "sections": [result.record() for result in results]}
            (options.out / "device.json").write_text(json.dumps(record, indent=1))
    print(f"\n{report.summary(results)}, in {time.perf_counter() - begin:.0f} s")
    outcomes = {result.name: result.outcome for result in results}
    print(json.dumps({**machine, "size": setting.size, "sections": outcomes}))
    return int(any(result.outcome == "failed" for result in results))


if __name__ == "__main__":
    sys.exit(main())
