"""The library's films with a host's MODEL and CLIP: the parts that `t2v_models.films.film` asks of a pipeline."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from torch import Tensor

from ...t2v_models.arguments import checked_shape
from ...t2v_models.errors import T2VError
from ...t2v_models.films.denoiser import Denoiser
from ...t2v_models.films.film import Film
from ...t2v_models.films.methods import continue_clip, queue_length
from ...t2v_models.films.settings import Settings
from ...t2v_models.fingerprint import fingerprint, sampled, settled
from ...t2v_models.sampling.story import Told
from ...t2v_models.sampling.windows import Windows, together
from . import stories
from .compat import on_device, unpatched
from .latents import to_clips
from .models import checks, controlnet, guidance
from .models.checks import check_finite, check_room
from .models.model import video_model
from .models.model_sampling import family_schedule, is_scaled
from .models.unet import FREE_NOISE
from .sampling import preview

log = logging.getLogger(__name__)

FINISHED = "finished"
"""A file that says so in a film's folder."""

_INSTALLED = (controlnet.KEY, guidance.KEY, checks.KEY)
"""Our own wrappers, which every MODEL has."""

_UNUSED = (
    "context_handler",
    "model_function_wrapper",
    "sampler_calc_cond_batch_function",
    "sampler_cfg_function",
    "sampler_post_cfg_function",
    "sampler_pre_cfg_function",
)
"""What nodes set on a MODEL for the host's samplers, which a film does not go through."""


_HOOKED = "carries hooks, which the UNet would lose: load that LoRA by T2V LoRA Loader, or sample by T2V Video Sampler."


class HostUNet:
    """A MODEL's UNet under the library's call; its weights come to the device through the host."""

    def __init__(self, model: Any) -> None:
        self.patcher, self.inner = model, video_model(model)
        self.config = self.inner.diffusion_model.config
        self.dtype = model.get_model_object("manual_cast_dtype") or self.inner.get_dtype()

        self.room: tuple[int, ...] = ()
        """Shape of the latents that it is called with at most."""
        self.ready = False

    @property
    def told(self) -> dict[str, float]:
        """What T2VModelConditioning has set."""
        return self.patcher.model_options.get("transformer_options", {}).get("t2v_values", {})

    def load(self) -> None:
        """Bring the weights to the device, with room for the latents."""
        memory = self.inner.memory_required(list(self.room))
        comfy.model_management.load_models_gpu([self.patcher], memory_required=memory)
        self.ready = True

    def __call__(
        self, x: Tensor, levels: Tensor, context: Tensor, *, options: dict[str, Any] | None = None, **values: Any
    ) -> Tensor:
        """x: (b, 4, t, h, w), levels: (b,) or (b, t), context: (k b, …), values: see `conditions` -> (k b, 4, t, h, w)."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        if not self.ready:
            self.load()
        given = self.patcher.model_options.get("transformer_options", {})
        given = {key: value for key, value in given.items() if key != FREE_NOISE}  # films have windows of their own
        given["t2v_values"] = {**values, **self.told, **({"fps": values["fps"]} if "fps" in values else {})}
        given["cond_or_uncond"] = [1, 0] if len(context) > len(x) else [0]  # for core's patches, as are the sigmas
        given["sigmas"] = self.inner.model_sampling.sigma(levels.view(len(x), -1).amax(1))
        device = self.patcher.load_device
        with on_device(device):
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
        self.scheduler_config = model.get_model_object("scheduler")
        self.schedule = family_schedule(self.scheduler_config, self.family)
        if not is_scaled(model.get_model_object("model_sampling")):
            self.schedule = self.schedule.without_scale()
        self.device = model.load_device
        passed_over = [key for key in _UNUSED if model.model_options.get(key)]
        passed_over += [key for kind in model.wrappers.values() for key in kind if key not in _INSTALLED]
        if passed_over:
            log.warning(
                "Films are denoised without what other nodes have set for samplers: %s.", ", ".join(passed_over)
            )

    def conditions(self, levels: Tensor, fps: float | None, guidance_scale: float) -> dict[str, Any]:
        """What this UNet has an embedding for, besides the text."""
        told = {"fps": fps} if self.unet.config.fps_embedding and fps else {}
        return told | ({"guidance": guidance_scale} if self.unet.config.guidance_dim else {})

    def check_finite(self, prediction: Tensor) -> None:
        """Stop at the first step whose result is not a number."""
        check_finite(self.unet.inner, prediction)

    def encode_text(self, texts: list[str]) -> Tensor:
        """(n, tokens, d)."""
        self.unet.ready = False  # the text encoder may take its place on the device
        return stories.encode(self.clip, texts).to(self.device)

    def unknowable(self) -> list[str]:
        """What other nodes have put into the models and no `identity` can tell, as it is code: FreeU and its like."""
        given = self.unet.patcher.model_options.get("transformer_options", {})
        names = [name for key in ("patches", "patches_replace") for name, code in given.get(key, {}).items() if code]
        names += ["optimized_attention_override"] if given.get("optimized_attention_override") else []
        names += [key for key in self.unet.patcher.object_patches if key.startswith("diffusion_model.")]
        for patcher in self._patchers():
            names += [*patcher.injections, *patcher.weight_wrapper_patches]  # LoRAs that are added, not merged
            names += ["hooks"] if patcher.forced_hooks else []
        return names

    def identity(self) -> str:
        """Another for other weights, LoRAs included, for another layer of CLIP and other values of T2VModelConditioning."""
        dtypes = self.unet.dtype, self.unet.inner.get_dtype()  # weights may still lie in the file's
        about = (dtypes, sorted(self.unet.told.items()), getattr(self.clip, "layer_idx", None), settled(self))
        digest = hashlib.sha256(repr(about).encode())
        for patcher in self._patchers():
            digest.update(_weights(patcher).encode())
            for key, patches in sorted(patcher.patches.items()):
                digest.update(repr(key).encode())
                _feed(digest, patches)
        return digest.hexdigest()

    def _patchers(self) -> list[Any]:
        return [self.unet.patcher, *([self.clip.patcher] if self.clip is not None else [])]

    def checked_shape(self, count: int, frames: int | None, width: int | None, height: int | None) -> tuple[int, ...]:
        """(count, 4, frames, height/8, width/8); 0 or None is the model's own."""
        return checked_shape(self, count, frames or None, width or None, height or None)


