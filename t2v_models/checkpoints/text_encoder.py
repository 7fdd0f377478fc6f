"""The text encoder: OpenCLIP's names to those of transformers' CLIPTextModel, and back.

OpenCLIP ViT-H has 24 blocks, and these models use the output of the 23rd; so the encoder for transformers has 23.
OpenCLIP fuses the query, key and value projections.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from .layouts import Shape, check_shapes, count_numbered
from .tensors import LazyDict, LazyTensor

_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_BACK = {theirs: ours for ours, theirs in _BLOCK.items()}
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
    layers = count_numbered(tensors, r"transformer\.resblocks\.(\d{1,3})\.")
    width = tensors["token_embedding.weight"].shape[-1] if "token_embedding.weight" in tensors else 0
    kept = layers if (width, layers) == (1024, 23) else layers - 1
    result: LazyDict = {}
    for name, tensor in tensors.items():
        match = re.match(r"transformer\.resblocks\.(\d{1,3})\.(.+)\.?(weight|bias)$", name)
        if name in _ROOTS:
            result[_ROOTS[name]] = tensor
        elif match and int(match[1]) < kept:
            layer = f"text_model.encoder.layers.{match[1]}"
            block, kind = match[2].rstrip("._"), match[3]
            if block == "attn.in_proj" and tensor.shape and tensor.shape[0] % 3 == 0:
                for i, x in enumerate("qkv"):
                    result[f"{layer}.self_attn.{x}_proj.{kind}"] = _third(tensor, i)
            elif block in _BLOCK:
                result[f"{layer}.{_BLOCK[block]}.{kind}"] = tensor
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


def to_openclip(tensors: LazyDict) -> LazyDict:
    """Rename transformers' tensors to OpenCLIP's, and add a last block of zeros, whose output is never used."""
    back = {theirs: ours for ours, theirs in _ROOTS.items()}
    result: LazyDict = {}
    for name, tensor in tensors.items():
        match = re.match(r"text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$", name)
        if name in back:
            result[back[name]] = tensor
        elif match:
            block = f"transformer.resblocks.{match[1]}"
            if match[2] in _BACK:
                result[f"{block}.{_BACK[match[2]]}.{match[3]}"] = tensor
            elif match[2] == "self_attn.q_proj":
                parts = [tensors[name.replace("q_proj", f"{x}_proj")] for x in "qkv"]
                result[f"{block}.attn.in_proj_{match[3]}"] = _concatenated(parts)
    last = count_numbered(result, r"transformer\.resblocks\.(\d{1,3})\.")
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
        "intermediate_size": tensors["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": count_numbered(tensors, r"text_model\.encoder\.layers\.(\d{1,3})\."),
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
    for i in range(config["num_hidden_layers"]):
        layer = f"text_model.encoder.layers.{i}"
        for name in ("layer_norm1", "layer_norm2"):
            shapes[f"{layer}.{name}.weight"] = shapes[f"{layer}.{name}.bias"] = (width,)
        for name, rows, columns in (
            *((f"self_attn.{x}_proj", width, width) for x in ("q", "k", "v", "out")),
            ("mlp.fc1", inner, width),
            ("mlp.fc2", width, inner),
        ):
            shapes[f"{layer}.{name}.weight"], shapes[f"{layer}.{name}.bias"] = (rows, columns), (rows,)
    return shapes


def _third(tensor: LazyTensor, i: int) -> LazyTensor:
    """Return the first, second or last third of the rows."""
    rows = tensor.shape[0] // 3
    return tensor.then(lambda whole: whole[i * rows : (i + 1) * rows], (rows, *tensor.shape[1:]))


def _concatenated(parts: list[LazyTensor]) -> LazyTensor:
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return LazyTensor(parts[0].dtype, shape, lambda: torch.cat([part.load() for part in parts]))


def _zeros(shape: Shape, dtype: torch.dtype) -> LazyTensor:
    return LazyTensor(dtype, shape, lambda: torch.zeros(shape, dtype=dtype))
