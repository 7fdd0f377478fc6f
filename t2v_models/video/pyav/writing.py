"""Write through ffmpeg's libraries: filter, encode, mux; sound goes beside the frames that it belongs to."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import av.codec
import av.error
import numpy as np

from ..audio import Audio
from ..engine import Cancelled, Clip, Failed, Track, file_url
from . import graphs, logs
from .worker import Worker

_FAULTS = (av.error.FFmpegError, OSError, ValueError, MemoryError)
"""What PyAV raises about a file that it cannot write."""

_PRINTS = {"libsvtav1"}
"""Encoders that print to the process's error output when they begin."""

_MOST_REORDERED = 1000
"""Frames by which a packet can be decoded before it is shown."""

_MOST_SAMPLES = 1 << 16
"""Samples of a channel that are encoded at once."""


class PyAVEncoder:
    """A file that ffmpeg's libraries write: `t2v_models.video.engine.Encoder`."""

    def __init__(self, clip: Clip, cancelled: Cancelled | None):
        self._worker, self._writing = Worker(cancelled), _Writing(clip)

    def write(self, frame: np.ndarray) -> None:
        """Copy a frame, and encode it while the caller makes the next one."""
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24" if frame.dtype == np.uint8 else "rgb48le")
        self._worker.begin(lambda: self._writing.add(picture))

    def finish(self) -> None:
        """Encode what is left, and end the file."""
        self._worker.run(lambda: self._writing.finish(self._worker))

    def close(self) -> None:
        """Free everything; a file that has not been ended stays without its end."""
        self._worker.close(self._writing.close)


