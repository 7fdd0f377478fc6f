"""What a path is: a video file or a folder of pictures, and how an engine opens it."""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ..atomic_output import checked_path
from ..errors import T2VError
from .engine import CONTAINERS, Input, file_url
from .engines import engine
from .frame_rate import stored_rate
from .metadata import PRIVATE, read_embedded
from .truncation import count_gif_pictures, whole_size

log = logging.getLogger(__name__)

PICTURES = {".png": ".png", ".jpg": ".jpg", ".jpeg": ".jpg", ".webp": ".webp"}
"""Endings of the pictures of a folder, and the one ending of every kind."""

_PATTERN = re.compile(r"[%*?\[\]{}]")
"""Characters for which ffmpeg would take the name of a picture for a pattern of many names."""

_READ_ON = (b"\x89PNG", b"GIF8", b"RIFF", b"\x1aE\xdf\xa3", b"FLV", b"OggS")
"""Beginnings of files at whose end ffmpeg does not stop: it takes the bytes behind them for more of the file."""


@dataclass(frozen=True)
class Source:
    """A file, or a folder of numbered pictures, and how an engine opens it."""

    path: Path
    input: Input
    first: Path
    """The file that holds the metadata: the first frame of a folder."""
    count: int | None = None
    """Frames of a folder or a GIF, for which ffmpeg need not be asked; None for any other file."""
    pictures: bool = False
    """A folder, or a file of pictures without sound: a GIF, WebP, PNG or JPEG."""


def open_source(path: str | os.PathLike[str], *, strict: bool = True) -> Source:
    """Find out what a path is: a video file or a folder of numbered pictures.

    strict: refuse a file that is cut off.

    Raises:
        FileNotFoundError, PermissionError: with one sentence.
        T2VError: where the path is no video, is cut off, or the ffmpeg in use cannot read its format.
    """
    path = checked_path(path)
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            return _folder(path)
        if not stat.S_ISREG(mode):  # a pipe would never end
            raise T2VError(f"{path.name} is no plain file but a pipe or a device: give a video file.")
        with open(path, "rb") as file:
            head = file.read(64)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(error.errno, "There is no such video file", str(path)) from error
    except PermissionError as error:
        raise PermissionError(error.errno, "There is no permission to read this video file", str(path)) from error
    except OSError as error:
        raise T2VError(f"{path.name[:200]} cannot be read: {error.strerror}. Copy it to another place.") from error
    if not head:
        raise T2VError(f"{path.name} is empty (0 bytes): it is no video.")
    if is_animated_webp(head) and not engine().reads_animated_webp():
        raise T2VError(f"This ffmpeg cannot read animated WebP ({path.name}): {engine().upgrade}.")
    pictures = head.startswith((b"GIF8", b"\x89PNG", b"\xff\xd8\xff")) or head[8:12] == b"WEBP"
    return Source(path, _file_input(path, head, strict=strict), path, count_gif_pictures(path), pictures)


def is_animated_webp(head: bytes) -> bool:
    """Whether a file that begins so is an animated WebP."""
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20:21]) and bool(head[20] & 2)


def _file_input(path: Path, head: bytes, *, strict: bool) -> Input:
    """Return how this file alone is opened, without the bytes behind its end."""
    try:
        end = whole_size(path)
    except T2VError:
        if strict:
            raise
        end = None
    url = file_url(path)
    if end is not None and end < path.stat().st_size and head.startswith(_READ_ON):
        url = f"subfile,,start,0,end,{end},,:{url}"
    webp = is_animated_webp(head)
    if not _PATTERN.search(url):
        return Input(path, url, animated_webp=webp)
    demuxer = None
    if head.startswith(b"\x89PNG"):
        demuxer = "apng" if b"acTL" in head else "png_pipe"
    elif head.startswith(b"\xff\xd8\xff"):
        demuxer = "jpeg_pipe"
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        demuxer = "webp_anim" if webp else "webp_pipe"
    # image2 takes a file's name for a pattern of many names
    return Input(path, url, tuple(name for name in CONTAINERS if name != "image2"), demuxer, animated_webp=webp)


