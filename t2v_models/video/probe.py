"""What a file holds, found with one decoded frame: size, frame rate, frame count, colours, sound, metadata."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass, field
from fractions import Fraction

from ..errors import T2VError
from .engine import AudioInfo, Cancelled, Failed, Packets, Picture, Sound
from .engines import engine
from .frame_rate import frame_rate, measured_rate, stored_rate, usual_rate
from .metadata import PRIVATE, read_embedded
from .source import Source

log = logging.getLogger(__name__)

MOST_TRACKS = 16
"""Sound tracks that are tried."""

MOST_REPEATED = 1_000_000
"""Frames up to which a clip of variable rate is filled up to its usual rate."""

LARGEST_SIDE = 65_535
"""Pixels of the longest side to which a clip of pixels that are not square is scaled."""


@dataclass(frozen=True)
class VideoInfo:
    """Facts about a clip."""

    width: int
    height: int
    fps: Fraction
    """Frames a second; where the file's rate varies, its usual one."""
    frame_count: int
    """Frames of the file; where its rate varies, those at its usual rate, some of them repeated."""
    pixels: str
    """ffmpeg's name of the stored pixel format."""
    colour: str | None
    """The colour matrix that the file names, such as "bt709"; None where it names none."""
    audio: AudioInfo | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    """The texts in the file, such as the workflow, by key."""
    stored_size: tuple[int, int] = (0, 0)
    """(width, height) with the rows and columns that were added to make them even."""
    cropped_size: tuple[int, int] = (0, 0)
    """(width, height) without them; other than (width, height) where the file's pixels are not square."""
    transfer: str | None = None
    """The transfer curve that the file names, such as "smpte2084" for PQ; None where it names none."""
    interlaced: bool = False
    """Two fields a frame."""
    variable: bool = False
    """The frames come at no steady rate, and are repeated up to the usual one."""
    audio_track: int = 0
    """The number, among the sound tracks, of the one that is read."""
    picture_delay: Fraction = Fraction(0)
    """Seconds after the sound at which the picture begins; less than 0 where it begins before."""

    @property
    def duration(self) -> float:
        """Seconds, the last frame's own time included."""
        return float(self.frame_count / self.fps)


def probe(source: Source, cancelled: Cancelled | None = None) -> VideoInfo:
    """Decode the first frame and the first sound, and count the frames without decoding them.

    cancelled: asked four times a second; it raises to cancel.

    Raises:
        T2VError: where ffmpeg can decode no frame.
    """
    picture, texts = _first_frame(source, cancelled)
    packets = _packets(source, cancelled)
    # ffmpeg counts a GIF's comments as packets
    count = packets.count if source.count is None else source.count
    measured = (count, packets.span, packets.tick, packets.uniform, picture.rate)
    rate = None if source.path.is_dir() else measured_rate(*measured)
    tagged = stored_rate(texts.get(PRIVATE + "frame_rate"))
    usual = None
    if tagged and (rate is None or count < 30 or abs(tagged / rate - 1) < Fraction(1, 10)):
        rate = tagged
    elif packets.count == count:
        usual = _usual_rate(source, packets, rate)
    if rate is None:
        rate = frame_rate(picture.rate) if picture.rate and picture.rate <= 1000 else Fraction(24)
    rate, shown = usual or (rate, count)
    track, sound = _sound(source, cancelled)
    begins = None if sound is None or sound.begin is None or picture.begin is None else picture.begin - sound.begin
    cropped = _shown_size(texts.get(PRIVATE + "size"), picture.size)
    width, height = _square(source, cropped, picture.aspect)
    return VideoInfo(
        width=width,
        height=height,
        fps=rate,
        frame_count=shown,
        pixels=picture.pixels,
        colour=picture.matrix,
        audio=sound.info if sound else None,
        metadata={key: text for key, text in texts.items() if not key.startswith(PRIVATE)},
        stored_size=picture.size,
        cropped_size=cropped,
        transfer=picture.transfer,
        interlaced=picture.interlaced,
        variable=usual is not None,
        audio_track=track,
        picture_delay=begins or Fraction(0),
    )


