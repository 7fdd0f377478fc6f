"""The library's films with a host's MODEL and CLIP: `HostPipeline` is a `t2v_models.films.model.FilmModel`."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ...t2v_models.conditions import Conditions
from ...t2v_models.errors import T2VError
from ...t2v_models.films.film import Film
from ...t2v_models.films.guided_model import GuidedModel
from ...t2v_models.films.methods import continue_video, queue_length
from ...t2v_models.fingerprint import schedule_digest
from ...t2v_models.sampling.guidance import MOTION_GUIDANCE
from ...t2v_models.sampling.scenes import FrameContexts
from ...t2v_models.sampling.windows import Windows, together
from . import stories, unfinished
from .compat import on_device
from .latents import to_clips
from .memory import check_bytes
from .models import checks, controlnet, guidance, regions
from .models.checks import check_finite, check_room
from .models.model import video_model
from .models.model_sampling import family_schedule, is_scaled
from .models.unet import FREE_NOISE
from .sampling import preview

log = logging.getLogger(__name__)

_COPIES = 4
"""Of a film's latents: its noise, the sum over windows, the parts that are collected, and the LATENT."""

_OWN_WRAPPERS = (controlnet.KEY, guidance.KEY, checks.KEY, regions.KEY)
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
    """A MODEL's UNet; its weights come to the device through the host."""

    def __init__(self, model: Any) -> None:
        self.patcher, self.inner = model, video_model(model)
        self.dtype = model.get_model_object("manual_cast_dtype") or self.inner.get_dtype()
        self.room: tuple[int, ...] = ()
        """Shape of the largest latents that it is called with."""
        self.ready = False

    @property
    def overrides(self) -> dict[str, float]:
        """The values that T2VModelConditioning has set."""
        return self.patcher.model_options.get("transformer_options", {}).get("t2v_values", {})

    def load(self) -> None:
        """Bring the weights to the device, with room for the latents."""
        memory = self.inner.memory_required(list(self.room))
        comfy.model_management.load_models_gpu([self.patcher], memory_required=memory)
        self.ready = True

    def __call__(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        conditions: Conditions,
        options: dict[str, Any] | None = None,
    ) -> Tensor:
        """x: (b, 4, t, h, w), timesteps: (b,) or (b, t), context: (k b, …) -> (k b, 4, t, h, w)."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        if not self.ready:
            self.load()
        given = self.patcher.model_options.get("transformer_options", {})
        given = {key: value for key, value in given.items() if key != FREE_NOISE}  # films have windows of their own
        given["t2v_values"] = {name: value for name, value in vars(conditions).items() if value is not None}
        given["cond_or_uncond"] = [1, 0] if len(context) > len(x) else [0]  # for core's patches, as are the sigmas
        given["sigmas"] = self.inner.model_sampling.sigma(timesteps.view(len(x), -1).amax(1))
        device = self.patcher.load_device
        with on_device(device):
            return self.inner.diffusion_model(
                x.to(device, self.dtype),
                timesteps,
                context=context.to(device, self.dtype),
                transformer_options={**given, **(options or {})},
            )


class HostPipeline:
    """A MODEL and a CLIP as a `FilmModel`."""

    def __init__(self, model: Any, clip: Any) -> None:
        self.unet, self.clip = HostUNet(model), clip
        inner = self.unet.inner
        if inner.family.image:
            raise T2VError(
                f"{inner.family.title} makes clips of a picture, and this node has none for it: choose a text-to-video model, or "
                "animate the last frame of each clip with T2VImageToVideo again."
            )
        self.config, self.family, self.defaults = inner.diffusion_model.config, inner.family, inner.defaults
        self.schedule = family_schedule(model.get_model_object("scheduler"), self.family)
        if not is_scaled(model.get_model_object("model_sampling")):
            self.schedule = self.schedule.without_scale()
        self.device = model.load_device
        passed_over = [key for key in _UNUSED if model.model_options.get(key)]
        passed_over += [key for kind in model.wrappers.values() for key in kind if key not in _OWN_WRAPPERS]
        if passed_over:
            log.warning(
                "Films are denoised without what other nodes have set for samplers: %s.", ", ".join(passed_over)
            )

    def conditions(self, fps: float | None, guidance_scale: float) -> Conditions:
        """Those of these values that the UNet has an embedding for; T2VModelConditioning's guidance comes before ours."""
        values = {"guidance": guidance_scale, "motion_guidance": MOTION_GUIDANCE} | self.unet.overrides
        return Conditions.of(self.config, fps, values["guidance"], values["motion_guidance"])

    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        conditions: Conditions,
        options: dict[str, Any] | None = None,
    ) -> Tensor:
        """Call the UNet once; the result is in float32. T2VError at the first that is not finite."""
        prediction = self.unet(x, timesteps.to(self.device), context, conditions, options).float()
        check_finite(self.unet.inner, prediction)
        return prediction

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (texts, n, d)."""
        self.unet.ready = False  # the text encoder may take its place on the device
        return stories.encode(self.clip, texts).to(self.device)

    def unknowable(self) -> list[str]:
        """Names of what other nodes have set on the models and `identity` cannot cover, since it is code, such as FreeU's."""
        return unfinished.code_on(*self._patchers())

    def identity(self) -> str:
        """A digest of the weights, with LoRAs, of CLIP's layer and of the values of T2VModelConditioning."""
        dtypes = self.unet.dtype, self.unet.inner.get_dtype()  # weights may still lie in the file's
        layer = getattr(self.clip, "layer_idx", None)
        about = (dtypes, sorted(self.unet.overrides.items()), layer, schedule_digest(self.schedule, self.family))
        digest = hashlib.sha256(repr(about).encode())
        for patcher in self._patchers():
            digest.update(unfinished.patcher_digest(patcher).encode())
        return digest.hexdigest()

    def _patchers(self) -> list[Any]:
        return [self.unet.patcher, *([self.clip.patcher] if self.clip is not None else [])]


