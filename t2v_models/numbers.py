"""Numbers that stand in a text: a story's spans, a tag's frame rate, an option of the command line."""

from __future__ import annotations

import re
from fractions import Fraction

from .errors import T2VError

MOST_DIGITS = 40
"""The most digits of a number in a text, and the most places by which its exponent may move the point."""

_DECIMAL = r"(?:\d+(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(rf"[+-]?{_DECIMAL}(?:e(?P<exponent>[+-]?\d+))?(?:/{_DECIMAL})?", re.IGNORECASE)


def exact_number(text: str) -> Fraction:
    """Parse "24", "29.97", "2.5e1" or "30000/1001" into an exact fraction.

    The digits are counted before any is converted: ``Fraction("1e999999999")`` computes for hours, and the time of ``int``
    grows with the square of the digits. `float(exact_number(text))` is the float that Python reads in the text.

    Raises:
        T2VError: where the text is no finite number, or has more than `MOST_DIGITS` digits.
    """
    text = text.strip()
    match = _NUMBER.fullmatch(text) if len(text) <= 3 * MOST_DIGITS else None
    exponent = (match and match["exponent"]) or "0"
    digits = sum(letter.isdecimal() for letter in text[: 3 * MOST_DIGITS])
    if match is None or digits > MOST_DIGITS or abs(int(exponent)) > MOST_DIGITS:
        raise T2VError(f"{text[:MOST_DIGITS]!r} is no number: write one such as 24, 29.97 or 30000/1001.")
    numerator, _, denominator = text.partition("/")
    if not denominator:
        return Fraction(numerator)
    if not Fraction(denominator):
        raise T2VError(f"{text!r} divides by zero: write a number such as 24, 29.97 or 30000/1001.")
    return Fraction(numerator) / Fraction(denominator)
