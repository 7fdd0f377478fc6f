"""Files that are whole at any moment: what a stopped film or training goes on from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from .errors import T2VError


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file; a stop at any moment leaves the old one or the new one.

    Raises:
        T2VError: where it cannot be written, for a full disk, mostly.
    """
    # safetensors refuses tensors that share memory
    apart = {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    _replace(path, lambda part: save_file(apart, part, metadata))


def write_text(path: Path, text: str) -> None:
    """The same for a text."""
    _replace(path, lambda part: part.write_text(text, encoding="utf-8"))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    part = path.with_suffix(".part")
    try:
        write(part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, SafetensorError) as error:  # safetensors wraps what the system says
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise T2VError(
            f"{path} cannot be written ({error}): make room on its disk, then give the same command again; what was kept "
            "before is whole."
        ) from error
