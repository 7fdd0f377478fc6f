"""Pictures to video latents and conditionings."""

from __future__ import annotations

from comfy_api.latest import io

from . import inputs
from .host import image_to_video
from .host.compat import newer

CATEGORY = "T2V/image to video"


class ImageToVideo(io.ComfyNode):
    """A clip that begins with a picture, or goes from one to another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VImageToVideo",
            display_name="T2V Image to Video",
            category=CATEGORY,
            description="Animates a picture: with a model that was made for it (VideoCrafter1 I2V, DynamiCrafter and kin), "
            "with the built-in model, or, without training, with any text-to-video model. Stands between the texts and "
            "the sampler.",
            **newer(io.Schema, search_aliases=["image to video", "i2v", "animate", "dynamicrafter", "first frame"]),
            inputs=[
                inputs.model(),
                io.Conditioning.Input("positive", tooltip="What happens in the video; T2VTextEncode or T2VStory."),
                inputs.negative(),
                inputs.vae(),
                io.Image.Input("image", tooltip="The picture, one; a batch goes to T2VBetweenImages."),
                io.Int.Input(
                    "frames",
                    default=16,
                    min=0,
                    max=65536,
                    tooltip="Length of the clip; 0: the model's own length. Models for pictures were trained on 16 and fail "
                    "with fewer: make 16 and drop some. For many more, put T2VWindows on the model.",
                ),
                *inputs.size("The video's {side} in pixels, a multiple of 8; 0: the model's own."),
                io.Combo.Input(
                    "fit",
                    options=list(image_to_video.FITS),
                    default=image_to_video.FITS[0],
                    tooltip="A picture of another shape than the video. crop: what sticks out is cut off; pad: black bars "
                    "are added; stretch: its shape changes. The log says what is lost.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(image_to_video.METHODS),
                    default=image_to_video.OWN,
                    tooltip="model's own: for models that take pictures, and the built-in model. The others take any "
                    "text-to-video model. frame init: noise that keeps the picture's large shapes, at no cost; the first "
                    "frame resembles the picture. repeat and slide: frame after frame, many times slower; the first frame "
                    "is kept. hold the picture: the first frame is kept by a mask, at some cost.",
                ),
                io.Float.Input(
                    "motion",
                    default=0.0,
                    min=0.0,
                    max=120.0,
                    step=0.5,
                    tooltip="How much moves, as each family takes it; 0: the model's own. DynamiCrafter 256: frame stride, "
                    "1 to 6, larger moves more. DynamiCrafter 512: frames per second, 15 to 30; 1024: 5 to 20; the others: 5 "
                    "to 30; smaller moves more.",
                ),
                io.Float.Input(
                    "image_strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much the picture counts beside the text, in models that take pictures; 0: the text alone.",
                ),
                io.Float.Input(
                    "image_cfg",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="The guidance scale of the picture, beside the text's cfg in the sampler; costs a third evaluation "
                    "per step. 0: cfg is for both.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="The CLIP_VISION of T2VModelLoader, or OpenCLIP ViT-H from Load CLIP Vision; only models that take "
                    "pictures need it.",
                ),
                io.Image.Input(
                    "end_image",
                    optional=True,
                    tooltip="The picture at the end of the clip, for models and methods that go from one to another.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The model for the sampler; the input stays as it is."),
                io.Conditioning.Output(display_name="positive", tooltip="The text with the picture, for the sampler."),
                io.Conditioning.Output(
                    display_name="negative", tooltip="The negative text with a grey picture, for the sampler."
                ),
                io.Latent.Output(display_name="LATENT", tooltip="The clip to denoise, for the sampler."),
            ],
        )

    @classmethod
    @inputs.checked
    def execute(
        cls, model, positive: list, negative: list, vae, image, clip_vision=None, end_image=None, **settings
    ) -> io.NodeOutput:
        request = image_to_video.Request(image=image, end_image=end_image, **settings)
        return io.NodeOutput(*image_to_video.animate(model, positive, negative, vae, clip_vision, request))
