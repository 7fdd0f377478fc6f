"""Text to conditioning."""

from __future__ import annotations

from comfy_api.latest import io

from . import inputs
from .host import stories
from .host.compat import newer


class TextEncode(io.ComfyNode):
    """A prompt as conditioning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VTextEncode",
            display_name="T2V Text Encode",
            category="T2V/conditioning",
            description="Encodes a prompt of any length. Weights in brackets, (word:1.3), and embedding:name work as "
            "in CLIP Text Encode.",
            **newer(io.Schema, search_aliases=["video prompt", "text", "prompt"]),
            inputs=[
                inputs.clip(),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    default="",
                    tooltip="What the video shows, or for the negative input what it must not show; may be empty.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="CONDITIONING", tooltip="The text, for a sampler's positive or negative."
                )
            ],
        )

    @classmethod
    @inputs.checked
    def execute(cls, clip, text: str) -> io.NodeOutput:
        return io.NodeOutput(stories.encode_prompt(clip, text))
