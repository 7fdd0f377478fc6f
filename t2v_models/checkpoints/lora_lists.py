"""LoRAs that are lists of tensors without names, in the order of a reference implementation's modules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from ..errors import AGAIN, T2VError
from ..foreign import quoted
from ..unet import PRESETS, UNetConfig
from .diffusers_layout import LAYOUT as DIFFUSERS
from .layouts import Shape, canonical_shapes
from .lora_pairs import LoraPair, check_halves, finite
from .tensors import LazyDict
from .videocrafter import LAYOUT as VIDEOCRAFTER


def ordered_tensors(path: Path, tensors: LazyDict) -> list[torch.Tensor] | None:
    """Read up, down, up, down … of a list, or of cloneofsimo's safetensors ("unet:0:up"); None for named tensors.

    Raises:
        T2VError: where one holds NaN or infinity.
    """
    if all(key.isdecimal() for key in tensors):
        keys = sorted(tensors, key=int)
    elif all(re.fullmatch(r"unet:\d+:(up|down)", key) for key in tensors):
        keys = sorted(tensors, key=lambda key: (int(key.split(":")[1]), key.endswith("down")))
    else:
        return None
    return [finite(path, f"tensor {key}", tensors[key]) for key in keys]


def pairs_of_list(path: Path, tensors: list[torch.Tensor], config: UNetConfig | None) -> dict[str, LoraPair]:
    """Name the pairs of a list by the modules in whose order a reference implementation wrote them.

    Args:
        path: the file, for errors.
        tensors: up, down, up, down ….
        config: of the UNet it is for; None tries those of the published models.

    Raises:
        T2VError: where the list is incomplete, or fits the modules of no known network.
    """
    if len(tensors) % 2:
        raise T2VError(f"{path} is a list of {len(tensors)} tensors, and pairs are wanted. {AGAIN}")
    pairs = [LoraPair(up, down) for up, down in zip(tensors[::2], tensors[1::2], strict=True)]
    for i, pair in enumerate(pairs):
        check_halves(path, f"pair {i}", pair)
    for candidate in _configs(config):
        for order in _orders(candidate):
            matched = _match(order, pairs)
            if matched is not None:
                return matched
    raise T2VError(
        f"{path} is a list of {len(pairs)} pairs without names, and fits the modules of no known network in their "
        f"order (the first: {quoted(list(pairs[0].up.shape))} and {quoted(list(pairs[0].down.shape))}). It was made for "
        "another model."
    )


def _configs(config: UNetConfig | None) -> Iterator[UNetConfig]:
    """Yield the networks a list may be for: the model's, also with T2V-Turbo's guidance embedding; or all published ones."""
    if config is None:
        yield from PRESETS.values()
        return
    yield config
    if not config.guidance_dim:
        yield replace(config, guidance_dim=256)


Order = list[tuple[str, Shape]]
"""(name of the weight in `UNet3D`, its shape in the reference), in the order of the reference's modules."""


def videocrafter_order(config: UNetConfig) -> Order:
    """List linear, 2-D and 3-D convolution weights in the order of VideoCrafter's modules, which is `UNet3D`'s.

    The projections of the first temporal transformer are 1-D convolutions there, which trainers pass over.
    """
    return [
        (name, VIDEOCRAFTER.reshape(name, shape))
        for name, shape in canonical_shapes(config).items()
        if len(shape) > 1
        and name.endswith(".weight")
        and ".relative_position_" not in name
        and not name.startswith("init_attn.proj_")
        and not name.endswith(".image_scale.weight")
    ]


_IN_BLOCK = ("resnets.", "temp_convs.", "attentions.", "temp_attentions.", "downsamplers.", "upsamplers.")
_IN_MODEL = (
    "conv_in.",
    "time_embedding.linear_1.",
    "time_embedding.cond_proj.",
    "time_embedding.linear_2.",
    "transformer_in.",
    "down_blocks.",
    "up_blocks.",
    "mid_block.",
    "conv_norm_out.",
    "conv_out.",
)


