"""Empty latents, and a clip's two layouts."""

from __future__ import annotations

from comfy_api.latest import io

from . import inputs
from .host import latents
from .host.compat import newer

CATEGORY = "T2V/latent"
SHAPE_NOTE = "A LATENT of clips has 5 dimensions: batch, 4, frames, height/8, width/8."


class EmptyLatent(io.ComfyNode):
    """An empty video latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VEmptyLatent",
            display_name="T2V Empty Latent",
            category=CATEGORY,
            description="An empty video latent. Zero for width, height or frames takes the size the wired model was "
            "trained on.",
            **newer(io.Schema, search_aliases=["empty video latent", "video size", "frames"]),
            inputs=[
                *inputs.size("In pixels, a multiple of 8; 0: the model's own size."),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=65536,
                    tooltip="Length of the clip; 1 makes a still; 0: the model's own length.",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="How many videos to make."),
                io.Model.Input(
                    "model", optional=True, tooltip="The MODEL of T2VModelLoader; only needed where a size is 0."
                ),
            ],
            outputs=[io.Latent.Output(display_name="LATENT", tooltip=SHAPE_NOTE)],
        )

    @classmethod
    @inputs.checked
    def execute(cls, width: int, height: int, frames: int, batch_size: int, model=None) -> io.NodeOutput:
        return io.NodeOutput(latents.empty(width, height, frames, batch_size, model))


class LatentLayout(io.ComfyNode):
    """Clips to a batch of frames and back."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VLatentLayout",
            display_name="T2V Latent Layout",
            category=CATEGORY,
            description="Turns a video latent into a batch of image latents and back. Core's Flip, Rotate, Crop and "
            "Composite Latent, and VAE Decode with a VAE of Load VAE, take the wrong axis of a video latent or only "
            "its first frame: give them frames.",
            **newer(io.Schema, search_aliases=["video latent to frames", "latent batch", "5D latent"]),
            inputs=[
                io.Latent.Input("latent", tooltip="A video latent or a batch of image latents."),
                io.Combo.Input(
                    "layout",
                    options=["frames", "clips"],
                    default="frames",
                    tooltip="frames: (videos x frames, 4, h, w), a batch of images; clips: (videos, 4, frames, h, w).",
                ),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=65536,
                    tooltip="For clips: frames of each clip; 0: all frames make one clip.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="LATENT", tooltip="The same latent in the other layout.")],
        )

    @classmethod
    @inputs.checked
    def execute(cls, latent: dict, layout: str, frames: int) -> io.NodeOutput:
        return io.NodeOutput(latents.to_frames(latent) if layout == "frames" else latents.to_clips(latent, frames))
