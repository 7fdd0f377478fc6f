"""Write a file so that it is whole at any moment: a film or a training that was stopped continues from such files."""

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
    """Write a safetensors file; a stop at any moment leaves the old file or the new one.

    Raises:
        T2VError: where the file cannot be written, mostly because the disk is full.
    """
    # safetensors refuses tensors that share memory
    apart = {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    _replace(path, lambda part: save_file(apart, part, metadata))


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file; a stop at any moment leaves the old file or the new one.

    Raises:
        T2VError: where the file cannot be written, mostly because the disk is full.
    """
    _replace(path, lambda part: part.write_text(text, encoding="utf-8"))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a file beside the path, sync it to the disk, and give it the path's name in one step."""
    part = path.with_suffix(".part")
    try:
        write(part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, SafetensorError) as error:  # safetensors wraps the system's errors
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise T2VError(
            f"{path} cannot be written ({error}): make room on its disk, then give the same command again; what was saved "
            "before is whole."
        ) from error
