"""Cross-frame attention in diffusers' modules: processors that take keys and values from other frames."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from .anchors import anchored


class Anchors:
    """The frames that all self-attentions of a model attend to: (frames, n) of `anchor_frames`; None for their own."""

    frames: Tensor | None = None

    def put_into(self, models: Iterable[Any]) -> None:
        """Wrap the attention processors of diffusers' UNets and ControlNets."""
        for model in models:
            wrapped = {name: AnchoredProcessor(each, self) for name, each in model.attn_processors.items()}
            model.set_attn_processor(wrapped)


class AnchoredProcessor:
    """An attention processor of diffusers', whose self-attention takes its keys and values from anchors.

    The text attention, and self-attention while there are no anchors, are those of the processor inside.
    """

    def __init__(self, inner: Any, anchors: Anchors) -> None:
        self.inner, self.anchors = inner, anchors

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Arguments and result as those of diffusers' processors; rows are frames, one branch of guidance after another."""
        if encoder_hidden_states is None and self.anchors.frames is not None:
            encoder_hidden_states = anchored(hidden_states, self.anchors.frames, len(self.anchors.frames))
        return self.inner(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
