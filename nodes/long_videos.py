"""Videos longer than a model's own length, and steadier ones."""

from __future__ import annotations

from comfy_api.latest import io

from ..t2v_models.films.settings import METHODS
from ..t2v_models.plots.timeline import draw_windows
from ..t2v_models.sampling.noise import FILTERS
from ..t2v_models.sampling.windows import FUSIONS, Windows
from . import inputs
from .host import film
from .host.compat import newer
from .host.sampling import context_windows, free_init, free_noise

CATEGORY = "T2V/long videos"


def _window_inputs(*, closed_loop: bool) -> list[io.Input]:
    """The inputs of `Windows`, by the names that core's context windows have; closed_loop: whether to offer loops."""
    shown = [
        io.Int.Input(
            "context_length", default=16, min=1, max=4096, tooltip="Frames in a window: best the model's own length."
        ),
        io.Int.Input(
            "context_overlap", default=8, min=0, max=4095, tooltip="Frames that a window shares with the next one."
        ),
        io.Combo.Input(
            "fuse_method",
            options=list(FUSIONS),
            default="pyramid",
            tooltip="How overlapping windows are averaged. pyramid: the middle of a window counts most; linear: weights "
            "ramp over the overlap; flat: all frames count the same.",
        ),
    ]
    if closed_loop:
        text = "Join the end to the beginning. Windows make seamless loops as long as one window, coarse-to-fine longer ones."
        shown.append(io.Boolean.Input("closed_loop", default=False, tooltip=text))
    return shown


class ContextWindows(io.ComfyNode):
    """A long clip in overlapping windows."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VWindows",
            display_name="T2V Windows",
            category=CATEGORY,
            description="Denoises a clip as long as a window or longer in overlapping windows, with any sampler.",
            **newer(io.Schema, search_aliases=["context windows", "long video", "loop"]),
            inputs=[
                inputs.model(),
                *_window_inputs(closed_loop=True),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The model with windows; the input stays as it is.")
            ],
        )

    @classmethod
    @inputs.checked
    def execute(
        cls, model, context_length: int, context_overlap: int, fuse_method: str, closed_loop: bool
    ) -> io.NodeOutput:
        window = Windows(context_length, context_overlap, fuse_method, closed_loop)
        return io.NodeOutput(context_windows.with_windows(model, window))


class FreeNoise(io.ComfyNode):
    """A long clip in one pass over repeated noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VFreeNoise",
            display_name="T2V FreeNoise",
            category=CATEGORY,
            description="Denoises a long clip in one pass: temporal attention in windows, over noise that repeats "
            "itself in another order. Qiu et al. 2024 (arXiv:2310.15169).",
            **newer(io.Schema, search_aliases=["freenoise", "long video"]),
            inputs=[
                inputs.model(),
                *_window_inputs(closed_loop=False),
            ],
            outputs=[io.Model.Output(display_name="MODEL", tooltip="The model with FreeNoise; the input stays as is.")],
        )

    @classmethod
    @inputs.checked
    def execute(cls, model, context_length: int, context_overlap: int, fuse_method: str) -> io.NodeOutput:
        window = Windows(context_length, context_overlap, fuse_method, free_noise=True)
        return io.NodeOutput(free_noise.with_free_noise(model, window))


