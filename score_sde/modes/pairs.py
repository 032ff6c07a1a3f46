"""--mode pairs: noises and the samples that a run makes of them, to train on (reflow)."""

from pathlib import Path

import numpy as np
import torch

from samplers.checks import check_process
from samplers.loop.beginning import times_of
from samplers.noise.brownian import NOISES, make_noise
from samplers.noise.seeded import sample_seeds
from samplers.protocol import GaussianProcess
from score_sde.comparison.candidates import try_out
from score_sde.config.naming import GRID, with_keys
from score_sde.run.conditions import read_condition
from score_sde.run.folder import Run, event_shape_of
from score_sde.run.guidance import UNGUIDED, GuidanceOptions
from score_sde.run.guides import Guides
from score_sde.run.items import write_arrays
from score_sde.run.outputs import calls, check_room_of, stem
from score_sde.run.sampling import Sampling
from score_sde.run.sizes import sizes_of_samples
from sde.data.sizes import cut

DEFAULT_PAIRS = 10_000


def pairs(
    run: Run,
    *,
    steps: int | None = None,
    grid: str | None = None,
    num_samples: int = DEFAULT_PAIRS,
    seed: int = 0,
    labels: str | None = None,
    prompt: str | None = None,
    condition: str | None = None,
    guidance: GuidanceOptions = UNGUIDED,
    sizes: str | None = None,
    batch_size: int = 256,
    out: str | None = None,
) -> dict:
    """Draw noises and the samples that a deterministic sampler makes of them, to train on; write ``<out>.npz``."""
    guides = Guides(run, run.model(), guidance)
    model, event_shape = guides.denoiser, event_shape_of(guides.denoiser)
    process, transform = model.sde, model.transform
    check_process(process, GaussianProcess, "--mode pairs")
    check_room_of(run, out, 2 * num_samples, event_shape, "pairs")
    sampling = Sampling(run, steps, grid, NOISES[0], seed, batch_size, sizes)
    cond = read_condition(run, guides, labels, condition, num_samples, prompt=prompt, seed=seed)
    sampler, own_grid = sampling.method(guides, guidance, cond)
    with with_keys(**GRID):
        times = times_of(process, sampler, sampling.steps, own_grid, None, False)
    if not try_out(guides(cond, guidance), event_shape, sampler, times)[1]:
        raise ValueError(
            f"--sampler={sampling.name} draws noise on its way, here with its options and grid, and what it ends with "
            "is not coupled to what it began with: take a deterministic one, as heun, dpmpp or ode"
        )
    lengths = sizes_of_samples(run, num_samples, seed, sizes)
    like = torch.empty(num_samples, *transform.inner_shape(event_shape))
    alike = like.shape[1:] == event_shape
    own = lengths.tolist() if lengths is not None and alike else None
    noise = cut(make_noise(NOISES[0], sample_seeds(seed, num_samples), process, own)(like), lengths if alike else None)
    sampling.start_state = noise * process.sigma(times[0]).item()
    drawn = sampling(guides, guidance, cond, num_samples)
    if drawn is None or drawn.state is None:
        return {}
    count = len(times) - 1
    name = sampling.name if count == 1 and not sampling.steps else f"{sampling.name}-{count}"
    path = Path(f"{stem(run, out, name, folder='pairs')}.npz")
    arrays = {
        # As they came out, not rounded to levels: the noise of a pair leads there.
        "x": cut(transform.decode(drawn.state), drawn.sizes if alike else None),
        "noise": noise,
        "sizes": drawn.sizes,
        "seeds": np.array(drawn.seeds),
        "nfe": drawn.nfe,
        "levels": np.array(transform.num_levels or 0),
    }
    if transform.learned:
        # No encoder leads from a sample back to its latent.
        arrays |= {"state": drawn.state, "transform": np.array(transform.digest)}
    write_arrays(path, arrays | (cond or {}), run.settings)
    print(
        f"{num_samples} pairs by {sampling.name}, {calls(drawn.mean_nfe)} each, {drawn.seconds:.1f} s: "
        f"{path}; train on them with --config.data.pairs={path}"
    )
    return {
        "mode": "pairs",
        "sampler": sampling.name,
        "num_samples": num_samples,
        "nfe": drawn.mean_nfe,
        "seconds": round(drawn.seconds, 2),
        "seed": seed,
        "numbers": str(path),
    }
