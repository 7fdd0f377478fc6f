"""Limits for a stranger's file: what it may make us build, the form of its JSON, and how much of it a message quotes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import AGAIN, T2VError
from .numbers import MOST_DIGITS

LIMITS = {
    "operations": 3_000_000,
    "values": 8_000_000,
    "characters of names": 64_000_000,
    "tensors": 200_000,
    "shards": 1_000,
}
"""The most that one file may make us do or build, by what is counted. A model of this family has 4,000 tensors at most and
takes 100,000 operations to read; a training checkpoint with its optimizer ten times as many."""

MOST_JSON = 16 << 20
"""The most bytes of a JSON text: a parse of more would hold the interpreter's lock for more than a second."""
_MOST_NESTED = 1_000_000
"""The most lists and objects in a JSON text."""


class Budget:
    """Counts what one file makes us build, of all its parts together."""

    def __init__(self, source: str | os.PathLike[str], limits: dict[str, int] | None = None) -> None:
        """Begin a count for the file `source`; `limits` replace single entries of `LIMITS`."""
        self.source = source
        self.limits = LIMITS | (limits or {})
        self.spent = dict.fromkeys(self.limits, 0)

    def spend(self, what: str, count: int = 1) -> None:
        """Count so many more of a kind; T2VError, which names the file, where they are more than its limit."""
        self.spent[what] += count
        if self.spent[what] > self.limits[what]:
            raise T2VError(
                f"{self.source} takes more than {self.limits[what]:,} {what} to read, which no model does: it is damaged "
                "or made to do harm. Download it from another source."
            )


def parse_json(
    text: str | bytes,
    source: str | os.PathLike[str],
    *,
    pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Parse a stranger's JSON within limits of size, nesting and digits.

    Args:
        text: the JSON; bytes are UTF-8.
        source: the file's name, for errors.
        pairs_hook: makes the value of an object from its keys and values; None makes a dictionary.

    Raises:
        T2VError: where it is no JSON, or beyond the limits.
    """
    if len(text) > MOST_JSON:
        raise T2VError(f"{source} holds {len(text):,} bytes of JSON, and at most {MOST_JSON:,} are read. {AGAIN}")
    nested = text.count(b"{") + text.count(b"[") if isinstance(text, bytes) else text.count("{") + text.count("[")
    if nested > _MOST_NESTED:
        raise T2VError(f"{source} holds more than {_MOST_NESTED:,} lists and objects in its JSON. {AGAIN}")
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(text, object_pairs_hook=pairs_hook, parse_int=_whole_number)
    except (ValueError, RecursionError, MemoryError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else quoted(error)
        raise T2VError(f"{source} is no readable JSON ({why}): download it again, or remove it.") from error


def _whole_number(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def read_json_file(path: Path) -> Any:
    """Read a JSON file within the limits of `parse_json`.

    Raises:
        T2VError: where it cannot be read, is no plain file, or is no JSON.
    """
    try:
        if not path.is_file():  # a pipe would never end
            raise T2VError(f"{path} is no file: check the name and the folder.")
        with path.open("rb") as file:
            text = file.read(MOST_JSON + 1)
    except OSError as error:
        raise T2VError(f"{path} cannot be read ({error}): check its permissions.") from error
    return parse_json(text, path)


def quoted(value: object, most: int = 120) -> str:
    """Return the text of a name, a shape or another value from a file, on one line and cut where it is long."""
    text = value if isinstance(value, str) else _text(value, most)
    cut = text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in cut)


def _text(value: object, most: int) -> str:
    """Return `str(value)`; of a long list or tuple only the first items."""
    if isinstance(value, (list, tuple)) and len(value) > most // 8:
        first = ", ".join(_text(item, 16) for item in value[: most // 8])
        return f"[{first}, … ({len(value):,} in all)]"
    return str(value)
