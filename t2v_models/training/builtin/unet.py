"""Stage three: the 3D UNet, trained to predict velocity while the autoencoder and the text encoder stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ...sampling.schedule import NoiseSchedule
from ...unet import UNet3D, UNetConfig
from ..loop import Schedule, fit
from .batches import Batch, Batches
from .phases import PHASES, Phase

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL
    from transformers import CLIPTextModel

UNET = UNetConfig(
    channels=(48, 96),
    num_res_blocks=1,
    attention_levels=(False, True),
    head_dim=8,
    context_dim=128,
    norm_groups=8,
)
BETAS = (0.00085, 0.03)
"""Stable Diffusion's schedule ends at 0.012. Under so little noise, 16 small frames of one scene still show their
background, and a model that learns to look there would not follow the text from pure noise."""

POSES = 0.1
"""Weight of the poses in the loss, see `WithPoses`."""


def build() -> UNet3D:
    """Return an untrained UNet whose temporal convolutions begin small, but not at zero, so that they learn."""
    unet = UNet3D(UNET)
    with torch.no_grad():
        for name, module in unet.named_modules():
            if name.endswith("conv4.3"):
                module.weight.mul_(0.2)
                module.bias.zero_()
    return unet


class WithPoses(nn.Module):
    """A UNet in training, with a head that reads from its middle block how the objects lie in every frame.

    A direction lowers the denoising loss only where the text, the frame's number and the place come together, and then
    by little. This holds for growth and rotation too, and for which of two objects is which. With poses in the loss, the
    UNet combines them early. The exported model does not contain the head.
    """

    def __init__(self, unet: UNet3D) -> None:
        super().__init__()
        self.unet = unet
        self.read = nn.Linear(UNET.channels[-1] * 4 * 4, 2 * 5)
        list(unet.middle_block.values())[-1].register_forward_hook(self._keep_middle)

    def forward(
        self, x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x: (b, 4, t, 8, 8) -> the velocity (b, 4, t, 8, 8), and the poses (b, t, 2, 5)."""
        velocity = self.unet(x, timesteps, context)
        return velocity, self.read(self.middle.flatten(1)).view(x.shape[0], x.shape[2], 2, 5)

    def _keep_middle(self, layer: nn.Module, inputs: Any, middle: torch.Tensor) -> None:
        self.middle = middle


def pose_error(read: torch.Tensor, poses: torch.Tensor) -> torch.Tensor:
    """Return the mean square error over all poses that are not NaN."""
    known = ~poses.isnan()
    return (known * (read - poses.nan_to_num())).square().sum() / known.sum()


def alphas_cumprod() -> torch.Tensor:
    """Return the products of 1 - beta (1000,) of the built-in model's noise schedule, in float32."""
    config = {"beta_start": BETAS[0], "beta_end": BETAS[1], "beta_schedule": "scaled_linear"}
    return NoiseSchedule.from_config(config).alphas_cumprod.float()


def loss_weight(abar: torch.Tensor) -> torch.Tensor:
    """Return the weight of the loss, 0.1 / the usual error, where the product of 1 - beta is `abar`, of any shape.

    From pure noise only an average video can be predicted, an error of 0.22 at any skill; where shapes are drawn, from
    sigma 8 to 1, the error is 0.13 to 0.035. Without weights the former would drown the latter. The curve is fitted to
    the errors of a trained model. Weights by timestep, unlike weights by place, leave the best prediction as it is.

    Source: Karras et al. 2024, EDM2 (arXiv:2312.02696), where such a curve is learned during the training.
    """
    sigma = ((1 - abar) / abar.clamp(min=1e-8)).sqrt()
    return 0.1 / (0.02 + 0.2 * sigma**2 / (sigma**2 + 50) + 0.015 / sigma)


def batch_loss(model: WithPoses, text_encoder: CLIPTextModel, batch: Batch, abar: torch.Tensor) -> torch.Tensor:
    """Return the loss of a batch: the weighted error of the velocity, and the error of the poses.

    Args:
        abar: (1000,) as `alphas_cumprod` returns it.
    """
    abar = abar[batch.timesteps][:, None, :, None, None]  # (b, 1, t, 1, 1)
    signal, noise = abar.sqrt(), (1 - abar).sqrt()
    with torch.no_grad():
        context = text_encoder(batch.tokens).last_hidden_state
        if batch.prompt_index.shape[1] > 1:
            context = context[batch.prompt_index]  # (b, t, l, c): a text for every frame
    velocity, read = model(signal * batch.clean + noise * batch.noise, batch.timesteps, context)
    noisy = (batch.timesteps > 0)[:, None, :, None, None]  # clean frames have no loss
    squares = (velocity - (signal * batch.noise - noise * batch.clean)).square()
    squares = noisy * loss_weight(abar) * squares * batch.weight[:, None, :, None, None]
    return squares.sum() / (noisy.sum() * batch.clean[0, :, 0].numel()) + POSES * pose_error(read, batch.poses)


def train(
    folder: Path,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: Any,
    schedule: Schedule,
    *,
    model: WithPoses | None = None,
    phases: Sequence[Phase] = PHASES,
    seed: int = 0,
    size: int = 8,
    chunk: int = 480,
    device: torch.device | str = "cpu",
    progress: bool = True,
    title: str = "denoiser",
) -> WithPoses:
    """Train `model`, or a new one, and return it.

    Args:
        folder: where the state, the losses and the encoded clips are stored; a folder with a state is resumed.
        vae: the autoencoder, on `device`.
        text_encoder: likewise.
        size: clips of 16 frames in a batch, see `Batches`.
        chunk: clips in a chunk of the pool.
    """
    torch.manual_seed(seed)
    model = model or WithPoses(build()).to(device)
    abar = alphas_cumprod().to(device)
    batches = Batches(vae, tokenizer, folder / "pool", phases, schedule.steps, seed=seed, size=size, chunk=chunk)

    def loss(step: int, random: torch.Generator) -> torch.Tensor:
        return batch_loss(model, text_encoder, batches.draw(step, random).to(device), abar)

    return fit(model, loss, schedule, folder, seed=seed, title=title, progress=progress)
