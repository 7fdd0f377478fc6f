"""Frame rate and guidance as inputs of a MODEL's UNet."""

from __future__ import annotations

from typing import Any

from .model import video_model


def with_values(model: Any, **values: float) -> Any:
    """Return a clone with these values in its transformer options, where the UNet reads them; 0 leaves the model's own."""
    video_model(model)
    model = model.clone()
    options = model.model_options.setdefault("transformer_options", {})
    options["t2v_values"] = {
        **options.get("t2v_values", {}),
        **{name: value for name, value in values.items() if value > 0},
    }
    return model
