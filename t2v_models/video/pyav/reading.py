"""Read through ffmpeg's libraries: open, demux, decode, filter."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias, TypeVar

import av
import av.error
import numpy as np

from .. import ffmpeg_text
from ..engine import (
    NO_STAMP,
    PROTOCOLS,
    Failed,
    Input,
    Packets,
    Picture,
    Sound,
    counted,
)
from ..metadata import limited_tags
from . import graphs, logs, webp
from .clock import Clock
from .worker import Worker

_T = TypeVar("_T")

Frame: TypeAlias = "av.VideoFrame | av.AudioFrame"

_TAGS = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
"""How tags that are no UTF-8 are read; PyAV 19 has no such option, and hands their bytes on as surrogates."""

_GENERATE_TIMES = 1
"""The flag by which PyAV's demuxers invent times of showing; the program's don't."""

_JOINED = {"mpegts", "mpeg", "ogg"}
"""Containers in which time may begin anew (AVFMT_TS_DISCONT)."""

FAULTS = (av.error.FFmpegError, OSError, ValueError, ArithmeticError, MemoryError, EOFError)
"""What PyAV and Pillow raise about a file."""


@functools.cache
def abilities(kind: str) -> frozenset[str]:
    """Return the names of the "encoders", "decoders", "muxers" or "demuxers"."""
    import av.codec
    import av.format

    found = set()
    mode = "w" if kind in ("encoders", "muxers") else "r"
    if kind in ("encoders", "decoders"):
        for name in av.codec.codecs_available:
            with contextlib.suppress(ValueError):
                found.add(av.codec.Codec(name, mode).name)
    else:
        for name in av.format.formats_available:
            with contextlib.suppress(ValueError):
                found.add(av.format.ContainerFormat(name, mode).name)
    return frozenset(found)


@contextlib.contextmanager
def _opened(input: Input, messages: logs.Messages) -> Iterator[av.container.InputContainer]:
    """Open a file: local files only, of the formats in its list. Raises `Failed`."""
    options = {"protocol_whitelist": PROTOCOLS, "format_whitelist": ",".join(input.demuxers), **dict(input.options)}
    try:
        with messages.caught():
            container = av.open(input.url, format=input.demuxer, container_options=options, **_TAGS)
    except FAULTS as error:
        raise messages.failed(error) from error
    container.flags &= ~_GENERATE_TIMES
    try:
        yield container
    finally:
        with messages.caught():
            container.close()


def _text(tag: str) -> str:
    """Return a tag with marks of replacement for what is no UTF-8."""
    return tag.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _tick(stream: av.stream.Stream) -> Fraction:
    """Return the seconds of a stream's unit of time."""
    return Fraction(stream.time_base or Fraction(1, av.time_base))


def _decoded(
    container: av.container.InputContainer, stream: av.stream.Stream, worker: Worker, messages: logs.Messages
) -> Iterator[av.VideoFrame | av.AudioFrame]:
    """Yield all frames of a stream that can be decoded; what is wrong with the others is in the messages."""
    context = stream.codec_context
    context.thread_count = 1  # the messages of other threads could belong to another clip
    for packet in _demuxed(container, stream, worker, messages):
        if packet is not None and not packet.size:  # a repetition, which a decoder would take for the end
            continue
        with messages.caught():
            try:
                frames = context.decode(packet)
            except av.error.EOFError:
                return
            except FAULTS as error:
                messages.note(error)
                continue
        yield from frames


def _demuxed(
    container: av.container.InputContainer, stream: av.stream.Stream, worker: Worker, messages: logs.Messages
) -> Iterator[av.Packet | None]:
    """Yield the packets of a stream, then None."""
    clock = Clock(stream) if container.format.name in _JOINED else None
    packets = container.demux(stream)
    while not worker.stopped.is_set():
        with messages.caught():
            try:
                packet = next(packets, None)
            except FAULTS as error:
                messages.note(error)
                packet = None
        if packet is None or (not packet.size and packet.dts is None and packet.pts is None):
            break  # PyAV's last packet is an empty one
        if clock:
            clock.correct(packet)
        yield packet
    yield None


