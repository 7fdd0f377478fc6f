"""Long videos: a story of any length, frames handed out as they are finished.

Four methods, which trade memory, time and how far frames look: see `METHODS`. The mathematics is in `sampling`; here it
meets a pipeline, a story and a folder in which unfinished work is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .errors import T2VError
from .film_denoiser import Denoiser
from .film_methods import MAKE
from .keep import keep, keep_text
from .pipeline import Pipeline, Progress, checked_rate, checked_scale, checked_steps, warn_of_unused
from .sampling.story import Story, parse_story, with_negative
from .sampling.windows import Windows, windows

log = logging.getLogger(__name__)

METHODS = {
    "windows": "overlapping windows, averaged at every step; each frame sees its neighbours",
    "free-noise": "one pass over all frames with windowed temporal attention and repeated noise; short films",
    "coarse-to-fine": "sparse key frames first, then what lies between; little memory at any length",
    "endless": "a queue of frames, each one noise level behind the next; constant memory, any length",
}

LOOPS = ("windows", "coarse-to-fine")
"""The methods that can lead the end of a film to its beginning."""

NOTE = "film.txt"
"""In a film's folder: which one it is."""


@dataclass(frozen=True)
class Settings:
    """How a film is made."""

    steps: int
    guidance_scale: float
    seed: int
    window: Windows
    batch: int = 8
    """Windows or segments that are denoised together; as many of them go through the UNet at once as fit."""
    resample: int = 2
    """Rounds per step in which known and new frames come to agree, for models without noise levels per frame."""
    sketches: int = 4
    """Clips of key frames of which "coarse-to-fine" takes the steadiest."""


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
        story = self.story.at_pace(pace, self.pipeline.family.pace or ())
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


def usual_windows(own: int, frames: int, *, looped: bool = False) -> Windows:
    """Windows of the model's own length, or the film's if that is less, each half into the next."""
    length = min(own, frames)
    return Windows(length, length // 2, looped=looped)


def _checked(window: Windows, frames: int) -> Windows:
    """The windows over that many frames."""
    windows(frames, window.length, window.overlap)  # refuses what cannot cover the film
    return window.over(frames)


class Store:
    """A folder of finished tensors, so that a stopped film can go on; without a folder it keeps nothing."""

    def __init__(self, folder: Path | None, about: dict[str, Any]) -> None:
        self.folder, self.text = folder, repr(sorted(about.items()))
        if folder is None:
            return
        note = folder / NOTE
        if note.exists() and note.read_text(encoding="utf-8") != self.text:
            raise T2VError(
                f"{folder} holds an unfinished film of other settings: finish that one with its own, remove the folder, or "
                "choose another."
            )
        if not note.exists() and any(folder.glob("*.safetensors")):
            raise T2VError(f"{folder} holds .safetensors files and no unfinished film: choose a new or empty folder.")

    def begin(self) -> None:
        """Make the folder, and note whose film it holds."""
        if self.folder is not None and not (self.folder / NOTE).exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            keep_text(self.folder / NOTE, self.text)

    def get(self, name: str) -> dict[str, Tensor] | None:
        """What was kept under that name."""
        path = None if self.folder is None else self.folder / f"{name}.safetensors"
        if path is None or not path.exists():
            return None
        try:
            return {key: value.clone() for key, value in load_file(path).items()}  # no view: the file may be replaced
        except SafetensorError as error:
            log.warning("%s cannot be read (%s): that part is made again.", path, error)
            return None

    def put(self, name: str, **tensors: Tensor) -> None:
        """Keep tensors; a stop at any moment leaves the old ones or the new ones."""
        if self.folder is not None:
            keep(self.folder / f"{name}.safetensors", tensors)

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """What was kept under that name, or made now and kept."""
        kept = self.get(name)
        if kept is not None:
            return kept["latents"]
        latents = make()
        self.put(name, latents=latents)
        return latents

    def clear(self) -> None:
        """The film is whole: remove what was kept."""
        if self.folder is not None:
            for path in self.folder.glob("*.safetensors"):
                path.unlink()
            (self.folder / NOTE).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # where something else lies in it
                self.folder.rmdir()
