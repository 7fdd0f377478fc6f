"""Videos longer than their model's own, and steadier ones."""

from __future__ import annotations

from comfy_api.latest import io

from ..t2v_models.films.settings import METHODS
from ..t2v_models.plots.timeline import draw_windows
from ..t2v_models.sampling.noise import FILTERS
from ..t2v_models.sampling.windows import FUSIONS, Windows
from . import inputs
from .host import film
from .host.compat import known
from .host.sampling import context_windows, free_init, free_noise

CATEGORY = "T2V/long videos"


def _window_inputs(*, looped: bool) -> list:
    inputs = [
        io.Int.Input("length", default=16, min=1, max=4096, tooltip="Frames of a window: as many as the model's own."),
        io.Int.Input("overlap", default=8, min=0, max=4095, tooltip="Frames that a window shares with the next."),
        io.Combo.Input(
            "fusion",
            options=list(FUSIONS),
            default="pyramid",
            tooltip="How windows are averaged: pyramid trusts their middle, linear ramps over the overlap, flat not.",
        ),
    ]
    if looped:
        text = "Join the end to the beginning. Windows make seamless loops as long as one of them, coarse-to-fine longer ones."
        inputs.append(io.Boolean.Input("looped", default=False, tooltip=text))
    return inputs


class ContextWindows(io.ComfyNode):
    """A long clip, window by window."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return known(
            io.Schema,
            node_id="T2VWindows",
            display_name="T2V Windows",
            category=CATEGORY,
            description="Denoises a clip as long as a window or longer in overlapping windows, with any sampler.",
            search_aliases=["context windows", "long video", "loop"],
            inputs=[
                inputs.model(),
                *_window_inputs(looped=True),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The model with windows; the input stays as it is.")
            ],
        )

    @classmethod
    def execute(cls, model, length: int, overlap: int, fusion: str, looped: bool) -> io.NodeOutput:
        return io.NodeOutput(context_windows.with_windows(model, Windows(length, overlap, fusion, looped)))


class FreeNoise(io.ComfyNode):
    """A long clip in one pass."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return known(
            io.Schema,
            node_id="T2VFreeNoise",
            display_name="T2V FreeNoise",
            category=CATEGORY,
            description="Denoises a long clip in one pass: temporal attention in windows, over noise that repeats "
            "itself in another order. Qiu et al. 2024 (arXiv:2310.15169).",
            search_aliases=["freenoise", "long video"],
            inputs=[
                inputs.model(),
                *_window_inputs(looped=False),
            ],
            outputs=[io.Model.Output(display_name="MODEL", tooltip="The model with FreeNoise; the input stays as is.")],
        )

    @classmethod
    def execute(cls, model, length: int, overlap: int, fusion: str) -> io.NodeOutput:
        return io.NodeOutput(free_noise.with_free_noise(model, Windows(length, overlap, fusion, free_noise=True)))


class FreeInit(io.ComfyNode):
    """Steadier motion by sampling again."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return known(
            io.Schema,
            node_id="T2VFreeInit",
            display_name="T2V FreeInit",
            category=CATEGORY,
            description="Samples several times, each time on noise that keeps the slow changes of the last result: "
            "steadier videos at a multiple of the time. Wu et al. 2024 (arXiv:2312.07537).",
            search_aliases=["freeinit", "temporal consistency", "flicker"],
            inputs=[
                inputs.model(),
                io.Int.Input("iterations", default=3, min=1, max=10, tooltip="Times to sample; 1 changes nothing."),
                io.Combo.Input("filter", options=list(FILTERS), default="butterworth", tooltip="What counts as slow."),
                io.Float.Input(
                    "spatial_stop",
                    default=0.25,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the spatial frequencies that is kept.",
                ),
                io.Float.Input(
                    "temporal_stop",
                    default=0.25,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the temporal frequencies that is kept.",
                ),
                io.Int.Input("order", default=4, min=1, max=16, tooltip="Steepness of the butterworth filter."),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The model with FreeInit; the input stays as it is.")
            ],
        )

    @classmethod
    def execute(
        cls, model, iterations: int, filter: str, spatial_stop: float, temporal_stop: float, order: int
    ) -> io.NodeOutput:
        return io.NodeOutput(free_init.with_free_init(model, iterations, filter, spatial_stop, temporal_stop, order))


class DrawWindows(io.ComfyNode):
    """The windows and their weights as a picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return known(
            io.Schema,
            node_id="T2VDrawWindows",
            display_name="T2V Draw Windows",
            category=CATEGORY,
            description="Draws the windows that T2VWindows or T2VFreeNoise lay over a clip, and what each counts.",
            search_aliases=["visualize context", "context windows picture"],
            inputs=[
                io.Int.Input("frames", default=64, min=1, max=65536, tooltip="Length of the clip."),
                io.Float.Input(
                    "fps", default=8.0, min=0.1, max=240.0, step=0.1, tooltip="For the seconds on the axis."
                ),
                *_window_inputs(looped=True),
            ],
            outputs=[io.Image.Output(display_name="IMAGE", tooltip="A row per window.")],
        )

    @classmethod
    def execute(cls, frames: int, fps: float, length: int, overlap: int, fusion: str, looped: bool) -> io.NodeOutput:
        return io.NodeOutput(draw_windows(Windows(length, overlap, fusion, looped), frames, fps)[None])


