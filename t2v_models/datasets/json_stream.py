"""A stranger's JSON of any length, one entry at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import T2VError
from ..foreign import parse_json, quoted
from ..numbers import MOST_DIGITS

MOST_ENTRY = 4 << 20
"""The most characters of one entry: a parse of more takes memory that no caption needs."""
_PART = 1 << 16
_SPACE = " \t\n\r"


class JsonStream:
    """Reads the list or the object of a file entry by entry; memory holds one entry.

    Raises:
        T2VError: at the entry that is no JSON, or longer than `MOST_ENTRY`.
    """

    def __init__(self, file: IO[str], source: Path) -> None:
        self._file, self._source = file, source
        self._text, self._at = "", 0
        self._decoder = json.JSONDecoder(parse_int=_whole_number)

    def entries(self) -> Iterator[tuple[str | None, Any]]:
        """Yield (key, value) of an object, (None, value) of a list; an object's list "data" yields its own entries so."""
        opened = self._next("[{")
        closed = "}" if opened == "{" else "]"
        if self._peek() == closed:
            self._next(closed)
            return
        while True:
            key = None
            if opened == "{":
                key = str(self._value())
                self._next(":")
            if key == "data" and self._peek() == "[":
                yield from self.entries()
            else:
                yield key, self._value()
            if self._next("," + closed) == closed:
                return

    def _peek(self) -> str:
        """Return the next character that is no space, "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _next(self, wanted: str) -> str:
        found = self._peek()
        if not found or found not in wanted:
            raise self._damaged(f"{quoted(found) or 'its end'} where one of {wanted} is wanted")
        self._at += 1
        return found

    def _value(self) -> Any:
        """Read the next value; twice as much text is tried each time until it is whole."""
        self._peek()
        while True:
            why = "it ends too early"
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                if end < len(self._text) or not self._more():  # a number at the end may go on
                    self._at = end
                    return value
                continue
            except (ValueError, MemoryError) as error:
                why = quoted(error)
            except RecursionError:
                raise self._damaged("it is nested too deep") from None
            if len(self._text) - self._at > MOST_ENTRY:
                raise self._damaged(f"an entry is longer than {MOST_ENTRY:,} characters, or damaged")
            if not self._more():
                raise self._damaged(why)

    def _more(self) -> bool:
        """Read on; False at the file's end."""
        rest = self._text[self._at :]
        part = self._file.read(max(_PART, len(rest)))
        self._text, self._at = rest + part, 0
        return bool(part)

    def _damaged(self, why: str) -> T2VError:
        return T2VError(
            f"{self._source} is no readable JSON ({why}): what stands before was read; mend or remove the rest."
        )


def _whole_number(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def open_text(path: Path) -> IO[str]:
    """Open a text file; bytes that are no UTF-8 become replacement characters. T2VError where that is impossible."""
    try:
        if not path.is_file():
            raise T2VError(f"{path} is no file: check the name and the folder.")
        return path.open(encoding="utf-8-sig", errors="replace", newline="")
    except OSError as error:
        raise T2VError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error


def json_entries(path: Path) -> Iterator[tuple[str | None, Any]]:
    """Yield the entries of a JSON file, see `JsonStream.entries`."""
    with open_text(path) as file:
        yield from JsonStream(file, path).entries()


def json_lines(path: Path) -> Iterator[Any]:
    """Yield the value of every line that is not empty; a `T2VError` in the place of one that is no JSON."""
    with open_text(path) as file:
        while line := file.readline(MOST_ENTRY + 1):
            if len(line) > MOST_ENTRY:
                raise T2VError(f"{path} has a line longer than {MOST_ENTRY:,} characters: mend or remove it.")
            if line.strip():
                try:
                    yield parse_json(line, path)
                except T2VError as error:
                    yield error
