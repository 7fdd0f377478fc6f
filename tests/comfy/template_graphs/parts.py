"""What the graphs of templates share: settings, and the nodes that most of them begin with."""

from __future__ import annotations

from typing import Any

SAMPLER = {"seed": 1, "steps": 20, "cfg": 3.0, "sampler_name": "ddim", "scheduler": "diffusers", "denoise": 1.0}
CORE_SAMPLER = {"seed": 1, "steps": 20, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
SAVE = {
    "fps": 8.0,
    "format": "h264-mp4",
    "quality": 80,
    "loop_count": 0,
    "pingpong": False,
    "save_output": True,
}
WINDOWS = {"context_length": 16, "context_overlap": 8, "fuse_method": "pyramid", "closed_loop": False}
DYNAMICRAFTER = {"steps": 50, "cfg": 7.5, "sampler_name": "ddim (eta)", "eta": 1.0, "cfg_rescale": 0.7}
CORE_SAVE = {"format": "auto", "codec": "auto"}

Nodes = dict[str, tuple[str, dict[str, Any], tuple[int, int], str]]
"""Id -> class, inputs (a link is (id, slot)), position, title."""

Graphs = dict[str, tuple[Nodes, str]]
"""Name -> nodes, note."""


def base(prompt: str, text_node: str = "T2VTextEncode", frames: int = 0) -> Nodes:
    return {
        "1": ("T2VModelLoader", {"model": "built-in", "weight_dtype": "default"}, (20, 180), ""),
        "2": (text_node, {"clip": ("1", 1), "text": prompt}, (400, 80), "What the video shows"),
        "3": (text_node, {"clip": ("1", 1), "text": ""}, (400, 320), "What it must not show"),
        "4": (
            "T2VEmptyLatent",
            {"width": 0, "height": 0, "frames": frames, "batch_size": 1, "model": ("1", 0)},
            (400, 560),
            "",
        ),
    }


def sampler(latent: str, **changes: Any) -> dict[str, Any]:
    return {"model": ("1", 0), "positive": ("2", 0), "negative": ("3", 0), "latent": (latent, 0), **SAMPLER, **changes}


def story(model: str, story: str) -> dict[str, Any]:
    return {"model": (model, 0), "positive": (story, 0), "negative": (story, 1)}


def frame(frames: str, number: int) -> dict[str, Any]:
    return {"image": (frames, 0), "batch_index": number, "length": 1}


def animated(positive: str, image: str) -> dict[str, Any]:
    """T2VImageToVideo with the negative of `base`."""
    links = {"model": ("1", 0), "positive": (positive, 0), "negative": ("3", 0), "vae": ("1", 2), "image": (image, 0)}
    sizes = {"frames": 16, "width": 0, "height": 0, "fit": "crop", "method": "model's own"}
    return {**links, **sizes, "motion": 0.0, "image_strength": 1.0, "image_cfg": 0.0}


def animated_sampler(animated: str, **changes: Any) -> dict[str, Any]:
    links = {name: (animated, i) for i, name in enumerate(("model", "positive", "negative", "latent"))}
    return {**links, **SAMPLER, **changes}


def saved(name: str, latent: str) -> dict[str, Any]:
    return {**SAVE, "filename_prefix": f"video/{name}", "latent": (latent, 0), "vae": ("1", 2)}
