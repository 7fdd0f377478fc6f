"""What an image model is, and how the frames of videos lie in its batch."""

from __future__ import annotations

from typing import Any

from comfy.ldm.modules.attention import SpatialVideoTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor

from ....t2v_models.errors import T2VError
from ..models.model import VideoModel


def image_model(patcher: Any) -> Any:
    """Return the host's model in a MODEL that makes single images with a Stable Diffusion UNet.

    Raises:
        T2VError: for a video model, and for a network without the self-attention of Stable Diffusion 1, 2 and XL.
    """
    model = patcher.model
    network = getattr(model, "diffusion_model", None)
    is_unet = isinstance(network, UNetModel)
    if isinstance(model, VideoModel) or (
        is_unet and any(isinstance(m, SpatialVideoTransformer) for m in network.modules())
    ):
        raise T2VError(
            f"The model is {type(model).__name__}, a video model, and this is for image models: 3D models have temporal "
            "layers of their own; wire a Stable Diffusion 1, 2 or XL checkpoint, or use this model without the node."
        )
    if not is_unet:
        raise T2VError(
            f"The model is {type(model).__name__}, whose attention is of another kind: wire a Stable Diffusion 1, 2 or XL "
            "checkpoint."
        )
    return model


def check_frames_as_batch(samples: Tensor) -> None:
    """Raise T2VError unless latents are (rows, channels, height, width), as image models take them."""
    if samples.ndim != 4:
        raise T2VError(
            f"A latent of shape {tuple(samples.shape)} holds clips, and an image model takes frames as a batch, "
            "(frames, channels, height, width): convert it with T2VLatentLayout, or make it with Empty Latent Image."
        )


def frames_per_video(rows: int, frames: int, videos: int) -> int:
    """Return the frames of each of so many videos in a batch of rows, video by video; frames 0 takes what there is.

    Raises:
        T2VError: where the rows are not that many videos of that many frames.
    """
    if frames == 0 and rows % videos == 0:
        return rows // videos
    if rows == frames * videos:
        return frames
    wanted = f"{videos} videos" if videos > 1 else "one video"
    of_frames = f" of {frames} frames" if frames else ""
    raise T2VError(
        f"The batch has {rows} rows, which are not {wanted}{of_frames}: set frames and videos to what the latent holds; "
        "frames 0 takes all rows."
    )
