"""A PNG picture beside a clip, for the formats that hold no workflow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..atomic_output import AtomicOutput, checked_path
from .frames import quantize, to_array


def still_png(path: str | os.PathLike[str], frame: Any, texts: Mapping[str, str], *, overwrite: bool = False) -> Path:
    """Write one frame as a PNG file that holds texts; the file appears whole or not at all.

    Args:
        path: the file.
        frame: (h, w, 3) uint8, uint16 or float 0..1; NumPy or torch.
        texts: such as the workflow, by key.
        overwrite: replace an older file.

    Returns:
        Where the file is: beside the path, where another process took that name meanwhile.

    Raises:
        FileExistsError: where the file exists, without `overwrite`.
        OSError: where it cannot be written.
    """
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        add = info.add_text if text.isascii() else info.add_itxt  # tEXt, which every reader has, cannot hold the rest
        add(key, text)
    output = AtomicOutput(checked_path(path), overwrite=overwrite)
    try:
        Image.fromarray(quantize(to_array(frame), 8)).save(output.folder / "still.png", pnginfo=info)
        return output.publish("still.png")
    finally:
        output.remove()
