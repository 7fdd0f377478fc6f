"""Record what VideoCrafter's and DynamiCrafter's own code makes of a picture, by small networks with seeded weights.

    python -m tests.references.record_image_to_video videocrafter PATH
    python -m tests.references.record_image_to_video dynamicrafter PATH

PATH is a checkout of AILab-CVC/VideoCrafter or Doubiiu/DynamiCrafter; kornia and open_clip 2.22, which they pin, must be
on Python's path. Image encoder, Resampler, VAE, UNet and sampler are the originals' classes; nothing of them is kept but a
part of the latents.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import image_runs, record
from .image_runs import FRAMES, HEIGHT, SEED, WIDTH, ImageRecording, ImageRun, part, picture, posterior_noise, unet_call
from .record import COMMON, DYNAMICRAFTER, VIDEOCRAFTER, revision, unet_class
from .record_samplers import Diffusion
from .samplers import OUTPUT_GAIN
from .seeding import fill, manifest

SETTINGS: dict[str, dict[str, Any]] = {
    "videocrafter1-i2v": {"scale": 0.7, "fps": 8},
    "dynamicrafter-256": {"fps": 3},
    "dynamicrafter-512": {"scale": 0.7, "fps": 24, "velocity": True},
    "dynamicrafter-1024": {"scale": 0.3, "fps": 10, "velocity": True},
    "dynamicrafter-512-interp": {"scale": 0.7, "fps": 10, "velocity": True},
    "dynamicrafter-512-loop": {"scale": 0.7, "fps": 5, "velocity": True},
}
"""Noise schedule and condition of each family, as the published configurations and scripts have them."""

VISION = {"width": 80, "layers": 2, "heads": 1}
RESAMPLER = {
    "dim": 32,
    "depth": 2,
    "dim_head": 64,
    "heads": 2,
    "num_queries": 16,
    "embedding_dim": 80,
    "output_dim": 48,
}
VAE = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 1, 2, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip


class Conditioned(Diffusion):
    """The original's model as its samplers call it, with conditions as its DiffusionWrapper takes them."""

    def apply_model(self, x: Tensor, t: Tensor, context: Any, **_: Any) -> Tensor:
        x = torch.cat([x, *context.get("c_concat", [])], dim=1)
        given = {self.unet_fps: torch.tensor([self.fps])}
        return self.unet(x, t, context=torch.cat(context["c_crossattn"], dim=1), **given)


class Original:
    """The originals' parts of one network, and the checkpoint's names of their weights."""

    def __init__(self, unet: nn.Module, *, per_frame: bool) -> None:
        condition = importlib.import_module("lvdm.modules.encoders.condition")
        resamplers = "resampler" if per_frame else "ip_resampler"
        resampler = importlib.import_module(f"lvdm.modules.encoders.{resamplers}").Resampler
        vision = importlib.import_module("open_clip.transformer").VisionTransformer
        autoencoder = importlib.import_module("lvdm.models.autoencoder").AutoencoderKL
        holder = nn.Module()
        holder.visual = vision(
            image_size=224,
            patch_size=14,
            mlp_ratio=4.0,
            output_dim=16,
            act_layer=nn.GELU,
            norm_layer=nn.LayerNorm,
            **VISION,
        )
        embedder = condition.FrozenOpenCLIPImageEmbedderV2
        self.embedder = embedder.__new__(embedder)
        nn.Module.__init__(self.embedder)
        self.embedder.model, self.embedder.antialias = holder, True
        self.embedder.mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
        self.embedder.std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
        self.image_proj_model = resampler(**RESAMPLER, ff_mult=4, **({"video_length": 16} if per_frame else {}))
        self.vae = autoencoder(ddconfig=VAE, lossconfig={"target": "torch.nn.Identity"}, embed_dim=4)
        self.unet = unet
        self.shapes: dict[str, list[int]] = {}
        for prefix, module in (
            ("model.diffusion_model.", unet),
            ("first_stage_model.", self.vae),
            ("embedder.model.", holder),
            ("image_proj_model.", self.image_proj_model),
        ):
            self.shapes |= fill_prefixed(module, prefix)
        unet.out[2].weight.data.mul_(OUTPUT_GAIN)
        unet.out[2].bias.data.mul_(OUTPUT_GAIN)

    def tokens(self, image: Tensor) -> Tensor:
        """(1, 3, h, w) in -1..1 -> (1, q, d)."""
        return self.image_proj_model(self.embedder(image))

    def latents(self, frames: Tensor, noise: Tensor) -> Tensor:
        """(n, 3, h, w) in -1..1 and standard normal noise for the posterior -> (1, 4, n, h/8, w/8)."""
        return 0.18215 * self.vae.encode(frames).sample(noise=noise).transpose(0, 1)[None]


