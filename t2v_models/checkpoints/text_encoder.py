"""The text encoder: OpenCLIP's names to those of transformers' CLIPTextModel, and back.

OpenCLIP ViT-H has 24 blocks, and these models use the output of the 23rd; so the encoder for transformers has 23.
"""

from __future__ import annotations

from typing import Any

import torch

from . import openclip_blocks
from .layouts import Shape, check_shapes
from .tensors import LazyDict, LazyTensor

_THEIR_BLOCKS, _BLOCKS = "transformer.resblocks", "text_model.encoder.layers"
_ROOTS = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}


def from_openclip(tensors: LazyDict, source: str) -> LazyDict:
    """Rename OpenCLIP's text encoder to transformers' names, and leave out its last block, whose output is never used.

    Args:
        tensors: the text encoder's, without a prefix.
        source: the checkpoint's name in an error.

    Raises:
        T2VError: where a tensor is missing or has another shape.
    """
    layers = openclip_blocks.count_blocks(tensors, _THEIR_BLOCKS)
    width = tensors["token_embedding.weight"].shape[-1] if "token_embedding.weight" in tensors else 0
    kept = layers if (width, layers) == (1024, 23) else layers - 1
    result = {_ROOTS[name]: tensor for name, tensor in tensors.items() if name in _ROOTS}
    result |= openclip_blocks.from_openclip(tensors, _THEIR_BLOCKS, _BLOCKS, kept)
    check_shapes(result, lambda: expected_shapes(config_of(result)), f"{source}: its text encoder")
    return result


def from_transformers(tensors: LazyDict, source: str) -> LazyDict:
    """Add "text_model." to transformers' names, as in published files; transformers 5 leaves it out.

    Args:
        tensors: the text encoder's, without a prefix.
        source: the checkpoint's name in an error.

    Raises:
        T2VError: where a tensor is missing or has another shape.
    """
    result = {
        name if name.startswith("text_model.") else f"text_model.{name}": tensor
        for name, tensor in tensors.items()
        if not name.endswith("position_ids") and not name.startswith("text_projection")
    }
    check_shapes(result, lambda: expected_shapes(config_of(result)), f"{source}: its text encoder")
    return result


def without_last_block(tensors: LazyDict) -> LazyDict:
    """Leave the 24th block of OpenCLIP ViT-H out of tensors under transformers' names; other encoders stay as they are."""
    last = openclip_blocks.count_blocks(tensors, _BLOCKS) - 1
    width = tensors[_ROOTS["token_embedding.weight"]].shape[-1]
    if (width, last) != (1024, 23):
        return tensors
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{_BLOCKS}.{last}.")}


def to_openclip(tensors: LazyDict) -> LazyDict:
    """Rename transformers' tensors to OpenCLIP's, and add a last block of zeros, whose output is never used."""
    back = {theirs: ours for ours, theirs in _ROOTS.items()}
    result = {back[name]: tensor for name, tensor in tensors.items() if name in back}
    result |= openclip_blocks.to_openclip(tensors, _BLOCKS, _THEIR_BLOCKS)
    last = openclip_blocks.count_blocks(result, _THEIR_BLOCKS)
    for name, tensor in list(result.items()):
        if name.startswith("transformer.resblocks.0."):
            result[name.replace(".0.", f".{last}.", 1)] = _zeros(tensor.shape, tensor.dtype)
    width, dtype = tensors[_ROOTS["token_embedding.weight"]].shape[-1], tensors[_ROOTS["token_embedding.weight"]].dtype
    result["text_projection"] = _zeros((width, width), dtype)
    result["logit_scale"] = _zeros((), dtype)
    return result


def config_of(tensors: LazyDict) -> dict[str, Any]:
    """Return the config.json of transformers' CLIPTextModel for tensors under its names; heads have 64 channels.

    Raises:
        KeyError: where a tensor is missing.
    """
    tokens, width = tensors[_ROOTS["token_embedding.weight"]].shape
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_size": width,
        "intermediate_size": tensors[f"{_BLOCKS}.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": openclip_blocks.count_blocks(tensors, _BLOCKS),
        "num_attention_heads": max(width // 64, 1),
        "max_position_embeddings": tensors[_ROOTS["positional_embedding"]].shape[0],
        "vocab_size": tokens,
        "hidden_act": "gelu" if width >= 1024 else "quick_gelu",
        "projection_dim": width,
        "bos_token_id": 49406 if tokens == 49408 else 0,
        "eos_token_id": 49407 if tokens == 49408 else 2,
        "pad_token_id": 1,
    }


def expected_shapes(config: dict[str, Any]) -> dict[str, Shape]:
    """Map the name of every tensor of transformers' CLIPTextModel to its shape."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, Shape] = {
        _ROOTS["token_embedding.weight"]: (config["vocab_size"], width),
        _ROOTS["positional_embedding"]: (config["max_position_embeddings"], width),
        _ROOTS["ln_final.weight"]: (width,),
        _ROOTS["ln_final.bias"]: (width,),
    }
    return shapes | openclip_blocks.expected_shapes(_BLOCKS, config["num_hidden_layers"], width, inner)


def _zeros(shape: Shape, dtype: torch.dtype) -> LazyTensor:
    return LazyTensor(dtype, shape, lambda: torch.zeros(shape, dtype=dtype))
