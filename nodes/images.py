"""The nodes that make videos of pictures."""

from __future__ import annotations

from comfy_api.latest import io

from ..t2v_models.image.camera import CAMERAS
from ..t2v_models.sampling.repeat_and_slide import KNOWN, RESAMPLE
from . import inputs
from .host import between_images, image_to_video
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
                inputs.frames(
                    "Length of the clip; 0: the model's own length. Models for pictures were trained on 16 and fail "
                    "with fewer: make 16 and drop some. For many more, put T2VWindows on the model.",
                ),
                *inputs.size("The video's {side} in pixels, a multiple of 8; 0: the model's own."),
                inputs.fit(
                    "A picture of another shape than the video. crop: what sticks out is cut off; pad: black bars "
                    "are added; stretch: its shape changes. The log says what is lost.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(image_to_video.METHODS),
                    default=image_to_video.OWN,
                    tooltip="model's own: for models that take pictures, and for the built-in model, which keeps image and "
                    "end_image exactly. The others are for all text-to-video models. frame init: the noise holds the picture's "
                    "large shapes; costs nothing and keeps no frame. repeat and slide: frame after frame; keeps the first one "
                    "exactly, many times slower. hold the picture: a mask keeps image and end_image exactly; 1 + resample "
                    "times slower.",
                ),
                inputs.motion(
                    "How much moves, as each family takes it; 0: the model's own. DynamiCrafter 256: frame stride, "
                    "1 to 6, larger moves more. DynamiCrafter 512: frames per second, 15 to 30; 1024: 5 to 20; the others: 5 "
                    "to 30; smaller moves more.",
                ),
                io.Float.Input(
                    "image_strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much the picture counts beside the text, in models that take pictures and in frame init; 0: the "
                    "text alone.",
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
                io.Combo.Input(
                    "camera",
                    options=list(CAMERAS),
                    default="none",
                    optional=True,
                    **newer(io.Combo.Input, advanced=True),
                    tooltip="For frame init: the camera's move over the picture, which the video follows.",
                ),
                io.Int.Input(
                    "known",
                    default=KNOWN,
                    min=1,
                    max=4095,
                    optional=True,
                    **newer(io.Int.Input, advanced=True),
                    tooltip="For repeat and slide: known frames in each clip, fewer than the model's own length. Fewer are "
                    "faster and move more; 15 of 16 make frame after frame, as TI2V-Zero does.",
                ),
                io.Int.Input(
                    "resample",
                    default=RESAMPLE,
                    min=0,
                    max=64,
                    optional=True,
                    **newer(io.Int.Input, advanced=True),
                    tooltip="For repeat and slide and for hold the picture: how often each step is repeated, so that new frames "
                    "agree with the known ones; n takes n + 1 times as long.",
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


class BetweenImages(io.ComfyNode):
    """A video that goes from picture to picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VBetweenImages",
            display_name="T2V Between Images",
            category=CATEGORY,
            description="Makes one video through two or more pictures, a clip between every two neighbours; the picture that "
            "two clips share is there once. The built-in model passes exactly through the pictures; DynamiCrafter 512 interp "
            "and loop and ToonCrafter close to them. Other models cannot end at a picture.",
            is_input_list=True,
            **newer(io.Schema, search_aliases=["interpolation", "keyframes", "inbetween", "morph", "slideshow"]),
            inputs=[
                inputs.model(),
                io.Conditioning.Input("positive", tooltip="What happens: one text, or a list with one for every clip."),
                inputs.negative(),
                inputs.vae(),
                io.Image.Input(
                    "images", tooltip="The pictures in order, as a batch or a list; their sizes may differ."
                ),
                inputs.frames(
                    "Frames from one picture to the next, with both; 0: the model's own length. n pictures give "
                    "(n - 1) (frames - 1) + 1 frames.",
                ),
                *inputs.size("The video's {side} in pixels, a multiple of 8; 0: the model's own."),
                inputs.fit(
                    "Pictures of another shape than the video. crop: what sticks out is cut off; pad: bars fill the "
                    "rest; stretch: their shape changes. The log says what is lost.",
                ),
                io.Boolean.Input(
                    "closed_loop", default=False, tooltip="From the last picture back to the first: a seamless loop."
                ),
                inputs.seed("video"),
                *inputs.sampler(
                    "How closely the text is followed. 1 suits the built-in model, to which the pictures say more than the text."
                ),
                inputs.motion(
                    "As in T2VImageToVideo: DynamiCrafter interp and loop and ToonCrafter take frames per second, 5 to "
                    "30; smaller moves more. 0: the model's own.",
                    optional=True,
                    **newer(io.Float.Input, advanced=True),
                ),
                inputs.share(
                    "cfg_rescale",
                    0.0,
                    "Takes back the contrast that a high cfg adds; DynamiCrafter and ToonCrafter want 0.7.",
                ),
                inputs.share(
                    "eta",
                    1.0,
                    'For the sampler "ddim (eta)": fresh noise in every step, 0 none, 1 the full amount.',
                ),
                io.ClipVision.Input(
                    "clip_vision", optional=True, tooltip="The CLIP_VISION of T2VModelLoader, for models that take one."
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="LATENT",
                    tooltip="The whole video, for T2VSaveVideo, which decodes as it writes, or T2VVAEDecodeFrames.",
                )
            ],
        )

    @classmethod
    @inputs.checked
    def execute(cls, positive: list, images: list, **listed: list) -> io.NodeOutput:
        given = {name: inputs.single(name, values) for name, values in listed.items()}
        return io.NodeOutput(between_images.make(positive=positive, images=images, **given))
