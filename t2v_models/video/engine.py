"""What reads and writes clips: the interface of the two engines, `ffmpeg` (the program) and `pyav` (its libraries).

An engine runs ffmpeg's demuxers, decoders, filters, encoders and muxers, and gives facts and arrays. What a fact means, which
filters apply, and which formats exist is decided outside, once for both.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from .audio import Audio

Cancelled = Callable[[], object]
"""Asked four times a second while an engine works; it raises to cancel, and the work ends."""

ASKED_EVERY = 0.25
"""Seconds between two questions whether the user has cancelled."""

PROTOCOLS = "file,pipe,fd,subfile"
"""ffmpeg's protocols that may be used to open a file: local files only."""

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "gif", "webp_anim", "apng", "image2", "png_pipe", "webp_pipe",
    "jpeg_pipe", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg", "nut", "ivf", "h264", "hevc", "yuv4mpegpipe",
)  # fmt: skip
"""Demuxers that may open an unknown file. Playlists are left out: they would open other files and addresses."""


def file_url(path: Path | str) -> str:
    """Write a path as a URL for ffmpeg, so that "a:b.mp4" is no protocol and "-x.mp4" no option."""
    return "file:" + os.path.abspath(path)


class Failed(Exception):
    """An engine could not do what was asked; the message is the cause that ffmpeg reports, a part of a sentence."""


class Damaged(Failed):
    """The file has faults; everything that could be decoded was given before."""


@dataclass(frozen=True)
class Input:
    """A file, or numbered pictures, as an engine opens it."""

    path: Path
    url: str
    """ffmpeg's URL of it."""
    demuxers: tuple[str, ...] = CONTAINERS
    """Demuxers that may open it."""
    demuxer: str | None = None
    """The one that opens it; None where ffmpeg finds out."""
    options: tuple[tuple[str, str], ...] = ()
    """Options of the demuxer."""
    animated_webp: bool = False
    """An animated WebP, of which only the newest ffmpeg has a demuxer."""


@dataclass(frozen=True)
class AudioInfo:
    """The first sound track."""

    rate: int
    """Samples a second."""
    channels: int


@dataclass(frozen=True)
class Picture:
    """The first decoded frame."""

    size: tuple[int, int]
    """(width, height), after the rotation that the file asks for."""
    pixels: str
    """ffmpeg's name of the pixel format."""
    matrix: str | None = None
    """The colour matrix that the file names, such as "bt709"; None where it names none. So are the next three."""
    transfer: str | None = None
    primaries: str | None = None
    range: str | None = None
    aspect: Fraction = Fraction(1)
    """Width of a pixel in heights of it."""
    interlaced: bool = False
    rate: Fraction | None = None
    """Frames a second as the container says, or as ffmpeg guesses."""
    begin: Fraction | None = None
    """Seconds of the file's own time at which it is shown."""


@dataclass(frozen=True)
class Sound:
    """The first decoded samples of a track."""

    info: AudioInfo
    begin: Fraction | None
    """Seconds of the file's own time at which they are heard."""


@dataclass(frozen=True)
class Packets:
    """Count and times of the frames of a video stream, from its packets."""

    count: int
    span: Fraction
    """Seconds from the first frame's time stamp to the last one's, or to that of its last repetition."""
    tick: Fraction
    """Seconds of the container's unit of time."""
    uniform: Fraction | None
    """Seconds that every frame lasts; None where durations differ or are unknown."""
    stamps: array[int] = field(default_factory=lambda: array("q"), repr=False)
    """Every frame's time in ticks, in the file's order; empty where they have none, or are too many."""


@dataclass(frozen=True)
class Track:
    """How sound is stored in a file."""

    encoder: str
    options: Mapping[str, str]
    """The encoder's options, by ffmpeg's names."""
    layout: str | None
    """ffmpeg's name of the channels' layout; None is the usual one of that many channels."""
    rate: int
    """Samples a second that are stored."""


@dataclass(frozen=True)
class Clip:
    """How a file is written."""

    path: Path
    """The file; the folder for `muxer` "image2"."""
    folder: Path
    """An empty folder for whatever an engine needs beside it."""
    muxer: str
    encoder: str
    options: Mapping[str, str]
    """The encoder's options, by ffmpeg's names."""
    filters: tuple[str, ...]
    """ffmpeg's filters from the frames that are given to those that are stored."""
    size: tuple[int, int]
    """(width, height) of the frames."""
    depth: int
    """Bits a channel of the frames: 8 or 16."""
    fps: Fraction
    colours: int | None = None
    """Where frames are stored with palettes of their own: the most colours of each."""
    loop: int | None = None
    """How often the clip is shown, as the muxer counts it; None where the container does not store that."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """The container's tags."""
    audio: Audio | None = None
    """It is cut, or filled with silence, to the length of the frames."""
    track: Track | None = None


