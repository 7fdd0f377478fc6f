"""The curriculum of the UNet's training: what its clips show, and how many there are in a step, phase by phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import torch

from ...shapes.world import World


@dataclass(frozen=True)
class Phase:
    """A part of the training."""

    until: int
    """The step at which it ends."""
    world: World
    short: bool = False
    """Whether most clips are stills or short, see `batch_shape`."""
    fast: float = 0.0
    """Share of the clips drawn from the fast ones alone. A direction is a small part of the loss, and less small where
    the object crosses the frame."""
    sequences: float = 0.0
    """Share of the steps with clips of several scenes."""
    between: float = 0.12
    """Share of the clips whose first and last frames are clean, see `frame_timesteps`."""
    lesson: bool = False
    """Whether the steps teach the words for motions, see `candidates`."""


WIDE = World(straight=0.35, diagonal=0.1, other=0.25, pairs=0.3, backgrounds=0.65)
PAIRS = World(straight=0.27, diagonal=0.1, other=0.25, pairs=0.38, backgrounds=0.65)
SPINS = World(straight=0.25, diagonal=0.1, other=0.25, spins=0.12, pairs=0.28, backgrounds=0.65)
LAST = World(straight=0.24, diagonal=0.22, other=0.14, spins=0.14, pairs=0.26, backgrounds=0.65)

PHASES = (
    Phase(2_000, WIDE, short=True, fast=0.5),
    Phase(2_300, WIDE, lesson=True),
    Phase(4_500, WIDE, short=True, fast=0.5),
    Phase(4_800, WIDE, lesson=True),
    Phase(9_000, WIDE, fast=0.25, sequences=0.2),
    Phase(15_000, PAIRS, sequences=0.25),
    Phase(17_000, SPINS, sequences=0.4),
    Phase(19_000, SPINS, sequences=0.4, between=0.3),
    Phase(21_000, LAST, sequences=0.35, between=0.25),
)
"""The whole training. The model learns words first, then the motions (`lesson`), then whole clips of 16 frames, and
while the learning rate falls, clips of several scenes."""
STEPS = PHASES[-1].until

TURNING = World(straight=0.3, diagonal=0.08, other=0.14, spins=0.23, pairs=0.25, backgrounds=0.65)
FINISH = (Phase(3_600, TURNING, sequences=0.25, between=0.2),)
"""A second training, shorter and at a lower rate, with more of what is learned last: spinning objects."""


def phase_at(done: float, phases: Sequence[Phase] = PHASES) -> tuple[Phase, float]:
    """Return the phase at a share `done` of the training, 0 to 1, and the share of that phase that is over."""
    begin, steps = 0, phases[-1].until
    for phase in phases:
        if done * steps < phase.until:
            return phase, (done * steps - begin) / (phase.until - begin)
        begin = phase.until
    return phases[-1], 1.0


def worlds(phases: Sequence[Phase] = PHASES) -> list[tuple[float, World]]:
    """Return the worlds in order, each with the share of the training at which it ends."""
    return [(last.until / phases[-1].until, world) for world, (*_, last) in groupby(phases, attrgetter("world"))]


def batch_shape(short: bool, random: torch.Generator, size: int) -> tuple[int, int]:
    """Return the (clips, frames) of a step; `size` clips of 16 frames cost as much as the others.

    Either mostly stills and short clips, of which a step holds many, because words are learned from the number of
    captions and not of frames. Or mostly the usual 16 frames, and some more, because directions are learned from whole
    motions.
    """
    shares = (0.3, 0.45, 0.2, 0.05) if short else (0.12, 0.13, 0.65, 0.1)
    group = int(torch.multinomial(torch.tensor(shares), 1, generator=random))
    low, high = ((1, 1), (4, 9), (16, 16), (2, 24))[group]
    frames = int(torch.randint(low, high + 1, (), generator=random))
    return max(2, min(8 * size, round(size * 16 / frames))), frames


def candidates(phase: Phase, done: float) -> int:
    """Return from how many clips the one with the most progress is taken, after a share `done` of the phase.

    The meaning of "right" shows only where the text, the frame's number and the place come together. Any two of them
    alone say nothing, so the loss has no slope to follow: 3,900 steps taught nothing. In clips whose objects are already
    where they go, or as large as they become, text and place alone agree. That is learned in a hundred steps, and the
    role of the frame's number follows from it.
    """
    return 1 if not phase.lesson else 6 if done < 0.4 else 2 if done < 0.6 else 1
