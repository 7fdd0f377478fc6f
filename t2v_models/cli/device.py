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
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without CUDA
        raise T2VError(f"--device is {name!r}, which cannot be used here ({str(error).splitlines()[0]}).") from error
