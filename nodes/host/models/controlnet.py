"""Image ControlNets on video latents: they take the frames as a batch, and so the UNet adds their residuals."""

from __future__ import annotations

from typing import Any

import comfy.patcher_extension
from torch import Tensor

KEY = "t2v_control"


class FrameControl:
    """An adapter that calls an image ControlNet with ((b t), c, h, w) where the host calls it with (b, c, t, h, w).

    A ControlNet has one adapter: the host computes prompt and negative prompt in one batch only where both have the
    same object.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.window: list[int] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def get_instance_for_device(self, device: Any) -> FrameControl:
        """Adapt the ControlNet's copy on another device, for hosts that spread guidance over several devices."""
        other = adapted(self.inner.get_instance_for_device(device))
        other.window = self.window
        return other

    def get_control(self, x: Tensor, t: Tensor, cond: dict, batched_number: int, *args: Any) -> dict | None:
        """Return the residuals for x, (b, c, t, h, w) or a batch of images, as the host's ControlBase.get_control does."""
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
        """Cut the hints to the images of the present context window; returns the (ControlNet, hint) pairs to put back."""
        if self.window is None:
            return []
        saved, net = [], self.inner
        while net is not None:
            hint = net.cond_hint_original
            if hint is not None and hint.shape[0] > max(self.window):
                saved.append((net, hint))
                _set_hint(net, hint[self.window])
            net = net.previous_controlnet
        return saved

    @staticmethod
    def _restore_hint(saved: list[tuple[Any, Tensor]]) -> None:
        for net, hint in saved:
            _set_hint(net, hint)


def _set_hint(net: Any, hint: Tensor) -> None:
    """Give a ControlNet other control images, and empty its caches of the prepared ones: newer hosts have two by size."""
    net.cond_hint_original, net.cond_hint = hint, None
    for name in ("cond_hints", "control_inputs"):
        getattr(net, name, {}).clear()


def adapted(inner: Any) -> FrameControl:
    """Return the adapter of a ControlNet, which is stored on it."""
    if isinstance(inner, FrameControl):
        return inner
    adapter = getattr(inner, "_t2v_frames", None)
    if adapter is None:
        adapter = inner._t2v_frames = FrameControl(inner)
    return adapter


def calc_cond_batch(executor: Any, model: Any, conds: list, x_in: Tensor, timestep: Tensor, model_options: dict) -> Any:
    """Wrap the host's evaluation of all conditionings: for clips, their ControlNets are adapted."""
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
    """Numbers of the frames in the host's present context window; None where all frames are computed."""
    window = model_options.get("transformer_options", {}).get("context_window")
    if window is None:
        return None
    anchor = getattr(window, "causal_anchor_index", None)
    indices = ([] if anchor is None or anchor < 0 else [anchor]) + list(window.index_list)
    return indices if len(indices) == frames else None


def register_wrapper(patcher: Any) -> None:
    """Register `calc_cond_batch` on a ModelPatcher; its clones have it, too."""
    patcher.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.CALC_COND_BATCH, KEY, calc_cond_batch)
