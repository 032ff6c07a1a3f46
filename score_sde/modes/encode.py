"""--mode encode: items to their latents and back, the error of the round trip, and statistics of the latents."""

import time
from pathlib import Path

import torch
from torch import Tensor

from samplers import decode, dequantized, encode
from score_sde.plots.pictures import comparison
from score_sde.run.folder import Run
from score_sde.run.guidance import UNGUIDED, GuidanceOptions
from score_sde.run.inputs import spread_items
from score_sde.run.items import batched, bind, joined, open_split, relative_error, write_arrays
from score_sde.run.outputs import check_room_of, stem
from sde.condition.tree import labels_of
from sde.data import Dataset
from sde.data.sizes import real_entries


def encode_items(
    run: Run,
    *,
    split: str = "test",
    num_samples: int = 16,
    seed: int = 0,
    labels: str | None = None,
    prompt: str | None = None,
    guidance: GuidanceOptions = UNGUIDED,
    batch_size: int = 256,
    rtol: float = 1e-4,
    atol: float = 1e-4,
    out: str | None = None,
) -> dict:
    """Encode items spread over the split and decode them again; write ``<out>.png`` and ``<out>.npz``."""
    data, _, denoiser = open_split(run, split)
    index = spread_items(data, split, num_samples)
    count = len(index)
    check_room_of(run, out, 2 * count, data.event_shape)
    (x, targets), sizes = data.batch(index), data.sizes_of(index)
    conditions, bound = bind(run, denoiser, labels, targets, count, guidance, prompt)
    model, transform = bound(1), data.transform

    def there(model, x: Tensor, offset: float = 0.5, sizes: Tensor | None = None):
        return encode(model, x, rtol=rtol, atol=atol, offset=offset, sizes=sizes)

    begin = time.perf_counter()
    encoded = batched(there, model, x, run, batch_size, "encoding", sizes)
    latent = joined(encoded, "latent")
    decoded = batched(
        lambda model, z, **own: decode(model, z, rtol=rtol, atol=atol, **own),
        model,
        latent,
        run,
        batch_size,
        "decoding",
        sizes,
    )
    seconds = time.perf_counter() - begin
    nfe = torch.stack([joined(encoded, "nfe"), joined(decoded, "nfe")], 1)
    again, values = joined(decoded, "x"), joined(decoded, "values")
    error = relative_error(values, transform.dequantize(x, 0.5), data, sizes)
    result = {
        "mode": "encode",
        "split": split,
        "num_samples": count,
        "rtol": rtol,
        "atol": atol,
        "round_trip_error": error,
        **({"autoencoder_error": autoencoder_error(data, x)} if transform.learned else {}),
        "nfe_encode": round(nfe[:, 0].mean().item(), 1),
        "nfe_decode": round(nfe[:, 1].mean().item(), 1),
        "seconds": round(seconds, 2),
        "seed": seed,
    }
    sentence = f"{error:.2e} of the data's standard deviation (rms)"
    if "autoencoder_error" in result:
        sentence += f", of which the autoencoder alone leaves {result['autoencoder_error']:.2e}"
    if transform.num_levels:
        result["exact"] = real_entries(again == x, sizes).double().mean().item()
        sentence += f", {result['exact']:.3%} of the values come back exactly"
    print(
        f"{count} {split} items to their latents and back, {result['nfe_encode']:g} + {result['nfe_decode']:g} network "
        f"calls each, {seconds:.1f} s\n  round trip: {sentence}"
    )
    # The middles of cells have less spread than the noise-filled cells that the model was trained on.
    typical, filled = latent, bool(transform.num_levels) and data.dequantized
    if filled:
        noisy = dequantized(transform, x, seed, sizes=sizes)
        typical = joined(
            batched(
                lambda model, u, **own: there(model, u, 0.0, **own),
                model,
                noisy,
                run,
                batch_size,
                "dequantized",
                sizes,
            ),
            "latent",
        )
    if not run.world.is_main:
        return {}
    result |= latent_statistics(typical, denoiser.sde.prior_std(), sizes)
    show_statistics(result, "dequantized items" if filled else "items")
    path = stem(run, out, "encode")
    picture, numbers = Path(f"{path}.png"), Path(f"{path}.npz")
    drawn = comparison(x, again, picture, kind=run.kind, levels=transform.num_levels, sizes=sizes)
    write_arrays(
        numbers,
        {
            "x": x,
            "sizes": sizes,
            "latent": latent,
            "latent_dequantized": typical if filled else None,
            "decoded": again,
            "nfe": nfe,
            "index": index,
            "labels": labels_of(targets),
            "conditions": conditions,
        },
        run.settings,
    )
    print(f"  {picture if drawn else 'no picture for this shape'}, {numbers}")
    return result | {"picture": str(picture) if drawn else None, "numbers": str(numbers)}


@torch.no_grad()
def autoencoder_error(data: Dataset, x: Tensor) -> float:
    """What the autoencoder of a learned transform leaves of items x (n, *event), as ``relative_error`` has it."""
    values, transform = data.transform.dequantize(x, 0.5), data.transform
    return relative_error(transform.decode(transform.encode(values)), values, data)


def latent_statistics(latent: Tensor, prior_std: float, sizes: Tensor | None = None) -> dict:
    """Mean, standard deviation and correlation of latents (n, *event) in units of the prior's, with what N(0, 1) gives.

    ``latent_correlation`` is the root mean square, over all pairs of two entries of the event, of their correlation
    coefficient over the items; for independent entries 1 / sqrt(n - 1). It comes from the items' Gram matrix, which has
    the same squares: the matrix of all pairs of entries may not fit the memory. Of items of unequal ``sizes`` the
    entries that are real count, and there are no correlations.
    """
    latent = latent.double() / prior_std
    z, entries = latent.flatten(1), real_entries(latent, sizes)
    count, dim = z.shape
    found = {
        "latent_mean": entries.mean().item(),
        "latent_mean_stderr": len(entries) ** -0.5,
        "latent_std": entries.std(correction=0).item(),
        "latent_std_stderr": (2 * len(entries)) ** -0.5,
    }
    if sizes is not None:
        return found
    std = z.std(0, correction=0)
    if count < 3 or dim < 2 or not (std > 0).all():
        return found
    standardized = (z - z.mean(0)) / std
    squares = (standardized @ standardized.T / count).square().sum().item() - dim
    correlation = (max(squares, 0.0) / (dim * (dim - 1))) ** 0.5
    return found | {"latent_correlation": correlation, "latent_correlation_expected": (count - 1) ** -0.5}


def show_statistics(found: dict, what: str) -> None:
    """The latents' statistics in a line."""
    line = (
        f"  latents of {what}, in units of the prior: mean {found['latent_mean']:.3f} (0 +- "
        f"{found['latent_mean_stderr']:.3f} expected), standard deviation {found['latent_std']:.3f} (1 +- "
        f"{found['latent_std_stderr']:.3f})"
    )
    if "latent_correlation" in found:
        line += (
            f", correlation of entries {found['latent_correlation']:.3f} ({found['latent_correlation_expected']:.3f})"
        )
    print(line)
