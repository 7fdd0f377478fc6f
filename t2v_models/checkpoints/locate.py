"""Find the parts of a model on disk: in one file, in a folder of files, or in a diffusers folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from ..errors import T2VError
from .configs import checked_scheduler
from .detect import Part, find_parts, is_of_images
from .files import read_file
from .folders import SUBFOLDERS, is_diffusers, read_json, weights_in
from .native import CONFIG_KEY
from .tensors import LazyDict


@dataclass
class Found:
    """The parts of a checkpoint, by kind, and what lies around them."""

    parts: dict[str, Part] = field(default_factory=dict)
    """By kind: unet, vae, text_encoder, image_encoder, image_projector."""
    files: dict[str, list[Path]] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The config.json beside each part, by its kind, and the configuration of the "scheduler"."""
    tokenizer: Path | None = None
    extra: LazyDict = field(default_factory=dict)
    """Small tensors around the parts: the training step, buffers of the noise schedule, a saved configuration."""
    problems: list[T2VError] = field(default_factory=list)
    """Errors about files beside those that could be read."""


def find(path: Path) -> Found:
    """Find the parts in a file, a folder of files, or a diffusers folder.

    Raises:
        T2VError: where a folder holds no weights or two of one part, or the only file cannot be read.
    """
    found = Found()
    if path.is_dir() and is_diffusers(path):
        _find_in_diffusers_folder(path, found)
    elif path.is_dir():
        _find_in_folder(path, found)
        found.tokenizer = _tokenizer_in(path)
    else:
        add_parts(found, read_file(path), path)
        found.configs["unet"] = _config_beside(path)
        found.tokenizer = _tokenizer_in(path.parent)
    return found


def _find_in_diffusers_folder(folder: Path, found: Found) -> None:
    """Add the parts in the subfolders of a diffusers folder."""
    for name in SUBFOLDERS:
        part = folder / name
        if part.is_dir():
            _find_in_folder(part, found, optional=name.startswith("image_"))
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    if scheduler:
        source = f"{folder / 'scheduler' / 'scheduler_config.json'}"
        found.configs["scheduler"] = checked_scheduler(scheduler, source)
    found.tokenizer = _tokenizer_in(folder)
    if not found.parts and not found.problems:
        raise T2VError(f"{folder} is a diffusers folder without weights: download its unet, vae and text_encoder.")


def _find_in_folder(folder: Path, found: Found, *, optional: bool = False) -> None:
    """Add the parts in a folder of files: a part of a diffusers model, or any files side by side."""
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
    # ModelScope's and VGen's VAE is the whole of Stable Diffusion 2.1: its other parts are left out
    added = [
        kind
        for spare, path, tensors in sorted(files, key=itemgetter(0))
        for kind in add_parts(found, tensors, path, spare=spare)
    ]
    for kind in added if len(added) == 1 else [_described(config)]:
        found.configs.setdefault(kind, config)


def _tokenizer_in(folder: Path) -> Path | None:
    """Return the folder "tokenizer" beside the weights; None where there is none."""
    tokenizer = folder / "tokenizer"
    return tokenizer if tokenizer.is_dir() else None


def _described(config: dict[str, Any]) -> str:
    """Return the kind of the part that a config.json describes, by its keys."""
    return "vae" if "latent_channels" in config else "text_encoder" if "hidden_size" in config else "unet"


def add_parts(found: Found, tensors: LazyDict, path: Path | None, *, spare: bool = False) -> list[str]:
    """Add the parts among a file's tensors, and the small tensors around them; returns the kinds that were added.

    Args:
        found: gets the parts.
        tensors: of the file, by name.
        path: the file; None for a state dict in memory.
        spare: add only parts that no other file has.

    Raises:
        T2VError: where there is another such part, without `spare`.
    """
    added, files = [], [path] if path else []
    for kind, part in find_parts(tensors).items():
        if spare and kind in found.parts:
            continue
        if kind in found.parts:
            first, *others = [*found.files[kind], *files]
            names = " and ".join(file.name for file in (first, *others))
            raise T2VError(f"{first.parent} holds more than one {kind}: {names}. Give one file.")
        found.parts[kind] = part
        found.files[kind] = files
        added.append(kind)
    for name, tensor in tensors.items():
        last = name.rpartition(".")[2]
        if last in ("scale_arr", "v_pred", CONFIG_KEY) or name == "step":
            found.extra[last] = tensor
    return added


def _config_beside(path: Path) -> dict[str, Any]:
    """Read a UNet's config.json beside its weights; empty where there is none, or that of another model.

    Raises:
        T2VError: where the config.json cannot be read.
    """
    config = read_json(path.parent / "config.json")
    known = "attention_head_dim" in config or "block_out_channels" in config
    return config if known and _described(config) == "unet" else {}
