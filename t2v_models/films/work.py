"""How much of a film is done."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .job import FilmJob


class Work:
    """Progress of a film, counted in clips that went through the model once; what the store has counts as done.

    Args:
        job: the film, whose progress is reported and whose store is used.
        total: clips in all.
    """

    def __init__(self, job: FilmJob, total: int) -> None:
        self.job, self.total, self.done = job, total, 0

    def add(self, clips: int) -> None:
        """Count so many clips more."""
        self.done += clips
        self.job.tick(self.done, self.total)

    def reach(self, done: int) -> None:
        """Count up to at least so many clips."""
        if self.done < done:
            self.add(done - self.done)

    def once(self, name: str, make: Callable[[], Tensor], clips: int) -> Tensor:
        """Return the latents stored under a name; where there are none, make and store them, which takes so many clips."""
        end = self.done + clips
        latents = self.job.store.once(name, make)
        self.reach(end)
        return latents
