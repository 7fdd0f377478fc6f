"""Text encoding through the host's CLIP."""

from __future__ import annotations

from typing import Any

from .model import video_model
from .stories import check_clip


def encode(clip: Any, text: str) -> list:
    """A CONDITIONING of (1, n*77, d)."""
    check_clip(clip)
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def with_values(model: Any, **values: float) -> Any:
    """A clone whose UNet is told these values; 0 leaves the model's own. They travel in the transformer options."""
    video_model(model)
    model = model.clone()
    options = model.model_options.setdefault("transformer_options", {})
    options["t2v_values"] = {
        **options.get("t2v_values", {}),
        **{name: value for name, value in values.items() if value > 0},
    }
    return model
