"""The ways in which LoRAs are written: names with endings, or lists in the order of a reference's modules."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from ..errors import T2VError
from ..unet import PRESETS, UNetConfig
from .diffusers_layout import LAYOUT as DIFFUSERS
from .files import file_metadata, read_file
from .layouts import Shape, canonical_shapes
from .lora_pairs import Lora, LoraPair, known_modules
from .tensors import LazyDict
from .videocrafter import LAYOUT as VIDEOCRAFTER

_ENDINGS = (
    (re.compile(r"\.lora_A(?:\.\w+)?\.weight$"), "down", "diffusers"),
    (re.compile(r"\.lora_B(?:\.\w+)?\.weight$"), "up", "diffusers"),
    (re.compile(r"\.lora(?:_linear_layer)?\.down\.weight$"), "down", "diffusers"),
    (re.compile(r"\.lora(?:_linear_layer)?\.up\.weight$"), "up", "diffusers"),
    (re.compile(r"_lora\.down\.weight$"), "down", "diffusers"),
    (re.compile(r"_lora\.up\.weight$"), "up", "diffusers"),
    (re.compile(r"\.lora_down\.weight$"), "down", "kohya"),
    (re.compile(r"\.lora_up\.weight$"), "up", "kohya"),
    (re.compile(r"\.lora_mid\.weight$"), "mid", "kohya"),
    (re.compile(r"\.alpha$"), "alpha", "kohya"),
    (re.compile(r"\.lora_A$"), "down", "stable_lora"),
    (re.compile(r"\.lora_B$"), "up", "stable_lora"),
)
_OTHERS = {"hada_w": "LoHa", "lokr_w": "LoKr", "dora_scale": "DoRA", "lora_magnitude": "DoRA", "oft_": "OFT"}
_PREFIXES = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "unet.", "module.", "lora_unet_")
_TEXT_PREFIXES = ("base_model.model.", "text_encoder.", "lora_te_", "lora_te1_", "cond_stage_model.")


def read_lora(path: str | os.PathLike[str], config: UNetConfig | None = None) -> Lora:
    """Read a LoRA of any of the formats, safely.

    Args:
        path: a safetensors or PyTorch file.
        config: of the UNet it is for; where None, that of the published models is tried.

    Raises:
        T2VError: where the file is no LoRA, is incomplete, or fits no known model.
    """
    path = Path(path)
    tensors = read_file(path)
    ordered = _ordered(tensors)
    if ordered is not None:
        return Lora(str(path), "list", _from_list(path, ordered, config), {})
    for ending, name in _OTHERS.items():
        if any(ending in key for key in tensors):
            raise T2VError(f"{path} is a {name}, which is not supported: merge it into the model with its own tools.")

    halves: dict[str, dict[str, torch.Tensor]] = {}
    formats: list[str] = []
    unknown = []
    for key, tensor in tensors.items():
        for pattern, role, form in _ENDINGS:
            if pattern.search(key):
                halves.setdefault(pattern.sub("", key), {})[role] = tensor.load()
                formats.append(form)
                break
        else:
            unknown.append(key)
    if not any({"up", "down"} & set(half) for half in halves.values()):
        raise T2VError(
            f"{path} is no LoRA: none of its {len(tensors)} tensors is named like one ({next(iter(tensors))})."
        )
    form = max(set(formats) - {"kohya"} or {"kohya"}, key=formats.count)

    alpha, by_root = _common_alpha(path)
    table, texts = known_modules(config), _text_modules()
    unet: dict[str, LoraPair] = {}
    text: dict[str, LoraPair] = {}
    for name, half in halves.items():
        if set(half) == {"alpha"}:
            continue
        if "up" not in half or "down" not in half:
            raise T2VError(f"{path} is incomplete: {name} has only one of its two halves. Download it again.")
        own = alpha * half["down"].shape[0] ** 0.5 if by_root and alpha is not None else alpha
        if "alpha" in half and half["alpha"].numel():
            own = float(half["alpha"].flatten()[0])
        pair = LoraPair(half["up"], half["down"], own, half.get("mid"))
        _check(path, name, pair)
        canonical = _find(name, _PREFIXES, table)
        if canonical:
            shape = canonical_shapes(config or PRESETS["t2v-turbo-v2"]).get(canonical, ())
            unet[canonical] = _stable(pair, shape) if form == "stable_lora" else pair
        elif found := _find(name, _TEXT_PREFIXES, texts):
            text[found] = pair
        else:
            unknown.append(name)
    return Lora(str(path), form, unet, text, tuple(unknown))


def _find(name: str, prefixes: tuple[str, ...], table: dict[str, str]) -> str | None:
    name = name.replace(".processor.", ".").replace("_processor_", "_")
    changed = True
    while changed:
        for candidate in (name, f"{name}.0", f"{name}_0"):  # to_out is to_out.0
            if candidate in table:
                return table[candidate]
        changed = False
        for prefix in prefixes:
            if name.startswith(prefix):
                name, changed = name.removeprefix(prefix), True
                break
    return None


def _text_modules(layers: int = 24) -> dict[str, str]:
    table = {}
    for i in range(layers):
        for part in (
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.out_proj",
            "mlp.fc1",
            "mlp.fc2",
        ):
            module = f"text_model.encoder.layers.{i}.{part}"
            table[module] = table[module.replace(".", "_")] = f"{module}.weight"
    return table


def _check(path: Path, name: str, pair: LoraPair) -> None:
    """Both halves have at least two dimensions and the same rank."""
    inner = pair.up.shape[1] if pair.up.ndim > 1 else -1
    rank = (
        pair.mid.shape[0]
        if pair.mid is not None and pair.mid.ndim
        else pair.down.shape[0]
        if pair.down.ndim > 1
        else -2
    )
    if inner != rank:
        raise T2VError(
            f"{path} is damaged: the halves of {name} do not fit each other, {list(pair.up.shape)} and "
            f"{list(pair.down.shape)}. Download it again."
        )


def _common_alpha(path: Path) -> tuple[float | None, bool]:
    """The alpha that peft or a trainer wrote beside the tensors, for all of them, and whether the root of the rank divides
    it instead of the rank: Kalajdzievski 2023, rsLoRA (arXiv:2312.03732)."""
    metadata = file_metadata(path)
    for source in (metadata.get("lora_adapter_metadata"), _text(path.parent / "adapter_config.json")):
        try:
            values = json.loads(source) if source else {}
        except (ValueError, RecursionError):
            continue
        values = values if isinstance(values, dict) else {}
        for root in ("", "unet."):
            if values.get(f"{root}alpha_pattern"):
                raise T2VError(f"{path} has alphas of its own for some modules (alpha_pattern): merge it with peft.")
            if isinstance(values.get(f"{root}lora_alpha"), (int, float)):
                return float(values[f"{root}lora_alpha"]), bool(values.get(f"{root}use_rslora"))
    return None, False


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8") if path.is_file() else None
    except (OSError, ValueError):
        return None


def _stable(pair: LoraPair, shape: tuple[int, ...]) -> LoraPair:
    """stable_lora's pair as an ordinary one.

    There a convolution of kernel k has A (r k, in k) and B (out k, r k), and B @ A (out k, in k) is viewed as
    (out, in, k, k); of a temporal one as (out, in, 3, 3, 1), and averaged over the last 3. A block of rows of B per
    kernel row gives the same change as the product of (out, k r k) and (k r k, in, k, k).
    """
    up, down = pair.up, pair.down
    if len(shape) != 4 or up.ndim != 2 or shape[2] == 1:
        return replace(pair, up=up.flatten(1), down=down.flatten(1)) if len(shape) == 2 else pair
    out, inside, kernel = shape[:3]
    if up.shape[0] != out * kernel or down.shape[1] != inside * kernel:
        return pair
    up = up.reshape(out, kernel * up.shape[1])
    down = torch.block_diag(*[down.float()] * kernel).to(down.dtype).reshape(-1, inside, kernel, kernel)
    if shape[3] == 1:
        down = down.float().mean(-1, keepdim=True).to(down.dtype)
    return LoraPair(
        up[(..., *[None] * 2)], down, None if pair.alpha is None else pair.alpha / pair.rank * down.shape[0]
    )


# lists without names


def _ordered(tensors: LazyDict) -> list[torch.Tensor] | None:
    """up, down, up, down … of a list, or of cloneofsimo's safetensors ("unet:0:up"); None for named tensors."""
    if all(key.isdecimal() for key in tensors):
        keys = sorted(tensors, key=int)
    elif all(re.fullmatch(r"unet:\d+:(up|down)", key) for key in tensors):
        keys = sorted(tensors, key=lambda key: (int(key.split(":")[1]), key.endswith("down")))
    else:
        return None
    return [tensors[key].load() for key in keys]


