"""What a caller asks of a model, checked once, with the model's defaults where nothing was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from .arguments import (
    ModelFacts,
    checked_motion,
    checked_rate,
    checked_scale,
    checked_seed,
    checked_shape,
    checked_share,
    checked_steps,
    real_number,
)
from .arrays import finite_tensor, pictures, pixels
from .errors import T2VError, shortened
from .image.fit import FITS
from .image.methods import AUTO, ImageMethod
from .sampling.scenes import Story
from .sampling.story import parse_story, with_negative
from .sampling.windows import Windows
from .texts import checked_text

if TYPE_CHECKING:
    from torch import Tensor

    from .families import Family


class Options(TypedDict, total=False):
    """What clips and films are asked for alike; without a value, or where it is None, the model's default holds."""

    frames: int | None
    width: int | None
    height: int | None
    fps: float | None
    steps: int | None
    guidance_scale: float | None
    seed: int


class ClipOptions(Options, total=False):
    """What only clips are asked for, besides: see `Pipeline.__call__`."""

    guidance_rescale: float | None
    scheduler: str | None
    eta: float | None
    video: Tensor | None
    strength: float
    latents: Tensor | None
    story: str | Story | None
    windows: Windows | None
    motion: float | None
    image: Tensor | None
    end_image: Tensor | None
    image_fit: str
    image_strength: float
    image_guidance_scale: float | None
    image_noise: Tensor | None
    image_method: str | ImageMethod


class ClipModel(ModelFacts, Protocol):
    """What a request for clips needs to know of a model."""

    @property
    def family(self) -> Family:
        """How the model was trained."""


_OF_DIFFUSERS = {
    "num_inference_steps": "steps",
    "num_frames": "frames",
    "generator": "seed",
    "num_videos_per_prompt": "a list of prompts",
}
"""Arguments of diffusers' pipelines, and what they are called here."""


@dataclass(frozen=True)
class Request:
    """What clips and films are asked for alike, with nothing left open."""

    shape: tuple[int, ...]
    """Of the latents: (videos, 4, frames, height/8, width/8)."""
    fps: float
    """Frames per second of the result."""
    fps_condition: float | None
    """The frame rate that the UNet is given, if it takes one: the caller's, else the model's own for this."""
    steps: int
    guidance_scale: float
    seed: int
    """Of the first video; the next has seed + 1 and so on."""

    @classmethod
    def checked(
        cls,
        model: ModelFacts,
        videos: int = 1,
        *,
        frames: int | None = None,
        width: int | None = None,
        height: int | None = None,
        fps: float | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        **unknown: object,
    ) -> Request:
        """Check the values, and put the model's defaults for None.

        Raises:
            T2VError: for values that no video can be made with, and for arguments that do not exist.
        """
        for name in unknown:
            ours = _OF_DIFFUSERS.get(name)
            remedy = f"give {ours}" if ours else "see the list in the documentation of this call"
            raise T2VError(f"There is no argument {name[:60]!r}: {remedy}.")
        own = model.defaults
        return cls(
            shape=checked_shape(model, videos, frames, width, height),
            fps=checked_rate(own.fps if fps is None else fps),
            fps_condition=own.fps_condition if fps is None else fps,
            steps=checked_steps(own.steps if steps is None else steps),
            guidance_scale=checked_scale(own.guidance_scale if guidance_scale is None else guidance_scale),
            seed=checked_seed(seed, videos),
        )


