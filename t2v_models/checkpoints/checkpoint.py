"""A model on disk: what it is, and its parts under the names that each part's class expects."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..errors import AGAIN, T2VError
from ..families import FAMILIES, Defaults, Family
from ..family_matching import family_for, possible_families
from ..unet import UNet3D, UNetConfig
from . import configs, diffusers_layout, image_encoder, native, text_encoder, vae
from .configs import checked, checked_scheduler
from .detect import Part, unet_config
from .files import file_metadata, read_file, reading
from .hints import family_hints
from .info import CheckpointInfo, PartInfo, dtype_name
from .layouts import Layout
from .locate import Found, add_parts, find
from .lora import with_guidance, with_loras
from .lora_pairs import Lora
from .tensors import FLOAT8, LazyDict, LazyTensor, as_lazy, is_finite, load_all, main_dtype

log = logging.getLogger(__name__)

StateDict = dict[str, torch.Tensor]

Source = str | os.PathLike[str] | Mapping[str, torch.Tensor | LazyTensor]
"""What can be opened: a file, a folder, or the tensors of a model by name."""


@dataclass(frozen=True)
class _UNet:
    """A UNet that was recognised."""

    part: Part
    config: UNetConfig
    layout: Layout


class Checkpoint:
    """A model on disk, opened with `open_checkpoint`. Its tensors are read by the methods that return them.

    Methods that begin with "lazy_" return names, shapes and types without reading; the others read.
    """

    def __init__(self, path: str, found: Found, family: str | None = None) -> None:
        self.path = path
        self._found = found
        self._named_family = family
        self._unet: _UNet | None = None
        self.saved = native.saved_config(found.extra)
        """The configuration that the nodes wrote into a saved model, see `native.saved_config`; {} for others."""
        if "unet" in found.parts:
            found.configs["unet"] = native.unet_json(self.saved) or found.configs.get("unet", {})
            scheduler = self.saved.get("scheduler")
            if scheduler and isinstance(scheduler, dict):
                found.configs.setdefault("scheduler", checked_scheduler(scheduler, f"{path}: its saved scheduler"))
            hints = diffusers_layout.config_hints(found.configs["unet"])
            self._unet = _UNet(found.parts["unet"], *unet_config(found.parts["unet"], path, hints))

    @cached_property
    def family(self) -> Family:
        """The UNet's family, with the noise schedule and sizes that the checkpoint itself gives.

        This property, `config` and `layout` raise T2VError where there is no UNet; and where the family that was named takes
        pictures by other ways than the UNet does.
        """
        config = self._recognised().config
        family = family_for(config, self._hints)
        ways = bool(family.image_latents), bool(family.image_tokens)
        if family.name in FAMILIES and ways != (config.in_channels > config.out_channels, config.takes_image):
            raise T2VError(f"{self.path} is no {family.title}: its network is another one, so choose another family.")
        return family

    @cached_property
    def other_families(self) -> tuple[str, ...]:
        """Names of image-to-video families that it could be of just as well, since names and shapes do not tell."""
        possible = possible_families(self._recognised().config, self._hints)
        return tuple(family.name for family in possible[1:] if family.image)

    def warn_of_other_families(self) -> None:
        """Log which of several families is taken, and how to choose another."""
        if self.other_families:
            log.warning(
                "%s is taken for %s, but its tensors and its name would fit %s as well: name the family (T2V Model "
                "Loader's input family, --family, or family=), or give the file its published name.",
                self.path, self.family.name, " or ".join(self.other_families),
            )  # fmt: skip

    @cached_property
    def _hints(self) -> dict[str, Any]:
        """What else than the UNet's shape tells its family."""
        unet = self._recognised()
        with reading(self.path):
            hints = family_hints(self._found, unet.part, unet.layout, self.path)
        return hints | ({"family": self._named_family} if self._named_family else {})

    @property
    def config(self) -> UNetConfig:
        """The UNet's configuration."""
        config, condition = self._recognised().config, self.family.fps_condition
        return replace(config, default_fps=condition) if config.fps_embedding and condition else config

    @property
    def layout(self) -> Layout:
        """The UNet's layout."""
        return self._recognised().layout

    @cached_property
    def info(self) -> CheckpointInfo:
        """What the checkpoint holds, from names and shapes alone."""
        parts = self._part_infos()
        main = "unet" if self._unet else next(iter(self._found.parts))
        family = self.family if self._unet else None
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
            other_families=self.other_families if self._unet else (),
            metadata=file_metadata(file) if file else {},
        )

    def _part_infos(self) -> dict[str, PartInfo]:
        parts = {
            kind: PartInfo(
                self.layout.name if kind == "unet" else part.layout,
                dtype_name(part.tensors),
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
        return parts

    def lazy_unet(self) -> LazyDict:
        """The UNet under the names of `UNet3D`, unread."""
        unet = self._recognised()
        return unet.layout.to_canonical(unet.part.tensors, unet.config)

    def lazy_vae(self) -> LazyDict | None:
        """The VAE under the names of diffusers' AutoencoderKL, unread."""
        part = self._found.parts.get("vae")
        if part is None:
            return None
        convert = vae.from_ldm if part.layout == "ldm" else vae.from_diffusers
        with reading(self.path):
            return convert(part.tensors, self.path)

    def lazy_text_encoder(self) -> LazyDict | None:
        """The text encoder under the names of transformers' CLIPTextModel ("text_model.…"), unread."""
        part = self._found.parts.get("text_encoder")
        if part is None:
            return None
        convert = text_encoder.from_openclip if part.layout == "openclip" else text_encoder.from_transformers
        with reading(self.path):
            tensors = convert(part.tensors, self.path)
            if self._unet and self._unet.config.image_branches:  # whose folder has all of CLIP's blocks
                tensors = text_encoder.without_last_block(tensors)
            return tensors

    def lazy_image_encoder(self) -> LazyDict | None:
        """The image encoder under the names of transformers' CLIPVisionModel ("vision_model.…"), unread."""
        part = self._found.parts.get("image_encoder")
        if part is None:
            return None
        convert = image_encoder.from_openclip if part.layout == "openclip" else image_encoder.from_transformers
        with reading(self.path):
            return convert(part.tensors, self.path)

    def lazy_image_projector(self) -> LazyDict | None:
        """The network that makes tokens of the encoded image (the Resampler), under its published names, unread."""
        part = self._found.parts.get("image_projector")
        return None if part is None else part.tensors

    def lazy_parts(self) -> dict[str, LazyDict]:
        """All parts that the UNet works with, by kind, under the names of their classes, unread.

        A file of the whole of CLIP beside a text-to-video model holds an image encoder which that model does not use.
        """
        parts = {"unet": self.lazy_unet(), "vae": self.lazy_vae(), "text_encoder": self.lazy_text_encoder()}
        if self.config.takes_image:
            parts |= {"image_encoder": self.lazy_image_encoder(), "image_projector": self.lazy_image_projector()}
        return {kind: tensors for kind, tensors in parts.items() if tensors is not None}

    def settings(self) -> dict[str, Any]:
        """Return a copy of the entry "t2v" in unet/config.json; empty where there is none."""
        settings = self._found.configs.get("unet", {}).get("t2v", {})
        return dict(settings) if isinstance(settings, dict) else {}

    def unet(self) -> StateDict:
        """Read the UNet's weights, under the names of `UNet3D`; T2VError where one holds NaN or infinity."""
        return {name: self.finite(name, tensor.load()) for name, tensor in self.lazy_unet().items()}

    def finite(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Return a weight; T2VError, which names the checkpoint, where it holds NaN or infinity."""
        if not is_finite(weight):
            raise T2VError(f"{self.path} holds values that are no numbers (NaN or infinity) in {name}. {AGAIN}")
        return weight

    def vae(self) -> StateDict | None:
        """Read the VAE's weights, under the names of diffusers' AutoencoderKL; None where there is no VAE."""
        tensors = self.lazy_vae()
        return None if tensors is None else load_all(tensors)

    def text_encoder(self) -> StateDict | None:
        """Read the text encoder's weights, under the published names "text_model.…"; None where there is none.

        transformers 5 leaves "text_model." out of its own names.
        """
        tensors = self.lazy_text_encoder()
        return None if tensors is None else load_all(tensors)

    def image_encoder(self) -> StateDict | None:
        """Read the image encoder's weights, under the published names "vision_model.…"; None where there is none.

        transformers 5 leaves "vision_model." out of its own names. `t2v_models.image.encoder` builds it.
        """
        tensors = self.lazy_image_encoder()
        return None if tensors is None else load_all(tensors)

    def image_projector(self) -> StateDict | None:
        """Read the weights of the network that makes tokens of the encoded image; None where there is none.

        `t2v_models.image.resampler` builds it.
        """
        tensors = self.lazy_image_projector()
        return None if tensors is None else load_all(tensors)

    def vae_config(self) -> dict[str, Any]:
        """Return the configuration of diffusers' AutoencoderKL; T2VError where there is no VAE."""
        tensors = self.lazy_vae()
        if tensors is None:
            raise self._missing("VAE")
        scale = self.family.vae_scale if self._unet else 0.18215
        return vae.config_of(tensors, scale) | checked(
            self._found.configs.get("vae", {}), configs.VAE, f"{self.path}: its VAE's config.json"
        )

    def text_encoder_config(self) -> dict[str, Any]:
        """Return the configuration of transformers' CLIPTextModel; T2VError where there is no text encoder."""
        tensors = self.lazy_text_encoder()
        if tensors is None:
            raise self._missing("text encoder")
        computed = text_encoder.config_of(tensors)
        return self._clip_config("text_encoder", "text encoder", computed, configs.TEXT_ENCODER)

    def image_encoder_config(self) -> dict[str, Any]:
        """Return the configuration of transformers' CLIPVisionModel; T2VError where there is no image encoder."""
        tensors = self.lazy_image_encoder()
        if tensors is None:
            raise self._missing("image encoder")
        computed = image_encoder.config_of(tensors)
        return self._clip_config("image_encoder", "image encoder", computed, configs.IMAGE_ENCODER)

    def _clip_config(
        self, kind: str, title: str, computed: dict[str, Any], table: Mapping[str, configs.Check]
    ) -> dict[str, Any]:
        """Complete a configuration that was computed from shapes by the entries of the part's config.json."""
        given = checked(self._found.configs.get(kind, {}), table, f"{self.path}: its {title}'s config.json")
        config = computed | given
        width, heads = config["hidden_size"], config["num_attention_heads"]
        if width % heads:
            raise T2VError(f"{self.path} has a {title} {width} wide, and {heads} heads do not fit it.")
        return config

    def scheduler_config(self) -> dict[str, Any]:
        """Return the noise schedule as the configuration of a diffusers scheduler.

        Raises:
            T2VError: where there is neither such a configuration nor a UNet.
        """
        if "scheduler" in self._found.configs:
            return self._found.configs["scheduler"]
        return self.family.scheduler_config()

    @property
    def tokenizer_path(self) -> Path | None:
        """The folder of the tokenizer's files; None where there is none."""
        return self._found.tokenizer

    def _recognised(self) -> _UNet:
        if self._unet is None:
            raise self._missing("UNet")
        return self._unet

    def _missing(self, title: str) -> T2VError:
        parts = ", ".join(self._found.parts) or "nothing known"
        return T2VError(f"{self.path} holds no {title} (found: {parts}): give the file or folder that has one.")


def open_checkpoint(path: Source | Checkpoint, *, family: str | None = None) -> Checkpoint:
    """Open a file, a diffusers folder or one of its parts' folders, a folder of files, or a state dict.

    Args:
        path: what to open; an open checkpoint is returned as it is.
        family: a name of `t2v_models.families.FAMILIES`, for what shapes do not determine.

    Raises:
        T2VError: where it cannot be read, or holds no part of a text-to-video model.
    """
    if isinstance(path, Checkpoint):
        return path
    if family is not None and family not in FAMILIES:
        raise T2VError(f"Family {family!r} is not known: choose one of {', '.join(FAMILIES)}.")
    if isinstance(path, Mapping):
        source, found = "the state dict", Found()
        with reading(source):
            add_parts(found, as_lazy(path), None)
    else:
        source = str(Path(path))
        with reading(source):
            found = find(Path(path))
    if not found.parts:
        if found.problems:
            raise found.problems[0]
        raise T2VError(f"{source} holds no part of a text-to-video model: no UNet, VAE or text encoder is recognised.")
    if "unet" not in found.parts and found.problems:
        raise found.problems[0]
    for problem in found.problems:
        log.warning("%s", problem)
    with reading(source):
        return Checkpoint(source, found, family)


def inspect(path: Source, *, family: str | None = None) -> CheckpointInfo:
    """Describe a file or folder from its names and shapes: family, layout, type, parameters, parts, defaults, licence.

    Args:
        path: what to describe.
        family: see `open_checkpoint`.

    Raises:
        T2VError: where it cannot be read, or holds no part of a text-to-video model.
    """
    return open_checkpoint(path, family=family).info


def load_unet(
    path: Source | Checkpoint,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    operations: Any = None,
    loras: Sequence[tuple[Lora, float]] = (),
) -> UNet3D:
    """Build the UNet of a file, a unet folder, a whole model folder or a state dict, in evaluation mode.

    Args:
        path: any of the layouts in `LAYOUTS`, or an open checkpoint.
        dtype: of the weights. None keeps the file's; float8 becomes bfloat16, which holds it exactly.
        device: of the weights. None of them is a view of the file.
        operations: the layer classes of `UNet3D`; with a host's, float8 weights stay as they are.
        loras: (LoRA, strength), added to the weights in their `dtype`.

    Raises:
        T2VError: where the file cannot be read, holds no UNet or one that does not fit; where no key of a LoRA fits it.
    """
    checkpoint = open_checkpoint(path)
    tensors = checkpoint.lazy_unet()
    if dtype is None:
        dtype = main_dtype(tensors)
        if dtype in FLOAT8:
            dtype = torch.bfloat16 if operations is None else None
    options = {} if operations is None else {"operations": operations}
    tensors = with_loras({name: tensor.to(dtype) for name, tensor in tensors.items()}, checkpoint.config, loras)
    unet = UNet3D(with_guidance(checkpoint.config, tensors), device="meta", **options)
    state_dict = {name: checkpoint.finite(name, tensor.load()).to(device) for name, tensor in tensors.items()}
    unet.load_state_dict(state_dict, assign=True)
    return unet.eval().requires_grad_(False)


def load_state_dict(path: str | os.PathLike[str]) -> StateDict:
    """Read every tensor of a file by its own name, without running code in it.

    Raises:
        T2VError: where the file is damaged, or holds no tensors.
    """
    return load_all(read_file(path))
