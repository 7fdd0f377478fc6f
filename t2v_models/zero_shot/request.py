"""What a caller asks of a zero-shot video, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ..arguments import LARGEST, MOST_FRAMES, checked_scale, checked_seed, checked_steps, real_number, whole_number
from ..errors import T2VError
from ..sampling.scenes import Story
from ..texts import checked_text
from .anchors import ANCHORS
from .chunks import chunks
from .controls import Control
from .motion import HOW, Motion

CHUNK = 8
"""Frames that are denoised at a time, with the first frame among them, where nothing else is asked for."""


@dataclass(frozen=True)
class Defaults:
    """What stands for values that are not given; those of the paper, but for models that say otherwise."""

    frames: int = 8
    steps: int = 50
    guidance_scale: float = 7.5
    fps: float = 4.0
    t0: float = 0.88
    t1: float = 0.94
    motion: Motion = field(default_factory=Motion)
    scheduler: str = "ddim"


@dataclass(frozen=True)
class Request:
    """A zero-shot video, with nothing left open; see `ZeroShotPipeline.__call__`."""

    prompts: tuple[str, ...]
    """One, or one a frame; empty where there is a story."""
    story: Story | None
    negative: str
    frames: int
    width: int
    height: int
    steps: int
    guidance_scale: float
    seed: int
    scheduler: str
    motion: Motion
    t0: float
    t1: float
    how: str
    anchor: str
    chunk: int
    controls: tuple[Control, ...]
    masks: Tensor | None
    alpha: float
    smooth_steps: tuple[int, ...]

    @property
    def guided(self) -> bool:
        """Whether the model predicts for the negative prompt, too."""
        return self.guidance_scale != 1

    def chunks(self) -> list[list[int]]:
        """The numbers of the frames that are denoised together; the first frame is in all of them, as the anchor."""
        return chunks(self.frames, self.chunk)


def checked_request(
    defaults: Defaults,
    size: tuple[int, int],
    multiple: int,
    prompt: str | Sequence[str] | Story,
    negative_prompt: str = "",
    *,
    frames: int | None = None,
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    seed: int = 0,
    scheduler: str | None = None,
    motion: Motion | None = None,
    t0: float | None = None,
    t1: float | None = None,
    how: str = "nearest",
    anchor: str = "first",
    chunk: int | None = None,
    controls: Sequence[Control] = (),
    masks: Tensor | None = None,
    alpha: float = 0.4,
    smooth_steps: Sequence[int] = (),
) -> Request:
    """Check the values of a call and fill in the defaults.

    Args:
        defaults: of the model.
        size: (width, height) of the model.
        multiple: of which width and height must be one.
        others: see `ZeroShotPipeline.__call__`.

    Raises:
        T2VError: for values that no video can be made with.
    """
    frames = _frames(frames, prompt, defaults, controls)
    if how not in HOW:
        raise T2VError(f"The way to warp is {how!r}: choose one of {', '.join(HOW)}.")
    if anchor not in ANCHORS:
        raise T2VError(f"The anchor is {anchor!r}: choose one of {', '.join(ANCHORS)}.")
    if controls and motion is not None:
        raise T2VError(
            "A motion and a control are given: the control's pictures lead the motion, so leave one of them out."
        )
    if masks is not None and (masks.ndim != 3 or len(masks) not in (1, frames)):
        raise T2VError(
            f"The masks have shape {tuple(masks.shape)}: (n, h, w) is wanted, where n is 1 or {frames}, the frames."
        )
    if chunk is None:
        chunk = CHUNK if anchor == "first" and not smooth_steps else 0
    chunk = whole_number(chunk, "chunk")
    if chunk < 0 or chunk == 1:
        raise T2VError(
            f"chunk is {chunk}: 0 is wanted for all frames at once, or at least 2, of which one is the first."
        )
    return Request(
        *_texts(prompt, frames),
        checked_text(negative_prompt or "", "The negative prompt"),
        frames,
        _side(width, size[0], multiple, "width"),
        _side(height, size[1], multiple, "height"),
        checked_steps(defaults.steps if steps is None else steps),
        checked_scale(defaults.guidance_scale if guidance_scale is None else guidance_scale),
        checked_seed(seed),
        scheduler or defaults.scheduler,
        motion or defaults.motion,
        real_number(defaults.t0 if t0 is None else t0, "t0"),
        real_number(defaults.t1 if t1 is None else t1, "t1"),
        how,
        anchor,
        chunk or frames,
        tuple(control.fitted(frames) for control in controls),
        masks,
        real_number(alpha, "alpha"),
        tuple(whole_number(step, "smooth_steps") for step in smooth_steps),
    )


def _frames(
    frames: int | None, prompt: str | Sequence[str] | Story, defaults: Defaults, controls: Sequence[Control]
) -> int:
    """The number of frames: the caller's, that of the prompts, of the hints, or the model's own."""
    if frames is None:
        moving = [len(control.hints) for control in controls if len(control.hints) > 1]
        if isinstance(prompt, Story):
            frames = prompt.frames
        elif isinstance(prompt, (list, tuple)):
            frames = len(prompt)
        else:
            frames = min(moving, default=defaults.frames)
    frames = whole_number(frames, "frames")
    if not 1 <= frames <= MOST_FRAMES:
        raise T2VError(f"frames is {frames}: at least 1 is wanted and at most {MOST_FRAMES}.")
    return frames


def _texts(prompt: str | Sequence[str] | Story, frames: int) -> tuple[tuple[str, ...], Story | None]:
    """The prompts and the story."""
    if isinstance(prompt, Story):
        if prompt.frames != frames:
            raise T2VError(f"The story has {prompt.frames} frames, and {frames} are asked for: leave frames out.")
        return (), prompt
    if not isinstance(prompt, (str, list, tuple)):
        raise T2VError(f"The prompt is of type {type(prompt).__name__}: a text is wanted, or a list of one a frame.")
    prompts = (prompt,) if isinstance(prompt, str) else tuple(prompt)
    if len(prompts) not in (1, frames):
        raise T2VError(f"There are {len(prompts)} prompts for {frames} frames: one is wanted, or one a frame.")
    return tuple(checked_text(each, "The prompt") for each in prompts), None


def _side(value: int | None, usual: int, multiple: int, name: str) -> int:
    value = usual if value is None else whole_number(value, name)
    if not multiple <= value <= LARGEST or value % multiple:
        nearest = max(multiple, min(round(value / multiple), LARGEST // multiple) * multiple)
        raise T2VError(f"{name} is {value}: a multiple of {multiple} is wanted, {nearest} for one.")
    return value
