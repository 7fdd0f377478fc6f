"""Templates of stories, loops and films."""

from __future__ import annotations

from .parts import SAMPLER, SAVE, WINDOWS, Graphs, base, sampler, story

GRAPHS: Graphs = {
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
            "6": ("T2VVideoSampler", {**story("4", "2"), "latent": ("5", 0), **SAMPLER}, (860, 180), ""),
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
            **base("a yellow star bounces", frames=16),
            "5": (
                "T2VWindows",
                {"model": ("1", 0), **WINDOWS, "closed_loop": True},
                (400, 780),
                "Windows over the end",
            ),
            "6": ("T2VVideoSampler", {**sampler("4"), "model": ("5", 0)}, (840, 180), ""),
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
            **base("a red circle moves right slowly"),
            "5": ("T2VVideoSampler", sampler("4"), (840, 180), "The clip"),
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
}
