"""Long videos: a story of any length, frames handed out as soon as they are finished.

Four methods, which trade memory, time and how far frames look: see `METHODS`. The mathematics is in `sampling`; the
methods apply it to a `FilmJob`, which holds a model, a story and a folder for unfinished work. Models that make clips of pictures
have a method of their own, see `clip_after_clip`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..arguments import Progress, check_memory, real_number, warn_of_unused, whole_number
from ..arrays import pictures, pixels
from ..errors import T2VError
from ..image.fit import fit
from ..request import Request
from ..sampling.story import parse_story, with_negative
from ..sampling.windows import Windows, windows
from .clip_after_clip import check_clip_after_clip
from .job import FilmJob
from .methods import MAKE
from .model import FilmModel, codec_of
from .settings import CLIP_AFTER_CLIP, LEADS_ON, LOOPS, METHODS, Settings, usual_windows
from .store import Store

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..families import Family
    from ..request import Options

log = logging.getLogger(__name__)


class Film:
    """A long video of a story: iterate over `frames()`.

    Args:
        model: from `t2v_models.load_pipeline`.
        story: one text, or scenes as `t2v_models.sampling.story` describes.
        negative_prompt: what no frame may show, besides the story's own negative lines.
        method: a key of `METHODS`; where None, "windows", or "endless" for a `clip`, or "coarse-to-fine" for an `image`. A
            model that makes clips of pictures needs an `image` and has one method, "clip-after-clip".
        window: length, overlap, fusion and loop of the windows; `usual_windows` where None.
        candidates: for the method "coarse-to-fine", how many sets of key frames are made; the steadiest is taken.
        clip: (t, h, w, 3), 0..1, frames that the film continues, for the method "endless": they stay as they are,
            `frames` more follow, and the story's time begins with them.
        image: (h, w, 3), 0..1, a picture of any size: the first frame's latent is the picture's. The methods "coarse-to-fine"
            and "endless" lead on from it; by the two others only the first window sees it.
        image_fit: "crop", "pad" or "stretch", how the picture gets the film's size.
        fps_condition: the frame rate that the model is asked for, where it takes a frame rate; fps where None. Models that
            make clips of pictures take it as their motion, see `Family.fps_meaning`; their own where None.
        resume: a folder for finished parts; a film that was stopped continues with them, and becomes the same film bit for
            bit.
        progress: called with (done, total) units of work; it may raise to stop.
        preview: called with latents (b, 4, t, h, w) of some or all of the frames as they look so far.
        options: frames, width, height (multiples of 8), fps, steps, guidance_scale: the model's defaults where None; seed,
            0 if left out.

    Raises:
        T2VError: for a story or sizes that no film can be made of, and for a folder with another film.
    """

    def __init__(
        self,
        model: FilmModel,
        story: str,
        negative_prompt: str | None = "",
        *,
        method: str | None = None,
        window: Windows | None = None,
        candidates: int = Settings.candidates,
        clip: Tensor | None = None,
        image: Tensor | None = None,
        image_fit: str = "crop",
        fps_condition: float | None = None,
        resume: str | Path | None = None,
        progress: Progress | None = None,
        preview: Callable[[Tensor], None] | None = None,
        **options: Unpack[Options],
    ) -> None:
        clip = None if clip is None else pixels(clip, "clip")
        candidates = whole_number(candidates, "candidates")
        self.method = method or _usual_method(model, clip=clip is not None, image=image is not None)
        _check_method(self.method, clip, candidates, model.family)
        if model.family.image:
            looped = window is not None and window.looped
            check_clip_after_clip(model.family, self.method, pictured=image is not None, looped=looped)
        if image is not None and clip is not None:
            raise T2VError("A clip to continue and a picture to begin with are given: leave one of them out.")
        if clip is not None:
            options["height"], options["width"] = clip.shape[1:3]
        request = Request.checked(model, **options)
        self.fps, self.shape = request.fps, request.shape
        reach = self.shape[2]
        if clip is not None:
            self.shape = (*self.shape[:2], len(clip) + self.shape[2], *self.shape[3:])
            # a window that continues a clip reaches back into it, and before its first frame
            reach = max(self.shape[2], model.defaults.frames)
        check_memory(self.shape, decoded=False)
        if image is not None:
            codec_of(model)
            image = fit(pictures(image, "image", 1), 8 * self.shape[4], 8 * self.shape[3], image_fit)[0]
            if self.method not in LEADS_ON and reach > model.defaults.frames:
                log.warning(
                    "By the method %s only the film's first window sees the picture, so things may change their place after "
                    "it: choose %s.", self.method, " or ".join(LEADS_ON),
                )  # fmt: skip
        text = with_negative(story, negative_prompt)
        settings = Settings(
            steps=request.steps,
            guidance_scale=request.guidance_scale,
            seed=request.seed,
            window=_window(window or usual_windows(model.defaults.frames, reach), reach, self.method),
            candidates=candidates,
        )
        if fps_condition is not None:
            fps_condition = real_number(fps_condition, "fps_condition")
        own_rate = model.defaults.fps_condition if model.family.image else request.fps_condition
        rate = fps_condition or own_rate or request.fps
        parsed = parse_story(text, self.shape[2], self.fps)
        warn_of_unused(parsed.negatives, model, settings.guidance_scale)
        about = {
            "story": text,
            "method": self.method,
            "shape": self.shape,
            "settings": settings,
            "fps": (self.fps, rate),
        }
        store = Store(resume, {} if resume is None else {**about, **_digests(model, clip=clip, image=image)})
        self.job = FilmJob(model, parsed, self.shape, rate, settings, store, clip, image, progress, preview)

    @torch.no_grad()
    def latents(self) -> Iterator[Tensor]:
        """Yield finished parts in order, (1, 4, n, h/8, w/8)."""
        self.job.store.begin()
        yield from MAKE[self.method](self.job)

    def frames(self) -> Iterator[Tensor]:
        """Yield the frames in order as soon as they are finished, (n, h, w, 3), 0..1.

        With a folder to resume from, call `finish` once the frames are safe.
        """
        codec, parts = codec_of(self.job.model), self.latents()
        if self.job.clip is not None:
            next(parts)
            yield self.job.clip
        for part in parts:
            yield from codec.decode(part[0])

    def finish(self) -> None:
        """Remove the stored parts; call it when the frames are safe elsewhere."""
        self.job.store.clear()


def _usual_method(model: FilmModel, *, clip: bool, image: bool) -> str:
    """The method of a film that begins with a clip, or a picture, or neither."""
    if clip:
        return "endless"
    if model.family.image:
        return CLIP_AFTER_CLIP
    return "coarse-to-fine" if image else "windows"


def _check_method(method: str, clip: Tensor | None, candidates: int, family: Family) -> None:
    """T2VError for a method that does not exist, or that does not do what is asked for."""
    if method not in METHODS and (method != CLIP_AFTER_CLIP or not family.image):
        why = f"is for models of pictures, and {family.title} is none" if method == CLIP_AFTER_CLIP else "is not known"
        raise T2VError(f"Method {method!r} {why}: choose one of {', '.join(METHODS)}.")
    if (
        clip is not None
        and not family.image
        and (method != "endless" or clip.ndim != 4 or clip.shape[-1] != 3 or not len(clip))
    ):
        raise T2VError(
            f"A clip of shape {tuple(clip.shape)} is given to go on from, by the method {method!r}: frames of shape "
            "(t, h, w, 3) and the method 'endless' are wanted."
        )
    if candidates < 1:
        raise T2VError(f"{candidates} candidates for the key frames are asked for: at least 1 is wanted, 4 is usual.")


def _window(window: Windows, frames: int, method: str) -> Windows:
    """The windows over that many frames; T2VError where they do not cover them, or the method makes no loop."""
    windows(frames, window.length, window.overlap)
    if window.looped and method not in LOOPS:
        raise T2VError(f"The windows are looped, but {method} makes no loop: choose {' or '.join(LOOPS)}.")
    return window.over(frames)


def _digests(model: FilmModel, **given: Tensor | None) -> dict[str, Any]:
    """What tells the film of one model, clip and picture from that of another, to resume only the film that was stopped."""
    digests = {"model": model.identity()}
    for name, frames in given.items():
        if frames is not None:
            digests[name] = hashlib.sha256(frames.cpu().contiguous().numpy().tobytes()).hexdigest()
    return digests
