"""A clip of a data set, and the count of those that cannot be used."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..foreign import quoted
from ..texts import checked_text

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".ogv")
"""Endings of files that are taken for videos, in lower case."""
_NAMED = 5
"""How many examples of a fault are named."""


@dataclass(frozen=True)
class Clip:
    """A part of a video file, with its text."""

    file: Path
    start: float = 0.0
    """Seconds from the file's beginning."""
    end: float | None = None
    """Seconds; None is the file's end."""
    caption: str = ""


class Faults:
    """Counts what of a data set is left out, by reason, and names the first of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.names: dict[str, list[str]] = {}

    def add(self, reason: str, name: object) -> None:
        """Count something that is left out."""
        self.counts[reason] += 1
        names = self.names.setdefault(reason, [])
        if len(names) < _NAMED:
            names.append(quoted(name))

    def __str__(self) -> str:
        return "\n".join(
            f"{count:,} {reason}: {', '.join(self.names[reason])}{' …' if count > _NAMED else ''}"
            for reason, count in self.counts.most_common()
        )


def is_video(path: Path) -> bool:
    """Whether a file's name is that of a video, in any case of letters."""
    return path.suffix.lower() in VIDEOS and not path.name.startswith(".")


def checked(
    root: Path, name: object, caption: object, faults: Faults, start: object = 0.0, end: object = None
) -> Clip | None:
    """Make a clip of what a stranger's row says; None where it is damaged or its file is missing, which is counted.

    Args:
        root: the folder to which relative names belong.
        name: of the video file.
        caption: the text.
        faults: where faults are counted.
        start: seconds, and
        end: seconds; None is the file's end.
    """
    if not isinstance(name, str) or not name or not isinstance(caption, str) or not caption.strip():
        faults.add("without a file's name or a text", name)
        return None
    begin, stop = seconds(start), seconds(end)
    if begin is None or (end is not None and (stop is None or stop <= begin)):
        faults.add("with an impossible span", f"{name} {quoted(start, 20)} to {quoted(end, 20)}")
        return None
    try:
        if "\0" in name:
            raise ValueError("a name with a character 0")
        text = checked_text(" ".join(caption.split()), "The caption")
        path = os.path.join(root, name)  # a Path of each missing file would fill the table of the interpreter's names
        found = os.path.isfile(path)
    except ValueError:
        faults.add("with a damaged name or text", name)
        return None
    if not found:
        faults.add("missing", path)
        return None
    return Clip(Path(path), begin, stop, text)


def seconds(value: object) -> float | None:
    """Return a number of seconds from a number, or from a text such as "1.5", "PT00H00M20S" or "0:01:20"; else None."""
    if isinstance(value, str):
        value = _seconds_of_text(value.strip())
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) and 0 <= result < 1e8 else None


def _seconds_of_text(text: str) -> float | None:
    parts = text.upper().removeprefix("PT").replace("H", ":").replace("M", ":").removesuffix("S").split(":")
    try:
        numbers = [float(part or 0) for part in parts] if text and len(text) < 40 and len(parts) <= 3 else []
    except ValueError:
        return None
    return sum(number * 60**power for power, number in enumerate(reversed(numbers))) if numbers else None


def find_video(root: Path, name: object, faults: Faults) -> str | None:
    """Return the path, relative to `root`, of the video "name.*" in it or in its folder of videos; None where it is missing."""
    if not isinstance(name, str) or not name or name != os.path.basename(name) or name in (".", ".."):
        faults.add("with a damaged name or text", name)
        return None
    for folder in ("", "videos", "video"):
        for ending in (*VIDEOS, *(ending.upper() for ending in VIDEOS)):
            place = os.path.join(folder, f"{name}{ending}")
            if os.path.isfile(os.path.join(root, place)):
                return place
    faults.add("missing", name)
    return None


def sorted_videos(folder: Path) -> Iterator[Path]:
    """Yield the videos of a folder and the folders in it, in the order of their names."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from sorted_videos(path)
        elif is_video(path):
            yield path
