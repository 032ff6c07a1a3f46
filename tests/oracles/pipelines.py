"""Pipelines of diffusers of tiny random components, as its own tests build them, and their pictures."""

import string
from typing import Any

import torch

LENGTH = 77


def tokenizer(length: int = LENGTH) -> Any:
    """CLIP's, of letters and of one pair."""
    from transformers import CLIPTokenizer

    letters = [*string.ascii_lowercase, *string.digits, ",", "."]
    words = [*letters, *(letter + "</w>" for letter in letters), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[("c", "a"), ("ca", "t</w>")], model_max_length=length)


def text_encoder(projected: bool = False, layers: int = 4, width: int = 32, seed: int = 0) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    vocabulary = len(tokenizer())
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=37, num_attention_heads=4, num_hidden_layers=layers,
        projection_dim=width, vocab_size=vocabulary, bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1, max_position_embeddings=LENGTH, hidden_act="gelu",
    )  # fmt: skip
    found = (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)
    return lively(found)


def lively(module: Any) -> Any:
    """Weights that are large enough for every part to be seen in the output."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            fan = parameter[0].numel()
            torch.nn.init.normal_(parameter, std=fan**-0.5)
    return module.eval()


def unet(seed: int = 1, **options: Any) -> Any:
    import diffusers

    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "block_out_channels": (4, 8), "layers_per_block": 1, "sample_size": 8, "in_channels": 4, "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": 32, "attention_head_dim": 2,
        "norm_num_groups": 2,
    }  # fmt: skip
    return lively(diffusers.UNet2DConditionModel(**settings | options))


def autoencoder(seed: int = 2, **options: Any) -> Any:
    import diffusers

    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "block_out_channels": (4, 8), "in_channels": 3, "out_channels": 3, "latent_channels": 4, "norm_num_groups": 2,
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
        "scaling_factor": 0.18215,
    }  # fmt: skip
    found = lively(diffusers.AutoencoderKL(**settings | options))
    if found.quant_conv is not None:
        # Pipelines draw from the encoder's posterior, we take its mean: here they are one.
        with torch.no_grad():
            found.quant_conv.weight[4:] = 0
            found.quant_conv.bias[4:] = -60
    return found


SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def scheduler(name: str = "DDIMScheduler", **options: Any) -> Any:
    import diffusers

    own = {"clip_sample": False} if name == "DDIMScheduler" else {}
    return getattr(diffusers, name)(**SCHEDULE | own | options)


def stable_diffusion(kind: str = "StableDiffusionPipeline", in_channels: int = 4, **parts: Any) -> Any:
    """Stable Diffusion 1's, of a class of pipelines."""
    import diffusers

    components = {
        "unet": unet(in_channels=in_channels), "vae": autoencoder(), "text_encoder": text_encoder(),
        "tokenizer": tokenizer(), "scheduler": scheduler(set_alpha_to_one=False, steps_offset=1),
        "safety_checker": None, "feature_extractor": None, "image_encoder": None,
    }  # fmt: skip
    return quiet(getattr(diffusers, kind)(**components | parts, requires_safety_checker=False))


def sdxl(kind: str = "StableDiffusionXLPipeline", refiner: bool = False, **parts: Any) -> Any:
    """SDXL's base, with two encoders, or its refiner, with the second and a score."""
    import diffusers

    numbers = 5 if refiner else 6
    network = {
        "cross_attention_dim": 32 if refiner else 64, "attention_head_dim": (2, 4), "use_linear_projection": True,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 8, "transformer_layers_per_block": (1, 2),
        "projection_class_embeddings_input_dim": 32 + 8 * numbers,
    }  # fmt: skip
    components = {
        "unet": unet(seed=5 if refiner else 4, **network), "vae": autoencoder(scaling_factor=0.13025),
        "text_encoder": None if refiner else text_encoder(), "tokenizer": None if refiner else tokenizer(),
        "text_encoder_2": text_encoder(True, seed=3), "tokenizer_2": tokenizer(),
        "scheduler": scheduler("EulerDiscreteScheduler", timestep_spacing="leading", steps_offset=1),
    }  # fmt: skip
    further = {"requires_aesthetics_score": True} if refiner else {}
    return quiet(getattr(diffusers, kind)(**components | parts, add_watermarker=False, **further))


def quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def with_scheduler(pipeline: Any, name: str, **options: Any) -> Any:
    """The pipeline with another scheduler of its config."""
    import diffusers

    own = {"clip_sample": False} if name == "DDIMScheduler" else {}
    pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config, **own | options)
    return pipeline


def pictures(pipeline: Any, **call: Any) -> torch.Tensor:
    """What a pipeline draws, in 0 .. 1, (B, 3, H, W)."""
    found = pipeline(output_type="np", **call).images
    return torch.from_numpy(found).permute(0, 3, 1, 2)


def sd3(t5: bool = True, **parts: Any) -> Any:
    """Stable Diffusion 3's, with T5 or without."""
    import diffusers

    torch.manual_seed(6)
    transformer = lively(
        diffusers.SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=64, caption_projection_dim=16, pooled_projection_dim=64, out_channels=4,
        )
    )  # fmt: skip
    components = {
        "transformer": transformer, "vae": autoencoder(shift_factor=0.0609, scaling_factor=1.5305),
        "text_encoder": text_encoder(True), "tokenizer": tokenizer(),
        "text_encoder_2": text_encoder(True, seed=3), "tokenizer_2": tokenizer(),
        "text_encoder_3": t5_encoder(64) if t5 else None, "tokenizer_3": t5_tokenizer() if t5 else None,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    }  # fmt: skip
    return quiet(diffusers.StableDiffusion3Pipeline(**components | parts))


def pixart(sample_size: int = 8) -> Any:
    import diffusers

    torch.manual_seed(7)
    transformer = lively(
        diffusers.PixArtTransformer2DModel(
            sample_size=sample_size, patch_size=2, in_channels=4, out_channels=8, num_layers=1, attention_head_dim=12,
            num_attention_heads=2, cross_attention_dim=24, caption_channels=32, norm_type="ada_norm_single",
        )
    )  # fmt: skip
    components = {
        "transformer": transformer, "vae": autoencoder(), "text_encoder": t5_encoder(32), "tokenizer": t5_tokenizer(),
        "scheduler": scheduler("DPMSolverMultistepScheduler"),
    }  # fmt: skip
    return quiet(diffusers.PixArtAlphaPipeline(**components))


def flux() -> Any:
    import diffusers

    torch.manual_seed(8)
    transformer = lively(
        diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
            guidance_embeds=True,
        )
    )  # fmt: skip
    components = {
        "transformer": transformer, "vae": autoencoder(shift_factor=0.1159, scaling_factor=0.3611),
        "text_encoder": text_encoder(), "tokenizer": tokenizer(),
        "text_encoder_2": t5_encoder(32), "tokenizer_2": t5_tokenizer(),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
    }  # fmt: skip
    return quiet(diffusers.FluxPipeline(**components))


def dit() -> Any:
    import diffusers

    torch.manual_seed(9)
    transformer = lively(
        diffusers.DiTTransformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, out_channels=8, num_layers=1, attention_head_dim=8,
            num_attention_heads=2, num_embeds_ada_norm=1000,
        )
    )  # fmt: skip
    return quiet(diffusers.DiTPipeline(transformer=transformer, vae=autoencoder(), scheduler=scheduler()))


def t5_encoder(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(10)
    config = T5Config(
        vocab_size=len(t5_tokenizer()), d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        is_encoder_decoder=False,
    )  # fmt: skip
    return lively(T5EncoderModel(config))


def t5_tokenizer() -> Any:
    """T5's, of letters."""
    from transformers import T5TokenizerFast

    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *string.ascii_lowercase, *string.digits, ",", "."]
    return T5TokenizerFast(vocab=[(piece, -float(number)) for number, piece in enumerate(pieces)], extra_ids=0)
