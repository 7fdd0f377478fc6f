"""Loading a pipeline from "built-in" or from files: diffusers' and transformers' modules with a checkpoint's weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .builtin_model import BUILT_IN, BUILT_IN_FOLDER
from .errors import T2VError
from .family_matching import family_for
from .image.conditioning import ImageModel
from .image.encoder import make_encoder
from .image.resampler import make_resampler
from .meta_modules import filled
from .pipeline import Pipeline
from .vae.dual_reference import DualReferenceDecoder

if TYPE_CHECKING:
    from .checkpoints import Checkpoint, Lora
    from .families import Family
    from .unet import UNet3D

CLIP = "openai/clip-vit-large-patch14"
TOKENIZER_SETTINGS = ("tokenizer_config", "special_tokens_map")
"""The files that say with which token texts are padded."""


def load_pipeline(
    model: str | Path = BUILT_IN,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    family: str | None = None,
    text_encoder: str | Path | None = None,
    image_encoder: str | Path | None = None,
    loras: Sequence[tuple[str | Path, float]] = (),
) -> Pipeline:
    """Load a pipeline: "built-in", or any model that `t2v_models.inspect` can read and that has all its parts.

    Args:
        model: "built-in", or the path of a model folder or checkpoint.
        dtype: of the weights; where None, float32 on a CPU and float16 elsewhere.
        device: where to run.
        family: a name of `t2v_models.families.FAMILIES`, for what the model's tensors and its name do not tell.
        text_encoder: the file or folder of the text encoder, where the model's own has none or another is wanted.
        image_encoder: likewise, of the image encoder of an image-to-video model: CLIP's vision tower.
        loras: (file, strength), added to the UNet's and the text encoder's weights. T2V-Turbo's turns its base model into
            T2V-Turbo.

    Raises:
        T2VError: where a part (UNet, VAE, text encoder; image encoder and Resampler of image-to-video models) is missing,
            or where nothing in a LoRA fits the model.
        FileNotFoundError: where there is nothing at the path.
    """
    from .checkpoints import load_unet, open_checkpoint, read_lora

    try:
        device = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise T2VError(f"The device {device!r} is not known: give one such as cpu, cuda, cuda:1 or mps.") from error
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise T2VError(f"dtype is {dtype!r}: torch.float32, torch.float16 or torch.bfloat16 is wanted.")
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.float16)
    checkpoint = open_checkpoint(BUILT_IN_FOLDER if str(model) == BUILT_IN else Path(model), family=family)
    texts = checkpoint if text_encoder is None else open_checkpoint(Path(text_encoder))
    images = checkpoint if image_encoder is None else open_checkpoint(Path(image_encoder))
    kin = checkpoint.family
    _check_parts(checkpoint, texts, images)
    checkpoint.warn_of_other_families()
    width, wanted = texts.text_encoder_config()["hidden_size"], checkpoint.config.context_dim
    if width != wanted:
        raise T2VError(
            f"{texts.path} has a text encoder {width} wide, and the UNet of {model} wants one of {wanted}: give the one that "
            "belongs to it."
        )
    changes = [(read_lora(path, checkpoint.config), float(strength)) for path, strength in loras if strength]
    of_unet = [(lora, strength) for lora, strength in changes if lora.unet or not lora.text_encoder]
    unet = load_unet(checkpoint, dtype=dtype, device=device, loras=of_unet)
    kin, scheduler_config = _after_loras(checkpoint, unet)
    if device.type != "mps":  # its feature maps lie so: a convolution is faster when its weights do, too
        unet.to(memory_format=torch.channels_last)
    return Pipeline(
        unet,
        load_vae(checkpoint, dtype=dtype, device=device),
        load_text_encoder(texts, dtype=dtype, device=device, loras=changes),
        load_tokenizer(texts.tokenizer_path or checkpoint.tokenizer_path, width),
        scheduler_config,
        kin,
        load_image_model(checkpoint, unet, kin, images, dtype=dtype, device=device) if kin.image else None,
    )


def _after_loras(checkpoint: Checkpoint, unet: UNet3D) -> tuple[Family, dict[str, Any]]:
    """Return the family and the noise schedule of a model; T2V-Turbo's where its LoRA brought the guidance embedding."""
    own = checkpoint.scheduler_config()
    if unet.config.guidance_dim == checkpoint.config.guidance_dim:
        return checkpoint.family, own
    family = family_for(unet.config)
    theirs = family.scheduler_config()
    steps = {name: theirs[name] for name in ("original_inference_steps", "even_steps") if name in theirs}
    return family, own | steps | {"_class_name": "LCMScheduler"}


