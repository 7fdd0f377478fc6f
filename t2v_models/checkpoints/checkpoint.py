"""A model on disk: what it is, and its parts in the names that each one's class expects."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..errors import T2VError
from ..families import FAMILIES, Defaults, Family, family_called, family_for
from ..unet import UNet3D, UNetConfig
from . import diffusers_layout, native, text_encoder, vae
from .detect import Part, unet_config
from .files import file_metadata, read_file
from .folders import is_diffusers
from .layouts import Layout
from .locate import (
    Found,
    add_parts,
    config_beside,
    find_in_diffusers_folder,
    find_in_folder,
    tokenizer_in,
)
from .tensors import FLOAT8, LazyDict, as_lazy, load_all, main_dtype

log = logging.getLogger(__name__)

_VIDEOLCM_STEPS = (435_000, 544_000)
"""Training steps at which VideoLCM was published; its shapes are TF-T2V's."""

_MODELSCOPE_STEPS = (600_000, 632_000)
"""The same of ModelScope's networks for InstructVideo and DreamVideo, whose shapes and wrapper are VGen's."""

_SCALES = (0.3, 0.7)
"""Of all published models; a buffer in half precision comes near them only."""

StateDict = dict[str, torch.Tensor]


@dataclass(frozen=True)
class PartInfo:
    """One part of a checkpoint."""

    layout: str
    dtype: str
    parameters: int
    tensors: int
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckpointInfo:
    """What a file or folder holds."""

    path: str
    family: Family | None
    """None where there is no UNet."""
    layout: str
    """The UNet's layout, or the first part's."""
    dtype: str
    parameters: int
    """Of the UNet, or of all parts where there is none."""
    parts: dict[str, PartInfo]
    """By kind: unet, vae, text_encoder, image_encoder, image_projector, tokenizer, scheduler."""
    config: UNetConfig | None
    defaults: Defaults
    licence: str
    metadata: dict[str, str] = field(default_factory=dict)
    """What a safetensors file says of itself."""