def diffusers_order(config: UNetConfig, *, ff_last: bool = True) -> Order:
    """List linear and convolution weights in the order of the modules of diffusers' UNet3DConditionModel.

    ff_last: False for diffusers before 2023-06, whose feed-forward layers come between the attentions.
    """
    parts = ("attn1.", "attn2.", "ff.") if ff_last else ("attn1.", "ff.", "attn2.")
    names = DIFFUSERS.names(config)

    def place(entry: tuple[int, tuple[str, Shape]]) -> tuple[int, ...]:
        index, (name, _) = entry
        name = names[name]
        root = next((i for i, start in enumerate(_IN_MODEL) if name.startswith(start)), len(_IN_MODEL))
        block = re.match(r"(?:down_blocks|up_blocks)\.(\d+)\.|mid_block\.", name)
        rest = name[block.end() :] if block else name
        kind = next((i for i, start in enumerate(_IN_BLOCK) if rest.startswith(start)), 0)
        layer = int(rest.split(".")[1]) if block else 0
        part = next((1 + i for i, p in enumerate(parts) if f".transformer_blocks.0.{p}" in name), 0)
        part = len(parts) + 1 if ".proj_out." in name else part
        return root, int(block[1] or 0) if block else 0, kind, layer, part, index

    plain = [
        (name, DIFFUSERS.reshape(name, shape))
        for name, shape in canonical_shapes(config).items()
        if len(shape) > 1 and name.endswith(".weight")
    ]
    return [entry for _, entry in sorted(enumerate(plain), key=place)]


def _orders(config: UNetConfig) -> Iterator[Order]:
    """Yield the orders in which references list the weights, of all modules and of those that trainers choose."""
    yield videocrafter_order(config)
    names = DIFFUSERS.names(config)
    for ff_last in (True, False):
        whole = diffusers_order(config, ff_last=ff_last)
        for wanted in _SUBSETS:
            yield [(name, shape) for name, shape in whole if wanted(names[name])]


def _is_temporal(name: str) -> bool:
    return ".temp_attentions." in name or name.startswith("transformer_in.")


def _is_in(name: str, *parts: str) -> bool:
    """Whether a layer lies in one of these parts of a transformer block."""
    return any(f".{part}." in name for part in parts)


_SUBSETS: tuple[Callable[[str], bool], ...] = (
    lambda name: True,  # UNet3DConditionModel
    lambda name: ".attn1." in name or ".attn2." in name or ".ff.net.0." in name,  # CrossAttention, Attention, GEGLU
    lambda name: any(p in name for p in (".attn1.", ".attn2.", ".ff.net.0.", ".resnets.")),  # and ResnetBlock2D
    lambda name: ".attn1." in name or ".attn2." in name,
    lambda name: ".attentions." in name,  # Transformer2DModel
    lambda name: ".attentions." in name or ".resnets." in name,
    lambda name: _is_temporal(name),  # TransformerTemporalModel
    lambda name: "attentions." in name or name.startswith("transformer_in."),
    lambda name: "attentions." in name or name.startswith("transformer_in.") or ".resnets." in name,
    lambda name: ".attentions." in name and _is_in(name, "attn1", "ff"),  # MotionDirector, spatial
    lambda name: _is_temporal(name) and _is_in(name, "attn1", "attn2", "ff"),  # MotionDirector, temporal
    lambda name: ".temp_attentions." in name and _is_in(name, "attn1", "attn2", "ff"),  # without the first transformer
)
"""The choices of modules in cloneofsimo's trainers, by the classes that they name; each takes diffusers' names.

MotionDirector (Zhao et al. 2023, arXiv:2310.08465) leaves the projections around the transformers out, and the spatial
attention to the text.
"""


def _match(order: Order, pairs: list[LoraPair]) -> dict[str, LoraPair] | None:
    """Name the pairs where each fits the next module of as many dimensions, and none of either is left over.

    Returns:
        None where they do not fit.
    """
    result: dict[str, LoraPair] = {}
    waiting = iter(pairs)
    pair = next(waiting, None)
    for name, shape in order:
        if pair is not None and pair.up.ndim != len(shape):
            continue  # the reference passes over modules of another kind than the next pair's
        if pair is None or pair.shape != shape:
            return None
        result[name] = pair
        pair = next(waiting, None)
    return result if pair is None else None
