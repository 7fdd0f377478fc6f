"""Templates of videos from image models, and the published files that two of them want."""

from __future__ import annotations

from typing import Any

from .parts import SAVE, Graphs, Nodes, base, sampler

HUB = "https://huggingface.co"
CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
CANNY = "control_v11p_sd15_canny_fp16.safetensors"
EDITOR = "instruct-pix2pix-00-22000.safetensors"

MODELS: dict[str, dict[str, str]] = {
    CHECKPOINT: {
        "name": CHECKPOINT,
        "url": f"{HUB}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/{CHECKPOINT}",
        "directory": "checkpoints",
    },
    CANNY: {
        "name": CANNY,
        "url": f"{HUB}/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/{CANNY}",
        "directory": "controlnet",
    },
    EDITOR: {
        "name": EDITOR,
        "url": f"{HUB}/timbrooks/instruct-pix2pix/resolve/main/{EDITOR}",
        "directory": "checkpoints",
    },
}
"""Name of a file -> where the editor says that it is to be found, and the folder in models/ into which it goes."""


NEED_FILES = ("zero_shot_edges", "zero_shot_edit")
"""Templates that run only with files of `MODELS`."""


def _link(name: str) -> str:
    return f"[{name}]({MODELS[name]['url']})"


def _source(prompt: str) -> Nodes:
    """A clip of the built-in model in 512 pixels, in the place of a video of one's own."""
    return {
        **base(prompt),
        "5": ("T2VVideoSampler", sampler("4"), (840, 180), "Makes a video"),
        "6": (
            "T2VVAEDecodeFrames",
            {"latent": ("5", 0), "vae": ("1", 2)},
            (1240, 180),
            "The video: T2V Load Video takes yours",
        ),
        "7": (
            "ImageScale",
            {"image": ("6", 0), "upscale_method": "bicubic", "width": 512, "height": 512, "crop": "center"},
            (1240, 320),
            "",
        ),
    }


def _held(model: str) -> Nodes:
    """The MODEL whose frames hold together, as nodes 10 and 11."""
    attention = {"anchor": "first", "strength": 1.0, "seed": 0, "frames": 0, "videos": 1}
    return {
        "10": ("T2VCrossFrameAttention", {"model": (model, 0), **attention}, (2000, -160), ""),
        "11": ("T2VSameNoise", {"model": ("10", 0), "mix": 1.0, "frames": 0, "videos": 1}, (2440, -160), ""),
    }


def _text(clip: str, text: str, place: tuple[int, int], title: str) -> tuple[str, dict[str, Any], tuple[int, int], str]:
    return ("CLIPTextEncode", {"clip": (clip, 1), "text": text}, place, title)


