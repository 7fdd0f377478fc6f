"""What a file holds, without decoding it: size, frame rate, frame count, sound, metadata."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from ..errors import T2VError
from . import ffmpeg, ffmpeg_text
from .ffmpeg_text import AudioInfo
from .frame_rate import frame_rate, measured_rate
from .metadata import PRIVATE, parse_ffmetadata, read_embedded
from .truncation import check_whole, count_gif_pictures


@dataclass(frozen=True)
class VideoInfo:
    """Facts about a clip that need no decoded frame."""

    width: int
    height: int
    fps: Fraction
    """Frames a second."""
    frame_count: int
    pixels: str
    """ffmpeg's name of the stored pixel format."""
    colour: str | None
    """The colour matrix that the file names, such as "bt709"; None where it names none."""
    audio: AudioInfo | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    """The texts in the file, such as the workflow, by key."""
    stored_size: tuple[int, int] = (0, 0)
    """(width, height) with the rows and columns that were added to make them even."""

    @property
    def duration(self) -> float:
        """Seconds, the last frame's own time included."""
        return float(self.frame_count / self.fps)


@dataclass(frozen=True)
class Source:
    """A file, or a folder of numbered PNG frames, with ffmpeg's options to read it."""

    path: Path
    input: tuple[str, ...]
    """ffmpeg's options, "-i" and the file's URL included."""
    first: Path
    """The file that holds the metadata: the first frame of a folder."""
    count: int | None = None
    """Frames of a folder or a GIF, for which ffmpeg need not be asked; None for any other file."""


def open_source(path: Path, *, strict: bool = True) -> Source:
    """Find out what a path is: a video file or a folder of numbered PNG frames.

    strict: refuse a file that is cut off.

    Raises:
        FileNotFoundError, PermissionError: with one sentence.
        T2VError: where the path is no video, is cut off, or the ffmpeg in use cannot read its format.
    """
    try:
        if path.is_dir():
            return _folder(path)
        with open(path, "rb") as file:
            head = file.read(16)
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, "There is no such video file", str(path)) from error
    except PermissionError as error:
        raise PermissionError(error.errno, "There is no permission to read this video file", str(path)) from error
    if not head:
        raise T2VError(f"{path.name} is empty (0 bytes): it is no video.")
    if strict:
        check_whole(path)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP" and "webp_anim" not in ffmpeg.abilities("demuxers"):
        raise T2VError(f"This ffmpeg cannot read animated WebP ({path.name}): pip install --upgrade imageio-ffmpeg.")
    count = count_gif_pictures(path)
    return Source(path, (*ffmpeg.SAFE_INPUT, "-i", ffmpeg.file_url(path)), path, count)


def _folder(path: Path) -> Source:
    names = [child.name for child in path.iterdir() if child.suffix.lower() == ".png"]
    numbers = [match for name in names if (match := re.fullmatch(r"(.*?)(\d+)\.(png|PNG)", name))]
    if not names or len(numbers) < len(names):
        raise T2VError(f"{path} is a folder without numbered PNG frames: they must be named 00000.png, 00001.png, …")
    head, digits, ending = min(numbers, key=lambda match: int(match[2])).groups()
    first = int(digits)
    wanted = [f"{head}{first + i:0{len(digits)}d}.{ending}" for i in range(len(names))]
    if missing := sorted(set(wanted) - set(names)):
        raise T2VError(f"{path} lacks {missing[0]}: PNG frames must be numbered without a gap.")
    pattern = str(path.absolute()).replace("%", "%%") + f"/{head.replace('%', '%%')}%0{len(digits)}d.{ending}"
    texts = read_embedded(path / wanted[0])
    rate = texts.get(PRIVATE + "frame_rate", "24")
    options = ("-f", "image2", "-framerate", str(_rate(rate) or 24), "-start_number", str(first))
    return Source(path, (*ffmpeg.SAFE_INPUT, *options, "-i", "file:" + pattern), path / wanted[0], len(names))


