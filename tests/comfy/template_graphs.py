"""The graphs of workflows/, as `write_workflows` and the tests know them."""

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


def _base(prompt: str, text_node: str = "T2VTextEncode", frames: int = 0) -> Nodes:
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


def _sampler(latent: str, **changes: Any) -> dict[str, Any]:
    return {"model": ("1", 0), "positive": ("2", 0), "negative": ("3", 0), "latent": (latent, 0), **SAMPLER, **changes}


def _story(model: str, story: str) -> dict[str, Any]:
    return {"model": (model, 0), "positive": (story, 0), "negative": (story, 1)}


def _frame(frames: str, number: int) -> dict[str, Any]:
    return {"image": (frames, 0), "batch_index": number, "length": 1}


def _animated(positive: str, image: str) -> dict[str, Any]:
    """T2VImageToVideo with the negative of `_base`."""
    links = {"model": ("1", 0), "positive": (positive, 0), "negative": ("3", 0), "vae": ("1", 2), "image": (image, 0)}
    sizes = {"frames": 16, "width": 0, "height": 0, "fit": "crop", "method": "model's own"}
    return {**links, **sizes, "motion": 0.0, "image_strength": 1.0, "image_cfg": 0.0}


def _animated_sampler(animated: str, **changes: Any) -> dict[str, Any]:
    links = {name: (animated, i) for i, name in enumerate(("model", "positive", "negative", "latent"))}
    return {**links, **SAMPLER, **changes}


def _saved(name: str, latent: str) -> dict[str, Any]:
    return {**SAVE, "filename_prefix": f"video/{name}", "latent": (latent, 0), "vae": ("1", 2)}