class Film(io.ComfyNode):
    """A story of any length, by the method that suits it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        methods = "; ".join(f"{name}: {what}" for name, what in METHODS.items())
        return known(
            io.Schema,
            node_id="T2VFilm",
            display_name="T2V Film",
            category=CATEGORY,
            description="Makes a long video of a story. Wire the LATENT and the VAE to T2VSaveVideo, which decodes as "
            "it writes.",
            search_aliases=["long video", "story", "coarse to fine", "endless", "fifo", "nuwa"],
            inputs=[
                inputs.model(),
                inputs.clip(),
                io.String.Input(
                    "story",
                    multiline=True,
                    default="0-50%: a red circle moves right\n50%-100%, fade 10%: a red circle moves up",
                    tooltip="One scene per line, as in T2VStory; a single prompt serves too.",
                ),
                io.Int.Input("frames", default=64, min=1, max=1000000, tooltip="Length of the film."),
                io.Float.Input(
                    "fps", default=0.0, min=0.0, max=240.0, step=0.1, tooltip="Frame rate; 0: the model's own."
                ),
                *inputs.size("In pixels; 0: the model's own size."),
                io.Combo.Input("method", options=list(METHODS), default="windows", tooltip=f"{methods}."),
                inputs.seed("film"),
                io.Int.Input(
                    "steps",
                    default=20,
                    min=1,
                    max=1000,
                    tooltip="DDIM steps; endless rounds them to a multiple of half a window.",
                ),
                inputs.cfg("How closely the story is followed."),
                *_window_inputs(looped=True),
                io.Boolean.Input(
                    "resume",
                    default=False,
                    tooltip="Keep what is finished in output/t2v_unfinished, and go on from it after a stop.",
                ),
                known(
                    io.Int.Input,
                    "sketches",
                    default=4,
                    min=1,
                    max=64,
                    optional=True,
                    advanced=True,
                    tooltip="For coarse-to-fine: how often the key frames are made before the steadiest are taken.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="LATENT", tooltip="The film, for T2VSaveVideo or T2VVAEDecodeFrames."),
                io.Float.Output(display_name="fps", tooltip="Its frame rate."),
            ],
        )

    @classmethod
    def execute(
        cls, model, clip, story: str, length: int, overlap: int, fusion: str, looped: bool, cfg: float, **settings
    ) -> io.NodeOutput:
        window = Windows(length, overlap, fusion, looped)
        return io.NodeOutput(*film.make(model, clip, story, window=window, guidance_scale=cfg, **settings))


class ContinueVideo(io.ComfyNode):
    """A clip, and what comes after it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return known(
            io.Schema,
            node_id="T2VContinue",
            display_name="T2V Continue Video",
            category=CATEGORY,
            description="Goes on from a clip by any number of frames; its own stay as they are. Kim et al. 2024, "
            "FIFO-Diffusion (arXiv:2405.11473).",
            search_aliases=["extend video", "continue", "endless", "fifo"],
            inputs=[
                inputs.model(),
                io.Conditioning.Input("positive", tooltip="What the video goes on to show."),
                inputs.negative(),
                io.Latent.Input("latent", tooltip="The clip, of a sampler or of T2VVAEEncodeFrames."),
                io.Int.Input("frames", default=16, min=1, max=1000000, tooltip="Frames to add."),
                inputs.seed("frames"),
                io.Int.Input(
                    "steps",
                    default=32,
                    min=1,
                    max=1000,
                    tooltip="Denoising steps, rounded to a multiple of half a window: the length of the queue.",
                ),
                inputs.cfg("How closely the text is followed."),
            ],
            outputs=[io.Latent.Output(display_name="LATENT", tooltip="The clip with the new frames.")],
        )

    @classmethod
    def execute(
        cls, model, positive: list, negative: list, latent: dict, frames: int, seed: int, steps: int, cfg: float
    ) -> io.NodeOutput:
        return io.NodeOutput(film.go_on(model, positive, negative, latent, frames, seed=seed, steps=steps, cfg=cfg))
