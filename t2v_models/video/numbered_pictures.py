"""The order of numbered pictures: which of the numbers in their names counts them."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class Numbered:
    """A picture's name, and the number in it that counts the pictures."""

    name: str
    begin: int
    """Where the digits of the number begin."""
    digits: str

    @property
    def number(self) -> int:
        """The value of the number."""
        return int(self.digits)

    @property
    def around(self) -> tuple[str, str]:
        """The name before and after the number."""
        return self.name[: self.begin], self.name[self.begin + len(self.digits) :]

    def with_number(self, number: int) -> str:
        """Return the name with another number, with at least as many digits."""
        head, tail = self.around
        return f"{head}{number:0{len(self.digits)}d}{tail}"


def has_number(name: str) -> bool:
    """Whether there is a number in a name, its ending left out."""
    return bool(_NUMBER.search(Path(name).stem))


def ordered(names: Sequence[str]) -> list[Numbered]:
    """Sort the pictures with a number in their names.

    Where the names differ in their numbers only, such as take1_08.png and take2_01.png, or 10.59.png and 11.00.png, an
    earlier number counts before a later one. Elsewhere the last number alone counts.
    """
    stems = {name: Path(name).stem for name in names if has_number(name)}
    if len({_NUMBER.sub("0", stem) for stem in stems.values()}) == 1:
        rows = sorted(([int(digits) for digits in _NUMBER.findall(stem)], name) for name, stem in stems.items())
        columns = list(zip(*(numbers for numbers, _ in rows), strict=True))
        varying = [index for index, column in enumerate(columns) if len(set(column)) > 1]
        index = varying[-1] if varying else -1
        return [_numbered(name, index) for _, name in rows]
    return sorted((_numbered(name, -1) for name in stems), key=lambda each: (each.number, each.name))


def _numbered(name: str, index: int) -> Numbered:
    found = list(_NUMBER.finditer(Path(name).stem))[index]
    return Numbered(name, found.start(), found[0])


def pattern(order: Sequence[Numbered]) -> str | None:
    """Return ffmpeg's pattern of the names, such as "shot_%05d_.png"; None where no pattern gives them all."""
    first = order[0]
    regular = all(each.name == first.with_number(first.number + i) for i, each in enumerate(order))
    if not regular or order[-1].number >= 1 << 31:
        return None
    head, tail = (text.replace("%", "%%") for text in first.around)
    return f"{head}%0{len(first.digits)}d{tail}"


def report_gaps(folder: Path, order: Sequence[Numbered]) -> None:
    """Log the numbers that are missing between the pictures, and those that several pictures have."""
    numbers = dict.fromkeys(each.number for each in order)
    if len({each.around for each in order}) > 1 and list(numbers) != sorted(numbers):
        return  # such as the seconds of a clock: several numbers count
    if len(numbers) < len(order):
        log.warning("%s: several pictures have one number; they are read in the order of their names.", folder)
    missing = order[-1].number - order[0].number + 1 - len(numbers)
    if missing > 0:
        number = next(a + 1 for a, b in zip(numbers, list(numbers)[1:], strict=False) if b > a + 1)
        example = order[0].with_number(number)
        log.warning(
            "%s lacks %d of its numbers (%s first): the pictures beside the gap follow one another.",
            folder, missing, example,
        )  # fmt: skip