class Checkpoint:
    """A model on disk, opened with `open_checkpoint`; its tensors are read when they are asked for."""

    def __init__(self, path: str, found: Found, family: str | None = None) -> None:
        self.path = path
        self._found = found
        self._family = family
        self._unet: tuple[UNetConfig, Layout] | None = None
        self.saved = native.saved_config(found.extra)
        """The configuration that the nodes wrote into a saved model, see `native.saved_config`; {} for others."""
        if "unet" in found.parts:
            found.configs["unet"] = native.unet_json(self.saved) or found.configs.get("unet", {})
            scheduler = self.saved.get("scheduler")
            if scheduler and isinstance(scheduler, dict):
                found.configs.setdefault("scheduler", scheduler)
            hints = diffusers_layout.config_hints(found.configs["unet"])
            self._unet = unet_config(found.parts["unet"], path, hints)

    @cached_property
    def family(self) -> Family | None:
        """The family, with what the checkpoint itself tells of its noise schedule and sizes."""
        if self._unet is None:
            return None
        return family_for(self._unet[0], self._hints())

    @property
    def config(self) -> UNetConfig:
        """The UNet's configuration."""
        self._part("unet")
        config, _ = self._unet
        condition = self.family.fps_condition
        return replace(config, default_fps=condition) if config.fps_embedding and condition else config

    @property
    def layout(self) -> Layout:
        """The UNet's layout."""
        self._part("unet")
        return self._unet[1]

    @cached_property
    def info(self) -> CheckpointInfo:
        """What is found, without reading more than names and shapes."""
        parts = {
            kind: PartInfo(
                self._unet[1].name if kind == "unet" else part.layout,
                _dtype_name(part.tensors),
                part.parameters,
                len(part.tensors),
                tuple(str(file) for file in self._found.files.get(kind, ())),
            )
            for kind, part in self._found.parts.items()
        }
        if self.tokenizer_path:
            parts["tokenizer"] = PartInfo("transformers", "", 0, 0, (str(self.tokenizer_path),))
        if "scheduler" in self._found.configs:
            parts["scheduler"] = PartInfo("diffusers", "", 0, 0)
        main = "unet" if self._unet else next(iter(self._found.parts))
        family = self.family
        file = next(iter(self._found.files.get(main, ())), None)
        return CheckpointInfo(
            path=self.path,
            family=family,
            layout=parts[main].layout,
            dtype=parts[main].dtype,
            parameters=parts[main].parameters if self._unet else sum(part.parameters for part in parts.values()),
            parts=parts,
            config=self.config if self._unet else None,
            defaults=family.defaults if family else Defaults(),
            licence=family.licence if family else "unknown: see its source",
            metadata=file_metadata(file) if file else {},
        )

    # the parts

    def lazy_unet(self) -> LazyDict:
        """The UNet under its canonical names, unread."""
        part = self._part("unet")
        config, layout = self._unet
        return layout.to_canonical(part.tensors, config)

    def lazy_vae(self) -> LazyDict | None:
        """The VAE under the names of diffusers' AutoencoderKL, unread."""
        part = self._found.parts.get("vae")
        if part is None:
            return None
        convert = vae.from_ldm if part.layout == "ldm" else vae.from_diffusers
        return convert(part.tensors, self.path)

    def lazy_text_encoder(self) -> LazyDict | None:
        """The text encoder under the names of transformers' CLIPTextModel ("text_model.…"), unread."""
        part = self._found.parts.get("text_encoder")
        if part is None:
            return None
        convert = text_encoder.from_openclip if part.layout == "openclip" else text_encoder.from_transformers
        return convert(part.tensors, self.path)

    def lazy_parts(self) -> dict[str, LazyDict]:
        """All parts in the names of their classes, unread; those of an image under their own."""
        parts = {"unet": self.lazy_unet(), "vae": self.lazy_vae(), "text_encoder": self.lazy_text_encoder()}
        for kind in ("image_encoder", "image_projector"):
            if kind in self._found.parts:
                parts[kind] = self._found.parts[kind].tensors
        return {kind: tensors for kind, tensors in parts.items() if tensors is not None}

    def settings(self) -> dict[str, Any]:
        """What the "t2v" entry of a unet/config.json says."""
        settings = self._found.configs.get("unet", {}).get("t2v", {})
        return dict(settings) if isinstance(settings, dict) else {}

    def unet(self) -> StateDict:
        """The UNet's weights under the names of `UNet3D`; views of the mapped file."""
        return load_all(self.lazy_unet())

    def vae(self) -> StateDict | None:
        """The VAE's weights under the names of diffusers' AutoencoderKL."""
        tensors = self.lazy_vae()
        return None if tensors is None else load_all(tensors)

    def text_encoder(self) -> StateDict | None:
        """The text encoder's weights as published: "text_model.embeddings…" (transformers 5 drops "text_model.")."""
        tensors = self.lazy_text_encoder()
        return None if tensors is None else load_all(tensors)

    def image_encoder(self) -> StateDict | None:
        """The image encoder of an image to video model, under its own names."""
        return self._own_names("image_encoder")

    def image_projector(self) -> StateDict | None:
        """What makes tokens of the encoded image, under its own names."""
        return self._own_names("image_projector")

    def vae_config(self) -> dict[str, Any]:
        """The configuration of diffusers' AutoencoderKL."""
        tensors = self.lazy_vae()
        if tensors is None:
            raise self._missing("VAE")
        scale = self.family.vae_scale if self.family else 0.18215
        return vae.config_of(tensors, scale) | self._found.configs.get("vae", {})

    def text_encoder_config(self) -> dict[str, Any]:
        """The configuration of transformers' CLIPTextModel."""
        tensors = self.lazy_text_encoder()
        if tensors is None:
            raise self._missing("text encoder")
        return text_encoder.config_of(tensors) | self._found.configs.get("text_encoder", {})

    def scheduler_config(self) -> dict[str, Any]:
        """The noise schedule as a diffusers scheduler's configuration."""
        if "scheduler" in self._found.configs:
            return self._found.configs["scheduler"]
        if self.family is None:
            raise self._missing("UNet")
        return self.family.scheduler_config()

    @property
    def tokenizer_path(self) -> Path | None:
        """The folder of the tokenizer's files, where the checkpoint brings one."""
        return self._found.tokenizer

    # inside

    def _own_names(self, kind: str) -> StateDict | None:
        part = self._found.parts.get(kind)
        return None if part is None else load_all(part.tensors)

    def _part(self, kind: str) -> Part:
        if kind not in self._found.parts:
            raise self._missing("UNet")
        return self._found.parts[kind]

    def _missing(self, title: str) -> T2VError:
        parts = ", ".join(self._found.parts) or "nothing known"
        return T2VError(f"{self.path} holds no {title} (found: {parts}): give the file or folder that has one.")

    def _hints(self) -> dict[str, Any]:
        """What the checkpoint tells of its family besides the UNet's shape."""
        hints: dict[str, Any] = {}
        part = self._found.parts["unet"]
        extra = self._found.extra
        step = int(extra["step"].load()) if "step" in extra else 0
        if part.blank_channels:
            hints["family"] = "videolcm" if step in _VIDEOLCM_STEPS else "tf-t2v"
        elif self._unet[1].name == "modelscope" and part.prefix.startswith("state_dict."):
            hints["family"] = "modelscope" if step in _MODELSCOPE_STEPS else "vgen"  # ModelScope's own has no wrapper
        if "scale_arr" in extra:
            base = float(extra["scale_arr"].load().flatten()[-1])
            hints["scale_base"] = next((known for known in _SCALES if abs(base - known) < 0.002), round(base, 4))
        if "v_pred" in extra:
            hints["prediction_type"] = "v_prediction"
        scheduler = self._found.configs.get("scheduler", {})
        for ours, theirs in (("prediction_type", "prediction_type"), ("zero_terminal_snr", "rescale_betas_zero_snr")):
            if theirs in scheduler:
                hints[ours] = scheduler[theirs]
        if isinstance(scheduler.get("beta_schedule"), str):
            hints["beta_schedule"] = scheduler["beta_schedule"]
        if isinstance(scheduler.get("beta_start"), float) and isinstance(scheduler.get("beta_end"), float):
            hints["betas"] = (scheduler["beta_start"], scheduler["beta_end"])
        if isinstance(scheduler.get("scale_base"), float):
            hints["scale_base"] = scheduler["scale_base"]
        config = self._found.configs.get("unet", {})
        called = family_called(str(config.get("_name_or_path", "")), *Path(self.path).parts[-2:])
        if called:
            hints["called"] = called
        size = None if called else config.get("sample_size")  # which fine-tunes leave at ModelScope's
        if isinstance(size, int) and size > 0:
            size = [size, size]
        if isinstance(size, (list, tuple)) and len(size) == 2 and all(type(n) is int and n > 0 for n in size):
            hints |= {"height": 8 * size[0], "width": 8 * size[1]}
        if isinstance(config.get("t2v"), dict):
            hints |= {name: value for name, value in config["t2v"].items() if isinstance(name, str)}
        if self._family:
            hints["family"] = self._family
        return hints


