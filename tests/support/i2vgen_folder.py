"""I2VGen-XL as a diffusers folder of small parts of seeded weights, and diffusers' own pipeline of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..references.seeding import fill, normal
from .model_folder import WIDTH, write_model_folder

SIZE, FRAMES = 64, 4
SHAPE = (1, 4, FRAMES, SIZE // 8, SIZE // 8)
"""Of the latents."""

SCHEDULE = {
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "steps_offset": 1,
    "clip_sample": False,
    "timestep_spacing": "leading",
}
"""As the published scheduler_config.json has it."""


def write_i2vgen_folder(folder: Path) -> Path:
    """Write the folder, and return it."""
    import diffusers
    import transformers

    write_model_folder(folder)
    unet = fill(
        diffusers.I2VGenXLUNet(
            block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=16,
        )
    )
    vision = transformers.CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=1,
        patch_size=14,
        image_size=224,
        hidden_act="gelu",
        projection_dim=WIDTH,
    )
    unet.conv_out.weight.mul_(0.2)  # a guided run of random weights is chaotic without
    unet.save_pretrained(folder / "unet")
    fill(transformers.CLIPVisionModelWithProjection(vision)).save_pretrained(folder / "image_encoder")
    transformers.CLIPImageProcessor().save_pretrained(folder / "feature_extractor")
    diffusers.DDIMScheduler(**SCHEDULE).save_pretrained(folder / "scheduler")
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"t2v": {"family": "i2vgen-xl"}}))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "I2VGenXLPipeline"}))
    return folder


def reference_pipeline(folder: Path) -> Any:
    """diffusers' pipeline of the folder."""
    import diffusers
    import transformers

    parts = {
        "vae": diffusers.AutoencoderKL.from_pretrained(folder / "vae"),
        "text_encoder": transformers.CLIPTextModel.from_pretrained(folder / "text_encoder"),
        "tokenizer": transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        "image_encoder": transformers.CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder"),
        "feature_extractor": transformers.CLIPImageProcessor.from_pretrained(folder / "feature_extractor"),
        "unet": diffusers.I2VGenXLUNet.from_pretrained(folder / "unet"),
        "scheduler": diffusers.DDIMScheduler.from_pretrained(folder / "scheduler"),
    }
    pipeline = diffusers.I2VGenXLPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture(width: int = SIZE, height: int = SIZE) -> np.ndarray:
    """A picture that is bright on one side, (height, width, 3) uint8."""
    noise = (normal("picture", (height, width, 3)) * 20).numpy()
    return np.clip(np.linspace(40, 220, width)[None, :, None] + noise, 0, 255).astype(np.uint8)


RUNS = ((5, 9.0), (7, 3.0), (5, 1.0))
"""Steps and guidance scale of the runs in `expected.safetensors`."""


def run_name(steps: int, guidance_scale: float) -> str:
    return f"{steps} steps, cfg {guidance_scale:g}"


def contexts() -> tuple[torch.Tensor, torch.Tensor]:
    """The prompt's and the negative prompt's embedding of those runs."""
    return normal("prompt", (1, 77, WIDTH)), normal("negative prompt", (1, 77, WIDTH))


def write_with_expected(folder: Path) -> Path:
    """Write the folder, and in it what diffusers' pipeline makes, for a host without diffusers; return the folder."""
    from safetensors.torch import save_file

    reference = reference_pipeline(write_i2vgen_folder(folder))
    prompt, negative = contexts()
    texts = {"prompt_embeds": prompt, "negative_prompt_embeds": negative}
    made = {run_name(*run): expected(reference, *run, **texts).contiguous() for run in RUNS}
    save_file(made, folder / "expected.safetensors")
    return folder


def expected(reference: Any, steps: int, guidance_scale: float, **texts: Any) -> torch.Tensor:
    """The latents that diffusers' pipeline makes of the picture and noise of seed 7, with the mode of the VAE's latents.

    texts: prompt and negative_prompt, or prompt_embeds and negative_prompt_embeds.
    """
    from unittest import mock

    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
    from PIL import Image

    with mock.patch.object(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode()):
        return reference(
            image=Image.fromarray(picture()),
            height=SIZE,
            width=SIZE,
            num_frames=FRAMES,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            latents=noise(),
            output_type="latent",
            clip_skip=None,
            **texts,
        ).frames


def noise() -> torch.Tensor:
    """The noise that a run begins with."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(7))