def make(
    model: Any, clip: Any, story: str, *, window: Windows, resume: bool, fps: float, **settings: Any
) -> tuple[dict[str, Tensor], float]:
    """A LATENT (1, 4, frames, h, w) of a whole film, and its frame rate."""
    stories.check_clip(clip)
    if clip.add_hooks_to_dict({}):
        raise T2VError(f"The CLIP that T2VFilm was given {_HOOKED}")
    pipeline = HostPipeline(model, clip)
    bar, look = comfy.utils.ProgressBar(1), preview.sheets(model)

    def show(latents: Tensor) -> None:
        image = look(latents)
        if image is not None:
            bar.update_absolute(bar.current, preview=image)

    if resume and (unknowable := pipeline.unknowable()):
        log.warning(
            "The film is made without a way to resume it: what other nodes have set on the model (%s) cannot be told "
            "from what they set another time.",
            ", ".join(unknowable),
        )
        resume = False
    folder = _unfinished(pipeline.identity(), story, window, fps, settings) if resume else None
    told = {"progress": bar.update_absolute, "preview": show}
    film = Film(pipeline, story, window=window, fps=fps or None, resume=folder, **told, **settings)
    film.condition = pipeline.unet.told.get("fps", film.condition)
    at_once = film.shape[2] if film.method == "free-noise" else min(window.length, film.shape[2])
    pipeline.unet.room = _room(film.settings.batch, film.shape, at_once, pipeline.device)
    check_room(pipeline.unet.inner, model, list(pipeline.unet.room))
    latents = torch.empty(film.shape)
    at = 0
    for part in film.latents():
        latents[:, :, at : at + part.shape[2]] = part
        at += part.shape[2]
    if folder is not None:
        for mark in folder.parent.glob(f"*/{FINISHED}"):  # when another is finished, those are saved or not wanted
            if mark.parent != folder:
                shutil.rmtree(mark.parent, ignore_errors=True)
        (folder / FINISHED).touch()
    return _latent(pipeline, latents), film.fps


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
    samples = to_clips(latent)["samples"].float().cpu()
    if samples.shape[0] != 1:
        raise T2VError(f"{samples.shape[0]} clips are wired: one is wanted, LatentFromBatch takes one out.")
    pipeline = HostPipeline(model, None)
    window = Windows(pipeline.defaults.frames)
    settings = Settings(steps, cfg, seed, window)
    rate = pipeline.unet.told.get("fps", pipeline.defaults.fps_condition or pipeline.defaults.fps)
    denoise = Denoiser(pipeline, _told(positive), _told(negative), settings, rate)
    pipeline.unet.room = _room(steps, samples.shape, window.length, pipeline.device)
    clip = pipeline.unet.inner.process_latent_in(samples)
    bar = comfy.utils.ProgressBar(queue_length(denoise, window.length) + frames)
    look, noise = preview.sheets(model), torch.Generator().manual_seed(seed % 2**63)
    following = continue_clip(denoise, clip, window.length, noise, lambda: bar.update(1))
    parts = [clip]
    for _ in range(frames):
        parts.append(next(following))
        bar.update_absolute(bar.current, preview=look(torch.cat(parts[-preview.MAX_FRAMES :], dim=2)))
    latents = torch.cat(parts, dim=2)
    return _latent(pipeline, latents)


