"""Inpainting with a loaded pipeline: of networks that are told what to keep, and of any, by its latents."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sde.condition.tree import Condition
from sde.device import send
from sde.model.denoiser import Denoiser
from sde.model.score import ScoreModel, parts_of
from sde.pretrained.pipelines.pipeline import latents_of
from sde.process.coefficients import expand


def latent_mask(known: Tensor, model: ScoreModel, shape: tuple[int, ...]) -> Tensor:
    """Where latents (B, 1, h, w) are known, of a mask of pixels (B, 1, H, W): the nearest pixel decides, as diffusers
    has it."""
    return interpolate(known.float(), size=shape[-2:]) > 0.5


@torch.no_grad()
def inpainting_condition(model: Denoiser, image: Tensor, known: Tensor) -> Condition:
    """The condition "image" of a network that was trained to inpaint: the mask of what it paints, and the latents of
    the image with gray in its place (Rombach et al. 2022, code). ``image`` (B, 3, H, W) is in data units, ``known`` (B,
    1, H, W) is True where it is kept. Raises ValueError for a network that is told no image."""
    if "image" not in model.conditions:
        raise ValueError(
            "the network of this pipeline is told no image: take LatentReplacement, which holds the latents themselves"
        )
    transform = latents_of(model)
    image, known = send(image, transform.shift.device), send(known.bool(), transform.shift.device)
    # Gray is 0 where the autoencoder's units are symmetric.
    gray = transform.outer.decode(torch.zeros_like(image, dtype=transform.outer.dtype))
    kept = torch.where(known, transform.dequantize(image, 0.5), gray)
    latents = transform.encode(kept)
    return {"image": torch.cat([1 - latent_mask(known, model, latents.shape).to(latents), latents], 1)}


class LatentReplacement(ScoreModel):
    """Latents of an image held where a mask of pixels knows them: D there is what they are (Song et al. 2021, appendix
    I.2, in latents), so that every deterministic sampler carries them along alpha z_0 + sigma z, with the noise z that
    the run begins with.

    ``image`` (B, 3, H, W) is in data units, ``known`` (B, 1, H, W) is True where it is kept. ``noise`` (B, *inner),
    where it is given, is that z: the network then sees the known latents noised by it at every time below ``start``,
    whatever the state has there, as diffusers does, whose run begins with noise alone at the time ``start``.
    """

    normalized = False
    with_rows = ("model", "latents", "known", "noise_held")

    def __init__(
        self,
        model: ScoreModel,
        image: Tensor,
        known: Tensor,
        noise: Tensor | None = None,
        start: float | None = None,
    ) -> None:
        super().__init__(*parts_of(model, "LatentReplacement"))
        self.model = model
        with torch.no_grad():
            inside = self.transform.encode(self.transform.dequantize(image, 0.5))
        self.latents, self.known = inside, latent_mask(known, self, inside.shape)
        self.noise_held, self.start = noise, start

    def hold(self, x: Tensor) -> Tensor:
        """x with the known latents as they are, what a run ends with that leaves noise in them."""
        return torch.where(send(self.known, x.device), send(self.latents, x.device).to(x.dtype), x)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        latents, known = send(self.latents, x.device).to(x.dtype), send(self.known, x.device)
        if self.noise_held is not None:
            held = self.sde.perturb(latents, t, send(self.noise_held, x.device))
            early = False if self.start is None else expand(t >= self.start, x)
            x = torch.where(known & ~torch.as_tensor(early, device=x.device), held, x)
        return self.hold(self.model(x, t))
