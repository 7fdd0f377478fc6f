"""Convert a checkpoint to another layout: every part is renamed, one tensor at a time, into a new file or folder."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .. import __name__ as PACKAGE
from ..atomic_output import AtomicOutput
from ..errors import T2VError
from ..families import FAMILIES, Family
from ..family_matching import family_called, family_for
from ..texts import strict_json
from ..unet import UNet3D, UNetConfig
from . import diffusers_layout, dual_decoder, i2vgen, image_encoder, text_encoder, vae
from .checkpoint import Checkpoint, open_checkpoint
from .detect import LAYOUTS
from .files import SUFFIXES
from .lora import report_text_encoder, with_guidance, with_loras
from .lora_formats import read_lora
from .tensors import LazyDict, LazyTensor, as_lazy
from .writing import Progress, write_pickle, write_safetensors

log = logging.getLogger(__name__)

CHOICES = ("diffusers", "modelscope", "videocrafter")
"""The layouts that can be written."""


@dataclass
class _File:
    """One file to write."""

    path: str
    """Below the folder that is written; a single file's own name."""
    tensors: LazyDict = field(default_factory=dict)
    text: str = ""
    """What is written in place of tensors, where it is not empty."""
    wrapper: str = ""
    """Of a PyTorch file: the key of the dictionary around the state dict."""

    @property
    def size(self) -> int:
        """Bytes, without the headers."""
        return sum(tensor.nbytes for tensor in self.tensors.values()) + len(self.text)


