"""--mode sample: pictures and numbers from a run folder."""

from pathlib import Path
from typing import Any

import numpy as np

from samplers import NOISES
from score_sde.run.cascade import drawn_before
from score_sde.run.conditions import prompts_of, read_condition
from score_sde.run.folder import Run, event_shape_of
from score_sde.run.guidance import UNGUIDED, GuidanceOptions
from score_sde.run.guides import Guides
from score_sde.run.inputs import read_states
from score_sde.run.items import write_arrays
from score_sde.run.outputs import calls, check_room_of, stem
from score_sde.run.pictures import show
from score_sde.run.sampling import Sampling
from score_sde.run.stages import ALONE, CascadeOptions
from score_sde.run.text import read_prompts
from sde.condition.tree import Condition
from sde.data.sizes import trimmed

DEFAULT_SAMPLES = 64


def sample(
    run: Run,
    *,
    steps: int | None = None,
    grid: str | None = None,
    noise: str = NOISES[0],
    num_samples: int | None = None,
    seed: int = 0,
    labels: str | None = None,
    prompt: str | None = None,
    condition: str | None = None,
    cascade: CascadeOptions = ALONE,
    condition_noise: str | None = None,
    guidance: GuidanceOptions = UNGUIDED,
    sizes: str | None = None,
    start_state: str | None = None,
    batch_size: int = 256,
    out: str | None = None,
) -> dict:
    """Draw samples; write ``<out>.png`` and ``<out>.npz``."""
    guides = Guides(run, run.sampled_model(), guidance)
    states = None
    if start_state is not None:
        states = read_states(start_state, guides.denoiser)
        if num_samples not in (None, len(states)):
            raise ValueError(
                f"--num_samples={num_samples}: the {len(states)} states of --start_state are the samples; leave it out"
            )
        num_samples = len(states)
    if num_samples is None:
        num_samples = DEFAULT_SAMPLES if run.pipeline is None else len(read_prompts("--prompt", prompt or " "))
    sampling = Sampling(run, steps, grid, noise, seed, batch_size, sizes, states)
    check_room_of(run, out, num_samples, event_shape_of(guides.denoiser))
    told: dict[str, Any] = {"labels": labels, "prompt": prompt, "condition_noise": condition_noise}
    cond: Condition | None
    if cascade.cascade:
        if condition:
            raise ValueError(
                f"--condition={condition} and --cascade={cascade.cascade} both give the images: choose one"
            )
        steered = guidance.negative_prompt
        cond, prompts = drawn_before(sampling, guides, cascade, count=num_samples, negative_prompt=steered, **told)
    else:
        cond = read_condition(run, guides, file=condition, count=num_samples, seed=seed, **told)
        prompts = prompts_of(run, guides.denoiser, prompt, condition, num_samples)
    drawn = sampling(guides, guidance, cond, num_samples)
    if drawn is None:
        return {}
    # An adaptive solver makes steps of its own between the two ends.
    count = sampling.steps or len(drawn.times) - 1
    path = stem(run, out, sampling.name if count == 1 and not sampling.steps else f"{sampling.name}-{count}")
    picture, numbers = Path(f"{path}.png"), Path(f"{path}.npz")
    levels = guides.denoiser.transform.num_levels
    shown = show(drawn.x, cond, picture, kind=run.kind, levels=levels, sizes=drawn.sizes, words=prompts)
    arrays = {
        "x": drawn.x,
        "sizes": drawn.sizes,
        "seeds": np.array(drawn.seeds),
        "nfe": drawn.nfe,
        "state": drawn.state,
    }
    # What encodes texts is not kept beside them.
    text = guides.denoiser.text
    encoded = () if prompts is None or text is None else text.shapes
    arrays |= {name: c for name, c in (cond or {}).items() if name not in encoded}
    arrays |= {} if prompts is None else {"prompts": np.array(prompts)}
    write_arrays(numbers, arrays, run.settings)
    run.kind.write(trimmed(drawn.x, drawn.sizes), path, run.about)
    least, most = drawn.nfe.min().item(), drawn.nfe.max().item()
    spread = f" ({least:g} to {most:g})" if least < most else ""
    counted = "1 sample" if num_samples == 1 else f"{num_samples} samples"
    print(
        f"{counted} by {sampling.name}, {calls(drawn.mean_nfe)} each{spread}, "
        f"{drawn.seconds:.1f} s: {picture if shown else 'no picture for this shape'}, {numbers}"
    )
    return {
        "mode": "sample",
        "sampler": sampling.name,
        "num_samples": num_samples,
        "nfe": drawn.mean_nfe,
        "seconds": round(drawn.seconds, 2),
        "seed": seed,
        "picture": str(picture) if shown else None,
        "numbers": str(numbers),
    }
