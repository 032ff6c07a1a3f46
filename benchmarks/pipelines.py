"""Peak memory and time of drawing with a pipeline of diffusers of random weights, by its own loop and by ours.

``python benchmarks/pipelines.py``, each in a process of its own; with ``--real`` Stable Diffusion 1's own sizes, and
``--device cuda --dtype float16``. The peak is that above a process that has imported both and loaded nothing."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

SIZES: dict[str, dict[str, Any]] = {
    "small": {"unet": (64, 128, 256, 256), "vae": (32, 64, 64, 64), "latent": 32, "text": (64, 2)},
    "real": {"unet": (320, 640, 1280, 1280), "vae": (128, 256, 512, 512), "latent": 64, "text": (768, 12)},
}
PROMPT = "a cat, 2"


def write_pipeline(folder: Path, size: str) -> None:
    """Stable Diffusion 1's networks with random weights, the widths of ``size``, and a tokenizer of letters."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    own = SIZES[size]
    width, layers = own["text"]
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=77)
    text = CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=width // 32,
        vocab_size=len(words), bos_token_id=len(words) - 2, eos_token_id=len(words) - 1, pad_token_id=len(words) - 1,
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=own["latent"], block_out_channels=own["unet"], cross_attention_dim=width, attention_head_dim=8
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=own["vae"], down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, sample_size=8 * own["latent"],
    )  # fmt: skip
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="trailing"
    )
    diffusers.StableDiffusionPipeline(
        unet=unet, vae=vae, text_encoder=CLIPTextModel(text), tokenizer=tokenizer, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


CHILD = """
import json, re, sys, time
import torch, diffusers, transformers
from diffusers import DiffusionPipeline
from samplers import SAMPLERS, sample
from sde.guidance import ClassifierFree
from sde.pretrained.pipelines import read_pipeline
who, folder, device, dtype, rows, prompt = sys.argv[1:]
dtype, rows = getattr(torch, dtype), int(rows)
cuda = device == "cuda"
def peak():
    if cuda:
        return torch.cuda.max_memory_allocated() / 2**20
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1024
def begin():
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        open("/proc/self/clear_refs", "w").write("5")
begin()
before = peak()
torch.manual_seed(0)
if who == "theirs":
    pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=dtype).to(device)
    pipeline.set_progress_bar_config(disable=True)
    size = pipeline.unet.config.sample_size
    def draw(calls):
        z = torch.randn(rows, 4, size, size).to(device, dtype)
        told = {"num_inference_steps": calls, "guidance_scale": 7.5, "output_type": "pt"}
        return pipeline([prompt] * rows, latents=z, **told).images
else:
    loaded = read_pipeline(folder, dtype=dtype)
    model = loaded.model.to(device)
    inside = model.transform.inner_shape(model.event_shape)
    @torch.no_grad()
    def draw(calls):
        z = torch.randn(rows, *inside).to(device)
        steps = loaded.steps(calls)
        guided = ClassifierFree(model, model.text([prompt] * rows), 7.5)
        x = sample(guided, SAMPLERS["dpmpp"](), steps.std * z, steps.times, denoise=steps.denoise)
        return ((model.transform.decode(x) - 0.5) / 255).clamp(0, 1)
found = {}
draw(2)
for calls in (10, 20):
    start = time.perf_counter()
    image = draw(calls)
    if cuda:
        torch.cuda.synchronize()
    found[f"seconds_{calls}"] = (time.perf_counter() - start) / rows
torch.manual_seed(1)
torch.save(draw(10).float().cpu(), folder + f"/{who}.pt")
print(json.dumps(found | {"peak_mib": peak() - before}))
"""


def main() -> None:
    """Prints a row for each loop, their ratio, and by how much their pictures differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", action="store_true", help="the sizes of Stable Diffusion 1")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--rows", type=int, default=1, help="pictures at once")
    options = parser.parse_args()
    root = str(Path(__file__).resolve().parents[1])
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        write_pipeline(Path(folder), "real" if options.real else "small")
        told = [folder, options.device, options.dtype, str(options.rows), PROMPT]
        rows = {}
        for who in ("theirs", "ours"):
            run = subprocess.run(
                [sys.executable, "-c", CHILD, who, *told], cwd=root, capture_output=True, text=True, check=False
            )
            if run.returncode:
                raise SystemExit(run.stderr)
            rows[who] = json.loads(run.stdout.splitlines()[-1])
            print(who, json.dumps(rows[who]))
        ratios = {name: round(rows["ours"][name] / rows["theirs"][name], 3) for name in rows["ours"]}
        pictures = [torch.load(Path(folder) / f"{who}.pt") for who in rows]
        print("ours over theirs", json.dumps(ratios | {"difference": (pictures[0] - pictures[1]).abs().max().item()}))


if __name__ == "__main__":
    main()
