"""Write a video file frame by frame; the file appears whole or not at all."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic_output import AtomicOutput, checked_path
from ..errors import T2VError
from .audio import Audio, to_audio
from .engine import Cancelled, Clip, Encoder, Failed, Track
from .engines import engine
from .formats import (
    DEFAULT_QUALITY,
    Sound,
    check_loops,
    check_rate,
    check_size,
    check_sound,
    check_texts,
    choose_format,
)
from .frame_rate import frame_rate
from .frames import pad_to, quantize, to_array
from .metadata import PRIVATE, checked, embed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Encoding:
    """What the first frame decides, and what encodes the frames."""

    size: tuple[int, int]
    """(width, height) of the frames."""
    stored: tuple[int, int]
    """(width, height) in the file: even, or larger, where the format demands it."""
    depth: int
    """Bits a channel that the encoder gets: 8 or 16."""
    encoder: Encoder


class VideoWriter:
    """Write a clip, frame by frame.

    >>> with VideoWriter("clip.mp4", 24, metadata={"prompt": "a cat"}) as video:
    ...     for frame in frames:  # (h, w, 3) uint8, uint16 or float 0..1
    ...         video.write(frame)

    The file appears under its name when the block ends, synced to the disk; an error, a cancel or a kill leaves no file
    under that name.

    Args:
        path: the file; for a PNG sequence the folder of the frames.
        fps: frames a second, a number or a fraction.
        format: a name of `FORMATS`; None chooses by the path's ending.
        quality: 0 (smallest file) to 100 (best); None is each format's default (80). Lossless formats ignore it.
        audio: `Audio`, or ComfyUI's AUDIO; it is cut, or filled with silence, to the clip's length.
        metadata: texts by key; a value that is no text is stored as JSON.
        loop: for GIF and WebP, how often the clip is repeated after its first showing; 0 repeats it for ever.
        overwrite: replace an older file at the end. An older folder stays, and the new frames go beside it.
        cancelled: called four times a second while ffmpeg ends the file; it raises to cancel, and no file is left.

    Raises:
        FileExistsError: where the file exists, without `overwrite`.
        OSError: where it cannot be written there.
        T2VError: where an argument is impossible, or the ffmpeg in use cannot write the format.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: float | str | Fraction,
        *,
        format: str | None = None,
        quality: int | None = None,
        audio: Any = None,
        metadata: Mapping[str, Any] | None = None,
        loop: int = 0,
        overwrite: bool = False,
        cancelled: Cancelled | None = None,
    ):
        self._cancelled = cancelled
        self.path = checked_path(path)
        self.fps = frame_rate(fps)
        self.format = choose_format(self.path, format)
        self.frames = 0
        self._quality = DEFAULT_QUALITY if quality is None else quality
        if not 0 <= self._quality <= 100:
            raise T2VError(f"The quality is {quality}: from 0 (smallest file) to 100 (best) is possible.")
        check_rate(self.format, self.fps)
        check_loops(self.format, loop)
        self._audio = None if audio is None else to_audio(audio)
        sound = check_sound(self.format) if self._audio else None
        self._track: Track | None = None
        if self._audio and sound:
            self._track = self._checked_track(self._audio, sound)
        self._texts = checked(metadata)
        self._texts[PRIVATE + "frame_rate"] = str(self.fps)
        check_texts(self.format, self._texts)
        self._loop = loop
        self._reported: set[str] = set()
        self._encoding: _Encoding | None = None
        self._open = True
        self._output = AtomicOutput(self.path, overwrite=overwrite)
        self._remove = weakref.finalize(self, AtomicOutput.remove, self._output)  # if it is neither closed nor aborted

    def write(self, frame: Any) -> None:
        """Add one frame, (h, w, 3) uint8, uint16 or float 0..1, NumPy or torch; blocks while the encoder is busy.

        Raises:
            T2VError: where the writer is closed, the frame has another size than the first, or ffmpeg fails.
        """
        if not self._open:
            raise T2VError(f"{self.path.name} is closed: no frame can be added.")
        array = to_array(frame)
        height, width, _ = array.shape
        encoding = self._encoding or self._start(width, height, array.dtype)
        if (width, height) != encoding.size:
            raise T2VError(
                f"Frame {self.frames} has {width}x{height} pixels, the first {encoding.size[0]}x{encoding.size[1]}: "
                "all must be alike."
            )
        array = pad_to(quantize(array, encoding.depth, self._report), *encoding.stored)
        if encoding.depth == 16:
            array = array.astype("<u2", copy=False)
        try:
            encoding.encoder.write(np.ascontiguousarray(array))
        except Failed as error:
            raise self._failure(error) from error
        self.frames += 1

    def _report(self, what: str) -> None:
        """Log something about the frames, once for the clip."""
        if what not in self._reported:
            self._reported.add(what)
            log.warning("%s: %s", self.path.name, what)

    def close(self) -> Path:
        """Finish the file and give it its name; returns where it is (beside its name, where that was taken meanwhile).

        Raises:
            OSError: where the file cannot be written there.
            T2VError: where no frame was written, or ffmpeg fails.
        """
        if not self._open:
            return self.path
        try:
            if self._encoding is None:
                raise T2VError(f"No frame was written to {self.path.name}: a video needs at least one.")
            try:
                self._encoding.encoder.finish()
            except Failed as error:
                raise self._failure(error) from error
            if self.format.muxer in ("gif", "webp"):
                self._embed(self._output.folder / self._name)
            elif self.format.muxer == "image2":
                self._embed(self._output.folder / self._name / f"{0:05d}.png")
            self.path = self._output.publish(self._name)
        finally:
            self.abort()
        return self.path

    def abort(self) -> None:
        """Stop, and remove the unfinished file. Does nothing after `close`."""
        self._open = False
        if self._encoding:
            self._encoding.encoder.close()
        self._remove()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    @property
    def _name(self) -> str:
        """The name of the unfinished file in its private folder."""
        return "video" + self.format.extension

    def _start(self, width: int, height: int, dtype: np.dtype) -> _Encoding:
        """Start ffmpeg for frames of that size and type."""
        form, size = self.format, (width, height)
        check_size(form, width, height)
        depth = 16 if form.depth > 8 and dtype != np.uint8 else 8
        even = (width + width % 2, height + height % 2) if form.even else size
        stored = max(form.smallest, even[0]), max(form.smallest, even[1])
        if stored != size:
            self._texts[PRIVATE + "size"] = f"{width}x{height}"
            padded = "%s: %dx%d is stored as %dx%d, the last row and column repeated."
            log.info(padded, self.path.name, *size, *stored)
        encoder = engine().encoder(self._clip(stored, depth), self._cancelled)
        weakref.finalize(self, type(encoder).close, encoder)
        self._encoding = _Encoding(size, stored, depth, encoder)
        return self._encoding

    def _clip(self, stored: tuple[int, int], depth: int) -> Clip:
        """Return how frames of that size and depth are stored."""
        form, quality, path = self.format, int(self._quality), self._output.folder / self._name
        encoder = form.encoder()
        # WebP counts the showings, GIF the repetitions; 0 is for ever in both
        loop = self._loop + 1 if form.muxer == "webp" and self._loop else self._loop
        colours = max(8, min(256, round(256 * quality / DEFAULT_QUALITY)))
        if form.muxer == "image2":
            path.mkdir()
        return Clip(
            path=path,
            folder=self._output.folder,
            muxer=form.muxer,
            encoder=encoder,
            options=form.options(encoder, quality),
            filters=form.filters(quality),
            size=stored,
            depth=depth,
            fps=self.fps,
            colours=colours if form.muxer == "gif" else None,
            loop=loop if form.loops else None,
            texts={} if form.muxer in ("gif", "webp", "image2") else self._texts,  # these get theirs at the end
            audio=self._audio,
            track=self._track,
        )

    def _checked_track(self, audio: Audio, sound: Sound) -> Track:
        """Return how the sound is stored, after a moment of silence was; an impossible one is found before the first frame."""
        track = sound.track(audio.channels, audio.rate)
        if track.rate != audio.rate:
            log.warning("%s: the sound's %d samples a second are stored as %d, which %s takes.", self.path.name,
                        audio.rate, track.rate, sound.encoder)  # fmt: skip
        try:
            engine().check_sound(audio.channels, audio.rate, track)
        except Failed as error:
            raise T2VError(
                f"{self.path.name}: ffmpeg cannot store {audio.channels} channels of {audio.rate} samples a second in "
                f"{self.format.name} ({error}): choose another format, or stereo sound."
            ) from error
        return track

    def _embed(self, path: Path) -> None:
        """Write the texts into a PNG, WebP or GIF file."""
        if self.format.muxer == "image2" and not path.with_name(f"{self.frames - 1:05d}.png").exists():
            raise T2VError(f"{self.path.name}: ffmpeg did not store all {self.frames} frames; nothing was saved.")
        try:
            embed(path, self._texts)
        except OSError as error:
            raise type(error)(error.errno or 0, f"{self.path} cannot be written: {error.strerror}") from error

    def _failure(self, why: Failed) -> T2VError:
        return T2VError(f"{self.path.name}: ffmpeg stopped after {self.frames} frames: {why}; nothing was saved.")
