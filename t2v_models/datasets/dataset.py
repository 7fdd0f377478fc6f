"""A data set of any form as a stream of frames with their captions."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import T2VError
from ..video import VideoReader
from .batches import LENGTHS, length_bucket, size_bucket
from .clips import Clip, Faults
from .forms import clips
from .frames import Example, read_frames

CUTS = ("first", "all", "random")
"""What is taken of a clip that is longer than wanted: its beginning, all parts one after the other, or one at random."""


class Dataset:
    """Iterate over a data set's examples; each pass begins anew, and nothing but the present clip is in memory.

    Args:
        path: any form that `clips` reads.
        caption: the text of a single file, and of files without one.
        fps: frames a second, by time; each file's own where None.
        frames: the most frames of an example.
        lengths: frames of the buckets of length; an example is cut to one of them.
        area: the most pixels of a frame; None keeps each file's size.
        multiple: width and height are multiples of it.
        cut: one of `CUTS`.
        seed: of the random parts; each pass has others.

    Attributes: faults (`Faults`), what the last pass left out.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        caption: str | None = None,
        fps: float | None = None,
        frames: int = 16,
        lengths: Sequence[int] = LENGTHS,
        area: int | None = None,
        multiple: int = 64,
        cut: str = "first",
        seed: int = 0,
    ) -> None:
        if cut not in CUTS:
            raise T2VError(f"cut is {cut!r}: choose one of {', '.join(CUTS)}.")
        if frames < 1 or not lengths or min(lengths) < 1:
            raise T2VError(f"frames is {frames} and lengths {tuple(lengths)}: whole numbers from 1 on are wanted.")
        self.path, self.caption, self.fps, self.cut = Path(path), caption, fps, cut
        self.frames, self.lengths, self.area, self.multiple = frames, tuple(lengths), area, multiple
        self.faults = Faults()
        self._random = random.Random(seed)

    def __iter__(self) -> Iterator[Example]:
        self.faults = Faults()
        for clip in clips(self.path, self.faults, caption=self.caption):
            try:
                yield from self._examples(clip)
            except (T2VError, OSError) as error:
                self.faults.add("damaged", f"{clip.file}: {error}")

    def _examples(self, clip: Clip) -> Iterator[Example]:
        reader = VideoReader(clip.file)
        size = None if self.area is None else size_bucket(*reader.size, self.area, self.multiple)
        lasts = len(reader) / float(reader.info.fps)
        end = lasts if clip.end is None else min(clip.end, lasts)
        for start in self._starts(clip.start, end, self.fps or float(reader.info.fps)):
            part = replace(clip, start=start, end=end)
            frames, fps = read_frames(part, self.fps, self.frames, size)
            length = length_bucket(len(frames), self.lengths)
            if length:
                yield Example(frames[:length], clip.caption, fps, f"{clip.file} at {part.start:g} s")
            else:
                self.faults.add("too short", f"{clip.file} ({len(frames)} frames)")

    def _starts(self, start: float, end: float, fps: float) -> Iterator[float]:
        """Yield the seconds at which examples begin, each `frames` long; a last shorter part is left out."""
        window = self.frames / fps
        spare = end - start - window
        if self.cut == "first" or spare <= 0:
            yield start
        elif self.cut == "random":
            yield start + self._random.random() * spare
        else:
            for k in range(int(spare / window + 1e-6) + 1):
                yield start + k * window