def _from_list(path: Path, tensors: list[torch.Tensor], config: UNetConfig | None) -> dict[str, LoraPair]:
    """The pairs of a list by the names of the modules that the reference walked through when it wrote it."""
    if len(tensors) % 2:
        raise T2VError(f"{path} is a list of {len(tensors)} tensors, and pairs are wanted. Download it again.")
    pairs = [LoraPair(up, down) for up, down in zip(tensors[::2], tensors[1::2], strict=True)]
    for i, pair in enumerate(pairs):
        _check(path, f"pair {i}", pair)
    for candidate in _configs(config):
        for order in _orders(candidate):
            matched = _match(order, pairs)
            if matched is not None:
                return matched
    raise T2VError(
        f"{path} is a list of {len(pairs)} pairs without names, and fits the modules of no known network in their "
        f"order (the first: {list(pairs[0].up.shape)} and {list(pairs[0].down.shape)}). It was made for another model."
    )


def _configs(config: UNetConfig | None) -> Iterator[UNetConfig]:
    """The networks a list may be for: that of the model, with the guidance embedding that T2V-Turbo adds, or any."""
    if config is None:
        yield from PRESETS.values()
        return
    yield config
    if not config.guidance_dim:
        yield replace(config, guidance_dim=256)


Order = list[tuple[str, Shape]]
"""Canonical weight and its shape in the reference, in the order in which the reference's modules come."""


