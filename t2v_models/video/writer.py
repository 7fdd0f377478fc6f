"""Write a video file frame by frame through ffmpeg; the file appears whole or not at all."""

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
from . import ffmpeg, ffmpeg_text
from .audio import Audio, to_audio
from .formats import DEFAULT_QUALITY, Sound, check_rate, check_size, check_sound, check_texts, choose_format
from .frame_rate import frame_rate
from .frames import pad_to, quantize, to_array
from .metadata import PRIVATE, checked, embed, ffmetadata

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Encoding:
    """What the first frame decides, and the ffmpeg that encodes the frames."""

    size: tuple[int, int]
    """(width, height) of the frames."""
    stored: tuple[int, int]
    """(width, height) in the file: even, or larger, where the format demands it."""
    depth: int
    """Bits a channel that ffmpeg gets: 8 or 16."""
    process: ffmpeg.Process


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
        cancelled: ffmpeg.Cancelled | None = None,
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
        self._audio = None if audio is None else to_audio(audio)
        sound = check_sound(self.format) if self._audio else None
        self._texts = checked(metadata)
        self._texts[PRIVATE + "frame_rate"] = str(self.fps)
        check_texts(self.format, self._texts)
        self._loop = loop
        self._encoding: _Encoding | None = None
        self._open = True
        self._output = AtomicOutput(self.path, overwrite=overwrite)
        self._remove = weakref.finalize(self, AtomicOutput.remove, self._output)  # if it is neither closed nor aborted
        self._sound: list[str] = []
        if self._audio and sound:
            self._sound = self._sound_options(self._audio, sound)
            self._try_sound(self._audio)

    def write(self, frame: Any) -> None:
        """Add one frame, (h, w, 3) uint8, uint16 or float 0..1, NumPy or torch; blocks while ffmpeg is busy.

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
        array = pad_to(quantize(array, encoding.depth), *encoding.stored)
        if encoding.depth == 16:
            array = array.astype("<u2", copy=False)
        try:
            encoding.process.write(np.ascontiguousarray(array).data.cast("B"))
        except OSError as error:
            raise self._failure(encoding.process.finish(), encoding.process) from error
        self.frames += 1

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
            self._finish(self._encoding.process)
            if self._audio:
                self._add_audio(self._audio)
            elif self.format.muxer in ("gif", "webp"):
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
            self._encoding.process.close()
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
        feed = ["-f", "rawvideo", "-pix_fmt", "rgb24" if depth == 8 else "rgb48le"]
        feed += ["-video_size", f"{stored[0]}x{stored[1]}", "-framerate", str(self.fps), "-i", "pipe:0"]
        tags = [] if self._audio else self._tags(1)
        target = self._target(final=not self._audio)
        process = ffmpeg.Process(
            [*ffmpeg.statistics(), *feed, *tags, *self._encoder_options(), *target],
            stdin=True,
            cancelled=self._cancelled,
        )
        weakref.finalize(self, ffmpeg.Process.close, process)
        self._encoding = _Encoding(size, stored, depth, process)
        return self._encoding

    def _encoder_options(self) -> list[str]:
        form, quality = self.format, int(self._quality)
        encoder = form.encoder()
        options = ["-c:v", encoder, *form.arguments(encoder, quality), *ffmpeg.every_frame()]
        if form.muxer == "gif":  # a complex filter maps its own output
            options += ["-filter_complex", self._filters(quality)]
        else:
            options = ["-map", "0:v", *options, "-vf", self._filters(quality)]
        # WebP counts the showings, GIF the repetitions; 0 is for ever in both
        loop = self._loop + 1 if form.muxer == "webp" and self._loop else self._loop
        return [*options, "-loop", str(loop)] if form.loops else options

    def _filters(self, quality: int) -> str:
        if self.format.muxer != "gif":
            return self.format.filters(quality)
        colours = max(8, min(256, round(256 * quality / DEFAULT_QUALITY)))
        return (  # a palette for every frame: nothing waits for the clip's end, and memory stays flat
            f"split[a][b];[a]palettegen=stats_mode=single:max_colors={colours}[p];[b][p]paletteuse=new=1:dither=sierra2_4a"
        )

    def _tags(self, number: int) -> list[str]:
        """Return the options that read the container's tags as the ffmpeg input of that number."""
        if self.format.muxer in ("gif", "webp", "image2"):
            return []
        path = self._output.folder / "tags.txt"
        path.write_bytes(ffmetadata(self._texts))
        return ["-f", "ffmetadata", "-i", ffmpeg.file_url(path), "-map_metadata", str(number)]

    def _target(self, *, final: bool) -> list[str]:
        """Return the options of the container, and the URL of its file."""
        path = self._output.folder / self._name
        if self.format.muxer == "image2":
            path.mkdir()
            return ["-f", "image2", "-start_number", "0", ffmpeg.file_url(path).replace("%", "%%") + "/%05d.png"]
        if not final:
            return ["-f", self.format.muxer, ffmpeg.file_url(path.with_name("silent" + self.format.extension))]
        # use_metadata_tags: keys of our own; faststart: the tags lie in front, where the graph editor looks for them.
        movflags = ["-movflags", "use_metadata_tags+faststart"] if self.format.muxer in ("mp4", "mov") else []
        return [*movflags, "-f", self.format.muxer, ffmpeg.file_url(path)]

    def _finish(self, process: ffmpeg.Process) -> None:
        status = process.wait(process.finish)
        if status:
            raise self._failure(status, process)
        count = ffmpeg_text.written_frames(process.stderr())
        if count not in (None, self.frames):
            raise T2VError(f"{self.path.name}: ffmpeg stored {count} of {self.frames} frames; nothing was saved.")

    def _sound_options(self, audio: Audio, sound: Sound) -> list[str]:
        """Return the options of the sound's encoder, with a layout and a rate that it takes."""
        options = ["-c:a", sound.encoder, *sound.options]
        if layout := dict(sound.layouts).get(audio.channels):
            same = "|".join(f"c{index}=c{index}" for index in range(audio.channels))
            options += ["-af", f"pan={layout}|{same}"]
        lowest, highest = sound.rates
        if not lowest <= audio.rate <= highest:
            rate = min(max(audio.rate, lowest), highest)
            log.warning("%s: the sound's %d samples a second are stored as %d, which %s takes.", self.path.name,
                        audio.rate, rate, sound.encoder)  # fmt: skip
            options += ["-ar", str(rate)]
        return options

    def _try_sound(self, audio: Audio) -> None:
        """Encode a moment of silence as the sound will be, so that an impossible sound is found before the first frame."""
        silence = Audio(np.zeros((audio.channels, audio.rate // 10), np.float32), audio.rate)
        code = [*self._raw(silence), "-map", "0:a", *self._sound, "-f", "null", "-"]
        status, _, stderr = ffmpeg.run(["-v", "error", *code])
        if status:
            self._remove()
            raise T2VError(
                f"{self.path.name}: ffmpeg cannot store {audio.channels} channels of {audio.rate} samples a second in "
                f"{self.format.name} ({ffmpeg_text.error_message(stderr, status)}): choose another format, or stereo sound."
            )

    def _raw(self, audio: Audio) -> list[str]:
        """Write the samples to a file in the private folder; returns the options that read it as ffmpeg's input."""
        path = self._output.folder / "audio.raw"
        with open(path, "wb") as file:
            file.write(np.ascontiguousarray(audio.samples.T, dtype="<f4").data)
        return ["-f", "f32le", "-ar", str(audio.rate), "-ac", str(audio.channels), "-i", ffmpeg.file_url(path)]

    def _add_audio(self, audio: Audio) -> None:
        """Write sound and tags into the container, and copy the pictures as they are."""
        audio = audio.exactly(round(self.frames / self.fps * audio.rate))
        silent = ffmpeg.file_url(self._output.folder / ("silent" + self.format.extension))
        code = ["-map", "0:v", "-map", "1:a", "-c:v", "copy", *self._sound]
        command = ["-v", "error", "-i", silent, *self._raw(audio), *self._tags(2), *code, *self._target(final=True)]
        status, _, stderr = ffmpeg.run(command, cancelled=self._cancelled)
        if status:
            why = ffmpeg_text.error_message(stderr, status)
            raise T2VError(f"{self.path.name}: the sound could not be added: {why}; nothing was saved.")

    def _embed(self, path: Path) -> None:
        """Write the texts into a PNG, WebP or GIF file."""
        if self.format.muxer == "image2" and not path.with_name(f"{self.frames - 1:05d}.png").exists():
            raise T2VError(f"{self.path.name}: ffmpeg did not store all {self.frames} frames; nothing was saved.")
        try:
            embed(path, self._texts)
        except OSError as error:
            raise type(error)(error.errno or 0, f"{self.path} cannot be written: {error.strerror}") from error

    def _failure(self, status: int, process: ffmpeg.Process) -> T2VError:
        why = ffmpeg_text.error_message(process.stderr(), status)
        return T2VError(f"{self.path.name}: ffmpeg stopped after {self.frames} frames: {why}; nothing was saved.")
