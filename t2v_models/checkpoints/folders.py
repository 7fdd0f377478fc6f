"""Find the weights files in a folder, and read its JSON files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..errors import T2VError
from ..foreign import read_json_file
from .files import SUFFIXES, is_index, shards_of

SUBFOLDERS = ("unet", "vae", "text_encoder", "image_encoder", "image_projector")
"""The folders in a diffusers model whose weights are read."""


def is_diffusers(folder: Path) -> bool:
    """Whether a folder is a diffusers model: one with subfolders for the parts."""
    return (folder / "model_index.json").is_file() or (folder / "unet").is_dir()


def weights_in(folder: Path) -> list[Path]:
    """List the weights files in a folder, without its subfolders, and of several forms of one file the best.

    An index stands for its shards. safetensors is better than PyTorch's formats, full precision better than a variant
    (``.fp16.``), the averaged weights better than ``.non_ema.``.
    """
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    indexes = [path for path in files if is_index(path)]
    shards = {shard for index in indexes for shard in _shards(index)}
    weights = [path for path in files if path.suffix in SUFFIXES and path.name not in shards]
    best: dict[str, Path] = {}
    for path in sorted([*indexes, *weights], key=_preference):
        best.setdefault(_stem(path), path)
    return sorted(best.values())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file; empty where there is no file.

    Raises:
        T2VError: where the file holds no JSON object, or cannot be read.
    """
    if not path.is_file():
        return {}
    value = read_json_file(path)
    if not isinstance(value, dict):
        raise T2VError(f"{path} is no JSON object: download it again, or remove it.")
    return value


def _shards(index: Path) -> set[str]:
    """List the files that an index names; none where it cannot be read."""
    try:
        return set(shards_of(index).values())
    except T2VError:
        return set()


def _plain(path: Path) -> str:
    """Return the name that an index's file would have in one piece: an index has its variant last."""
    return re.sub(r"(\.\w+)\.index(\.\w+)?\.json$", r"\2\1", path.name)


def _stem(path: Path) -> str:
    """Return the name without its form: "diffusion_pytorch_model" of "diffusion_pytorch_model.fp16.safetensors"."""
    name = _plain(path)
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    for variant in (".fp16", ".bf16", ".fp32", ".non_ema"):
        name = name.replace(variant, "")
    return {"pytorch_model": "model"}.get(name, name)  # text_encoder/model.safetensors and pytorch_model.bin


def _preference(path: Path) -> tuple[bool, bool, bool, str]:
    """Sort the better forms of a file first."""
    name = _plain(path)
    variant = any(part in name for part in (".fp16", ".bf16"))
    return (".non_ema" in name, variant, not name.endswith(".safetensors"), path.name)