class FreeInit(io.ComfyNode):
    """Steadier motion by repeated sampling."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VFreeInit",
            display_name="T2V FreeInit",
            category=CATEGORY,
            description="Samples several times, each time on noise that keeps the slow changes of the last result: "
            "steadier videos at a multiple of the time. Wu et al. 2024 (arXiv:2312.07537).",
            **newer(io.Schema, search_aliases=["freeinit", "temporal consistency", "flicker"]),
            inputs=[
                inputs.model(),
                io.Int.Input("iterations", default=3, min=1, max=10, tooltip="How often to sample; 1 changes nothing."),
                io.Combo.Input(
                    "filter", options=list(FILTERS), default="butterworth", tooltip="Which changes count as slow."
                ),
                io.Float.Input(
                    "spatial_stop",
                    default=0.25,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the spatial frequencies that the next noise keeps.",
                ),
                io.Float.Input(
                    "temporal_stop",
                    default=0.25,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the temporal frequencies that the next noise keeps.",
                ),
                io.Int.Input("order", default=4, min=1, max=16, tooltip="Steepness of the butterworth filter."),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The model with FreeInit; the input stays as it is.")
            ],
        )

    @classmethod
    @inputs.checked
    def execute(
        cls, model, iterations: int, filter: str, spatial_stop: float, temporal_stop: float, order: int
    ) -> io.NodeOutput:
        return io.NodeOutput(free_init.with_free_init(model, iterations, filter, spatial_stop, temporal_stop, order))


class DrawWindows(io.ComfyNode):
    """A picture of windows and their weights."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VDrawWindows",
            display_name="T2V Draw Windows",
            category=CATEGORY,
            description="Draws the windows that T2VWindows or T2VFreeNoise use for a clip, and their weights.",
            **newer(io.Schema, search_aliases=["visualize context", "context windows picture"]),
            inputs=[
                io.Int.Input("frames", default=64, min=1, max=65536, tooltip="Length of the clip."),
                io.Float.Input(
                    "fps", default=8.0, min=0.1, max=240.0, step=0.1, tooltip="Frame rate, for the seconds on the axis."
                ),
                *_window_inputs(closed_loop=True),
            ],
            outputs=[io.Image.Output(display_name="IMAGE", tooltip="A row per window.")],
        )

    @classmethod
    @inputs.checked
    def execute(
        cls, frames: int, fps: float, context_length: int, context_overlap: int, fuse_method: str, closed_loop: bool
    ) -> io.NodeOutput:
        window = Windows(context_length, context_overlap, fuse_method, closed_loop)
        return io.NodeOutput(draw_windows(window, frames, fps)[None])


class Film(io.ComfyNode):
    """A long video of a story."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        methods = "; ".join(f"{name}: {what}" for name, what in METHODS.items())
        return io.Schema(
            node_id="T2VFilm",
            display_name="T2V Film",
            category=CATEGORY,
            description="Makes a long video of a story. Wire the LATENT and the VAE to T2VSaveVideo, which decodes as "
            "it writes.",
            **newer(io.Schema, search_aliases=["long video", "story", "coarse to fine", "endless", "fifo", "nuwa"]),
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
                *_window_inputs(closed_loop=True),
                io.Boolean.Input(
                    "resume",
                    default=False,
                    tooltip="Keep finished parts in output/t2v_unfinished, and continue from them after a stop.",
                ),
                io.Int.Input(
                    "candidates",
                    default=4,
                    min=1,
                    max=64,
                    optional=True,
                    **newer(io.Int.Input, advanced=True),
                    tooltip="For coarse-to-fine: how many sets of key frames to make; the steadiest is used.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="LATENT", tooltip="The film, for T2VSaveVideo or T2VVAEDecodeFrames."),
                io.Float.Output(display_name="fps", tooltip="Its frame rate."),
            ],
        )

    @classmethod
    @inputs.checked
    def execute(
        cls,
        model,
        clip,
        story: str,
        context_length: int,
        context_overlap: int,
        fuse_method: str,
        closed_loop: bool,
        cfg: float,
        **settings,
    ) -> io.NodeOutput:
        window = Windows(context_length, context_overlap, fuse_method, closed_loop)
        return io.NodeOutput(*film.make(model, clip, story, window=window, guidance_scale=cfg, **settings))


class ContinueVideo(io.ComfyNode):
    """A clip with new frames at its end."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VContinue",
            display_name="T2V Continue Video",
            category=CATEGORY,
            description="Adds any number of frames to a clip, whose own frames stay as they are. Kim et al. 2024, "
            "FIFO-Diffusion (arXiv:2405.11473).",
            **newer(io.Schema, search_aliases=["extend video", "continue", "endless", "fifo"]),
            inputs=[
                inputs.model(),
                io.Conditioning.Input("positive", tooltip="What the new frames show."),
                inputs.negative(),
                io.Latent.Input("latent", tooltip="The clip, from a sampler or T2VVAEEncodeFrames."),
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
    @inputs.checked
    def execute(
        cls, model, positive: list, negative: list, latent: dict, frames: int, seed: int, steps: int, cfg: float
    ) -> io.NodeOutput:
        return io.NodeOutput(
            film.continue_latent(model, positive, negative, latent, frames, seed=seed, steps=steps, cfg=cfg)
        )
