"""The image encoder of image-to-video models: OpenCLIP's ViT-H vision tower, as transformers' CLIPVisionModel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints import image_encoder
from ..checkpoints.tensors import as_lazy, load_all
from ..errors import T2VError
from ..meta_modules import filled
from .preprocess import clip_pixels

_PROJECTION = "visual_projection.weight"


def vision_state(state_dict: Mapping[str, Tensor], source: str = "The image encoder") -> dict[str, Tensor]:
    """Rename an image encoder's weights to the published names of transformers' CLIPVisionModel ("vision_model.…").

    Args:
        state_dict: OpenCLIP's vision tower ("visual.…") or transformers' CLIPVisionModel; other tensors are left out.
        source: the file's name, for an error.

    Raises:
        T2VError: where a tensor is missing or has another shape.
    """
    tensors = as_lazy(state_dict)
    openclip = any(name.startswith("visual.") for name in tensors)
    convert = image_encoder.from_openclip if openclip else image_encoder.from_transformers
    return load_all(convert(tensors, source))


class ImageEncoder(nn.Module):
    """CLIP's vision tower; made by `make_encoder`."""

    def __init__(self, model: Any, projection: nn.Linear | None) -> None:
        super().__init__()
        self.model, self.projection = model, projection

    @property
    def width(self) -> int:
        """Width of the tokens; 1280 of ViT-H."""
        return int(self.model.config.hidden_size)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Squash pictures to CLIP's size and encode them. images: (b, h, w, 3), 0..1, of any size -> (b, 257, width), float32."""
        return self.tokens(clip_pixels(images)).float()

    @torch.no_grad()
    def tokens(self, pixels: Tensor) -> Tensor:
        """Return all tokens after the last block, before the final norm: (b, 257, width) of normalised (b, 3, 224, 224)."""
        weight = next(self.model.parameters())
        tokens: Tensor = self.model(pixels.to(weight.device, weight.dtype)).last_hidden_state
        return tokens

    @torch.no_grad()
    def embedding(self, pixels: Tensor) -> Tensor:
        """Return CLIP's embedding of pictures. pixels: (b, 3, 224, 224), normalised -> (b, width of the projection), float32.

        Raises:
            T2VError: where the weights have no projection.
        """
        if self.projection is None:
            raise T2VError("The image encoder has no projection, which this model needs: give the whole of CLIP ViT-H.")
        weight = self.projection.weight
        pooled = self.model(pixels.to(weight.device, weight.dtype)).pooler_output
        embedding: Tensor = self.projection(pooled)
        return embedding.float()


def make_encoder(
    state_dict: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    config: Mapping[str, Any] | None = None,
) -> ImageEncoder:
    """Build the image encoder from its weights, see `vision_state`; transformers is imported here.

    Args:
        state_dict: the weights.
        dtype: of the weights.
        device: of the weights.
        config: entries of transformers' CLIPVisionConfig that do not follow from shapes, such as num_attention_heads.

    Raises:
        T2VError: where a tensor is missing or has another shape, or the number of heads does not fit.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModel

    weights = vision_state(state_dict)
    values = image_encoder.config_of(as_lazy(weights)) | dict(config or {})
    width, heads = values["hidden_size"], values["num_attention_heads"]
    if width % heads:
        raise T2VError(f"The image encoder is {width} wide, and {heads} heads do not fit it: give CLIP ViT-H.")
    with torch.device("meta"):
        model = CLIPVisionModel(CLIPVisionConfig(**values))
    projection = None
    if _PROJECTION in weights:
        weight = weights.pop(_PROJECTION).to(device, dtype)
        projection = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        projection.load_state_dict({"weight": weight}, assign=True)
    return ImageEncoder(filled(model, weights, dtype, device), projection).eval().requires_grad_(False)
