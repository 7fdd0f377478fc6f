"""Templates of videos that begin with pictures."""

from __future__ import annotations

from .parts import (
    DYNAMICRAFTER,
    SAMPLER,
    WINDOWS,
    Graphs,
    animated,
    animated_sampler,
    base,
    frame,
    sampler,
    saved,
    story,
)

GRAPHS: Graphs = {
    "image_to_video": (
        {
            **base("a blue square moves right"),
            "5": ("T2VVideoSampler", sampler("4"), (840, 180), "Makes a picture"),
            "6": ("T2VVAEDecodeFrames", {"latent": ("5", 0), "vae": ("1", 2)}, (1240, 80), ""),
            "7": ("ImageFromBatch", frame("6", 0), (1240, 200), "The picture: Load Image takes yours"),
            "8": (
                "T2VTextEncode",
                {"clip": ("1", 1), "text": "a blue square moves down"},
                (1240, 380),
                "What happens in it",
            ),
            "9": ("T2VImageToVideo", animated("8", "7"), (1680, 80), ""),
            "10": ("T2VVideoSampler", animated_sampler("9"), (2080, 80), ""),
            "11": ("T2VSaveVideo", saved("T2V-picture", "10"), (2480, 80), ""),
        },
        "**A picture comes alive.** The first frame is the picture itself; the text says what happens. Any text-to-video model "
        "animates a picture by one of the other methods; DynamiCrafter, VideoCrafter1 I2V and I2VGen-XL were made for it.",
    ),
    "between_two_images": (
        {
            **base("a green triangle moves up"),
            "5": ("T2VVideoSampler", sampler("4"), (840, 180), "Makes two pictures"),
            "6": ("T2VVAEDecodeFrames", {"latent": ("5", 0), "vae": ("1", 2)}, (1240, 80), ""),
            "7": ("ImageFromBatch", frame("6", 15), (1240, 200), "The first picture: Load Image takes yours"),
            "8": ("ImageFromBatch", frame("6", 0), (1240, 340), "The last picture: Load Image takes yours"),
            "9": ("T2VTextEncode", {"clip": ("1", 1), "text": "a green triangle"}, (1240, 500), "What both show"),
            "10": ("T2VImageToVideo", {**animated("9", "7"), "end_image": ("8", 0)}, (1680, 80), ""),
            "11": ("T2VVideoSampler", animated_sampler("10", cfg=1.0), (2080, 80), ""),
            "12": ("T2VSaveVideo", saved("T2V-between", "11"), (2480, 80), ""),
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
            "5": ("T2VVideoSampler", {**story("3", "2"), "latent": ("4", 0), **SAMPLER}, (840, 80), ""),
            "6": ("T2VVAEDecodeFrames", {"latent": ("5", 0), "vae": ("1", 2)}, (1240, 80), ""),
            "7": ("ImageFromBatch", frame("6", 0), (1240, 200), "Load Image takes yours"),
            "8": ("ImageFromBatch", frame("6", 15), (1240, 340), "Load Image takes yours"),
            "9": ("ImageFromBatch", frame("6", 31), (1240, 480), "Load Image takes yours"),
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
            "15": ("T2VSaveVideo", saved("T2V-through", "14"), (2460, 80), ""),
        },
        "**Through several pictures.** A clip between every two neighbours, and one back to the first: a loop. The picture "
        "that two clips share is there once. Pictures come as a batch or as a list, and may have different sizes.",
    ),
    "dynamicrafter": (
        {
            **base("a red circle moves right"),
            "5": ("T2VVideoSampler", sampler("4"), (840, 180), "Makes a picture"),
            "6": ("T2VVAEDecodeFrames", {"latent": ("5", 0), "vae": ("1", 2)}, (1240, 80), ""),
            "7": ("ImageFromBatch", frame("6", 0), (1240, 200), "The picture: Load Image takes yours"),
            "8": (
                "T2VTextEncode",
                {"clip": ("1", 1), "text": "a red circle moves down"},
                (1240, 380),
                "What happens in it",
            ),
            "9": ("T2VImageToVideo", {**animated("8", "7"), "clip_vision": ("1", 3)}, (1680, 80), ""),
            "10": ("T2VVideoSampler", animated_sampler("9", **DYNAMICRAFTER), (2080, 80), ""),
            "11": ("T2VSaveVideo", saved("T2V-dynamicrafter", "10"), (2480, 80), ""),
        },
        "**DynamiCrafter's settings**, here with the built-in model: choose a DynamiCrafter in T2V Model Loader. motion means "
        "frames per second for 512 and 1024 (smaller moves more), the frame stride for 256 (larger moves more, with "
        "cfg_rescale 0). A pruned file needs a text encoder, and Load CLIP Vision with OpenCLIP ViT-H.",
    ),
}