def open_checkpoint(
    path: str | os.PathLike[str] | Mapping[str, torch.Tensor], *, family: str | None = None
) -> Checkpoint:
    """Open a file, a diffusers folder or one of its parts' folders, a folder of files, or a state dict.

    Args:
        path: what to open.
        family: a name of `t2v_models.families.FAMILIES`, for what shapes do not tell.

    Raises:
        T2VError: where it cannot be read or is nothing that this package knows.
    """
    if isinstance(path, Checkpoint):
        return path
    if family is not None and family not in FAMILIES:
        raise T2VError(f"Family {family!r} is not known: choose one of {', '.join(FAMILIES)}.")
    found = Found()
    if isinstance(path, Mapping):
        source = "the state dict"
        add_parts(found, as_lazy(path), None)
    else:
        path = Path(path)
        source = str(path)
        if path.is_dir() and is_diffusers(path):
            find_in_diffusers_folder(path, found)
        elif path.is_dir():
            find_in_folder(path, found)
            found.tokenizer = tokenizer_in(path)
        else:
            add_parts(found, read_file(path), path)
            found.configs["unet"] = config_beside(path)
            found.tokenizer = tokenizer_in(path.parent)
    if not found.parts:
        if found.problems:
            raise found.problems[0]
        raise T2VError(f"{source} holds no part of a text-to-video model: no UNet, VAE or text encoder is recognised.")
    if "unet" not in found.parts and found.problems:
        raise found.problems[0]
    for problem in found.problems:
        log.warning("%s", problem)
    return Checkpoint(source, found, family)


def inspect(path: str | os.PathLike[str] | Mapping[str, torch.Tensor]) -> CheckpointInfo:
    """What a file or folder holds: family, layout, type, parameters, parts, defaults, licence.

    Only names and shapes are read.
    """
    return open_checkpoint(path).info


def load_unet(
    path: str | os.PathLike[str] | Mapping[str, torch.Tensor] | Checkpoint,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    operations: Any = None,
) -> UNet3D:
    """The UNet of a file, a unet folder, a whole model folder or a state dict, in evaluation mode.

    Args:
        path: any layout that `inspect` knows.
        dtype: of the weights; that of the file where None (bfloat16, which holds it exactly, for float8).
        device: where they go; on the CPU they are views of the mapped file as long as the type stays.
        operations: the layer classes, see `UNet3D`; with a host's, float8 weights stay as they are.

    Raises:
        T2VError: where the file cannot be read, holds no UNet or one that does not fit.
    """
    checkpoint = open_checkpoint(path)
    tensors = checkpoint.lazy_unet()
    if dtype is None:
        dtype = main_dtype(tensors)
        if dtype in FLOAT8:
            dtype = torch.bfloat16 if operations is None else None
    options = {} if operations is None else {"operations": operations}
    unet = UNet3D(checkpoint.config, device="meta", **options)
    state_dict = {name: tensor.to(dtype).load().to(device) for name, tensor in tensors.items()}
    unet.load_state_dict(state_dict, assign=True)
    return unet.eval().requires_grad_(False)


def load_state_dict(path: str | os.PathLike[str]) -> StateDict:
    """Every tensor of a file by its own name, safely; views of the mapped file."""
    return load_all(read_file(path))


def _dtype_name(tensors: LazyDict) -> str:
    dtype = main_dtype(tensors)
    names = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64"}
    return names.get(dtype, str(dtype).removeprefix("torch.").replace("float8_", "fp8_"))
