"""The image encoder: OpenCLIP's names to those of transformers' CLIPVisionModelWithProjection, and back."""

from __future__ import annotations

import math
from typing import Any

from . import openclip_blocks
from .layouts import Shape, check_shapes
from .tensors import LazyDict

_THEIR_BLOCKS, _BLOCKS = "visual.transformer.resblocks", "vision_model.encoder.layers"
_CLASS = "vision_model.embeddings.class_embedding"
_PATCHES = "vision_model.embeddings.patch_embedding.weight"
_POSITIONS = "vision_model.embeddings.position_embedding.weight"
_PROJECTION = "visual_projection.weight"
_ROOTS = {
    "visual.class_embedding": _CLASS,
    "visual.conv1.weight": _PATCHES,
    "visual.positional_embedding": _POSITIONS,
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
"""OpenCLIP's names -> transformers', whose "layrnorm" is no misprint of ours."""


def from_openclip(tensors: LazyDict, source: str) -> LazyDict:
    """Rename OpenCLIP's vision tower ("visual.…") to transformers' names, and leave out the text's part of CLIP.

    Args:
        tensors: the image encoder's, without a prefix.
        source: the checkpoint's name in an error.

    Raises:
        T2VError: where a tensor is missing or has another shape.
    """
    layers = openclip_blocks.count_blocks(tensors, _THEIR_BLOCKS)
    result = {_ROOTS[name]: tensor for name, tensor in tensors.items() if name in _ROOTS}
    result |= openclip_blocks.from_openclip(tensors, _THEIR_BLOCKS, _BLOCKS, layers)
    projection = tensors.get("visual.proj")
    if projection is not None and len(projection.shape) == 2:  # VideoCrafter and DynamiCrafter do without it
        result[_PROJECTION] = projection.then(lambda weight: weight.mT, projection.shape[::-1])
    check_shapes(result, lambda: expected_shapes(config_of(result)), f"{source}: its image encoder")
    return result


def from_transformers(tensors: LazyDict, source: str) -> LazyDict:
    """Keep transformers' names as in published files, and leave out the text's part of CLIP.

    Args:
        tensors: the image encoder's, without a prefix.
        source: the checkpoint's name in an error.

    Raises:
        T2VError: where a tensor is missing or has another shape.
    """
    result = {
        name: tensor
        for name, tensor in tensors.items()
        if name == _PROJECTION or (name.startswith("vision_model.") and not name.endswith("position_ids"))
    }
    check_shapes(result, lambda: expected_shapes(config_of(result)), f"{source}: its image encoder")
    return result


def to_openclip(tensors: LazyDict) -> LazyDict:
    """Rename transformers' tensors to OpenCLIP's ("visual.…")."""
    back = {theirs: ours for ours, theirs in _ROOTS.items()}
    result = {back[name]: tensor for name, tensor in tensors.items() if name in back}
    result |= openclip_blocks.to_openclip(tensors, _BLOCKS, _THEIR_BLOCKS)
    if _PROJECTION in tensors:
        projection = tensors[_PROJECTION]
        result["visual.proj"] = projection.then(lambda weight: weight.mT, projection.shape[::-1])
    return result


def config_of(tensors: LazyDict) -> dict[str, Any]:
    """Return the config.json of transformers' CLIPVisionModel (WithProjection) for tensors under its names.

    The number of heads does not follow from shapes: the towers of OpenCLIP that are 1024 wide or more (ViT-L, H, g, bigG)
    have 16, narrower ones have heads of 64 channels. OpenCLIP's activation is the exact GELU.

    Raises:
        KeyError: where a tensor is missing.
        ValueError: where it has a shape that no image encoder has.
    """
    width = tensors[_CLASS].shape[-1] if tensors[_CLASS].shape else 0
    patches, positions = tensors[_PATCHES].shape, tensors[_POSITIONS].shape
    if width < 1 or len(patches) != 4 or patches[-1] < 1 or len(positions) != 2:
        raise ValueError("an embedding of patches or positions")
    return {
        "architectures": ["CLIPVisionModelWithProjection" if _PROJECTION in tensors else "CLIPVisionModel"],
        "model_type": "clip_vision_model",
        "hidden_size": width,
        "intermediate_size": tensors[f"{_BLOCKS}.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": openclip_blocks.count_blocks(tensors, _BLOCKS),
        "num_attention_heads": 16 if width >= 1024 else max(width // 64, 1),
        "num_channels": patches[1],
        "patch_size": patches[-1],
        "image_size": patches[-1] * math.isqrt(max(positions[0] - 1, 0)),
        "hidden_act": "gelu",
        "projection_dim": tensors[_PROJECTION].shape[0] if _PROJECTION in tensors else width,
    }


def expected_shapes(config: dict[str, Any]) -> dict[str, Shape]:
    """Map the name of every tensor of transformers' CLIPVisionModel (WithProjection) to its shape."""
    width, patch = config["hidden_size"], config["patch_size"]
    tokens = (config["image_size"] // patch) ** 2 + 1
    shapes: dict[str, Shape] = {
        _CLASS: (width,),
        _PATCHES: (width, config["num_channels"], patch, patch),
        _POSITIONS: (tokens, width),
    }
    for norm in ("pre_layrnorm", "post_layernorm"):
        shapes[f"vision_model.{norm}.weight"] = shapes[f"vision_model.{norm}.bias"] = (width,)
    if config["architectures"] == ["CLIPVisionModelWithProjection"]:
        shapes[_PROJECTION] = (config["projection_dim"], width)
    return shapes | openclip_blocks.expected_shapes(
        _BLOCKS, config["num_hidden_layers"], width, config["intermediate_size"]
    )
