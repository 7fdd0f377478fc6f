"""Image models whose frames hold together: attention across frames, and noise that frames share."""

from __future__ import annotations

from comfy_api.latest import io

from ..t2v_models.zero_shot.anchors import ANCHORS
from . import inputs
from .host.compat import newer
from .host.zero_shot import cross_frame, same_noise

CATEGORY = "T2V/zero-shot"


class CrossFrameAttention(io.ComfyNode):
    """Self-attention in which the frames of a batch look at anchor frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VCrossFrameAttention",
            display_name="T2V Cross-Frame Attention",
            category=CATEGORY,
            description="Makes the frames of a batch look alike: an image model's self-attention takes keys and values of anchor "
            "frames, such as the first one (Text2Video-Zero). For Stable Diffusion 1, 2 and XL with any sampler, LoRA and "
            "ControlNet; the attention inside a ControlNet stays as it is. Usually with T2VSameNoise.",
            **newer(
                io.Schema, search_aliases=["text2video-zero", "zero shot", "consistent frames", "controlvideo", "rave"]
            ),
            inputs=[
                inputs.image_model(),
                io.Combo.Input(
                    "anchor",
                    options=list(ANCHORS),
                    default=ANCHORS[0],
                    tooltip="The frames that every frame looks at. first: costs nothing. first + previous, first + previous + "
                    "next: smoother motion. all: the steadiest, with time that grows with the square of the frames. shuffled "
                    "groups: groups of nine that change in every step.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="1: the anchors' keys and values; 0: each frame's own, as without this node; between: both blended.",
                ),
                inputs.seed("shuffled groups"),
                *inputs.videos_in_batch(),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The model for the sampler; the input stays as it is.")
            ],
        )

    @classmethod
    @inputs.checked
    def execute(cls, model, anchor: str, strength: float, seed: int, frames: int = 0, videos: int = 1) -> io.NodeOutput:
        return io.NodeOutput(cross_frame.patch(model, anchor, strength, frames, videos, seed))


class SameNoise(io.ComfyNode):
    """Noise that the frames of a batch share."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VSameNoise",
            display_name="T2V Same Noise",
            category=CATEGORY,
            description="Gives all frames of a batch the sampler's noise of the first frame, at the start and in every step of "
            "ancestral and SDE samplers. For any sampler node; with edges, depth or poses per frame, or with pictures to edit, "
            "the frames then differ as these do.",
            **newer(io.Schema, search_aliases=["fixed noise", "shared noise", "consistent noise", "zero shot"]),
            inputs=[
                inputs.image_model(),
                io.Float.Input(
                    "mix",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much of the first frame's noise each frame has: 1 the very same, 0 noise of its own, as without "
                    "this node. The amount of noise stays the same.",
                ),
                *inputs.videos_in_batch(),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The model for the sampler; the input stays as it is.")
            ],
        )

    @classmethod
    @inputs.checked
    def execute(cls, model, mix: float, frames: int = 0, videos: int = 1) -> io.NodeOutput:
        return io.NodeOutput(same_noise.with_same_noise(model, mix, frames, videos))
