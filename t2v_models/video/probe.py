"""What a file holds, without decoding it: size, frame rate, frame count, sound, metadata."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from ..errors import T2VError
from . import ffmpeg
from .frame_rate import frame_rate, measured_rate
from .metadata import PRIVATE, parse_ffmetadata, read_embedded
from .truncation import check_whole, count_gif_pictures


@dataclass(frozen=True)
class AudioInfo:
    """The first sound track."""

    codec: str
    rate: int  # samples a second
    channels: int


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a clip before a frame of it is decoded."""

    width: int
    height: int
    fps: Fraction
    frame_count: int
    codec: str
    pixels: str  # ffmpeg's name of the stored pixel format
    colour: str | None  # the matrix that the file names, None where it names none
    audio: AudioInfo | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    stored_size: tuple[int, int] = (0, 0)  # with the rows and columns that were added to make them even

    @property
    def duration(self) -> float:
        """Seconds, the last frame's own time included."""
        return float(self.frame_count / self.fps)


@dataclass(frozen=True)
class Source:
    """A file, or a folder of numbered PNG frames, as ffmpeg must be given it."""

    path: Path
    input: tuple[str, ...]
    first: Path  # the file that holds the metadata
    count: int | None = None  # frames, where counting files tells


def open_source(path: Path, *, strict: bool = True) -> Source:
    """Look what the path is; raises FileNotFoundError, PermissionError or T2VError with a sentence."""
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
    numbers = [re.fullmatch(r"(.*?)(\d+)\.(png|PNG)", name) for name in names]
    if not names or None in numbers:
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
    """Read the headers, and count the frames without decoding them."""
    name = source.path.name
    status, output, stderr = ffmpeg.run([*source.input, "-f", "ffmetadata", "-"])
    stream = re.search(r"^  Stream #0:\d+[^:]*(?:\([^)]*\))?: Video: (.*)$", stderr, re.MULTILINE)
    size = re.search(r", (\d{1,6})x(\d{1,6})(?=[, \n\[]|$)", stream[1]) if stream else None
    if not stream or not size or not int(size[1]) or not int(size[2]):
        raise T2VError(f"{name} is no video that ffmpeg can read: {_why(stderr, status)}.")
    embedded = read_embedded(source.first)  # of files that have no such tags for ffmpeg
    texts = embedded or parse_ffmetadata(output)
    count, rate = _count(source, name)
    stored = (int(size[1]), int(size[2]))
    turned = re.search(r"(?i)^ +display ?matrix: rotation of (-?\d+)", stderr, re.MULTILINE)
    if turned and round(int(turned[1]) / 90) % 2:
        stored = stored[::-1]
    shown = _shown_size(texts.get(PRIVATE + "size"), stored)
    stored_rate = _rate(texts.get(PRIVATE + "frame_rate"))
    if stored_rate and (rate is None or count < 30 or abs(stored_rate / rate - 1) < Fraction(1, 10)):
        rate = stored_rate
    if rate is None:
        printed = re.search(r"([\d.]+) (?:fps|tbr)", stream[1])
        rate = frame_rate(float(printed[1])) if printed and float(printed[1]) else Fraction(24)
    pixels = re.search(r", (\w+)(?:\(([^)]*)\))?, \d+x\d+", stream[1])
    colour = (
        re.search(r"(?:^|, )(bt709|smpte170m|bt470bg|fcc|bt2020nc|bt2020c|smpte240m|gbr)(?=[/,]|$)", pixels[2] or "")
        if pixels
        else None
    )
    return VideoInfo(
        *shown, rate, count,
        codec=stream[1].split()[0].rstrip(","),
        pixels=pixels[1] if pixels else "", colour=colour[1] if colour else None,
        audio=_audio(stderr), metadata={k: v for k, v in texts.items() if not k.startswith(PRIVATE)}, stored_size=stored,
    )  # fmt: skip


def _why(stderr: str, status: int) -> str:
    """ffmpeg's reason, without the complaints about the output that this probe never wanted."""
    lines = [line for line in stderr.splitlines() if "utput" not in line]
    return ffmpeg.error_message("\n".join(lines), status).rstrip(".")


def _rate(text: str | None) -> Fraction | None:
    try:
        return frame_rate(text) if text else None
    except T2VError:
        return None


