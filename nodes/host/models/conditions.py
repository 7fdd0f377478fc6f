"""Values that a MODEL's UNet takes besides the text: frame rate and guidance."""

from __future__ import annotations

from typing import Any

from .model import video_model


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