GRAPHS: Graphs = {
    "zero_shot": (
        {
            "1": (
                "T2VModelLoader",
                {"model": "built-in image model", "weight_dtype": "default"},
                (20, 180),
                "Load Checkpoint takes yours",
            ),
            "2": _text("1", "a yellow star on a blue background", (400, 80), "What the video shows"),
            "3": _text("1", "", (400, 320), "What it must not show"),
            "4": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 8}, (400, 560), "Size and frames"),
            "5": (
                "T2VZeroShot",
                {
                    "model": ("1", 0),
                    "positive": ("2", 0),
                    "negative": ("3", 0),
                    "latent": ("4", 0),
                    "seed": 3,
                    "steps": 20,
                    "cfg": 3.0,
                    "sampler_name": "ddim",
                    "scheduler": "diffusers",
                    "motion_x": 24.0,
                    "motion_y": 0.0,
                    "path": "straight",
                    "t0": 0.3,
                    "t1": 0.4,
                },
                (840, 180),
                "Moves to the left",
            ),
            "6": ("VAEDecode", {"samples": ("5", 0), "vae": ("1", 2)}, (1240, 80), ""),
            "7": (
                "T2VSaveVideo",
                {**SAVE, "filename_prefix": "video/T2V-zero-shot", "images": ("6", 0)},
                (1640, 80),
                "",
            ),
        },
        "**A video from an image model, without training** (Text2Video-Zero). Motion moves the picture, the model repaints it. "
        "With Load Checkpoint any Stable Diffusion 1.5, 2 or XL takes part, with its LoRAs: set 512 x 512, motion 12, its usual "
        "cfg, t0 0.88 and t1 0.94. The values here are for the built-in image model, whose schedule is noisier.",
    ),
    "zero_shot_edges": (
        {
            **_source("a white circle moves right"),
            "8": (
                "Canny",
                {"image": ("7", 0), "low_threshold": 0.1, "high_threshold": 0.3},
                (1620, 320),
                "Edges of each frame",
            ),
            "9": ("CheckpointLoaderSimple", {"ckpt_name": CHECKPOINT}, (1620, -160), ""),
            **_held("9"),
            "12": _text("9", "the full moon at night, photo", (2000, 100), "What the video shows"),
            "13": _text("9", "blurry, low quality", (2000, 330), "What it must not show"),
            "14": ("ControlNetLoader", {"control_net_name": CANNY}, (1620, 0), ""),
            "15": (
                "ControlNetApplyAdvanced",
                {
                    "positive": ("12", 0),
                    "negative": ("13", 0),
                    "control_net": ("14", 0),
                    "image": ("8", 0),
                    "vae": ("9", 2),
                    "strength": 1.0,
                    "start_percent": 0.0,
                    "end_percent": 1.0,
                },
                (2440, 180),
                "",
            ),
            "16": ("VAEEncode", {"pixels": ("7", 0), "vae": ("9", 2)}, (2000, 560), "Sets size and frames"),
            "17": (
                "KSampler",
                {
                    "model": ("11", 0),
                    "positive": ("15", 0),
                    "negative": ("15", 1),
                    "latent_image": ("16", 0),
                    "seed": 1,
                    "steps": 20,
                    "cfg": 9.0,
                    "sampler_name": "euler",
                    "scheduler": "normal",
                    "denoise": 1.0,
                },
                (2840, 80),
                "",
            ),
            "18": ("VAEDecode", {"samples": ("17", 0), "vae": ("9", 2)}, (3240, 80), ""),
            "19": (
                "T2VSaveVideo",
                {**SAVE, "filename_prefix": "video/T2V-edges", "images": ("18", 0)},
                (3240, 200),
                "",
            ),
        },
        "**Along the edges of a video, with an image model.** All frames look at the first one and begin with the same noise; "
        f"the edges move them. It wants two files: {_link(CHECKPOINT)} in `models/checkpoints`, or any Stable Diffusion 1.5, "
        f"and {_link(CANNY)} in `models/controlnet`. Depth and poses go the same way.",
    ),
    "zero_shot_edit": (
        {
            **_source("a red circle moves right"),
            "8": ("CheckpointLoaderSimple", {"ckpt_name": EDITOR}, (1620, -160), ""),
            **_held("8"),
            "12": _text("8", "make the circle an orange", (2000, 100), "The instruction"),
            "13": _text("8", "", (2000, 330), "Leave this empty"),
            "14": (
                "InstructPixToPixConditioning",
                {"positive": ("12", 0), "negative": ("13", 0), "vae": ("8", 2), "pixels": ("7", 0)},
                (2440, 180),
                "",
            ),
            "15": (
                "DualCFGGuider",
                {
                    "model": ("11", 0),
                    "cond1": ("14", 0),
                    "cond2": ("14", 1),
                    "negative": ("13", 0),
                    "cfg_conds": 7.5,
                    "cfg_cond2_negative": 1.5,
                    "style": "regular",
                },
                (2840, -160),
                "First the text's guidance, then the video's",
            ),
            "16": ("RandomNoise", {"noise_seed": 1}, (2840, 60), ""),
            "17": ("KSamplerSelect", {"sampler_name": "euler_ancestral"}, (2840, 180), ""),
            "18": (
                "BasicScheduler",
                {"model": ("8", 0), "scheduler": "normal", "steps": 50, "denoise": 1.0},
                (2840, 280),
                "",
            ),
            "19": (
                "SamplerCustomAdvanced",
                {
                    "noise": ("16", 0),
                    "guider": ("15", 0),
                    "sampler": ("17", 0),
                    "sigmas": ("18", 0),
                    "latent_image": ("14", 2),
                },
                (3240, 80),
                "",
            ),
            "20": ("VAEDecode", {"samples": ("19", 0), "vae": ("8", 2)}, (3640, 80), ""),
            "21": ("T2VSaveVideo", {**SAVE, "filename_prefix": "video/T2V-edit", "images": ("20", 0)}, (3640, 200), ""),
        },
        "**A video edited by an instruction** (Video Instruct-Pix2Pix). Each frame is edited with the same noise, and all look "
        f"at the first one. It wants {_link(EDITOR)} in `models/checkpoints`. More of cfg_cond2_negative keeps more of the "
        "video, more of cfg_conds follows the text more.",
    ),
}
