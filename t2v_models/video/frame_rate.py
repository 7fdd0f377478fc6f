"""Frame rates as exact fractions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from ..errors import T2VError
from ..numbers import exact_number

_TELEVISION = [Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)]
_COMMON = [*map(Fraction, range(1, 241)), *_TELEVISION, Fraction(25, 2), Fraction(15, 2)]
"""Rates that people use, the simplest ones first."""


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
            rate = exact_number(value) if isinstance(value, str) else Fraction(value)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        given = repr(value[:40] if isinstance(value, str) else value)[:60]
        raise T2VError(f"The frame rate {given} is no number: give one such as 24, 29.97 or '30000/1001'.") from error
    if not Fraction(1, 1000) <= rate <= 1000:
        about = f"{value}"[:40] if rate.numerator < 10**40 and rate.denominator < 10**40 else "given"
        raise T2VError(f"The frame rate {about} is outside 0.001 to 1000 frames a second.")
    if rate.numerator >= 1 << 31 or rate.denominator >= 1 << 31:
        rate = rate.limit_denominator(1_000_000)
    return rate


def stored_rate(text: str | None) -> Fraction | None:
    """Parse the frame rate in a file's tag; None where there is none, or no possible one."""
    try:
        return frame_rate(text) if text else None
    except T2VError:
        return None


def measured_rate(
    count: int, span: Fraction, tick: Fraction, uniform: Fraction | None, stated: Fraction | None = None
) -> Fraction | None:
    """Find the frame rate behind time stamps that a container has rounded.

    Where stamps are coarse (1 ms in webm), it is the rate that the file states, or the simplest one that explains them.

    Args:
        count: frames.
        span: seconds from the first frame to the last.
        tick: seconds of the container's unit of time.
        uniform: seconds that every frame lasts; None where durations differ.
        stated: frames a second as the container says, or as ffmpeg guesses; None where unknown.

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
    if (
        uniform == tick and count > 2 and tick * _FASTEST >= 1
    ):  # the container counts frames: a gap repeats the last one
        return 1 / tick
    low, high = (count - 1) / (span + tick), (count - 1) / max(span - tick, tick / 2)
    if stated in _COMMON and low <= stated <= high:
        return stated
    if simple := _simplest(low, high):
        return simple
    if stated and high - low < stated / 1000 and abs(stated * span - (count - 1)) <= Fraction(1, 2):
        return stated  # exact stamps that differ by less than half a frame over the whole clip
    return ((count - 1) / span).limit_denominator(1001) or None


_STEADY = Fraction(3, 4)
"""Frames by which a time stamp may differ from that of a steady rate, before the clip counts as one of variable rate."""
_FASTEST = 240
"""Frames a second above which two time stamps are taken for a recorder's jitter."""
_SPREAD = 0.05
"""Relative difference within which two durations of frames count as one."""


def usual_rate(
    stamps: Sequence[int], tick: Fraction, steady: Fraction | None, span: Fraction
) -> tuple[Fraction, int] | None:
    """Find the usual rate of a clip whose frames do not come at a steady one, such as a screen recording.

    It is the rate of the most common duration of a frame; of several the shortest one.

    Args:
        stamps: the time of every frame in ticks, in any order.
        tick: seconds of the container's unit of time.
        steady: the rate of the whole clip, by `measured_rate`.
        span: seconds from the first frame to the last, or to its last repetition.

    Returns:
        (frames a second, frames of the whole clip at that rate); None where the frames keep step with `steady`, or the
        stamps give no usual rate.
    """
    if len(stamps) < 3 or not steady:
        return None
    times = np.sort(np.asarray(stamps, np.int64))
    times -= times[0]
    if times[-1] <= 0:  # no time passes, or the numbers overflow
        return None
    unit = float(tick)
    if np.abs(times * unit - np.arange(len(times)) / float(steady)).max() <= float(_STEADY / steady) + unit:
        return None
    rate = steady if steady * tick == 1 else _commonest(times, tick, steady)  # where the container counts frames
    if rate is None or not Fraction(1, 1000) <= rate <= 1000:
        return None
    return rate, int(span * rate + Fraction(1, 2)) + 1


def _commonest(times: np.ndarray, tick: Fraction, steady: Fraction) -> Fraction | None:
    """Return the rate of the most common duration between sorted times, in ticks; None where all are too short."""
    durations = np.diff(times).astype(np.float64)
    durations = np.sort(durations[durations * float(tick) * _FASTEST >= 1 - _SPREAD])
    if not len(durations):
        return None
    upper = np.searchsorted(durations, durations * (1 + _SPREAD) + 1, side="right")
    lower = int(np.argmax(upper - np.arange(len(durations))))
    common = durations[lower : upper[lower]]
    spread = Fraction(1, len(common))  # the mean is closer than a tick, the more of them there are
    mean = Fraction(float(common.mean())).limit_denominator(1_000_000)
    low, high = 1 / ((mean + spread) * tick), 1 / (max(mean - spread, mean / 2) * tick)
    rate = steady if low <= steady <= high else _simplest(low, high)
    return rate or (1 / (mean * tick)).limit_denominator(1001)


def _simplest(low: Fraction, high: Fraction) -> Fraction | None:
    """Return the first of the common rates from low to high."""
    return next((rate for rate in _COMMON if low <= rate <= high), None)
