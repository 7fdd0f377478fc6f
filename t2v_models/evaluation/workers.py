"""Make and score videos in several processes: on a CPU, two of one thread each are faster than one of two threads."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import T2VError
from .pictures import Verdict as PictureVerdict
from .pictures import Way, drawn
from .pictures import judge as judge_pictured
from .run import Answer, answers
from .scoring import Question
from .stories import Tale, Verdict, judge
from .zero_shot import FRAMES
from .zero_shot import Question as ZeroShotQuestion
from .zero_shot import Verdict as ZeroShotVerdict
from .zero_shot import judge as judge_zero_shot

T = TypeVar("T")

MOST = 8
"""Most processes; each of them holds the model."""

_PIPELINES: dict[str, Any] = {}
"""Models that this process has loaded, by name."""


def usual_jobs(device: str) -> int:
    """Return the default number of processes: one for each core of a CPU, one for a GPU."""
    return 1 if torch.device(device).type != "cpu" else max(1, min(MOST, torch.get_num_threads()))


def make_videos(given: tuple[Sequence[Question], dict[str, Any]], model: str, device: str) -> list[Answer]:
    """Make and score the videos of a batch. given: the questions, and the other arguments of the pipeline."""
    part, call = given
    pipeline = _pipeline(model, device)
    return list(answers(lambda prompts, seed: pipeline(prompts, seed=seed, **call).frames, part, batch=len(part)))


def make_story(tale: Tale, model: str, device: str, call: dict[str, Any]) -> tuple[Verdict, Tensor]:
    """Make and evaluate a story; returns its verdict and every fourth frame. call: arguments of the film."""
    from ..films.film import Film

    frames = tale.length * len(tale.scenes)
    film = Film(_pipeline(model, device), tale.text, frames=frames, seed=tale.seed, **call)
    video = torch.cat(list(film.frames()))
    return judge(tale, video), video[::4].clone()


def make_pictured(given: tuple[Way, Question], model: str, device: str, call: dict[str, Any]) -> PictureVerdict:
    """Make a video of a question's pictures in some way, and evaluate it. call: other arguments of the pipeline."""
    way, question = given
    pipeline = copy(_pipeline(model, device))
    if not way.frame_timesteps:
        pipeline.family = replace(pipeline.family, frame_timesteps=False)
    own = pipeline.defaults
    clip = drawn(question, own.frames, own.width)
    pictures = {"image": clip[0], "end_image": clip[-1]}
    ends = {end: pictures[end] for end in way.ends}
    begun = time.perf_counter()
    made = pipeline(question.prompt, seed=question.seed, image_method=way.method, **ends, **call, **way.options)
    return judge_pictured(way, question, made.frames[0], time.perf_counter() - begun)


def make_zero_shot(
    question: ZeroShotQuestion, model: str, device: str, anchored: bool, call: dict[str, Any]
) -> ZeroShotVerdict:
    """Make a zero-shot video, and evaluate it.

    Args:
        anchored: whether self-attention looks at the anchors; else each frame looks at itself.
        call: arguments of the pipeline.
    """
    pipeline = _zero_shot_pipeline(model, device, anchored)
    frames = pipeline(question.prompt, frames=FRAMES, motion=question.motion, seed=question.seed, **call)
    return judge_zero_shot(question, frames)


def spread(work: Callable[[Any], T], given: Sequence[Any], jobs: int) -> Iterator[T]:
    """Yield ``work(each)`` for all that is given, in order, from several processes, or from this one if `jobs` is 1.

    Raises:
        T2VError: if the system ends one of the processes.
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
    """Pickle the result here: torch would pass each tensor in a shared file of its own, and their number is limited."""
    return pickle.dumps(work(each))


def _begin(threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def _pipeline(model: str, device: str) -> Any:
    if model not in _PIPELINES:
        from ..loading import load_pipeline

        _PIPELINES[model] = load_pipeline(model, dtype=torch.float32, device=device)
    return _PIPELINES[model]


def _zero_shot_pipeline(model: str, device: str, anchored: bool) -> Any:
    key = f"{model} {'anchored' if anchored else 'plain'}"
    if key not in _PIPELINES:
        from ..zero_shot.loading import load_zero_shot

        pipeline = load_zero_shot(model, dtype=torch.float32, device=device)
        if not anchored:
            unet = pipeline.pipe.unet
            unet.set_attn_processor({name: each.inner for name, each in unet.attn_processors.items()})
        _PIPELINES[key] = pipeline
    return _PIPELINES[key]
