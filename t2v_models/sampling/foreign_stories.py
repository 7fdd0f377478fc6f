"""Texts that mean something in another program, and would be taken for plain prompts here: they are refused.

Schedules that are read as what they say stand in `t2v_models.sampling.prompt_schedule`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from ..errors import T2VError

FORMS = 'write frames and texts, such as "0": "a cat", "16": "a dog", or scenes, such as 0-2s: a cat / 2s-4s: a dog'

_BREAKS = re.compile("\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")

_LIST = re.compile(r"\s*\[\s*\{")
_EDITED = re.compile(r"\[[^\[\]:\n]{0,500}:[^\[\]:\n]{0,500}:\s?\d{0,9}\.?\d{1,9}\s?\]")
"""Prompt editing of A1111's web UI: "[a cat:a dog:0.5]"."""
_SETTINGS = re.compile(r"^\s{0,9}Steps: \d{1,9}, \w", re.MULTILINE)
"""The last line of the text that A1111's web UI writes into a picture."""
_QUOTED_FRAME = re.compile(r'"\s?\d{1,20}\s?"\s?[:=]\s?"')

_MARK = re.compile(r"[\[(<#@\s-]{0,9}(?:frames?|time|f|t)?[\s#=:.]{0,9}(\d{1,9}(?:[.:]\d{1,9}){0,3})", re.IGNORECASE)
"""A number at the beginning of a line, as a frame or a time stands there."""

_ANOTHER_FRAME = re.compile(r"[,;|]\s{0,9}\d{1,20}\s?[:\uff1a](?!\d)")
_CLOCK = re.compile(r"\d")
_HEADING = re.compile(r"\w{1,60}\s?:")


def plain_lines(text: str) -> str:
    """Return a text whose lines end in newlines, whatever system wrote it, without the mark of UTF-8 at its beginning."""
    return _BREAKS.sub("\n", text.removeprefix("\ufeff"))


def check_foreign(text: str, lines: Sequence[str]) -> None:
    """Raise T2VError for a text that another program would not take for prompts.

    Args:
        text: the whole story, which is no schedule that can be read.
        lines: its lines without those that say what not to show.
    """
    if _LIST.match(text[:300]) or _QUOTED_FRAME.search(text):
        raise T2VError(f"The story holds a prompt schedule in a form that is not read: {FORMS}.")
    if edited := _EDITED.search(text):
        raise T2VError(
            f"The story holds {edited[0][:60]!r}, which is prompt editing of another program and would be read as plain text: "
            f"{FORMS}."
        )
    if _SETTINGS.search(text):
        raise T2VError("The story holds another program's settings (Steps: …): leave that line out.")
    marks = [match and tuple(map(int, re.split("[.:]", match[1]))) for match in map(_MARK.match, lines)]
    numbers = [mark for mark in marks if mark]
    rising = len(numbers) == len(lines) > 1 and all(one < other for one, other in pairwise(numbers))
    if rising and not any(numbers[0]):
        raise T2VError(
            f"The story's lines begin with rising numbers ({lines[0][:40]!r}), in a form that is not read: {FORMS}."
        )


def check_frame_lines(others: Sequence[str], texts: Sequence[str]) -> None:
    """Raise T2VError for lines of frames that say something else.

    Args:
        others: the lines before and after them.
        texts: what stands behind their colons.
    """
    if all(map(_CLOCK.match, texts)):
        raise T2VError(
            "The story's lines begin with times such as 0:02, which are not read: write seconds, such as 0-2s: a cat / 2s-4s: "
            "a dog, or a blank behind the colon of a frame."
        )
    if any(map(_ANOTHER_FRAME.search, texts)):
        raise T2VError(
            "The story has several frames on one line: write every frame with its text on a line of its own."
        )
    for line in others:
        if _HEADING.fullmatch(line) or _SETTINGS.match(line):
            raise T2VError(f"The story holds {line[:60]!r}, which is another program's: leave that line out.")
