"""The table of file formats: what each stores, and ffmpeg's options for it."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ..errors import T2VError
from ..foreign import MOST_JSON
from ..texts import strict_json
from .colours import SCALER
from .engine import Track
from .engines import engine
from .frame_rate import frame_rate
from .metadata import MOST_TEXT, MOST_WEBP_TEXTS

log = logging.getLogger(__name__)

DEFAULT_QUALITY = 80
"""The quality, from 0 (smallest file) to 100 (best), that stands for every format's default."""

BEST = 95
"""From this quality on, a format that has `best_pixels` stores them."""


MOST_PIXELS = (1 << 28) - 1
"""Pixels of a frame that ffmpeg takes, with 128 columns and rows more (libavutil's av_image_check_size)."""


@dataclass(frozen=True)
class Sound:
    """One way to store sound."""

    encoder: str
    options: Mapping[str, str]
    """The encoder's options, by ffmpeg's names."""
    rates: tuple[int, int] = (1, 768_000)
    """The least and the most samples a second; sound of another rate is resampled."""
    layouts: tuple[tuple[int, str], ...] = ()
    """Channels whose usual layout the encoder lacks, and ffmpeg's name of the layout that is used."""

    def track(self, channels: int, rate: int) -> Track:
        """Return how sound of that many channels and samples a second is stored."""
        lowest, highest = self.rates
        return Track(self.encoder, self.options, dict(self.layouts).get(channels), min(max(rate, lowest), highest))


@dataclass(frozen=True)
class Format:
    """One way to store a clip."""

    name: str
    title: str
    encoders: tuple[str, ...]
    """ffmpeg's encoders of this format; the first one that the ffmpeg in use has is used."""
    pixels: str
    """ffmpeg's name of the stored pixel format, below the quality `BEST`."""
    options: Callable[[str, int], dict[str, str]]
    """(encoder, quality 0..100) -> the encoder's options, by ffmpeg's names."""
    extension: str
    """With its dot; "" is a folder of numbered frames."""
    muxer: str
    """ffmpeg's name of the container."""
    depth: int = 8
    """Bits a channel that are stored."""
    audio: Sound | None = None
    """How sound is stored; None where the format holds none."""
    largest: tuple[int, int] = (65_535, 65_535)
    """The most columns and rows."""
    slowest: Fraction = Fraction(1, 1000)
    """The fewest frames a second."""
    fastest: Fraction = Fraction(1000)
    """The most frames a second."""
    why_rate: str = ""
    """The reason of `slowest` and `fastest`, for a message."""
    most_texts: int = 1000
    """The most texts, such as workflow and prompt."""
    text_bytes: int = MOST_TEXT
    """The most bytes of all texts."""
    even: bool = False
    """Width and height must be even (4:2:0)."""
    smallest: int = 1
    """The least width and height that the encoder takes."""
    loops: bool = False
    """The file stores how often it is played."""
    most_loops: int = 65_535
    """The most repetitions that it stores."""
    drop: bool = False
    """ComfyUI's editor opens the workflow inside, where the file is dropped on it."""
    plays: bool = False
    """ComfyUI's editor plays the file."""
    best_pixels: str = ""
    """ffmpeg's name of the pixel format from the quality `BEST` on; empty where it is `pixels`."""

    @property
    def yuv(self) -> bool:
        """Whether pixels are stored as brightness and colour differences."""
        return self.pixels.startswith("yuv")

    def is_available(self) -> bool:
        """Whether the ffmpeg in use can write this format."""
        return not engine().abilities("encoders").isdisjoint(self.encoders)

    def encoder(self) -> str:
        """Return the encoder to use; T2VError where the ffmpeg in use has none."""
        known = engine().abilities("encoders")
        for name in self.encoders:
            if name in known:
                return name
        raise T2VError(
            f"{engine().name} cannot write {self.name} (no {' or '.join(self.encoders)}): choose another format, or "
            f"{engine().upgrade}."
        )

    def filters(self, quality: int = DEFAULT_QUALITY) -> tuple[str, ...]:
        """Return ffmpeg's filters from RGB frames to the stored pixels."""
        pixels = self.best_pixels if self.best_pixels and quality >= BEST else self.pixels
        if not self.yuv:
            return (f"format={pixels}",)
        return (
            f"scale=out_color_matrix=bt709:out_range=tv:flags={SCALER}",
            f"format={pixels}",
            "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709",
        )


def scale(quality: int, worst: float, default: float, best: float) -> float:
    """Map a quality of 0..100 to an encoder's own number: lines through (0, worst), (80, default), (100, best)."""
    if quality <= DEFAULT_QUALITY:
        return worst + (default - worst) * quality / DEFAULT_QUALITY
    return default + (best - default) * (quality - DEFAULT_QUALITY) / (100 - DEFAULT_QUALITY)


def _x264(encoder: str, quality: int) -> dict[str, str]:
    return {"preset": "medium", "crf": f"{scale(quality, 40, 7, 1):.1f}"}


