"""A story as a CONDITIONING: few texts and each frame's share of them, unpacked inside the UNet."""

from __future__ import annotations

from typing import Any

import comfy.conds
import torch
from torch import Tensor

from ...t2v_models.errors import T2VError
from ...t2v_models.sampling.story import Story, Told

KEY = "t2v_story"


def told_by(clip: Any, story: Story, *, negative: bool = False) -> Told:
    """The story's embeddings by a host CLIP; all padded to the longest text."""

    return story.told(lambda texts: encode(clip, texts), negative=negative)


def check_clip(clip: Any) -> None:
    """Say what to do where a loaded file had no text encoder."""
    if clip is None:
        raise T2VError(
            "The loaded model has no text encoder: choose one as text_encoder in T2VModelLoader, or wire CLIPLoader "
            "(type "
            "stable_diffusion)."
        )


def encode(clip: Any, texts: list[str]) -> Tensor:
    """(n, tokens, d): every text by a host CLIP."""
    check_clip(clip)
    return _same_length([clip.encode_from_tokens(clip.tokenize(text)) for text in texts])


def conditioning(told: Told, besides: dict[str, Any] | None = None) -> list:
    """A CONDITIONING (1, n, d) of the first frame's text, which carries the whole story besides.

    besides: what it carries, too, such as a CLIP's `hooks`.
    """
    return [[_first(told), {**(besides or {}), KEY: told}]]


def from_text(clip: Any, story: Story, *, negative: bool = False) -> list:
    """A CONDITIONING of a story's own texts, with the hooks that the CLIP has for the model."""
    return conditioning(told_by(clip, story, negative=negative), clip.add_hooks_to_dict({}))


def from_conditionings(scenes: list[list], story: Story) -> list:
    """A CONDITIONING from one per scene: the story gives the spans, the conditionings the texts."""
    if len(scenes) != len(story.scenes):
        raise T2VError(
            f"{len(scenes)} conditionings are wired for {len(story.scenes)} scenes: wire one for each that is not negative."
        )
    hooks = [hooks_of(scene, f"The conditioning of scene {number + 1}") for number, scene in enumerate(scenes)]
    if any(each is not hooks[0] for each in hooks):
        raise T2VError(
            "The scenes' conditionings have different hooks, and a story has one model: use one CLIP for all scenes."
        )
    texts = _same_length([scene[0][0] for scene in scenes])
    told = story.told(lambda wanted: torch.cat([torch.zeros_like(texts[:1]), texts])[: len(wanted)])
    return conditioning(told, {} if hooks[0] is None else {"hooks": hooks[0]})


def hooks_of(conditioning: list, called: str) -> Any:
    """The hooks of a conditioning that serves as a text; T2VError where it holds more than they and the text."""
    whole = {"clip_start_percent": 0.0, "clip_end_percent": 1.0}
    extra = conditioning[0][1]
    if any(extra.get(name, value) != value for name, value in whole.items()):
        raise T2VError(f"{called} changes over the steps, and one text is wanted: switch schedule_clip off.")
    if len(conditioning) != 1:
        raise T2VError(
            f"{called} has {len(conditioning)} parts, and one text is wanted: combine conditionings for a sampler only."
        )
    known = {"pooled_output", "hooks", KEY, *whole}
    more = [name for name, value in extra.items() if value is not None and name not in known]
    if more:
        raise T2VError(
            f"{called} carries {', '.join(more)}, which would be lost: give the text alone, and set that on what a sampler "
            "is given."
        )
    return extra.get("hooks")


def carried(text: Tensor | None, extra: dict[str, Any]) -> Told | None:
    """The story behind a CONDITIONING's text, if there is one and nothing has been done to the text alone.

    Raises:
        T2VError: where a node has changed the text, which knows nothing of the story.
    """
    told: Told | None = extra.get(KEY)
    if told is None or text is None:
        return None
    first = _first(told)
    if text.shape[1:] == first.shape[1:] and torch.allclose(text[:1].to(first), first, rtol=1e-3, atol=1e-3):
        return told
    if text.any():  # ConditioningZeroOut leaves no text in any frame
        raise T2VError(
            "A story's conditioning was changed by a node that knows one text only, such as ConditioningAverage or "
            "ConditioningConcat: change the texts before, one conditioning per scene, and wire those to T2VStory."
        )
    return None


def conds(kwargs: dict[str, Any]) -> dict[str, Any]:
    """What `extra_conds` adds for a conditioning that carries a story; flat, so that no window cuts it by accident.

    A clip of another length than the story's takes it evenly, whether it is denoised whole or in windows.
    """
    told = carried(kwargs.get("cross_attn"), kwargs)
    if told is None:
        return {}
    noise = kwargs["noise"]
    blend = told.blend[_evenly(noise.shape[0] if noise.ndim == 4 else noise.shape[2], len(told.blend))]
    shape = (*blend.shape, *told.texts.shape[1:])
    return {
        "t2v_texts": comfy.conds.CONDRegular(told.texts.reshape(1, -1)),
        "t2v_blend": comfy.conds.CONDRegular(blend.reshape(1, -1)),
        "t2v_story_shape": comfy.conds.CONDConstant(shape),
    }


def context(texts: Tensor, blend: Tensor, shape: tuple[int, ...], frames: int, window: Any) -> Tensor:
    """The text of every frame in the UNet. texts: (b, s*n*d), blend: (b, T*s) -> (b, t, n, d) or (b, n, d).

    A context window over frames, if not None, tells which of the clip's frames these are.
    """
    total, scenes, tokens, width = shape
    texts = texts.view(-1, scenes, tokens, width)
    blend = blend.view(-1, total, scenes)
    shares = blend[:, _numbers(frames, total, window)]
    if torch.equal(shares, shares[:, :1].expand_as(shares)):
        return torch.einsum("b s, b s n d -> b n d", shares[:, 0].to(texts), texts)
    return torch.einsum("b t s, b s n d -> b t n d", shares.to(texts), texts)


def _first(told: Told) -> Tensor:
    """The first frame's text, (1, n, d)."""
    return told.at(torch.tensor([[0]]))


def _numbers(frames: int, total: int, window: Any) -> list[int]:
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
    """Which of so many frames a clip of another length shows."""
    return [min(total - 1, int((i + 0.5) * total / frames)) for i in range(frames)]


def _same_length(embeddings: list[Tensor]) -> Tensor:
    """(1, n_i, d) each -> (s, n, d): shorter texts are repeated, as the host does with prompts of unequal length."""
    longest = max(each.shape[1] for each in embeddings)
    rows = [each[:1].repeat(1, -(-longest // each.shape[1]), 1)[:, :longest] for each in embeddings]
    return torch.cat(rows)
