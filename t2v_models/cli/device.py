"""The option --device, which several commands have."""

from __future__ import annotations

import argparse

from ..errors import T2VError


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device NAME."""
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, mps … (default cpu)")


def check_device(name: str) -> None:
    """T2VError where torch cannot compute on the device."""
    import torch

    try:
        torch.zeros(1, device=name).cpu()  # "meta" takes a tensor and gives none back
    except (RuntimeError, AssertionError, ImportError, AttributeError) as error:  # each is what some torch says
        raise T2VError(f"--device is {name!r}, which cannot be used here ({str(error).splitlines()[0]}).") from error
