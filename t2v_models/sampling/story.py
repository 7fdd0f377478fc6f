"""A story: which text holds over which frames.

One scene per line, ``SPAN[, OPTION …]: text``::

    0-2s: a red circle moves right
    2s-4s, fade 0.5s: a red circle moves up
    negative: blurry
    50%-100%, negative: a blue square

A span is in seconds (``s``), per cent (``%``) or frames (no unit); its first number takes the unit of its second.
Options are ``fade DURATION`` (a cross-fade centred on the scene's start), ``weight NUMBER`` (emphasis, 1 is none) and
``negative``. Lines without any span share the clip in equal parts. A prompt schedule of another program means here what it
means there: see `t2v_models.sampling.prompt_schedule`.

A story may come with a stranger's workflow: the time to read it grows with its length alone, and its scenes have a limit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from ..errors import T2VError
from ..numbers import MOST_DIGITS, exact_number
from ..texts import MOST_STORY, checked_text
from .foreign_stories import check_foreign, plain_lines
from .prompt_schedule import Key, begins_with_quoted_frame, cross_fades, is_frame_line, json_keys, line_keys
from .scenes import Scene, Story, envelopes

EXAMPLE = "0-2s: a red circle moves right / 2s-4s, fade 0.5s: a red circle moves up"
MOST_WEIGHT = 100
MOST_SCENES, MOST_SHARES = 1000, 1 << 25
"""The most scenes of a story, and the most shares that scenes have in frames: 256 MiB of them."""

# All patterns are for texts in which each run of blanks is one blank: two quantifiers that may match the same blanks try every
# partition of them.
_NUMBER = r"\d+(?:\.\d+)?"
_DASH = "[-\u2013\u2014\u2212\u2011]"
_TIME = re.compile(rf"({_NUMBER}) ?(s|f|%|)", re.IGNORECASE)
_SPAN = re.compile(rf"({_NUMBER}) ?(s|f|%|) ?{_DASH} ?({_NUMBER}) ?(s|f|%|)", re.IGNORECASE)
_OPTION = re.compile(rf"fade {_NUMBER} ?(?:s|f|%|)|weight {_NUMBER}|negative(?: prompt)?", re.IGNORECASE)
_NEARLY = re.compile(
    rf"-?{_NUMBER} ?(?:(?:s|sec|seconds?|f|frames?|%)$|(?:s|f|%)? ?(?:{_DASH}|,|to\b|$))", re.IGNORECASE
)
"""What a reader would take for a span."""
_SEARCHED = 300
"""Characters at the start of a line in which something like a span is searched for."""


def parse_story(text: str, frames: int, fps: float) -> Story:
    """Read a story: one scene per line, or scenes with " / " between them.

    Args:
        text: see the module's description.
        frames: the clip's length.
        fps: its frame rate, by which seconds become frames.

    Raises:
        T2VError: naming the line, where times contradict each other, pass the end or leave frames without a text; where there
            are more scenes than frames, or than `MOST_SCENES`; where the frame rate is no positive number.
    """
    text = plain_lines(checked_text(text, "The story", MOST_STORY))
    if not 0 < fps < math.inf:
        raise T2VError(f"The frame rate of the story is {fps}: a positive number is wanted, such as 8.")
    keys, lines = _schedule(text)
    _check_count(len(keys) + len(lines), frames)
    parsed = [_line(line, i + 1, frames, fps) for i, line in enumerate(lines)]
    positive = {i + 1: each for i, (each, negative) in enumerate(parsed) if not negative}
    negatives = tuple(
        replace(scene, start=0, end=frames) if scene.end < 0 else scene for scene, negative in parsed if negative
    )
    if keys:
        scenes, faded = cross_fades(keys, frames)
        return Story(scenes, frames, (*faded, *negatives))
    if not positive:
        raise T2VError(f"The story has no scene: write one per line, such as {EXAMPLE!r}.")
    scenes = _spread(positive, frames)
    _check_cover(scenes, frames)
    return Story(scenes, frames, negatives)


def with_negative(text: str, negative: str | None) -> str:
    """Add a negative line for the whole clip to a story's text; a negative prompt of None is none."""
    checked_text(text, "The story", MOST_STORY)
    negative = "" if negative is None else checked_text(negative, "The negative prompt")
    negative = " ".join(word for word in negative.split() if word != "/")  # on one line, whatever it holds
    return f"{text}\nnegative: {negative}" if negative else text


def _schedule(text: str) -> tuple[list[Key], list[str]]:
    """The texts of frames, where the story is another program's schedule, and the lines that are none of them."""
    if begins_with_quoted_frame(text):
        lines = text.rstrip().split("\n")
        count = len(lines)
        while count and _is_negative(lines[count - 1]):
            count -= 1
        return json_keys("\n".join(lines[:count])), lines[count:]
    lines = [line.strip() for line in re.split(r"\n| / ", text) if line.strip()]
    others = [line for line in lines if not _is_negative(line)]
    if any(map(_head, others)):  # with spans, it is a story of ours
        return [], lines
    if not any(map(is_frame_line, others)):
        if not any(map(_span_with_unit, others)):  # a span that lacks its colon gets a sentence of its own
            check_foreign(text, others)
        return [], lines
    return line_keys(others), [line for line in lines if _is_negative(line)]


def _is_negative(line: str) -> bool:
    """Whether a line says what not to show."""
    head = _head(line)
    return head is not None and any(part.startswith("negative") for part in head[0])


