"""Frames between known frames, and long videos from coarse to fine.

Source: Yin et al. 2023, NUWA-XL (arXiv:2303.12346), diffusion over diffusion: a first clip of sparse key frames covers
the whole length, then every two neighbours become the fixed ends of a new clip, and so on down to full rate. Windows of
16 frames give 15 * 15 * 15 + 1 = 3376 frames in three levels. Resampling: Lugmayr et al. 2022, RePaint
(arXiv:2201.09865). Making a clip again from its own noised latents: Meng et al. 2022, SDEdit (arXiv:2108.01073).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import T2VError
from .ddim import ddim_step
from .schedule import CLEAN, NoiseSchedule

PredictFrames = Callable[[Tensor, Tensor], Tensor]
"""``predict(x, timesteps)``: x (b, c, t, h, w), timesteps (b, t) -> the guided prediction, like x."""

KeyFrames = Callable[[Sequence[int]], Tensor]
"""``keys(numbers)``: frame numbers -> (1, c, n, h, w), a clip of those frames."""

Fill = Callable[[Tensor, Sequence[Sequence[int]], int], Tensor]
"""``fill(ends, numbers, stride)``: ends (b, c, 2, h, w), the n frame numbers of each segment, and the largest distance
between them -> (b, c, n, h, w), ends included."""


def sample_between(
    predict: PredictFrames,
    noise: Tensor,
    known: Tensor,
    clean: Tensor,
    timesteps: Tensor,
    schedule: NoiseSchedule,
    *,
    known_clean: bool,
    repaint: bool = False,
    resample: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample a clip by DDIM when some of its frames are known; these come out exactly as they went in.

    Args:
        predict: the model.
        noise: (b, c, t, h, w) to begin with.
        known: (t,) true for the known frames.
        clean: (b, c, t, h, w), read where known, and everywhere if `repaint`.
        timesteps: (n,) from noisy to clean.
        schedule: the model's.
        known_clean: show the model known frames without noise, at timestep 0, as one that was trained with a timestep per
            frame takes them. Otherwise known frames have the noise of the step.
        resample: how often each step is repeated from fresh noise, so that new frames agree with noisy known ones.
        repaint: make the other frames again, too: begin with `clean` at the noise of the first timestep.
        generator: of the noise that resampling adds (a CPU one).

    Returns:
        Clean latents, (b, c, t, h, w).
    """
    held = HeldFrames(known, clean, noise, schedule, known_clean, resample)
    x = held.put_into(schedule.add_noise(clean, noise, timesteps[0]) if repaint else noise, timesteps[0])
    for i, t in enumerate(timesteps):
        following = timesteps[i + 1] if i + 1 < len(timesteps) else timesteps.new_tensor(CLEAN)
        x = held.step(predict, x, t, following, generator)
    return torch.where(held.mask, clean, x)


