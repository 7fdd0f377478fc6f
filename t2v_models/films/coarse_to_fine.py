"""A film from coarse to fine: key frames, what lies between them, and the changes of scene once more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from ..sampling.keyframes import (
    calls_between,
    coarse_to_fine,
    film_strides,
    key_numbers,
    loop_strides,
    motion_jump_ratio,
    refine_transitions,
    sample_between,
    segment_count,
)
from ..sampling.scenes import Story
from ..sampling.windows import fuse
from .guided_model import GuidedModel
from .job import FilmJob
from .work import Work

KEY_FRAMES_PER_SCENE = 4
"""Key frames in the shortest scene of a story, as far as one window holds them: fewer do not show which way things go."""

SKIPPED_STEPS = 0.2
"""Share of the steps that is left out where a change of scene is made again: a little of what was there stays."""

USUAL_SPEED_GAP = 3
"""Gaps of at most so many frames are filled without a word for the speed. The words "fast" and "slowly" are 3 times the
usual speed and 0.3 times: at a speed too high for the key frames, an object overshoots and comes back at a slant."""

Numbers = Sequence[Sequence[int]]
"""Of each clip the frames' numbers in the film."""


def by_coarse_to_fine(job: FilmJob) -> Iterator[Tensor]:
    """Make key frames first, then the frames between them.

    1. Key frames lie so close that the shortest scene has `KEY_FRAMES_PER_SCENE` of them. Of several candidates the one
       whose motion jumps least is taken, since later steps cannot mend a jump. A loop's key frames are one ring, denoised
       in windows that begin at another frame at every step.
    2. The gaps between key frames are filled by clips with fixed ends, stride by stride down to 1. A loop's last gap ends
       at its first frame.
    3. Between key frames things move fast for the model, in a gap slowly. So it gets a word for the speed, if it has
       learned one, and a frame rate lower by the stride, if it has an embedding for that.
    4. A model that takes known frames clean (a timestep for every frame) fills gaps without guidance: the frames say more
       than the text, and guidance would speed things up.
    5. Around each change of scene one clip is noised and made again at full frame rate, so that one scene leads to the
       next. A loop's change from its last scene to its first stays as it is: its beginning is handed out too early.

    Finished clips go to the job's store.
    """
    film = _CoarseToFine(job)
    parts = coarse_to_fine(
        job.shape[2], film.strides, film.key_frames, film.fill, batch=job.settings.batch, looped=film.looped
    )
    yield from refine_transitions(parts, film.changes, film.regenerate)


