"""Image encoders as the host's CLIP_VISION, and pictures through any of them with the pixels that the originals feed."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.model_management
import torch
from torch import Tensor

from ....t2v_models.checkpoints import image_encoder
from ....t2v_models.checkpoints.tensors import as_lazy
from ....t2v_models.errors import T2VError
from ....t2v_models.image.encoder import vision_state
from ....t2v_models.image.preprocess import CLIP_SIZE, clip_pixels
from ....t2v_models.texts import strict_json

WANTED = "OpenCLIP ViT-H (CLIP-ViT-H-14-laion2B-s32B-b79K)"

PROJECTION = "visual_projection.weight"


def load_clip_vision(state_dict: Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> Any:
    """Make the host's CLIP_VISION of an image encoder in OpenCLIP's or transformers' names.

    Args:
        state_dict: the weights, see `t2v_models.image.encoder.vision_state`.
        config: entries of transformers' CLIPVisionConfig that shapes do not give, such as num_attention_heads.

    Raises:
        T2VError: where a weight is missing or has another shape.
    """
    weights = vision_state(state_dict)
    settings = image_encoder.config_of(as_lazy(weights)) | dict(config or {})
    if PROJECTION in weights:
        settings["projection_dim"] = weights[PROJECTION].shape[0]
    else:
        settings.pop("projection_dim", None)  # without one the host passes the pooled token on
    settings |= {"model_type": "clip_vision_model", "num_channels": 3}
    with tempfile.TemporaryDirectory() as folder:  # older hosts take a file only
        path = Path(folder) / "config.json"
        path.write_text(strict_json(settings), encoding="utf-8")
        clip_vision = comfy.clip_vision.ClipVisionModel(str(path))
    missing, _ = clip_vision.load_sd(weights)
    if missing:
        raise T2VError(f"The image encoder lacks {len(missing)} weights, first {min(missing)}: get its file again.")
    return clip_vision


def encode(clip_vision: Any, images: Tensor) -> Tensor:
    """Return all tokens after the encoder's last block, as the originals use them. (b, h, w, 3) -> (b, 257, width).

    The host's own preparation cuts pictures to a square and rounds them to 8 bits; ours squashes them.
    """
    return _run(clip_vision, clip_pixels(images))[0]


def embedding(clip_vision: Any, pixels: Tensor, width: int, title: str) -> Tensor:
    """Return CLIP's projected embedding of normalised pixels, (b, 3, 224, 224) -> (b, width).

    Raises:
        T2VError: for an encoder of another kind, and where its embedding has another width than this model, `title`, takes.
    """
    found = _run(checked(clip_vision, None, title), pixels)[1]
    if found.shape[-1] != width:
        raise T2VError(
            f"This CLIP_VISION makes an embedding {found.shape[-1]} wide, and {title} takes one of {width}: choose {WANTED} in "
            "Load CLIP Vision."
        )
    return found


def _run(clip_vision: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens and the projected embedding of normalised pixels, (b, 3, 224, 224), on the host's intermediate device."""
    comfy.model_management.load_models_gpu([clip_vision.patcher])
    tokens, _, embedding, *_ = clip_vision.model(
        pixel_values=pixels.to(clip_vision.load_device, torch.float32), intermediate_output=-2
    )
    kept = comfy.model_management.intermediate_device()
    return tokens.to(kept, torch.float32), embedding.to(kept, torch.float32)


def checked(clip_vision: Any, width: int | None, title: str) -> Any:
    """Return a CLIP_VISION whose tokens fit a model.

    Args:
        clip_vision: the host's.
        width: of the tokens that the model takes; None for any.
        title: names the model in the sentence.

    Raises:
        T2VError: for none, and for an encoder of another kind or size.
    """
    if clip_vision is None:
        raise T2VError(
            f"{title} takes the picture from an image encoder: wire clip_vision, from T2VModelLoader, or {WANTED} from Load "
            "CLIP Vision where the file has none."
        )
    shape = _tokens(clip_vision)
    if shape is None or shape[0] != _count() or shape[1] != (width or shape[1]):
        found = "is of another kind" if shape is None else f"makes {shape[0]} tokens, {shape[1]} wide"
        wanted = f"{_count()}, {width} wide" if width else f"{_count()}"
        raise T2VError(f"This CLIP_VISION {found}, and {title} takes {wanted}: choose {WANTED} in Load CLIP Vision.")
    return clip_vision


def _count() -> int:
    """Tokens of a picture: its patches of 14 pixels and the class token."""
    return (CLIP_SIZE // 14) ** 2 + 1


def _tokens(clip_vision: Any) -> tuple[int, int] | None:
    """Number and width of an encoder's tokens; None where it is no CLIP."""
    embeddings = getattr(getattr(clip_vision.model, "vision_model", None), "embeddings", None)
    if getattr(embeddings, "class_embedding", None) is None:
        return None
    return tuple(embeddings.position_embedding.weight.shape)
