"""Frame rates as exact fractions."""

from __future__ import annotations

from fractions import Fraction

from ..errors import T2VError

_TELEVISION = [Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)]


def frame_rate(value: float | str | Fraction) -> Fraction:
    """Parse frames a second: 24, 29.97, "30000/1001" or a fraction; 23.976 and 29.97 mean 24000/1001 and 30000/1001.

    Raises:
        T2VError: where it is no number from 0.001 to 1000.
    """
    try:
        if isinstance(value, float):
            known = next((rate for rate in _TELEVISION if abs(rate - Fraction(value)) < Fraction(1, 200)), None)
            rate = known or Fraction(value).limit_denominator(1001)
        else:
            rate = Fraction(value)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        raise T2VError(f"The frame rate {value!r} is no number: give one such as 24, 29.97 or '30000/1001'.") from error
    if not Fraction(1, 1000) <= rate <= 1000:
        raise T2VError(f"The frame rate {value} is outside 0.001 to 1000 frames a second.")
    if rate.numerator >= 1 << 31 or rate.denominator >= 1 << 31:
        rate = rate.limit_denominator(1_000_000)
    return rate


def measured_rate(count: int, span: Fraction, tick: Fraction, uniform: Fraction | None) -> Fraction | None:
    """Find the frame rate behind time stamps that a container has rounded.

    Where stamps are coarse (1 ms in webm), it is the simplest rate that explains them.

    Args:
        count: frames.
        span: seconds from the first frame to the last.
        tick: seconds of the container's unit of time.
        uniform: seconds that every frame lasts; None where durations differ.

    Returns:
        Frames a second; None where the time stamps give none.
    """
    if (
        uniform
        and (count < 2 or span == uniform * (count - 1))
        and (tick < Fraction(1, 2000) or uniform.numerator == 1)
    ):
        return 1 / uniform
    if count < 2 or span <= 0:
        return 1 / uniform if uniform else None
    low, high = (count - 1) / (span + tick), (count - 1) / max(span - tick, tick / 2)
    for candidate in [*map(Fraction, range(1, 241)), *_TELEVISION, Fraction(25, 2), Fraction(15, 2)]:
        if low <= candidate <= high:
            return candidate
    return ((count - 1) / span).limit_denominator(1001) or None
