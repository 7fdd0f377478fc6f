"""The whole training of the built-in model: autoencoder, text encoder, UNet and its finish, decoder, and the export."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from ...atomic_files import write_text
from ...builtin_model import BUILT_IN
from ...errors import T2VError
from ...family_matching import family_for
from ...pipeline import Pipeline
from ...plots import losses
from ...texts import strict_json
from ...unet import UNet3D
from ..loop import Schedule
from . import autoencoder, decoder, latent_colours, phases, text_encoder, unet

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL
    from transformers import CLIPTextModel

log = logging.getLogger(__name__)

Module = TypeVar("Module", bound=nn.Module)

FRAMES, SIZE, FPS, STEPS, GUIDANCE = 16, 64, 8, 20, 3.0

AUTOENCODER = Schedule(1700, 2e-3, warmup=50, weight_decay=1e-3, average=0.995)
TEXT = Schedule(800, 1e-3, warmup=50, average=0.99)
DECODER = Schedule(4000, 1e-3, warmup=50, weight_decay=1e-3, average=0.995)
DENOISER = Schedule(phases.STEPS, 1.5e-3, hold=0.88, average=0.9995, muon=True)
"""The weights are averaged over about the last 2,000 steps: of 100 diagonals, bounces, spins and others, more were right
with the average than with the weights of any one step."""
FINISH = Schedule(phases.FINISH[-1].until, 8e-4, warmup=50, hold=0.3, average=0.999, muon=True)

STAGES = ("autoencoder", "text", "denoiser", "finish", "decoder")


@dataclass(frozen=True)
class Recipe:
    """The schedules of the stages. README.md in `t2v_models/builtin` says which ones its weights had."""

    autoencoder: Schedule = AUTOENCODER
    text: Schedule = TEXT
    denoiser: Schedule = DENOISER
    finish: Schedule = FINISH
    decoder: Schedule = DECODER
    clips: int = 8
    """Clips of 16 frames in a step of the UNet."""
    pool: int = 480
    """Clips in a chunk of the pool."""
    denoised: int = 480
    """Clips that are drawn and denoised for the decoder's training."""

    def scaled(self, factor: float) -> Recipe:
        """Return a recipe with fewer steps, for a trial."""
        if factor == 1:
            return self

        def scaled(schedule: Schedule) -> Schedule:
            return schedule.over(max(2, round(schedule.steps * factor)))

        return replace(
            self,
            autoencoder=scaled(self.autoencoder),
            text=scaled(self.text),
            denoiser=scaled(self.denoiser),
            finish=scaled(self.finish),
            decoder=scaled(self.decoder),
            pool=max(20, round(self.pool * factor)),
            denoised=max(2, round(self.denoised * factor)),
        )


