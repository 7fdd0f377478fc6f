"""Noise to video latents."""

from __future__ import annotations

from comfy_api.latest import io

from . import inputs
from .host.compat import newer
from .host.models import conditions
from .host.sampling import run

CATEGORY = "T2V/sampling"


class VideoSampler(io.ComfyNode):
    """The host's samplers, with the schedules these models were made with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VVideoSampler",
            display_name="T2V Video Sampler",
            category=CATEGORY,
            description="Denoises a video latent with any of ComfyUI's samplers, and with the exact noise levels that "
            "ModelScope and diffusers use.",
            **newer(io.Schema, search_aliases=["ksampler", "video sampler", "ddim", "align your steps"]),
            inputs=[
                io.Model.Input("model", tooltip="The MODEL of T2VModelLoader, patched or not."),
                io.Conditioning.Input("positive", tooltip="What the video shows."),
                inputs.negative(),
                io.Latent.Input(
                    "latent", tooltip="T2VEmptyLatent for text to video, T2VVAEEncodeFrames for video to video."
                ),
                inputs.seed("video"),
                *inputs.sampler("How closely the text is followed; 1 switches guidance off and doubles the speed."),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of the latent is replaced: 1 all of it, 0.5 to 0.8 for video to video.",
                ),
                io.Int.Input(
                    "start_at_step",
                    default=0,
                    min=0,
                    max=1000,
                    optional=True,
                    **newer(io.Int.Input, advanced=True),
                    tooltip="Begin at this step of the schedule, to continue where another sampler ended.",
                ),
                io.Int.Input(
                    "end_at_step",
                    default=1000,
                    min=0,
                    max=1000,
                    optional=True,
                    **newer(io.Int.Input, advanced=True),
                    tooltip="End before this step of the schedule; at or above steps, run to its end.",
                ),
                io.Boolean.Input(
                    "add_noise",
                    default=True,
                    optional=True,
                    **newer(io.Boolean.Input, advanced=True),
                    tooltip="Off where the latent of an earlier sampler still has its noise.",
                ),
                io.Boolean.Input(
                    "return_with_leftover_noise",
                    default=False,
                    optional=True,
                    **newer(io.Boolean.Input, advanced=True),
                    tooltip="Keep the noise that is left at end_at_step, for a sampler that continues from there.",
                ),
                inputs.share(
                    "cfg_rescale",
                    0.0,
                    "Takes back the contrast that a high cfg adds; 0.7 is usual, 0 is off.",
                ),
                inputs.share(
                    "eta",
                    1.0,
                    'For the sampler "ddim (eta)": fresh noise in every step, 0 none, 1 the full amount, as '
                    "VideoCrafter samples.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="LATENT", tooltip="The denoised latent, for T2VVAEDecodeFrames.")],
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
        denoise: float,
        **options,
    ) -> io.NodeOutput:
        settings = run.Settings(seed, steps, cfg, sampler_name, scheduler, denoise, **options)
        return io.NodeOutput(run.sample(model, positive, negative, latent, settings))


class ModelConditioning(io.ComfyNode):
    """Frame rate and guidance as inputs of the model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VModelConditioning",
            display_name="T2V Model Conditioning",
            category=CATEGORY,
            description="Sets the values that some models take besides the text: VideoCrafter a frame rate, T2V-Turbo "
            "guidance and motion guidance. Other models stay as they are.",
            **newer(io.Schema, search_aliases=["fps conditioning", "videocrafter fps", "t2v-turbo guidance", "motion"]),
            inputs=[
                inputs.model(),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=120.0,
                    step=0.5,
                    tooltip="The frame rate that the model takes; a higher one makes slower motion. 0: the model's own.",
                ),
                io.Float.Input(
                    "guidance",
                    default=0.0,
                    min=0.0,
                    max=30.0,
                    step=0.1,
                    tooltip="The guidance that a distilled model (T2V-Turbo) embeds; use cfg 1 with it. 0: the model's "
                    "own.",
                ),
                io.Float.Input(
                    "motion_guidance",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The motion guidance that T2V-Turbo v2 embeds. 0: the model's own.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The model with these values; the input stays as it is.")
            ],
        )

    @classmethod
    @inputs.checked
    def execute(cls, model, fps: float, guidance: float, motion_guidance: float) -> io.NodeOutput:
        return io.NodeOutput(conditions.with_values(model, fps=fps, guidance=guidance, motion_guidance=motion_guidance))