def _check_parts(checkpoint: Checkpoint, texts: Checkpoint, images: Checkpoint) -> None:
    """Refuse a model that lacks a part, in a sentence that names all of them.

    Args:
        checkpoint: the model's.
        texts: of the text encoder; the model's own, or another file.
        images: of the image encoder, likewise.
    """
    sources = {"unet": checkpoint, "vae": checkpoint, "text_encoder": texts}
    if checkpoint.family.image_tokens:
        sources["image_encoder"] = images
    if checkpoint.family.image_tokens == "resampler":
        sources["image_projector"] = checkpoint
    missing = [part for part, source in sources.items() if part not in source.info.parts]
    if not missing:
        return
    encoders = " and ".join(f"{part}= (--{part.replace('_', '-')})" for part in missing if part.endswith("encoder"))
    raise T2VError(
        f"{checkpoint.path} has no {' and no '.join(missing)}: give the folder that holds all parts of the model, or put all "
        f"files into one folder and give that{f', or give their files by {encoders}' if encoders else ''}."
    )


def load_image_model(
    checkpoint: Checkpoint,
    unet: Any,
    family: Family,
    encoder: Checkpoint | None = None,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> ImageModel:
    """What makes the UNet's inputs of pictures.

    Args:
        checkpoint: the model's.
        unet: the model's `UNet3D`.
        family: the model's.
        encoder: the checkpoint of the image encoder, where the model's has none.
        dtype: of the weights.
        device: of the weights.

    Raises:
        T2VError: for weights that are damaged or do not fit each other.
    """
    encoding = projector = None
    if family.image_tokens:
        source = encoder or checkpoint
        encoding = make_encoder(source.image_encoder() or {}, dtype, device, source.image_encoder_config())
    if family.image_tokens == "resampler":
        projector = make_resampler(checkpoint.image_projector() or {}, dtype, device)
    return ImageModel(family, encoding, projector, unet.image_branches)


def load_vae(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> Any:
    """diffusers' AutoencoderKL with the checkpoint's weights; ToonCrafter's has a `DualReferenceDecoder` as its decoder."""
    from diffusers import AutoencoderKL

    from .checkpoints import dual_decoder

    kind: Any = AutoencoderKL
    config, weights = checkpoint.vae_config(), checkpoint.vae() or {}
    dual = dual_decoder.is_dual(weights)
    if dual:  # its authors' code leaves out this layer, which the file has
        config["use_post_quant_conv"] = False
        weights = {name: weight for name, weight in weights.items() if not name.startswith("post_quant_conv.")}
    with torch.device("meta"):
        vae = kind.from_config(config)
        if dual:
            vae.decoder = DualReferenceDecoder(dual_decoder.config_of(weights))
    return filled(vae, weights, dtype, device)


def load_text_encoder(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype,
    device: torch.device,
    loras: Sequence[tuple[Lora, float]] = (),
) -> Any:
    """transformers' CLIPTextModel with the checkpoint's weights, to which the changes of LoRAs are added."""
    from transformers import CLIPTextConfig, CLIPTextModel

    from .checkpoints.lora import merge_text_encoder

    with torch.device("meta"):
        encoder = CLIPTextModel(CLIPTextConfig(**checkpoint.text_encoder_config()))
    weights = {name: weight.to(dtype) for name, weight in (checkpoint.text_encoder() or {}).items()}
    merge_text_encoder(weights, loras)
    return filled(encoder, weights, dtype, device)


def load_tokenizer(path: Path | None, width: int = 0) -> Any:
    """Load transformers' CLIPTokenizer from its folder; CLIP's own where the model brings none.

    width: of the text encoder. OpenCLIP's, from 1024 on, were trained on texts padded with token 0, CLIP's on texts padded
        with the end token; a folder's settings may say which.

    Raises:
        T2VError: where the files are missing or damaged.
    """
    from transformers import CLIPTokenizer

    from .checkpoints.tokenizer_files import check_tokenizer

    if path is not None:
        check_tokenizer(path)
    fault = None
    try:
        tokenizer = CLIPTokenizer.from_pretrained(path or CLIP)
    except Exception as error:  # what a damaged or missing file raises differs between versions
        fault = error
    if fault is not None or tokenizer.vocab_size <= 2:  # some versions make an empty one where files are missing
        found = (
            f"The tokenizer in {path} cannot be read" if path else f"The model brings no tokenizer, and {CLIP}'s cannot"
        )
        found += "" if path else " be loaded"
        raise T2VError(
            f"{found}: put a folder 'tokenizer' with CLIP's vocab.json and merges.txt beside the weights."
        ) from fault
    specified = path is not None and any((path / f"{name}.json").is_file() for name in TOKENIZER_SETTINGS)
    if width >= 1024 and not specified:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    tokenizer.model_max_length = min(tokenizer.model_max_length, 77)  # endless without a configuration
    return tokenizer
