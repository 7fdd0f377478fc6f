"""Record names and shapes of the reference implementations' tensors, at full size on the meta device.

    python tests/record_manifests.py --modelscope …/unet_sd.py --videocrafter DIR --dynamicrafter DIR --t2v-turbo DIR \\
        --tooncrafter DIR --vgen DIR --openclip

The references are their authors' repositories, and PyPI's diffusers and open_clip. None of their code is stored here,
only names and shapes of `state_dict()`. Writes tests/fixtures/manifests.json.gz: name of the model -> [[name, shape], …] in the
order of the reference's modules. Models whose source is not given stay as they are there.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import importlib.util
import json
import sys
import types
from pathlib import Path

import torch

OUTPUT = Path(__file__).parent / "fixtures" / "manifests.json.gz"

LVDM = {
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 4, 4],
    "num_head_channels": 64,
    "transformer_depth": 1,
    "context_dim": 1024,
    "use_linear": True,
    "use_checkpoint": False,
    "temporal_conv": True,
    "temporal_attention": True,
    "temporal_selfatt_only": True,
    "use_relative_position": False,
    "use_causal_attention": False,
    "temporal_length": 16,
    "addition_attention": True,
}
VC1 = LVDM | {"temporal_conv": False, "use_relative_position": True}
VGEN = {
    "in_dim": 4,
    "dim": 320,
    "y_dim": 1024,
    "context_dim": 1024,
    "concat_dim": 4,
    "out_dim": 4,
    "dim_mult": [1, 2, 4, 4],
    "num_heads": 8,
    "head_dim": 64,
    "num_res_blocks": 2,
    "attn_scales": [1.0, 0.5, 0.25],
    "temporal_attention": True,
}
DC = LVDM | {"in_channels": 8, "image_cross_attention": True, "fs_condition": True}
VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}


class Missing(types.ModuleType):
    """Replaces a module that the references import and that is not needed here."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def import_from(root: Path, name: str) -> types.ModuleType:
    """Import a module of a repository; modules that it imports and that are not installed become `Missing`."""
    for loaded in [n for n in sys.modules if n.split(".")[0] in ("lvdm", "utils")]:
        del sys.modules[loaded]
    sys.path.insert(0, str(root))
    try:
        for _ in range(20):
            try:
                return importlib.import_module(name)
            except ModuleNotFoundError as error:
                sys.modules[error.name] = Missing(error.name)
        raise RuntimeError(f"{name} of {root} cannot be imported")
    finally:
        sys.path.remove(str(root))


def manifest(module: torch.nn.Module) -> list:
    """List the [name, shape] of every tensor, in the module's order."""
    return [[name, list(tensor.shape)] for name, tensor in module.state_dict().items()]


def modelscope(path: Path) -> dict[str, list]:
    spec = importlib.util.spec_from_file_location("unet_sd", path)
    unet_sd = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unet_sd)
    model = unet_sd.UNetSD(4, 320, 768, 1024, 4, [1, 2, 4, 4], 8, 64, 2, [1, 0.5, 0.25], temporal_attention=True)
    return {"modelscope": manifest(model)}


def diffusers() -> dict[str, list]:
    model = importlib.import_module("diffusers").UNet3DConditionModel
    picture = importlib.import_module("diffusers").I2VGenXLUNet
    return {
        "diffusers": manifest(model()),
        "diffusers-turbo": manifest(model(time_cond_proj_dim=256)),
        "i2vgen-xl": manifest(picture()),
    }


def videocrafter(root: Path) -> dict[str, list]:
    model = import_from(root, "lvdm.modules.networks.openaimodel3d").UNetModel
    recorded = {
        "videocrafter2": manifest(model(**LVDM, fps_cond=True)),
        "videocrafter1-512": manifest(model(**VC1)),
        "videocrafter1-1024": manifest(model(**VC1, fps_cond=True)),
        "videocrafter1-i2v": manifest(model(**LVDM, fps_cond=True, use_image_attention=True)),
    }
    blocks = import_from(root, "lvdm.modules.networks.ae_modules")
    vae = torch.nn.Module()
    vae.encoder, vae.decoder = blocks.Encoder(**VAE), blocks.Decoder(**VAE)
    vae.quant_conv, vae.post_quant_conv = torch.nn.Conv2d(8, 8, 1), torch.nn.Conv2d(4, 4, 1)
    return recorded | {"vae": manifest(vae)}


