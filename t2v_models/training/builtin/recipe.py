"""How the built-in model is made: autoencoder, text encoder, denoiser and its finish, decoder, and their folder."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...atomic_files import write_text
from ...builtin_model import BUILT_IN
from ...errors import T2VError
from ...families import family_for
from ...pipeline import Pipeline
from ...plots import losses
from ...unet import UNet3D
from ..loop import Schedule
from . import autoencoder, decoder, latent_colours, text_encoder, unet

log = logging.getLogger(__name__)

FRAMES, SIZE, FPS, STEPS, GUIDANCE = 16, 64, 8, 20, 3.0

AUTOENCODER = Schedule(1700, 2e-3, warmup=50, weight_decay=1e-3, average=0.995)
TEXT = Schedule(800, 1e-3, warmup=50, average=0.99)
DECODER = Schedule(4000, 1e-3, warmup=50, weight_decay=1e-3, average=0.995)
DENOISER = Schedule(unet.STEPS, 1.5e-3, hold=0.88, average=0.9995, muon=True)
"""Averaged over about the last 2,000 steps: of 100 diagonals, bounces, spins … more were right with such weights than with
those of any one time."""
FINISH = Schedule(unet.FINISH[-1].until, 8e-4, warmup=50, hold=0.3, average=0.999, muon=True)

STAGES = ("autoencoder", "text", "denoiser", "finish", "decoder")


@dataclass(frozen=True)
class Recipe:
    """Lengths of the stages; what the weights in `t2v_models/builtin` had is in their README.md."""

    autoencoder: Schedule = AUTOENCODER
    text: Schedule = TEXT
    denoiser: Schedule = DENOISER
    finish: Schedule = FINISH
    decoder: Schedule = DECODER
    clips: int = 8
    """Clips of 16 frames in a step of the denoiser."""
    pool: int = 480
    """Clips in a chunk of the pool."""
    denoised: int = 480
    """Clips that the decoder learns from what the denoiser leaves."""

    def scaled(self, factor: float) -> Recipe:
        """The same in fewer steps, for a try."""
        if factor == 1:
            return self

        schedules = {name: getattr(self, name) for name in STAGES}
        stages = {name: each.over(max(2, round(each.steps * factor))) for name, each in schedules.items()}
        sizes = {"pool": max(20, round(self.pool * factor)), "denoised": max(2, round(self.denoised * factor))}
        return replace(self, **stages, **sizes)


def train_builtin(
    work: Path,
    output: Path,
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Path:
    """Make the model from a seed and write it to `output`; a `work` folder with unfinished stages is gone on with.

    Returns the picture of the loss curves.

    Raises:
        T2VError: where `work` was begun with another seed or recipe.
    """
    from transformers import CLIPTokenizer

    recipe = recipe or Recipe()
    begin(work, recipe, seed)
    text_encoder.write_tokenizer(work / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    stages = {name: work / name for name in STAGES}
    quiet = {"seed": seed, "progress": progress}
    options = {**quiet, "device": device}
    vae = autoencoder.train(stages["autoencoder"], recipe.autoencoder, batch=16, **options)
    vae.requires_grad_(False)
    encoder = text_encoder.train(stages["text"], tokenizer, recipe.text, **options)
    size = {"size": recipe.clips, "chunk": recipe.pool}
    parts = (vae, encoder, tokenizer)
    model = unet.train(stages["denoiser"], *parts, recipe.denoiser, **size, **options)
    again = {"model": model, "phases": unet.FINISH, "title": "finish"} | size | options | {"seed": seed + 10}
    finished = unet.train(stages["finish"], *parts, recipe.finish, **again).unet.eval()
    pipeline = Pipeline(finished, vae, encoder, tokenizer, scheduler_config(), family_for(unet.UNET, defaults(vae)))
    vae = decoder.sharpen(pipeline, stages["decoder"], recipe.decoder, clips=recipe.denoised, **quiet)
    log.info("Reconstruction: %.1f dB.", autoencoder.psnr(vae))
    export(output, vae.cpu(), finished.cpu(), encoder.cpu(), work / "tokenizer")
    picture = work / "loss.png"
    losses.draw_curves({name: losses.read_losses(folder) for name, folder in stages.items()}, picture)
    return picture


def begin(work: Path, recipe: Recipe, seed: int) -> None:
    """Make the work folder, or refuse one in which another training was begun: its stages would not fit together."""
    text, note = f"seed {seed}\n{recipe!r}\ncode {_code()}\n", work / "recipe.txt"
    unnoted = not note.exists() and any((work / name).exists() for name in STAGES)
    if unnoted or (note.exists() and note.read_text(encoding="utf-8") != text):
        raise T2VError(
            f"{work} holds a training that was begun with another --seed, --steps or --scale, or by another version: give "
            "the same, name another folder by --work, or remove this one to begin anew."
        )
    if not note.exists():
        work.mkdir(parents=True, exist_ok=True)
        write_text(note, text)


def _code() -> str:
    """A hash of what draws the clips: latents that are kept belong to the captions and poses that are drawn anew."""
    here = Path(__file__).parent
    files = [here / f"{name}.py" for name in ("autoencoder", "clips", "decoder", "scene_changes", "unet")]
    files += [here.parent / "loop.py"]
    files += [here.parents[1] / "shapes" / f"{name}.py" for name in ("captions", "render", "scene_changes", "world")]
    texts = [file.read_text(encoding="utf-8") for file in files]
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:16]


def scheduler_config() -> dict[str, Any]:
    """The noise schedule as a diffusers scheduler_config.json."""
    return {
        "_class_name": "DDIMScheduler",
        "beta_start": unet.BETAS[0],
        "beta_end": unet.BETAS[1],
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }


def defaults(vae: nn.Module) -> dict[str, Any]:
    """What the model tells of itself in its configuration."""
    return {
        "family": BUILT_IN,
        "title": "Moving shapes, built in",
        "licence": "CC0-1.0",
        "text_encoder": "its own, two layers",
        "vae": "its own, 8x, 4 channels",
        "vae_scale": vae.config.scaling_factor,
        "frames": FRAMES,
        "width": SIZE,
        "height": SIZE,
        "fps": FPS,
        "steps": STEPS,
        "guidance_scale": GUIDANCE,
        "scheduler": "ddim",
        "frame_levels": True,
        "speed_words": ["slowly", "fast"],
        "latent_colours": latent_colours.fit(vae),
    }


def export(output: Path, vae: nn.Module, unet: UNet3D, encoder: nn.Module, tokenizer: Path) -> None:
    """Write a diffusers folder with fp16 weights; README.md, the model card, is not touched."""
    from ...checkpoints.convert import save_unet

    output.mkdir(parents=True, exist_ok=True)
    save_unet(unet, output / "unet", dtype=torch.float16, sample_size=SIZE // 8, t2v=defaults(vae))
    half(vae).save_pretrained(output / "vae")
    save_text_encoder(encoder, output / "text_encoder")
    shutil.copytree(tokenizer, output / "tokenizer", dirs_exist_ok=True)
    _write_json(output / "scheduler" / "scheduler_config.json", scheduler_config())
    index = {
        "_class_name": "TextToVideoSDPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet3DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    _write_json(output / "model_index.json", index)


def save_text_encoder(model: nn.Module, folder: Path) -> None:
    """A transformers folder in fp16, with the names that every version reads (version 5 leaves "text_model." out)."""
    from safetensors.torch import save_file

    model = half(model)
    model.config.dtype = torch.float16
    model.config.architectures = ["CLIPTextModel"]
    model.config.save_pretrained(folder)
    names = {name: f"text_model.{name.removeprefix('text_model.')}" for name in model.state_dict()}
    tensors = {names[name]: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def half(module: nn.Module) -> nn.Module:
    """A copy in fp16; the module stays as it is."""
    import copy

    return copy.deepcopy(module).to(torch.float16)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
