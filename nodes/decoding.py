"""Latents to frames and back."""

from __future__ import annotations

from comfy_api.latest import io

from . import inputs
from .host import decoding
from .host.compat import newer

CATEGORY = "T2V/latent"


class VAEDecodeFrames(io.ComfyNode):
    """A video latent to frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VVAEDecodeFrames",
            display_name="T2V VAE Decode Frames",
            category=CATEGORY,
            description="Decodes a video latent to frames, a few at a time, so that only the frames themselves take more "
            "memory in a longer clip. Works with any Stable Diffusion VAE.",
            **newer(io.Schema, search_aliases=["vae decode", "latent to frames", "latent to video"]),
            inputs=[
                io.Latent.Input("latent", tooltip="A video latent, or frames as a batch."),
                inputs.vae(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="IMAGE", tooltip="The frames as a batch of images; several videos one after another."
                )
            ],
        )

    @classmethod
    @inputs.checked
    def execute(cls, latent: dict, vae) -> io.NodeOutput:
        return io.NodeOutput(decoding.decode(vae, latent))


class VAEEncodeFrames(io.ComfyNode):
    """Frames to a video latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VVAEEncodeFrames",
            display_name="T2V VAE Encode Frames",
            category=CATEGORY,
            description="Encodes a batch of images as one video latent, a few at a time: the start of video to video.",
            **newer(io.Schema, search_aliases=["vae encode", "video to latent", "vid2vid"]),
            inputs=[
                io.Image.Input("images", tooltip="The frames, as a batch of images of one size."),
                inputs.vae(),
                *inputs.size("Scale and crop the frames to this {side}, a multiple of 8; 0: as they are."),
            ],
            outputs=[
                io.Latent.Output(display_name="LATENT", tooltip="One video latent, (1, 4, frames, height/8, width/8).")
            ],
        )

    @classmethod
    @inputs.checked
    def execute(cls, images, vae, width: int, height: int) -> io.NodeOutput:
        return io.NodeOutput({"samples": decoding.encode(vae, images, width, height)})
