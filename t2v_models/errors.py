"""The error that means: the input is wrong, and here is what to do about it."""

from __future__ import annotations

import sys


class T2VError(ValueError):
    """One sentence for the user: what was given, what is wanted, what to do."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of Python or torch means: not enough memory."""
    torch = sys.modules.get("torch")
    kinds = (
        () if torch is None else (getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError),)
    )  # so from 2.5 on
    if isinstance(error, (MemoryError, *kinds)):
        return True
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in str(error) or "out of memory" in str(error))


AGAIN = "Download or copy it again."
"""The remedy for a damaged file."""
