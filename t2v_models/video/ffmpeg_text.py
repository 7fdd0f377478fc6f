"""Facts from the text that ffmpeg prints: streams, packets, time stamps, names of encoders.

imageio-ffmpeg brings no ffprobe, so the facts come from text meant for people. Everything here is a pure function of that
text; tests/fixtures/ffmpeg holds what four versions print (tests/record_ffmpeg.py), and all of it must be understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

_VIDEO = re.compile(r"^ {2,4}Stream #0:\d+[^:]*(?:\([^)]*\))?: Video: (.*)$", re.MULTILINE)
_AUDIO = re.compile(r"^ {2,4}Stream #0:\d+[^:]*(?:\([^)]*\))?: Audio: \w+.*?, (\d+) Hz, ([^,\n]+)", re.MULTILINE)
_SIZE = re.compile(r", (\d{1,6})x(\d{1,6})(?=[, \n\[]|$)")
_PIXELS = re.compile(r", (\w+)(?:\(([^)]*)\))?, \d+x\d+")
_MATRIX = re.compile(r"(?:^|, )(bt709|smpte170m|bt470bg|fcc|bt2020nc|bt2020c|smpte240m|gbr)(?=[/,]|$)")
_RATE = re.compile(r"([\d.]+) (?:fps|tbr)")
_ROTATION = re.compile(r"(?i)^ +display ?matrix: rotation of (-?\d+)", re.MULTILINE)
_STAMP = re.compile(r"^\[Parsed_a?showinfo_\d+ @ [^\]]*\].* pts_time: *(-?[\d.]+)", re.MULTILINE)

_CHANNELS = {"mono": 1, "stereo": 2, "downmix": 2, "quad": 4, "quad(side)": 4, "hexagonal": 6, "octagonal": 8}
"""Channels of the layouts whose names do not count them, as "5.1" and "7 channels" do."""

_NO_STAMP = -(2**63)
"""The time stamp of a packet that has none."""

_DISCARD = 4
"""The flag of a packet that is decoded and not shown, because an edit list has cut it off."""


@dataclass(frozen=True)
class AudioInfo:
    """The first sound track."""

    rate: int
    """Samples a second."""
    channels: int


@dataclass(frozen=True)
class VideoStream:
    """The first video stream, as ffmpeg describes it when it opens a file."""

    size: tuple[int, int]
    """(width, height) of the decoded frames, after the rotation that the file asks for."""
    pixels: str
    """ffmpeg's name of the stored pixel format; "" where it prints none."""
    matrix: str | None
    """The colour matrix that the file names, such as "bt709"; None where it names none."""
    rate: float
    """Frames a second as printed, which is rounded; 0 where none is printed."""


@dataclass(frozen=True)
class Packets:
    """Count and times of the frames of a video stream, from its packets."""

    count: int
    span: Fraction
    """Seconds from the first frame's time stamp to the last one's."""
    tick: Fraction
    """Seconds of the container's unit of time."""
    uniform: Fraction | None
    """Seconds that every frame lasts; None where durations differ or are unknown."""


def video_stream(stderr: str) -> VideoStream | None:
    """Parse the first video stream from the error output of `ffmpeg -i FILE`; None where there is none with a size."""
    stream = _VIDEO.search(stderr)
    size = _SIZE.search(stream[1]) if stream else None
    if not stream or not size or not int(size[1]) or not int(size[2]):
        return None
    width, height = int(size[1]), int(size[2])
    rotation = _ROTATION.search(stderr)
    if rotation and round(int(rotation[1]) / 90) % 2:
        width, height = height, width
    pixels, rate = _PIXELS.search(stream[1]), _RATE.search(stream[1])
    matrix = _MATRIX.search(pixels[2] or "") if pixels else None
    return VideoStream(
        (width, height),
        pixels[1] if pixels else "",
        matrix[1] if matrix else None,
        float(rate[1]) if rate else 0.0,
    )


def audio_stream(stderr: str) -> AudioInfo | None:
    """Parse the first sound track from the error output of `ffmpeg -i FILE`; None where there is none."""
    stream = _AUDIO.search(stderr)
    return AudioInfo(int(stream[1]), _channels(stream[2].strip())) if stream else None


def _channels(layout: str) -> int:
    """Count the channels of a layout: "stereo", "5.1(side)", "7 channels"; 2 where its name has no number."""
    if layout in _CHANNELS:
        return _CHANNELS[layout]
    if counted := re.match(r"(\d+) channels", layout):
        return int(counted[1])
    dotted = re.match(r"(\d)\.(\d)(?:\.(\d))?", layout)
    return sum(int(part or 0) for part in dotted.groups()) if dotted else 2


def packets(lines: Iterable[bytes]) -> Packets:
    """Parse the lines of ffmpeg's framecrc output, a packet each: "stream, dts, pts, duration, size, checksum[, flags]"."""
    tick, count, durations = Fraction(1), 0, set[int]()
    first = last = None
    for line in lines:
        if line.startswith(b"#tb 0:"):
            tick = Fraction(line.split(b":", 1)[1].strip().decode())
        if line.startswith(b"#"):
            continue
        _, decoded, stamp, duration = (int(part, 0) for part in line.split(b",")[:4])
        flags = re.search(rb"F=0x([0-9A-Fa-f]+)", line)
        if flags and int(flags[1], 16) & _DISCARD:
            continue
        count += 1
        stamp = decoded if stamp == _NO_STAMP else stamp  # an AVI stores only when a frame is decoded
        if stamp != _NO_STAMP:
            first = stamp if first is None else min(first, stamp)
            last = stamp if last is None else max(last, stamp)
        if len(durations) < 3:
            durations.add(duration)
    span = Fraction(0) if first is None or last is None else (last - first) * tick
    uniform = durations.pop() * tick if len(durations) == 1 else None
    return Packets(count, span, tick, uniform or None)


def first_stamp(stderr: str) -> Fraction | None:
    """Parse the time of the first frame, in seconds, from the output of the filters showinfo and ashowinfo."""
    stamp = _STAMP.search(stderr)
    return Fraction(stamp[1]) if stamp else None


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


_NOISE = (
    "Last message repeated",
    "Conversion failed",
    "Task finished",
    "Terminating thread",
    "Error opening input file",
)
"""Parts of lines that ffmpeg prints after the one that names the cause."""


def error_message(stderr: str, status: int = 0) -> str:
    """Choose the line of ffmpeg's error output that says why it failed, at most 300 characters.

    status: ffmpeg's exit status; less than 0 is the signal that ended it.
    """
    if status < 0:
        return f"ffmpeg was ended from outside (signal {-status})"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    lines = [line for line in lines if not any(noise in line for noise in _NOISE)]
    if any("No space left" in line for line in lines):
        return "no space left on the disk"
    errors = [line for line in lines if "rror" in line or "nvalid" in line]
    line = (errors or lines or ["no reason"])[-1]
    return line.split("] ", 1)[-1][:300]
