"""The generated part of the samplers' pages: table and formula of each, from its class.

``python docs/sampler_pages.py`` writes it into ``docs/samplers/NAME.md`` and leaves what was written by hand below it.
A test compares, so that pages are made again when a docstring, a default or an option has changed.
"""

import dataclasses
import inspect
import re
import sys
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from samplers import GRIDS, SAMPLERS, SeededNoise, sample  # noqa: E402 (from this tree, whatever is installed)
from samplers.protocol import FlowMap, asks_of  # noqa: E402
from sde import VPSDE, ScoreModel  # noqa: E402

PAGES = ROOT / "docs" / "samplers"
START = "<!-- From here to the next comment: written by docs/sampler_pages.py from the class. -->"
END = "<!-- From here on: written by hand. -->"
BY_HAND = """
## When to use it

```
python main.py --mode sample --workdir runs/digits --sampler {name} --num_samples 4
```
"""
"""What a new page has below its generated part."""
SIGNS = re.compile(r"[\\*$`]|<(?=[A-Za-z/!?])")
"""What Markdown would take for its own."""


class CountedGaussian(ScoreModel):
    """Data N(0, I), exactly, that counts how often it was called."""

    calls = 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """D (B, *event) of x (B, *event) at a 0-d time."""
        self.calls += 1
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        return alpha / (alpha**2 + sigma**2) * x


class CountedFlowMap(CountedGaussian):
    """The flow map of the same data, x at every time of a process that keeps variance."""

    def forward(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """x_s (B, *event) of x (B, *event)."""
        self.calls += 1
        return x

    jump = forward


def calls_per_step(sampler) -> str:
    """How often a step calls the network: counted over five steps, or left to the solver."""
    if hasattr(sampler, "max_nfe"):
        return "as needed, at most `max_nfe`"
    process, steps = VPSDE(), 5
    model = (CountedFlowMap if asks_of(sampler) is FlowMap else CountedGaussian)(process)
    sample(model, sampler, torch.ones(2, 3), GRIDS["log_snr"](process, steps), SeededNoise(range(2)), denoise=False)
    return f"{model.calls / steps:g}"


def options(build) -> str:
    """The keyword arguments of a sampler with their defaults, as in ``eta=0.0``."""
    written = []
    for option in inspect.signature(build).parameters.values():
        value = f'"{option.default}"' if isinstance(option.default, str) else option.default
        written.append(f"`{option.name}={value}`")
    return ", ".join(written) or "none"


def table(name: str) -> str:
    """Name, class, order, calls, defaults and options of a sampler."""
    build = SAMPLERS[name]
    sampler = build()
    steps = "1 step" if sampler.steps == 1 else f"{sampler.steps} steps"
    rows = {
        "name": f'`--sampler {name}`, `SAMPLERS["{name}"]`',
        "class": f"`samplers.{type(sampler).__name__}`",
        "order": f"{sampler.order:g}" if sampler.order else "none is claimed",
        "network calls per step": calls_per_step(sampler),
        "default": f"{steps}, grid `{sampler.grid}`",
        "options": options(build),
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])


def markdown(docstring: str) -> str:
    """A docstring as Markdown: ``literals`` in one backquote, signs for themselves, indented lines as they are."""
    found = []
    for paragraph in docstring.split("\n\n"):
        lines = paragraph.splitlines()
        if all(line.startswith(" ") for line in lines):
            found.append("\n".join(["```text", *(line[4:] for line in lines), "```"]))
            continue
        parts = re.split(r"(``.+?``)", paragraph, flags=re.DOTALL)
        parts[::2] = [SIGNS.sub(r"\\\g<0>", part) for part in parts[::2]]
        parts[1::2] = [part[1:-1] for part in parts[1::2]]
        found.append("".join(parts))
    return "\n\n".join(found)


def formula(sampler) -> str:
    """The docstring of a sampler's class, and of those of its parts that are no samplers by name themselves."""
    parts = [sampler]
    for field in dataclasses.fields(sampler):
        part = getattr(sampler, field.name)
        if hasattr(part, "step") and type(part) not in SAMPLERS.values():
            parts.append(part)
    texts = []
    for part in parts:
        if part is not sampler:
            texts.append(f"**`samplers.{type(part).__name__}`**")
        texts.append(markdown(inspect.getdoc(type(part)) or ""))
    return "\n\n".join(texts)


def page(name: str, now: str = "") -> str:
    """The page of a sampler as it should be, with what ``now`` has by hand."""
    sampler = SAMPLERS[name]()
    module = inspect.getmodule(type(sampler))
    caption = markdown((inspect.getdoc(module) or "").partition("\n\n")[0])
    by_hand = now.partition(END)[2] or BY_HAND.format(name=name)
    generated = [f"# {name}", START, caption, table(name), "## Formula", formula(sampler), END]
    return "\n\n".join(generated) + by_hand


def main() -> None:
    """Write the pages of all samplers."""
    for name in SAMPLERS:
        path = PAGES / f"{name}.md"
        path.write_text(page(name, path.read_text() if path.exists() else ""))


if __name__ == "__main__":
    main()
