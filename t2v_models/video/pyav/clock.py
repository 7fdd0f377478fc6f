"""Time that goes on where recordings were joined, as the ffmpeg program makes it (ffmpeg_demux.c, ts_discontinuity_process)."""

from __future__ import annotations

from fractions import Fraction

import av

_FORWARDS = 10
"""Seconds by which time may leap forwards before they count as a join."""

_BACKWARDS = Fraction(1, 10)
"""Seconds by which time may leap backwards."""


class Clock:
    """Corrects the times of a stream's packets, one after the other."""

    def __init__(self, stream: av.stream.Stream):
        self._tick = Fraction(stream.time_base)
        rate = stream.average_rate if stream.type == "video" else None
        self._lasts = round(1 / (rate * self._tick)) if rate else 0
        self._offset = 0
        self._last: int | None = None
        self._next = 0

    def correct(self, packet: av.Packet) -> None:
        """Move a packet's times, where time has leapt, to where the one before it ends."""
        if packet.dts is None:
            return
        decoded = packet.dts + self._offset
        if self._last is not None:
            leap = decoded - self._next
            if abs(leap) * self._tick > _FORWARDS or (self._last - decoded) * self._tick > _BACKWARDS:
                self._offset -= leap
                decoded -= leap
        self._last, self._next = decoded, decoded + (packet.duration or self._lasts)
        packet.dts += self._offset
        if packet.pts is not None:
            packet.pts += self._offset
