"""Find files that are cut off. Containers store their length; ffmpeg reads what is left of them without an error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..errors import T2VError
from .metadata import gif_blocks


def check_whole(path: Path) -> None:
    """Raise T2VError where the mp4, mov, webm, mkv, GIF or WebP file at path is shorter than its header says."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(16)
        wanted = next((measure for fits, measure in _KINDS if fits(head)), None)
        needed = wanted(file, size) if wanted else None
    if needed is not None and size < needed:
        raise T2VError(f"{path.name} is cut off: it has {size} of {needed} bytes.")


def count_gif_pictures(path: Path) -> int | None:
    """Count the pictures of a GIF, which ffmpeg miscounts where the file has comments; None for any other file."""
    with open(path, "rb") as file:
        if not file.read(4).startswith(b"GIF8"):
            return None
        try:
            return sum(label == 0x2C for label, _ in gif_blocks(file))
        except IndexError:
            return None


def _boxes(file: BinaryIO, size: int) -> int:
    """Return the end of the last box of an mp4 or mov file."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: up to the end of the file; less: damaged, which ffmpeg reports
            return size
        at += length
    return at if at >= size else size + 1  # a rest too short for a box


def _segment(file: BinaryIO, size: int) -> int | None:
    """Return the end of the segment of a webm or mkv file; None where its length is not stored."""
    file.seek(4)
    length, digits = _number(file)
    file.seek(4 + digits + length)
    if file.read(4) != b"\x18\x53\x80\x67":
        return None
    segment, digits_too = _number(file)
    if segment == (1 << 7 * digits_too) - 1:
        return None
    return 4 + digits + length + 4 + digits_too + segment


def _number(file: BinaryIO) -> tuple[int, int]:
    """Read an EBML number; returns it and how many bytes it takes."""
    data = file.read(8)
    digits = 9 - data[0].bit_length() if data and data[0] else 1
    return int.from_bytes(data[:digits], "big") & (1 << 7 * digits) - 1, digits


def _riff(file: BinaryIO, size: int) -> int:
    """Return the length of a WebP file."""
    file.seek(4)
    return int.from_bytes(file.read(4), "little") + 8


def _gif(file: BinaryIO, size: int) -> int:
    """Return the position after a GIF's end mark; one byte more than the file has, where the mark is missing."""
    try:
        labels = [label for label, _ in gif_blocks(file)]
    except IndexError:
        labels = []
    if labels[-1:] == [0x3B]:
        return file.tell()
    file.seek(0, os.SEEK_END)
    return size + 1


_KINDS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int], int | None]], ...] = (
    (lambda head: head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"), _boxes),
    (lambda head: head.startswith(b"\x1aE\xdf\xa3"), _segment),
    (lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP", _riff),
    (lambda head: head.startswith(b"GIF8"), _gif),
)
