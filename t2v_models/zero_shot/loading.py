"""Loading image models and ControlNets from diffusers' folders, and the image model that comes with this package."""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ..builtin_model import BUILT_IN_FOLDER, IMAGE_BUILT_IN, IMAGE_BUILT_IN_FOLDER
from ..errors import T2VError, shortened
from ..foreign import quoted, read_json_file
from .motion import Motion
from .pipeline import ZeroShotPipeline
from .request import Defaults

WANTED = "a folder of Stable Diffusion or Stable Diffusion XL in diffusers' layout, which holds model_index.json"

BUILT_IN_DEFAULTS = Defaults(steps=20, guidance_scale=2.0, fps=8.0, t0=0.05, t1=0.1, motion=Motion(x=-12.0, y=0.0))
"""Of the built-in image model. Its latents are 8x8, and a schedule with much noise decides the layout late."""


def load_zero_shot(
    model: str | Path = IMAGE_BUILT_IN, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> ZeroShotPipeline:
    """Load an image model, to make videos with it.

    Only safetensors are read, and nothing is downloaded.

    Args:
        model: "built-in image model", or a folder of diffusers' StableDiffusionPipeline or StableDiffusionXLPipeline, or of
            one of their kin with a ControlNet, which is loaded without it.
        device: where to run.
        dtype: of the weights; where None, float32 on a CPU and float16 elsewhere.

    Raises:
        T2VError: where there is no such folder, or it holds another model or damaged files.
    """
    device = torch.device(device)
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.float16)
    if str(model) == IMAGE_BUILT_IN:
        return _built_in(device, dtype)
    folder = Path(model)
    xl = _check(folder)
    off = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    try:
        if xl:
            pipe = _read("StableDiffusionXLPipeline", folder, dtype, add_watermarker=False)
        else:
            pipe = _read("StableDiffusionPipeline", folder, dtype, **off)
    except Exception as error:  # what a damaged or missing file raises differs between versions
        raise T2VError(f"{folder} cannot be loaded ({_reason(error)}): {WANTED} is wanted.") from error
    if pipe.unet.config.in_channels != pipe.vae.config.latent_channels:
        raise T2VError(
            f"{folder} is a model for inpainting or editing, whose UNet takes {pipe.unet.config.in_channels} channels: "
            "choose one that makes pictures of texts."
        )
    if getattr(pipe.vae.config, "force_upcast", False) and dtype == torch.float16:
        pipe.vae.to(torch.float32)  # it overflows
    return ZeroShotPipeline(pipe.to(device))


def _check(folder: Path) -> bool:
    """Whether a folder holds a Stable Diffusion XL; T2VError where it holds neither this nor a Stable Diffusion."""
    if folder.is_file():
        raise T2VError(
            f"{folder} is a file: {WANTED} is wanted; the node T2VZeroShot in ComfyUI takes files of checkpoints."
        )
    if not folder.is_dir():
        raise T2VError(f"There is no folder {folder}: {WANTED} is wanted.")
    if not (folder / "model_index.json").is_file():
        raise T2VError(f"{folder} holds no model_index.json: {WANTED} is wanted.")
    index = read_json_file(folder / "model_index.json")
    index = index if isinstance(index, dict) else {}
    unet = index.get("unet")
    kind = unet[1] if isinstance(unet, list) and len(unet) == 2 else None
    if kind == "UNet3DConditionModel":
        raise T2VError(f"{folder} is a model for videos: leave --zero-shot out, which is for image models.")
    if kind != "UNet2DConditionModel" or "vae" not in index or "text_encoder" not in index:
        name = quoted(index.get("_class_name"))
        raise T2VError(
            f"{folder} holds a {name}, which is neither Stable Diffusion nor Stable Diffusion XL: {WANTED} is wanted."
        )
    return "text_encoder_2" in index