def train_builtin(
    work: Path,
    output: Path,
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Path:
    """Train the model, write it to `output`, and return the path of the picture of its losses.

    Args:
        work: where the stages store their states; unfinished stages are resumed.
        output: the diffusers folder of the model.

    Raises:
        T2VError: if `work` was begun with another seed, recipe or version of the code.
    """
    recipe = recipe or Recipe()
    begin(work, recipe, seed)
    pipeline = _train_parts(work, recipe, seed, device, progress)
    vae = decoder.sharpen(
        pipeline, work / "decoder", recipe.decoder, clips=recipe.denoised, seed=seed, progress=progress
    )
    log.info("Reconstruction: %.1f dB.", autoencoder.psnr(vae))
    export(output, vae.cpu(), pipeline.unet.cpu(), pipeline.text_encoder.cpu(), work / "tokenizer")
    picture = work / "loss.png"
    losses.draw_curves({name: losses.read_losses(work / name) for name in STAGES}, picture)
    return picture


def _train_parts(work: Path, recipe: Recipe, seed: int, device: torch.device | str, progress: bool) -> Pipeline:
    """Train all parts but the decoder, which needs a pipeline of the others."""
    from transformers import CLIPTokenizer

    text_encoder.write_tokenizer(work / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    vae = autoencoder.train(
        work / "autoencoder", recipe.autoencoder, batch=16, seed=seed, device=device, progress=progress
    )
    vae.requires_grad_(False)
    encoder = text_encoder.train(work / "text", tokenizer, recipe.text, seed=seed, device=device, progress=progress)
    train_unet = partial(
        unet.train,
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        size=recipe.clips,
        chunk=recipe.pool,
        device=device,
        progress=progress,
    )
    model = train_unet(work / "denoiser", schedule=recipe.denoiser, seed=seed)
    model = train_unet(
        work / "finish", schedule=recipe.finish, model=model, phases=phases.FINISH, title="finish", seed=seed + 10
    )
    family = family_for(unet.UNET, defaults(vae))
    return Pipeline(model.unet.eval(), vae, encoder, tokenizer, scheduler_config(), family)


def begin(work: Path, recipe: object, seed: int, stages: Sequence[str] = STAGES) -> None:
    """Make the work folder of a training.

    Args:
        recipe: whose text names all choices.
        stages: names of the stages' folders.

    Raises:
        T2VError: if another training was begun there, since its stages would not fit together.
    """
    text, note = f"seed {seed}\n{recipe!r}\ncode {_code()}\n", work / "recipe.txt"
    unnoted = not note.exists() and any((work / name).exists() for name in stages)
    if unnoted or (note.exists() and note.read_text(encoding="utf-8") != text):
        raise T2VError(
            f"{work} holds a training that was begun with another --seed, --steps or --scale, or by another version: give "
            "the same, name another folder by --work, or remove this one to begin anew."
        )
    if not note.exists():
        work.mkdir(parents=True, exist_ok=True)
        write_text(note, text)


def _code() -> str:
    """Hash of the code that draws the clips: stored latents belong to captions and poses that are drawn again."""
    here = Path(__file__).parent
    files = [
        here / f"{name}.py"
        for name in ("autoencoder", "batches", "clips", "decoder", "image", "phases", "stills", "unet")
    ]
    files += [here.parent / "loop.py"]
    files += [here.parents[1] / "shapes" / f"{name}.py" for name in ("captions", "render", "scene_changes", "world")]
    texts = [file.read_text(encoding="utf-8") for file in files]
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:16]


def scheduler_config() -> dict[str, Any]:
    """Return the noise schedule as the content of a diffusers scheduler_config.json."""
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


def defaults(vae: AutoencoderKL) -> dict[str, Any]:
    """Return the model's own entries in the configuration of its UNet, see `families.Family`."""
    return {
        "family": BUILT_IN,
        "title": "Moving shapes, built in",
        "licence": "CC0-1.0",
        "text_encoder": "its own, two layers",
        "vae": "its own, 8x, 4 channels",
        "vae_scale": vae.config["scaling_factor"],
        "frames": FRAMES,
        "width": SIZE,
        "height": SIZE,
        "fps": FPS,
        "steps": STEPS,
        "guidance_scale": GUIDANCE,
        "scheduler": "ddim",
        "frame_timesteps": True,
        "speed_words": ["slowly", "fast"],
        "latent_colours": latent_colours.fit(vae),
    }


def export(output: Path, vae: AutoencoderKL, unet: UNet3D, encoder: CLIPTextModel, tokenizer: Path) -> None:
    """Write a diffusers folder with fp16 weights; the model card README.md stays as it is."""
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


def save_text_encoder(model: CLIPTextModel, folder: Path) -> None:
    """Write a transformers folder in fp16.

    Names begin with "text_model.", which all versions of transformers read; version 5 itself writes them without.
    """
    from safetensors.torch import save_file

    model = half(model)
    model.config.dtype = torch.float16
    model.config.architectures = ["CLIPTextModel"]
    model.config.save_pretrained(folder)
    names = {name: f"text_model.{name.removeprefix('text_model.')}" for name in model.state_dict()}
    tensors = {names[name]: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def half(module: Module) -> Module:
    """Return a copy in fp16."""
    import copy

    return copy.deepcopy(module).to(torch.float16)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(strict_json(content, indent=2) + "\n", encoding="utf-8")
