"""Long videos: a story of any length, frames handed out as they are finished.

Four methods, which trade memory, time and how far frames look: see `METHODS`. The mathematics is in `sampling`; here it
meets a pipeline, a story and a folder in which unfinished work is kept.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..arguments import Progress, checked_rate, checked_scale, checked_steps, warn_of_unused
from ..errors import T2VError
from ..pipeline import Pipeline
from ..sampling.story import Story, parse_story, with_negative
from ..sampling.windows import Windows, windows
from .denoiser import Denoiser
from .methods import MAKE
from .settings import LOOPS, METHODS, Settings, usual_windows
from .store import Store

log = logging.getLogger(__name__)


class Film:
    """A story, a pipeline and a method: iterate over `frames()`.

    Args:
        pipeline: from `t2v_models.load_pipeline`.
        story: one text, or scenes as `t2v_models.sampling.story` describes.
        negative_prompt: what to keep away from all the time, besides the story's own negative lines.
        frames, width, height, fps, steps, guidance_scale: the model's defaults where None.
        method: a key of `METHODS`; "windows" where None.
        window: length, overlap, fusion and loop of the windows; `usual_windows` where None.
        seed: decides everything.
        sketches: for the method "coarse-to-fine", how often key frames are made before the steadiest are taken.
        clip: (t, h, w, 3), 0..1, frames that the film goes on from, for the method "endless" (and its default): they
            stay as they are, `frames` more follow, and the story's time begins with them.
        resume: a folder for what is finished so far; a film that was stopped goes on from there and comes out the same,
            bit for bit.
        progress: called with (done, total) units of work; it may raise to stop.
        preview: called with latents (b, 4, t, h, w) of some or all of the frames as they look so far.

    Raises:
        T2VError: for a story or sizes that no film can be made of.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        story: str,
        negative_prompt: str = "",
        *,
        frames: int | None = None,
        width: int | None = None,
        height: int | None = None,
        fps: float | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        method: str | None = None,
        window: Windows | None = None,
        seed: int = 0,
        sketches: int = Settings.sketches,
        clip: Tensor | None = None,
        resume: Path | None = None,
        progress: Progress | None = None,
        preview: Callable[[Tensor], None] | None = None,
    ) -> None:
        method = method or ("windows" if clip is None else "endless")
        if method not in METHODS:
            raise T2VError(f"Method {method!r} is not known: choose one of {', '.join(METHODS)}.")
        if clip is not None and (method != "endless" or clip.ndim != 4 or clip.shape[-1] != 3 or not len(clip)):
            raise T2VError(
                f"A clip of shape {tuple(clip.shape)} is given to go on from, by the method {method!r}: frames of shape "
                "(t, h, w, 3) and the method 'endless' are wanted."
            )
        if sketches < 1:
            raise T2VError(f"{sketches} sketches of the key frames are asked for: at least 1 is wanted, 4 is usual.")
        story = with_negative(story, negative_prompt)
        choose = pipeline.defaults
        self.pipeline, self.method, self.progress, self.preview = pipeline, method, progress, preview
        self.fps = checked_rate(fps, choose.fps)
        self.condition = (choose.fps_condition or choose.fps) if fps is None else fps
        self.clip = clip
        if clip is not None:
            height, width = clip.shape[1:3]
        self.shape = pipeline.checked_shape(1, frames, width, height)
        if clip is not None:
            self.shape = (*self.shape[:2], len(clip) + self.shape[2], *self.shape[3:])
        self.story: Story = parse_story(story, self.shape[2], self.fps)
        # a window that goes on from a clip reaches back into it, and before its first frame
        reach = self.shape[2] if clip is None else max(self.shape[2], choose.frames)
        self.settings = Settings(
            steps=checked_steps(choose.steps if steps is None else steps),
            guidance_scale=checked_scale(choose.guidance_scale if guidance_scale is None else guidance_scale),
            seed=seed,
            window=_checked(window or usual_windows(choose.frames, reach), reach),
            sketches=sketches,
        )
        warn_of_unused(self.story.negatives, pipeline, self.settings.guidance_scale)
        if self.settings.window.looped and method not in LOOPS:
            raise T2VError(f"The windows are looped, but {method} makes no loop: choose {' or '.join(LOOPS)}.")
        about = {"story": story, "method": method, "shape": self.shape, "settings": self.settings}
        about |= {"fps": (self.fps, self.condition), "model": pipeline.identity() if resume is not None else ""}
        if clip is not None and resume is not None:
            about["clip"] = hashlib.sha256(clip.cpu().contiguous().numpy()).hexdigest()
        self.store = Store(resume, about)

    @torch.no_grad()
    def latents(self) -> Iterator[Tensor]:
        """(1, 4, n, h/8, w/8) finished parts, in order."""
        self.store.begin()
        yield from MAKE[self.method](self)

    def frames(self) -> Iterator[Tensor]:
        """(n, h, w, 3), 0..1, the frames in order as soon as they are finished.

        Where they are kept to resume, call `finish` once the frames are safe.
        """
        parts = self.latents()
        if self.clip is not None:
            next(parts)
            yield self.clip
        for part in parts:
            yield from self.pipeline.decode(part[0])

    def finish(self) -> None:
        """The frames are where they shall be: remove what was kept to resume."""
        self.store.clear()

    def denoiser(self, pace: str = "", stride: int = 1, *, guided: bool = True) -> Denoiser:
        """The model with this story in its ear.

        pace: a word for how fast things move, put before each scene that has none.
        stride: frames of the film from one frame that the model sees to the next, for models that know frame rates.
        guided: at the film's guidance scale, or at 1.
        """
        story = self.story.at_pace(pace, self.pipeline.family.speed_words or ())
        told = (story.told(self.pipeline.encode_text, negative=negative) for negative in (False, True))
        settings = self.settings if guided else replace(self.settings, guidance_scale=1.0)
        return Denoiser(self.pipeline, *told, settings, self.condition / stride)

    def tick(self, done: int, total: int) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(done, total)

    def show(self, look: Callable[[], Tensor]) -> None:
        """Hand out latents as they look so far, if anyone looks."""
        if self.preview is not None:
            self.preview(look())

    def noise(self, *key: int) -> torch.Generator:
        """The generator of one part's noise: the same whatever was made before it."""
        generator = torch.Generator()
        value = self.settings.seed
        for number in key:
            value = (value * 1_000_003 + number + 1) % (2**63 - 1)
        return generator.manual_seed(value)


def _checked(window: Windows, frames: int) -> Windows:
    """The windows over that many frames."""
    windows(frames, window.length, window.overlap)  # refuses what cannot cover the film
    return window.over(frames)
