"""Stage two: a small CLIP text encoder, with a vocabulary in which every word of the captions is one token."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ...shapes.captions import describe, paraphrase, vocabulary
from ...shapes.world import BACKGROUNDS, MOTIONS, OBJECT_COLOURS, SHAPES, SPEEDS, Scene, World
from ...texts import strict_json
from ..loop import Schedule, fit

if TYPE_CHECKING:
    from transformers import CLIPTextModel

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77


def _bytes() -> list[str]:
    """A printable character for each of the 256 bytes, in CLIP's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(rest))]


def merges(words: list[str]) -> list[tuple[str, str]]:
    """Return byte-pair merges, most frequent first, that make each word one token.

    Source: Sennrich et al. 2016 (arXiv:1508.07909).
    """
    split = [[*word[:-1], word[-1] + "</w>"] for word in words]
    found: list[tuple[str, str]] = []
    while any(len(parts) > 1 for parts in split):
        pairs = Counter(pair for parts in split for pair in pairwise(parts))
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        found.append(best)
        for parts in split:
            at = 0
            while at < len(parts) - 1:
                if (parts[at], parts[at + 1]) == best:
                    parts[at : at + 2] = ["".join(best)]
                at += 1
    return found


def write_tokenizer(folder: Path) -> int:
    """Write the files of a CLIPTokenizer; returns the size of its vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = merges(vocabulary())
    letters = _bytes()
    tokens = [*letters, *(letter + "</w>" for letter in letters), *dict.fromkeys(map("".join, pairs)), START, END]
    vocab = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(strict_json(vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in pairs), encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, "do_lower_case": True, **special}
    for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", special)):
        (folder / name).write_text(strict_json(content, indent=2) + "\n", encoding="utf-8")
    return len(vocab)


def text_config(vocabulary_size: int) -> dict[str, Any]:
    """Return the arguments of a CLIPTextConfig for a vocabulary of this size."""
    return {
        "vocab_size": vocabulary_size,
        "hidden_size": 128,
        "intermediate_size": 512,
        "projection_dim": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": LENGTH,
        "hidden_act": "quick_gelu",
        "bos_token_id": vocabulary_size - 2,
        "eos_token_id": vocabulary_size - 1,
        "pad_token_id": vocabulary_size - 1,
    }


def build_text_encoder(vocabulary_size: int) -> CLIPTextModel:
    """Return an untrained CLIPTextModel."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(**text_config(vocabulary_size)))


WORLD = World(straight=0.45, diagonal=0.1, other=0.15, pairs=0.3)
PLAIN = 0.3
"""Share of captions in the plain form."""
ITEM = (OBJECT_COLOURS, SHAPES, MOTIONS, tuple(SPEEDS))
QUESTIONS = (*ITEM, *ITEM, BACKGROUNDS)
"""The attributes that a caption names: those of both objects in their order, and the background."""


def answers(scene: Scene) -> list[int]:
    """Return the class of each of `QUESTIONS`; the last class of a question means that there is no second object."""
    classes: list[int] = []
    for item in (*scene.items, None)[:2]:
        values = (item.colour, item.shape, item.motion, item.speed) if item else (None,) * 4
        classes += [
            len(choices) if value is None else choices.index(value) for choices, value in zip(ITEM, values, strict=True)
        ]
    return [*classes, BACKGROUNDS.index(scene.background)]


def train(
    folder: Path,
    tokenizer: Any,
    schedule: Schedule,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> CLIPTextModel:
    """Train a text encoder, whose mean state must give a caption's attributes; returns the encoder without its head.

    A UNet teaches its text encoder slowly, because most of its loss does not depend on the text. As in the published
    models, the encoder is trained before the UNet and then stays as it is.

    Args:
        folder: where the state and the losses are stored; a folder with a state is resumed.
    """
    torch.manual_seed(seed)
    encoder = build_text_encoder(len(tokenizer))
    sizes = [len(choices) + 1 for choices in QUESTIONS]
    model = nn.ModuleDict({"encoder": encoder, "answer": nn.Linear(encoder.config.hidden_size, sum(sizes))}).to(device)

    def loss(step: int, random: torch.Generator) -> torch.Tensor:
        scenes = [WORLD.sample(random) for _ in range(64)]
        plain = torch.rand(len(scenes), generator=random) < PLAIN
        captions = [describe(s) if p else paraphrase(s, random) for s, p in zip(scenes, plain, strict=True)]
        states = encoder(tokenize(tokenizer, captions).to(device)).last_hidden_state
        logits = model["answer"](states.mean(1)).split(sizes, dim=1)
        classes = torch.tensor([answers(scene) for scene in scenes], device=device).T
        errors = [nn.functional.cross_entropy(each, wanted) for each, wanted in zip(logits, classes, strict=True)]
        return torch.stack(errors).mean()

    fit(model, loss, schedule, folder, seed=seed, title="text", progress=progress)
    return encoder.requires_grad_(False).eval()


def tokenize(tokenizer: Any, prompts: list[str]) -> torch.Tensor:
    """Return the token ids (n, 77) of prompts."""
    options = {"padding": "max_length", "truncation": True, "max_length": tokenizer.model_max_length}
    return tokenizer(prompts, return_tensors="pt", **options).input_ids
