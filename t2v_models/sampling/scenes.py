"""Scenes over the frames of a clip: which share of which text every frame has, and the contexts made of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import T2VError

MOST_TOKENS = 1 << 18
"""Tokens of all texts of a story together, after they were repeated to one length: 1 GiB of embeddings 1024 wide."""


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

    def part(self, first: int, frames: int) -> Story:
        """A story of so many frames from number `first` on; what holds at the end of this one holds beyond it as well."""

        def moved(scene: Scene) -> Scene:
            end = scene.end if scene.end < self.frames - 0.5 else max(scene.end, first + frames)
            return replace(scene, start=scene.start - first, end=end - first)

        scenes, negatives = (tuple(map(moved, each)) for each in (self.scenes, self.negatives))
        return Story(scenes, frames, negatives)

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
    """Repeat the tokens of contexts (…, n, d) up to a common multiple of their lengths, which leaves attention as it is.

    Raises:
        T2VError: where the multiple is so large that no memory would hold the contexts.
    """
    tokens = math.lcm(*(each.shape[-2] for each in contexts))
    if tokens * len(contexts) > MOST_TOKENS:
        raise T2VError(
            f"The {len(contexts)} texts have so many different lengths that each would be repeated to {tokens} tokens: "
            "make the long ones shorter, or about as long as each other."
        )
    return [each.repeat(*[1] * (each.ndim - 2), tokens // each.shape[-2], 1) for each in contexts]


def equal_shape(negative: Tensor, positive: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Give two contexts one shape: (b, n, d) both, or (b, t, n, d) both where either changes over the frames."""
    negative, positive = equal_length([negative, positive])
    if negative.ndim == positive.ndim:
        return negative, positive
    one, other = (c if c.ndim == 4 else c[:, None].expand(-1, frames, -1, -1) for c in (negative, positive))
    return one, other


def envelopes(scenes: Sequence[Scene], frames: int, *, bridged: bool = True) -> Tensor:
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
    shares = envelopes(scenes, frames, bridged=filled)
    total = shares.sum(dim=1, keepdim=True)
    return (shares / total.clamp(min=1e-9 if filled else 1)).float()