def _folder(path: Path) -> Source:
    """Find the numbered pictures of a folder, in the order of the last number in their names."""
    names = _pictures(path)
    order = sorted((int(number), name) for name in names if (number := _last_number(name)) is not None)
    if not order:
        raise T2VError(
            f"{path} is a folder without numbered PNG, JPEG or WebP pictures: name them 00000.png, 00001.png, …"
        )
    if len(order) < len(names):
        log.warning("%s: %d pictures without a number are left out.", path, len(names) - len(order))
    _report_gaps(path, order)
    names = [name for _, name in order]
    texts = read_embedded(path / names[0])
    rate = str(stored_rate(texts.get(PRIVATE + "frame_rate")) or Fraction(24))

    def numbered(url: str, first: int) -> Input:
        return Input(path, url, CONTAINERS, "image2", (("framerate", rate), ("start_number", str(first))))

    if pattern := _pattern(order):
        place = str(path.absolute()).replace("%", "%%")
        input = numbered(f"file:{place}/{pattern}", order[0][0])
        return Source(path, input, path / names[0], len(names), pictures=True)
    linked = tempfile.mkdtemp(prefix="t2v-frames-")
    ending = PICTURES[Path(names[0]).suffix.lower()]
    input = numbered(file_url(linked).replace("%", "%%") + "/%08d" + ending, 0)
    source = Source(path, input, path / names[0], len(names), pictures=True)
    weakref.finalize(source, shutil.rmtree, linked, ignore_errors=True)
    for index, name in enumerate(names):
        _link(path / name, Path(linked) / f"{index:08d}{ending}")
    return source


def _pictures(path: Path) -> list[str]:
    """List the pictures of a folder, hidden ones left out; of several kinds only the one with most pictures."""
    with os.scandir(path) as entries:
        found = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file()]
    kinds = {name: PICTURES[ending] for name in found if (ending := Path(name).suffix.lower()) in PICTURES}
    if not kinds:
        return []
    kind, count = max(Counter(kinds.values()).items(), key=lambda item: (item[1], item[0] == ".png"))
    if count < len(kinds):
        log.warning("%s holds pictures of several kinds: only the %d %s files are read.", path, count, kind)
    return [name for name, ending in kinds.items() if ending == kind]


def holds_pictures(names: Iterable[str]) -> bool:
    """Whether a folder with files of these names is a clip: one is a picture with a number that is not hidden."""
    return any(
        Path(name).suffix.lower() in PICTURES and not name.startswith(".") and _last_number(name) is not None
        for name in names
    )


def _last_number(name: str) -> str | None:
    """Return the digits of the last number in the name of a picture; None where there is none."""
    found = re.search(r"([0-9]{1,40})[^0-9]*$", Path(name).stem)
    return found[1] if found else None


def _pattern(order: list[tuple[int, str]]) -> str | None:
    """Return ffmpeg's pattern of the names, such as "shot_%05d_.png"; None where no pattern gives them all."""
    first, name = order[0]
    digits = _last_number(name) or ""
    at = name.rindex(digits, 0, len(Path(name).stem))
    head, tail, width = name[:at], name[at + len(digits) :], len(digits)
    regular = all(name == f"{head}{first + i:0{width}d}{tail}" for i, (_, name) in enumerate(order))
    if not regular or order[-1][0] >= 1 << 31:
        return None
    return f"{head.replace('%', '%%')}%0{width}d{tail.replace('%', '%%')}"


def _report_gaps(path: Path, order: list[tuple[int, str]]) -> None:
    """Log the numbers that are missing between the pictures, and those that several pictures have."""
    (first, name), (last, _) = order[0], order[-1]
    numbers = dict.fromkeys(number for number, _ in order)
    if len(numbers) < len(order):
        log.warning("%s: several pictures have one number; they are read in the order of their names.", path)
    missing = last - first + 1 - len(numbers)
    if missing:
        number = next(a + 1 for a, b in zip(numbers, list(numbers)[1:], strict=False) if b > a + 1)
        digits = _last_number(name) or ""
        at = name.rindex(digits, 0, len(Path(name).stem))
        example = f"{name[:at]}{number:0{len(digits)}d}{name[at + len(digits) :]}"
        log.warning("%s lacks %d of its numbers (%s first): the pictures beside the gap follow one another.", path,
                    missing, example)  # fmt: skip


def _link(path: Path, place: Path) -> None:
    """Give a picture a second name, by a link where the system allows it, else by a copy."""
    for give in (os.symlink, os.link):
        try:
            give(path, place)
            return
        except OSError:  # Windows without the right to make links; another disk
            continue
    shutil.copyfile(path, place)
