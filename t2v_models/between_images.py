"""One video through several pictures, pair by pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .arguments import Progress
from .errors import T2VError

if TYPE_CHECKING:
    from .pipeline import Pipeline


def between_images(
    pipeline: Pipeline,
    prompt: str,
    images: Sequence[Tensor],
    negative_prompt: str = "",
    *,
    progress: Progress | None = None,
    **options: Any,
) -> Iterator[Tensor]:
    """Yield the frames of a video that goes from picture to picture, each pair's as soon as they are finished.

    A picture between two pairs is one frame, the last of the first pair. So n pictures give (n - 1) (frames - 1) + 1 frames.

    Args:
        pipeline: a model that takes two pictures: one of interpolation, or any that holds them.
        prompt: what happens, the same in all pairs.
        images: two or more, as `Pipeline.__call__` takes one.
        negative_prompt: what no frame may show.
        progress: called with (done, total) of all pairs; it may raise to cancel.
        options: of each pair's clip, see `Pipeline.__call__`.

    Yields:
        (t, h, w, 3), 0..1.

    Raises:
        T2VError: for fewer than two pictures, and for what the model cannot do with two.
    """
    if len(images) < 2:
        raise T2VError(f"{len(images)} pictures are given to go between: at least two are wanted.")
    pairs = list(pairwise(images))
    for i, (first, last) in enumerate(pairs):
        show = None if progress is None else _later(progress, i, len(pairs))
        video = pipeline(prompt, negative_prompt, image=first, end_image=last, progress=show, **options)
        yield video.frames[0] if i == 0 else video.frames[0, 1:]


def _later(progress: Progress, done: int, parts: int) -> Progress:
    """The progress of one part, as that of all parts."""

    def report(step: int, steps: int) -> None:
        progress(done * steps + step, parts * steps)

    return report
