"""Prompts and stories as a CONDITIONING. A story carries few texts, and each frame's share of them for the UNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.conds
import torch
from torch import Tensor

from ...t2v_models.errors import T2VError
from ...t2v_models.sampling.scenes import FrameContexts, Story, equal_length
from ...t2v_models.texts import checked_text

KEY = "t2v_story"
"""Where a CONDITIONING's dictionary holds its story, as `FrameContexts`."""

POOLED = "t2v_story_pooled"
"""Where it holds the pooled embeddings of the story's texts, likewise, as texts of one token; SDXL takes one a frame."""


def check_clip(clip: Any) -> None:
    """Raise T2VError, with the remedy, where the loaded model has no text encoder."""
    if clip is None:
        raise T2VError(
            "The loaded model has no text encoder: choose one as text_encoder in T2VModelLoader, or wire CLIPLoader "
            "(type stable_diffusion)."
        )


def encode_prompt(clip: Any, text: str) -> list:
    """Encode one prompt with a host CLIP to a CONDITIONING of (1, n*77, d), as core's CLIPTextEncode does."""
    check_clip(clip)
    checked_text(text, "The prompt")
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def encode(clip: Any, texts: Sequence[str]) -> Tensor:
    """Encode texts with a host CLIP to (texts, n, d): each is encoded alone, then repeated whole to one length."""
    check_clip(clip)
    return torch.cat(equal_length([each[:1] for each, _ in _encoded(clip, texts)]))


def _encoded(clip: Any, texts: Sequence[str]) -> list[tuple[Tensor, Tensor | None]]:
    """The embedding of each text, (1, n, d), and its pooled one, (1, d), where the encoder has one."""
    return [clip.encode_from_tokens(clip.tokenize(text), return_pooled=True) for text in texts]


def conditioning(
    contexts: FrameContexts, more: dict[str, Any] | None = None, pooled: FrameContexts | None = None
) -> list:
    """Make a CONDITIONING of the first frame's text, (1, n, d), that carries the contexts of all frames.

    Args:
        contexts: of all frames.
        more: further entries of its dictionary, such as a CLIP's `hooks`.
        pooled: the frames' pooled embeddings, as contexts of one token.
    """
    extra = {**(more or {}), KEY: contexts}
    if pooled is not None:
        extra |= {POOLED: pooled, "pooled_output": _first(pooled)[:, 0]}
    return [[_first(contexts), extra]]


def from_text(clip: Any, story: Story, *, negative: bool = False) -> list:
    """Make a CONDITIONING of a story's own texts, with the hooks that the CLIP has for the model."""
    check_clip(clip)
    encoded: list[tuple[Tensor, Tensor | None]] = []

    def encode_text(texts: Sequence[str]) -> Tensor:
        encoded[:] = _encoded(clip, texts)
        return torch.cat(equal_length([each[:1] for each, _ in encoded]))

    contexts = story.encode(encode_text, negative=negative)
    pooled = _pooled(story, [each for _, each in encoded], negative=negative)
    return conditioning(contexts, clip.add_hooks_to_dict({}), pooled)


def _pooled(story: Story, texts: Sequence[Tensor | None], *, negative: bool = False) -> FrameContexts | None:
    """The pooled embeddings of all frames; None where a text has none. texts: (1, d) of the empty text and each scene's."""
    known = [each for each in texts if each is not None]
    if not known or len(known) < len(texts):
        return None
    return story.encode(lambda _: torch.stack([each[:1] for each in known]), negative=negative)


def from_conditionings(scenes: list[list], story: Story) -> list:
    """Make a CONDITIONING from one per scene: the story gives the spans, the conditionings give the texts.

    Raises:
        T2VError: where their number is not that of the scenes, or where they differ in more than their texts.
    """
    if len(scenes) != len(story.scenes):
        raise T2VError(
            f"{len(scenes)} conditionings are wired for {len(story.scenes)} scenes: wire one for each that is not negative."
        )
    hooks = [hooks_of(scene, f"The conditioning of scene {number + 1}") for number, scene in enumerate(scenes)]
    if any(each is not hooks[0] for each in hooks):
        raise T2VError(
            "The scenes' conditionings have different hooks, and a story has one model: use one CLIP for all scenes."
        )
    texts = torch.cat(equal_length([scene[0][0][:1] for scene in scenes]))
    contexts = story.encode(lambda wanted: torch.cat([torch.zeros_like(texts[:1]), texts])[: len(wanted)])
    given = [scene[0][1].get("pooled_output") for scene in scenes]
    empty = None if given[0] is None else torch.zeros_like(given[0])
    return conditioning(contexts, {} if hooks[0] is None else {"hooks": hooks[0]}, _pooled(story, [empty, *given]))


