"""Stage three: the 3D UNet, trained on velocity prediction with the autoencoder and the text encoder as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...sampling.schedule import NoiseSchedule
from ...shapes.captions import describe, paraphrase
from ...shapes.scene_changes import Turn
from ...shapes.world import COLOURS, Scene, World
from ...unet import UNet3D, UNetConfig
from ..loop import Schedule, fit
from .clips import Pool, encode
from .scene_changes import Turns
from .text_encoder import tokenize

UNET = UNetConfig(
    channels=(48, 96),
    num_res_blocks=1,
    attention_levels=(False, True),
    head_dim=8,
    context_dim=128,
    norm_groups=8,
)
BETAS = (0.00085, 0.03)
"""Further than Stable Diffusion's 0.012: 16 small frames of one scene show their background through the noise of a
weaker schedule, and a model that learned to look there would not follow the text from pure noise."""


@dataclass(frozen=True)
class Phase:
    """A part of the training."""

    until: int
    """The step at which it ends."""
    world: World
    short: bool = False
    """Mostly stills and short clips, see `batch_shape`."""
    fast: float = 0.0
    """Share of the clips drawn from the fast ones alone: a direction is a small part of the loss, and least small where
    it crosses the frame."""
    turns: float = 0.0
    """Share of the steps with clips that show changes from one scene to the next."""
    between: float = 0.12
    """Share of the clips whose first and last frames are known, see `frame_levels`."""
    lesson: bool = False
    """What the words for motions mean is taught, see `ahead`."""


WIDE = World(straight=0.35, diagonal=0.1, other=0.25, pairs=0.3, backgrounds=0.65)
PAIRS = World(straight=0.27, diagonal=0.1, other=0.25, pairs=0.38, backgrounds=0.65)
SPINS = World(straight=0.25, diagonal=0.1, other=0.25, spins=0.12, pairs=0.28, backgrounds=0.65)
LAST = World(straight=0.24, diagonal=0.22, other=0.14, spins=0.14, pairs=0.26, backgrounds=0.65)

PHASES = (
    Phase(2_000, WIDE, short=True, fast=0.5),
    Phase(2_300, WIDE, lesson=True),
    Phase(4_500, WIDE, short=True, fast=0.5),
    Phase(4_800, WIDE, lesson=True),
    Phase(9_000, WIDE, fast=0.25, turns=0.2),
    Phase(15_000, PAIRS, turns=0.25),
    Phase(17_000, SPINS, turns=0.4),
    Phase(19_000, SPINS, turns=0.4, between=0.3),
    Phase(21_000, LAST, turns=0.35, between=0.25),
)
"""The whole training. Words are learned first, then what the motions are (`lesson`), then whole ways of 16 frames, and
while the rate falls, ways through several scenes."""
STEPS = PHASES[-1].until

TURNING = World(straight=0.3, diagonal=0.08, other=0.14, spins=0.23, pairs=0.25, backgrounds=0.65)
FINISH = (Phase(3_600, TURNING, turns=0.25, between=0.2),)
"""A second training, shorter and at a lower rate, on what is learned last of all: what spins."""

EMPTY = 0.1
"""Share of empty prompts, from which guidance departs."""
PLAIN_CAPTIONS = 0.4
"""Share of captions in the plain form."""
MIDDLE, MIDDLE_SHARE = (300, 750), 0.75
"""Timesteps to train on most, sigma 1.1 to 18, and the share drawn from them; the rest is drawn from all."""
POSES = 0.1
"""Weight of the poses in the loss, see `WithPoses`."""
USUAL_CONTRAST = 2.7
"""Distance of an object's latents from its background's: the median over the colours."""
STEPS_PER_CHUNK = 500


def build() -> UNet3D:
    """An untrained UNet whose temporal convolutions begin as little, but not as nothing: they must learn."""
    unet = UNet3D(UNET)
    with torch.no_grad():
        for name, module in unet.named_modules():
            if name.endswith("conv4.3"):
                module.weight.mul_(0.2)
                module.bias.zero_()
    return unet


class WithPoses(nn.Module):
    """A UNet in training, and a head that reads from its middle how the objects lie in every frame.

    A direction lowers the denoising loss only where three things meet, the text, the number of the frame and the place
    in it, and then by little; so do growth and turns, and which of two objects is which. Asked for these themselves,
    the UNet brings them together early. The head is not kept.
    """

    def __init__(self, unet: UNet3D) -> None:
        super().__init__()
        self.unet = unet
        self.read = nn.Linear(UNET.channels[-1] * 4 * 4, 2 * 5)
        list(unet.middle_block.values())[-1].register_forward_hook(self._see)

    def forward(
        self, x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x: (b, 4, t, 8, 8) -> the velocity, like x, and what `poses` are (b, t, 2, 5)."""
        velocity = self.unet(x, timesteps, context)
        return velocity, self.read(self.middle.flatten(1)).view(x.shape[0], x.shape[2], 2, 5)

    def _see(self, layer: nn.Module, given: Any, middle: torch.Tensor) -> None:
        self.middle = middle


