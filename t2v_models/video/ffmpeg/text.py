"""Facts from what the ffmpeg program prints: packets, names of encoders, its version.

imageio-ffmpeg brings no ffprobe. The facts come from what no tag of a file can write, such as the output of framecrc.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction

from ..engine import Packets, counted

_DISCARD = 4
"""The flag of a packet that is decoded and not shown, because an edit list has cut it off."""


def packets(lines: Iterable[bytes]) -> Packets:
    """Parse the lines of ffmpeg's framecrc output, a packet each: "stream, dts, pts, duration, size, checksum[, flags]"."""
    tick = Fraction(1)

    def times() -> Iterator[tuple[int, int, int, int]]:
        nonlocal tick
        for line in lines:
            if line.startswith(b"#tb 0:"):
                tick = Fraction(line.split(b":", 1)[1].strip().decode())
            if line.startswith(b"#"):
                continue
            decoded, stamp, duration, size = (int(part, 0) for part in line.split(b",")[1:5])
            flags = re.search(rb"F=0x([0-9A-Fa-f]+)", line)
            if not (flags and int(flags[1], 16) & _DISCARD):
                yield decoded, stamp, duration, size

    return counted(times(), lambda: tick)


def written_frames(stderr: str) -> int | None:
    """Parse how many frames ffmpeg has written, from the last line of its statistics; None where there is none."""
    counts = re.findall(r"frame= *(\d+)", stderr)
    return int(counts[-1]) if counts else None


def names(table: str) -> frozenset[str]:
    """Parse the names in the table that `ffmpeg -encoders` prints, or -decoders, -muxers, -demuxers."""
    lines = table.splitlines()
    # The head line of the table is " ------" or " ---"; every line after it is "FLAGS NAME title".
    head = next((i for i, line in enumerate(lines) if line.strip() and not line.strip("- ")), -1)
    return frozenset(fields[1] for line in lines[head + 1 :] if len(fields := line.split()) > 1)


def library_version(text: str) -> tuple[int, int] | None:
    """Parse (major, minor) of libavcodec from the output of `ffmpeg -version`; None where it is not there."""
    found = re.search(r"^libavcodec +(\d{1,4})\. *(\d{1,4})\.", text, re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else None
