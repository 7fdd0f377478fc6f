"""The library's films with a host's MODEL and CLIP: the parts that `t2v_models.film` asks of a pipeline."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from torch import Tensor

from ...t2v_models.errors import T2VError
from ...t2v_models.film import Film, Settings
from ...t2v_models.film_methods import Denoiser, continue_clip
from ...t2v_models.sampling.story import Told
from ...t2v_models.sampling.windows import Windows
from . import stories
from .latents import to_clips
from .model import video_model


class HostUNet:
    """A MODEL's UNet under the library's call; its weights come to the device through the host."""

    def __init__(self, model: Any) -> None:
        self.patcher, self.inner = model, video_model(model)
        self.config = self.inner.diffusion_model.config
        self.dtype = self.inner.manual_cast_dtype or self.inner.get_dtype()

    def load(self, shape: tuple[int, ...]) -> None:
        """Bring the weights to the device, with room for latents of that shape."""
        memory = self.inner.memory_required(list(shape))
        comfy.model_management.load_models_gpu([self.patcher], memory_required=memory)

    def __call__(
        self, x: Tensor, levels: Tensor, context: Tensor, *, options: dict[str, Any] | None = None, **values: Any
    ) -> Tensor:
        """x: (b, 4, t, h, w), levels: (b,) or (b, t), context: (k b, …), values: see `conditions` -> (k b, 4, t, h, w)."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        given = self.patcher.model_options.get("transformer_options", {})
        given = {**given, "t2v_values": {**given.get("t2v_values", {}), **values}}
        device = self.patcher.load_device
        return self.inner.diffusion_model(
            x.to(device),
            levels.to(device),
            context=context.to(device, x.dtype),
            transformer_options={**given, **(options or {})},
        )


class HostPipeline:
    """What `Film` and `Denoiser` ask of a pipeline."""

    def __init__(self, model: Any, clip: Any) -> None:
        self.unet, self.clip = HostUNet(model), clip
        inner = self.unet.inner
        self.family, self.defaults = inner.family, inner.defaults
        self.scheduler_config = inner.scheduler
        if self.family.scale_base is not None:
            raise T2VError(f"{self.family.title} has a scaled noise schedule: use T2VWindows or T2VFreeNoise with it.")
        self.input_scale = None
        self.device = model.load_device

    def conditions(self, count: int, fps: float | None, guidance_scale: float) -> dict[str, Any]:
        """The frame rate, where this UNet has an embedding for it; the host's UNet has its other values from the MODEL."""
        return {"fps": fps} if self.unet.config.fps_embedding and fps else {}

    def encode_text(self, texts: list[str]) -> Tensor:
        """(n, tokens, d)."""
        return stories.encode(self.clip, texts).to(self.device)

    def checked_shape(self, count: int, frames: int | None, width: int | None, height: int | None) -> tuple[int, ...]:
        """(count, 4, frames, height/8, width/8); 0 or None is the model's own."""
        sizes = (frames or self.defaults.frames, height or self.defaults.height, width or self.defaults.width)
        for name, size in (("height", sizes[1]), ("width", sizes[2])):
            if size % 8:
                raise T2VError(f"The {name} is {size}: a multiple of 8 is wanted, {round(size / 8) * 8} for one.")
        return (count, self.unet.config.out_channels, sizes[0], sizes[1] // 8, sizes[2] // 8)


def make(
    model: Any, clip: Any, story: str, *, window: Windows, resume: bool, fps: float, **settings: Any
) -> tuple[dict[str, Tensor], float]:
    """A LATENT (1, 4, frames, h, w) of a whole film, and its frame rate."""
    pipeline = HostPipeline(model, clip)
    bar: list[comfy.utils.ProgressBar] = []

    def progress(done: int, total: int) -> None:
        if not bar:
            bar.append(comfy.utils.ProgressBar(total))
        bar[0].update_absolute(done, total)

    folder = _unfinished(story, window, fps, settings) if resume else None
    film = Film(pipeline, story, window=window, fps=fps or None, resume=folder, progress=progress, **settings)
    pipeline.unet.load((film.settings.batch * 2, *film.shape[1:2], min(window.length, film.shape[2]), *film.shape[3:]))
    latents = torch.empty(film.shape)
    at = 0
    for part in film.latents():
        latents[:, :, at : at + part.shape[2]] = part
        at += part.shape[2]
    film.store.clear()
    return {"samples": pipeline.unet.inner.process_latent_out(latents)}, film.fps


def go_on(
    model: Any,
    positive: list,
    negative: list,
    latent: dict[str, Any],
    frames: int,
    *,
    seed: int,
    steps: int,
    cfg: float,
) -> dict[str, Tensor]:
    """The clip and as many frames more. latent: (1, 4, t, h, w) -> (1, 4, t + frames, h, w)."""
    samples = to_clips(latent)["samples"]
    if samples.shape[0] != 1:
        raise T2VError(f"{samples.shape[0]} clips are wired: one is wanted, LatentFromBatch takes one out.")
    pipeline = HostPipeline(model, None)
    window = Windows(pipeline.defaults.frames)
    settings = Settings(steps, cfg, seed, window)
    denoise = Denoiser(pipeline, _told(positive), _told(negative), settings, pipeline.defaults.fps)
    pipeline.unet.load((steps, samples.shape[1], window.length, *samples.shape[3:]))
    clip = pipeline.unet.inner.process_latent_in(samples)
    bar = comfy.utils.ProgressBar(frames)
    following = continue_clip(denoise, clip, window.length, torch.Generator().manual_seed(seed % 2**63))
    parts = [clip]
    for i in range(frames):
        parts.append(next(following))
        bar.update_absolute(i + 1, frames)
    return {"samples": pipeline.unet.inner.process_latent_out(torch.cat(parts, dim=2))}


def _told(conditioning: list) -> Told:
    """The text of a CONDITIONING, or its story."""
    text, extra = conditioning[0]
    return extra.get(stories.KEY) or Told(text[:1], torch.ones(1, 1))


def _unfinished(story: str, window: Windows, fps: float, settings: dict[str, Any]) -> Path:
    """A folder of its own for every film, under the output folder."""
    about = repr((story, window, fps, sorted(settings.items())))
    name = hashlib.sha256(about.encode()).hexdigest()[:16]
    return Path(folder_paths.get_output_directory()) / "t2v_unfinished" / name
