"""Context windows in the host's context handler, for every sampler node."""

from __future__ import annotations

from typing import Any

import comfy.context_windows
import torch
from torch import Tensor

from ....t2v_models.errors import T2VError
from ....t2v_models.sampling.windows import Windows, window_weights, windows
from ..models import pictures
from ..models.model import video_model

WINDOWS = "t2v_windows"


class WindowHandler(comfy.context_windows.IndexListContextHandler):
    """Our windows and weights in the host's context handler, which cuts masks and conditionings to each window."""

    def __init__(self, settings: Windows) -> None:
        schedule = comfy.context_windows.ContextSchedule(WINDOWS, self._spans)
        fuse = comfy.context_windows.ContextFuseMethod(WINDOWS, self._weights)
        super().__init__(schedule, fuse, settings.length, settings.overlap, closed_loop=settings.looped, dim=2)
        self.settings = settings
        self.causal_window_fix = False  # an extra frame before each window is for causal models

    def should_use_context(self, model: Any, conds: Any, x_in: Tensor, *args: Any, **kwargs: Any) -> bool:
        if x_in.ndim != 5:
            raise T2VError(
                f"A latent of shape {tuple(x_in.shape)} has its frames as a batch: windows need the 5 dimensions of "
                "T2VEmptyLatent (T2VLatentLayout converts)."
            )
        return self.settings.looped or len(self.settings.over(x_in.shape[2]).spans()) > 1

    def set_step(self, timestep: Tensor, model_options: dict[str, Any]) -> None:
        """Find the present step by its sigma; between two steps, which some samplers evaluate, the last one stays."""
        sigmas = model_options["transformer_options"]["sample_sigmas"]
        known = torch.isclose(sigmas, timestep[0].to(sigmas), rtol=1e-4).nonzero()
        if len(known):
            self._step = int(known[0])

    def execute(
        self,
        calc_cond_batch: Any,
        model: Any,
        conds: Any,
        x_in: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any],
    ) -> Any:
        """Evaluate window by window, each with the whole timestep: the host would cut it where there is one for each clip."""

        def whole(model: Any, conds: Any, x: Tensor, _: Tensor, options: dict[str, Any]) -> Any:
            return calc_cond_batch(model, conds, x, timestep, options)

        return super().execute(whole, model, conds, x_in, timestep[:1], model_options)

    def get_resized_cond(self, cond_in: list | None, x_in: Tensor, window: Any, device: Any = None) -> list | None:
        """Cut conditionings to a window as the host does; masks, (1, t or 1, h, w), and pictures at their axes of frames."""
        resized = super().get_resized_cond(cond_in, x_in, window, device)
        for given, cut in zip(cond_in or (), resized or (), strict=True):
            mask = given.get("mask")
            if isinstance(mask, Tensor):
                one_per_frame = mask.ndim == 4 and mask.shape[1] == x_in.shape[2]
                cut["mask"] = (mask[:, window.index_list] if one_per_frame else mask).to(device or mask.device)
            whole = given["model_conds"]
            parts = {name: pictures.of_window(whole[name], window, device) for name in pictures.CONDS if name in whole}
            cut["model_conds"] = {**cut["model_conds"], **parts}
        return resized

    def _spans(self, frames: int, handler: Any, model_options: dict[str, Any]) -> list[list[int]]:
        return self.settings.over(frames).spans(self._step)

    def _weights(self, length: int, **_: Any) -> list[float]:
        return window_weights(length, self.settings.fusion, self.settings.overlap).tolist()


def with_windows(model: Any, settings: Windows) -> Any:
    """Return a clone of the MODEL that denoises long clips window by window.

    Raises:
        T2VError: where windows of this length and overlap do not cover a clip.
    """
    video_model(model)
    windows(settings.length + 1, settings.length, settings.overlap)  # raises before sampling
    model = model.clone()
    model.model_options["context_handler"] = WindowHandler(settings)
    comfy.context_windows.create_prepare_sampling_wrapper(model)
    return model