@dataclass(frozen=True)
class _Shown:
    """A decoded frame, and what the container says of its stream."""

    frame: av.VideoFrame
    """Its time is in ticks."""
    tick: Fraction
    """Seconds of the container's unit of time."""
    rate: Fraction | None = None
    """Frames a second."""
    aspect: Fraction | None = None
    """Width of a pixel in heights of it."""
    begin: int = 0
    """The file's first time, in ticks."""

    def graph(self, filters: Iterable[str]) -> graphs.Graph:
        """Return a graph for such frames, which turns them upright first."""
        source = graphs.picture_source(self.frame, self.tick, self.rate)
        square = [f"setsar={self.aspect}"] if self.aspect else []
        return graphs.Graph(source, [*square, *graphs.upright(self.frame), *filters], "buffersink")


def _pictures(
    input: Input, worker: Worker, messages: logs.Messages, tags: dict[str, str] | None = None
) -> Generator[_Shown, None, None]:
    """Yield the frames of a file. tags: takes the container's tags."""
    if input.animated_webp and "webp_anim" not in abilities("demuxers"):
        try:
            for frame in webp.frames(input.path):
                yield _Shown(frame, webp.TICK)
        except FAULTS as error:
            messages.note(error)
        return
    with _opened(input, messages) as container:
        if not container.streams.video:
            raise Failed("it has no pictures")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise Failed("there is no decoder for its pictures")
        messages.stream = stream.index
        tick = _tick(stream)
        begin = round(Fraction(container.start_time or 0, av.time_base) / tick)
        aspect = stream.sample_aspect_ratio
        if tags is not None:
            tags.update({_text(key): _text(value) for key, value in container.metadata.items()})
        expected = begin
        for frame in _decoded(container, stream, worker, messages):
            time = next((time for time in (frame.pts, frame.dts) if time is not None), expected)
            rate = stream.guessed_rate or stream.average_rate
            expected = time + (getattr(frame, "duration", 0) or (round(1 / (rate * tick)) if rate else 1))
            frame.pts = time
            yield _Shown(frame, tick, Fraction(rate) if rate else None, aspect, begin)


def first_frame(input: Input, worker: Worker) -> tuple[Picture, dict[str, str]]:
    """Return the facts of the first frame, by the filter showinfo, and the container's tags; raises `Failed`."""
    messages, tags = logs.Messages(), dict[str, str]()
    name = ffmpeg_text.secret_name("showinfo")
    with contextlib.closing(_pictures(input, worker, messages, tags)) as pictures:
        for shown in pictures:
            facts = logs.Messages()
            with facts.caught(logs.INFO):
                # without the frame's side data, which showinfo prints byte by byte
                graph = shown.graph(["sidedata=mode=delete", name])
                graph.push(shown.frame)
                graph.pull()
            if picture := ffmpeg_text.picture(facts.text, name):
                return picture, limited_tags(input.path, tags)
            raise facts.failed()
    raise messages.failed()


def packets(input: Input, worker: Worker) -> Packets:
    """Count the packets of the first video stream, see `Packets`; raises `Failed` where there are none."""
    if input.animated_webp and "webp_anim" not in abilities("demuxers"):
        lasts = webp.durations(input.path)
        times = [0, *itertools.accumulate(lasts[:-1])]
        return counted(((time, time, last, 1) for time, last in zip(times, lasts, strict=True)), lambda: webp.TICK)
    messages = logs.Messages()
    with _opened(input, messages) as container:
        if not container.streams.video:
            raise Failed("it has no pictures")
        stream = container.streams.video[0]
        packets = counted(_times(container, stream, worker, messages), lambda: _tick(stream))
    if not packets.count:
        raise messages.failed()
    return packets


def _times(
    container: av.container.InputContainer, stream: av.stream.Stream, worker: Worker, messages: logs.Messages
) -> Iterator[tuple[int, int, int, int]]:
    """Yield (time of decoding, time of showing, duration, bytes), times in ticks, of every packet from the first key frame on."""
    begun = False
    for packet in _demuxed(container, stream, worker, messages):
        begun = begun or (packet is not None and packet.is_keyframe)
        if begun and packet is not None and not packet.is_discard:
            decoded, shown = (NO_STAMP if time is None else time for time in (packet.dts, packet.pts))
            yield decoded, shown, packet.duration or 0, packet.size


