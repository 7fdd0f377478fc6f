"""What a data set holds: counts, lengths, sizes, captions, and a sheet of its pictures."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..errors import T2VError
from ..video import VideoReader
from .clips import Clip, Faults
from .forms import clips, form_of
from .frames import read_frames

PICTURES = 4
"""Pictures of each clip on the sheet."""
_SIDE, _LINE, _GAP = 128, 24, 4
"""Pixels of a picture's longer side, of a line of text with the space around it, and between pictures."""


@dataclass
class Contents:
    """What `inspect` found."""

    form: str
    clips: int = 0
    measured: int = 0
    """Of how many clips the files were opened."""
    seconds: list[float] = field(default_factory=list)
    """The length of each clip that was measured."""
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(width, height) of those files; rates likewise."""
    rates: Counter[float] = field(default_factory=Counter)
    words: int = 0
    """Words of all captions together."""
    captions: list[str] = field(default_factory=list)
    """The first ones."""
    faults: Faults = field(default_factory=Faults)
    shown: list[Clip] = field(default_factory=list)
    """Clips for a sheet."""

    def __str__(self) -> str:
        lines = [f"form      {self.form}", f"clips     {self.clips:,}"]
        if self.seconds:
            ordered = sorted(self.seconds)
            middle = ordered[len(ordered) // 2]
            lines.append(
                f"seconds   {ordered[0]:.3g} to {ordered[-1]:.3g}, half below {middle:.3g} (of {self.measured:,} clips)"
            )
            lines.append("sizes     " + _listed({f"{w}x{h}": n for (w, h), n in self.sizes.most_common(6)}))
            lines.append("fps       " + _listed({f"{rate:.5g}": n for rate, n in self.rates.most_common(6)}))
        if self.clips:
            lines.append(f"captions  {self.words / self.clips:.3g} words on average, such as:")
            lines += [f"          {caption}" for caption in self.captions]
        if self.faults.counts:
            lines += ["left out:", *(f"  {line}" for line in str(self.faults).splitlines())]
        return "\n".join(lines)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items())


def inspect(
    path: str | os.PathLike[str], *, caption: str | None = None, measure: int = 200, shown: int = 8
) -> Contents:
    """Read all rows of a data set, and open the files of its first clips.

    Args:
        path: any form that `clips` reads.
        caption: of clips without one.
        measure: how many clips are opened for their lengths and sizes.
        shown: how many clips are kept for a sheet, and captions for the report.

    Raises:
        T2VError: where the form is not known, or the file is damaged as a whole.
    """
    contents = Contents(form_of(path))
    for clip in clips(path, contents.faults, caption=caption):
        contents.words += len(clip.caption.split())
        if len(contents.captions) < shown:
            contents.captions.append(clip.caption[:100])
        if contents.clips < measure:
            _measure(clip, contents, shown)
        contents.clips += 1
    return contents


def _measure(clip: Clip, contents: Contents, shown: int) -> None:
    try:
        reader = VideoReader(clip.file)
        rate, lasts = float(reader.info.fps), len(reader) / float(reader.info.fps)
    except (T2VError, OSError) as error:
        contents.faults.add("damaged", f"{clip.file}: {error}")
        return
    end = lasts if clip.end is None else min(clip.end, lasts)
    if end <= clip.start:
        contents.faults.add(
            "with an impossible span", f"{clip.file} lasts {lasts:.3g} s, the clip begins at {clip.start:.3g}"
        )
        return
    contents.measured += 1
    contents.seconds.append(end - clip.start)
    contents.sizes[reader.size] += 1
    contents.rates[rate] += 1
    if len(contents.shown) < shown:
        contents.shown.append(replace(clip, end=end))


def write_sheet(contents: Contents, path: Path) -> None:
    """Write a picture with `PICTURES` frames of each clip that is shown, evenly over its length, and its caption.

    Raises:
        T2VError: where the data set has no clip to show.
    """
    import torch

    from ..plots.canvas import Canvas

    rows: list[tuple[Clip, np.ndarray]] = []
    for clip in contents.shown:
        try:
            rows.append((clip, _pictures(clip)))
        except (T2VError, OSError) as error:
            contents.faults.add("damaged", f"{clip.file}: {error}")
    if not rows:
        raise T2VError("The data set has no clip that can be read: there is nothing to show.")
    canvas = Canvas(PICTURES * (_SIDE + _GAP) + _GAP, sum(len(pictures[0]) + _LINE for _, pictures in rows) + _GAP)
    top = _GAP
    for clip, pictures in rows:
        for k, picture in enumerate(pictures):
            canvas.paste(torch.from_numpy(picture) / 255, (_GAP + k * (_SIDE + _GAP), top))
        top += len(pictures[0])
        canvas.text((_GAP, top + 2), f"{(clip.end or 0) - clip.start:.3g} s  {clip.caption}"[:90])
        top += _LINE
    canvas.save(path)


def _pictures(clip: Clip) -> np.ndarray:
    """Return small frames of a clip with an end, (n, h, w, 3) uint8, evenly over its length."""
    lasts = (clip.end or 0) - clip.start
    width, height = VideoReader(clip.file).size
    scale = _SIDE / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return read_frames(clip, PICTURES / lasts, PICTURES, size)[0]
