"""T2VZeroShot with small image models, for the checks. in_host.py imports this before the host has its place on the path."""

from __future__ import annotations

import contextlib
from unittest import mock

import small_image_unets as small


def model_of(host, layout="sd15", **options):
    """A small image MODEL, made once."""
    key = ("image unet", layout, *sorted(options.items()))
    if key not in host.cache:
        host.cache[key] = getattr(small, layout)(**options)
    return host.cache[key]


def zeros(frames, height=8, width=8):
    """An empty LATENT of so many frames."""
    import torch

    return {"samples": torch.zeros(frames, small.LATENT[0], height, width)}


def run(host, model=None, texts=None, frames=4, latent=None, **changes):
    """The frames of T2VZeroShot, (frames, 4, 8, 8)."""
    positive, negative = texts or small.texts()
    given = {
        "model": model or model_of(host), "positive": positive, "negative": negative, "seed": 7, "steps": 10, "cfg": 3.0,
        "latent": latent or zeros(frames), "sampler_name": "ddim", "scheduler": "diffusers", "motion_x": 64.0,
        "motion_y": 0.0, "path": "straight", "t0": 0.6, "t1": 0.8, **changes,
    }  # fmt: skip
    return host.run("T2VZeroShot", **given)[0]["samples"]


def differ(one, other):
    """Largest difference, relative to the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def counted(model):
    """A clone of a MODEL, and the list of how many rows each evaluation has."""
    import comfy.patcher_extension

    calls, model = [], model.clone()

    def count(executor, x, *args, **kwargs):
        calls.append(len(x))
        return executor(x, *args, **kwargs)

    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "count", count)
    return model, calls


@contextlib.contextmanager
def one_conditioning_at_a_time():
    """The host as it is where memory holds one conditioning only."""
    import comfy.model_management
    import comfy.model_patcher

    management, patcher = comfy.model_management, comfy.model_patcher.ModelPatcher

    def free(device=None, torch_free_too=False, own=management.get_free_memory):
        return own(device, True) if torch_free_too else 0  # attention asks for both

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(management, "get_free_memory", free))
        if hasattr(patcher, "get_free_memory"):
            stack.enter_context(mock.patch.object(patcher, "get_free_memory", return_value=0))
        yield


def story(host, blend, texts=None):
    """A CONDITIONING whose text changes over the frames. blend: (frames, texts) shares."""
    import torch

    contexts, texts = host.module("t2v_models.sampling.scenes").FrameContexts, texts or small.texts()
    shares = torch.tensor(blend)
    embeddings = torch.cat([each[0][0] for each in texts])
    pooled = torch.stack([each[0][1]["pooled_output"] for each in texts])
    stories = host.module("nodes.host.stories")
    return stories.conditioning(contexts(embeddings, shares), pooled=contexts(pooled, shares))
