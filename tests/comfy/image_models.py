"""Small models that take pictures, of seeded weights, for the checks: those that the originals' code was recorded with.

in_host.py imports this before the host has its place on the path.
"""

from __future__ import annotations

import contextlib
import importlib.util
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

REFERENCES = Path(__file__).resolve().parents[1] / "references"


@cache
def references():
    """The modules of tests/references that a host can import: `image_runs`, `seeding` and `zero_shot_runs`."""
    spec = importlib.util.spec_from_file_location(
        "t2v_references", REFERENCES / "__init__.py", submodule_search_locations=[str(REFERENCES)]
    )
    package = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = package
    names = ("image_runs", "seeding", "zero_shot_runs")
    return SimpleNamespace(**{name: importlib.import_module(f"{spec.name}.{name}") for name in names})


@cache
def recording(network):
    """What was recorded of a network."""
    return references().image_runs.ImageRecording.load(network)


def write(host, network, leave_out=()):
    """Write a network's checkpoint among the host's models, without the parts of these prefixes; returns its name."""
    import safetensors.torch

    name = f"{network}{'-'.join(['', *leave_out])}.safetensors".replace("_model.", "")
    path = host.base / "models" / "text2video" / name
    if not path.exists():
        weights = recording(network).state_dict()
        kept = {key: value for key, value in weights.items() if not key.startswith(tuple(leave_out) or "\0")}
        safetensors.torch.save_file(kept, path)
    return name


@contextlib.contextmanager
def single_precision():
    """The host's option --fp32-text-enc, which image encoders obey, too."""
    from comfy.cli_args import args

    with mock.patch.object(args, "fp32_text_enc", True):
        yield


def load(host, family="dynamicrafter-512", leave_out=()):
    """MODEL, CLIP, VAE and CLIP_VISION of a family, in single precision, loaded once."""
    key = ("image model", family, tuple(leave_out))
    if key not in host.cache:
        name = write(host, references().image_runs.NETWORKS[family], leave_out)
        with single_precision():
            host.cache[key] = host.run("T2VModelLoader", name, "default", family=family)
    return host.cache[key]


def texts(network="dynamicrafter-512"):
    """The recorded prompt and negative prompt as CONDITIONINGs."""
    return [[[context, {}]] for context in recording(network).contexts()]


def picture(name="first", height=32, width=64):
    """A picture as an IMAGE."""
    import torch

    return torch.from_numpy(references().image_runs.picture(name, height, width)).float()[None] / 255


def animate(host, family="dynamicrafter-512", image=None, frames=16, **options):
    """T2VImageToVideo's MODEL, positive, negative and LATENT at 64x32, for the recorded texts."""
    model, _, vae, clip_vision = load(host, family)
    given = {
        "model": model, "vae": vae, "clip_vision": clip_vision, "image": picture() if image is None else image,
        "width": 64, "height": 32, "frames": frames, "fit": "crop", "method": "model's own", "motion": 0.0,
        "image_strength": 1.0, "image_cfg": 0.0, **options,
    }  # fmt: skip
    given.setdefault("positive", texts()[0])
    given.setdefault("negative", texts()[1])
    return host.run("T2VImageToVideo", **given)


def between(host, images, family="dynamicrafter-512-interp", **changes):
    """T2VBetweenImages' LATENT of pictures at 64x32, for the recorded texts."""
    model, _, vae, clip_vision = load(host, family)
    given = {
        "model": model, "positive": texts()[0], "negative": texts()[1], "vae": vae, "clip_vision": clip_vision, "frames": 16,
        "width": 64, "height": 32, "fit": "crop", "closed_loop": False, "seed": 7, "steps": 2, "cfg": 7.5,
        "sampler_name": "ddim (eta)", "scheduler": "diffusers", **changes,
    }  # fmt: skip
    return host.run("T2VBetweenImages", images=images, **{name: [value] for name, value in given.items()})[0]


def sample(host, prepared, steps=2, cfg=7.5, sampler="ddim (eta)", seed=7, **options):
    """Latents of T2VVideoSampler, as the model's schedule and DDIM make them."""
    how = (seed, steps, cfg, sampler, "diffusers", 1.0)
    return host.run("T2VVideoSampler", *prepared, *how, **options)[0]["samples"]


class Fresh:
    """A host's context whose models are all loaded anew."""

    def __init__(self, host):
        self._host, self.cache = host, {}

    def __getattr__(self, name):
        return getattr(self._host, name)


def core_windows(host, model, length, overlap, dim=2):
    """The MODEL with core's context windows, side by side, over the frames of clips; dim 0: over a batch of frames."""
    import inspect

    settings = {
        "context_schedule": "standard_static",
        "context_stride": 1,
        "closed_loop": False,
        "fuse_method": "pyramid",
        "dim": dim,
        "freenoise": False,
        "causal_window_fix": False,
    }
    taken = inspect.signature(host.node("ContextWindowsManual").execute).parameters
    settings = {name: value for name, value in settings.items() if name in taken}
    return host.run("ContextWindowsManual", model, length, overlap, **settings)[0]


def newer_window(frames):
    """What newer hosts want to hear of a window besides its frames."""
    import inspect

    import comfy.context_windows

    taken = inspect.signature(comfy.context_windows.IndexListContextWindow).parameters
    return {"total_frames": frames} if "total_frames" in taken else {}


def vision_of_width(host, width, projection=16):
    """The recorded CLIP_VISION cut to other widths of its tokens and of its embedding."""
    image_encoder = host.module("t2v_models.checkpoints.image_encoder")
    own = load(host)[3].get_sd()
    widths = {80: width, 16: projection}
    thin = {name: weight[tuple(slice(widths.get(n, n)) for n in weight.shape)] for name, weight in own.items()}
    assert image_encoder.config_of(host.module("t2v_models.checkpoints.tensors").as_lazy(thin))["hidden_size"] == width
    return host.module("nodes.host.models.clip_vision").load_clip_vision(thin)


def differ(one, other) -> float:
    """Largest difference, relative to the largest value."""
    return float((one - other).abs().max() / other.abs().max())


@contextlib.contextmanager
def heard(host, module):
    """The lines that a module of the pack logs meanwhile, at the level of information or above."""
    import logging

    lines, handler = [], logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger(host.module(module).__name__)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def ksample(host, prepared, sampler="euler", steps=2, cfg=7.5, latent=None):
    model, positive, negative, own = prepared
    how = (7, steps, cfg, sampler, "normal", positive, negative, latent or own, 1.0)
    return host.run("KSampler", model, *how)[0]["samples"]