def probe(source: Source) -> VideoInfo:
    """Read the headers, and count the frames without decoding them.

    Raises:
        T2VError: where ffmpeg finds no video stream, or no frame in it.
    """
    status, output, stderr = ffmpeg.run([*source.input, "-f", "ffmetadata", "-"])
    stream = ffmpeg_text.video_stream(stderr)
    if stream is None:
        raise T2VError(f"{source.path.name} is no video that ffmpeg can read: {_input_error(stderr, status)}.")
    embedded = read_embedded(source.first)  # of files in which ffmpeg finds no tags
    texts = embedded or parse_ffmetadata(output)
    count, rate = _count(source)
    stored_rate = _rate(texts.get(PRIVATE + "frame_rate"))
    if stored_rate and (rate is None or count < 30 or abs(stored_rate / rate - 1) < Fraction(1, 10)):
        rate = stored_rate
    if rate is None:
        rate = frame_rate(stream.rate) if stream.rate else Fraction(24)
    width, height = _shown_size(texts.get(PRIVATE + "size"), stream.size)
    return VideoInfo(
        width=width,
        height=height,
        fps=rate,
        frame_count=count,
        pixels=stream.pixels,
        colour=stream.matrix,
        audio=ffmpeg_text.audio_stream(stderr),
        metadata={key: text for key, text in texts.items() if not key.startswith(PRIVATE)},
        stored_size=stream.size,
    )


def _input_error(stderr: str, status: int) -> str:
    """Return ffmpeg's error message about the input, and pass over those about the output, which `probe` never reads."""
    lines = [line for line in stderr.splitlines() if "utput" not in line]
    return ffmpeg_text.error_message("\n".join(lines), status).rstrip(".")


def _rate(text: str | None) -> Fraction | None:
    """Parse a stored frame rate; None where there is none, or no possible one."""
    try:
        return frame_rate(text) if text else None
    except T2VError:
        return None


def _shown_size(text: str | None, stored: tuple[int, int]) -> tuple[int, int]:
    """Return the (width, height) before padding, where the note of it fits the stored size; else the stored size."""
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text or "")
    if not match:
        return stored
    size = (int(match[1]), int(match[2]))
    fits = all(0 < a <= b and (b - a <= 1 or b <= 64) for a, b in zip(size, stored, strict=True))
    return size if fits else stored


def _count(source: Source) -> tuple[int, Fraction | None]:
    """Return (frames, frame rate) from the packets' time stamps; the rate is None where they do not give one."""
    if source.count is not None and source.path.is_dir():
        return source.count, None
    process = ffmpeg.Process(
        ["-v", "error", *source.input, "-map", "0:v:0", "-c", "copy", "-f", "framecrc", "-"], stdout=True
    )
    try:
        with open(process.stdout.fileno(), "rb", closefd=False) as lines:
            packets = ffmpeg_text.packets(lines)
        status, stderr = process.finish(), process.stderr()
    finally:
        process.close()
    if not packets.count:
        message = ffmpeg_text.error_message(stderr, status)
        raise T2VError(f"{source.path.name} holds no frame that ffmpeg can read: {message}.")
    # ffmpeg counts a GIF's comments as packets
    count = packets.count if source.count is None else source.count
    return count, measured_rate(count, packets.span, packets.tick, packets.uniform)


def delay(source: Source) -> Fraction:
    """Return how many seconds after the sound the picture begins; less than 0 where it begins before."""
    picture, sound = _begin(source, "0:v:0", "-vf", "showinfo"), _begin(source, "0:a:0", "-af", "ashowinfo")
    return Fraction(0) if picture is None or sound is None else picture - sound


def _begin(source: Source, track: str, *filters: str) -> Fraction | None:
    """Return when the first decoded frame of a track is shown or heard, in seconds of the file's own time."""
    code = ["-map", track, *filters, "-frames", "1", "-fps_mode", "passthrough", "-f", "null", "-"]
    _, _, stderr = ffmpeg.run(["-v", "info", "-copyts", *source.input, *code])
    return ffmpeg_text.first_stamp(stderr)