class Encoder(Protocol):
    """A file that is being written."""

    def write(self, frame: np.ndarray) -> None:
        """Add a frame, (h, w, 3) uint8 or uint16, contiguous; raises `Failed`."""

    def finish(self) -> None:
        """End the file; raises `Failed`, also where it does not hold all frames."""

    def close(self) -> None:
        """Free everything; stops the work where the file has not been ended."""


class Engine(Protocol):
    """A way to run ffmpeg. Whatever takes `cancelled` raises what that raises, within a second."""

    @property
    def name(self) -> str:
        """A name for messages, such as "The ffmpeg at /usr/bin/ffmpeg"."""

    @property
    def upgrade(self) -> str:
        """The command that brings a newer version."""

    def abilities(self, kind: str) -> frozenset[str]:
        """Return the names of the "encoders", "decoders", "muxers" or "demuxers"."""

    def reads_animated_webp(self) -> bool:
        """Whether an animated WebP can be read."""

    def first_frame(self, input: Input, cancelled: Cancelled | None) -> tuple[Picture, dict[str, str]]:
        """Return the facts of the first frame that can be decoded, and the container's tags; raises `Failed`."""

    def packets(self, input: Input, cancelled: Cancelled | None) -> Packets:
        """Count the frames and read their times, without decoding them; raises `Failed` where there are none."""

    def first_sound(self, input: Input, track: int, cancelled: Cancelled | None) -> Sound | None:
        """Return the first sound of that track; None where there is no such track. Raises `Failed`, with the codec's name."""

    def frames(
        self, input: Input, filters: Iterable[str], *, depth: int, most: int | None, cancelled: Cancelled | None
    ) -> Generator[np.ndarray, None, None]:
        """Yield the frames behind the filters, (h, w, 3) uint8, or uint16 for depth 16, at most `most`; then `Damaged`."""

    def sound(
        self, input: Input, track: int, filters: Iterable[str], cancelled: Cancelled | None
    ) -> Generator[tuple[int, np.ndarray], None, None]:
        """Yield (samples a second, samples (n, channels) float32) of a sound track, part by part; then `Damaged`."""

    def check_sound(self, channels: int, rate: int, track: Track) -> None:
        """Encode a moment of silence; raises `Failed` where that sound cannot be stored so."""

    def encoder(self, clip: Clip, cancelled: Cancelled | None) -> Encoder:
        """Begin to write a file."""


NO_STAMP = -(2**63)
"""The time stamp of a packet that has none."""

_MOST_STAMPS = 2_000_000
"""Time stamps that are compared to find out whether a clip's rate varies; a day of 24 frames a second."""


def counted(packets: Iterable[tuple[int, int, int, int]], tick: Callable[[], Fraction]) -> Packets:
    """Count packets, each (time of decoding, time of showing, duration, bytes).

    Times are in ticks; one that is unknown is -2**63. An empty packet repeats the frame before it (in an AVI or Ogg).

    tick: asked at the end for the seconds of a tick.
    """
    count, durations = 0, set[int]()
    decoded, shown = _Times(), _Times()
    for decoding, showing, duration, size in packets:
        decoded.add(decoding, repeats=not size)
        shown.add(showing, repeats=not size)
        if size:
            count += 1
            if len(durations) < 3:
                durations.add(duration)
    times = decoded if shown.lacking else shown  # the two do not mix; an AVI stores only when a frame is decoded
    uniform = durations.pop() * tick() if len(durations) == 1 else None
    comparable = len(times.stamps) == count and not times.lacking
    return Packets(count, times.span * tick(), tick(), uniform or None, times.stamps if comparable else array("q"))


class _Times:
    """The time stamps of packets, in ticks."""

    def __init__(self) -> None:
        self.stamps, self.lacking = array("q"), 0
        self._first: int | None = None
        self._last: int | None = None

    def add(self, stamp: int, *, repeats: bool) -> None:
        """Take the stamp of the next packet, which may repeat the frame before it."""
        if stamp == NO_STAMP:
            self.lacking += 1
            return
        self._first = stamp if self._first is None else min(self._first, stamp)
        self._last = stamp if self._last is None else max(self._last, stamp)
        if len(self.stamps) < _MOST_STAMPS and not repeats:
            self.stamps.append(stamp)

    @property
    def span(self) -> int:
        """Ticks from the first stamp to the last; 0 where there is none."""
        return 0 if self._first is None or self._last is None else self._last - self._first
