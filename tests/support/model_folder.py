"""A whole text-to-video model of random weights, a few MB, as the diffusers folder that users have on disk."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch

WIDTH, SIZE = 32, 64
"""Width of the text embeddings, and side of a frame in pixels."""

WORDS = ("red", "blue", "circle", "square", "moves", "right", "up", "and", "the")
"""Words that are one token each; other texts are read character by character."""


def write_model_folder(folder: Path, *, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """Write unet/ vae/ text_encoder/ tokenizer/ scheduler/ model_index.json; returns the folder."""
    from diffusers import DDIMScheduler

    torch.manual_seed(seed)
    parts = {"unet": _unet(), "vae": _vae(), "text_encoder": _text_encoder(write_tokenizer(folder / "tokenizer"))}
    parts["scheduler"] = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    index = {
        "_class_name": "TextToVideoSDPipeline",
        "unet": ["diffusers", "UNet3DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def write_tokenizer(folder: Path) -> int:
    """Write a CLIP tokenizer with a token for each of `WORDS` and each character; returns the size of its vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    characters = [*string.ascii_lowercase, *string.digits, *",.!?'"]
    merges = [merge for word in WORDS for merge in _merges(word)]
    tokens = [*characters, *(f"{character}</w>" for character in characters), *("".join(merge) for merge in merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    lines = ["#version: 0.2", *dict.fromkeys(f"{left} {right}" for left, right in merges)]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special["pad_token"] = "<|endoftext|>"
    settings = {**special, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    return len(tokens)


def _merges(word: str) -> list[tuple[str, str]]:
    """The byte-pair merges that join a word letter by letter, from its start."""
    letters = [*word[:-1], f"{word[-1]}</w>"]
    return [("".join(letters[:i]), letters[i]) for i in range(1, len(letters))]


def _unet() -> Any:
    from diffusers import UNet3DConditionModel

    unet = UNet3DConditionModel(
        sample_size=SIZE // 8,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=16,
    )
    with torch.no_grad():
        for name, parameter in unet.named_parameters():  # layers that begin as zero would hide mistakes
            if "temp_convs" in name and "conv4" in name:
                parameter.normal_(std=0.02)
    return unet


def _vae() -> Any:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        block_out_channels=(32, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
    )
    vae.register_to_config(scaling_factor=0.5)
    return vae


def _text_encoder(vocabulary_size: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=vocabulary_size,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act="gelu",
        bos_token_id=vocabulary_size - 2,
        eos_token_id=vocabulary_size - 1,
        pad_token_id=vocabulary_size - 1,
    )
    return CLIPTextModel(config).half().float()  # hosts keep text encoders in half precision
