"""Text encoding through the host's CLIP."""

from __future__ import annotations

from typing import Any

from .stories import check_clip


def encode(clip: Any, text: str) -> list:
    """A CONDITIONING of (1, n*77, d)."""
    check_clip(clip)
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))