class _CoarseToFine:
    """The plan of a film from coarse to fine, and the steps that make its clips."""

    def __init__(self, job: FilmJob) -> None:
        settings, frames, family = job.settings, job.shape[2], job.model.family
        self.job, self.looped = job, settings.window.looped
        self.known_clean = family.frame_timesteps
        self.strides = self._strides()
        speeds = speed_words(self.strides, *family.speed_words) if family.speed_words else [""] * len(self.strides)
        self.models = {
            stride: job.guided_model(speed, stride, guided=stride == self.strides[0] or not family.frame_timesteps)
            for stride, speed in zip(self.strides, speeds, strict=True)
        }
        self.changes = scene_changes(job.story, settings.window.length) if len(self.strides) > 1 else []

        # a loop's key frames are one ring, seen in windows that begin elsewhere at every step
        window, count = settings.window, len(key_numbers(frames, self.strides[0], looped=True)) - 1
        self.ring = replace(window, length=count, overlap=count * window.overlap // window.length, frames=count)
        self.rounds = [self.ring.spans(i) for i in range(settings.steps)] if self.looped else []
        self.key_resample = 0 if job.image is None or self.known_clean else settings.resample

        # the work, in clips that go through the model
        self.skipped = round(SKIPPED_STEPS * settings.steps)
        self.key_frames_cost = settings.candidates * sum(
            (len(self.rounds[i]) if self.looped else 1) * (1 + self.key_resample * (i + 1 < settings.steps))
            for i in range(settings.steps)
        )
        self.segment_cost = self._calls(settings.steps)
        self.change_cost = self._calls(settings.steps - self.skipped)
        segments = segment_count(frames, self.strides, looped=self.looped)
        total = self.key_frames_cost + segments * self.segment_cost + len(self.changes) * self.change_cost
        self.work = Work(job, total)

    def _strides(self) -> list[int]:
        frames, window = self.job.shape[2], self.job.settings.window.length
        if self.looped:
            return loop_strides(frames, window)
        shortest = min(scene.end - scene.start for scene in self.job.story.scenes)
        return film_strides(frames, window, max(1, shortest / KEY_FRAMES_PER_SCENE))

    def _calls(self, steps: int) -> int:
        return calls_between(steps, known_clean=self.known_clean, resample=self.job.settings.resample)

    def key_frames(self, numbers: Sequence[int]) -> Tensor:
        """The key frames with these numbers, (1, 4, n, h, w): of several candidates the steadiest."""
        shape, count = self.job.shape, self.job.settings.candidates
        model, nothing = self.models[self.strides[0]], torch.zeros(count, shape[1], len(numbers), *shape[3:])

        def steadiest() -> Tensor:
            held = self.job.held(nothing, numbers)
            clips = self._sample(model, held.clean, held.known, [numbers] * count, [0], ring=self.looped)
            closed = torch.cat([clips, clips[:, :, :1]], dim=2) if self.looped else clips
            return clips[motion_jump_ratio(closed).argmin()][None]

        return self.work.once("keys", steadiest, self.key_frames_cost)

    def fill(self, ends: Tensor, numbers: Numbers, stride: int) -> Tensor:
        """Clips of these frames between their ends, (b, 4, 2, h, w) -> (b, 4, n, h, w)."""
        first, known = numbers[0][0], _ends(len(numbers[0]))
        clean = ends.new_zeros(*ends.shape[:2], len(known), *ends.shape[3:])
        clean[:, :, known] = ends
        make = partial(self._sample, self.models[stride], clean, known, numbers, [stride, first])
        return self.work.once(f"stride-{stride}-from-{first}", make, len(numbers) * self.segment_cost)

    def regenerate(self, clip: Tensor, first: int) -> Tensor:
        """The clip around a change of scene, made again between its ends: (1, 4, n, h, w), from frame `first` on."""
        numbers, known = [range(first, first + clip.shape[2])], _ends(clip.shape[2])
        make = partial(self._sample, self.models[1], clip, known, numbers, [0, first], repaint=True)
        return self.work.once(f"change-from-{first}", make, self.change_cost)

    def _sample(
        self,
        model: GuidedModel,
        clean: Tensor,
        known: Tensor,
        numbers: Numbers,
        key: Sequence[int],
        repaint: bool = False,
        ring: bool = False,
    ) -> Tensor:
        """Denoise clips of frames with these numbers.

        clean: (b, 4, n, h, w), and known: (n,), see `sample_between`; key: of the noise, see `FilmJob.noise`; ring: the
        clips are a loop's key frames, seen in windows.
        """
        generator, at = self.job.noise(*key), torch.tensor([list(each) for each in numbers])
        at = at % self.job.shape[2] if self.looped else at
        rounds = iter(self._ring_rounds() if ring else [])

        def predict(x: Tensor, timesteps: Tensor) -> Tensor:
            prediction = self._predict(model, x, timesteps, at, next(rounds, None))
            self.job.show(partial(model.clean, x, timesteps, prediction))
            return prediction

        return sample_between(
            predict,
            torch.randn(clean.shape, generator=generator),
            known,
            clean,
            model.timesteps[self.skipped if repaint else 0 :],
            model.schedule,
            known_clean=self.known_clean,
            repaint=repaint,
            resample=self.job.settings.resample if known.any() else 0,
            generator=generator,
        )

    def _ring_rounds(self) -> Iterator[list[list[int]]]:
        """The windows over a loop's key frames for every call of the model."""
        for i, spans in enumerate(self.rounds):
            yield from [spans] * (1 + self.key_resample * (i + 1 < len(self.rounds)))

    def _predict(
        self, model: GuidedModel, x: Tensor, timesteps: Tensor, numbers: Tensor, spans: list[list[int]] | None
    ) -> Tensor:
        """The prediction for clips x, (b, 4, n, h, w), whole or in the ring's windows of these spans."""

        def part(span: list[int]) -> Tensor:
            prediction = model(x[:, :, span].to(model.device), timesteps[:, span], numbers[:, span]).cpu()
            self.work.add(len(x))
            return prediction

        if spans is None:
            return part(list(range(x.shape[2])))
        return fuse(map(part, spans), spans, self.ring.weights, x.shape[2])


def _ends(frames: int) -> Tensor:
    """(frames,) true for the first and the last."""
    known = torch.zeros(frames, dtype=torch.bool)
    known[[0, -1]] = True
    return known


def scene_changes(story: Story, window: int) -> list[tuple[int, int]]:
    """(first frame, the one after the last) of a clip around every change of scene: a window, or less in short scenes.

    A frame belongs to the scene whose text has the largest share of it.
    """
    _, lengths = torch.unique_consecutive(story.blend().argmax(dim=1), return_counts=True)
    clips, at = [], 0
    for before, after in pairwise(lengths.tolist()):
        at += before
        half = min(window, before, after) // 2
        if half > 1:
            clips.append((at - half, at + half))
    return clips


def speed_words(strides: Sequence[int], slow: str, fast: str) -> list[str]:
    """A word for the speed at each stride: fast from key frame to key frame, and in the gaps slow, or none in short ones."""
    words = [fast] if len(strides) > 1 else [""]
    for coarse, fine in pairwise(strides):
        words.append("" if words == [fast] and coarse <= USUAL_SPEED_GAP * fine else slow)
    return words
