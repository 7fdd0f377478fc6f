"""Where the parts of a model lie on disk: in one file, in a folder of files, or in a diffusers folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from ..errors import T2VError
from .detect import Part, find_parts, is_of_images
from .files import read_file
from .folders import SUBFOLDERS, read_json, weights_in
from .native import CONFIG_KEY
from .tensors import LazyDict


@dataclass
class Found:
    """The parts of a checkpoint before anything is made of them."""

    parts: dict[str, Part] = field(default_factory=dict)
    files: dict[str, list[Path]] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The JSON beside each part, and "scheduler"."""
    tokenizer: Path | None = None
    extra: LazyDict = field(default_factory=dict)
    """Small tensors around the parts: buffers of the noise schedule."""
    problems: list[T2VError] = field(default_factory=list)


def find_in_diffusers_folder(folder: Path, found: Found) -> None:
    """Adds the parts in the subfolders of a diffusers folder."""
    for name in SUBFOLDERS:
        part = folder / name
        if part.is_dir():
            find_in_folder(part, found, optional=name.startswith("image_"))
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    if scheduler:
        found.configs["scheduler"] = scheduler
    found.tokenizer = tokenizer_in(folder)
    if not found.parts and not found.problems:
        raise T2VError(f"{folder} is a diffusers folder without weights: download its unet, vae and text_encoder.")


def find_in_folder(folder: Path, found: Found, *, optional: bool = False) -> None:
    """A folder of files: a part of a diffusers model, or any files side by side."""
    weights = weights_in(folder)
    if not weights:
        if optional:
            return
        raise T2VError(f"{folder} holds no weights (no file ends in .safetensors, .pth, .pt, .bin or .ckpt).")
    config = read_json(folder / "config.json")
    files: list[tuple[bool, Path, LazyDict]] = []
    for path in weights:
        try:
            tensors = read_file(path)
        except T2VError as error:
            found.problems.append(error)
            continue
        files.append((is_of_images(find_parts(tensors)), path, tensors))
    # ModelScope's and VGen's VAE is the whole of Stable Diffusion 2.1: its other parts stand back
    added = [
        kind
        for spare, path, tensors in sorted(files, key=itemgetter(0))
        for kind in add_parts(found, tensors, path, spare=spare)
    ]
    for kind in added if len(added) == 1 else [_described(config)]:
        found.configs.setdefault(kind, config)


def tokenizer_in(folder: Path) -> Path | None:
    """The folder of a tokenizer's files beside the weights."""
    tokenizer = folder / "tokenizer"
    return tokenizer if tokenizer.is_dir() else None


def _described(config: dict[str, Any]) -> str:
    """Which part's a config.json is, by what it tells."""
    return "vae" if "latent_channels" in config else "text_encoder" if "hidden_size" in config else "unet"


def add_parts(found: Found, tensors: LazyDict, path: Path | None, *, spare: bool = False) -> list[str]:
    """Adds the parts among a file's tensors, where `spare` only those that no other file has; returns their kinds."""
    added = []
    for kind, part in find_parts(tensors).items():
        if spare and kind in found.parts:
            continue
        if kind in found.parts:
            first = found.files[kind][0]
            raise T2VError(f"{first.parent} holds more than one {kind}: {first.name} and {path.name}. Give one file.")
        found.parts[kind] = part
        found.files[kind] = [path] if path else []
        added.append(kind)
    for name, tensor in tensors.items():
        last = name.rpartition(".")[2]
        if last in ("scale_arr", "v_pred", CONFIG_KEY) or name == "step":
            found.extra[last] = tensor
    return added


def config_beside(path: Path) -> dict[str, Any]:
    """A UNet's config.json beside its weights; another model's is passed over."""
    try:
        config = read_json(path.parent / "config.json")
    except T2VError:
        return {}
    known = "attention_head_dim" in config or "block_out_channels" in config
    return config if known and _described(config) == "unet" else {}
