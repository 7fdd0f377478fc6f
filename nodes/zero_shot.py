"""Videos from image models, without training."""

from __future__ import annotations

from comfy_api.latest import io

from ..t2v_models.zero_shot.anchors import ANCHORS
from ..t2v_models.zero_shot.motion import HOW, PATHS
from . import inputs
from .host.compat import newer
from .host.zero_shot import run

CATEGORY = "T2V/zero-shot"

SCHEDULERS = [name for name in inputs.scheduler_names() if name != "align your steps"]
"""Without the table that was optimised for one model."""


class ZeroShot(io.ComfyNode):
    """A video from an image model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VZeroShot",
            display_name="T2V Zero-Shot Video",
            category=CATEGORY,
            description="Makes a video with an image model, any Stable Diffusion 1.5, 2 or XL checkpoint with its LoRAs, "
            "without training: all frames look at the first one, whose noise moves along a path. Khachatryan et al. 2023, "
            "Text2Video-Zero (arXiv:2303.13439).",
            **newer(
                io.Schema, search_aliases=["text2video-zero", "zero shot", "sd15 video", "sdxl video", "cross-frame"]
            ),
            inputs=[*_main_inputs(), *_advanced_inputs()],
            outputs=[
                io.Latent.Output(
                    display_name="LATENT",
                    tooltip="The frames as a batch, for T2VSaveVideo, which decodes as it writes, or VAE Decode.",
                )
            ],
        )

    @classmethod
    @inputs.checked
    def execute(
        cls,
        model,
        positive: list,
        negative: list,
        latent: dict,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        mask=None,
        **asked,
    ) -> io.NodeOutput:
        settings = run.Settings(seed, steps, cfg, sampler_name, scheduler)
        return io.NodeOutput(run.make(model, positive, negative, latent, settings, run.asked(**asked), mask))


def _main_inputs() -> list[io.Input]:
    """What most people set."""
    return [
        inputs.image_model(),
        io.Conditioning.Input("positive", tooltip="What the video shows: CLIP Text Encode, or T2VStory."),
        inputs.negative(),
        io.Latent.Input(
            "latent",
            tooltip="Empty Latent Image, whose batch_size is the number of frames; T2VEmptyLatent serves, too.",
        ),
        inputs.seed("video"),
        io.Int.Input(
            "steps", default=50, min=2, max=1000, tooltip="More steps are slower and finer; 20 to 50 is usual."
        ),
        inputs.cfg("How closely the text is followed; 1 switches guidance off and doubles the speed."),
        io.Combo.Input(
            "sampler_name",
            options=inputs.sampler_names(),
            default="ddim",
            tooltip="ddim is Text2Video-Zero's own. Fresh noise of ancestral samplers is one for all frames.",
        ),
        io.Combo.Input(
            "scheduler",
            options=SCHEDULERS,
            default=SCHEDULERS[0],
            tooltip="The noise levels. diffusers: those of diffusers' TextToVideoZeroPipeline; the others are ComfyUI's.",
        ),
        *(
            io.Float.Input(
                f"motion_{axis}",
                default=12.0,
                min=-512.0,
                max=512.0,
                step=0.5,
                tooltip=tooltip,
            )
            for axis, tooltip in (
                (
                    "x",
                    "How far the picture moves from frame to frame, in pixels of a frame 512 wide; positive: to the left. "
                    "zoom: per cent, turn: degrees a frame.",
                ),
                ("y", "The same upwards, in pixels of a frame 512 high."),
            )
        ),
        io.Combo.Input(
            "path",
            options=list(PATHS),
            default=PATHS[0],
            tooltip="How the frames move: straight on, to the middle of the video and back, by zoom or turn, on a circle, or "
            "along the points of curve.",
        ),
        *(
            io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, tooltip=tooltip)
            for name, default, tooltip in (
                (
                    "t0",
                    0.88,
                    "Where the first frame's noisy latents are copied and moved, as a share of the noise schedule: 0 is clean.",
                ),
                (
                    "t1",
                    0.94,
                    "Up to where the moved frames get noise again, above t0. The further apart, the more frames differ.",
                ),
            )
        ),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="Where the foreground is, one mask or one for each frame: the rest of each frame is blended with the first "
            "frame's background.",
        ),
    ]


def _advanced_inputs() -> list[io.Input]:
    """What few people change."""

    def combo(name: str, options: list[str], tooltip: str) -> io.Input:
        advanced = newer(io.Combo.Input, advanced=True)
        return io.Combo.Input(name, options=options, default=options[0], optional=True, **advanced, tooltip=tooltip)

    def count(name: str, most: int, tooltip: str) -> io.Input:
        advanced = newer(io.Int.Input, advanced=True)
        return io.Int.Input(name, default=0, min=0, max=most, optional=True, **advanced, tooltip=tooltip)

    return [
        combo(
            "anchor",
            list(ANCHORS),
            "The frames whose keys and values each frame looks at. first: as Text2Video-Zero. More anchors flicker less and "
            "take longer. In chunks they are frames of the chunk.",
        ),
        combo(
            "warp",
            list(HOW),
            "nearest moves by whole latents, 8 pixels, and keeps the noise; bilinear moves smoothly and blurs it.",
        ),
        io.String.Input(
            "curve",
            default="",
            optional=True,
            **newer(io.String.Input, advanced=True),
            tooltip="For the path curve: points x,y in pixels of a 512 frame, such as 0,0 40,10 80,0; they are spread evenly "
            "over the video.",
        ),
        count(
            "smoothing",
            1000,
            "Steps, next to each other, in which alternate frames become the mean of their neighbours, as in ControlVideo: 2 is "
            "usual, 0 is off. In chunks they are neighbours of the chunk.",
        ),
        count(
            "chunk",
            65536,
            "Frames that go through the model together, the first one always among them: for long videos 8; 0: all at once. "
            "Memory follows the chunk, not the length.",
        ),
        combo(
            "story",
            ["per frame", "per chunk"],
            "With T2VStory: whether each frame has its own text, or all new frames of a chunk the text of their first.",
        ),
        io.Boolean.Input(
            "resume",
            default=False,
            optional=True,
            **newer(io.Boolean.Input, advanced=True),
            tooltip="Keep finished chunks in output/t2v_unfinished, and continue from them after a stop.",
        ),
    ]
