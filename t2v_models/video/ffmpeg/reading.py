"""Read through the ffmpeg program: facts from what it prints, frames and sound from a pipe."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Generator, Iterable, Iterator

import numpy as np

from .. import ffmpeg_text
from ..engine import Cancelled, Clip, Damaged, Encoder, Failed, Input, Packets, Picture, Sound, Track
from ..metadata import MOST_TEXT, parse_ffmetadata, too_many_texts
from . import process, text, writing

_CHUNK = 1 << 20
"""Bytes of sound that are read at once."""

_WAV_HEAD = 1 << 16
"""Bytes of a WAV file in which its samples begin."""


class Program:
    """The ffmpeg program: `t2v_models.video.engine.Engine`."""

    upgrade = "pip install --upgrade imageio-ffmpeg"

    @property
    def name(self) -> str:
        """The program's path, for messages."""
        return f"The ffmpeg at {process.ffmpeg_exe()}"

    def abilities(self, kind: str) -> frozenset[str]:
        """Return the names of the "encoders", "decoders", "muxers" or "demuxers"."""
        return process.abilities(kind)

    def reads_animated_webp(self) -> bool:
        """Whether this ffmpeg has a demuxer for it."""
        return "webp_anim" in process.abilities("demuxers")

    def first_frame(self, input: Input, cancelled: Cancelled | None) -> tuple[Picture, dict[str, str]]:
        """Return the facts that the filter showinfo prints, and the tags."""
        name = ffmpeg_text.secret_name("showinfo")
        opened = process.input_options(input)
        code = ["-map", "0:v:0", "-vf", name, "-frames:v", "1", *process.every_frame(), "-f", "null", "-"]
        facts = ["-v", "info", "-nostats", "-copyts", *opened, *code]
        _, output, stderr = process.run([*facts, "-f", "ffmetadata", "-"], most=MOST_TEXT, cancelled=cancelled)
        if len(output) > MOST_TEXT:
            too_many_texts(input.path)
            _, output, stderr = process.run(facts, cancelled=cancelled)
        picture = ffmpeg_text.picture(stderr, name)
        if picture is None:
            status, _, stderr = process.run(["-v", "error", *opened, *code], cancelled=cancelled)
            raise Failed(ffmpeg_text.error_message(stderr, status))
        return picture, parse_ffmetadata(output)

    def packets(self, input: Input, cancelled: Cancelled | None) -> Packets:
        """Count the packets that the muxer framecrc prints."""
        code = ["-map", "0:v:0", "-c", "copy", "-f", "framecrc", "-"]
        ffmpeg = process.Process(
            ["-v", "error", *process.input_options(input), *code], stdout=True, cancelled=cancelled
        )
        try:
            with open(ffmpeg.stdout.fileno(), "rb", closefd=False) as lines:
                packets = ffmpeg.wait(lambda: text.packets(lines))
            status, stderr = ffmpeg.finish(), ffmpeg.stderr()
        finally:
            ffmpeg.close()
        if not packets.count:
            raise Failed(ffmpeg_text.error_message(stderr, status))
        return packets

    def first_sound(self, input: Input, track: int, cancelled: Cancelled | None) -> Sound | None:
        """Return the facts that the filter ashowinfo prints."""
        name = ffmpeg_text.secret_name("ashowinfo")
        code = ["-map", f"0:a:{track}", "-af", name, "-frames:a", "1", "-f", "null", "-"]
        command = ["-v", "info", "-nostats", "-copyts", *process.input_options(input), *code]
        _, _, stderr = process.run(command, cancelled=cancelled)
        sound = ffmpeg_text.sound(stderr, name)
        if sound is None and "matches no streams" not in stderr:
            raise Failed(ffmpeg_text.sound_codec(stderr, track))
        return sound

    def frames(
        self, input: Input, filters: Iterable[str], *, depth: int, most: int | None, cancelled: Cancelled | None
    ) -> Generator[np.ndarray, None, None]:
        """Yield frames that come through a pipe as portable pixmaps."""
        # Frames are counted, not timed: ffmpeg refuses two that fall into one unit of time. Where their size changes it
        # begins its filters anew, and the count with them: so each count starts behind the time of its first frame.
        count = "setpts=N+if(gt(STARTT,0),floor(STARTT*1000000))"
        code = ["-map", "0:v:0", "-vf", process.chain([*filters, "settb=1/1000", count]), "-enc_time_base", "1:1000"]
        code += process.every_frame()
        code += [] if most is None else ["-frames:v", str(most)]
        code += ["-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24" if depth == 8 else "rgb48be", "pipe:1"]
        command = ["-v", "error", *process.input_options(input), *code]
        ffmpeg = process.Process(command, stdout=True, cancelled=cancelled)
        try:
            with io.BufferedReader(ffmpeg.stdout, 1 << 16) as pipe:
                while (frame := ffmpeg.wait(lambda: _pixmap(pipe, depth))) is not None:
                    yield frame
            _check(ffmpeg)
        finally:
            ffmpeg.close()

    def sound(
        self, input: Input, track: int, filters: Iterable[str], cancelled: Cancelled | None
    ) -> Generator[tuple[int, np.ndarray], None, None]:
        """Yield the samples of a WAV file that comes through a pipe."""
        # without the file's tags: a WAV has them before its samples
        code = ["-map", f"0:a:{track}", "-map_metadata", "-1"]
        code += ["-af", process.chain(filters), "-c:a", "pcm_f32le", "-f", "wav", "pipe:1"]
        command = ["-v", "error", *process.input_options(input), *code]
        ffmpeg = process.Process(command, stdout=True, cancelled=cancelled)
        try:
            with io.BufferedReader(ffmpeg.stdout, 1 << 16) as pipe:
                yield from _wav(pipe, ffmpeg)
            _check(ffmpeg)
        finally:
            ffmpeg.close()

    def check_sound(self, channels: int, rate: int, track: Track) -> None:
        """Run the encoder on a moment of silence."""
        source = ["-f", "f32le", "-ar", str(rate), "-ac", str(channels), "-i", "pipe:0"]
        code = [*source, "-map", "0:a", *writing.sound_options(channels, rate, track), "-f", "null", "-"]
        ffmpeg = process.Process(["-v", "error", *code], stdin=True)
        try:
            with contextlib.suppress(OSError):  # it has ended with an error
                ffmpeg.write(memoryview(bytes(4 * channels * (rate // 10))))
            if status := ffmpeg.finish():
                raise Failed(ffmpeg_text.error_message(ffmpeg.stderr(), status))
        finally:
            ffmpeg.close()

    def encoder(self, clip: Clip, cancelled: Cancelled | None) -> Encoder:
        """Start ffmpeg with a pipe to its input."""
        return writing.ProgramEncoder(clip, cancelled)


def _check(ffmpeg: process.Process) -> None:
    """Wait for the end; raises `Damaged` where ffmpeg has reported an error."""
    status, stderr = ffmpeg.wait(ffmpeg.finish), ffmpeg.stderr()
    if status or stderr.strip():
        raise Damaged(ffmpeg_text.error_message(stderr, status))


def _pixmap(pipe: io.BufferedReader[io.FileIO], depth: int) -> np.ndarray | None:
    """Read one portable pixmap, "P6 width height 255" and the pixels -> (h, w, 3); None at the end."""
    head = [pipe.readline(32) for _ in range(3)]
    if not head[2]:
        return None
    width, height = map(int, head[1].split())
    frame = np.empty((height, width, 3), np.uint8 if depth == 8 else np.dtype(">u2"))
    if pipe.readinto(frame.view(np.uint8).data) < frame.nbytes:
        return None
    return frame if depth == 8 else frame.astype(np.uint16)


def _wav(pipe: io.BufferedReader[io.FileIO], ffmpeg: process.Process) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (rate, samples (n, channels)) of a WAV file of float32 samples; nothing where it ends before them."""
    head = b""
    while (at := head.find(b"data")) < 0 or len(head) < at + 8:
        more = ffmpeg.wait(lambda: pipe.read(256)) if len(head) < _WAV_HEAD else b""
        if not more:
            return
        head += more
    channels, rate = struct.unpack_from("<HI", head, head.index(b"fmt ") + 10)
    yield rate, np.empty((0, channels), np.float32)  # the shape, before the samples
    rest = head[at + 8 :]
    while True:
        data = rest + ffmpeg.wait(lambda: pipe.read(_CHUNK))
        whole = len(data) // (4 * channels)
        if not whole:
            return
        yield rate, np.frombuffer(data, "<f4", whole * channels).reshape(whole, channels)
        rest = data[whole * channels * 4 :]
