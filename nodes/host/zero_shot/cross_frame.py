"""Self-attention of an image MODEL in which the frames of a video look at anchor frames: a patch for every sampler.

Sources: Text2Video-Zero (arXiv:2303.13439) takes the first frame, Tune-A-Video (arXiv:2212.11565) the first and the previous
one, ControlVideo (arXiv:2305.13077) all, and RAVE (arXiv:2312.04524) groups that are shuffled in every step.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import comfy.patcher_extension
import torch
from torch import Tensor

from ....t2v_models.errors import T2VError
from ....t2v_models.zero_shot.anchors import ANCHORS, anchor_frames, anchored
from . import hints
from .image_model import check_frames_as_batch, frames_per_video, image_model

KEY = "t2v_cross_frame"
"""Of our wrappers, and of the `Anchors` among the options of one evaluation of the model."""

APPLY_MODEL = comfy.patcher_extension.WrappersMP.APPLY_MODEL
OUTER_SAMPLE = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
SHUFFLED = ANCHORS[-1]

NO_WINDOWS = (
    "The model has context windows, which cut the frames apart, so that later frames cannot look at the first one: take the "
    "context windows off the model; T2VZeroShot makes long videos in chunks."
)

log = logging.getLogger(__name__)


def patch(
    model: Any, anchor: str = ANCHORS[0], strength: float = 1.0, frames: int = 0, videos: int = 1, seed: int = 0
) -> Any:
    """Return a clone of an image MODEL whose self-attention takes keys and values of anchor frames; an earlier patch goes.

    Args:
        model: a MODEL of Stable Diffusion 1, 2 or XL.
        anchor: one of ANCHORS.
        strength: 1 for the anchors' keys and values, 0 for each frame's own, to the bit; between them the tokens of both are
            blended, which blends keys and values, since these are linear in them.
        frames: of each video in the batch; 0: the batch holds `videos` videos of one length.
        videos: in the batch, one after the other.
        seed: of the shuffled groups.

    Raises:
        T2VError: for a video model or another kind of network, and after context windows or HyperTile.
    """
    image_model(model)
    _check_patches_before(model.model_options)
    model = model.clone()
    _remove(model)
    if strength > 0:
        cross_frame = CrossFrame(anchor, strength, frames, videos, seed)
        model.set_model_attn1_patch(cross_frame.attention)
        model.add_wrapper_with_key(APPLY_MODEL, KEY, cross_frame.apply_model)
        model.add_wrapper_with_key(OUTER_SAMPLE, KEY, cross_frame.outer_sample)
    return model


@dataclass(frozen=True)
class Anchors:
    """Which frames each frame looks at in one evaluation of the model."""

    index: Tensor
    """(frames, n), on the model's device."""
    videos: int
    strength: float
    replaced: frozenset[tuple]
    """The blocks whose self-attention another patch computes, by the host's names: (block, number[, index])."""

    def of(self, tokens: Tensor) -> Tensor:
        """Return the anchors' tokens for each row, (rows, n * tokens, c), of tokens, (rows, tokens, c)."""
        frames, count = self.index.shape
        out = anchored(tokens, self.index, frames, self.videos)
        return out if self.strength == 1 else torch.lerp(tokens.repeat(1, count, 1), out, self.strength)

    def leave(self, options: dict[str, Any]) -> bool:
        """Whether the options are of a block that another patch computes, and whose frames look at themselves therefore.

        Such a patch stands for the attention of one image: perturbed attention returns the values as the result, and
        self-attention guidance reads the scores as a map of the image.
        """
        if not self.replaced:
            return False
        block = tuple(options.get("block") or ())
        return block in self.replaced or (*block, options.get("block_index")) in self.replaced


