"""The built-in image model: a 2D UNet between the built-in model's text encoder and autoencoder, as in Stable Diffusion.

It learns from single pictures, and no picture shows a motion. Half of the steps have pictures of two panels, with objects
of one colour and shape at two places: as in a photograph, distant parts of a picture belong together, and self-attention
learns to compare them. Captions often leave out the colour or the shape.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ...atomic_files import write_text
from ...builtin_model import BUILT_IN, BUILT_IN_FOLDER
from ...loading import load_pipeline
from ...plots import losses
from ...texts import strict_json
from ..loop import Schedule, fit
from .batches import colour_latents, contrast_weight, draw_timesteps
from .recipe import begin, half
from .stills import PANELS, PicturePool, caption
from .text_encoder import tokenize
from .unet import alphas_cumprod, loss_weight

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

CONFIG: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [64, 128],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D"] * 2,
    "up_block_types": ["CrossAttnUpBlock2D"] * 2,
    "cross_attention_dim": 128,
    "attention_head_dim": 4,
    "norm_num_groups": 32,
}
"""Arguments of diffusers' UNet2DConditionModel, whose `attention_head_dim` is the number of heads. Hosts want 32 groups."""

SCHEDULE = Schedule(4200, 2e-3, hold=0.6, average=0.999, muon=True)
WIDE = 0.5
"""Share of steps with wide pictures."""

STEPS_PER_CHUNK = 500
STAGE = "image"
"""Name of the only stage, and of its folder."""


@dataclass(frozen=True)
class ImageRecipe:
    """The schedule of the UNet, and how much it sees."""

    schedule: Schedule = SCHEDULE
    batch: int = 48
    """Panels in a step."""
    panels: int = 1920
    """Panels in a chunk of the pool, see `PicturePool`."""

    def scaled(self, factor: float) -> ImageRecipe:
        """Return a recipe with fewer steps, for a trial."""
        if factor == 1:
            return self
        steps = max(2, round(self.schedule.steps * factor))
        return replace(self, schedule=self.schedule.over(steps), panels=max(20, round(self.panels * factor)))


def train_image(
    work: Path,
    output: Path,
    recipe: ImageRecipe | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Path:
    """Train the image model, write it to `output` in diffusers' layout, and return the path of the picture of its losses.

    Args:
        work: where the training stores its state; an unfinished one is resumed.
        output: the diffusers folder of the model, with copies of the built-in model's other parts.

    Raises:
        T2VError: if `work` was begun with another seed, recipe or version of the code.
    """
    recipe = recipe or ImageRecipe()
    begin(work, recipe, seed, (STAGE,))
    parts = load_pipeline(BUILT_IN, dtype=torch.float32, device=device)
    for module in (parts.vae, parts.text_encoder):
        module.eval().requires_grad_(False)
    unet = train(
        work / STAGE,
        parts.vae,
        parts.text_encoder,
        parts.tokenizer,
        recipe,
        seed=seed,
        device=device,
        progress=progress,
    )
    export(output, unet.cpu(), BUILT_IN_FOLDER)
    picture = work / "loss.png"
    losses.draw_curves({STAGE: losses.read_losses(work / STAGE)}, picture)
    return picture


def build() -> UNet2DConditionModel:
    """Return an untrained UNet."""
    from diffusers.models import UNet2DConditionModel

    return UNet2DConditionModel(**CONFIG)


def train(
    folder: Path,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: Any,
    recipe: ImageRecipe,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> UNet2DConditionModel:
    """Train a UNet to predict velocities, with the built-in model's noise schedule, and return it.

    Args:
        folder: where the state, the losses and the encoded pictures are stored; a folder with a state is resumed.
        vae: the autoencoder, on `device`.
        text_encoder: likewise.
    """
    torch.manual_seed(seed)
    model = build()
    nn.Module.to(model, device)  # in place; the type of diffusers' own method fits no call
    abar_of = alphas_cumprod().to(device)
    pool = PicturePool(vae, folder / "pool", seed=seed + 1, panels=recipe.panels)
    colours = colour_latents(vae)

    def loss(step: int, random: torch.Generator) -> torch.Tensor:
        panels = PANELS if float(torch.rand((), generator=random)) < WIDE else 1
        drawn = pool.draw(step // STEPS_PER_CHUNK, recipe.batch // panels, panels, random)
        timesteps = draw_timesteps(len(drawn.scenes), random).to(device)
        noise = torch.randn(drawn.latents.shape, generator=random).to(device)
        tokens = tokenize(tokenizer, [caption(scene, random) for scene in drawn.scenes]).to(device)
        weight = torch.tensor([contrast_weight(scene, colours) for scene in drawn.scenes]).to(device)
        clean, abar = drawn.latents.to(device), abar_of[timesteps][:, None, None, None]
        with torch.no_grad():
            context = text_encoder(tokens).last_hidden_state
        velocity = model(abar.sqrt() * clean + (1 - abar).sqrt() * noise, timesteps, context).sample
        squares = (velocity - (abar.sqrt() * noise - (1 - abar).sqrt() * clean)).square()
        return (loss_weight(abar) * weight[:, None, None, None] * squares).mean()

    return fit(model, loss, recipe.schedule, folder, seed=seed, title="image model", progress=progress)


def export(output: Path, unet: UNet2DConditionModel, parts: Path | None = None) -> None:
    """Write the UNet in fp16 as diffusers does; the model card README.md stays as it is.

    Args:
        output: the model's folder.
        parts: the folder of the model whose text encoder, tokenizer, autoencoder and noise schedule are copied beside it,
            so that diffusers loads a StableDiffusionPipeline from `output`.
    """
    half(unet).save_pretrained(output / "unet")
    if parts is None:
        return
    for name in ("scheduler", "text_encoder", "tokenizer", "vae"):
        shutil.copytree(parts / name, output / name, dirs_exist_ok=True)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_text(output / "model_index.json", strict_json(index, indent=2) + "\n")
