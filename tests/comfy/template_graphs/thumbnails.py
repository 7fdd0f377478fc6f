"""Graphs whose videos of four frames show what a template does that wants files: the built-in models are in their place."""

from __future__ import annotations

from typing import Any

from .parts import SAVE, base, frame, sampler

Prompt = dict[str, tuple[str, dict[str, Any]]]
"""Id -> class, inputs (a link is (id, slot))."""


def _clip(prompt: str, seed: int) -> Prompt:
    """Frames of the built-in model, as node 6."""
    nodes = {key: (kind, inputs) for key, (kind, inputs, _, _) in base(prompt).items()}
    return {
        **nodes,
        "5": ("T2VVideoSampler", sampler("4", seed=seed)),
        "6": ("T2VVAEDecodeFrames", {"latent": ("5", 0), "vae": ("1", 2)}),
    }


def _beside(one: str, other: str) -> Prompt:
    """The first frame of a node and that of another, then their last frames."""
    return {
        "50": ("ImageFromBatch", frame(one, 0)),
        "51": ("ImageFromBatch", frame(other, 0)),
        "52": ("ImageFromBatch", frame(one, 15)),
        "53": ("ImageFromBatch", frame(other, 15)),
        "54": ("ImageBatch", {"image1": ("50", 0), "image2": ("51", 0)}),
        "55": ("ImageBatch", {"image1": ("52", 0), "image2": ("53", 0)}),
        "56": ("ImageBatch", {"image1": ("54", 0), "image2": ("55", 0)}),
        "57": ("T2VSaveVideo", {**SAVE, "quality": 100, "filename_prefix": "video/thumbnail", "images": ("56", 0)}),
    }


THUMBNAILS: dict[str, Prompt] = {
    "zero_shot_edges": {
        **_clip("a white circle moves right", 1),
        "7": (
            "ImageScale",
            {"image": ("6", 0), "upscale_method": "bicubic", "width": 512, "height": 512, "crop": "center"},
        ),
        "8": ("Canny", {"image": ("7", 0), "low_threshold": 0.1, "high_threshold": 0.3}),
        **_beside("7", "8"),
    },
    "zero_shot_edit": {
        **_clip("a red circle moves right", 1),
        "7": ("T2VModelLoader", {"model": "built-in image model", "weight_dtype": "default"}),
        "8": ("CLIPTextEncode", {"clip": ("7", 1), "text": "an orange star"}),
        "9": ("CLIPTextEncode", {"clip": ("7", 1), "text": ""}),
        "10": ("VAEEncode", {"pixels": ("6", 0), "vae": ("7", 2)}),
        "11": ("T2VCrossFrameAttention", {"model": ("7", 0), "anchor": "first", "strength": 1.0, "seed": 0}),
        "12": ("T2VSameNoise", {"model": ("11", 0), "mix": 1.0}),
        "13": (
            "KSampler",
            {
                "model": ("12", 0),
                "positive": ("8", 0),
                "negative": ("9", 0),
                "latent_image": ("10", 0),
                "seed": 1,
                "steps": 30,
                "cfg": 4.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 0.5,
            },
        ),
        "14": ("VAEDecode", {"samples": ("13", 0), "vae": ("7", 2)}),
        **_beside("6", "14"),
    },
}