@dataclass(frozen=True)
class CrossFrame:
    """The settings, and what the host calls while it samples."""

    anchor: str
    strength: float
    frames: int
    videos: int
    seed: int

    def outer_sample(self, executor: Any, noise: Tensor, latent: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Wrap a whole sampling run of the host: refuse what does not go together, and announce hints of other lengths."""
        guider = executor.class_obj
        check_frames_as_batch(noise)
        handler = guider.model_options.get("context_handler")
        if handler is not None and noise.shape[getattr(handler, "dim", 0)] > getattr(handler, "context_length", 0):
            raise T2VError(NO_WINDOWS)
        _check_tiles(guider.model_options, self._anchors(len(noise)))
        hints.announce(guider.conds, len(noise), frames_per_video(len(noise), self.frames, self.videos))
        return executor(noise, latent, *args, **kwargs)

    def apply_model(
        self,
        executor: Any,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Wrap one evaluation of the model: find its anchors once, for all blocks."""
        options = transformer_options or {}
        options = {**options, KEY: self.anchors(len(x), options, x.device)}
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def attention(
        self, n: Tensor, context: Tensor, value: Tensor, options: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Patch a block's self-attention, the host's `attn1_patch`: n makes the queries, context the keys.

        All are (rows, tokens, c), and the result is, too, with as many tokens of context and value as the anchors have.
        """
        if len(n) != len(context):
            raise T2VError(
                f"Another patch has cut {len(context)} frames into {len(n)} tiles before the cross-frame attention: put "
                "T2VCrossFrameAttention before HyperTile and its like."
            )
        anchors = options.get(KEY) or self.anchors(len(context), options, context.device)
        if anchors.leave(options):
            return n, context, value
        keys = anchors.of(context)
        return n, keys, keys if value is context else anchors.of(value)

    def anchors(self, rows: int, options: dict[str, Any], device: torch.device) -> Anchors:
        """Return the anchors for a batch of rows: the frames of all videos, once for each conditioning evaluated together.

        Raises:
            T2VError: for rows of other numbers, and within a context window.
        """
        if options.get("context_window") is not None:
            raise T2VError(NO_WINDOWS)
        conditionings = options.get("cond_or_uncond")
        if conditionings is None and self.frames == 0:
            raise T2VError(
                f"The caller of the model does not say how many conditionings its {rows} rows hold: set frames in "
                "T2VCrossFrameAttention."
            )
        chunks = len(conditionings or (0,))
        if rows % chunks:
            raise T2VError(
                f"The batch has {rows} rows for {chunks} conditionings: each needs as many rows as the others."
            )
        frames = frames_per_video(rows // chunks, self.frames, self.videos)
        step = step_of(options) if self.anchor == SHUFFLED else 0
        index = anchor_frames(self.anchor, frames, seed=self.seed, step=step).to(device)
        replaced = frozenset(options.get("patches_replace", {}).get("attn1", {}))
        return Anchors(index, self.videos, self.strength, replaced)

    def _anchors(self, rows: int) -> int:
        """How many frames each frame looks at."""
        frames = frames_per_video(rows, self.frames, self.videos)
        return anchor_frames(self.anchor, frames, seed=self.seed).shape[1]


def step_of(options: dict[str, Any]) -> int:
    """Return the step, from 0, of an evaluation between two sigmas of the run; 0 where the host gives no sigmas."""
    sigmas, sigma = options.get("sample_sigmas"), options.get("sigmas")
    if sigmas is None or sigma is None:
        return 0
    return max(0, int((sigmas.to(sigma) >= sigma.flatten()[0] * (1 - 1e-4)).sum()) - 1)


def _remove(model: Any) -> None:
    """Take an earlier cross-frame attention off a clone."""
    patches = model.model_options.get("transformer_options", {}).get("patches", {})
    others = [each for each in patches.get("attn1_patch", ()) if not isinstance(_owner(each), CrossFrame)]
    if len(others) < len(patches.get("attn1_patch", ())):
        log.info("the last cross-frame attention on a model counts: the earlier one is taken off")
        patches["attn1_patch"] = others
    for kind in (APPLY_MODEL, OUTER_SAMPLE):
        model.remove_wrappers_with_key(kind, KEY)


def _owner(function: Any) -> Any:
    """The object of a bound method."""
    return getattr(function, "__self__", None)


def _tiles(model_options: dict[str, Any]) -> bool:
    """Whether HyperTile is on a model."""
    patches = model_options.get("transformer_options", {}).get("patches", {}).get("attn1_patch", ())
    return any(getattr(each, "__qualname__", "").startswith("HyperTile.") for each in patches)


def _check_patches_before(model_options: dict[str, Any]) -> None:
    """Raise T2VError for patches that must not stand before the cross-frame attention."""
    if model_options.get("context_handler") is not None:
        raise T2VError(NO_WINDOWS)
    if _tiles(model_options):
        raise T2VError(
            "HyperTile stands before the cross-frame attention, and cuts its queries into tiles: put "
            "T2VCrossFrameAttention before HyperTile."
        )


def _check_tiles(model_options: dict[str, Any], anchors: int) -> None:
    """Raise T2VError for HyperTile after several anchors: it deals their keys out to the tiles, some to each."""
    if anchors > 1 and _tiles(model_options):
        raise T2VError(
            f'HyperTile goes with one anchor, "{ANCHORS[0]}", and each frame has {anchors} here: choose that anchor, or '
            "take HyperTile off the model."
        )