class _Writing:
    """The work of an encoder, all of it in one thread."""

    def __init__(self, clip: Clip):
        self._clip, self._messages = clip, logs.Messages()
        self._container: Any = None  # av.container.OutputContainer
        self._graph: graphs.Graph | None = None
        self._sound: _Sound | None = None
        self._given = self._stored = 0

    def add(self, frame: av.VideoFrame) -> None:
        with self._failing():
            graph = self._graph = self._graph or self._begin(frame)
            frame.pts, frame.time_base = self._given, 1 / self._clip.fps
            self._given += 1
            self._push(graph, frame)
            if self._sound:
                self._sound.write(self._given / self._clip.fps)

    def finish(self, worker: Worker) -> None:
        with self._failing():
            if self._graph:
                self._push(self._graph, None)
            for packet in self._stream.encode_lazy(None):
                self._mux(packet)
                if worker.stopped.is_set():
                    return
            if self._sound:
                self._sound.end()
            self._ended().close()
        if self._stored != self._given:
            raise Failed(f"it stored {self._stored} of them")

    def close(self) -> None:
        """Close the file; where it has no end yet it is removed first, so that no time is spent on one."""
        if self._container is not None:
            if self._clip.path.is_file():
                with contextlib.suppress(OSError):
                    self._clip.path.unlink()
            with self._messages.caught(), contextlib.suppress(*_FAULTS):
                self._ended().close()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Raise `Failed` for whatever PyAV raises."""
        try:
            with self._messages.caught():
                yield
        except _FAULTS as error:
            raise self._messages.failed(error) from error

    def _ended(self) -> av.container.OutputContainer:
        """Return the container, to be closed, and forget it."""
        container, self._container = self._container, None
        return container

    def _begin(self, frame: av.VideoFrame) -> graphs.Graph:
        """Open the container; returns the filters."""
        clip = self._clip
        url, options = file_url(clip.path), {}
        if clip.muxer == "image2":
            url, options = url.replace("%", "%%") + "/%05d.png", {"start_number": "0"}
        elif clip.muxer in ("mp4", "mov"):
            # use_metadata_tags: keys of our own; faststart: the tags lie in front, where the graph editor looks for them.
            options = {"movflags": "use_metadata_tags+faststart"}
        if clip.loop is not None:
            options["loop"] = str(clip.loop)
        self._container = av.open(url, "w", format=clip.muxer, container_options=options)
        self._container.metadata.update(clip.texts)
        self._stream = self._container.add_stream(clip.encoder, rate=clip.fps)
        if clip.audio and clip.track:
            self._sound = _Sound(self._container, clip.audio, clip.track)
        source = graphs.picture_source(frame, 1 / clip.fps, clip.fps)
        if clip.colours is not None:
            return graphs.PaletteGraph(source, clip.colours)
        return graphs.Graph(source, clip.filters, "buffersink")

    def _push(self, graph: graphs.Graph, frame: av.VideoFrame | None) -> None:
        graph.push(frame)
        while (made := graph.pull()) is not None:
            if not self._stream.codec_context.is_open:
                self._open(made)
            for packet in self._stream.encode(made):
                self._mux(packet)

    def _open(self, frame: av.VideoFrame) -> None:
        """Open the encoder for frames like the first one that the filters make."""
        context, options = self._stream.codec_context, dict(self._clip.options)
        context.width, context.height, context.pix_fmt = frame.width, frame.height, frame.format.name
        for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
            if (value := getattr(frame, name, None)) is not None:  # an older PyAV has not all of them
                setattr(context, name, int(value))
        context.thread_type = "AUTO"  # whole frames at once, too: x264 would cut them into slices
        context.time_base = 1 / self._clip.fps
        if tag := options.pop("tag", None):
            context.codec_tag = tag
        context.options = options
        with _quiet() if self._clip.encoder in _PRINTS else contextlib.nullcontext():
            context.open(strict=False)

    def _mux(self, packet: av.Packet) -> None:
        if packet.dts is None or not -_MOST_REORDERED <= packet.dts <= packet.pts:
            # x265 leaves it to chance where a clip has fewer frames than are reordered
            packet.dts = min(packet.pts, self._stored - self._stream.codec_context.has_b_frames)
        self._stored += 1
        if not packet.duration:
            packet.duration = 1  # as long as a frame; a container needs that of the last one
        self._container.mux(packet)


class _Sound:
    """The sound track of a file, which is encoded frame by frame of the pictures."""

    def __init__(self, container: av.container.OutputContainer, audio: Audio, track: Track):
        self._container, self._audio, self._given = container, audio, 0
        self._layout = track.layout or graphs.layout_of(audio.channels)
        options = dict(track.options)
        rates = av.codec.Codec(track.encoder, "w").audio_rates or [track.rate]
        rate = min(rates, key=lambda known: abs(known - track.rate))  # the one that ffmpeg's filters choose
        self._stream = container.add_stream(track.encoder, rate=rate)
        context = self._stream.codec_context
        context.layout = self._layout
        if stored := options.pop("sample_fmt", None):
            context.format = stored
        context.options = options

    def write(self, seconds: Fraction) -> None:
        """Encode the samples up to that time; silence follows the sound's end."""
        rate = self._audio.rate
        end = round(seconds * rate)
        samples = self._audio.samples[:, self._given : end]
        missing = end - self._given - samples.shape[1]
        samples = np.pad(samples, ((0, 0), (0, missing)))
        for part in np.split(samples, range(_MOST_SAMPLES, samples.shape[1], _MOST_SAMPLES), axis=1):
            if part.shape[1]:
                interleaved = np.ascontiguousarray(part.T, np.float32).reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=self._layout)
                frame.sample_rate, frame.pts, frame.time_base = rate, self._given, Fraction(1, rate)
                self._given += part.shape[1]
                self._container.mux(self._stream.encode(frame))

    def end(self) -> None:
        """Encode what the encoder has kept."""
        self._container.mux(self._stream.encode(None))


def check_sound(channels: int, rate: int, track: Track) -> None:
    """Encode a moment of silence; raises `Failed` where that sound cannot be stored so."""
    messages = logs.Messages()
    try:
        with messages.caught(), av.open("silence", "w", format="null") as container:
            sound = _Sound(container, Audio(np.zeros((channels, rate // 10), np.float32), rate), track)
            sound.write(Fraction(1, 10))
            sound.end()
    except _FAULTS as error:
        raise messages.failed(error) from error


_error_output = threading.Lock()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop the lines "Svt[…" that an encoder prints to the process's error output; all other lines stay."""
    with _error_output, tempfile.TemporaryFile() as lines:
        try:
            kept = os.dup(2)
        except OSError:  # a program without an error output
            yield
            return
        os.dup2(lines.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            lines.seek(0)
            for line in lines:
                if not line.startswith(b"Svt["):
                    os.write(kept, line)
            os.close(kept)