def pose_error(read: torch.Tensor, poses: torch.Tensor) -> torch.Tensor:
    """Mean square over what is known of the `poses`."""
    known = ~poses.isnan()
    return (known * (read - poses.nan_to_num())).square().sum() / known.sum()


def alphas_cumprod() -> torch.Tensor:
    """(1000,) float32 alphas_cumprod of the built-in model's noise schedule."""
    config = {"beta_start": BETAS[0], "beta_end": BETAS[1], "beta_schedule": "scaled_linear"}
    return NoiseSchedule.from_config(config).alphas_cumprod.float()


def phase(done: float, phases: Sequence[Phase] = PHASES) -> tuple[Phase, float]:
    """The phase of a training of which `done` is over, 0 to 1, and how much of that phase is over."""
    begin, steps = 0, phases[-1].until
    for each in phases:
        if done * steps < each.until:
            return each, (done * steps - begin) / (each.until - begin)
        begin = each.until
    return phases[-1], 1.0


def worlds(phases: Sequence[Phase] = PHASES) -> list[tuple[float, World]]:
    """Until when which world is shown, as shares of the training."""
    return [(last.until / phases[-1].until, world) for world, (*_, last) in groupby(phases, attrgetter("world"))]


def batch_shape(short: bool, random: torch.Generator, size: int) -> tuple[int, int]:
    """(clips, frames) of a step.

    Mostly stills and short clips, of which a step holds many: words are learned from the number of captions, not of
    frames. Or mostly the usual 16 frames, some longer: directions are learned from whole ways.
    """
    shares = (0.3, 0.45, 0.2, 0.05) if short else (0.12, 0.13, 0.65, 0.1)
    kind = int(torch.multinomial(torch.tensor(shares), 1, generator=random))
    low, high = ((1, 1), (4, 9), (16, 16), (2, 24))[kind]
    frames = int(torch.randint(low, high + 1, (), generator=random))
    return max(2, min(8 * size, round(size * 16 / frames))), frames


def ahead(now: Phase, part: float) -> int:
    """From how many clips the one that is farthest along its own direction is taken, `part` of a phase being over.

    What "right" means is seen only where text, number of the frame and place meet; any two of them alone say nothing,
    so there is no slope to follow (3,900 steps had learned nothing of it). In clips whose objects are where they go, or
    as large as they become, text and place alone agree. That is learned in a hundred steps, and the frames then follow
    from it.
    """
    return 1 if not now.lesson else 6 if part < 0.4 else 2 if part < 0.6 else 1


def weigh(signal: torch.Tensor) -> torch.Tensor:
    """What the loss is multiplied with at a noise level (`signal`: the product of 1 - beta): 0.1 / the usual error.

    From pure noise nothing but an average video can be told, an error of 0.22 whatever is learned; where shapes are
    drawn, from sigma 8 to 1, it is 0.13 to 0.035. Unweighted, the former would drown the latter. The curve is fitted
    to the errors of a trained model. Weights by level, unlike weights by place, leave alone what is best to answer.

    Source: Karras et al. 2024, EDM2 (arXiv:2312.02696), where such a curve is learned along.
    """
    sigma = ((1 - signal) / signal.clamp(min=1e-8)).sqrt()
    return 0.1 / (0.02 + 0.2 * sigma**2 / (sigma**2 + 50) + 0.015 / sigma)