def _check_count(count: int, frames: int) -> None:
    """T2VError for more scenes than a clip of that many frames can have."""
    most = min(MOST_SCENES, max(frames, 16), MOST_SHARES // max(frames, 1))  # scenes may lie over each other
    if count > most:
        raise T2VError(f"The story has {count} scenes, and a clip of {frames} frames at most {most}: leave some out.")


def _head(line: str) -> tuple[list[str], str] | None:
    """The span and options before a line's colon, in small letters with single blanks, and its text; None without them."""
    head, *text = re.split("[:\uff1a]", line, maxsplit=1)
    parts = [_single_blanks(part).lower() for part in head.split(",")]
    if not text or not all(_SPAN.fullmatch(part) or _OPTION.fullmatch(part) for part in parts):
        return None
    return (parts, text[0].strip()) if sum(_SPAN.fullmatch(part) is not None for part in parts) <= 1 else None


def _single_blanks(text: str) -> str:
    return " ".join(text.split())


def _line(line: str, number: int, frames: int, fps: float) -> tuple[Scene, bool]:
    """One line -> its scene (end -1 where it has no span) and whether it is negative."""
    head = _head(line)
    if head is None:
        _check_plain(line, number, frames, fps)
        return Scene(checked_text(line, f"Line {number} of the story"), 0, -1), False
    parts, text = head
    scene, negative = Scene(checked_text(text, f"Line {number} of the story"), 0, -1), False
    for part in parts:
        if span := _SPAN.fullmatch(part):
            start, end = _span(span, number, frames, fps)
            scene = replace(scene, start=start, end=end)
        elif fade := _TIME.fullmatch(part.removeprefix("fade ")):
            scene = replace(scene, fade=_frames(fade[1], fade[2], number, frames, fps))
        elif part.startswith("weight"):
            scene = replace(scene, weight=_number(part.removeprefix("weight "), number, "weight"))
            if scene.weight > MOST_WEIGHT:
                raise T2VError(
                    f"Line {number} of the story has weight {scene.weight:g}: 0 to {MOST_WEIGHT} is possible."
                )
        elif part.startswith("negative"):
            negative = True
    return scene, negative


def _check_plain(line: str, number: int, frames: int, fps: float) -> None:
    """T2VError where a line without a span looks as if one was meant."""
    if begins_with_quoted_frame(line):
        raise T2VError(
            f"Line {number} of the story begins as a prompt schedule does, and lines before it do not: write either the "
            f"schedule alone or scenes, such as {EXAMPLE!r}."
        )
    head, *text = re.split("[:\uff1a]", line[:_SEARCHED], maxsplit=1)
    head = _single_blanks(head)
    span = _span_with_unit(head)
    if not text and span and _frames(span[3], span[4], number, frames, fps) <= frames + 0.5:
        raise T2VError(
            f"Line {number} of the story begins with {span[0].strip()!r} and has no colon before its text: {EXAMPLE!r}."
        )
    if text and _NEARLY.match(head):
        raise T2VError(f"Line {number} of the story begins with {head!r}, which is no span: {EXAMPLE!r}.")


def _span_with_unit(line: str) -> re.Match[str] | None:
    """The span with a unit that a line begins with; not as in "2-3 friends" or "1920-1930s"."""
    span = re.match(_SPAN.pattern + r"(?!\w)", _single_blanks(line[:_SEARCHED]), re.IGNORECASE)
    return span if span and (span[2] or span[4]) else None


def _span(match: re.Match[str], number: int, frames: int, fps: float) -> tuple[float, float]:
    """First frame and the one after the last, of a match of `_SPAN`."""
    first, first_unit, last, unit = match.groups()
    start = _frames(first, first_unit or unit, number, frames, fps)
    end = _frames(last, unit, number, frames, fps)
    if end <= start:
        raise T2VError(
            f"Line {number} of the story goes from {re.sub(_DASH, ' to ', match[0])}: it must end after "
            f"it starts, as in {EXAMPLE!r}."
        )
    if end > frames + 0.5:
        raise T2VError(
            f"Line {number} of the story ends at frame {end:g}, but the clip has {frames} "
            f"frames ({frames / fps:g} s): end it earlier, as in {EXAMPLE!r}, or make the clip longer."
        )
    return start, end


def _frames(text: str, unit: str, line: int, frames: int, fps: float) -> float:
    """A time in frames."""
    factor = {"s": fps, "%": frames / 100, "f": 1.0, "": 1.0}[unit.lower()]
    return round(_number(text, line, "time") * factor, 6)


def _number(text: str, line: int, what: str) -> float:
    """The number of a time or a weight; T2VError, which names the line, for one of too many digits."""
    if len(text) > MOST_DIGITS:
        raise T2VError(f"Line {line} of the story has a {what} of {len(text)} digits: write a shorter number.")
    return float(exact_number(text))


def _spread(lines: dict[int, Scene], frames: int) -> tuple[Scene, ...]:
    """Scenes without any span share the clip in equal parts; some with and some without cannot be placed."""
    without = [number for number, scene in lines.items() if scene.end < 0]
    scenes = tuple(lines.values())
    if not without:
        return scenes
    if len(without) < len(scenes):
        raise T2VError(
            f"Line {without[0]} of the story has no span while others have: give every scene one, as in "
            f"{EXAMPLE!r}, or none."
        )
    if len(scenes) > frames:
        raise T2VError(
            f"The story has {len(scenes)} scenes for {frames} frames: leave some out, or make the clip longer."
        )
    length = frames / len(scenes)
    return tuple(replace(s, start=i * length, end=(i + 1) * length) for i, s in enumerate(scenes))


def _check_cover(scenes: Sequence[Scene], frames: int) -> None:
    covered = envelopes(scenes, frames).sum(dim=1) > 0
    if not covered.all():
        first = int((~covered).nonzero()[0])
        raise T2VError(
            f"Frame {first} of the story has no scene (of {frames} frames): let the scenes follow each other "
            f"without a gap, as in {EXAMPLE!r}."
        )