@dataclass(frozen=True)
class ClipRequest(Request):
    """What `Pipeline.__call__` is asked for, with nothing left open."""

    prompts: tuple[str, ...]
    """One for each video."""
    negatives: tuple[str, ...]
    """The negative prompts, one for each video."""
    story: Story | None
    """The text of every frame, instead of the one prompt."""
    guidance_rescale: float
    scheduler: str
    eta: float
    video: Tensor | None
    """(b, t, h, w, 3), 0..1, to start from."""
    strength: float
    latents: Tensor | None
    """Standard normal noise of the request's shape, instead of the seed's."""
    windows: Windows | None
    """Over the clip's frames."""
    image: Tensor | None
    """(b, h, w, 3), 0..1, of any size: the picture that each video begins with or follows."""
    end_image: Tensor | None
    """Likewise, the picture that each video ends with."""
    image_fit: str
    """How pictures get the video's size, see `t2v_models.image.fit`."""
    image_strength: float
    """0 for text alone, 1 for the pictures as the model was trained with them."""
    image_guidance_scale: float
    """How closely to follow the pictures; equal to `guidance_scale` where nothing is asked."""
    image_noise: Tensor | None
    """((n b), 4, h/8, w/8) standard normal noise for the VAE's latents of the n pictures; None for their modes."""
    image_method: ImageMethod | None
    """How a model that was made for texts alone follows a picture, see `t2v_models.image.methods`; None
    where none is needed."""

    @classmethod
    def of_prompts(
        cls,
        model: ClipModel,
        prompt: str | Sequence[str] | None,
        negative_prompt: str | Sequence[str] | None,
        *,
        guidance_rescale: float | None = None,
        scheduler: str | None = None,
        eta: float | None = None,
        video: Tensor | None = None,
        strength: float = 1.0,
        latents: Tensor | None = None,
        story: str | Story | None = None,
        windows: Windows | None = None,
        motion: float | None = None,
        image: Tensor | None = None,
        end_image: Tensor | None = None,
        image_fit: str = "crop",
        image_strength: float = 1.0,
        image_guidance_scale: float | None = None,
        image_noise: Tensor | None = None,
        image_method: str | ImageMethod = AUTO,
        **options: Any,
    ) -> ClipRequest:
        """Check the arguments of `Pipeline.__call__`, which describes them; `options` as in `Request.checked`.

        Raises:
            T2VError: for values that no video can be made with.
        """
        prompts, negatives = _texts(prompt, negative_prompt, story)
        if video is not None:
            several = isinstance(video, (list, tuple))
            video = pixels(video, "video")
            video = video[None] if several and video.ndim == 4 else video  # a list of pictures is one video
            if video.ndim != 5 or video.shape[0] != len(prompts) or video.shape[-1] != 3:
                raise T2VError(f"video has shape {tuple(video.shape)}: ({len(prompts)}, t, h, w, 3) is wanted.")
            options |= dict(zip(("frames", "height", "width"), video.shape[1:4], strict=True))
        common = Request.checked(model, len(prompts), **options)
        if not 0 < (strength := real_number(strength, "strength")) <= 1:
            raise T2VError(f"strength is {strength}: more than 0 and at most 1 is wanted.")
        latents = None if latents is None else finite_tensor(latents, "latents")
        if latents is not None and tuple(latents.shape) != common.shape:
            raise T2VError(f"latents has shape {tuple(latents.shape)}: {common.shape} is wanted.")
        own = model.family
        frames = common.shape[2]
        if motion is not None:
            common = replace(common, fps_condition=checked_motion(motion, model.config))
        elif image is not None and own.image:  # its condition is the amount of motion, whatever the rate of the result
            common = replace(common, fps_condition=model.defaults.fps_condition)
        if image_guidance_scale is None:
            image_guidance_scale = common.guidance_scale
        return cls(
            **vars(common),
            prompts=prompts,
            negatives=negatives,
            story=_story(story, negatives, frames, common.fps),
            guidance_rescale=checked_share(
                own.guidance_rescale if guidance_rescale is None else guidance_rescale, "guidance_rescale"
            ),
            scheduler=checked_text(scheduler or model.defaults.scheduler, "scheduler"),
            eta=checked_share(own.eta if eta is None else eta, "eta"),
            video=video,
            strength=strength,
            latents=latents,
            windows=None if windows is None else windows.over(frames),
            image=None if image is None else pictures(image, "image", len(prompts)),
            end_image=None if end_image is None else pictures(end_image, "end_image", len(prompts)),
            image_fit=_one_of(FITS, image_fit, "image_fit"),
            image_strength=checked_share(image_strength, "image_strength"),
            image_guidance_scale=checked_scale(image_guidance_scale),
            image_noise=None if image_noise is None else _noise_of_pictures(image_noise, common.shape, end_image),
            image_method=_method(image_method, own, first=image is not None, last=end_image is not None),
        )