def first_sound(input: Input, track: int, worker: Worker) -> Sound | None:
    """Return the facts of a track's first sound, by the filter ashowinfo; None where there is no such track."""
    messages = logs.Messages()
    with _opened(input, messages) as container:
        if track >= len(container.streams.audio):
            return None
        stream = container.streams.audio[track]
        if stream.codec_context is not None:
            name = ffmpeg_text.secret_name("ashowinfo")
            for frame in _decoded(container, stream, worker, messages):
                facts = logs.Messages()
                with facts.caught(logs.INFO):
                    graph = graphs.Graph(graphs.sound_source(frame, _tick(stream)), [name], "abuffersink")
                    graph.push(frame)
                    graph.pull()
                if sound := ffmpeg_text.sound(facts.text, name):
                    return sound
        facts = logs.Messages()
        with facts.caught(logs.INFO):
            text = container.dumps_format()
        raise Failed(ffmpeg_text.sound_codec(text, track))


def _filtered(
    frames: Iterable[_T],
    frame_of: Callable[[_T], Frame],
    graph_of: Callable[[_T], graphs.Graph],
    messages: logs.Messages,
) -> Iterator[Frame]:
    """Yield what filters make of frames; they begin anew where the shape of the frames changes, as in the program."""
    graph, shape = None, None
    try:
        for item in frames:
            frame = frame_of(item)
            if graph is not None and graphs.shape(frame) != shape:
                yield from _pushed(graph, None, messages)
                graph = None
            if graph is None:
                shape = graphs.shape(frame)
                with messages.caught():
                    graph = graph_of(item)
            yield from _pushed(graph, frame, messages)
        if graph is not None:
            yield from _pushed(graph, None, messages)
    except av.error.EOFError:  # the filters take no more
        return
    except FAULTS as error:
        messages.note(error)


def _pushed(graph: graphs.Graph, frame: Frame | None, messages: logs.Messages) -> Iterator[Frame]:
    with messages.caught():
        graph.push(frame)
    while True:
        with messages.caught():
            made = graph.pull()
        if made is None:
            return
        yield made


def frames(
    input: Input, filters: list[str], depth: int, most: int | None, worker: Worker, messages: logs.Messages
) -> Generator[np.ndarray, None, None]:
    """Yield the frames behind the filters, (h, w, 3), at most `most`; the messages hold what is wrong with the others."""
    size: list[str] = []  # of the first frame; that of the others is made alike, as in the program

    def timed(shown: _Shown) -> Frame:
        shown.frame.pts -= shown.begin
        return shown.frame

    try:
        with contextlib.closing(_pictures(input, worker, messages)) as pictures:
            stored = f"format={'rgb24' if depth == 8 else 'rgb48be'}"
            made = _filtered(pictures, timed, lambda shown: shown.graph([*filters, *size, stored]), messages)
            for frame in itertools.islice(made, most):
                size = [f"scale={frame.width}:{frame.height}:flags=bicubic"]
                yield graphs.array_of(frame, depth)
    except (Failed, *FAULTS) as error:
        messages.note(error)


def sound(
    input: Input, track: int, filters: list[str], worker: Worker, messages: logs.Messages
) -> Generator[tuple[int, np.ndarray], None, None]:
    """Yield (samples a second, samples (n, channels)) behind the filters; the messages hold what is wrong with others."""
    with _opened(input, messages) as container:
        stream = container.streams.audio[track]
        messages.stream = stream.index
        tick, stored = _tick(stream), ""
        first: tuple[int, int] | None = None

        def graph_of(frame: av.AudioFrame) -> graphs.Graph:
            nonlocal first, stored
            if first is None:
                first = (frame.sample_rate, frame.layout.nb_channels)
                stored = f"aformat=sample_fmts=flt:sample_rates={frame.sample_rate}"
            return graphs.Graph(graphs.sound_source(frame, tick), [*filters, stored], "abuffersink")

        for frame in _filtered(_decoded(container, stream, worker, messages), lambda frame: frame, graph_of, messages):
            yield frame.sample_rate, frame.to_ndarray().reshape(frame.samples, -1)
        if first:
            yield first[0], np.empty((0, first[1]), np.float32)  # where no sample is left
