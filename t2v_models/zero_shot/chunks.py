"""Chunks of a long video: the frames that are denoised together, with the first frame, the anchor, in each of them."""

from __future__ import annotations

from ..errors import T2VError


def chunks(frames: int, size: int) -> list[list[int]]:
    """Return the numbers of the frames that go through the model together: the first frame and up to size - 1 others each.

    Every frame but the first is in one chunk. Source: Text2Video-Zero (arXiv:2303.13439), whose long videos are made so.

    Args:
        frames: of the video.
        size: frames in a chunk; 0 for all in one.

    Raises:
        T2VError: for a chunk of 1, which has no room for another frame.
    """
    if size == 1:
        raise T2VError(
            "A chunk of 1 holds the first frame alone: set chunk to 2 or more, or to 0 for all frames at once."
        )
    if size == 0 or frames <= size:
        return [list(range(frames))]
    new = size - 1
    return [[0, *range(start, min(start + new, frames))] for start in range(1, frames, new)]
