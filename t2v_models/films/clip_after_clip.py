"""Films of a model that makes clips of pictures: each clip begins with the last frame of the one before."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from ..errors import T2VError
from ..families import Family
from .job import FilmJob
from .model import ClipMaker, codec_of
from .settings import CLIP_AFTER_CLIP
from .work import Work


def by_clip_after_clip(job: FilmJob) -> Iterator[Tensor]:
    """Animate the picture, and then the last frame of every clip, with the texts of the clip's part of the story.

    Each clip has the model's own length and a seed of its own: the film's plus the clip's number. The first frame of a
    later clip repeats the last one before it, and is left out.
    """
    length, frames, codec = job.model.defaults.frames, job.shape[2], codec_of(job.model)
    starts = range(0, max(1, frames - 1), length - 1)
    work, picture = Work(job, len(starts) * job.settings.steps), job.image
    for number, start in enumerate(starts):
        clip = work.once(f"clip-{number}", partial(_clip, job, picture, number, start, work), job.settings.steps)
        job.show(partial(clip.clone))
        yield clip[:, :, int(number > 0) : frames - start]
        picture = torch.cat(list(codec.decode(clip[0, :, -1:])))[-1]


def _clip(job: FilmJob, picture: Tensor | None, number: int, start: int, work: Work) -> Tensor:
    """The latents of one clip, (1, 4, t, h/8, w/8), whose first frame is number `start` of the film."""
    model, settings, done = job.model, job.settings, work.done
    if not isinstance(model, ClipMaker):
        raise T2VError(f"{model.family.title} makes clips of a picture, and is given no way to make them here.")
    length = model.defaults.frames
    video = model(
        story=job.story.part(start, length),
        image=picture,
        motion=job.fps if model.config.fps_embedding else None,
        frames=length,
        height=8 * job.shape[3],
        width=8 * job.shape[4],
        steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        seed=(settings.seed + number) % 2**63,
        progress=lambda step, steps: work.reach(done + step * settings.steps // steps),
        decode=False,
    )
    latents: Tensor = video.latents
    return latents.cpu()


def check_clip_after_clip(family: Family, method: str, *, pictured: bool, looped: bool) -> None:
    """Raise T2VError where no film can be made of the model's clips.

    Args:
        family: the model's.
        method: which was asked for.
        pictured: whether the film has a picture to begin with.
        looped: whether it is to lead back to its beginning.
    """
    if family.image_latents == "ends":
        raise T2VError(
            f"{family.title} makes clips between two pictures, and a film has one: give the pictures to between_images, each "
            "as an --image of the command line, or load a model that begins with one."
        )
    if not pictured:
        raise T2VError(
            f"{family.title} makes videos of a picture: give one by image=, or choose a text-to-video model."
        )
    if method != CLIP_AFTER_CLIP:
        raise T2VError(
            f"The method is {method!r}, and films of {family.title} are made by {CLIP_AFTER_CLIP!r} only: leave it out."
        )
    if looped:
        raise T2VError(f"The windows are looped, and {CLIP_AFTER_CLIP} makes no loop: leave them out.")
