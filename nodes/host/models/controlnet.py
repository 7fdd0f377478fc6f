"""ControlNets for images on video latents: they see the frames as a batch, and the UNet gets their residuals folded."""

from __future__ import annotations

from typing import Any

import comfy.patcher_extension
from torch import Tensor

KEY = "t2v_control"


class FrameControl:
    """A ControlNet that is asked about (b, c, t, h, w) and asks its inner one about ((b t), c, h, w).

    There is one of these per inner ControlNet, because the host batches prompt and negative prompt only where they
    share the same object.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.window: list[int] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def get_instance_for_device(self, device: Any) -> FrameControl:
        """The same for a ControlNet's copy on another device, of hosts that split the guidance over several."""
        other = adapted(self.inner.get_instance_for_device(device))
        other.window = self.window
        return other

    def get_control(self, x: Tensor, t: Tensor, cond: dict, batched_number: int, *args: Any) -> dict | None:
        """As the host's ControlBase.get_control, for clips."""
        if x.ndim != 5:
            return self.inner.get_control(x, t, cond, batched_number, *args)
        frames = x.shape[2]
        cond = dict(cond)
        for name in ("c_crossattn", "crossattn_controlnet", "y"):
            if cond.get(name) is not None:
                cond[name] = cond[name].repeat_interleave(frames, dim=0)
        folded = x.transpose(1, 2).flatten(0, 1)
        hint = self._slice_hint(frames)
        try:
            return self.inner.get_control(folded, t.repeat_interleave(frames), cond, x.shape[0], *args)
        finally:
            self._restore_hint(hint)

    def _slice_hint(self, frames: int) -> list[tuple[Any, Tensor]]:
        """Inside a context window only the window's images are the hint. Returns what to put back."""
        if self.window is None:
            return []
        saved, net = [], self.inner
        while net is not None:
            hint = net.cond_hint_original
            if hint is not None and hint.shape[0] > max(self.window):
                saved.append((net, hint))
                net.cond_hint_original, net.cond_hint = hint[self.window], None
            net = net.previous_controlnet
        return saved

    @staticmethod
    def _restore_hint(saved: list[tuple[Any, Tensor]]) -> None:
        for net, hint in saved:
            net.cond_hint_original, net.cond_hint = hint, None


def adapted(inner: Any) -> FrameControl:
    """The one adapter of a ControlNet, kept on it and so gone with it."""
    if isinstance(inner, FrameControl):
        return inner
    adapter = getattr(inner, "_t2v_frames", None)
    if adapter is None:
        adapter = inner._t2v_frames = FrameControl(inner)
    return adapter


def calc_cond_batch(executor: Any, model: Any, conds: list, x_in: Tensor, timestep: Tensor, model_options: dict) -> Any:
    """Wrapper around the host's evaluation of all conditionings: on clips, ControlNets are adapted."""
    if x_in.ndim == 5:
        window = _window(model_options, x_in.shape[2])
        conds = [None if cond is None else [_with_adapter(entry, window) for entry in cond] for cond in conds]
    return executor(model, conds, x_in, timestep, model_options)


def _with_adapter(entry: dict, window: list[int] | None) -> dict:
    if entry.get("control") is None:
        return entry
    adapter = adapted(entry["control"])
    adapter.window = window
    return {**entry, "control": adapter}


def _window(model_options: dict, frames: int) -> list[int] | None:
    """The frames that the host's context handler is evaluating; None where it evaluates all."""
    window = model_options.get("transformer_options", {}).get("context_window")
    if window is None:
        return None
    anchor = getattr(window, "causal_anchor_index", None)
    indices = ([] if anchor is None or anchor < 0 else [anchor]) + list(window.index_list)
    return indices if len(indices) == frames else None


def register_wrapper(patcher: Any) -> None:
    """Let ControlNets work on the clips of this model; survives clone()."""
    kind = comfy.patcher_extension.WrappersMP.CALC_COND_BATCH
    patcher.add_wrapper_with_key(kind, KEY, calc_cond_batch)
