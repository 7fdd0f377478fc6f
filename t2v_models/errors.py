"""The error for wrong input, the test for exhausted memory, and a common remedy."""

from __future__ import annotations

import re
import sys

LONGEST_MESSAGE = 2000
"""Characters of a message; names and shapes that it quotes from a file may be of any length."""


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that a message quotes from a file only as escapes: they could steer a terminal, or end the text."""


class T2VError(ValueError):
    """Wrong input; the message is one sentence for the user: what was given, what is wanted, what to do.

    A message of more than `LONGEST_MESSAGE` characters loses its middle, so that the remedy at its end stays.
    Control characters become escapes.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(shortened(_CONTROL.sub(lambda match: ascii(match[0])[1:-1], message)))


def shortened(message: str, most: int = LONGEST_MESSAGE) -> str:
    """Return a text of at most so many characters: of a longer one the beginning and the end, with an ellipsis between."""
    if len(message) <= most:
        return message
    end = most // 2
    return f"{message[: most - end - 3]} … {message[-end:]}"


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
