"""The nodes of this pack: each is a schema, one call, and its output. The work is done in `nodes.host` and `t2v_models`."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .cross_frame import CrossFrameAttention, SameNoise
from .decoding import VAEDecodeFrames, VAEEncodeFrames
from .host import old_names
from .host.models import folders
from .images import BetweenImages, ImageToVideo
from .latents import EmptyLatent, LatentLayout
from .loading import LoraLoader, ModelLoader
from .long_videos import ContextWindows, ContinueVideo, DrawWindows, Film, FreeInit, FreeNoise
from .sampling import ModelConditioning, VideoSampler
from .stories import Story
from .text import TextEncode
from .video import LoadVideo, SaveVideo
from .zero_shot import ZeroShot

NODES: list[type[io.ComfyNode]] = [
    ModelLoader,
    LoraLoader,
    TextEncode,
    EmptyLatent,
    LatentLayout,
    Story,
    ModelConditioning,
    ImageToVideo,
    BetweenImages,
    ContextWindows,
    FreeNoise,
    FreeInit,
    DrawWindows,
    Film,
    ContinueVideo,
    CrossFrameAttention,
    SameNoise,
    ZeroShot,
    VideoSampler,
    VAEDecodeFrames,
    VAEEncodeFrames,
    SaveVideo,
    LoadVideo,
]


class T2VExtension(ComfyExtension):
    """Gives ComfyUI the list of nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> T2VExtension:
    """Register the folder of models and older names of inputs, and return the extension.

    ComfyUI calls this once when it loads the pack.
    """
    folders.register()
    old_names.register()
    return T2VExtension()
