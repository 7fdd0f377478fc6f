"""Find files that are cut off, and the end of those that carry bytes behind their own.

ffmpeg reads what is left of a cut file without an error, and reports an error about bytes behind a whole one. Here "cut off"
means that a part is missing that the pictures need; whatever follows a whole file (a camera's trailer, a line end) is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import T2VError
from .metadata import gif_blocks

_MOST_PARTS = 1_000_000
"""Boxes or chunks of a file: 8 GB in the smallest parts that encoders write."""


class _Cut(Exception):
    """A needed part is missing; the message names it."""


def whole_size(path: Path) -> int | None:
    """Return how many bytes of the file at path are its own; None where its container does not store that.

    Raises:
        T2VError: where a needed part of the mp4, mov, webm, mkv, avi, flv, Ogg, GIF, WebP or PNG file is missing.
    """
    size = path.stat().st_size
    with open(path, "rb", 1 << 16) as file:
        head = file.read(16)
        measure = next((measure for fits, measure in _KINDS if fits(head)), None)
        try:
            return measure(file, size) if measure else None
        except _Cut as error:
            raise T2VError(f"{path.name} is cut off: {error}. Copy or download it again.") from error


def count_gif_pictures(path: Path) -> int | None:
    """Count the pictures of a GIF, which ffmpeg miscounts where the file has comments; None for any other file."""
    with open(path, "rb") as file:
        if not file.read(4).startswith(b"GIF8"):
            return None
        try:
            return sum(label == 0x2C for label, _ in gif_blocks(file))
        except IndexError:
            return None


def _need(end: int, size: int) -> None:
    """Raise _Cut where a needed part ends behind the file."""
    if end > size:
        raise _Cut(f"it has {size} of {end} bytes")


_BOXES = frozenset(
    b"ftyp moov mdat moof free skip wide uuid mfra sidx styp meta pdin udta emsg ssix prft pnot PICT junk".split()
)
"""Boxes that stand at the top of an mp4 or mov file."""

_NEEDED = frozenset((b"moov", b"mdat", b"moof"))


def _boxes(file: BinaryIO, size: int) -> int:
    """Return the end of the last box of an mp4 or mov file."""
    at, seen = 0, set()
    for _ in range(_MOST_PARTS):
        file.seek(at)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0 and kind in _BOXES:  # up to the end of the file
            length = size - at
        if length < 8 or (kind not in _BOXES and (at + length > size or not kind.isalnum())):
            break  # no box: the end, or bytes behind it
        if kind in _NEEDED:
            _need(at + length, size)
        seen.add(kind)
        at += length
        if at >= size:
            break
    if not seen & {b"moov", b"moof"}:
        raise _Cut("its index (moov) is missing")
    if not seen & {b"mdat", b"moof"}:
        raise _Cut("its pictures (mdat) are missing")
    return min(at, size)


def _segment(file: BinaryIO, size: int) -> int | None:
    """Return the end of the segment of a webm or mkv file, of which a recorder may have left the length empty."""
    file.seek(4)
    length, digits = _number(file)
    file.seek(4 + digits + length)
    if file.read(4) != b"\x18\x53\x80\x67":
        return None
    segment, digits_too = _number(file)
    begin = 4 + digits + length + 4 + digits_too
    if segment == (1 << 7 * digits_too) - 1:
        return _open_segment(file, begin, size)
    _need(begin + segment, size)
    return begin + segment


_CLUSTER = b"\x1fC\xb6u"
_ELEMENTS = {
    _CLUSTER, b"\x15I\xa9f", b"\x16T\xaek", b"\x1cS\xbbk", b"\x10C\xa7p", b"\x12T\xc3g", b"\x11M\x9bt", b"\x19A\xa4i",
    b"\xec", b"\xbf", b"\xe7", b"\xa7", b"\xab", b"\xa3", b"\xa0", b"XT",
}  # fmt: skip
"""Elements of a segment, and those of a cluster."""


def _open_segment(file: BinaryIO, at: int, size: int) -> int | None:
    """Return the end of the last element of a segment without a length; its clusters may have none either."""
    for _ in range(_MOST_PARTS):
        file.seek(at)
        head = file.read(1)
        kind = head + file.read(max(0, 8 - head[0].bit_length() if head else 0))
        if kind not in _ELEMENTS:
            return at
        length, digits = _number(file)
        at += len(kind) + digits
        if length != (1 << 7 * digits) - 1:
            _need(at + length, size)
            at += length
        elif kind != _CLUSTER:
            return None
    return None


def _number(file: BinaryIO) -> tuple[int, int]:
    """Read an EBML number; returns it and how many bytes it takes."""
    data = file.read(8)
    digits = 9 - data[0].bit_length() if data and data[0] else 1
    return int.from_bytes(data[:digits], "big") & (1 << 7 * digits) - 1, digits


def _riff_chunks(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield (name, first four bytes, end) of the chunks from `at` to `end` in a WebP or avi file."""
    for _ in range(_MOST_PARTS):
        file.seek(at)
        head = file.read(12)
        if at + 8 > end or len(head) < 8:
            return
        length = int.from_bytes(head[4:8], "little")
        yield head[:4], head[8:], at + 8 + length
        at += 8 + length + length % 2