def _story(story: str | Story | None, negatives: Sequence[str], frames: int, fps: float) -> Story | None:
    """A story of so many frames; T2VError where it is of another length, or has a negative prompt that it does not hold."""
    if not isinstance(story, Story):
        return None if story is None else parse_story(with_negative(story, negatives[0]), frames, fps)
    if story.frames != frames:
        raise T2VError(f"The story has {story.frames} frames and the clip {frames}: give it one of its length.")
    if any(negatives):
        raise T2VError(
            "A negative prompt is given besides a story that was read: put it into the story's negative lines."
        )
    return story


def _method(asked: str | ImageMethod, family: Family, *, first: bool, last: bool) -> ImageMethod | None:
    """How a model of texts follows pictures; None for a model that takes them, and where none is given.

    Raises:
        T2VError: for a method that cannot be used.
    """
    if first or last:
        if not family.image:
            return ImageMethod.checked(asked, family, first=first, last=last)
        if asked != AUTO:
            raise T2VError(f"image_method is given, and {family.title} follows pictures in its own way: leave it out.")
    elif asked != AUTO:
        raise T2VError("image_method is given without a picture: give one by image=, or leave it out.")
    return None


def _noise_of_pictures(noise: Any, shape: Sequence[int], end_image: Any) -> Tensor:
    """Noise (b, c, n, h, w) for the VAE's latents of n pictures of b videos -> (n b, c, h, w)."""
    given = finite_tensor(noise, "image_noise")
    wanted = (*shape[:2], 1 if end_image is None else 2, *shape[3:])
    if tuple(given.shape) != wanted:
        raise T2VError(f"image_noise has shape {tuple(given.shape)}: {wanted} is wanted.")
    return given.movedim(2, 0).flatten(0, 1)


def _one_of(names: Sequence[str], name: Any, what: str) -> str:
    """A name of a list; T2VError for any other."""
    if name not in names:
        raise T2VError(f"{what} is {shortened(repr(name), 100)}: choose one of {', '.join(names)}.")
    return str(name)


def _each(texts: str | Sequence[str] | None, what: str) -> tuple[str, ...]:
    """One text or several as a tuple; None is no text, as in diffusers. T2VError for anything else."""
    if texts is None or isinstance(texts, str):
        texts = (texts or "",)
    if isinstance(texts, (bytes, dict)) or not hasattr(texts, "__iter__"):
        raise T2VError(f"{what} is of type {type(texts).__name__}: a text is wanted, or a list of them.")
    return tuple(checked_text("" if text is None else text, what) for text in texts)


def _texts(
    prompt: str | Sequence[str] | None, negative_prompt: str | Sequence[str] | None, story: str | Story | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The prompts and their negative prompts, as many of each as videos; T2VError where they do not fit each other."""
    prompts = _each(prompt, "The prompt")
    negatives = _each(negative_prompt, "The negative prompt")
    if negative_prompt is None or isinstance(negative_prompt, str):
        negatives *= len(prompts)
    if not prompts:
        raise T2VError("No prompt is given: at least one is wanted.")
    if story is not None and any(prompts):
        raise T2VError(
            "A prompt and a story are given: a clip takes all its texts from the story, so leave one of them out."
        )
    if story is not None and not len(prompts) == len(negatives) == 1:
        raise T2VError(f"{len(negatives)} negative prompts for one story: give one.")
    if len(negatives) != len(prompts):
        raise T2VError(f"{len(negatives)} negative prompts for {len(prompts)} prompts: give one, or one for each.")
    return prompts, negatives
