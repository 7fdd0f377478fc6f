"""Recognise a set of tensors: its parts, each part's layout and prefix, and the UNet's configuration.

Names and shapes decide, never the names of files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from ..errors import T2VError
from ..unet import UNetConfig
from . import diffusers_layout, i2vgen, modelscope, native, videocrafter
from .layouts import MOST_BLOCKS, WIDEST, Layout, MissingKey, any_with, shapes_of
from .tensors import FLOAT8, LazyDict, LazyTensor
from .wrappers import without_wrappers

LAYOUTS: dict[str, Layout] = {
    layout.name: layout for layout in (diffusers_layout.LAYOUT, modelscope.LAYOUT, videocrafter.LAYOUT, native.LAYOUT)
}
"""The layouts of a UNet, by name: diffusers, modelscope, videocrafter, native."""

_UNET_ROOTS = (
    "time_embed.", "fps_embedding.", "time_cond_proj.", "motion_cond_proj.", "combine_proj.", "input_blocks.",
    "init_attn.", "middle_block.", "output_blocks.", "out.", "time_embedding.", "conv_in.", "transformer_in.",
    "down_blocks.", "mid_block.", "up_blocks.", "conv_norm_out.", "conv_out.", "image_branches.", "image_latents_",
    "local_image_concat.", "local_temporal_encoder.", "local_image_embedding.", "context_embedding.",
)  # fmt: skip

_PATTERNS = (
    ("unet", "ldm", re.compile(r"^(.*?)(?:input_blocks|middle_block|output_blocks)\.\d")),
    ("vae", "diffusers", re.compile(r"^(.*?)(?:encoder|decoder)\.(?:down_blocks|up_blocks|mid_block)\.")),
    ("vae", "ldm", re.compile(r"^(.*?)(?:encoder|decoder)\.(?:down|up|mid)\.\w+\.")),
    ("unet", "diffusers", re.compile(r"^(.*?)(?:down_blocks\.\d|up_blocks\.\d|mid_block\.)")),
    ("image_encoder", "openclip", re.compile(r"^(.*?)visual\.")),
    ("image_encoder", "transformers", re.compile(r"^(.*?)vision_model\.")),
    ("image_projector", "videocrafter", re.compile(r"^(.*?)image_proj_model\.")),
    ("text_encoder", "openclip", re.compile(r"^(.*?)transformer\.resblocks\.\d")),
    ("text_encoder", "transformers", re.compile(r"^(.*?)encoder\.layers\.\d+\.self_attn\.")),
)

_STRANGERS = (
    (("lora",), "a LoRA, which changes a model and is none: load it with the LoRA loader"),
    (("time_stack.",), "Stable Video Diffusion, which ComfyUI loads with its own nodes"),
    (("time_mixer.",), "Stable Video Diffusion, which ComfyUI loads with its own nodes"),
    (("motion_modules.",), "an AnimateDiff motion module, which ComfyUI-AnimateDiff-Evolved loads"),
    (("attn_temp.",), "LaVie, whose network is another one"),
    (("controlnet_",), "a ControlNet"),
    (("control_model.",), "a ControlNet"),
    (("to_added_kv",), "an image model"),
    (("add_k_proj",), "Show-1's pixel stage or an image model, whose network is another one"),
)


@dataclass(frozen=True)
class Part:
    """The tensors of one part of a model, under its layout's names (without the prefix)."""

    kind: str
    """unet, vae, text_encoder, image_encoder or image_projector."""
    layout: str
    """ldm, diffusers, openclip, transformers or videocrafter."""
    prefix: str
    """What stands before its names in the file."""
    tensors: LazyDict
    blank_channels: int = 0
    """Input channels that were left out, because text to video fills them with zeros (TF-T2V, VideoLCM)."""

    @property
    def parameters(self) -> int:
        """The number of its weights."""
        return sum(tensor.numel for tensor in self.tensors.values())


