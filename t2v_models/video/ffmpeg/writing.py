"""Write through the ffmpeg program: frames go into a pipe, sound is added in a second run."""

from __future__ import annotations

import os

import numpy as np

from .. import ffmpeg_text
from ..audio import Audio
from ..engine import Cancelled, Clip, Failed, Track, file_url
from ..metadata import ffmetadata
from . import process, text


class ProgramEncoder:
    """A file that ffmpeg writes: `t2v_models.video.engine.Encoder`."""

    def __init__(self, clip: Clip, cancelled: Cancelled | None):
        self._clip, self._cancelled, self._frames = clip, cancelled, 0
        width, height = clip.size
        feed = ["-f", "rawvideo", "-pix_fmt", "rgb24" if clip.depth == 8 else "rgb48le"]
        feed += ["-video_size", f"{width}x{height}", "-framerate", str(clip.fps), "-i", "pipe:0"]
        tags = [] if clip.audio else self._tags(1)
        code = [*process.statistics(), *feed, *tags, *self._encoder_options(), *self._target(final=not clip.audio)]
        self._process = process.Process(code, stdin=True, cancelled=cancelled)

    def write(self, frame: np.ndarray) -> None:
        """Write a frame into the pipe; blocks while ffmpeg is busy."""
        try:
            self._process.write(frame.data.cast("B"))
        except OSError as error:
            raise Failed(ffmpeg_text.error_message(self._process.stderr(), self._process.finish())) from error
        self._frames += 1

    def finish(self) -> None:
        """Wait until ffmpeg has ended the file, and add the sound."""
        status = self._process.wait(self._process.finish)
        stderr = self._process.stderr()
        if status:
            raise Failed(ffmpeg_text.error_message(stderr, status))
        count = text.written_frames(stderr)
        if count not in (None, self._frames):
            raise Failed(f"it stored {count} of them")
        if self._clip.audio and self._clip.track:
            self._add_sound(self._clip.audio, self._clip.track)

    def close(self) -> None:
        """Kill ffmpeg where it still runs."""
        self._process.close()

    def _encoder_options(self) -> list[str]:
        clip = self._clip
        options = [
            "-c:v",
            clip.encoder,
            *(part for key, value in clip.options.items() for part in (f"-{key}:v", value)),
        ]
        options += process.every_frame()
        if clip.colours is None:
            options = ["-map", "0:v", *options, "-vf", process.chain(clip.filters)]
        else:  # a complex filter maps its own output; a palette for every frame: nothing waits for the clip's end
            made = f"palettegen=stats_mode=single:max_colors={clip.colours}"
            used = "paletteuse=new=1:dither=sierra2_4a"
            options += ["-filter_complex", f"split[a][b];[a]{made}[p];[b][p]{used}"]
        return options if clip.loop is None else [*options, "-loop", str(clip.loop)]

    def _tags(self, number: int) -> list[str]:
        """Return the options that read the container's tags as the ffmpeg input of that number."""
        if not self._clip.texts:
            return []
        path = self._clip.folder / "tags.txt"
        path.write_bytes(ffmetadata(self._clip.texts))
        return ["-f", "ffmetadata", "-i", file_url(path), "-map_metadata", str(number)]

    @property
    def _silent(self) -> str:
        """The URL of the file that has no sound yet."""
        return file_url(self._clip.folder / ("silent" + self._clip.path.suffix))

    def _target(self, *, final: bool) -> list[str]:
        """Return the options of the container, and the URL of its file."""
        path, muxer = self._clip.path, self._clip.muxer
        if muxer == "image2":
            return ["-f", "image2", "-start_number", "0", file_url(path).replace("%", "%%") + "/%05d.png"]
        if not final:
            return ["-f", muxer, self._silent]
        # use_metadata_tags: keys of our own; faststart: the tags lie in front, where the graph editor looks for them.
        movflags = ["-movflags", "use_metadata_tags+faststart"] if muxer in ("mp4", "mov") else []
        return [*movflags, "-f", muxer, file_url(path)]

    def _add_sound(self, audio: Audio, track: Track) -> None:
        """Write sound and tags into the container, and copy the pictures as they are."""
        audio = audio.exactly(round(self._frames / self._clip.fps * audio.rate))
        path = self._clip.folder / "audio.raw"
        with open(path, "wb") as file:
            file.write(np.ascontiguousarray(audio.samples.T, dtype="<f4").data)
        raw = ["-f", "f32le", "-ar", str(audio.rate), "-ac", str(audio.channels), "-i", file_url(path)]
        code = ["-map", "0:v", "-map", "1:a", "-c:v", "copy", *sound_options(audio.channels, audio.rate, track)]
        command = ["-v", "error", "-i", self._silent, *raw, *self._tags(2), *code, *self._target(final=True)]
        status, _, stderr = process.run(command, cancelled=self._cancelled)
        if status:
            raise Failed(f"the sound could not be added: {ffmpeg_text.error_message(stderr, status)}")
        os.remove(path)


def sound_options(channels: int, rate: int, track: Track) -> list[str]:
    """Return the options that encode sound of that many channels and samples a second as a track."""
    options = ["-c:a", track.encoder, *(part for key, value in track.options.items() for part in (f"-{key}:a", value))]
    if track.layout:
        same = "|".join(f"c{index}=c{index}" for index in range(channels))
        options += ["-af", f"pan={track.layout}|{same}"]
    return options if track.rate == rate else [*options, "-ar", str(track.rate)]