GRAPHS: dict[str, tuple[Nodes, str]] = {
    "text_to_video": (
        {
            **_base("a red circle moves right"),
            "5": ("T2VVideoSampler", _sampler("4"), (840, 180), ""),
            "6": ("T2VVAEDecodeFrames", {"latent": ("5", 0), "vae": ("1", 2)}, (1240, 80), ""),
            "7": ("T2VSaveVideo", {**SAVE, "filename_prefix": "video/T2V", "images": ("6", 0)}, (1240, 280), ""),
        },
        "**Text to video.** The built-in model knows coloured circles, squares, triangles and stars that move: try "
        "`a yellow star moves up on a blue background`. Other models: put them into `models/text2video` and choose one "
        "in T2V Model Loader.",
    ),
    "text_to_video_core_nodes": (
        {
            **_base("a blue square moves up", "CLIPTextEncode"),
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
            **_base("a red circle moves right"),
            "5": ("T2VVideoSampler", _sampler("4"), (840, 180), "The first video"),
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
                {**_sampler("7", seed=2, steps=14, denoise=0.7), "positive": ("8", 0)},
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
            **_base("a white star moves down on a red background"),
            "5": ("T2VVideoSampler", _sampler("4"), (840, 180), "Small"),
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
            "9": ("T2VVideoSampler", _sampler("8", seed=2, steps=6, denoise=0.3), (1680, 180), "Refine"),
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
            **_base("a yellow triangle moves left"),
            "5": ("T2VVideoSampler", _sampler("4"), (840, 180), ""),
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
    "story": (
        {
            "1": ("T2VModelLoader", {"model": "built-in", "weight_dtype": "default"}, (20, 180), ""),
            "2": (
                "T2VStory",
                {
                    "clip": ("1", 1),
                    "story": "0-2s: a red circle moves right\n2s-4s: a yellow circle moves down\n"
                    "4s-6s: a green circle moves left\n6s-8s: a blue circle moves up",
                    "frames": 64,
                    "fps": 8.0,
                },
                (400, 80),
                "Four scenes",
            ),
            "3": ("PreviewImage", {"images": ("2", 2)}, (860, -140), "The story's timeline"),
            "4": ("T2VWindows", {"model": ("1", 0), **WINDOWS}, (400, 420), ""),
            "5": (
                "T2VEmptyLatent",
                {"width": 0, "height": 0, "frames": 64, "batch_size": 1, "model": ("1", 0)},
                (400, 640),
                "",
            ),
            "6": ("T2VVideoSampler", {**_story("4", "2"), "latent": ("5", 0), **SAMPLER}, (860, 180), ""),
            "7": (
                "T2VSaveVideo",
                {**SAVE, "filename_prefix": "video/T2V-story", "latent": ("6", 0), "vae": ("1", 2)},
                (1260, 180),
                "",
            ),
        },
        "**A story of four scenes.** The prompt changes over the frames, the clip is denoised in overlapping windows, "
        "so motion continues across their borders. Spans are in seconds, % or frames.",
    ),
    "seamless_loop": (
        {
            **_base("a yellow star bounces", frames=16),
            "5": (
                "T2VWindows",
                {"model": ("1", 0), **WINDOWS, "closed_loop": True},
                (400, 780),
                "Windows over the end",
            ),
            "6": ("T2VVideoSampler", {**_sampler("4"), "model": ("5", 0)}, (840, 180), ""),
            "7": (
                "T2VSaveVideo",
                {**SAVE, "filename_prefix": "video/T2V-loop", "latent": ("6", 0), "vae": ("1", 2)},
                (1240, 180),
                "",
            ),
        },
        "**A seamless loop.** Windows that go on over the end to the beginning: the last frame leads into the first. "
        "As long as a window, the loop is steady; in longer ones windows may disagree about where things are: make those "
        "by T2V Film with closed_loop and the method coarse-to-fine.",
    ),
    "long_film": (
        {
            "1": ("T2VModelLoader", {"model": "built-in", "weight_dtype": "default"}, (20, 180), ""),
            "2": (
                "T2VFilm",
                {
                    "model": ("1", 0),
                    "clip": ("1", 1),
                    "story": "0-25%: a red circle moves right\n25%-50%: a yellow star moves down\n"
                    "50%-75%: a green square moves left\n75%-100%: a blue circle moves up",
                    "frames": 3376,
                    "fps": 0.0,
                    "width": 0,
                    "height": 0,
                    "method": "coarse-to-fine",
                    "seed": 1,
                    "steps": 20,
                    "cfg": 3.0,
                    **WINDOWS,
                    "resume": True,
                },
                (400, 80),
                "3376 frames",
            ),
            "3": (
                "T2VSaveVideo",
                {
                    **SAVE,
                    "filename_prefix": "video/T2V-film",
                    "latent": ("2", 0),
                    "vae": ("1", 2),
                    "fps": ("2", 1),
                },
                (860, 80),
                "Decodes as it writes",
            ),
        },
        "**A film of 3376 frames.** Key frames first, then what lies between, and between that again. With resume on, "
        "a run that was stopped goes on where it was. Try fewer frames first.",
    ),
    "continued_clip": (
        {
            **_base("a red circle moves right slowly"),
            "5": ("T2VVideoSampler", _sampler("4"), (840, 180), "The clip"),
            "6": (
                "T2VContinue",
                {
                    "model": ("1", 0),
                    "positive": ("2", 0),
                    "negative": ("3", 0),
                    "latent": ("5", 0),
                    "frames": 16,
                    "seed": 1,
                    "steps": 32,
                    "cfg": 3.0,
                },
                (1240, 180),
                "What comes after it",
            ),
            "7": (
                "T2VSaveVideo",
                {**SAVE, "filename_prefix": "video/T2V-continued", "latent": ("6", 0), "vae": ("1", 2)},
                (1640, 180),
                "",
            ),
        },
        "**A continued clip.** Frames follow a clip one by one, as many as you like. For a video of your own wire "
        "T2V Load Video to T2V VAE Encode Frames, in place of the first sampler.",
    ),
    "image_to_video": (
        {
            **_base("a blue square moves right"),
            "5": ("T2VVideoSampler", _sampler("4"), (840, 180), "Makes a picture"),
            "6": ("T2VVAEDecodeFrames", {"latent": ("5", 0), "vae": ("1", 2)}, (1240, 80), ""),
            "7": ("ImageFromBatch", _frame("6", 0), (1240, 200), "The picture: Load Image takes yours"),
            "8": (
                "T2VTextEncode",
                {"clip": ("1", 1), "text": "a blue square moves down"},
                (1240, 380),
                "What happens in it",
            ),
            "9": ("T2VImageToVideo", _animated("8", "7"), (1680, 80), ""),
            "10": ("T2VVideoSampler", _animated_sampler("9"), (2080, 80), ""),
            "11": ("T2VSaveVideo", _saved("T2V-picture", "10"), (2480, 80), ""),
        },
        "**A picture comes alive.** The first frame is the picture itself; the text says what happens. Any text-to-video model "
        "animates a picture by one of the other methods; DynamiCrafter, VideoCrafter1 I2V and I2VGen-XL were made for it.",
    ),
    "between_two_images": (
        {
            **_base("a green triangle moves up"),
            "5": ("T2VVideoSampler", _sampler("4"), (840, 180), "Makes two pictures"),
            "6": ("T2VVAEDecodeFrames", {"latent": ("5", 0), "vae": ("1", 2)}, (1240, 80), ""),
            "7": ("ImageFromBatch", _frame("6", 15), (1240, 200), "The first picture: Load Image takes yours"),
            "8": ("ImageFromBatch", _frame("6", 0), (1240, 340), "The last picture: Load Image takes yours"),
            "9": ("T2VTextEncode", {"clip": ("1", 1), "text": "a green triangle"}, (1240, 500), "What both show"),
            "10": ("T2VImageToVideo", {**_animated("9", "7"), "end_image": ("8", 0)}, (1680, 80), ""),
            "11": ("T2VVideoSampler", _animated_sampler("10", cfg=1.0), (2080, 80), ""),
            "12": ("T2VSaveVideo", _saved("T2V-between", "11"), (2480, 80), ""),
        },
        "**Between two pictures.** The first and the last frame are given, the others are made. With cfg 1 the pictures say "
        "where things go, and the text what they are. DynamiCrafter 512 interp and loop and ToonCrafter do this, too.",
    ),
    "through_images": (
        {
            "1": ("T2VModelLoader", {"model": "built-in", "weight_dtype": "default"}, (20, 180), ""),
            "2": (
                "T2VStory",
                {
                    "clip": ("1", 1),
                    "story": "0-50%: a red circle moves right\n50%-100%: a red circle moves down",
                    "frames": 32,
                    "fps": 8.0,
                },
                (400, 80),
                "Makes three pictures",
            ),
            "3": ("T2VWindows", {"model": ("1", 0), **WINDOWS}, (400, 420), ""),
            "4": (
                "T2VEmptyLatent",
                {"width": 0, "height": 0, "frames": 32, "batch_size": 1, "model": ("1", 0)},
                (400, 640),
                "",
            ),
            "5": ("T2VVideoSampler", {**_story("3", "2"), "latent": ("4", 0), **SAMPLER}, (840, 80), ""),
            "6": ("T2VVAEDecodeFrames", {"latent": ("5", 0), "vae": ("1", 2)}, (1240, 80), ""),
            "7": ("ImageFromBatch", _frame("6", 0), (1240, 200), "Load Image takes yours"),
            "8": ("ImageFromBatch", _frame("6", 15), (1240, 340), "Load Image takes yours"),
            "9": ("ImageFromBatch", _frame("6", 31), (1240, 480), "Load Image takes yours"),
            "10": ("ImageBatch", {"image1": ("7", 0), "image2": ("8", 0)}, (1620, 200), ""),
            "11": ("ImageBatch", {"image1": ("10", 0), "image2": ("9", 0)}, (1620, 320), "All pictures, in order"),
            "12": ("T2VTextEncode", {"clip": ("1", 1), "text": "a red circle"}, (1620, 460), "What all show"),
            "13": ("T2VTextEncode", {"clip": ("1", 1), "text": ""}, (1620, 700), "What it must not show"),
            "14": (
                "T2VBetweenImages",
                {
                    "model": ("1", 0),
                    "positive": ("12", 0),
                    "negative": ("13", 0),
                    "vae": ("1", 2),
                    "images": ("11", 0),
                    "frames": 16,
                    "width": 0,
                    "height": 0,
                    "fit": "crop",
                    "closed_loop": True,
                    **{name: value for name, value in SAMPLER.items() if name != "denoise"},
                    "cfg": 1.0,
                },
                (2060, 80),
                "",
            ),
            "15": ("T2VSaveVideo", _saved("T2V-through", "14"), (2460, 80), ""),
        },
        "**Through several pictures.** A clip between every two neighbours, and one back to the first: a loop. The picture "
        "that two clips share is there once. Pictures come as a batch or as a list, and may have different sizes.",
    ),
    "dynamicrafter": (
        {
            **_base("a red circle moves right"),
            "5": ("T2VVideoSampler", _sampler("4"), (840, 180), "Makes a picture"),
            "6": ("T2VVAEDecodeFrames", {"latent": ("5", 0), "vae": ("1", 2)}, (1240, 80), ""),
            "7": ("ImageFromBatch", _frame("6", 0), (1240, 200), "The picture: Load Image takes yours"),
            "8": (
                "T2VTextEncode",
                {"clip": ("1", 1), "text": "a red circle moves down"},
                (1240, 380),
                "What happens in it",
            ),
            "9": ("T2VImageToVideo", {**_animated("8", "7"), "clip_vision": ("1", 3)}, (1680, 80), ""),
            "10": ("T2VVideoSampler", _animated_sampler("9", **DYNAMICRAFTER), (2080, 80), ""),
            "11": ("T2VSaveVideo", _saved("T2V-dynamicrafter", "10"), (2480, 80), ""),
        },
        "**DynamiCrafter's settings**, here with the built-in model: choose a DynamiCrafter in T2V Model Loader. motion means "
        "frames per second for 512 and 1024 (smaller moves more), the frame stride for 256 (larger moves more, with "
        "cfg_rescale 0). A pruned file needs a text encoder, and Load CLIP Vision with OpenCLIP ViT-H.",
    ),
}