def _first_frame(source: Source, cancelled: Cancelled | None) -> tuple[Picture, dict[str, str]]:
    """Return the facts of the first frame that can be decoded, and the texts in the file."""
    try:
        picture, tags = engine().first_frame(source.input, cancelled)
    except Failed as error:
        raise T2VError(f"{source.path.name} is no video that ffmpeg can read: {error}.") from error
    return picture, read_embedded(source.first) or tags  # a PNG, WebP or GIF has no tags that ffmpeg finds


def _packets(source: Source, cancelled: Cancelled | None) -> Packets:
    """Count the frames and read their times, without decoding them."""
    if source.count is not None and source.path.is_dir():
        return Packets(source.count, Fraction(0), Fraction(1), None)
    try:
        return engine().packets(source.input, cancelled)
    except Failed as error:
        raise T2VError(f"{source.path.name} holds no frame that ffmpeg can read: {error}.") from error


def _usual_rate(source: Source, packets: Packets, steady: Fraction | None) -> tuple[Fraction, int] | None:
    """Return (rate, frames) of a clip of variable rate at its usual rate; None where it is steady, or cannot be filled."""
    usual = usual_rate(packets.stamps, packets.tick, steady, packets.span)
    if usual is None:
        return None
    rate, count = usual
    if source.pictures:
        log.info("%s shows its pictures for different times, and each is read once: for their times set fps to %.6g.",
                 source.path.name, rate)  # fmt: skip
        return None
    if count > MOST_REPEATED:
        log.warning(
            "%s has a variable frame rate, and %d frames at its usual %.6g a second: picture and sound are not in step. "
            "Set fps to a lower rate.", source.path.name, count, rate,
        )  # fmt: skip
        return None
    log.warning(
        "%s has a variable frame rate: its %d frames are read as %d at its usual %.6g a second, some of them repeated%s, so "
        "that picture and sound stay in step.",
        source.path.name, packets.count, count, rate, " or left out" if count < packets.count else "",
    )  # fmt: skip
    return usual


def _sound(source: Source, cancelled: Cancelled | None) -> tuple[int, Sound | None]:
    """Return (number, first sound) of the first sound track that can be decoded; the sound is None where there is none."""
    if source.pictures:
        return 0, None
    for track in range(MOST_TRACKS):
        try:
            return track, engine().first_sound(source.input, track, cancelled)
        except Failed as codec:
            log.warning("%s: sound track %d (%s) cannot be decoded by this ffmpeg: it is left out.",
                        source.path.name, track + 1, codec)  # fmt: skip
    return 0, None


def _square(source: Source, size: tuple[int, int], aspect: Fraction) -> tuple[int, int]:
    """Return the (width, height) at which the pixels of a frame are square."""
    width = max(1, math.floor(size[0] * aspect + Fraction(1, 2)))
    if width == size[0]:
        return size
    if not Fraction(1, 16) <= aspect <= 16 or width > LARGEST_SIDE:
        log.warning("%s says that its pixels are %s times as wide as high, which is ignored: set width and height.",
                    source.path.name, aspect)  # fmt: skip
        return size
    log.info("%s has pixels that are not square: %dx%d is shown as %dx%d.", source.path.name, *size, width, size[1])
    return width, size[1]


def _shown_size(text: str | None, stored: tuple[int, int]) -> tuple[int, int]:
    """Return the (width, height) before padding, where the note of it fits the stored size; else the stored size."""
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text or "")
    if not match:
        return stored
    size = (int(match[1]), int(match[2]))
    fits = all(0 < a <= b and (b - a <= 1 or b <= 64) for a, b in zip(size, stored, strict=True))
    return size if fits else stored