def find_parts(tensors: LazyDict) -> dict[str, Part]:
    """Find the parts among the tensors of a file, by kind; wrappers within names are taken off.

    DynamiCrafter 256 has another name for the embedding of the frame rate; it is renamed, as in its authors' loader.
    """
    tensors = without_wrappers(tensors)
    tensors = _dequantised({name.replace("framestride_embed.", "fps_embedding."): t for name, t in tensors.items()})
    votes: dict[tuple[str, str], Counter[str]] = {}
    for name in tensors:
        for kind, layout, pattern in _PATTERNS:
            match = pattern.match(name)
            if match:
                votes.setdefault((kind, layout), Counter())[match[1]] += 1
                break
    claimed: dict[str, tuple[str, str]] = {}
    for (kind, layout), prefixes in votes.items():
        prefix = max(prefixes, key=lambda p: (prefixes[p], "ema" not in p, -len(p)))
        if kind not in claimed or prefixes[prefix] > votes[(kind, claimed[kind][0])][claimed[kind][1]]:
            claimed[kind] = (layout, prefix)
    parts = {}
    for kind, (layout, prefix) in claimed.items():
        others = [p for k, (_, p) in claimed.items() if k != kind and len(p) > len(prefix)]
        if kind in ("image_encoder", "image_projector"):
            names = [n for n in tensors if n.startswith(tuple(prefix + own for own in _OWN[kind]))]
        else:
            names = [n for n in tensors if n.startswith(prefix) and not n.startswith(tuple(others) or "\0")]
            names = [n for n in names if _belongs(n.removeprefix(prefix), kind, tensors[n].shape)]
        cut = prefix + "image_proj_model." if kind == "image_projector" else prefix
        parts[kind] = Part(kind, layout, prefix, {n.removeprefix(cut): tensors[n] for n in names})
    if "unet" in parts:
        part = _without_blank_channels(parts["unet"])
        parts["unet"] = replace(part, tensors=i2vgen.from_vgen(part.tensors))
    return parts


def is_of_images(parts: Mapping[str, Part]) -> bool:
    """Whether the UNet among the parts of a file is one for images, without temporal layers."""
    if "unet" not in parts:
        return False
    try:
        return _is_without_time(unet_layout(parts["unet"]).infer(shapes_of(parts["unet"].tensors)))
    except (MissingKey, IndexError, TypeError):
        return False


def _is_without_time(fields: Mapping[str, Any]) -> bool:
    return not fields["temporal_attention"] and not fields["temporal_convolution"]


def _without_blank_channels(part: Part) -> Part:
    """Cut the 8 input channels of TF-T2V and VideoLCM after the latent's 4: for sketches and depth maps, else zeros."""
    first = part.tensors.get("input_blocks.0.0.weight")
    if first is None or len(first.shape) != 4 or first.shape[1] != 12:
        return part
    cut = first.then(lambda weight: weight[:, :4].contiguous(), (first.shape[0], 4, *first.shape[2:]))
    return replace(part, tensors=part.tensors | {"input_blocks.0.0.weight": cut}, blank_channels=8)


_OWN = {"image_encoder": ("visual.", "vision_model.", "visual_projection."), "image_projector": ("image_proj_model.",)}
"""The beginnings of the names, after the prefix, that belong to these parts."""


