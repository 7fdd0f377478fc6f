"""Prompt schedules of other programs: texts of single frames, with cross-fades between them.

Two forms are read. ComfyUI_FizzNodes, Deforum and animatediff-cli write JSON, with or without the outer braces::

    "0": "a cat --neg blurry",
    "16": "a dog"

sd-webui-animatediff ("prompt travel") writes lines, with optional lines before and after them that belong to every text::

    best quality
    0: a cat
    16: a dog
    in the snow

Both fade from each frame's text to the next one's, in equal steps; the first text also holds before its frame, and the last
one after it. Sources: `interpolate_prompt_series` in BatchFuncs.py of FizzleDorf/ComfyUI_FizzNodes, where a text's weight falls
by 1 / (next frame - frame) with every frame, and "Prompt Travel" in docs/features.md of
continue-revolution/sd-webui-animatediff. Expressions, between backticks or as a frame number, are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..errors import T2VError
from ..texts import checked_text
from .foreign_stories import FORMS, check_frame_lines
from .scenes import Scene

_QUOTE, _TEXT = "[\"'\u201c\u201d\u201e\u2018\u2019]", "[^\"'\u201c\u201d\u201e\u2018\u2019\n]"
_QUOTED_FRAME = re.compile(
    rf"\{{\s*(?:{_QUOTE}{_TEXT}{{1,60}}{_QUOTE}|\d{{1,20}})\s*[:\uff1a=]"  # in braces, whatever stands for a frame
    rf"|{_QUOTE}\s*(?:-?\d|\(|max_f){_TEXT}{{0,60}}{_QUOTE}\s*[:\uff1a=]"
)
"""How a schedule in JSON begins, or a text that is meant as one."""
_FRAME_LINE = re.compile(r"(\d{1,20})\s?[:\uff1a](.*)")


@dataclass(frozen=True)
class Key:
    """The text of one frame; `negative` follows ``--neg`` in it."""

    frame: int
    text: str
    negative: str


def begins_with_quoted_frame(text: str) -> bool:
    """Whether a text is, or is meant as, a schedule in JSON."""
    return _QUOTED_FRAME.match(text.lstrip()[:300]) is not None


def is_frame_line(line: str) -> bool:
    """Whether a line is a frame number, a colon and a text."""
    return _FRAME_LINE.fullmatch(line) is not None


def json_keys(text: str) -> list[Key]:
    """Parse a schedule in JSON.

    Raises:
        T2VError: where it cannot be read as frames and texts.
    """
    body = text.strip().rstrip(",;").rstrip()
    if body.startswith("{"):
        body = body[1:].removesuffix("}").rstrip().rstrip(",")
    try:
        pairs = json.loads(
            f"{{{body}}}", strict=False, object_pairs_hook=list, parse_int=_no_text, parse_float=_no_text
        )
    except (ValueError, RecursionError) as error:
        why = "nested too deep" if isinstance(error, RecursionError) else str(error)[:100]
        raise T2VError(f"The story looks like a prompt schedule and is no JSON ({why}): {FORMS}.") from error
    return [_key(frame.strip(), value) for frame, value in pairs]


def line_keys(lines: Sequence[str]) -> list[Key]:
    """Parse lines of which some are a frame number, a colon and a text; lines before and after belong to every text.

    Raises:
        T2VError: where other lines stand between them, or belong to a text that does not begin at frame 0.
    """
    matches = [_FRAME_LINE.fullmatch(line) for line in lines]
    numbers = [i for i, match in enumerate(matches) if match]
    first, last = numbers[0], numbers[-1]
    if len(numbers) != last - first + 1:
        raise T2VError(f"The story has frame numbers before some lines and none before lines between them: {FORMS}.")
    head, tail = lines[:first], lines[last + 1 :]
    frames = [(match[1], _unquoted(match[2])) for match in matches if match]
    check_frame_lines([*head, *tail], [match[2] for match in matches if match])
    if (head or tail) and not any(int(frame) == 0 for frame, _ in frames):
        raise T2VError(f"The story has lines with a frame number and lines without, and none for frame 0: {FORMS}.")
    return [_key(frame, _joined([*head, text, *tail])) for frame, text in frames]


def cross_fades(keys: Sequence[Key], frames: int) -> tuple[tuple[Scene, ...], tuple[Scene, ...]]:
    """Return the scenes and the negative scenes of a clip: each text is whole at its frame and fades up to the next one's.

    Raises:
        T2VError: where two texts have one frame, or a frame is behind the clip's end.
    """
    keys = sorted(keys, key=lambda key: key.frame)
    for one, other in pairwise(keys):
        if one.frame == other.frame:
            raise T2VError(f"Frame {one.frame} of the schedule has two texts: give every frame one.")
    if keys and keys[-1].frame > frames:
        raise T2VError(
            f"The schedule has a text for frame {keys[-1].frame}, but the clip has {frames} frames: make the clip longer, "
            "or leave out what is behind its end."
        )
    # a scene's fade is centred on its start, and a frame is judged at its middle: hence the half frame
    starts = [0.0, *((one.frame + other.frame + 1) / 2 for one, other in pairwise(keys))]
    fades = [0.0, *(float(other.frame - one.frame) for one, other in pairwise(keys))]
    spans = list(zip(keys, starts, [*starts[1:], float(frames)], fades, strict=True))
    scenes = tuple(Scene(key.text, start, end, fade) for key, start, end, fade in spans)
    if not any(key.negative for key in keys):
        return scenes, ()
    return scenes, tuple(Scene(key.negative, start, end, fade) for key, start, end, fade in spans)


def _key(frame: str, value: object) -> Key:
    """The key of a frame's number and text, both as they were written."""
    if not re.fullmatch(r"\d{1,20}", frame):
        raise T2VError(f"The schedule has a text for frame {frame[:60]!r}, which is no whole number: {FORMS}.")
    if not isinstance(value, str):
        raise T2VError(f"The schedule has no text for frame {frame}: {FORMS}.")
    if "`" in value:
        raise T2VError(
            f"The text of frame {frame} has an expression between backticks, which is not computed: write its values."
        )
    text, _, negative = checked_text(value, f"The text of frame {frame}").partition("--neg")
    return Key(int(frame), " ".join(text.split()), " ".join(negative.split()))


def _unquoted(text: str) -> str:
    """A text without a pair of quotes around all of it, and without the comma behind them."""
    bare = text.strip(" ,")
    quoted = len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'" and bare[0] not in bare[1:-1]
    return bare[1:-1] if quoted else text


def _joined(parts: Sequence[str]) -> str:
    """Texts with commas between them."""
    return ", ".join(text for part in parts if (text := part.strip(" ,")))


def _no_text(_: str) -> None:
    """A number among the texts."""
