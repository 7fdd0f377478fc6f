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
from ..foreign import quoted
from .engine import CONTAINERS, Input, file_url
from .engines import engine
from .frame_rate import stored_rate
from .metadata import PRIVATE, read_embedded
from .numbered_pictures import has_number, ordered, pattern, report_gaps
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

    strict: refuse a file that is cut off, and a folder with an empty picture.

    Raises:
        FileNotFoundError, PermissionError: with one sentence.
        T2VError: where the path is no video, is cut off, or the ffmpeg in use cannot read its format.
    """
    path = checked_path(path)
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            return _folder(path, strict=strict)
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


def _folder(path: Path, *, strict: bool) -> Source:
    """Find the numbered pictures of a folder, in the order of their numbers."""
    names, ending = _pictures(path, strict=strict)
    order = ordered(names)
    if not order:
        raise T2VError(
            f"{path} is a folder without numbered PNG, JPEG or WebP pictures: name them 00000.png, 00001.png, …"
        )
    if len(order) < len(names):
        log.warning("%s: %d pictures without a number are left out.", path, len(names) - len(order))
    report_gaps(path, order)
    names = [each.name for each in order]
    texts = read_embedded(path / names[0])
    rate = str(stored_rate(texts.get(PRIVATE + "frame_rate")) or Fraction(24))

    def numbered(url: str, first: int) -> Input:
        return Input(path, url, CONTAINERS, "image2", (("framerate", rate), ("start_number", str(first))))

    named = pattern(order) if PICTURES[Path(names[0]).suffix.lower()] == ending else None
    if named:
        place = str(path.absolute()).replace("%", "%%")
        input = numbered(f"file:{place}/{named}", order[0].number)
        return Source(path, input, path / names[0], len(names), pictures=True)
    linked = tempfile.mkdtemp(prefix="t2v-frames-")
    input = numbered(file_url(linked).replace("%", "%%") + "/%08d" + ending, 0)
    source = Source(path, input, path / names[0], len(names), pictures=True)
    weakref.finalize(source, shutil.rmtree, linked, ignore_errors=True)
    for index, name in enumerate(names):
        _link(path / name, Path(linked) / f"{index:08d}{ending}")
    return source


def _pictures(path: Path, *, strict: bool) -> tuple[list[str], str]:
    """List the pictures of a folder and their kind's ending; of several kinds only the one with most pictures.

    strict: refuse an empty picture, which otherwise is left out, as hidden ones are.
    """
    with os.scandir(path) as entries:
        found = [entry for entry in entries if not entry.name.startswith(".") and entry.is_file()]
    kinds: dict[str, str] = {}
    for entry in found:
        if (ending := PICTURES.get(Path(entry.name).suffix.lower())) is None:
            continue
        if entry.stat().st_size:
            kinds[entry.name] = _content(Path(entry)) or ending
        elif strict:
            raise T2VError(f"{quoted(entry.name)} in {path} is empty (0 bytes): make this picture anew, or remove it.")
        else:
            log.warning("%s: the empty picture %s is left out.", path, entry.name)
    if not kinds:
        return [], ""
    kind, count = max(Counter(kinds.values()).items(), key=lambda item: (item[1], item[0] == ".png"))
    if count < len(kinds):
        log.warning("%s holds pictures of several kinds: only the %d %s files are read.", path, count, kind)
    return [name for name, ending in kinds.items() if ending == kind], kind


def _content(path: Path) -> str | None:
    """The ending that a picture's content asks for, whatever its name has; None where it begins as none of `PICTURES`."""
    with open(path, "rb") as file:
        head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return ".webp"
    if head.startswith(b"\x89PNG"):
        return ".png"
    return ".jpg" if head.startswith(b"\xff\xd8\xff") else None


def holds_pictures(names: Iterable[str]) -> bool:
    """Whether a folder with files of these names is a clip: one is a picture with a number that is not hidden."""
    return any(
        Path(name).suffix.lower() in PICTURES and not name.startswith(".") and has_number(name) for name in names
    )


def _link(path: Path, place: Path) -> None:
    """Give a picture a second name, by a link where the system allows it, else by a copy."""
    for give in (os.symlink, os.link):
        try:
            give(path, place)
            return
        except OSError:  # Windows without the right to make links; another disk
            continue
    shutil.copyfile(path, place)
