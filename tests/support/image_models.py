"""Small image-to-video models of random weights, as the files that users have."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from tests.references.image_runs import NETWORKS, ImageRecording

from .model_folder import write_tokenizer

IMAGE_ENCODER = "embedder.model."
"""What names of the image encoder begin with, in the published files."""

TEXT_ENCODER = "cond_stage_model.transformer."


@cache
def weights(family: str) -> dict[str, torch.Tensor]:
    """UNet, VAE, image encoder and Resampler of a family, under the names of the published file."""
    return ImageRecording.load(NETWORKS[family]).state_dict()


def write_model(folder: Path, family: str) -> Path:
    """Write a whole model as one file, with the text encoder's tokenizer beside it; returns the folder."""
    texts = _text_encoder(write_tokenizer(folder / "tokenizer"))
    save_file(
        weights(family) | {TEXT_ENCODER + name: value for name, value in texts.items()}, folder / "model.safetensors"
    )
    return folder


def write_pruned(folder: Path, family: str) -> tuple[Path, Path, Path]:
    """Write UNet, VAE and Resampler as one file, and both encoders elsewhere; returns model, text and image encoder."""
    texts, model, images = folder / "clip", folder / f"{family}_pruned.safetensors", folder / "clip_vision.safetensors"
    save_file(_text_encoder(write_tokenizer(texts / "tokenizer")), texts / "model.safetensors")
    whole = weights(family)
    save_file({name: value for name, value in whole.items() if not name.startswith(IMAGE_ENCODER)}, model)
    vision = {name: value for name, value in whole.items() if name.startswith(IMAGE_ENCODER)}
    save_file({name.removeprefix(IMAGE_ENCODER): value for name, value in vision.items()}, images)
    return model, texts, images


def _text_encoder(vocabulary: int) -> dict[str, torch.Tensor]:
    """A text encoder as wide as the recorded networks' context."""
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=77,
        hidden_act="gelu",
    )
    torch.manual_seed(0)
    names = CLIPTextModel(config).state_dict()
    return {f"text_model.{name.removeprefix('text_model.')}": value for name, value in names.items()}