def _weights(patcher: Any) -> str:
    """The fingerprint of a patcher's own weights; of a MODEL the UNet's, since a patch may stand for its noise schedule."""
    unet, prefix = getattr(patcher.model, "diffusion_model", None), "diffusion_model."
    if unet is None:
        return fingerprint(patcher.model, unpatched(patcher))
    kept = {name: value for name, value in unpatched(patcher).items() if name.startswith(prefix)}
    return fingerprint(unet, {name.removeprefix(prefix): value for name, value in kept.items()})


def _latent(pipeline: HostPipeline, latents: Tensor) -> dict[str, Tensor]:
    """A LATENT on the device where the host keeps what goes from node to node."""
    latents = latents.to(comfy.model_management.intermediate_device())
    return {"samples": pipeline.unet.inner.process_latent_out(latents)}


def _room(clips: int, shape: Sequence[int], frames: int, device: torch.device) -> tuple[int, ...]:
    """Shape of the latents that go through the UNet at once, for so many clips of a prompt and a negative prompt."""
    return (2 * min(clips, together(frames, *shape[3:], device)), shape[1], frames, *shape[3:])


def _feed(digest: Any, value: Any) -> None:
    """What a patch of the host consists of: numbers, tensors, and adapters that hold some."""
    if isinstance(value, Tensor):
        digest.update(sampled(value))
    elif isinstance(value, list | tuple):
        for each in value:
            _feed(digest, each)
    elif hasattr(value, "weights"):
        _feed(digest, value.weights)
    elif value is None or isinstance(value, str | int | float):
        digest.update(repr(value).encode())


def _told(conditioning: list) -> Told:
    """The text of a CONDITIONING, or its story; T2VError where it holds more, which would be lost."""
    called = "The conditioning that T2VContinue was given"
    if stories.hooks_of(conditioning, called) is not None:
        raise T2VError(f"{called} {_HOOKED}")
    text, extra = conditioning[0]
    return stories.carried(text, extra) or Told(text[:1], text.new_ones(1, 1))


def _unfinished(model: str, story: str, window: Windows, fps: float, settings: dict[str, Any]) -> Path:
    """A folder of its own for every film, under the output folder."""
    about = repr((model, story, window, fps, sorted(settings.items())))
    name = hashlib.sha256(about.encode()).hexdigest()[:16]
    return Path(folder_paths.get_output_directory()) / "t2v_unfinished" / name
