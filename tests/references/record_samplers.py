"""Record what VideoCrafter's and DynamiCrafter's DDIMSampler make of a small network with seeded weights.

    python -m tests.references.record_samplers videocrafter PATH
    python -m tests.references.record_samplers dynamicrafter PATH

PATH is a checkout of AILab-CVC/VideoCrafter or Doubiiu/DynamiCrafter. Nothing of them is kept but the latents.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from .record import COMMON, VIDEOCRAFTER, revision, unet_class
from .samplers import DYNAMICRAFTER, SEED, SHAPE, Run, SamplerRecording, calmed
from .samplers import VIDEOCRAFTER as VIDEOCRAFTER_RUNS
from .seeding import fill, manifest

FAMILIES: dict[str, dict[str, Any]] = {
    "videocrafter2": {"scale": 0.7, "fps": 28.0},
    "videocrafter1-512": {},
    "videocrafter1-1024": {"scale": 0.3, "fps": 28.0},
    "dynamicrafter-512": {"scale": 0.7, "fps": 24.0, "velocity": True},
    "dynamicrafter-1024": {"scale": 0.3, "fps": 10.0, "velocity": True},
}
"""The noise schedules, as the published configurations have them."""


class Diffusion(nn.Module):
    """What a DDIMSampler reads of the original's model, registered by the original's own code."""

    def __init__(self, ddpm: Any, unet: nn.Module, *, scale: float | None, velocity: bool, fps: float | None) -> None:
        super().__init__()
        self.unet, self.fps, self.device = unet, fps, torch.device("cpu")
        self.v_posterior, self.original_elbo_weight, self.l_simple_weight = 0.0, 0.0, 1.0
        self.parameterization = "v" if velocity else "eps"
        self.rescale_betas_zero_snr = velocity
        ddpm.DDPM.register_schedule(self, linear_start=0.00085, linear_end=0.012)
        self.use_scale = scale is not None and not velocity
        self.use_dynamic_rescale = scale is not None and velocity
        if scale is not None:  # ddpm3d.py, LatentDiffusion.__init__ of both
            table = torch.cat([torch.linspace(1, scale, 400, dtype=torch.float64), torch.full((1000,), scale).double()])
            self.register_buffer("scale_arr", table.float())
        for name in ("predict_start_from_z_and_v", "predict_eps_from_z_and_v"):
            if velocity:
                setattr(self, name, getattr(ddpm.DDPM, name).__get__(self))

    def apply_model(self, x: Tensor, t: Tensor, context: Tensor, **_: Any) -> Tensor:
        given = {} if self.fps is None else {self.unet_fps: torch.tensor([self.fps])}
        return self.unet(x, t, context=context, **given)

    unet_fps = "fps"


def run_sampler(module: Any, diffusion: Diffusion, run: Run, contexts: tuple[Tensor, Tensor]) -> Tensor:
    """The latents of one run."""
    generator = torch.Generator().manual_seed(SEED)
    start = torch.randn(SHAPE, generator=generator)
    _, c, t, h, w = SHAPE
    module.noise_like = lambda *_: torch.randn((t, c, h, w), generator=generator).transpose(0, 1)[None]
    module.DDIMSampler.register_buffer = lambda *args: setattr(*args)  # the original's moves everything to a GPU
    extra: dict[str, Any] = {}
    if run.family.startswith("dynamicrafter"):
        extra = {"timestep_spacing": "uniform_trailing", "guidance_rescale": run.guidance_rescale}
    latents, _ = module.DDIMSampler(diffusion).sample(
        S=run.steps,
        batch_size=1,
        shape=SHAPE[1:],
        conditioning=contexts[0],
        unconditional_conditioning=contexts[1],
        unconditional_guidance_scale=run.guidance_scale,
        eta=run.eta,
        x_T=start,
        verbose=False,
        **extra,
    )
    return latents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", choices=("videocrafter", "dynamicrafter"))
    parser.add_argument("path", type=Path, help="the checkout")
    arguments = parser.parse_args()
    unet_type = unet_class(arguments.path.resolve())
    ddpm = importlib.import_module("lvdm.models.ddpm3d")
    sampler = importlib.import_module("lvdm.models.samplers.ddim")
    torch.set_grad_enabled(False)
    runs = VIDEOCRAFTER_RUNS if arguments.reference == "videocrafter" else DYNAMICRAFTER
    for family in dict.fromkeys(run.family for run in runs):
        settings = SimpleNamespace(**({"scale": None, "fps": None, "velocity": False} | FAMILIES[family]))
        flags = VIDEOCRAFTER.get(family, {"fs_condition": True, "default_fs": 24})
        unet = fill(unet_type(**(COMMON | flags)))
        unet.load_state_dict(calmed(unet.state_dict()))
        diffusion = Diffusion(ddpm, unet, scale=settings.scale, velocity=settings.velocity, fps=settings.fps)
        diffusion.unet_fps = "fs" if settings.velocity else "fps"
        source = f"{arguments.reference} DDIMSampler at {revision(arguments.path)}"
        recording = SamplerRecording(source, manifest(unet), COMMON["context_dim"], settings.fps, {})
        for run in runs:
            if run.family == family:
                recording.runs[run.name] = run_sampler(sampler, diffusion, run, recording.contexts()).contiguous()
        path = recording.save(family)
        spread = {name: f"{float(value.std()):.2f}" for name, value in recording.runs.items()}
        print(f"{path.name}: {path.stat().st_size} bytes, deviations {spread}")


if __name__ == "__main__":
    main()