def make(
    model: Any, clip: Any, story: str, *, window: Windows, resume: bool, fps: float, **settings: Any
) -> tuple[dict[str, Tensor], float]:
    """Make a film of a story.

    Args:
        model, clip: of the host.
        story: see `t2v_models.sampling.story`.
        window: how the frames are denoised.
        resume: store finished parts, and continue with those of a film that was stopped.
        fps: the frame rate; 0 for the model's own.
        settings: further arguments of `Film`; a width or height of 0 is the model's own.

    Returns:
        A LATENT (1, 4, frames, h, w), and the frame rate.
    """
    stories.check_clip(clip)
    if clip.add_hooks_to_dict({}):
        raise T2VError(f"The CLIP that T2VFilm was given {_HOOKED}")
    pipeline = HostPipeline(model, clip)
    resume = resume and unfinished.resumable("The film", pipeline.unknowable())
    about = (pipeline.identity(), story, window, fps, sorted(settings.items())) if resume else ()
    folder = unfinished.folder(*about) if resume else None
    bar = comfy.utils.ProgressBar(1)
    asked = {name: value for name, value in settings.items() if value or name not in ("width", "height")}
    film = Film(
        pipeline,
        story,
        window=window,
        fps=fps or None,
        fps_condition=pipeline.unet.overrides.get("fps"),
        resume=folder,
        progress=bar.update_absolute,
        preview=_shower(bar, model),
        **asked,
    )
    _check_latents(film.shape)
    at_once = film.shape[2] if film.method == "free-noise" else min(window.length, film.shape[2])
    pipeline.unet.room = _room(film.job.settings.batch, film.shape, at_once, pipeline.device)
    check_room(pipeline.unet.inner, model, list(pipeline.unet.room))
    latents = _filled(film)
    if folder is not None:
        unfinished.finish(folder)
    return _latent(pipeline, latents), film.fps


def _shower(bar: Any, model: Any) -> Callable[[Tensor], None]:
    """What shows latents beside the progress bar, where previews are switched on."""
    look = preview.sheets(model)

    def show(latents: Tensor) -> None:
        image = look(latents)
        if image is not None:
            bar.update_absolute(bar.current, preview=image)

    return show


def _check_latents(shape: Sequence[int]) -> None:
    """Raise T2VError where the memory does not hold a film's latents, in fp32, as often as they exist at once."""
    frames, (height, width) = shape[2], (8 * side for side in shape[3:])
    what = f"A film of {frames} frames of {width}x{height}"
    check_bytes(_COPIES * 4 * math.prod(shape), what, "make it shorter or smaller")


def _filled(film: Film) -> Tensor:
    """All latents of a film, (1, 4, frames, h, w), collected without holding any part twice."""
    latents, at = torch.empty(film.shape), 0
    for part in film.latents():
        latents[:, :, at : at + part.shape[2]] = part
        at += part.shape[2]
    return latents


def continue_latent(
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
    """Add frames to a clip. latent: (1, 4, t, h, w) -> (1, 4, t + frames, h, w)."""
    samples = to_clips(latent)["samples"].float().cpu()
    if samples.shape[0] != 1:
        raise T2VError(f"{samples.shape[0]} clips are wired: one is wanted, LatentFromBatch takes one out.")
    _check_latents((*samples.shape[:2], samples.shape[2] + frames, *samples.shape[3:]))
    pipeline = HostPipeline(model, None)
    window = pipeline.defaults.frames
    rate = pipeline.unet.overrides.get("fps", pipeline.defaults.fps_condition or pipeline.defaults.fps)
    texts = _contexts(positive), _contexts(negative)
    guided = GuidedModel(pipeline, *texts, steps=steps, guidance_scale=cfg, fps=rate)
    pipeline.unet.room = _room(steps, samples.shape, window, pipeline.device)
    clip = pipeline.unet.inner.process_latent_in(samples)
    bar = comfy.utils.ProgressBar(queue_length(guided, window) + frames)
    look, noise = preview.sheets(model), torch.Generator().manual_seed(seed % 2**63)
    following = continue_video(guided, clip, window, noise, on_round=lambda: bar.update(1))
    parts = [clip]
    for _ in range(frames):
        parts.append(next(following))
        bar.update_absolute(bar.current, preview=look(torch.cat(parts[-preview.MAX_FRAMES :], dim=2)))
    latents = torch.cat(parts, dim=2)
    return _latent(pipeline, latents)


def _latent(pipeline: HostPipeline, latents: Tensor) -> dict[str, Tensor]:
    """A LATENT on the device where the host keeps what goes from node to node."""
    latents = latents.to(comfy.model_management.intermediate_device())
    return {"samples": pipeline.unet.inner.process_latent_out(latents)}


def _room(clips: int, shape: Sequence[int], frames: int, device: torch.device) -> tuple[int, ...]:
    """Shape of the latents that go through the UNet at once, for so many clips of a prompt and a negative prompt."""
    return (2 * min(clips, together(frames, *shape[3:], device)), shape[1], frames, *shape[3:])


def _contexts(conditioning: list) -> FrameContexts:
    """The text or story of a CONDITIONING; T2VError where it holds more, which would be lost."""
    called = "The conditioning that T2VContinue was given"
    if stories.hooks_of(conditioning, called) is not None:
        raise T2VError(f"{called} {_HOOKED}")
    text, extra = conditioning[0]
    return stories.carried(text, extra) or FrameContexts(text[:1], text.new_ones(1, 1))
