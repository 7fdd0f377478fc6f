"""The error for wrong input, the test for exhausted memory, and a common remedy."""

from __future__ import annotations

import sys


class T2VError(ValueError):
    """Wrong input; the message is one sentence for the user: what was given, what is wanted, what to do."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of Python or torch reports that memory ran out, of the computer or of the device."""
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in str(error) or "out of memory" in str(error))


AGAIN = "Download or copy it again."
"""What to do about a damaged file: the last sentence of many messages."""
