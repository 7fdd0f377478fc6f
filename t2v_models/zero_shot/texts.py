"""Texts as diffusers' pipelines of Stable Diffusion and Stable Diffusion XL encode them, one for each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..sampling.scenes import Story
from .request import Request


@dataclass(frozen=True)
class FrameTexts:
    """What the UNet gets of the texts: of all frames together, (1, …), or one a frame, (f, …)."""

    context: Tensor
    """(f, n, d) hidden states."""
    pooled: Tensor | None = None
    """(f, p), for Stable Diffusion XL."""

    def at(self, numbers: Sequence[int]) -> FrameTexts:
        """The texts of frames by their numbers."""

        def chosen(values: Tensor) -> Tensor:
            return values.expand(len(numbers), *values.shape[1:]) if len(values) == 1 else values[list(numbers)]

        return FrameTexts(chosen(self.context), None if self.pooled is None else chosen(self.pooled))


def encode(pipe: Any, request: Request) -> tuple[FrameTexts, FrameTexts | None]:
    """The texts of what all frames show, and of what they must not show; None without guidance."""
    story = request.story
    if story is None:
        known = {text: encode_text(pipe, text) for text in dict.fromkeys(request.prompts)}
        positive = _joined([known[text] for text in request.prompts])
    else:
        positive = _of_story(pipe, story, negative=False)
    if not request.guided:
        return positive, None
    if story is not None and story.negatives:
        return positive, _of_story(pipe, story, negative=True)
    return positive, encode_text(pipe, request.negative, negative=True)


def encode_text(pipe: Any, text: str, *, negative: bool = False) -> FrameTexts:
    """One text. An empty negative one is zeros in Stable Diffusion XL, as its pipeline has it."""
    if not hasattr(pipe, "text_encoder_2"):
        return FrameTexts(pipe.encode_prompt([text], pipe.device, 1, False)[0])
    context, _, pooled, _ = pipe.encode_prompt(
        prompt=text, device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if negative and not text and pipe.config.force_zeros_for_empty_prompt:
        return FrameTexts(torch.zeros_like(context), torch.zeros_like(pooled))
    return FrameTexts(context, pooled)


def _joined(texts: Sequence[FrameTexts]) -> FrameTexts:
    pooled = [each.pooled for each in texts if each.pooled is not None]
    return FrameTexts(torch.cat([each.context for each in texts]), torch.cat(pooled) if pooled else None)


def _of_story(pipe: Any, story: Story, *, negative: bool) -> FrameTexts:
    """A story's texts, blended frame by frame."""
    numbers = torch.arange(story.frames)[None]
    known: dict[str, FrameTexts] = {}

    def encoded(texts: Sequence[str]) -> FrameTexts:
        for text in texts:
            known[text] = known.get(text) or encode_text(pipe, text)
        return _joined([known[text] for text in texts])

    def pooled(texts: Sequence[str]) -> Tensor:
        values = encoded(texts).pooled
        return torch.zeros(len(texts), 1, 1) if values is None else values[:, None]

    def frames(values: Tensor) -> Tensor:
        return values[0] if values.ndim == 4 else values  # one text for all frames has no axis of frames

    context = frames(story.encode(lambda texts: encoded(texts).context, negative=negative).at(numbers))
    pool = frames(story.encode(pooled, negative=negative).at(numbers))[:, 0]
    return FrameTexts(context, pool if hasattr(pipe, "text_encoder_2") else None)


def branches(texts: FrameTexts, negative: FrameTexts | None, numbers: Sequence[int]) -> FrameTexts:
    """The texts of some frames for one call of the UNet: those of the negative prompt first, where there is guidance."""
    positive = texts.at(numbers)
    return positive if negative is None else _joined([negative.at(numbers), positive])
