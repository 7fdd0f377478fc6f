"""Texts of any length to CLIP's hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import T2VError
from .sampling.scenes import MOST_TOKENS

MOST_ROWS = 256
"""Windows of tokens that the text encoder is given at a time, for memory."""


def encode_texts(text_encoder: Any, tokenizer: Any, texts: Sequence[str], device: torch.device) -> Tensor:
    """Encode texts as ComfyUI does: one longer than 75 tokens fills several windows.

    Args:
        text_encoder: transformers' CLIPTextModel.
        tokenizer: transformers' CLIPTokenizer.
        texts: one or more.
        device: of the text encoder.

    Returns:
        (texts, 77 k, d), CLIP's last hidden states; k windows are those of the longest text.

    Raises:
        T2VError: for more tokens than memory holds.
    """
    room = tokenizer.model_max_length - 2
    ids = [tokenizer(text, add_special_tokens=False, verbose=False).input_ids for text in texts]
    windows = max(1, *(-(-len(each) // room) for each in ids))
    if windows * len(ids) * tokenizer.model_max_length > MOST_TOKENS:
        raise T2VError(f"{len(ids)} texts of up to {max(map(len, ids))} tokens are too many: shorten the long ones.")
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    rows = []
    for each in ids:
        for start in range(0, windows * room, room):
            row = [tokenizer.bos_token_id, *each[start : start + room], tokenizer.eos_token_id]
            rows.append(row + [pad] * (tokenizer.model_max_length - len(row)))
    parts = torch.tensor(rows, device=device).split(MOST_ROWS)
    hidden = torch.cat([text_encoder(part).last_hidden_state for part in parts])
    return hidden.reshape(len(ids), -1, hidden.shape[-1])