def _read(name: str, folder: Path, dtype: torch.dtype, **options: Any) -> Any:
    """One of diffusers' classes from its folder, of safetensors alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer versions call torch_dtype dtype, which older do not take
        read = _of_diffusers(name).from_pretrained
        options["low_cpu_mem_usage"] = (
            find_spec("accelerate") is not None
        )  # without a line of advice where it is missing
        return read(folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True, **options)


def _of_diffusers(name: str) -> Any:
    """One of diffusers' classes. The import goes through parts of transformers that advise to install what is not used."""
    logs = import_module("transformers.utils.logging")
    before = logs.get_verbosity()
    logs.set_verbosity_error()
    try:
        return getattr(import_module("diffusers"), name)
    finally:
        logs.set_verbosity(before)


def _reason(error: BaseException) -> str:
    """The first line of a foreign error."""
    return shortened(next(iter(str(error).strip().splitlines()), type(error).__name__), 300)


def _built_in(device: torch.device, dtype: torch.dtype) -> ZeroShotPipeline:
    """The image model that comes with this package, on the built-in model's text encoder, autoencoder and schedule."""
    from ..checkpoints import open_checkpoint
    from ..loading import load_text_encoder, load_tokenizer, load_vae

    if not (IMAGE_BUILT_IN_FOLDER / "unet").is_dir():
        raise T2VError(
            f"This copy lacks its {IMAGE_BUILT_IN}: install it again, or name another by --model; {WANTED} is wanted."
        )
    checkpoint = open_checkpoint(BUILT_IN_FOLDER)
    unet = _read("UNet2DConditionModel", IMAGE_BUILT_IN_FOLDER / "unet", dtype)
    pipe = _of_diffusers("StableDiffusionPipeline")(
        vae=load_vae(checkpoint, dtype=dtype, device=device),
        text_encoder=load_text_encoder(checkpoint, dtype=dtype, device=device),
        tokenizer=load_tokenizer(checkpoint.tokenizer_path, checkpoint.config.context_dim),
        unet=unet.to(device),
        scheduler=_of_diffusers("DDIMScheduler").from_config(checkpoint.scheduler_config()),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return ZeroShotPipeline(pipe, BUILT_IN_DEFAULTS)


def load_controlnet(name: str, pipeline: ZeroShotPipeline, model: str | Path) -> Any:
    """Load a ControlNet of diffusers' for a pipeline.

    Args:
        name: its folder, or a part of its folder's name, such as "canny": then it is looked for in the model's folder and
            beside it.
        pipeline: that will use it.
        model: the folder that the pipeline was loaded from.

    Raises:
        T2VError: where there is none, several have that name, or it does not fit the model.
    """
    folder = _find_controlnet(name, Path(model))
    unet = pipeline.pipe.unet
    try:
        net = _read("ControlNetModel", folder, unet.dtype)
    except Exception as error:  # as above
        raise T2VError(f"{folder} cannot be loaded as a ControlNet ({_reason(error)}): copy it again.") from error
    for key in ("cross_attention_dim", "block_out_channels", "addition_embed_type"):
        theirs, ours = net.config.get(key), unet.config.get(key)
        if _plain(theirs) != _plain(ours):
            raise T2VError(
                f"{folder} is a ControlNet for another model ({key} {theirs}, not {ours}): choose one for this."
            )
    return net.to(pipeline.device)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _find_controlnet(name: str, model: Path) -> Path:
    """The folder that a name means."""
    if _is_controlnet(Path(name)):
        return Path(name)
    if Path(name).is_dir():
        raise T2VError(f"{name} holds no ControlNet: a folder of diffusers' ControlNetModel is wanted.")
    places = [model, model.resolve().parent] if model.is_dir() else []
    beside = [folder for place in places for folder in sorted(place.iterdir()) if _is_controlnet(folder)]
    found = [folder for folder in beside if name.lower() in folder.name.lower()]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(folder.name for folder in found)
        raise T2VError(
            f"Several ControlNets beside {model} have {name!r} in their names ({names}): give the folder of one."
        )
    raise T2VError(
        f"No ControlNet {name!r} was found in or beside {model}: give its folder, such as /models/sd-controlnet-{name}."
    )


def _is_controlnet(folder: Path) -> bool:
    """Whether a folder holds diffusers' ControlNetModel."""
    config = folder / "config.json"
    if not config.is_file():
        return False
    values = read_json_file(config)
    return isinstance(values, dict) and values.get("_class_name") == "ControlNetModel"
