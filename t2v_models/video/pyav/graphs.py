"""ffmpeg's filters in this process: the chains that the program takes as text, built node by node."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable
from fractions import Fraction

import av
import av.filter
import numpy as np


class Graph:
    """A chain of filters for frames of one shape.

    Args:
        source: the filter that takes frames, such as "buffer=…".
        filters: the chain, each "name=options"; "name@instance=options" names one.
        sink: the filter that gives frames.
    """

    def __init__(self, source: str, filters: Iterable[str], sink: str):
        self._graph = av.filter.Graph()
        nodes = [self._added(filter) for filter in (source, *filters, sink)]
        self._graph.link_nodes(*nodes)
        self._begin()

    def _begin(self) -> None:
        self._graph.configure()

    def _added(self, filter: str) -> av.filter.context.FilterContext:
        name, _, options = filter.partition("=")
        kind, at, _ = name.partition("@")
        return self._graph.add(kind, options or None, **({"name": name} if at else {}))

    def push(self, frame: av.VideoFrame | av.AudioFrame | None) -> None:
        """Give a frame, or None at the end."""
        self._graph.push(frame)

    def pull(self) -> av.VideoFrame | av.AudioFrame | None:
        """Return the next frame that comes out; None where another must be given first."""
        try:
            return self._graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return None


class PaletteGraph(Graph):
    """From frames to frames with palettes of their own."""

    def __init__(self, source: str, colours: int):
        self._graph = av.filter.Graph()
        made = f"palettegen=stats_mode=single:max_colors={colours}"
        used = "paletteuse=new=1:dither=sierra2_4a"
        begin, split, palette, use, sink = (
            self._added(filter) for filter in (source, "split", made, used, "buffersink")
        )
        self._graph.link_nodes(begin, split)
        split.link_to(palette, 0, 0)
        split.link_to(use, 1, 0)
        palette.link_to(use, 0, 1)
        self._graph.link_nodes(use, sink)
        self._begin()


def shape(frame: av.VideoFrame | av.AudioFrame) -> tuple[object, ...]:
    """Return what must not change while a graph runs; where it does, the program begins its filters anew, too."""
    if isinstance(frame, av.VideoFrame):
        return frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range
    return frame.sample_rate, frame.format.name, frame.layout.name


def picture_source(frame: av.VideoFrame, tick: Fraction, rate: Fraction | None) -> str:
    """Return the filter that takes frames like this one. tick: seconds of a unit of time. rate: frames a second."""
    text = f"buffer=video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base={tick}"
    text += f":colorspace={int(frame.colorspace)}:range={int(frame.color_range)}"
    return f"{text}:frame_rate={rate}" if rate else text


_LAYOUTS = ("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")
"""ffmpeg's usual layouts of 1 to 8 channels."""


def layout_of(channels: int) -> str:
    """Return ffmpeg's name of the usual layout of that many channels, 1 to 8."""
    return _LAYOUTS[channels - 1]


def sound_source(frame: av.AudioFrame, tick: Fraction) -> str:
    """Return the filter that takes sound like this. tick: seconds of a unit of time."""
    name, channels = frame.layout.name, frame.layout.nb_channels
    if name.endswith("channels") and channels <= len(_LAYOUTS):  # the file does not say which they are
        name = layout_of(channels)
    text = f"abuffer=sample_rate={frame.sample_rate}:sample_fmt={frame.format.name}:time_base={tick}"
    return f"{text}:channels={channels}" if name.endswith("channels") else f"{text}:channel_layout={name}"


def upright(frame: av.VideoFrame) -> list[str]:
    """Return the filters that turn and mirror a frame as its file asks for, as the program does by itself."""
    data = _display_matrix(frame)
    if len(data) < 36:
        return []
    matrix = [number / 65536 for number in struct.unpack("=9i", data[:36])]
    across, down = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if not across or not down:
        return []
    angle = round(math.degrees(math.atan2(matrix[1] / down, matrix[0] / across)))
    angle -= 360 * math.floor(angle / 360 + 0.9 / 360)
    if angle == 90:
        return ["transpose=cclock_flip" if matrix[3] > 0 else "transpose=clock"]
    if angle == 270:
        return ["transpose=clock_flip" if matrix[3] < 0 else "transpose=cclock"]
    if angle == 180:
        return ["hflip"] * (matrix[0] < 0) + ["vflip", "copy"] * (matrix[4] < 0)
    if angle:
        return [f"rotate={angle}*PI/180"]
    return ["vflip", "copy"] if matrix[4] < 0 else []  # a flipped frame's rows lie backwards in memory: copied


_UNKNOWN = re.compile(r"(\d{1,4}) is not a valid")
_MOST_UNKNOWN = 8
"""Kinds of side data that are taken off a frame."""


def _display_matrix(frame: av.VideoFrame) -> bytes:
    """Return the matrix by which a frame is turned; PyAV reads none where there is side data of a kind that it lacks."""
    for _ in range(_MOST_UNKNOWN):
        try:
            return bytes(frame.side_data.get("DISPLAYMATRIX") or b"")
        except ValueError as error:
            unknown = _UNKNOWN.match(str(error))
        if unknown is None:
            break
        graph = Graph(
            picture_source(frame, Fraction(1), None), [f"sidedata=mode=delete:type={unknown[1]}"], "buffersink"
        )
        graph.push(frame)
        frame = graph.pull()
    return b""


def array_of(frame: av.VideoFrame, depth: int) -> np.ndarray:
    """Copy a frame of the format rgb24, or rgb48be for depth 16, to (h, w, 3) uint8 or uint16."""
    plane, height, width = frame.planes[0], frame.height, frame.width
    rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
    if depth == 8:
        return rows[:, : width * 3].reshape(height, width, 3).copy()
    return rows[:, : width * 6].copy().view(">u2").reshape(height, width, 3).astype(np.uint16)
