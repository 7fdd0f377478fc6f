"""Buckets of size and length, and batches that never mix them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from ..errors import T2VError

if TYPE_CHECKING:
    from .frames import Example

LENGTHS = (1, 8, 16, 24)
"""Frames of the buckets of length."""


@lru_cache(4096)
def size_bucket(width: int, height: int, area: int, multiple: int = 64) -> tuple[int, int]:
    """Return the (width, height) of multiples, of at most `area` pixels, that suits a picture best.

    It has the least of |log(its shape / the picture's)|, which is what is cut off, plus half of log(area / its area), which
    is what is not used: two sides that are each 10 % short count as much as one that is 10 % cut.

    Raises:
        T2VError: where not even one multiple a side fits the area.
    """
    if min(width, height, multiple) < 1 or area < multiple * multiple:
        raise T2VError(f"No size of multiples of {multiple} pixels fits {area} pixels: raise the area.")
    most = area // (multiple * multiple)

    def loss(across: int, up: int) -> float:
        return abs(math.log(across * height / (up * width))) + math.log(most / (across * up)) / 2

    sizes = [
        (across, up)
        for across in range(1, most + 1)
        for up in {max(1, min(most // across, across * height // width + more)) for more in (0, 1)}
    ]
    across, up = min(sizes, key=lambda size: loss(*size))
    return across * multiple, up * multiple


def length_bucket(frames: int, lengths: Sequence[int] = LENGTHS) -> int:
    """Return the longest of the lengths that so many frames fill; 0 where they fill none."""
    return max((length for length in lengths if length <= frames), default=0)


def batches(examples: Iterable[Example], size: int) -> Iterator[list[Example]]:
    """Gather examples whose frames have one shape; the last batch of each shape may be smaller."""
    waiting: dict[tuple[int, ...], list[Example]] = {}
    for example in examples:
        batch = waiting.setdefault(example.frames.shape, [])
        batch.append(example)
        if len(batch) == size:
            yield waiting.pop(example.frames.shape)
    yield from waiting.values()