def _shown_size(text: str | None, stored: tuple[int, int]) -> tuple[int, int]:
    """The size before padding, if the note of it fits the stored size."""
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text or "")
    if not match:
        return stored
    size = (int(match[1]), int(match[2]))
    fits = all(0 < a <= b and (b - a <= 1 or b <= 64) for a, b in zip(size, stored, strict=True))
    return size if fits else stored


_UNKNOWN = -(2**63)
"""A time stamp that is none."""

_DISCARD = 4
"""Of a packet that is decoded and not shown: an edit list has cut it off."""


def _count(source: Source, name: str) -> tuple[int, Fraction | None]:
    """(frames, frame rate) from the packets' time stamps."""
    if source.path.is_dir():
        return source.count, None
    process = ffmpeg.Process(
        ["-v", "error", *source.input, "-map", "0:v:0", "-c", "copy", "-f", "framecrc", "-"], stdout=True
    )
    tick, count, low, high, durations = Fraction(1), 0, None, None, set()
    try:
        with open(process.popen.stdout.fileno(), "rb", closefd=False) as lines:
            for line in lines:
                if line.startswith(b"#tb 0:"):
                    tick = Fraction(line.split(b":", 1)[1].strip().decode())
                if line.startswith(b"#"):
                    continue
                _, decoded, stamp, duration = (int(part, 0) for part in line.split(b",")[:4])
                flags = re.search(rb"F=0x([0-9A-Fa-f]+)", line)
                if flags and int(flags[1], 16) & _DISCARD:
                    continue
                count += 1
                stamp = decoded if stamp == _UNKNOWN else stamp  # an AVI tells only when a frame is decoded
                if stamp != _UNKNOWN:
                    low = stamp if low is None else min(low, stamp)
                    high = stamp if high is None else max(high, stamp)
                if len(durations) < 3:
                    durations.add(duration)
        status, stderr = process.finish(), process.stderr()
    finally:
        process.close()
    if not count:
        raise T2VError(f"{name} holds no frame that ffmpeg can read: {ffmpeg.error_message(stderr, status)}.")
    uniform = durations.pop() * tick if len(durations) == 1 else None
    if source.count is not None:  # ffmpeg takes a GIF's comments for packets
        count = source.count
    span = 0 if low is None else (high - low) * tick
    return count, measured_rate(count, span, tick, uniform or None)


def delay(source: Source) -> Fraction:
    """How many seconds after the sound the picture begins; less than 0 where it begins before."""
    picture, sound = _begin(source, "0:v:0", "-vf", "showinfo"), _begin(source, "0:a:0", "-af", "ashowinfo")
    return Fraction(0) if picture is None or sound is None else picture - sound


def _begin(source: Source, track: str, *filters: str) -> Fraction | None:
    """When the first decoded frame of a track is shown or heard, in the file's own seconds."""
    code = ["-map", track, *filters, "-frames", "1", "-fps_mode", "passthrough", "-f", "null", "-"]
    _, _, stderr = ffmpeg.run(["-v", "info", "-copyts", *source.input, *code])
    stamp = re.search(r"^\[Parsed_a?showinfo_\d+ @ [^\]]*\].* pts_time: *(-?[\d.]+)", stderr, re.MULTILINE)
    return Fraction(stamp[1]) if stamp else None


def _audio(stderr: str) -> AudioInfo | None:
    stream = re.search(
        r"^  Stream #0:\d+[^:]*(?:\([^)]*\))?: Audio: (\w+).*?, (\d+) Hz, ([^,\n]+)", stderr, re.MULTILINE
    )
    if not stream:
        return None
    layout = stream[3].strip()
    named = {"mono": 1, "stereo": 2, "downmix": 2, "quad": 4, "quad(side)": 4, "hexagonal": 6, "octagonal": 8}.get(
        layout
    )
    counted = re.match(r"(\d+) channels", layout)
    dotted = re.match(r"(\d)\.(\d)(?:\.(\d))?", layout)
    channels = named or (
        int(counted[1]) if counted else sum(int(part or 0) for part in dotted.groups()) if dotted else 2
    )
    return AudioInfo(stream[1], int(stream[2]), channels)
