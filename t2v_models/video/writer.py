"""Frames in, a video file out: one frame at a time through ffmpeg, and the file is there whole or not at all."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import weakref
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import T2VError
from . import ffmpeg
from .atomic_output import AtomicOutput
from .audio import to_audio
from .formats import DEFAULT_QUALITY, Format, check_rate, choose_format
from .frame_rate import frame_rate
from .frames import pad_to, quantize, to_array
from .metadata import PRIVATE, checked, embed, ffmetadata

log = logging.getLogger(__name__)


class VideoWriter:
    """Write a clip, frame by frame.

    >>> with VideoWriter("clip.mp4", 24, metadata={"prompt": "a cat"}) as video:
    ...     for frame in frames:  # (h, w, 3) uint8, uint16 or float 0..1
    ...         video.write(frame)

    The file appears under its name when the block ends, synced to the disk; an error, a cancel or a killed process
    leaves nothing there, and an older file of the name is refused at the start (`overwrite=True`: replaced at the end, but a
    folder stays, and the new frames go beside it).

    path: where to; for a PNG sequence the folder of the frames. fps: a number, or a fraction. format: a name of
    `FORMATS`; None chooses by the ending. quality: 0 to 100, None is each format's default (80); without effect on
    lossless formats. audio: `Audio`, or ComfyUI's AUDIO; cut or filled with silence to the clip's length. metadata:
    texts by key. loop: for GIF and WebP, how often the clip is repeated after its first showing; 0 is for ever.
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
    ):
        self.path = Path(os.path.abspath(path))
        self.fps = frame_rate(fps)
        self.format: Format = choose_format(self.path, format)
        self.frames = 0
        self._quality = DEFAULT_QUALITY if quality is None else quality
        if not 0 <= self._quality <= 100:
            raise T2VError(f"The quality is {quality}: from 0 (smallest file) to 100 (best) is possible.")
        check_rate(self.format, self.fps)
        self._audio = None if audio is None else to_audio(audio)
        if self._audio and not self.format.audio:
            raise T2VError(
                f"A {self.format.title} file holds no sound: leave the audio out, or choose mp4, webm, mov or mkv."
            )
        self._texts = checked(metadata)
        self._texts[PRIVATE + "frame_rate"] = str(self.fps)
        self._loop = loop
        self._size: tuple[int, int] | None = None  # width, height as given
        self._depth = 8
        self._process: ffmpeg.Process | None = None
        self._open = True
        self._place = AtomicOutput(self.path, overwrite=overwrite)
        self._last = weakref.finalize(self, AtomicOutput.remove, self._place)  # if it is neither closed nor aborted

    # -- the public way -----------------------------------------------------------------------------------------------

    def write(self, frame: Any) -> None:
        """Add one frame, (h, w, 3): uint8, uint16, or float 0..1; NumPy or torch. Returns when ffmpeg has taken it."""
        if not self._open:
            raise T2VError(f"{self.path.name} is closed: no frame can be added.")
        array = to_array(frame)
        height, width, _ = array.shape
        if self._process is None:
            self._start(width, height, array.dtype)
        if (width, height) != self._size:
            raise T2VError(
                f"Frame {self.frames} has {width}x{height} pixels, the first {self._size[0]}x{self._size[1]}: "
                "all must be alike."
            )
        array = pad_to(quantize(array, self._depth), *self._stored)
        if self._depth == 16:
            array = array.astype("<u2", copy=False)
        try:
            self._process.write(memoryview(np.ascontiguousarray(array)).cast("B"))
        except OSError as error:
            raise self._failure(self._process.finish()) from error
        self.frames += 1

    def close(self) -> Path:
        """Finish the file and give it its name; returns where it is (beside its name, if that was taken meanwhile)."""
        if not self._open:
            return self.path
        try:
            if self._process is None:
                raise T2VError(f"No frame was written to {self.path.name}: a video needs at least one.")
            self._finish(self._process)
            if self._audio:
                self._add_audio()
            elif self.format.muxer in ("gif", "webp"):
                self._embed(self._place.folder / self._name)
            elif self.format.muxer == "image2":
                self._embed(self._place.folder / self._name / f"{0:05d}.png")
            self.path = self._place.publish(self._name)
        finally:
            self.abort()
        return self.path

    def abort(self) -> None:
        """Stop, and leave nothing behind. Harmless after `close`."""
        self._open = False
        if self._process:
            self._process.close()
        self._last()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    # -- ffmpeg -------------------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        """Name of the unfinished file in its private folder."""
        return "video" + self.format.extension

    def _start(self, width: int, height: int, dtype: np.dtype) -> None:
        form = self.format
        self._size = (width, height)
        self._depth = 16 if form.depth > 8 and dtype != np.uint8 else 8
        self._stored = tuple(max(form.smallest, side + side % 2 if form.even else side) for side in (width, height))
        if self._stored != self._size:
            self._texts[PRIVATE + "size"] = f"{width}x{height}"
            log.info(
                "%s: %dx%d is stored as %dx%d, the last row and column repeated.",
                self.path.name,
                *self._size,
                *self._stored,
            )
        encoder = form.encoder()
        quality = int(self._quality)
        feed = ["-f", "rawvideo", "-pix_fmt", "rgb24" if self._depth == 8 else "rgb48le"]
        feed += ["-video_size", "{}x{}".format(*self._stored), "-framerate", str(self.fps), "-i", "pipe:0"]
        tags = [] if self._audio else self._tags(1)
        code = ["-map", "0:v", "-c:v", encoder, *form.arguments(encoder, quality), "-fps_mode", "passthrough"]
        code += ["-filter_complex" if form.muxer == "gif" else "-vf", self._filters(quality)]
        if form.muxer == "gif":
            code[:2] = []
        loop = self._loop + 1 if form.muxer == "webp" and self._loop else self._loop
        code += ["-loop", str(loop)] if form.loops else []
        self._process = ffmpeg.Process(
            ["-v", "error", "-stats", "-stats_period", "60", *feed, *tags, *code, *self._target(final=not self._audio)],
            stdin=True,
        )
        weakref.finalize(self, ffmpeg.Process.close, self._process)

    def _filters(self, quality: int) -> str:
        if self.format.muxer != "gif":
            return self.format.filters(quality)
        colours = max(8, min(256, round(256 * quality / DEFAULT_QUALITY)))
        return (  # a palette for every frame: nothing waits for the clip's end, and memory stays flat
            f"split[a][b];[a]palettegen=stats_mode=single:max_colors={colours}[p];[b][p]paletteuse=new=1:dither=sierra2_4a"
        )

    def _tags(self, number: int) -> list[str]:
        """Options that take the container's tags from the ffmpeg input of that number."""
        if self.format.muxer in ("gif", "webp", "image2"):
            return []
        path = self._place.folder / "tags.txt"
        path.write_bytes(ffmetadata(self._texts))
        return ["-f", "ffmetadata", "-i", ffmpeg.file_url(path), "-map_metadata", str(number)]

    def _target(self, *, final: bool) -> list[str]:
        """Options of the container, and its name."""
        path = self._place.folder / self._name
        if self.format.muxer == "image2":
            path.mkdir()
            return ["-f", "image2", "-start_number", "0", ffmpeg.file_url(path).replace("%", "%%") + "/%05d.png"]
        if not final:
            return ["-f", self.format.muxer, ffmpeg.file_url(path.with_name("silent" + self.format.extension))]
        # use_metadata_tags: keys of our own; faststart: the tags lie in front, where the graph editor looks for them.
        movflags = ["-movflags", "use_metadata_tags+faststart"] if self.format.muxer in ("mp4", "mov") else []
        return [*movflags, "-f", self.format.muxer, ffmpeg.file_url(path)]

    def _finish(self, process: ffmpeg.Process) -> None:
        status = process.finish()
        if status:
            raise self._failure(status)
        counts = re.findall(r"frame= *(\d+)", process.stderr())
        if counts and int(counts[-1]) != self.frames:
            raise T2VError(f"{self.path.name}: ffmpeg stored {counts[-1]} of {self.frames} frames; nothing was saved.")

    def _add_audio(self) -> None:
        """Sound and tags into the container in one go, the pictures copied as they are."""
        audio = self._audio.exactly(round(self.frames / self.fps * self._audio.rate))
        raw = self._place.folder / "audio.raw"
        with contextlib.suppress(FileNotFoundError), open(raw, "wb") as file:
            file.write(np.ascontiguousarray(audio.samples.T, dtype="<f4"))
        silent = ffmpeg.file_url(self._place.folder / ("silent" + self.format.extension))
        sound = ["-f", "f32le", "-ar", str(audio.rate), "-ac", str(audio.channels), "-i", ffmpeg.file_url(raw)]
        code = ["-map", "0:v", "-map", "1:a", "-c:v", "copy", *self.format.audio]
        status, _, stderr = ffmpeg.run(
            ["-v", "error", "-i", silent, *sound, *self._tags(2), *code, *self._target(final=True)]
        )
        if status:
            raise T2VError(
                f"{self.path.name}: the sound could not be added: {ffmpeg.error_message(stderr, status)}; nothing was saved."
            )

    def _embed(self, path: Path) -> None:
        if self.format.muxer == "image2" and path.with_name(f"{self.frames - 1:05d}.png").exists() is False:
            raise T2VError(f"{self.path.name}: ffmpeg did not store all {self.frames} frames; nothing was saved.")
        try:
            embed(path, self._texts)
        except OSError as error:
            raise type(error)(error.errno or 0, f"{self.path} cannot be written: {error.strerror}") from error

    def _failure(self, status: int) -> Exception:
        why = ffmpeg.error_message(self._process.stderr(), status)
        return T2VError(f"{self.path.name}: ffmpeg stopped after {self.frames} frames: {why}; nothing was saved.")
