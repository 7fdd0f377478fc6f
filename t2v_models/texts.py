"""Texts at the border: which ones are taken from outside, and JSON that every reader takes."""

from __future__ import annotations

import json
import re
from typing import Any

from .errors import T2VError

MOST_LETTERS = 50_000
"""The most characters of one prompt; a text encoder would work for minutes on more."""

MOST_STORY = 1_000_000
"""The most characters of a whole story."""

_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def checked_text(text: str, what: str, most: int = MOST_LETTERS) -> str:
    """Return a prompt or another text from outside as it is.

    Args:
        text: from a person, a file or a caller.
        what: names the text in a sentence, such as "The prompt".
        most: characters.

    Raises:
        T2VError: where it is no `str`, has more characters, or holds a NUL or half of a surrogate pair, which text encoders
            and files do not take.
    """
    if not isinstance(text, str):
        raise T2VError(f"{what} is of type {type(text).__name__}: a text is wanted.")
    if len(text) > most:
        raise T2VError(f"{what} has {len(text)} characters: at most {most} are possible, so shorten it.")
    if _NO_TEXT.search(text):
        raise T2VError(f"{what} holds characters that are no text: write it again, in UTF-8.")
    return text


def strict_json(value: Any, **layout: Any) -> str:
    """Write a value as JSON (RFC 8259), which has no NaN and no infinity: both become null.

    A number of NumPy or PyTorch is written as a number, any other foreign object as its text.

    Args:
        value: what `json.dumps` takes, and objects besides.
        layout: `json.dumps`' indent, separators, sort_keys, ensure_ascii.

    Raises:
        T2VError: where it cannot be written: it holds itself, or is nested too deeply.
    """
    try:
        text = json.dumps(value, default=_plain, **layout)
        if "NaN" not in text and "Infinity" not in text:
            return text
        return json.dumps(json.loads(text, parse_constant=lambda _: None), **layout)
    except (TypeError, ValueError, RecursionError) as error:
        raise T2VError(f"A value cannot be written as JSON ({error}): give plain texts, numbers, lists.") from error


def _plain(value: Any) -> Any:
    """A foreign object as something that JSON has."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # a number of NumPy or PyTorch
        return value.item()
    return str(value)
