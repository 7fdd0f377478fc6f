"""A story: which text holds over which frames.

One scene per line, ``SPAN[, OPTION …]: text``::

    0-2s: a red circle moves right
    2s-4s, fade 0.5s: a red circle moves up
    negative: blurry
    50%-100%, negative: a blue square

A span is in seconds (``s``), per cent (``%``) or frames (no unit); its first number takes the unit of its second.
Options are ``fade DURATION`` (a cross-fade centred on the scene's start), ``weight NUMBER`` (emphasis, 1 is none) and
``negative``. Lines without any span share the clip in equal parts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import T2VError

EXAMPLE = "0-2s: a red circle moves right / 2s-4s, fade 0.5s: a red circle moves up"
MOST_WEIGHT = 100
_NUMBER = r"\d+(?:\.\d+)?"
_TIME = re.compile(rf"({_NUMBER})\s*(s|f|%|)", re.IGNORECASE)
_DASH = "[-\u2013\u2014\u2212\u2011]"
_SPAN = re.compile(rf"({_NUMBER})\s*(s|f|%|)\s*{_DASH}\s*({_NUMBER})\s*(s|f|%|)", re.IGNORECASE)
_OPTION = re.compile(rf"(?:fade\s+{_NUMBER}\s*(?:s|f|%|)|weight\s+{_NUMBER}|negative)", re.IGNORECASE)
_NEARLY = re.compile(
    rf"\s*-?{_NUMBER}\s*(?:(?:s|sec|seconds?|f|frames?|%)\s*$|(?:s|f|%)?\s*(?:{_DASH}|,|to\b|$))", re.IGNORECASE
)
"""What a reader would take for a span."""
_HEAD = re.compile(
    rf"^(?:{_OPTION.pattern}\s*,\s*)*(?:{_SPAN.pattern}|{_OPTION.pattern})(?:\s*,\s*{_OPTION.pattern})*\s*$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Scene:
    """One text and the frames it holds over: from `start` up to, not including, `end`; both may be fractional."""

    text: str
    start: float
    end: float
    fade: float = 0.0
    """Length in frames of the cross-fade from the scene before, centred on `start`."""

    weight: float = 1.0
    """Emphasis: the text's embedding is moved this far from the empty text's."""


@dataclass(frozen=True)
class Story:
    """Scenes that together cover every frame of a clip, and the negative lines."""

    scenes: tuple[Scene, ...]
    frames: int
    negatives: tuple[Scene, ...] = ()

    def blend(self) -> Tensor:
        """(frames, scenes): how much of each scene's text each frame has; rows sum to 1."""
        return _blend(self.scenes, self.frames)

    def with_speed(self, word: str, known: Sequence[str]) -> Story:
        """A story with a word for the speed put before each scene's text, unless that has one of the `known` words."""
        if not word:
            return self

        def hastened(scene: Scene) -> Scene:
            has_one = set(known) & set(re.findall(r"\w+", scene.text.lower()))
            return scene if has_one or not scene.text else replace(scene, text=f"{word} {scene.text}")

        return replace(self, scenes=tuple(hastened(scene) for scene in self.scenes))

    def encode(self, encode_text: Callable[[Sequence[str]], Tensor], *, negative: bool = False) -> FrameContexts:
        """Encode the scenes' texts into the contexts of all frames.

        Args:
            encode_text: texts -> (texts, n, d).
            negative: encode the negative lines instead; where none holds, the empty text.
        """
        scenes = self.negatives if negative else self.scenes
        embeddings = encode_text(["", *(scene.text for scene in scenes)])
        weight = torch.tensor([1.0, *(scene.weight for scene in scenes)]).to(embeddings)[:, None, None]
        texts = embeddings[:1] + weight * (embeddings - embeddings[:1])
        blend = _blend(scenes, self.frames, filled=not negative) if scenes else torch.zeros(self.frames, 0)
        rest = (1 - blend.sum(dim=1, keepdim=True)).clamp(min=0)
        return FrameContexts(texts, torch.cat([rest, blend], dim=1).to(texts))