@torch.no_grad()
def tints_of(vae: nn.Module) -> dict[str, torch.Tensor]:
    """(4,) the latent of each colour alone."""
    colours = torch.tensor(list(COLOURS.values())) / 255
    plain = encode(vae, colours[:, None, :, None, None].expand(-1, 1, 3, 64, 64))
    return dict(zip(COLOURS, plain.mean(dim=(2, 3, 4)), strict=True))


def faintness(scene: Scene, tints: dict[str, torch.Tensor]) -> float:
    """What the loss of a scene is multiplied with, so that an orange star counts as much on yellow as on black.

    Latents of objects that differ little from their background make little loss. A weight that the text alone decides
    leaves alone, too, what is best to answer.
    """
    ground = tints[scene.background]
    nearest = min(float((tints[item.colour] - ground).norm()) for item in scene.items)
    return min(3.0, max(0.5, (USUAL_CONTRAST / nearest) ** 2))


def draw_timesteps(count: int, random: torch.Generator) -> torch.Tensor:
    """(count,) noise levels, spread evenly within the batch; most are of the middle, where places and ways are decided."""
    spread = (torch.randperm(count, generator=random) + torch.rand(count, generator=random)) / count
    low, high = MIDDLE
    middle = low + (high - low) * spread / MIDDLE_SHARE
    drawn = torch.where(spread < MIDDLE_SHARE, middle, 1000 * (spread - MIDDLE_SHARE) / (1 - MIDDLE_SHARE))
    return drawn.long().clamp(max=999)  # once in a million, a spread is rounded to 1


