"""CLIP text encoders as the host's CLIP: SD2's ViT-H by the host's own loader, other CLIPTextModels by their config."""

from __future__ import annotations

import logging
import sys
import types
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.sd1_clip
import folder_paths
import torch
from torch import Tensor

from ....t2v_models.checkpoints.tokenizer_files import check_tokenizer
from ....t2v_models.errors import T2VError
from .. import compat

log = logging.getLogger(__name__)

_CONFIG = {"hidden_act": "quick_gelu", "max_position_embeddings": 77, "eos_token_id": 49407}
_HOST_TOKENS = 49408
"""Number of tokens that the host's CLIP has, whatever the config says."""


def load_clip(
    state_dict: dict[str, Tensor],
    config: dict[str, Any] | None = None,
    tokenizer: str | Path | None = None,
    disable_dynamic: bool = False,
) -> comfy.sd.CLIP:
    """Make the host's CLIP.

    Args:
        state_dict: a CLIPTextModel of transformers, or an encoder in OpenCLIP's own names.
        config: the text encoder's config.json. It and the tokenizer are needed only for encoders that the host does not
            recognise; it recognises ViT-H of SD2 and ViT-L of SD1.
        tokenizer: a folder with vocab.json and merges.txt.
        disable_dynamic: whether weights must not be loaded on use only.

    Raises:
        T2VError: where the configuration or the tokenizer is needed and missing, or does not fit.
    """
    embeddings = folder_paths.get_folder_paths("embeddings")
    if is_host_native(state_dict):
        clip = comfy.sd.load_text_encoder_state_dicts(
            [_with_last_layer(state_dict)],
            embedding_directory=embeddings,
            clip_type=comfy.sd.CLIPType.STABLE_DIFFUSION,
            **compat.newer(comfy.sd.load_text_encoder_state_dicts, disable_dynamic=disable_dynamic),
        )
        return _of_any_length(clip)
    if config is None or tokenizer is None:
        raise T2VError(
            "The text encoder is neither OpenCLIP ViT-H nor CLIP ViT-L, and there is no config.json or tokenizer "
            "folder beside it: choose the text encoder that the model was trained with."
        )
    check_tokenizer(Path(tokenizer))
    state_dict = _prefixed(state_dict)
    target = types.SimpleNamespace(
        params={},
        clip=_model_class({**_CONFIG, **config}, state_dict),
        tokenizer=_tokenizer_class(config, Path(tokenizer)),
    )
    return _of_any_length(compat.make_clip(target, state_dict, embeddings, disable_dynamic))


def _of_any_length(clip: comfy.sd.CLIP) -> comfy.sd.CLIP:
    """The CLIP without its tokenizer's limit: the host cuts long texts itself, and transformers would warn of them."""
    words = getattr(clip.tokenizer, clip.tokenizer.clip)
    words.tokenizer.model_max_length = sys.maxsize
    return clip


def is_host_native(state_dict: dict[str, Tensor]) -> bool:
    """Whether the host's own detection recognises these weights."""
    if "transformer.resblocks.0.ln_1.weight" in state_dict:
        return True
    token = _prefixed(state_dict).get("text_model.embeddings.token_embedding.weight")
    return token is not None and token.shape[0] == _HOST_TOKENS and token.shape[1] in (768, 1024, 1280)


def _prefixed(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with "text_model." before their names, which newer transformers leave out, and without buffers.

    A missing projection of the pooled output, which video models do not use, becomes the identity.
    """
    out = {}
    for key, value in state_dict.items():
        name = key if key.startswith(("text_model.", "text_projection")) else f"text_model.{key}"
        if not name.endswith("position_ids"):
            out[name] = value
    token = out.get("text_model.embeddings.token_embedding.weight")
    if token is not None and "text_projection.weight" not in out:  # the host would leave it as whatever was in memory
        out["text_projection.weight"] = torch.eye(token.shape[1], dtype=token.dtype)
    return out


def _with_last_layer(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with zeros for the 24th layer, which diffusers leaves out; only the pooled output, unused here, needs it."""
    if "transformer.resblocks.0.ln_1.weight" in state_dict:
        return dict(state_dict)
    state_dict = _prefixed(state_dict)
    last, lacking = "text_model.encoder.layers.22.", "text_model.encoder.layers.23."
    if f"{last}mlp.fc1.weight" in state_dict and f"{lacking}mlp.fc1.weight" not in state_dict:
        zeros = {key.replace(last, lacking): torch.zeros_like(state_dict[key]) for key in state_dict if last in key}
        state_dict.update(zeros)
    return state_dict


def _model_class(config: dict[str, Any], state_dict: dict[str, Tensor]) -> type:
    """The host's text model class for a config.json, with as many tokens as the weights have."""
    tokens, width = state_dict["text_model.embeddings.token_embedding.weight"].shape
    if width != config["hidden_size"]:
        raise T2VError(
            f"The text encoder is {width} wide and its config.json says {config['hidden_size']}: they differ."
        )
    special = {
        "start": config.get("bos_token_id", 0),
        "end": config["eos_token_id"],
        "pad": config.get("pad_token_id", 0),
    }

    class TextModel(comfy.sd1_clip.SDClipModel):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: dict | None = None) -> None:
            super().__init__(
                device=device,
                dtype=dtype,
                max_length=config["max_position_embeddings"],
                textmodel_json_config=dict(config),
                special_tokens=special,
                return_projected_pooled=False,
                model_options=model_options or {},
            )
            embeddings = self.transformer.text_model.embeddings
            embeddings.token_embedding = self.operations.Embedding(tokens, width, dtype=dtype, device=device)

    class Clip(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: dict | None = None) -> None:
            super().__init__(
                device=device, dtype=dtype, model_options=model_options or {}, clip_name="t2v", clip_model=TextModel
            )

    return Clip


def _tokenizer_class(config: dict[str, Any], folder: Path) -> type:
    """The host's tokenizer class (weights in brackets, embeddings by name) for the vocabulary in a folder."""
    length = config.get("max_position_embeddings", 77)

    class Words(comfy.sd1_clip.SDTokenizer):
        def __init__(self, embedding_directory: Any = None, tokenizer_data: dict | None = None) -> None:
            super().__init__(
                str(folder),
                max_length=length,
                embedding_directory=embedding_directory,
                embedding_size=config["hidden_size"],
                embedding_key="clip_t2v",
                tokenizer_data=tokenizer_data or {},
            )
            pad = self.tokenizer.pad_token_id
            self.pad_token = self.end_token if pad is None else pad

    class Tokenizer(comfy.sd1_clip.SD1Tokenizer):
        def __init__(self, embedding_directory: Any = None, tokenizer_data: dict | None = None) -> None:
            super().__init__(embedding_directory, tokenizer_data or {}, clip_name="t2v", tokenizer=Words)

    return Tokenizer