def _belongs(name: str, kind: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor with the prefix of a part belongs to it, and not to what lies around it, such as a buffer."""
    if kind == "unet":
        elsewhere = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "visual.", "transformer.", "token_emb")
        return name.startswith(_UNET_ROOTS) or (len(shape) >= 2 and not name.startswith(elsewhere))
    if kind == "vae":
        return name.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv."))
    return not name.startswith(("visual.", "vision_model.", "logit_scale", "visual_projection"))


def _dequantised(tensors: LazyDict) -> LazyDict:
    """Multiply tensors that are stored as float8 by the scales ("….scale_weight") that are stored beside them."""
    scales = {name.removesuffix(".scale_weight"): name for name in tensors if name.endswith(".scale_weight")}
    if not scales:
        return tensors
    result: LazyDict = {}
    for name, tensor in tensors.items():
        if name.endswith((".scale_weight", ".scale_input", "scaled_fp8")):
            continue
        scale = tensors.get(scales.get(name.removesuffix(".weight"), "")) if name.endswith(".weight") else None
        if scale is not None and tensor.dtype in FLOAT8:
            wide = tensor.to(scale.dtype)
            result[name] = wide.then(partial(_scaled, scale=scale), wide.shape)
        else:
            result[name] = tensor
    return result


def _scaled(tensor: torch.Tensor, scale: LazyTensor) -> torch.Tensor:
    return tensor * scale.load()


def unet_layout(part: Part) -> Layout:
    """Return the layout of a UNet's names."""
    if part.layout == "diffusers":
        return LAYOUTS["diffusers"]
    names = part.tensors
    if any(n.startswith("init_attn.norm.") or ".temporal." in n or ".temporal_conv." in n for n in names):
        return LAYOUTS["native"]
    crafted = any(n.startswith("init_attn.") or re.match(r"input_blocks\.\d+\.0\.op\.", n) for n in names)
    return LAYOUTS["videocrafter" if crafted else "modelscope"]


def unet_config(part: Part, source: str, hints: Mapping[str, Any] | None = None) -> tuple[UNetConfig, Layout]:
    """Infer the UNet's configuration and layout; checks that every tensor is there and fits.

    Args:
        part: the tensors of the UNet.
        source: the checkpoint's name in an error.
        hints: fields of a UNetConfig from a config.json.

    Raises:
        T2VError: where the tensors are not those of a supported 3D UNet.
    """
    names = part.tensors
    for stranger, title in _STRANGERS:
        if any_with(names, *stranger):
            raise T2VError(f"{source} is {title}: this pack's loader is for 3D UNets of ModelScope's family.")
    layout = unet_layout(part)
    try:
        fields = layout.infer(shapes_of(names))
        if _is_without_time(fields):
            raise T2VError(
                f"{source} is a UNet for images, without temporal layers: this pack's loader is for 3D UNets "
                "of ModelScope's family."
            )
        config = _complete(fields, hints or {}, source)
        difference = layout.compare(shapes_of(names), config)
    except MissingKey as error:
        raise T2VError(f"{source} was recognised as {layout.title}, but is incomplete ({error}). {REMEDY}") from error
    except (IndexError, TypeError) as error:
        raise T2VError(f"{source} was recognised as {layout.title}, but its shapes make no sense. {REMEDY}") from error
    if difference:
        raise T2VError(f"{source} was recognised as {layout.title}, but does not fit: {difference}. {REMEDY}")
    wrong = next((n for n in names if not (names[n].dtype.is_floating_point or names[n].dtype in FLOAT8)), None)
    if wrong:
        kind = str(names[wrong].dtype).removeprefix("torch.")
        raise T2VError(f"{source} holds {kind} numbers in {wrong}, where floating point numbers belong. {REMEDY}")
    return config, layout


REMEDY = "Download it again, and compare its size with its source's; a model with parts of its own is not supported."


def _complete(fields: dict[str, Any], hints: Mapping[str, Any], source: str) -> UNetConfig:
    """Complete the fields that follow from shapes with a config.json's hints and the values of all published models."""
    if fields["num_res_blocks"] > MOST_BLOCKS or max(fields["channels"]) > WIDEST:
        blocks, widest = fields["num_res_blocks"], max(fields["channels"])
        raise T2VError(f"{source} makes no UNet: {blocks} blocks a level of up to {widest} channels. {REMEDY}")
    init_width = fields.pop("init_width", None)
    fields = dict(hints) | fields
    transformed = [c for c, has in zip(fields["channels"], fields["attention_levels"], strict=True) if has]
    transformed.append(fields["channels"][-1])

    def fits(head_dim: int) -> bool:
        return head_dim > 0 and not any(c % head_dim for c in (*transformed, init_width or head_dim))

    if "head_dim" not in fields:
        guesses = [init_width // 8] if init_width and init_width % 8 == 0 else []
        fields["head_dim"] = next((guess for guess in (*guesses, 64) if fits(guess)), None)
        if fields["head_dim"] is None:
            raise T2VError(
                f"{source}: the size of its attention heads does not follow from its shapes. Put a config.json with "
                '"attention_head_dim" beside the weights.'
            )
    if not fits(fields["head_dim"]):
        raise T2VError(f"{source}: heads of {fields['head_dim']} channels do not divide its layers. {REMEDY}")
    if init_width:
        fields["init_heads"] = init_width // fields["head_dim"]
    if "norm_groups" not in fields and any(c % 32 for c in fields["channels"]):
        raise T2VError(
            f"{source}: the groups of its normalisations do not follow from its shapes. Put a config.json with "
            '"norm_num_groups" beside the weights.'
        )
    try:
        return UNetConfig(**fields)
    except ValueError as error:
        raise T2VError(f"{source} makes no UNet: {error} {REMEDY}") from error