def fill_prefixed(module: nn.Module, prefix: str) -> dict[str, list[int]]:
    """Fill a module with weights that follow from its names in the checkpoint; returns names and shapes."""
    outer = nn.Module()
    place: nn.Module = outer
    *path, last = prefix.rstrip(".").split(".")
    for name in path:
        place.add_module(name, inner := nn.Module())
        place = inner
    place.add_module(last, module)
    return manifest(fill(outer))


def pixels(name: str) -> Tensor:
    """A recorded picture as the originals hold it, (1, 3, h, w) in -1..1."""
    return torch.from_numpy(picture(name)).float().div(255).movedim(-1, 0)[None] * 2 - 1


def conditions(original: Original, run: ImageRun, texts: tuple[Tensor, Tensor]) -> dict[str, dict[str, list[Tensor]]]:
    """The conditions of a run, as image_guided_synthesis of scripts/evaluation/inference.py makes them."""
    image = pixels("first")
    tokens, grey = original.tokens(image), original.tokens(torch.zeros_like(image))
    shared: dict[str, list[Tensor]] = {}
    if not run.family.startswith("videocrafter"):
        last = pixels("last") if run.family.endswith("interp") else image
        video = torch.cat([image] * (FRAMES - 1) + [last])
        z = original.latents(video, torch.zeros(FRAMES, 4, HEIGHT // 8, WIDTH // 8))
        if run.family.endswith(("interp", "loop")):
            concat = torch.zeros_like(z)
            concat[:, :, 0], concat[:, :, -1] = z[:, :, 0], z[:, :, -1]
        else:
            concat = z[:, :, :1].repeat(1, 1, FRAMES, 1, 1)
        shared = {"c_concat": [concat]}
    prompt, negative = texts
    return {
        "cond": {"c_crossattn": [torch.cat([prompt, tokens], dim=1)], **shared},
        "uncond": {"c_crossattn": [torch.cat([negative, grey], dim=1)], **shared},
        "image only": {"c_crossattn": [torch.cat([negative, tokens], dim=1)], **shared},
    }


def run_sampler(diffusion: Conditioned, run: ImageRun, given: dict[str, dict[str, list[Tensor]]]) -> Tensor:
    """The latents of one run."""
    several = run.image_scale is not None
    module = importlib.import_module("lvdm.models.samplers.ddim" + ("_multiplecond" if several else ""))
    generator = torch.Generator().manual_seed(SEED)
    c, t, h, w = 4, FRAMES, HEIGHT // 8, WIDTH // 8
    start = torch.randn((1, c, t, h, w), generator=generator)
    module.noise_like = lambda *_: torch.randn((t, c, h, w), generator=generator).transpose(0, 1)[None]
    module.DDIMSampler.register_buffer = lambda *args: setattr(*args)  # the original's moves everything to a GPU
    extra: dict[str, Any] = {}
    if run.family.startswith("dynamicrafter"):
        spacing = "uniform" if run.family == "dynamicrafter-256" else "uniform_trailing"
        extra = {"timestep_spacing": spacing, "guidance_rescale": run.guidance_rescale}
    if several:
        extra |= {"unconditional_conditioning_img_nonetext": given["image only"], "cfg_img": run.image_scale}
    latents, _ = module.DDIMSampler(diffusion).sample(
        S=run.steps,
        batch_size=1,
        shape=(c, t, h, w),
        conditioning=given["cond"],
        unconditional_conditioning=given["uncond"],
        unconditional_guidance_scale=run.guidance_scale,
        eta=run.eta,
        x_T=start,
        verbose=False,
        **extra,
    )
    return latents[:, :, :-1] if run.family.endswith("loop") else latents


def record_network(name: str, runs: list[ImageRun], original: Original, ddpm: Any, source: str) -> None:
    """Record all runs of one network."""
    recording = ImageRecording(source, original.shapes, COMMON["context_dim"], {})
    values, image = recording.values, pixels("first")
    tokens = original.tokens(image)
    values["tokens"], values["grey tokens"] = part(tokens), part(original.tokens(torch.zeros_like(image)))
    ends, noise = torch.cat([image, pixels("last")]), posterior_noise()[0].transpose(0, 1)
    values["image latents"] = part(original.latents(ends, torch.zeros_like(noise)))
    values["sampled image latents"] = part(original.latents(ends, noise))
    unet_fps = "fps" if name.startswith("videocrafter") else "fs"
    for frames in image_runs.UNET_FRAMES[name]:
        call = unet_call(frames, 4 if unet_fps == "fps" else 8)
        context = torch.cat([recording.contexts()[0], tokens], dim=1)
        output = original.unet(call["x"], call["timesteps"], context=context, **{unet_fps: torch.tensor([8])})
        values[f"{frames} frames"] = part(output)
    for run in runs:
        settings = {"scale": None, "velocity": False} | SETTINGS[run.family]
        diffusion = Conditioned(ddpm, original.unet, **settings)
        diffusion.unet_fps = unet_fps
        values[run.name] = part(run_sampler(diffusion, run, conditions(original, run, recording.contexts())))
    path = recording.save(name)
    spread = {name: f"{float(value.std()):.2f}" for name, value in values.items()}
    print(f"{path.name}: {path.stat().st_size} bytes, deviations {spread}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", choices=("videocrafter", "dynamicrafter"))
    parser.add_argument("path", type=Path, help="the checkout")
    arguments = parser.parse_args()
    for name in ("T5Tokenizer", "T5EncoderModel", "CLIPTokenizer", "CLIPTextModel"):
        getattr(importlib.import_module("transformers"), name)  # before the stubs, which it would take for torchvision
    record.MISSING = tuple(name for name in record.MISSING if name not in ("kornia", "open_clip"))
    found = importlib.util.find_spec("open_clip")
    package = types.ModuleType("open_clip")  # its own __init__ wants torchvision's transforms
    package.__path__ = list(found.submodule_search_locations or []) if found else []
    sys.modules["open_clip"] = package
    unet_type: Callable[..., nn.Module] = unet_class(arguments.path.resolve())
    lightning = importlib.import_module("pytorch_lightning")
    lightning.LightningModule = nn.Module
    ddpm = importlib.import_module("lvdm.models.ddpm3d")
    torch.set_grad_enabled(False)
    source = f"{arguments.reference} at {revision(arguments.path)}"
    videocrafter = arguments.reference == "videocrafter"
    flags = {"videocrafter1-i2v": VIDEOCRAFTER["videocrafter1-i2v"]} if videocrafter else DYNAMICRAFTER
    runs = image_runs.VIDEOCRAFTER if videocrafter else image_runs.DYNAMICRAFTER
    for name, own in flags.items():
        original = Original(unet_type(**(COMMON | own)).eval(), per_frame=not videocrafter)
        mine = [run for run in runs if image_runs.NETWORKS[run.family] == name]
        record_network(name, mine, original, ddpm, source)


if __name__ == "__main__":
    main()