def _webp(file: BinaryIO, size: int) -> int:
    """Return the length of a WebP file; one that lacks the byte which pads its last chunk is whole."""
    file.seek(4)
    end = int.from_bytes(file.read(4), "little") + 8
    last = 12
    for _, _, last in _riff_chunks(file, 12, min(end, size)):
        _need(last, size)
    if not (end == size + 1 and last == size and last % 2):
        _need(end, size)
    return end


def _avi(file: BinaryIO, size: int) -> int | None:
    """Return the end of the last RIFF of an avi file; None where a recorder has left its lengths empty."""
    at, pictures = 0, False
    for _ in range(_MOST_PARTS):
        file.seek(at)
        head = file.read(12)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or head[8:] not in (b"AVI ", b"AVIX"):
            break
        for name, form, end in _riff_chunks(file, at + 12, min(at + 8 + length, size)):
            if name == b"LIST" and form == b"movi":
                pictures = True
                _need(end, size)
        at += 8 + length + length % 2
        if length < 12 or at >= size:
            break
    if not pictures:
        _need(at, size)
    return at if pictures and at <= size else None


def _flv(file: BinaryIO, size: int) -> int:
    """Return the end of the last tag of an flv file; every tag's length follows it once more."""
    file.seek(5)
    at = int.from_bytes(file.read(4), "big") + 4
    for _ in range(_MOST_PARTS):
        file.seek(at)
        head = file.read(11)
        length = int.from_bytes(head[1:4], "big") + 11
        if len(head) < 11 or head[0] & 0x1F not in (8, 9, 18) or any(head[8:11]):
            break
        _need(at + length, size)
        file.seek(at + length)
        if int.from_bytes(file.read(4), "big") not in (length, length - 11, 0):
            break
        at += length + 4
    return min(at, size)


def _ogg(file: BinaryIO, size: int) -> int:
    """Return the end of the last page of an Ogg file."""
    at = 0
    for _ in range(_MOST_PARTS):
        file.seek(at)
        head = file.read(27)
        if not head.startswith(b"OggS"):
            break
        _need(at + 27, size)
        table = file.read(head[26])
        end = at + 27 + head[26] + sum(table)
        _need(end, size)
        at = end
    return at


def _gif(file: BinaryIO, size: int) -> int:
    """Return the position after a GIF's end mark, or after its last picture where it has none."""
    label = 0
    try:
        for label, _ in gif_blocks(file):  # noqa: B007
            pass
        whole = label == 0x3B or (label == 0x2C and file.tell() == size)
    except IndexError:
        whole = False
    if not whole:
        raise _Cut(f"its end mark is missing after {size} bytes")
    return file.tell()


def _png(file: BinaryIO, size: int) -> int:
    """Return the end of a PNG's last chunk."""
    at = 8
    for _ in range(_MOST_PARTS):
        file.seek(at)
        head = file.read(8)
        at += 12 + int.from_bytes(head[:4], "big")
        if len(head) < 8 or at > size:
            raise _Cut(f"it has {size} of {max(at, size + 1)} bytes or more")
        if head[4:] == b"IEND":
            return at
    raise _Cut(f"it has no end within {_MOST_PARTS} parts")


_KINDS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int], int | None]], ...] = (
    (lambda head: head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"moof", b"styp"), _boxes),
    (lambda head: head.startswith(b"\x1aE\xdf\xa3"), _segment),
    (lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP", _webp),
    (lambda head: head.startswith(b"RIFF") and head[8:12] == b"AVI ", _avi),
    (lambda head: head.startswith(b"FLV\x01"), _flv),
    (lambda head: head.startswith(b"OggS"), _ogg),
    (lambda head: head.startswith(b"GIF8"), _gif),
    (lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), _png),
)