def hooks_of(conditioning: list, called: str) -> Any:
    """Return the hooks of a conditioning that serves as one text; None where it has none.

    Raises:
        T2VError: where it holds more than a text and hooks. `called` names it in the sentence.
    """
    whole = {"clip_start_percent": 0.0, "clip_end_percent": 1.0}
    extra = conditioning[0][1]
    if any(extra.get(name, value) != value for name, value in whole.items()):
        raise T2VError(f"{called} changes over the steps, and one text is wanted: switch schedule_clip off.")
    if len(conditioning) != 1:
        raise T2VError(
            f"{called} has {len(conditioning)} parts, and one text is wanted: combine conditionings for a sampler only."
        )
    known = {"pooled_output", "hooks", KEY, POOLED, *whole}
    more = [name for name, value in extra.items() if value is not None and name not in known]
    if more:
        raise T2VError(
            f"{called} carries {', '.join(more)}, which would be lost: give the text alone, and set that on the "
            "conditioning that goes to the sampler."
        )
    return extra.get("hooks")


def carried(text: Tensor | None, extra: dict[str, Any]) -> FrameContexts | None:
    """Return the contexts of all frames that a CONDITIONING carries; None without a story, or where its text was zeroed.

    Raises:
        T2VError: where a node has changed the text alone, and the story behind it no longer fits.
    """
    contexts: FrameContexts | None = extra.get(KEY)
    if contexts is None or text is None:
        return None
    first = _first(contexts)
    if text.shape[1:] == first.shape[1:] and torch.allclose(text[:1].to(first), first, rtol=1e-3, atol=1e-3):
        return contexts
    if text.any():  # ConditioningZeroOut leaves no text in any frame
        raise T2VError(
            "A story's conditioning was changed by a node for single texts, such as ConditioningAverage or "
            "ConditioningConcat: change the texts before, one conditioning per scene, and wire those to T2VStory."
        )
    return None


def of_frames(
    text: Tensor, extra: dict[str, Any], numbers: Sequence[int], frames: int
) -> tuple[Tensor, Tensor | None] | None:
    """Return the texts of some frames of a clip as a batch, and their pooled embeddings where the story has them.

    Args:
        text, extra: of a CONDITIONING; None comes back where it carries no story.
        numbers: n frames of the clip.
        frames: of the clip; a story of another length is spread evenly over it.

    Returns:
        (n, tokens, d), or (1, tokens, d) where the frames share one text, and (n, d) or (1, d).
    """
    contexts, pooled = carried(text, extra), extra.get(POOLED)
    if contexts is None:
        return None
    spread = _evenly(frames, len(contexts.blend))
    wanted = torch.tensor([[spread[number] for number in numbers]])
    texts = contexts.at(wanted).flatten(0, -3)
    return texts, None if pooled is None else pooled.at(wanted).flatten(0, -2)


def conds(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that `extra_conds` adds for a conditioning with a story; {} for any other.

    They are flat, so that the host's context windows, which cut a tensor where it is as long as the clip, leave them
    whole. A clip of another length than the story's is spread evenly over it, in windows or not.
    """
    contexts = carried(kwargs.get("cross_attn"), kwargs)
    if contexts is None:
        return {}
    noise = kwargs["noise"]
    blend = contexts.blend[_evenly(noise.shape[0] if noise.ndim == 4 else noise.shape[2], len(contexts.blend))]
    shape = (*blend.shape, *contexts.texts.shape[1:])
    return {
        "t2v_texts": comfy.conds.CONDRegular(contexts.texts.reshape(1, -1)),
        "t2v_blend": comfy.conds.CONDRegular(blend.reshape(1, -1)),
        "t2v_story_shape": comfy.conds.CONDConstant(shape),
    }


def context(texts: Tensor, blend: Tensor, shape: tuple[int, ...], frames: int, window: Any) -> Tensor:
    """Return the text of every frame in the UNet: (b, t, n, d), or (b, n, d) where all frames share one.

    Args:
        texts, blend: (b, s*n*d) and (b, T*s), flat as in `conds`.
        shape: (T, s, n, d), T the clip's frames.
        frames: t, how many of them the UNet is given.
        window: the host's context window over frames, which says which frames these are; None for all.
    """
    total, scenes, tokens, width = shape
    texts = texts.view(-1, scenes, tokens, width)
    blend = blend.view(-1, total, scenes)
    shares = blend[:, _numbers(frames, total, window)]
    if torch.equal(shares, shares[:, :1].expand_as(shares)):
        return torch.einsum("b s, b s n d -> b n d", shares[:, 0].to(texts), texts)
    return torch.einsum("b t s, b s n d -> b t n d", shares.to(texts), texts)


def _first(contexts: FrameContexts) -> Tensor:
    """The first frame's text, (1, n, d)."""
    return contexts.at(torch.tensor([[0]]))


def _numbers(frames: int, total: int, window: Any) -> list[int]:
    """Which of the clip's frames a call computes, by the window if there is one."""
    index = list(getattr(window, "index_list", ()))
    anchor = getattr(window, "causal_anchor_index", None)
    if anchor is not None and anchor >= 0 and len(index) + 1 == frames:
        index = [anchor, *index]
    if len(index) == frames:  # of a loop also where the window is as long as the clip: it begins anywhere
        return [min(number, total - 1) for number in index]
    if frames == total:
        return list(range(total))
    return _evenly(frames, total)


def _evenly(frames: int, total: int) -> list[int]:
    """Which frames of a clip of `total` frames stand for the frames of a shorter or longer one."""
    return [min(total - 1, int((i + 0.5) * total / frames)) for i in range(frames)]