@dataclass(frozen=True)
class Batch:
    """What a step is made of: b clips of t frames."""

    clean: torch.Tensor
    """(b, 4, t, h, w) latents."""
    noise: torch.Tensor
    """Like them."""
    timesteps: torch.Tensor
    """(b, t), 0 where a frame is known."""
    tokens: torch.Tensor
    """(n, 77) of the prompts."""
    at: torch.Tensor
    """(b, t), or (b, 1) where it does not change: which of the prompts is each frame's."""
    faint: torch.Tensor
    """Like `at`: what the loss is multiplied with, see `faintness`."""
    poses: torch.Tensor
    """(b, t, 2, 5), see `pool.poses`."""

    def to(self, device: torch.device | str) -> Batch:
        """The same there."""
        return Batch(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


class Batches:
    """The batch of every step, drawn on the processor from the seeds alone: the same wherever the model is trained.

    Args:
        folder: where encoded clips are kept.
        phases: of the training.
        steps: of the whole training.
        size: clips of 16 frames in a batch, or as many frames in other clips.
        chunk: clips in a chunk of the pool that they are drawn from.
    """

    def __init__(
        self,
        vae: nn.Module,
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
        self.pool = Pool(vae, worlds(phases), -(-steps // STEPS_PER_CHUNK), folder, seed=seed + 1, clips=chunk)
        self.turns = Turns(vae, folder, seed=seed + 2, clips=max(8, chunk // 4))
        self.tints = tints_of(vae)

    def draw(self, step: int, random: torch.Generator) -> Batch:
        """The batch of a step."""
        now, part = phase(step / self.steps, self.phases)
        if now.lesson:  # fast and short clips, with nothing to be seen but what the text says
            count, frames, fast = 2 * self.size, 8, 1.0
            timesteps = torch.randint(500, 1000, (count, 1), generator=random).repeat(1, frames)
        else:
            count, frames = batch_shape(now.short, random, self.size)
            fast = now.fast
            timesteps = frame_levels(draw_timesteps(count, random), frames, random, now.between)
        number = step // STEPS_PER_CHUNK
        turning = now.turns > 0 and 1 < frames <= self.turns.frames
        if turning and float(torch.rand((), generator=random)) < now.turns:
            told, clean, poses = self.turns.draw(number, count, frames, random)
            prompts, at = turn_prompts(told, frames, random)
            scenes = [scene for turn in told for scene in turn.scenes]
        else:
            clips = self.pool.draw(number, count, frames, random, fast=fast, ahead=ahead(now, part))
            scenes, clean, poses = clips.scenes, clips.latents, clips.poses
            prompts, at = [prompt_for(scene, frames, random) for scene in scenes], torch.arange(count)[:, None]
        faint = torch.tensor([faintness(scene, self.tints) for scene in scenes])[at]
        noise = torch.randn(clean.shape, generator=random)
        return Batch(clean, noise, timesteps, tokenize(self.tokenizer, prompts), at, faint, poses)


def error(model: WithPoses, text_encoder: nn.Module, batch: Batch, levels: torch.Tensor) -> torch.Tensor:
    """The loss of a batch: of the velocity, by noise level and faintness, and of the poses.

    levels: (1000,) as `alphas_cumprod` has them.
    """
    signal = levels[batch.timesteps][:, None, :, None, None]
    a, b = signal.sqrt(), (1 - signal).sqrt()
    with torch.no_grad():
        context = text_encoder(batch.tokens).last_hidden_state
        # (b, t, l, c): a text for every frame
        context = context[batch.at] if batch.at.shape[1] > 1 else context
    velocity, read = model(a * batch.clean + b * batch.noise, batch.timesteps, context)
    wanted = (batch.timesteps > 0)[:, None, :, None, None]  # of known frames nothing is asked
    squares = (velocity - (a * batch.noise - b * batch.clean)).square()
    squares = wanted * weigh(signal) * squares * batch.faint[:, None, :, None, None]
    return squares.sum() / (wanted.sum() * batch.clean[0, :, 0].numel()) + POSES * pose_error(read, batch.poses)


def train(
    folder: Path,
    vae: nn.Module,
    text_encoder: nn.Module,
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
    """Train `model`, a new one where there is none, on `Batches`; `vae` and `text_encoder` are on the device."""
    torch.manual_seed(seed)
    model = model or WithPoses(build()).to(device)
    levels = alphas_cumprod().to(device)
    batches = Batches(vae, tokenizer, folder / "pool", phases, schedule.steps, seed=seed, size=size, chunk=chunk)

    def loss(step: int, random: torch.Generator) -> torch.Tensor:
        return error(model, text_encoder, batches.draw(step, random).to(device), levels)

    return fit(model, loss, schedule, folder, seed=seed, title=title, progress=progress)


def frame_levels(
    timesteps: torch.Tensor, frames: int, random: torch.Generator, between: float = Phase.between
) -> torch.Tensor:
    """(b, t) noise levels: mostly one for all frames of a clip; sometimes known frames (0) with the others to be filled
    in, as between key frames and after a beginning, or levels that rise from frame to frame, as in endless video.

    Source: Chen et al. 2024, Diffusion Forcing (arXiv:2407.01392): noise levels of their own teach a model both.
    """
    levels = timesteps.clamp(min=1)[:, None].repeat(1, frames)
    if frames < 3:
        return levels
    for row in levels:
        chance = float(torch.rand((), generator=random))
        if chance < between:  # between two known frames
            row[[0, -1]] = 0
        elif chance < between + 0.08:  # after a known beginning
            row[: int(torch.randint(1, max(2, frames // 2), (), generator=random))] = 0
        elif chance < between + 0.16:  # a queue: each frame noisier than the one before
            slope = 5 + 60 * float(torch.rand((), generator=random))
            row += ((torch.arange(frames) - (frames - 1) / 2) * slope).long()
            row.clamp_(1, 999)
    return levels


def turn_prompts(turns: list[Turn], frames: int, random: torch.Generator) -> tuple[list[str], torch.Tensor]:
    """Captions of all scenes, and (b, t) which of them is each frame's; all scenes of a clip have one or none."""
    prompts, rows = [], []
    for turn in turns:
        empty = float(torch.rand((), generator=random)) < EMPTY
        rows.append(len(prompts) + turn.at)
        prompts += ["" if empty else prompt_for(scene, frames, random, empty=0) for scene in turn.scenes]
    return prompts, torch.stack(rows)


def prompt_for(scene: Scene, frames: int, random: torch.Generator, empty: float = EMPTY) -> str:
    """A caption, sometimes an empty one; of a single frame the motion is often left open."""
    if float(torch.rand((), generator=random)) < empty:
        return ""
    if float(torch.rand((), generator=random)) < PLAIN_CAPTIONS:
        return describe(scene)
    return paraphrase(scene, random, vague=0.3 if frames == 1 else 0.08)