def videocrafter_order(config: UNetConfig) -> Order:
    """Linear, 2-D and 3-D convolution weights in the order of VideoCrafter's modules, which is ours.

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
    """The same of diffusers' UNet3DConditionModel; before 2023-06 its feed-forward layers came between attentions."""
    parts = ("attn1.", "attn2.", "ff.") if ff_last else ("attn1.", "ff.", "attn2.")
    names = DIFFUSERS.names(config)

    def place(entry: tuple[int, tuple[str, Shape]]) -> tuple:
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
    yield videocrafter_order(config)
    names = DIFFUSERS.names(config)
    for ff_last in (True, False):
        whole = diffusers_order(config, ff_last=ff_last)
        for wanted in _SUBSETS:
            yield [(name, shape) for name, shape in whole if wanted(names[name])]


_SUBSETS: tuple[Callable[[str], bool], ...] = (
    lambda name: True,  # UNet3DConditionModel
    lambda name: ".attn1." in name or ".attn2." in name or ".ff.net.0." in name,  # CrossAttention, Attention, GEGLU
    lambda name: any(p in name for p in (".attn1.", ".attn2.", ".ff.net.0.", ".resnets.")),  # and ResnetBlock2D
    lambda name: ".attn1." in name or ".attn2." in name,
    lambda name: ".attentions." in name,  # Transformer2DModel
    lambda name: ".attentions." in name or ".resnets." in name,
    lambda name: ".temp_attentions." in name or name.startswith("transformer_in."),  # TransformerTemporalModel
    lambda name: "attentions." in name or name.startswith("transformer_in."),
    lambda name: "attentions." in name or name.startswith("transformer_in.") or ".resnets." in name,
)
"""What cloneofsimo's trainers aim at, by the classes they name."""


def _match(order: Order, pairs: list[LoraPair]) -> dict[str, LoraPair] | None:
    """The pairs by name, where each fits the next module of as many dimensions, and none of either is left over."""
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
