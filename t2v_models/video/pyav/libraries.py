"""ffmpeg's libraries as an engine: what the interface asks, each in a thread that hears a cancel."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

import av
import numpy as np

from .. import ffmpeg_text
from ..engine import Cancelled, Clip, Damaged, Encoder, Input, Packets, Picture, Sound, Track
from . import logs, reading, writing
from .worker import Worker

_T = TypeVar("_T")


class PyAV:
    """ffmpeg's libraries, by PyAV: `t2v_models.video.engine.Engine`."""

    upgrade = "pip install --upgrade av"

    @property
    def name(self) -> str:
        """PyAV and its version, for messages."""
        return f"PyAV {av.__version__}"

    def abilities(self, kind: str) -> frozenset[str]:
        """Return the names of the "encoders", "decoders", "muxers" or "demuxers"."""
        return reading.abilities(kind)

    def reads_animated_webp(self) -> bool:
        """Whether an animated WebP can be read: by Pillow where ffmpeg has no demuxer of it."""
        return True

    def first_frame(self, input: Input, cancelled: Cancelled | None) -> tuple[Picture, dict[str, str]]:
        """Return the facts that the filter showinfo prints, and the tags."""
        return _done(cancelled, lambda worker: reading.first_frame(input, worker))

    def packets(self, input: Input, cancelled: Cancelled | None) -> Packets:
        """Count the packets of the demuxer."""
        return _done(cancelled, lambda worker: reading.packets(input, worker))

    def first_sound(self, input: Input, track: int, cancelled: Cancelled | None) -> Sound | None:
        """Return the facts that the filter ashowinfo prints."""
        return _done(cancelled, lambda worker: reading.first_sound(input, track, worker))

    def frames(
        self, input: Input, filters: Iterable[str], *, depth: int, most: int | None, cancelled: Cancelled | None
    ) -> Generator[np.ndarray, None, None]:
        """Yield frames from the memory of the filters."""
        worker, messages = Worker(cancelled), logs.Messages()
        yield from worker.items(reading.frames(input, [*filters], depth, most, worker, messages))
        if messages.errors.strip():
            raise Damaged(ffmpeg_text.error_message(messages.errors))

    def sound(
        self, input: Input, track: int, filters: Iterable[str], cancelled: Cancelled | None
    ) -> Generator[tuple[int, np.ndarray], None, None]:
        """Yield samples from the memory of the filters."""
        worker, messages = Worker(cancelled), logs.Messages()
        yield from worker.items(reading.sound(input, track, [*filters], worker, messages))
        if messages.errors.strip():
            raise Damaged(ffmpeg_text.error_message(messages.errors))

    def check_sound(self, channels: int, rate: int, track: Track) -> None:
        """Run the encoder on a moment of silence."""
        writing.check_sound(channels, rate, track)

    def encoder(self, clip: Clip, cancelled: Cancelled | None) -> Encoder:
        """Open the container."""
        return writing.PyAVEncoder(clip, cancelled)


def _done(cancelled: Cancelled | None, job: Callable[[Worker], _T]) -> _T:
    """Return what a job returns; after a cancel it ends by itself."""
    worker = Worker(cancelled)

    def guarded() -> _T:
        try:
            return job(worker)
        except reading.FAULTS as error:
            raise logs.Messages().failed(error) from error

    try:
        return worker.run(guarded)
    finally:
        worker.close()
