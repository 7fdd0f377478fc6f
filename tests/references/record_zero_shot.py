"""Record what diffusers' TextToVideoZeroPipeline and TextToVideoZeroSDXLPipeline make of small networks with seeded weights.

    python -m tests.references.record_zero_shot

The hosts' environments have no diffusers, so their checks compare with these latents. Texts are seeded embeddings.
"""

from __future__ import annotations

import importlib
from typing import Any

import diffusers
import numpy as np
import torch
from torch import Tensor

from ..comfy.small_image_unets import CONTEXT, DIFFUSERS
from .seeding import fill, normal
from .zero_shot_runs import FILE, FRAMES, RUNS, SEED, ZeroShotRun

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
CLIP = {"clip_sample": False, "set_alpha_to_one": False}


def pipeline(run: ZeroShotRun) -> Any:
    """The pipeline of a run, without text encoder and VAE."""
    module = diffusers.TextToVideoZeroPipeline.__module__
    xl = run.layout == "sdxl"
    cls = getattr(importlib.import_module(module + "_sdxl" * xl), f"TextToVideoZero{'SDXL' * xl}Pipeline")
    unet = fill(diffusers.UNet2DConditionModel(**DIFFUSERS[run.layout]))
    kind = "v_prediction" if run.v_prediction else "epsilon"
    scheduler = diffusers.DDIMScheduler(prediction_type=kind, **BETAS, **CLIP)
    parts: dict[str, Any] = dict.fromkeys(("vae", "text_encoder", "tokenizer"))
    if xl:
        parts |= dict.fromkeys(("text_encoder_2", "tokenizer_2")) | {"add_watermarker": False}
    else:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    made = cls(unet=unet, scheduler=scheduler, **parts)
    made.vae_scale_factor = 8
    made.check_inputs = lambda *args, **kwargs: None
    texts = [normal(f"text {i}", (1, 77, CONTEXT)) for i in range(2)]
    pooled = [normal(f"pooled {i}", (1, CONTEXT)) for i in range(2)]
    made.encode_prompt = lambda *args, **kwargs: (*texts, *(pooled if xl else ()))
    made.set_progress_bar_config(disable=True)
    return made


def make(run: ZeroShotRun) -> Tensor:
    """The latents of a run, (frames, 4, h, w)."""
    out = pipeline(run)(
        prompt="",
        video_length=FRAMES,
        height=8 * run.size[0],
        width=8 * run.size[1],
        num_inference_steps=run.steps,
        guidance_scale=run.guidance_scale,
        generator=torch.Generator().manual_seed(SEED),
        motion_field_strength_x=run.motion[0],
        motion_field_strength_y=run.motion[1],
        t0=run.parts[0],
        t1=run.parts[1],
        output_type="latent",
    )
    return out.images


def main() -> None:
    torch.set_grad_enabled(False)
    values = {run.name: make(run).float() for run in RUNS}
    np.savez(FILE, source=f"diffusers {diffusers.__version__}", **{name: each.numpy() for name, each in values.items()})
    print(
        f"{FILE.name}: {FILE.stat().st_size} bytes, deviations { {n: f'{float(v.std()):.2f}' for n, v in values.items()} }"
    )


if __name__ == "__main__":
    main()