def convert(
    source: str | os.PathLike[str] | Checkpoint,
    target: str | os.PathLike[str],
    layout: str,
    *,
    dtype: torch.dtype | None = None,
    loras: Sequence[tuple[str | os.PathLike[str], float]] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write a checkpoint in another layout.

    Args:
        source: anything that `open_checkpoint` opens.
        target: the file or folder to write, which must not exist. A name with the ending of a weights file gives one
            file: with all parts in the layout "videocrafter", with the UNet alone in the others. Any other name gives a
            folder with all parts. It appears whole or not at all.
        layout: "diffusers", "modelscope" or "videocrafter".
        dtype: of all weights; None keeps their types.
        loras: (file, strength), merged into the UNet; T2V-Turbo's add the embedding of the guidance scale.
        progress: called with the bytes done and their total.

    Returns:
        The files that were written: beside the target's name, where another process took it meanwhile.

    Raises:
        T2VError: where the source cannot be opened, the target exists, or the disk has no room.
        OSError: where the target cannot be written.
    """
    if layout not in CHOICES:
        raise T2VError(f"Layout {layout!r} is not known: choose one of {', '.join(CHOICES)}.")
    checkpoint = open_checkpoint(source)
    target = Path(target)
    if target.exists():
        raise T2VError(f"{target} exists already: choose another name, or remove it first.")
    single = target.suffix in SUFFIXES
    files = _plan(checkpoint, layout, dtype, target, loras)
    output = AtomicOutput(target)
    try:
        _check_room(sum(file.size for file in files), target)
        root = output.folder / "converted"
        _write_files(files, root, single=single, progress=progress)
        if checkpoint.tokenizer_path and not single:
            shutil.copytree(checkpoint.tokenizer_path, root / "tokenizer")
        place = output.publish(root.name)
    finally:
        output.remove()
    return [place] if single else [place / file.path for file in files]


def _check_room(size: int, target: Path) -> None:
    """Raise T2VError where the target's disk has no room for so many bytes."""
    parent = target.absolute().parent
    free = shutil.disk_usage(parent).free
    if size * 1.01 + (1 << 20) > free:
        raise T2VError(f"{target} needs {size / 1e9:.1f} GB, and {parent} has {free / 1e9:.1f} GB left: make room.")


def _write_files(files: list[_File], root: Path, *, single: bool, progress: Callable[[int, int], None] | None) -> None:
    """Write the files into the folder `root`; where there is a single one, as `root`."""
    done, total = 0, sum(file.size for file in files)

    def wrote(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    for file in files:
        path = root if single else root / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, Path(file.path).suffix, file, wrote)


def save_unet(unet: UNet3D, folder: str | os.PathLike[str], *, dtype: torch.dtype | None = None, **extra: Any) -> None:
    """Write a UNet as a diffusers unet folder; `extra` are entries of its config.json (sample_size, t2v …)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = LAYOUTS["diffusers"].from_canonical(as_lazy(unet.state_dict()), unet.config)
    tensors = {name: _cast(name, tensor, dtype) for name, tensor in tensors.items()}
    write_safetensors(folder / "diffusion_pytorch_model.safetensors", tensors, {"format": "pt"}, lambda count: None)
    (folder / "config.json").write_text(_json(diffusers_layout.to_json(unet.config, **extra)), "utf-8")


_SHAPELESS = ("norm_groups", "norm_eps", "head_dim")
_SCHEDULE = ("prediction_type", "beta_schedule", "betas", "zero_terminal_snr", "scale_base")
"""Fields of a UNet's configuration and of its family that a file of names and shapes may not determine."""


def _check_readable(tensors: LazyDict, config: UNetConfig, family: Family, layout: str, target: Path) -> None:
    """Raise T2VError where a file of this layout, which has names and shapes alone, would be read as another model.

    Where that depends on the file's name, only log it.
    """
    try:
        reread = open_checkpoint(tensors)
        if family.name in FAMILIES and family.name not in (reread.family.name, family_called(target.name)):
            log.warning(
                "Tensors do not tell that %s is %s: name the family where it is loaded, or write its published name into "
                "the file's.", target, family.name,
            )  # fmt: skip
        pairs = ((config, reread.config, _SHAPELESS), (family, reread.family, _SCHEDULE))
        lost = [
            f"its {name} is {getattr(wanted, name)}"
            for wanted, read, names in pairs
            for name in names
            if getattr(wanted, name) != getattr(read, name)
        ]
    except T2VError as error:
        lost = [str(error)]
    if lost:
        raise T2VError(
            f"A {layout} file without a config.json would be read as another model ({', '.join(lost).rstrip('.')}): choose "
            "the layout diffusers, and a folder."
        )


def _plan(
    checkpoint: Checkpoint,
    layout: str,
    dtype: torch.dtype | None,
    target: Path,
    loras: Sequence[tuple[str | os.PathLike[str], float]],
) -> list[_File]:
    """Decide which files to write: everything goes into one file where the target has the name of one."""
    single = target if target.suffix in SUFFIXES else None
    parts = checkpoint.lazy_parts()
    canonical = parts.pop("unet")
    changes = [(read_lora(path, checkpoint.config), strength) for path, strength in loras]
    for lora, _ in changes:
        report_text_encoder(lora)
    canonical = with_loras(canonical, checkpoint.config, changes)
    config = with_guidance(checkpoint.config, canonical)
    # with T2V-Turbo's LoRA the model is T2V-Turbo, which has another noise schedule
    family = checkpoint.family if config.guidance_dim == checkpoint.config.guidance_dim else family_for(config)
    checkpoint.warn_of_other_families()
    unet = LAYOUTS[layout].from_canonical(canonical, config)
    if layout == "modelscope" and config.image_branches:
        unet = i2vgen.to_vgen(unet)
    scale: LazyDict = {}
    if layout == "videocrafter" and family.scale_base is not None:
        scale["scale_arr"] = _scale_arr(family.scale_base)
    if layout != "diffusers" or single is not None:
        beside = _first_stage(parts) if layout == "videocrafter" or single is None else {}
        _check_readable(unet | scale | beside, config, family, layout, target)
    if layout == "videocrafter":
        tensors = {f"model.diffusion_model.{name}": tensor for name, tensor in unet.items()}
        tensors |= _videocrafter_parts(parts) | scale
        files = [_File(single.name if single else "model.ckpt", tensors, wrapper="state_dict")]
    elif single is not None:
        files = [_File(single.name, unet)]
    elif layout == "modelscope":
        files = _modelscope_files(unet, parts)
    else:
        files = _diffusers_files(checkpoint, config, family, unet, parts)
    for file in files:
        file.tensors = {name: _cast(name, tensor, dtype) for name, tensor in file.tensors.items()}
    return files


def _first_stage(parts: dict[str, LazyDict]) -> LazyDict:
    """The VAE by latent diffusion's names, as it is in whole checkpoints; empty where there is none."""
    return {f"first_stage_model.{name}": tensor for name, tensor in vae.to_ldm(parts.get("vae", {})).items()}


def _videocrafter_parts(parts: dict[str, LazyDict]) -> LazyDict:
    tensors = _first_stage(parts)
    if "text_encoder" in parts:
        renamed = text_encoder.to_openclip(parts["text_encoder"])
        tensors |= {f"cond_stage_model.model.{name}": tensor for name, tensor in renamed.items()}
    if "image_encoder" in parts:
        renamed = image_encoder.to_openclip(parts["image_encoder"])
        tensors |= {f"embedder.model.{name}": tensor for name, tensor in renamed.items()}
    projector = parts.get("image_projector", {})
    return tensors | {f"image_proj_model.{name}": tensor for name, tensor in projector.items()}


def _modelscope_files(unet: LazyDict, parts: dict[str, LazyDict]) -> list[_File]:
    files = [_File("text2video_pytorch_model.pth", unet)]
    if "vae" in parts:
        files.append(_File("VQGAN_autoencoder.pth", _first_stage(parts), wrapper="state_dict"))
    clip = text_encoder.to_openclip(parts["text_encoder"]) if "text_encoder" in parts else {}
    clip |= image_encoder.to_openclip(parts["image_encoder"]) if "image_encoder" in parts else {}
    if clip:
        files.append(_File("open_clip_pytorch_model.bin", clip))
    if "image_projector" in parts:
        raise T2VError("ModelScope's layout has no place for image conditioning: choose diffusers or videocrafter.")
    return files


def _diffusers_files(
    checkpoint: Checkpoint, config: UNetConfig, family: Family, unet: LazyDict, parts: dict[str, LazyDict]
) -> list[_File]:
    name = diffusers_layout.class_name(config)
    size = [family.height // 8, family.width // 8]
    index: dict[str, Any] = {
        "_class_name": "I2VGenXLPipeline" if config.image_branches else "TextToVideoSDPipeline",
        "unet": [PACKAGE if name == UNet3D.__name__ else "diffusers", name],
    }
    settings = {"family": family.name, "frames": family.frames, "fps": family.fps}
    unet_json = diffusers_layout.to_json(config, sample_size=size, t2v=checkpoint.settings() | settings)
    scheduler = checkpoint.scheduler_config() if family is checkpoint.family else family.scheduler_config()
    index["scheduler"] = ["diffusers", scheduler.get("_class_name", "DDIMScheduler")]
    files = [
        _File("unet/diffusion_pytorch_model.safetensors", unet),
        _File("unet/config.json", text=_json(unet_json)),
        _File("scheduler/scheduler_config.json", text=_json(scheduler)),
    ]
    for kind, owner, tensors, values in _diffusers_parts(checkpoint, parts):
        index[kind] = owner
        name = "diffusion_pytorch_model" if kind == "vae" else "model"
        files.append(_File(f"{kind}/{name}.safetensors", tensors))
        files.append(_File(f"{kind}/config.json", text=_json(values)))
    if "image_projector" in parts:  # of which diffusers knows no class
        named = {f"image_proj_model.{name}": tensor for name, tensor in parts["image_projector"].items()}
        files.append(_File("image_projector/model.safetensors", named))
    if "image_encoder" in parts and config.image_branches:  # diffusers' pipeline loads it, and needs its class alone
        index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
        text = _json({"image_processor_type": "CLIPImageProcessor"})
        files.append(_File("feature_extractor/preprocessor_config.json", text=text))
    if checkpoint.tokenizer_path:
        index["tokenizer"] = ["transformers", "CLIPTokenizer"]
    files.append(_File("model_index.json", text=_json(index)))
    return files


def _diffusers_parts(
    checkpoint: Checkpoint, parts: dict[str, LazyDict]
) -> Iterator[tuple[str, list[str], LazyDict, dict[str, Any]]]:
    """Yield kind, library and class, weights and configuration of the parts around the UNet."""
    if "vae" in parts:
        own = dual_decoder.is_dual(parts["vae"])  # diffusers has no class and so no names for it
        tensors = vae.to_ldm(parts["vae"]) if own else parts["vae"]
        owner = [PACKAGE, dual_decoder.DualReferenceDecoder.__name__] if own else ["diffusers", "AutoencoderKL"]
        yield "vae", owner, tensors, checkpoint.vae_config()
    if "text_encoder" in parts:
        values = checkpoint.text_encoder_config()
        yield "text_encoder", ["transformers", "CLIPTextModel"], parts["text_encoder"], values
    if "image_encoder" in parts:
        values = checkpoint.image_encoder_config()
        yield "image_encoder", ["transformers", *values["architectures"]], parts["image_encoder"], values


def _write(path: Path, suffix: str, file: _File, progress: Progress) -> None:
    if file.text:
        path.write_text(file.text, "utf-8")
        progress(len(file.text))
    elif suffix == ".safetensors":
        write_safetensors(path, file.tensors, {"format": "pt"}, progress)
    else:
        write_pickle(path, file.tensors, progress, file.wrapper)


def _cast(name: str, tensor: LazyTensor, dtype: torch.dtype | None) -> LazyTensor:
    """Convert a tensor when it is loaded; T2VError where a number leaves float16's range. `scale_arr` stays exact."""
    if name == "scale_arr":
        return tensor
    cast = tensor.to(dtype)
    if cast is tensor or dtype != torch.float16:
        return cast

    def load() -> torch.Tensor:
        wide = tensor.load()
        value = wide.to(dtype)
        if not torch.isfinite(value).all() and torch.isfinite(wide).all():
            raise T2VError(f"{name} holds numbers up to {wide.abs().max():.3g}, beyond float16: choose bf16 or fp32.")
        return value

    return LazyTensor(cast.dtype, cast.shape, load)


def _scale_arr(base: float) -> LazyTensor:
    """Make the buffer of VideoCrafter's use_scale: from 1 to `base` over 400 steps, then `base`."""
    values = torch.cat([torch.linspace(1, base, 400), torch.full((1000,), base)])
    return LazyTensor.of(values)


def _json(values: dict[str, Any]) -> str:
    return strict_json(values, indent=2, sort_keys=True) + "\n"
