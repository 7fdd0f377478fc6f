"""I2VGen-XL: T2VImageToVideo and the sampler make what diffusers' own pipeline makes. Run inside a ComfyUI by in_host.py."""

import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path

import torch

TESTS = Path(__file__).resolve().parents[2]


@cache
def support(name):
    """A module of the tests, which the host's process has not on its path."""
    package = "t2v_tests"
    if package not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            package, TESTS / "__init__.py", submodule_search_locations=[str(TESTS)]
        )
        sys.modules[package] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{package}.{name}")


def differ(one, other) -> float:
    """Largest difference, relative to the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def load(host):
    """MODEL, CLIP, VAE and CLIP_VISION, loaded once in single precision."""
    from unittest import mock

    from comfy.cli_args import args

    if "i2vgen" not in host.cache:
        with mock.patch.object(args, "fp32_text_enc", True):
            host.cache["i2vgen"] = host.run("T2VModelLoader", "i2vgen", "default")
    return host.cache["i2vgen"]


def animate(host, **options):
    """MODEL, positive, negative, LATENT of T2VImageToVideo."""
    small = support("support.i2vgen_folder")
    model, _, vae, clip_vision = load(host)
    positive, negative = ([[text, {}]] for text in small.contexts())
    given = {
        "model": model, "positive": positive, "negative": negative, "vae": vae, "clip_vision": clip_vision,
        "image": torch.from_numpy(small.picture()).float()[None] / 255, "frames": small.FRAMES, "width": small.SIZE,
        "height": small.SIZE, "fit": "crop", "method": "model's own", "motion": 0.0, "image_strength": 1.0,
        "image_cfg": 0.0, **options,
    }  # fmt: skip
    return host.run("T2VImageToVideo", **given)


def sample(host, prepared, steps=5, cfg=9.0):
    """The latents as the network sees them."""
    scale = load(host)[0].model.latent_format.scale_factor
    how = (7, steps, cfg, "ddim", "diffusers", 1.0)
    return scale * host.run("T2VVideoSampler", *prepared, *how)[0]["samples"]


def check_a_picture_becomes_the_latents_of_diffusers_pipeline(host):
    import safetensors.torch

    small, found = support("support.i2vgen_folder"), {}
    expected = safetensors.torch.load_file(host.base / "models" / "diffusers" / "i2vgen" / "expected.safetensors")
    for run in small.RUNS:
        name = small.run_name(*run)
        found[name] = differ(sample(host, animate(host), *run), expected[name])
    assert max(found.values()) < 3e-4, found
    return found


def check_two_pictures_in_a_row_leave_no_traces_of_each_other(host):
    first = sample(host, animate(host), 2)
    other = sample(host, animate(host, image=torch.rand(1, 64, 64, 3)), 2)
    assert differ(other, first) > 1e-3
    assert torch.equal(sample(host, animate(host), 2), first)


def check_strength_0_is_the_text_alone_whatever_the_picture(host):
    one = sample(host, animate(host, image_strength=0.0), 2)
    other = sample(host, animate(host, image_strength=0.0, image=torch.rand(1, 64, 64, 3)), 2)
    assert torch.equal(one, other)


def check_context_windows_over_the_whole_clip_are_none(host):
    model, positive, negative, latent = animate(host)
    (windowed,) = host.run("T2VWindows", model, 4, 2, "pyramid", False)
    plain = sample(host, (model, positive, negative, latent), 2)
    assert differ(sample(host, (windowed, positive, negative, latent), 2), plain) < 1e-5
