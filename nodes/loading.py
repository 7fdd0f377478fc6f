"""Models and LoRAs from the model folders."""

from __future__ import annotations

from comfy_api.latest import io

from . import inputs
from .host.compat import newer
from .host.models import folders, load
from .host.models import lora as host_lora
from .host.models.model import WEIGHT_DTYPES

CATEGORY = "T2V/loaders"


class ModelLoader(io.ComfyNode):
    """A text-to-video model with its text encoder and VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VModelLoader",
            display_name="T2V Model Loader",
            category=CATEGORY,
            description="Loads a 3D-UNet text-to-video model (ModelScope, ZeroScope, VideoCrafter, T2V-Turbo and kin) "
            "with its text encoder and VAE. The built-in model needs no download.",
            **newer(
                io.Schema,
                search_aliases=[
                    "text to video",
                    "modelscope",
                    "zeroscope",
                    "videocrafter",
                    "t2v-turbo",
                    "load video model",
                ],
            ),
            inputs=[
                io.Combo.Input(
                    "model",
                    options=folders.model_names(),
                    default=folders.BUILT_IN,
                    tooltip="The built-in model, or a file of models/text2video, diffusion_models or checkpoints, or a "
                    "folder of models/text2video or models/diffusers.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    default="default",
                    tooltip="How the UNet's weights are stored. default: what suits the file and the device; fp8 "
                    "halves the memory of fp16 at a small loss of quality; fp32 or bf16 if a video comes out black.",
                ),
                io.Combo.Input(
                    "text_encoder",
                    options=folders.file_names("text_encoders"),
                    default=folders.FROM_MODEL,
                    optional=True,
                    **newer(io.Combo.Input, advanced=True),
                    tooltip="The text encoder in the model's file or folder, or a file of models/text_encoders (OpenCLIP "
                    "ViT-H for most of these models).",
                ),
                io.Combo.Input(
                    "vae",
                    options=folders.file_names("vae"),
                    default=folders.FROM_MODEL,
                    optional=True,
                    **newer(io.Combo.Input, advanced=True),
                    tooltip="The VAE in the model's file or folder, or a file of models/vae (that of Stable Diffusion 1 or "
                    "2). Loaded here it takes whole clips; one from Load VAE would decode only the first frame.",
                ),
                io.Combo.Input(
                    "family",
                    options=[folders.FROM_MODEL, *load.FAMILY_NAMES],
                    default=folders.FROM_MODEL,
                    optional=True,
                    **newer(io.Combo.Input, advanced=True),
                    tooltip="What the weights cannot tell: DynamiCrafter 512, 512-interp and 512-loop have the same tensors, "
                    "and so have the fine-tunes of ModelScope. The log says where there is a choice.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The UNet, for T2VVideoSampler, KSampler and patches."),
                io.Clip.Output(display_name="CLIP", tooltip="The text encoder, for T2VTextEncode or CLIPTextEncode."),
                io.Vae.Output(display_name="VAE", tooltip="The autoencoder; it takes clips as well as images."),
                io.ClipVision.Output(
                    display_name="CLIP_VISION",
                    tooltip="The image encoder of a model that takes pictures, for T2VImageToVideo.",
                ),
            ],
        )

    @classmethod
    @inputs.checked
    def execute(
        cls,
        model: str,
        weight_dtype: str,
        text_encoder: str = folders.FROM_MODEL,
        vae: str = folders.FROM_MODEL,
        family: str = folders.FROM_MODEL,
    ) -> io.NodeOutput:
        return io.NodeOutput(*load.load(model, weight_dtype, text_encoder, vae, family))

    @classmethod
    def fingerprint_inputs(
        cls, model: str, text_encoder: str = folders.FROM_MODEL, vae: str = folders.FROM_MODEL, **_: object
    ) -> str:
        return folders.fingerprint(model, text_encoder, vae)


class LoraLoader(io.ComfyNode):
    """A LoRA on a text-to-video model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T2VLoraLoader",
            display_name="T2V LoRA Loader",
            category=CATEGORY,
            description="Applies a LoRA to a text-to-video model: also to its temporal layers, and in formats that "
            "Load LoRA does not read (diffusers' temporal names, cloneofsimo's lists, T2V-Turbo).",
            **newer(io.Schema, search_aliases=["video lora", "motion lora", "t2v-turbo lora"]),
            inputs=[
                inputs.model(),
                io.Combo.Input("lora_name", options=host_lora.names(), tooltip="A file of models/loras."),
                io.Float.Input(
                    "strength_model",
                    default=1.0,
                    min=-20.0,
                    max=20.0,
                    step=0.01,
                    tooltip="How strongly the UNet is changed; 0 not at all, negative values do the opposite.",
                ),
                io.Float.Input(
                    "strength_clip",
                    default=1.0,
                    min=-20.0,
                    max=20.0,
                    step=0.01,
                    optional=True,
                    tooltip="How strongly the text encoder is changed, where the LoRA has a part for it.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="The CLIP of T2VModelLoader, if the LoRA changes it too."),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The model with the LoRA; the input stays as it is."),
                io.Clip.Output(display_name="CLIP", tooltip="The text encoder with the LoRA."),
            ],
        )

    @classmethod
    @inputs.checked
    def execute(
        cls, model, lora_name: str, strength_model: float, strength_clip: float = 1.0, clip=None
    ) -> io.NodeOutput:
        return io.NodeOutput(*host_lora.apply(model, clip, lora_name, strength_model, strength_clip))