@dataclass(frozen=True)
class HeldFrames:
    """Known frames of a clip, as they are shown to the model from step to step; fields as in `sample_between`."""

    known: Tensor
    clean: Tensor
    noise: Tensor
    """(b, c, t, h, w), what noises the known frames."""
    schedule: NoiseSchedule
    known_clean: bool
    resample: int = 0

    @property
    def mask(self) -> Tensor:
        """`known`, so that it broadcasts over clips."""
        return self.known.to(self.noise.device)[None, None, :, None, None]

    def timesteps(self, t: Tensor) -> Tensor:
        """(b, frames) of a clip at timestep t."""
        frame_times = t.expand(self.noise.shape[0], self.noise.shape[2]).clone().to(self.noise.device)
        if self.known_clean:
            frame_times[:, self.known] = 0
        return frame_times

    def put_into(self, x: Tensor, t: Tensor) -> Tensor:
        """A clip at timestep t with the known frames in it, like x."""
        known = self.clean if self.known_clean else self.schedule.add_noise(self.clean, self.noise, t)
        return torch.where(self.mask, known, x)

    def rounds(self, following: Tensor) -> int:
        """How many times the step to this timestep is made."""
        return 1 if self.known_clean or following == CLEAN else 1 + self.resample

    def step(
        self, predict: PredictFrames, x: Tensor, t: Tensor, following: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """DDIM's step of a clip from timestep t to the following one, like x, repeated as `resample` says."""
        rounds = self.rounds(following)
        for turn in range(rounds):
            stepped = ddim_step(x, predict(x, self.timesteps(t)), self.schedule, t, following)
            x = self.put_into(stepped, following)
            if turn + 1 < rounds:
                more = torch.randn(x.shape, generator=generator).to(x)
                x = self.put_into(self.schedule.add_more_noise(x, more, t, following), t)
        return x


def calls_between(steps: int, *, known_clean: bool, resample: int) -> int:
    """How many times `sample_between` calls the model."""
    return steps if known_clean else steps + resample * (steps - 1)


def motion_jump_ratio(clips: Tensor) -> Tensor:
    """Ratio of the longest step of the motion to the median step, (b,): 1 where nothing ever jumps.

    A step is how far the centre of what differs from the background moves from one frame to the next; how it differs does
    not matter, so a change of colour is no jump. A median step below half a latent pixel counts as half a pixel.

    Args:
        clips: (b, c, t, h, w), latents or pictures.
    """
    b, _, t, h, w = clips.shape
    ground = clips.flatten(3).median(dim=3).values[..., None, None]
    share = (clips - ground).norm(dim=1).square().flatten(2)  # (b, t, h w)
    share = share / share.sum(dim=2, keepdim=True).clamp(min=1e-9)
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    centres = share @ torch.stack([y, x], -1).reshape(-1, 2).to(share)  # (b, t, 2)
    steps: Tensor = centres.diff(dim=1).norm(dim=2)
    return steps.amax(1) / steps.median(1).values.clamp(min=0.5) if t > 2 else steps.new_ones(b)


def film_strides(frames: int, window: int, coarsest: float = math.inf) -> list[int]:
    """Distances between frames at each level of the hierarchy, from coarse to 1; each is a multiple of the next.

    A clip between two frames of one stride has at most `window` frames of the next, and the last clip passes the end by
    as little as possible: 16-frame windows over 64 frames give [13, 1], over 3376 frames [225, 15, 1].

    Args:
        frames: of the whole film.
        window: frames that the model sees at once.
        coarsest: the largest distance between key frames, as far as one window can hold them: 4 gives [5, 1] over 64.

    Raises:
        T2VError: for windows of fewer than 3 frames, which leave nothing to fill in.
    """
    steps, gaps = [1], frames - 1
    if gaps > window - 1 and window < 3:
        raise T2VError(f"Windows of {window} frames leave none to fill in: at least 3 are wanted.")
    while gaps > window - 1:
        step = math.ceil(gaps / math.ceil(gaps / (window - 1)))
        steps.insert(0, steps[0] * step)
        gaps = math.ceil(gaps / step)
    if len(steps) > 1 and steps[0] > coarsest:
        least = math.ceil(gap_count(frames, steps[1]) / (window - 1))
        steps[0] = steps[1] * max(least, int(coarsest // steps[1]))
    return steps


def loop_strides(frames: int, window: int) -> list[int]:
    """`film_strides` for a loop: one window of key frames all around it, then the gaps between them and after the last.

    Neighbours are at most a stride apart, as evenly as whole frames allow: see `even_frames`.
    """
    between = math.ceil(frames / min(window, frames))
    return [1] if between == 1 else [between, *film_strides(between + 1, window)]


def even_frames(first: int, last: int, stride: int) -> list[int]:
    """Frame numbers from the first to the last: as few as are at most `stride` apart, evenly spaced."""
    count = math.ceil((last - first) / stride)
    return [first + (last - first) * i // count for i in range(count + 1)]


def gap_count(frames: int, stride: int) -> int:
    """Number of gaps between every stride-th frame, up to the last frame or past it."""
    return math.ceil((frames - 1) / stride)


def key_numbers(frames: int, stride: int, *, looped: bool = False) -> list[int]:
    """Every stride-th frame, until the last frame is reached or passed; of a loop, until the first is reached again."""
    if looped:
        return even_frames(0, frames, stride)
    return list(range(0, frames - 1 + stride, stride)) if frames > 1 else [0]


def segment_count(frames: int, strides: Sequence[int], *, looped: bool = False) -> int:
    """Number of clips that `coarse_to_fine` fills, of all strides together."""
    if not looped:
        return sum(gap_count(frames, stride) for stride in strides[:-1])
    count, numbers = 0, key_numbers(frames, strides[0], looped=True)
    for stride in strides[1:]:
        pairs = list(pairwise(numbers))
        count += sum(last - first > stride for first, last in pairs)
        numbers = [number for pair in pairs for number in even_frames(*pair, stride)[:-1]] + [frames]
    return count


def coarse_to_fine(
    frames: int, strides: Sequence[int], keys: KeyFrames, fill: Fill, *, batch: int = 4, looped: bool = False
) -> Iterator[Tensor]:
    """Yield the frames of a long video in order, as soon as they are finished.

    Args:
        frames: of the whole video.
        strides: from `film_strides`, or `loop_strides`.
        keys: makes the clip of key frames.
        fill: makes the clips between two frames each; they do not depend on each other.
        batch: segments that are filled together.
        looped: the video begins again where it ends: the last key frame is followed by the first, as number `frames`.

    Yields:
        (1, c, n, h, w), n from 1 to a clip's frames; together exactly `frames`. At most `batch` segments of every stride
        are held at a time.
    """
    numbers = key_numbers(frames, strides[0], looped=looped)
    if looped:
        clip = keys(numbers[:-1])
        parts = _without_last(torch.cat([clip, clip[:, :, :1]], dim=2), numbers, strides[1:], fill, batch, frames + 1)
    else:
        parts = _with_last(keys(numbers), numbers, strides[1:], fill, batch, frames)
    left = frames
    for part in parts:
        part = part[:, :, :left]
        left -= part.shape[2]
        yield part
        if not left:
            return


def _with_last(
    clip: Tensor, numbers: list[int], finer: Sequence[int], fill: Fill, batch: int, frames: int
) -> Iterator[Tensor]:
    """Yield every frame from the first of a clip, whose frames have those numbers, to its last."""
    yield from _without_last(clip, numbers, finer, fill, batch, frames)
    yield clip[:, :, -1:]


def _without_last(
    clip: Tensor, numbers: list[int], finer: Sequence[int], fill: Fill, batch: int, frames: int
) -> Iterator[Tensor]:
    """Yield every frame from the first of a clip to the one before its last, which is the next clip's first."""
    if len(numbers) == 1:
        return
    if not finer:
        yield clip[:, :, :-1]
        return
    pairs = [pair for pair in pairwise(numbers) if pair[0] < frames - 1]  # a gap that begins at the end is not filled
    for start in range(0, len(pairs), batch):
        segments = [even_frames(*pair, finer[0]) for pair in pairs[start : start + batch]]
        ends = [clip[:, :, start + i : start + i + 2] for i in range(len(segments))]
        for filled, segment in zip(_filled(ends, segments, fill, finer[0]), segments, strict=True):
            yield from _without_last(filled, segment, finer[1:], fill, batch, frames)
    if len(pairs) < len(numbers) - 1:
        yield clip[:, :, len(pairs) : len(pairs) + 1]


def _filled(ends: list[Tensor], segments: list[list[int]], fill: Fill, stride: int) -> list[Tensor]:
    """Fill the segments, those of one length together; a segment of two neighbours is its own clip."""
    clips = dict(enumerate(ends))
    for length in sorted({len(segment) for segment in segments} - {2}):
        which = [i for i, segment in enumerate(segments) if len(segment) == length]
        filled = fill(torch.cat([ends[i] for i in which]), [segments[i] for i in which], stride)
        clips |= dict(zip(which, torch.split(filled, 1), strict=True))
    return [clips[i] for i in range(len(ends))]


def refine_transitions(
    parts: Iterable[Tensor], clips: Sequence[tuple[int, int]], regenerate: Callable[[Tensor, int], Tensor]
) -> Iterator[Tensor]:
    """Yield the parts of a video in order, with some clips of it made again as soon as all their frames are there.

    Args:
        parts: (b, c, n, h, w) each.
        clips: (first frame, the one after the last) of each, in order, without overlap.
        regenerate: ``regenerate(clip, first)`` -> the new clip, of the same shape.
    """
    waiting, first, held = list(clips), 0, None
    for part in parts:
        held = part if held is None else torch.cat([held, part], dim=2)
        while waiting and first + held.shape[2] >= waiting[0][1]:
            start, end = (number - first for number in waiting.pop(0))
            yield torch.cat([held[:, :, :start], regenerate(held[:, :, start:end], first + start)], dim=2)
            first, held = first + end, held[:, :, end:]
        ready = waiting[0][0] - first if waiting else held.shape[2]
        ready = min(ready, held.shape[2])
        if ready > 0:
            yield held[:, :, :ready]
            first, held = first + ready, held[:, :, ready:]
