"""Facts from the lines that ffmpeg's filters print, and causes from its error output.

ffmpeg prints the tags of a file among its facts, and a tag may hold any text, so facts are taken only from what no tag can
write: the lines of the filters showinfo and ashowinfo under a name that is drawn anew for every call (`secret_name`). Everything
here is a pure function of that text; tests/fixtures/ffmpeg holds what four versions print (tests/record_ffmpeg.py), and all of
it must be understood.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from fractions import Fraction

from .engine import AudioInfo, Picture, Sound

_FRAME = re.compile(r"n: *\d+ pts: *\S+ pts_time: *(?P<time>\S+) .*?fmt:(?P<format>\w+) (?P<rest>.*)")
_PICTURE = re.compile(r"(?:cl:\S+ )?sar:(\d{1,10})/(\d{1,10}) s:(\d{1,6})x(\d{1,6}) i:(.)")
_COLOUR = re.compile(r"color_range:(\S+) color_space:(\S+) color_primaries:(\S+) color_trc:(\S+)")
_RATE = re.compile(r"config in time_base: \S+, frame_rate: (\d{1,10})/(\d{1,10})")
_SOUND = re.compile(r"channels:(\d{1,4}) chlayout:.* rate:(\d{1,9}) nb_samples:")
_NUMBER = re.compile(r"-?\d{1,20}(?:\.\d{1,20})?(?:e[+-]?\d{1,2})?")


def secret_name(filter: str) -> str:
    """Name an instance of a filter as no file can foresee: its lines in ffmpeg's output begin with this name."""
    return f"{filter}@{secrets.token_hex(8)}"


def _lines_of(name: str, stderr: str) -> Iterable[str]:
    """Yield what the filter of that name printed, line by line."""
    begin = f"[{name} @ "
    return (line.split("] ", 1)[-1] for line in stderr.split("\n") if line.startswith(begin))


def picture(stderr: str, name: str) -> Picture | None:
    """Parse the first frame from what the filter showinfo of that name printed; None where no frame was decoded."""
    rate: Fraction | None = None
    frame: re.Match[str] | None = None
    facts: re.Match[str] | None = None
    colour: re.Match[str] | None = None
    for line in _lines_of(name, stderr):
        if frame is None and (found := _RATE.match(line)):
            rate = Fraction(int(found[1]), int(found[2])) if int(found[1]) and int(found[2]) else None
        elif frame is None and (frame := _FRAME.match(line)):
            facts = _PICTURE.match(frame["rest"])
        elif frame and (colour := _COLOUR.match(line)):
            break
    if frame is None or facts is None:
        return None
    across, down, width, height = (int(facts[i]) for i in range(1, 5))
    span, matrix, primaries, transfer = (_named(part) for part in (colour.groups() if colour else ["unknown"] * 4))
    return Picture(
        size=(width, height),
        pixels=frame["format"],
        matrix=None if matrix == "gbr" and not frame["format"].startswith("gb") else matrix,  # RGB has no matrix
        transfer=transfer,
        primaries=primaries,
        range=span,
        aspect=Fraction(across, down) if across and down else Fraction(1),
        interlaced=facts[5] in "TB",
        rate=rate,
        begin=_seconds(frame["time"]),
    )


def _named(value: str) -> str | None:
    return None if value in ("unknown", "unspecified", "reserved", "nil", "(null)") else value


def _seconds(text: str) -> Fraction | None:
    return Fraction(text) if _NUMBER.fullmatch(text) else None


def sound(stderr: str, name: str) -> Sound | None:
    """Parse the first samples from what the filter ashowinfo of that name printed; None where none were decoded."""
    for line in _lines_of(name, stderr):
        frame = _FRAME.match(line)
        if frame and (facts := _SOUND.match(frame["rest"])):
            return Sound(AudioInfo(int(facts[2]), int(facts[1])), _seconds(frame["time"]))
    return None


def sound_codec(stderr: str, track: int) -> str:
    """Return the names of a sound track's codec, for a message; a tag of the file may forge them."""
    tracks = re.findall(
        r"^ *Stream #0:\d+.{0,40}?: Audio: ([\w.-]{1,40}).{0,40}?(?: \((\w{4}) / 0x|,|$)", stderr, re.MULTILINE
    )
    codec, tag = tracks[track] if track < len(tracks) else ("unknown codec", "")
    return f"{codec}, {tag}" if tag else codec


_FOLLOWS = (
    "Last message repeated", "Conversion failed", "Task finished", "Terminating thread", "Error opening input file",
    "Error opening output file", "Error parsing options", "Error while opening encoder", "Error while opening decoder",
    "Error initializing output stream", "Error sending frames to consumers", "Error submitting", "Error while decoding",
    "Error while processing", "Error while filtering", "Error encoding a frame", "Error muxing", "Error writing trailer",
    "Error closing file", "Error marking filters", "Error processing packet in decoder", "Decoding error:",
    "Decode error rate", "Nothing was written", "Cannot determine format of input", "Could not open encoder before EOF",
    "Failed to set value", "To ignore this, add", "misdetection possible", "av_interleaved_write_frame",
    "Error initializing a simple filtergraph", "Error reinitializing filters", "Failed to inject frame",
    "incorrect codec parameters", "Could not write header",
)  # fmt: skip
"""Parts of lines that follow from a cause which ffmpeg has printed before them."""


_CRASHES = {4, 6, 7, 8, 11}
"""Signals that end a program which does something impossible: SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV."""

_PREFIX = re.compile(r"(?:\[[^\]\n]{0,200} @ (?:0x)?[0-9A-Fa-f]+\] ?)+")
"""Names of the parts of ffmpeg that print a line."""


_UNREAD = re.compile(r"Format not on whitelist '[^'\n]{0,2000}'")
"""What ffmpeg prints of a file that only a demuxer beyond our list would open."""


def error_message(stderr: str, status: int = 0) -> str:
    """Choose the first lines of ffmpeg's error output that name a cause, at most 300 characters.

    status: ffmpeg's exit status; less than 0 is the signal that ended it.
    """
    if -status in _CRASHES:
        return f"ffmpeg itself crashed (signal {-status}): pip install --upgrade imageio-ffmpeg"
    if status < 0:
        return f"ffmpeg was ended from outside (signal {-status})"
    stderr = _UNREAD.sub(
        "its container is none of those that are read here, such as mp4, mkv or webm", stderr[:1_000_000]
    )
    lines = [_PREFIX.sub("", line).strip() for line in re.split(r"[\r\n]+", stderr)]
    lines = [line for line in lines if line and not line.startswith(("frame=", "size=", "Svt[info]"))]
    if "No space left" in stderr:
        return "no space left on the disk"
    causes = [line for line in lines if line and not any(text in line for text in _FOLLOWS)]
    telling = list(dict.fromkeys(causes))[:2] or lines[-1:] or ["no reason"]
    text = "; ".join(telling).rstrip(".")
    return "".join(letter if letter.isprintable() else " " for letter in text)[:300]
