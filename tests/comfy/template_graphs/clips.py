"""Templates of one clip: a prompt, a video that is changed, frames as images."""

from __future__ import annotations

from .parts import CORE_SAMPLER, CORE_SAVE, SAVE, Graphs, base, sampler

GRAPHS: Graphs = {
    "text_to_video": (
        {
            **base("a red circle moves right"),
            "5": ("T2VVideoSampler", sampler("4"), (840, 180), ""),
            "6": ("T2VVAEDecodeFrames", {"latent": ("5", 0), "vae": ("1", 2)}, (1240, 80), ""),
            "7": ("T2VSaveVideo", {**SAVE, "filename_prefix": "video/T2V", "images": ("6", 0)}, (1240, 280), ""),
        },
        "**Text to video.** The built-in model knows coloured circles, squares, triangles and stars that move: try "
        "`a yellow star moves up on a blue background`. Other models: put them into `models/text2video` and choose one "
        "in T2V Model Loader.",
    ),
    "text_to_video_core_nodes": (
        {
            **base("a blue square moves up", "CLIPTextEncode"),
            "5": (
                "KSampler",
                {
                    "model": ("1", 0),
                    "positive": ("2", 0),
                    "negative": ("3", 0),
                    "latent_image": ("4", 0),
                    **CORE_SAMPLER,
                },
                (840, 180),
                "",
            ),
            "6": ("VAEDecode", {"samples": ("5", 0), "vae": ("1", 2)}, (1240, 80), ""),
            "7": ("CreateVideo", {"images": ("6", 0), "fps": 8.0}, (1240, 180), ""),
            "8": (
                "SaveVideo",
                {"video": ("7", 0), "filename_prefix": "video/T2V-core", **CORE_SAVE},
                (1240, 320),
                "",
            ),
        },
        "**The same with ComfyUI's own nodes.** MODEL, CLIP and VAE are the usual ones: KSampler, LoRA and patch nodes "
        "work with them.",
    ),
    "video_to_video": (
        {
            **base("a red circle moves right"),
            "5": ("T2VVideoSampler", sampler("4"), (840, 180), "The first video"),
            "6": ("T2VVAEDecodeFrames", {"latent": ("5", 0), "vae": ("1", 2)}, (1240, 80), ""),
            "7": (
                "T2VVAEEncodeFrames",
                {"images": ("6", 0), "vae": ("1", 2), "width": 0, "height": 0},
                (1240, 200),
                "Any frames can come in here",
            ),
            "8": (
                "T2VTextEncode",
                {"clip": ("1", 1), "text": "a green square moves right"},
                (1240, 400),
                "What to make of it",
            ),
            "9": (
                "T2VVideoSampler",
                {**sampler("7", seed=2, steps=14, denoise=0.7), "positive": ("8", 0)},
                (1680, 180),
                "The second video",
            ),
            "10": ("T2VVAEDecodeFrames", {"latent": ("9", 0), "vae": ("1", 2)}, (2080, 80), ""),
            "11": (
                "T2VSaveVideo",
                {**SAVE, "filename_prefix": "video/T2V-changed", "images": ("10", 0)},
                (2080, 200),
                "",
            ),
        },
        "**Video to video.** The frames of one video are encoded and partly replaced: denoise says how much. Use "
        "T2V Load Video instead of the first sampler for a video of your own.",
    ),
    "two_passes": (
        {
            **base("a white star moves down on a red background"),
            "5": ("T2VVideoSampler", sampler("4"), (840, 180), "Small"),
            "6": ("T2VVAEDecodeFrames", {"latent": ("5", 0), "vae": ("1", 2)}, (1240, 80), ""),
            "7": (
                "ImageScaleBy",
                {"image": ("6", 0), "upscale_method": "bicubic", "scale_by": 1.5},
                (1240, 200),
                "Upscale",
            ),
            "8": (
                "T2VVAEEncodeFrames",
                {"images": ("7", 0), "vae": ("1", 2), "width": 0, "height": 0},
                (1240, 360),
                "",
            ),
            "9": ("T2VVideoSampler", sampler("8", seed=2, steps=6, denoise=0.3), (1680, 180), "Refine"),
            "10": ("T2VVAEDecodeFrames", {"latent": ("9", 0), "vae": ("1", 2)}, (2080, 80), ""),
            "11": (
                "T2VSaveVideo",
                {**SAVE, "filename_prefix": "video/T2V-large", "images": ("10", 0)},
                (2080, 200),
                "",
            ),
        },
        "**Two passes.** A small video is upscaled and refined, as ZeroScope 576w and XL are meant: load XL in a "
        "second T2V Model Loader for the second sampler, upscale 576x320 to 1024x576, denoise 0.6 to 0.85.",
    ),
    "image_chain": (
        {
            **base("a yellow triangle moves left"),
            "5": ("T2VVideoSampler", sampler("4"), (840, 180), ""),
            "6": ("T2VVAEDecodeFrames", {"latent": ("5", 0), "vae": ("1", 2)}, (1240, 80), "Frames are images"),
            "7": (
                "ImageScaleBy",
                {"image": ("6", 0), "upscale_method": "lanczos", "scale_by": 4.0},
                (1240, 200),
                "",
            ),
            "8": (
                "ImageSharpen",
                {"image": ("7", 0), "sharpen_radius": 2, "sigma": 1.0, "alpha": 0.5},
                (1240, 360),
                "",
            ),
            "9": ("CreateVideo", {"images": ("8", 0), "fps": 8.0}, (1640, 80), ""),
            "10": (
                "SaveVideo",
                {"video": ("9", 0), "filename_prefix": "video/T2V-images", **CORE_SAVE},
                (1640, 220),
                "",
            ),
        },
        "**An image chain.** Every image node takes the frames: upscale, sharpen, mask, blend, save one by one.",
    ),
}
