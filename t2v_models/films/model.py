"""What a film needs of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import T2VError

if TYPE_CHECKING:
    from ..arguments import Progress
    from ..conditions import Conditions
    from ..families import Defaults, Family
    from ..sampling.schedule import NoiseSchedule
    from ..unet import UNetConfig


@runtime_checkable
class FilmModel(Protocol):
    """A text-to-video model that films can be made with: `t2v_models.pipeline.Pipeline`, or a host's model behind it."""

    @property
    def config(self) -> UNetConfig:
        """The UNet's configuration."""

    @property
    def family(self) -> Family:
        """How the model was trained."""

    @property
    def defaults(self) -> Defaults:
        """The values that stand for those that are not given."""

    @property
    def device(self) -> torch.device:
        """Where the UNet computes."""

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule that the UNet was trained with."""

    def identity(self) -> str:
        """A digest of all that decides the model's predictions: a film is resumed only with the model that began it."""

    def encode_text(self, texts: Sequence[str], /) -> Tensor:
        """Texts -> (texts, n, d)."""

    def conditions(self, fps: float | None, guidance_scale: float) -> Conditions:
        """Those of these values that the UNet takes."""

    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        conditions: Conditions,
        options: dict[str, Any] | None = None,
    ) -> Tensor:
        """Call the UNet once; arguments, shapes and options as in `UNet3D.forward`, the result in float32.

        Raises:
            T2VError: where the prediction is not finite.
        """


@runtime_checkable
class VideoCodec(Protocol):
    """What a model has besides where its films begin with frames, or end as frames."""

    def encode_video(self, video: Tensor, /) -> Tensor:
        """Frames (b, t, h, w, 3), 0..1 -> latents (b, 4, t, h/8, w/8)."""

    def decode(self, latents: Tensor, /) -> Iterator[Tensor]:
        """Latents (4, t, h, w) of one video -> frames (n, 8h, 8w, 3), 0..1, a few at a time."""


@runtime_checkable
class ClipMaker(Protocol):
    """What a model has besides that makes clips of pictures."""

    def __call__(self, *, progress: Progress | None = None, decode: bool = True, **options: Any) -> Any:
        """Make a clip, with `latents`; options as in `t2v_models.pipeline.Pipeline.__call__`."""


def codec_of(model: FilmModel) -> VideoCodec:
    """The model as a codec; T2VError where it makes latents only."""
    if not isinstance(model, VideoCodec):
        raise T2VError("This model has no VAE: take a film's latents() and decode them with one.")
    return model