def _x265(encoder: str, quality: int) -> dict[str, str]:
    crf = f"{scale(quality, 40, 8.5, 1):.1f}"
    return {"preset": "fast", "crf": crf, "tag": "hvc1", "x265-params": "log-level=error"}


def _vp9(encoder: str, quality: int) -> dict[str, str]:
    crf = f"{scale(quality, 58, 6, 1):.0f}"
    return {"crf": crf, "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}


def _av1(encoder: str, quality: int) -> dict[str, str]:
    crf = f"{scale(quality, 58, 8, 2):.0f}"
    if encoder == "libsvtav1":
        return {"preset": "8", "crf": crf}
    return {"crf": crf, "b": "0", "cpu-used": "6", "row-mt": "1"}


def _prores(encoder: str, quality: int) -> dict[str, str]:
    profile = next(number for number, limit in ((4, BEST), (3, 70), (2, 50), (1, 25), (0, 0)) if quality >= limit)
    return {"profile": str(profile), "vendor": "apl0"}


def _webp(encoder: str, quality: int) -> dict[str, str]:
    if quality == 100:
        return {"lossless": "1", "compression_level": "2"}
    return {"quality": f"{scale(quality, 10, 97, 100):.1f}", "compression_level": "4"}


def _ffv1(encoder: str, quality: int) -> dict[str, str]:
    return {"level": "3", "coder": "1", "context": "0", "g": "1", "slices": "4", "slicecrc": "1"}


def _nothing(encoder: str, quality: int) -> dict[str, str]:
    return {}


_AAC = Sound("aac", {"b": "256k"}, rates=(7_350, 96_000))
_OPUS = Sound("libopus", {"b": "192k"}, layouts=((3, "3.0"), (4, "quad")))
_FLAC = Sound("flac", {"sample_fmt": "s32"}, rates=(1, 655_350))
_PCM = Sound("pcm_s24le", {})

_HUNDREDTHS = "a GIF counts time in hundredths of a second, 65535 at most, and browsers show a frame of one for ten"
_THOUSANDTHS = "browsers show a frame of a WebP that lasts 10 ms or less ten times as long"
_SVT = "its encoder takes no more"

_X264, _X265, _AV1 = ("libx264",), ("libx265",), ("libsvtav1", "libaom-av1")

_SIDE = (16_384, 16_384)
_mp4 = functools.partial(Format, extension=".mp4", muxer="mp4", audio=_AAC, even=True, drop=True, largest=_SIDE)
_webm = functools.partial(Format, extension=".webm", muxer="webm", audio=_OPUS, even=True, drop=True)
_mov = functools.partial(Format, extension=".mov", muxer="mov", audio=_PCM, even=True, drop=True, largest=_SIDE)
_mkv = functools.partial(Format, extension=".mkv", muxer="matroska", audio=_FLAC)
_png = functools.partial(Format, extension="", muxer="image2", drop=True)

_ALL = (
    _mp4("h264-mp4", "H.264 mp4", _X264, "yuv420p", _x264, smallest=16, plays=True),
    _mp4("h264-10bit-mp4", "H.264 mp4, 10 bit", _X264, "yuv420p10le", _x264, depth=10, smallest=16),
    _mp4("h265-mp4", "H.265 mp4", _X265, "yuv420p", _x265, smallest=64),
    _mp4("h265-10bit-mp4", "H.265 mp4, 10 bit", _X265, "yuv420p10le", _x265, depth=10, smallest=64),
    _webm("vp9-webm", "VP9 webm", ("libvpx-vp9",), "yuv420p", _vp9, smallest=16, plays=True),
    _webm(
        "av1-webm", "AV1 webm, 10 bit", _AV1, "yuv420p10le", _av1,
        depth=10, smallest=64, plays=True, largest=(16_384, 8_704), fastest=Fraction(240), why_rate=_SVT,
    ),
    _mov(
        "prores-mov", "ProRes mov", ("prores_ks",), "yuv422p10le", _prores,
        depth=10, smallest=16, best_pixels="yuv444p10le",
    ),
    _mkv("ffv1-mkv", "FFV1 mkv, lossless", ("ffv1",), "bgr0", _ffv1, smallest=2),
    _mkv("ffv1-16bit-mkv", "FFV1 mkv, lossless, 16 bit", ("ffv1",), "gbrp16le", _ffv1, depth=16, smallest=2),
    Format(
        "gif", "GIF", ("gif",), "rgb24", _nothing, ".gif", "gif", loops=True,
        slowest=Fraction(100, 65_535), fastest=Fraction(50), why_rate=_HUNDREDTHS, text_bytes=MOST_JSON,
    ),
    Format(
        "webp", "WebP animation", ("libwebp",), "bgra", _webp, ".webp", "webp", loops=True, most_loops=65_534, drop=True,
        plays=True, largest=(16_383, 16_383), fastest=Fraction(90), why_rate=_THOUSANDTHS, most_texts=MOST_WEBP_TEXTS,
    ),
    _png("png", "PNG sequence", ("png",), "rgb24", _nothing),
    _png("png-16bit", "PNG sequence, 16 bit", ("png",), "rgb48be", _nothing, depth=16),
)  # fmt: skip

FORMATS: dict[str, Format] = {format.name: format for format in _ALL}
"""Every format by its name, whether or not the ffmpeg in use can write it."""


def available_formats() -> list[str]:
    """Return the names of the formats that the ffmpeg in use can write; logs once which formats are left out."""
    for name, format in FORMATS.items():
        if not format.is_available():
            _log_unavailable(engine().name, name, " or ".join(format.encoders))
    return [name for name, format in FORMATS.items() if format.is_available()]


@functools.cache
def _log_unavailable(engine: str, name: str, encoders: str) -> None:
    log.warning("%s cannot write %s: it has no %s.", engine, name, encoders)


def format_of(path: str | os.PathLike[str]) -> Format:
    """Return the format of a path's ending; T2VError where there is none, or this ffmpeg cannot write it."""
    return choose_format(Path(path), None)


def check_rate(format: Format, fps: float | str | Fraction | None) -> None:
    """Raise T2VError where the format cannot hold so many frames a second, or so few."""
    if fps is None or format.slowest <= (rate := frame_rate(fps)) <= format.fastest:
        return
    few = rate < format.slowest
    raise T2VError(
        f"{float(rate):g} frames a second are too {'few' if few else 'many'} for {format.name}, because {format.why_rate}: give "
        f"at {'least' if few else 'most'} {float(format.slowest if few else format.fastest):.4g}, or choose another format."
    )


def check_loops(format: Format, loops: int) -> None:
    """Raise T2VError where the format cannot store that many repetitions; one that stores none takes any number."""
    if format.loops and not 0 <= loops <= format.most_loops:
        raise T2VError(
            f"A {format.title} file cannot be repeated {loops} times: give 0 for ever, or 1 to {format.most_loops} times."
        )


def check_size(format: Format, width: int, height: int) -> None:
    """Raise T2VError where the format cannot hold frames of that size."""
    columns, rows = format.largest
    if width > columns or height > rows:
        raise T2VError(
            f"Frames of {width}x{height} are too large for {format.name}, which holds {columns}x{rows} at most: make them "
            "smaller, or choose another format, such as png."
        )
    if (width + 128) * (height + 128) > MOST_PIXELS:
        raise T2VError(f"Frames of {width}x{height} have more pixels than ffmpeg can write: make them smaller.")


def check_texts(format: Format, texts: Mapping[str, str]) -> None:
    """Raise T2VError where the format cannot hold so many texts, or texts of that length."""
    if len(texts) > format.most_texts:
        raise T2VError(
            f"A {format.title} file holds at most {format.most_texts} texts, not {len(texts)}: leave some out."
        )
    size = (
        len(strict_json(dict(texts))) if format.muxer == "gif" else sum(len(text.encode()) for text in texts.values())
    )
    if size > format.text_bytes:
        raise T2VError(
            f"The metadata has {size} bytes, and a {format.title} file holds {format.text_bytes}: leave out its largest texts."
        )


def check_sound(format: Format) -> Sound:
    """Return how the format stores sound; T2VError where it holds none, or the ffmpeg in use cannot write it."""
    if format.audio is None:
        raise T2VError(f"A {format.title} file holds no sound: leave the audio out, or choose mp4, webm, mov or mkv.")
    if format.audio.encoder not in engine().abilities("encoders"):
        raise T2VError(
            f"{engine().name} cannot write the sound of {format.name} (no {format.audio.encoder}): leave the audio out, choose "
            f"another format, or {engine().upgrade}."
        )
    return format.audio


def choose_format(path: Path, name: str | None) -> Format:
    """Return the format of that name, or where the name is None, the first one with the path's ending.

    Raises:
        T2VError: where the name is not known or does not fit the ending, or the ffmpeg in use cannot write the format.
    """
    if name is not None:
        if name not in FORMATS:
            raise T2VError(f"There is no video format {name!r}: choose one of {', '.join(FORMATS)}.")
        format = FORMATS[name]
        if path.suffix.lower() != format.extension and format.extension:
            raise T2VError(
                f"A {format.name} file ends in {format.extension}, not {path.name!r}: rename it, or change the format."
            )
    else:
        extensions = {format.extension: format for format in reversed(FORMATS.values())}
        if path.suffix.lower() not in extensions:
            known = ", ".join(sorted(extension for extension in extensions if extension))
            raise T2VError(
                f"{path.name!r} ends in none of {known} (no ending: a folder of PNG frames): "
                "choose one of these, or name the format."
            )
        format = extensions[path.suffix.lower()]
    format.encoder()  # raises where the ffmpeg in use has none
    return format