def dynamicrafter(root: Path) -> dict[str, list]:
    model = import_from(root, "lvdm.modules.networks.openaimodel3d").UNetModel
    recorded = {
        "dynamicrafter-256": manifest(model(**DC, image_cross_attention_scale_learnable=True)),
        "dynamicrafter-512": manifest(model(**DC)),
    }
    resampler = import_from(root, "lvdm.modules.encoders.resampler").Resampler
    tokens = {"dim": 1024, "depth": 4, "dim_head": 64, "heads": 12, "embedding_dim": 1280, "output_dim": 1024}
    return recorded | {"resampler": manifest(resampler(**tokens, ff_mult=4, num_queries=16, video_length=16))}


def tooncrafter(root: Path) -> dict[str, list]:
    model = import_from(root, "lvdm.modules.networks.openaimodel3d").UNetModel(**DC)
    vae = torch.nn.Module()
    vae.encoder = import_from(root, "lvdm.modules.networks.ae_modules").Encoder(**VAE)
    sys.modules["xformers"], sys.modules["xformers.ops"] = Missing("xformers"), Missing("xformers.ops")
    vae.decoder = import_from(root, "lvdm.models.autoencoder_dualref").VideoDecoder(**VAE)
    vae.quant_conv, vae.post_quant_conv = torch.nn.Conv2d(8, 8, 1), torch.nn.Conv2d(4, 4, 1)
    return {"tooncrafter": manifest(model), "tooncrafter-vae": manifest(vae)}


def vgen(root: Path) -> dict[str, list]:
    for name in ("tools", "tools.modules", "tools.modules.unet"):  # without what their __init__ imports
        package = types.ModuleType(name)
        package.__path__ = [str(Path(root, *name.split(".")))]
        sys.modules[name] = package
    model = import_from(root, "tools.modules.unet.unet_i2vgen").UNetSD_I2VGen
    return {"i2vgen-xl-vgen": manifest(model(**VGEN))}


def t2v_turbo(root: Path) -> dict[str, list]:
    model = import_from(root, "lvdm.modules.networks.openaimodel3d").UNetModel
    turbo = LVDM | {"fps_cond": True, "time_cond_proj_dim": 256}
    return {
        "t2v-turbo-vc2": manifest(model(**turbo)),
        "t2v-turbo-v2": manifest(model(**turbo, motion_cond_proj_dim=256)),
    }


def openclip() -> dict[str, list]:
    text = {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24}
    vision = {"image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14}
    return {"openclip": manifest(importlib.import_module("open_clip").CLIP(1024, vision, text))}


SOURCES = {
    "modelscope": modelscope,
    "videocrafter": videocrafter,
    "dynamicrafter": dynamicrafter,
    "t2v-turbo": t2v_turbo,
    "tooncrafter": tooncrafter,
    "vgen": vgen,
}
"""The references that are no packages, by the option that gives their path."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in SOURCES:
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--openclip", action="store_true", help="record the package open_clip, too")
    given = {name.replace("_", "-"): path for name, path in vars(parser.parse_args()).items() if path}
    with torch.device("meta"):
        recorded = diffusers() | (openclip() if given.pop("openclip", False) else {})
        for name, path in given.items():
            recorded |= SOURCES[name](path)
    for name, entries in recorded.items():
        print(f"{name}: {len(entries)} tensors")
    before = json.loads(gzip.decompress(OUTPUT.read_bytes())) if OUTPUT.is_file() else {}
    OUTPUT.parent.mkdir(exist_ok=True)
    with OUTPUT.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as file:
        file.write(json.dumps(before | recorded, separators=(",", ":")).encode())


if __name__ == "__main__":
    main()
