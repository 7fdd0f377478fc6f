"""What the UNet learns from in every step: latents, noise, timesteps, prompts and weights of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...shapes.captions import describe, paraphrase
from ...shapes.scene_changes import SceneSequence
from ...shapes.world import COLOURS, Scene
from .clips import ClipPool, SequencePool, encode
from .phases import Phase, batch_shape, candidates, phase_at, worlds
from .text_encoder import tokenize

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL

EMPTY = 0.1
"""Share of empty prompts, which classifier-free guidance needs."""
PLAIN_CAPTIONS = 0.4
"""Share of captions in the plain form."""
MIDDLE, MIDDLE_SHARE = (300, 750), 0.75
"""Timesteps to train on most, sigma 1.1 to 18, and the share drawn from them; the rest is drawn from all."""
USUAL_CONTRAST = 2.7
"""Distance of an object's latents from its background's: the median over the colours."""
STEPS_PER_CHUNK = 500


@dataclass(frozen=True)
class Batch:
    """The tensors of a step: b clips of t frames."""

    clean: torch.Tensor
    """(b, 4, t, h, w) latents."""
    noise: torch.Tensor
    """(b, 4, t, h, w)."""
    timesteps: torch.Tensor
    """(b, t), 0 where a frame is clean."""
    tokens: torch.Tensor
    """(n, 77) of the prompts."""
    prompt_index: torch.Tensor
    """(b, t) the prompt of each frame, or (b, 1) if it is the same for all."""
    weight: torch.Tensor
    """Weight in the loss, in the shape of `prompt_index`, see `contrast_weight`."""
    poses: torch.Tensor
    """(b, t, 2, 5), see `clips.poses`."""

    def to(self, device: torch.device | str) -> Batch:
        """Return a copy on a device."""
        return Batch(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


class Batches:
    """The batch of every step, drawn on the CPU from the seeds alone: they are equal wherever the model is trained.

    Args:
        folder: where encoded clips are stored.
        phases: of the training.
        steps: of the whole training.
        size: clips of 16 frames in a batch, or as many frames in other clips.
        chunk: clips in a chunk of the pool.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        tokenizer: Any,
        folder: Path,
        phases: Sequence[Phase],
        steps: int,
        *,
        seed: int,
        size: int,
        chunk: int,
    ) -> None:
        self.tokenizer, self.phases, self.steps, self.size = tokenizer, phases, steps, size
        self.clips = ClipPool(vae, worlds(phases), -(-steps // STEPS_PER_CHUNK), folder, seed=seed + 1, clips=chunk)
        self.sequences = SequencePool(vae, folder, seed=seed + 2, clips=max(8, chunk // 4))
        self.colours = colour_latents(vae)

    def draw(self, step: int, random: torch.Generator) -> Batch:
        """Return the batch of a step."""
        phase, done = phase_at(step / self.steps, self.phases)
        if phase.lesson:  # fast and short clips at high noise, where only the text tells the motion
            count, frames, fast = 2 * self.size, 8, 1.0
            timesteps = torch.randint(500, 1000, (count, 1), generator=random).repeat(1, frames)
        else:
            count, frames = batch_shape(phase.short, random, self.size)
            fast = phase.fast
            timesteps = frame_timesteps(draw_timesteps(count, random), frames, random, phase.between)
        number = step // STEPS_PER_CHUNK
        possible = phase.sequences > 0 and 1 < frames <= self.sequences.frames
        if possible and float(torch.rand((), generator=random)) < phase.sequences:
            several = self.sequences.draw(number, count, frames, random)
            clean, poses = several.latents, several.poses
            prompts, index = sequence_prompts(several.sequences, frames, random)
            scenes = [scene for sequence in several.sequences for scene in sequence.scenes]
        else:
            ahead = candidates(phase, done)
            clips = self.clips.draw(number, count, frames, random, fast=fast, ahead=ahead)
            scenes, clean, poses = clips.scenes, clips.latents, clips.poses
            prompts, index = [prompt_for(scene, frames, random) for scene in scenes], torch.arange(count)[:, None]
        weight = torch.tensor([contrast_weight(scene, self.colours) for scene in scenes])[index]
        noise = torch.randn(clean.shape, generator=random)
        return Batch(clean, noise, timesteps, tokenize(self.tokenizer, prompts), index, weight, poses)


def draw_timesteps(count: int, random: torch.Generator) -> torch.Tensor:
    """Return (count,) timesteps, spread evenly; most are of the middle, where places and directions are decided."""
    spread = (torch.randperm(count, generator=random) + torch.rand(count, generator=random)) / count
    low, high = MIDDLE
    middle = low + (high - low) * spread / MIDDLE_SHARE
    drawn = torch.where(spread < MIDDLE_SHARE, middle, 1000 * (spread - MIDDLE_SHARE) / (1 - MIDDLE_SHARE))
    return drawn.long().clamp(max=999)  # once in a million, a spread is rounded to 1


def frame_timesteps(
    timesteps: torch.Tensor, frames: int, random: torch.Generator, between: float = Phase.between
) -> torch.Tensor:
    """Return (b, t) timesteps, mostly one for all frames of a clip.

    Some clips have clean frames (0): the first and last, as between key frames, or the first few, as when a video is
    continued. In others the timesteps rise from frame to frame, as in FIFO sampling.

    Source: Chen et al. 2024, Diffusion Forcing (arXiv:2407.01392): timesteps per frame teach one model all of these.
    """
    out = timesteps.clamp(min=1)[:, None].repeat(1, frames)
    if frames < 3:
        return out
    for row in out:
        chance = float(torch.rand((), generator=random))
        if chance < between:  # between two clean frames
            row[[0, -1]] = 0
        elif chance < between + 0.08:  # after a clean beginning
            row[: int(torch.randint(1, max(2, frames // 2), (), generator=random))] = 0
        elif chance < between + 0.16:  # a queue: each frame noisier than the one before
            slope = 5 + 60 * float(torch.rand((), generator=random))
            row += ((torch.arange(frames) - (frames - 1) / 2) * slope).long()
            row.clamp_(1, 999)
    return out


def sequence_prompts(
    sequences: list[SceneSequence], frames: int, random: torch.Generator
) -> tuple[list[str], torch.Tensor]:
    """Return the captions of all scenes, and (b, t) the index of each frame's caption.

    All captions of a clip are empty, or none is.
    """
    prompts: list[str] = []
    rows = []
    for sequence in sequences:
        empty = float(torch.rand((), generator=random)) < EMPTY
        rows.append(len(prompts) + sequence.at)
        prompts += ["" if empty else prompt_for(scene, frames, random, empty=0) for scene in sequence.scenes]
    return prompts, torch.stack(rows)


def prompt_for(scene: Scene, frames: int, random: torch.Generator, empty: float = EMPTY) -> str:
    """Return a random caption, or an empty one with probability `empty`; for one frame, often without the motion."""
    if float(torch.rand((), generator=random)) < empty:
        return ""
    if float(torch.rand((), generator=random)) < PLAIN_CAPTIONS:
        return describe(scene)
    return paraphrase(scene, random, vague=0.3 if frames == 1 else 0.08)


@torch.no_grad()
def colour_latents(vae: AutoencoderKL) -> dict[str, torch.Tensor]:
    """Return the mean latent (4,) of a frame of each colour."""
    colours = torch.tensor(list(COLOURS.values())) / 255
    plain = encode(vae, colours[:, None, :, None, None].expand(-1, 1, 3, 64, 64))
    return dict(zip(COLOURS, plain.mean(dim=(2, 3, 4)), strict=True))


def contrast_weight(scene: Scene, colours: dict[str, torch.Tensor]) -> float:
    """Return a weight, 0.5 to 3, with which an orange star counts as much on yellow as on black.

    Objects whose latents differ little from their background's make little loss. The weight depends on the text alone,
    so the best prediction stays as it is.

    Args:
        colours: latents as `colour_latents` returns them.
    """
    background = colours[scene.background]
    nearest = min(float((colours[item.colour] - background).norm()) for item in scene.items)
    return min(3.0, max(0.5, (USUAL_CONTRAST / nearest) ** 2))