@dataclass(frozen=True)
class FrameContexts:
    """The text context of every frame: a few embeddings, and each frame's share of them."""

    texts: Tensor
    """(s, n, d): the empty text and the scenes'."""

    blend: Tensor
    """(frames, s)."""

    def at(self, numbers: Tensor) -> Tensor:
        """The contexts of clips of any frames. numbers: (b, t) frame numbers; past the end the last frame's text holds.

        Returns (b, t, n, d), or (b, n, d) where the frames of every clip share one text.
        """
        shares = self.blend[numbers.clamp(0, len(self.blend) - 1).to(self.blend.device)]  # (b, t, s)
        if torch.equal(shares, shares[:, :1].expand_as(shares)):
            shares = shares[:, 0]
        return torch.einsum("... s, s n d -> ... n d", shares, self.texts)


def equal_length(contexts: Sequence[Tensor]) -> list[Tensor]:
    """Repeat the tokens of contexts (…, n, d) up to a common multiple of their lengths, which leaves attention as it is."""
    tokens = math.lcm(*(each.shape[-2] for each in contexts))
    return [each.repeat(*[1] * (each.ndim - 2), tokens // each.shape[-2], 1) for each in contexts]


def equal_shape(negative: Tensor, positive: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Give two contexts one shape: (b, n, d) both, or (b, t, n, d) both where either changes over the frames."""
    negative, positive = equal_length([negative, positive])
    if negative.ndim == positive.ndim:
        return negative, positive
    one, other = (c if c.ndim == 4 else c[:, None].expand(-1, frames, -1, -1) for c in (negative, positive))
    return one, other


def parse_story(text: str, frames: int, fps: float) -> Story:
    """Read a story: one scene per line, or scenes with " / " between them.

    Args:
        text: see the module's description.
        frames: the clip's length.
        fps: its frame rate, by which seconds become frames.

    Raises:
        T2VError: naming the line, where times contradict each other, pass the end or leave frames without a text.
    """
    lines = [line.strip() for line in re.split(r"\n| / ", text) if line.strip()]
    parsed = [_line(line, i + 1, frames, fps) for i, line in enumerate(lines)]
    positive = {i + 1: each for i, (each, negative) in enumerate(parsed) if not negative}
    if not positive:
        raise T2VError(f"The story has no scene: write one per line, such as {EXAMPLE!r}.")
    scenes = _spread(positive, frames)
    negatives = tuple(
        replace(scene, start=0, end=frames) if scene.end < 0 else scene for scene, negative in parsed if negative
    )
    _check_cover(scenes, frames)
    return Story(scenes, frames, negatives)


def with_negative(text: str, negative: str) -> str:
    """Add a negative line for the whole clip to a story's text."""
    negative = " ".join(word for word in negative.split() if word != "/")  # on one line, whatever it holds
    return f"{text}\nnegative: {negative}" if negative else text


def _line(line: str, number: int, frames: int, fps: float) -> tuple[Scene, bool]:
    """One line -> its scene (end -1 where it has no span) and whether it is negative."""
    head, *rest = re.split("[:\uff1a]", line, maxsplit=1)
    if not rest or not _HEAD.match(head.strip()):
        _check_text(line, head if rest else None, number, frames, fps)
        return Scene(line, 0, -1), False
    scene, negative = Scene(rest[0].strip(), 0, -1), False
    for part in (each.strip().lower() for each in head.split(",")):
        if span := _SPAN.fullmatch(part):
            start, end = _span(span, number, frames, fps)
            scene = replace(scene, start=start, end=end)
        elif part.startswith("fade"):
            fade = _TIME.fullmatch(part[4:].strip())
            scene = replace(scene, fade=_frames(fade[1], fade[2], frames, fps) if fade else 0.0)
        elif part.startswith("weight"):
            scene = replace(scene, weight=float(part[6:]))
            if scene.weight > MOST_WEIGHT:
                raise T2VError(
                    f"Line {number} of the story has weight {scene.weight:g}: 0 to {MOST_WEIGHT} is possible."
                )
        elif part == "negative":
            negative = True
    return scene, negative


def _check_text(line: str, head: str | None, number: int, frames: int, fps: float) -> None:
    """T2VError where a line without a span looks as if one was meant. head: what stands before its colon, if it has one."""
    span = re.match(_SPAN.pattern + r"(?!\w)", line, re.IGNORECASE)  # and not as in "2-3 friends" or "1920-1930s"
    if head is None and span and (span[2] or span[4]) and _frames(span[3], span[4], frames, fps) <= frames + 0.5:
        raise T2VError(
            f"Line {number} of the story begins with {span[0].strip()!r} and has no colon before its text: {EXAMPLE!r}."
        )
    if head is not None and _NEARLY.match(head):
        raise T2VError(f"Line {number} of the story begins with {head.strip()!r}, which is no span: {EXAMPLE!r}.")


def _span(match: re.Match[str], number: int, frames: int, fps: float) -> tuple[float, float]:
    """First frame and the one after the last, of a match of `_SPAN`."""
    first, first_unit, last, unit = match.groups()
    start, end = _frames(first, first_unit or unit, frames, fps), _frames(last, unit, frames, fps)
    if end <= start:
        raise T2VError(
            f"Line {number} of the story goes from {re.sub(_DASH, ' to ', match[0])}: it must end after "
            f"it starts, as in {EXAMPLE!r}."
        )
    if end > frames + 0.5:
        raise T2VError(
            f"Line {number} of the story ends at frame {end:g}, but the clip has {frames} "
            f"frames ({frames / fps:g} s): end it earlier, as in {EXAMPLE!r}, or make the clip longer."
        )
    return start, end


def _frames(number: str, unit: str, frames: int, fps: float) -> float:
    factor = {"s": fps, "%": frames / 100, "f": 1.0, "": 1.0}[unit.lower()]
    return round(float(number) * factor, 6)


def _spread(lines: dict[int, Scene], frames: int) -> tuple[Scene, ...]:
    """Scenes without any span share the clip in equal parts; some with and some without cannot be placed."""
    without = [number for number, scene in lines.items() if scene.end < 0]
    scenes = tuple(lines.values())
    if not without:
        return scenes
    if len(without) < len(scenes):
        raise T2VError(
            f"Line {without[0]} of the story has no span while others have: give every scene one, as in "
            f"{EXAMPLE!r}, or none."
        )
    length = frames / len(scenes)
    return tuple(replace(s, start=i * length, end=(i + 1) * length) for i, s in enumerate(scenes))


def _check_cover(scenes: Sequence[Scene], frames: int) -> None:
    covered = _envelopes(scenes, frames).sum(dim=1) > 0
    if not covered.all():
        first = int((~covered).nonzero()[0])
        raise T2VError(
            f"Frame {first} of the story has no scene (of {frames} frames): let the scenes follow each other "
            f"without a gap, as in {EXAMPLE!r}."
        )


def _envelopes(scenes: Sequence[Scene], frames: int, *, bridged: bool = True) -> Tensor:
    """(frames, scenes): 1 where a scene holds, 0 where not, ramps over fades. A frame is judged at its middle.

    bridged: a gap before a scene that fades in is filled by its fade; else it stays one.
    """
    at = torch.arange(frames, dtype=torch.float64) + 0.5
    columns = []
    for scene in scenes:
        later = [s for s in scenes if s is not scene and s.start >= scene.end - 0.5]  # units meet within half a frame
        next_start = min((s.start for s in later), default=math.inf)
        following = [s for s in later if s.start <= next_start + 0.5]
        reach = max([0.5, *(s.fade / 2 for s in following if bridged)])
        fade_out = max((s.fade for s in following if s.start - scene.end <= reach), default=0.0)
        rise = _ramp(at - scene.start, scene.fade)
        columns.append(rise * (1 - _ramp(at - scene.end, fade_out)))
    return torch.stack(columns, dim=1)


def _ramp(offset: Tensor, length: float) -> Tensor:
    """0 before, 1 after, a straight line over `length` centred on offset 0."""
    return (offset >= 0).double() if length <= 0 else (offset / length + 0.5).clamp(0, 1)


def _blend(scenes: Sequence[Scene], frames: int, *, filled: bool = True) -> Tensor:
    """(frames, scenes) shares; filled: every frame's sum to 1, else to at most 1."""
    envelopes = _envelopes(scenes, frames, bridged=filled)
    total = envelopes.sum(dim=1, keepdim=True)
    return (envelopes / total.clamp(min=1e-9 if filled else 1)).float()
