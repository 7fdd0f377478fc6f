"""Videos from image models by T2VZeroShot: agreement with diffusers, and with itself. Run inside a ComfyUI by in_host.py."""

import contextlib
from unittest import mock

import image_models
import small_image_unets as small
import torch


def model_of(host, layout="sd15", **options):
    """A small image MODEL, made once."""
    key = ("image unet", layout, *sorted(options.items()))
    if key not in host.cache:
        host.cache[key] = getattr(small, layout)(**options)
    return host.cache[key]


def zero_shot(host, model=None, texts=None, frames=4, latent=None, **changes):
    """The frames of T2VZeroShot, (frames, 4, 8, 8)."""
    positive, negative = texts or small.texts()
    given = {
        "model": model or model_of(host), "positive": positive, "negative": negative, "seed": 7, "steps": 10, "cfg": 3.0,
        "latent": latent or {"samples": torch.zeros(frames, *small.LATENT)}, "sampler_name": "ddim",
        "scheduler": "diffusers", "motion_x": 64.0, "motion_y": 0.0, "path": "straight", "t0": 0.7, "t1": 0.9, **changes,
    }  # fmt: skip
    return host.run("T2VZeroShot", **given)[0]["samples"]


def differ(one, other):
    """Largest difference, relative to the largest value."""
    return float((one - other).abs().max() / other.abs().max())


@contextlib.contextmanager
def one_conditioning_at_a_time():
    """The host as it is where memory holds one conditioning only."""
    import comfy.model_management
    import comfy.model_patcher

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(comfy.model_management, "get_free_memory", lambda *args, **kwargs: 0))
        if hasattr(comfy.model_patcher.ModelPatcher, "get_free_memory"):
            stack.enter_context(mock.patch.object(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda *args: 0))
        yield


def counted(model):
    """A clone of a MODEL, and the list of how many rows each evaluation has."""
    import comfy.patcher_extension

    calls, model = [], model.clone()

    def count(executor, x, *args, **kwargs):
        calls.append(len(x))
        return executor(x, *args, **kwargs)

    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "count", count)
    return model, calls


def recorded_run(host, run, **changes):
    """What the node makes of a recorded run, scaled as the network has it."""
    options = {"v_prediction": True} if run.v_prediction else {}
    model = changes.pop("model", None) or model_of(host, run.layout, **options)
    made = zero_shot(
        host, model, latent={"samples": torch.zeros(4, 4, *run.size)}, steps=run.steps, cfg=run.guidance_scale,
        motion_x=run.motion[0], motion_y=run.motion[1], **{"t0": 0.88, "t1": 0.94, **changes},
    )  # fmt: skip
    return model.model.process_latent_in(made)


def at(run):
    """t0 and t1 of a recorded run as fractions of the schedule."""
    return {name: part / run.steps for name, part in zip(("t0", "t1"), run.parts, strict=True)}


def check_whole_runs_are_those_of_diffusers(host):
    runs, found = image_models.references().zero_shot_runs, {}
    for run in runs.RUNS:
        found[run.name] = differ(recorded_run(host, run, **at(run)), runs.load()[run.name])
    return found
