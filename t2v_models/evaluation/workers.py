"""Videos and stories made and judged by several processes: on a processor, two with a core each do more than one with two."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import T2VError
from .run import Answer, answers
from .scoring import Question
from .stories import Tale, Verdict, judge

T = TypeVar("T")

MOST = 8
"""Processes at most: each holds the model."""

_PIPELINES: dict[str, Any] = {}
"""What this process has loaded."""


def usual_jobs(device: str) -> int:
    """How many processes suit a device: one for each core of a processor, one for a GPU."""
    return 1 if torch.device(device).type != "cpu" else max(1, min(MOST, torch.get_num_threads()))


def answer(asked: tuple[Sequence[Question], dict[str, Any]], model: str, device: str) -> list[Answer]:
    """Make and score the videos of a batch. asked: the questions, and what the pipeline is called with besides."""
    part, call = asked
    pipeline = _pipeline(model, device)
    return list(answers(lambda prompts, seed: pipeline(prompts, seed=seed, **call).frames, part, batch=len(part)))


def tell(tale: Tale, model: str, device: str, call: dict[str, Any]) -> tuple[Verdict, Tensor]:
    """Make and judge a story; its verdict and every fourth frame. call: for the film."""
    from ..films.film import Film

    frames = tale.length * len(tale.scenes)
    film = Film(_pipeline(model, device), tale.text, frames=frames, seed=tale.seed, **call)
    video = torch.cat(list(film.frames()))
    return judge(tale, video), video[::4].clone()


def spread(work: Callable[[Any], T], given: Sequence[Any], jobs: int) -> Iterator[T]:
    """``work(each)`` for all that is given, in order, by so many processes; by this one where that is enough.

    Raises:
        T2VError: where the system ends one of them.
    """
    if jobs == 1 or len(given) < 2:
        yield from map(work, given)
        return
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(given)), context, initializer=_begin, initargs=(threads,)) as pool:
        try:
            yield from map(pickle.loads, pool.map(partial(_pickled, work), given))
        except BrokenProcessPool as error:
            raise T2VError(
                "The system has ended one of the processes, as a rule for want of memory: ask for a smaller --batch or "
                "fewer --jobs."
            ) from error


def _pickled(work: Callable[[Any], Any], each: Any) -> bytes:
    """Pickled here: torch would hand each tensor over in a shared file of its own, of which there are few."""
    return pickle.dumps(work(each))


def _begin(threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def _pipeline(model: str, device: str) -> Any:
    if model not in _PIPELINES:
        from ..loading import load_pipeline

        _PIPELINES[model] = load_pipeline(model, dtype=torch.float32, device=device)
    return _PIPELINES[model]
