"""``evaluate``: how well the built-in model, or another of its world, follows its prompts."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..builtin_model import BUILT_IN, IMAGE_BUILT_IN
from ..errors import T2VError
from . import need_package
from .device import add_device, check_device

if TYPE_CHECKING:
    from typing import TypeAlias

    from ..evaluation.run import Answer
    from ..evaluation.scoring import Question

    Rounds: TypeAlias = list[tuple[list[Question], dict[str, Any]]]

GROUPS = {"plain": 200, "held out": 60, "other": 60, "pairs": 40, "unguided": 24}
SHORTEST = 8
"""Frames in which what moves slowly goes farther than what stands still may."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's options."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure how well the built-in model follows its prompts",
        description="Make a few hundred videos and measure, by plain image analysis, whether colour, shape, motion, "
        "background and number of objects are what the prompt says. Prints a table and writes results.csv, sheet.png "
        "and plot.png; stories go to stories.png, videos of pictures to images.png, zero-shot "
        "videos to zero_shot.png. Where one group is named, those that "
        "are not named are left out.",
    )
    parser.add_argument(
        "--model", default=BUILT_IN, metavar="PATH", help=f'a model of this world; default "{BUILT_IN}"'
    )
    parser.add_argument("--plain", type=int, metavar="N", help="prompts with one object that moves straight (200)")
    parser.add_argument("--held-out", type=int, metavar="N", help="the same, combinations never trained on (60)")
    parser.add_argument("--other", type=int, metavar="N", help="diagonals, bounces, spins, grows, shrinks (60)")
    parser.add_argument("--pairs", type=int, metavar="N", help="two objects (40)")
    parser.add_argument("--unguided", type=int, metavar="N", help="of those with two objects, with guidance 1 (24)")
    parser.add_argument("--schedulers", type=int, default=0, metavar="N", help="plain prompts for every scheduler (0)")
    parser.add_argument("--stories", type=int, default=0, metavar="N", help="long videos of four scenes (0)")
    parser.add_argument("--method", metavar="NAME", help="how the stories are made (windows); see generate")
    parser.add_argument("--images", type=int, default=0, metavar="N", help="pictures, each animated in every way (0)")
    parser.add_argument(
        "--way",
        action="append",
        metavar="NAME",
        help="only this way from pictures to videos, which then gets all pictures even if it takes long; may be given "
        "several times",
    )
    parser.add_argument(
        "--zero-shot",
        type=int,
        nargs="?",
        const=48,
        default=0,
        metavar="N",
        help=f'zero-shot videos of an image model, with and without its anchors (48 of the "{IMAGE_BUILT_IN}")',
    )
    parser.add_argument("--steps", type=int, help="denoising steps; default the model's")
    parser.add_argument("--guidance", type=float, metavar="SCALE", help="default the model's")
    parser.add_argument("--scheduler", metavar="NAME", help="default the model's")
    parser.add_argument("--frames", type=int, help="default the model's")
    parser.add_argument("--seed", type=int, default=0, help="which prompts are asked (default 0)")
    add_device(parser)
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="videos made at a time (default 4)")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="processes that make them; default one for each core, up to 8"
    )
    parser.add_argument("--truth", action="store_true", help="score drawn videos instead: a check of the analysis")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("evaluation"), metavar="FOLDER", help="where the pictures go"
    )
    parser.set_defaults(func=run, save_memory="ask for a smaller --batch or fewer --jobs")


def run(args: argparse.Namespace) -> str:
    """Evaluate; returns the table."""
    need_package("evaluation", "evaluate")
    _check_options(args)
    check_device(args.device)

    from tqdm import tqdm

    from ..evaluation import report
    from ..evaluation.run import summarise
    from ..evaluation.workers import usual_jobs

    jobs = args.jobs or usual_jobs(args.device)
    rounds = _rounds(args)
    options = {
        "steps": args.steps,
        "guidance_scale": args.guidance,
        "scheduler": args.scheduler,
        "frames": args.frames,
    }
    _check(args, rounds, options)
    args.output.mkdir(parents=True, exist_ok=True)
    answers = _answers(args, rounds, options, jobs)
    paragraphs = []
    if answers:
        summaries = summarise(answers)
        report.write_csv(answers, args.output / "results.csv")
        report.contact_sheet(answers, args.output / "sheet.png")
        report.plot(summaries, answers, args.output / "plot.png")
        paragraphs = [report.table(summaries), f"results.csv, sheet.png and plot.png are in {args.output}."]
    for count, make in ((args.images, _pictured), (args.stories, _stories), (args.zero_shot, _zero_shot)):
        if count:
            for each in paragraphs:  # shown now, as what follows takes long and may be stopped
                tqdm.write(f"{each}\n")
            paragraphs = [make(args, jobs)]
    return "\n\n".join(paragraphs)


def _check_options(args: argparse.Namespace) -> None:
    """Refuse options that are wrong by themselves; `args.method` becomes the usual one where it is not given."""
    counts = [getattr(args, group.replace(" ", "_")) for group in GROUPS]
    if (
        any(
            count is not None and count < 0
            for count in (*counts, args.schedulers, args.stories, args.images, args.zero_shot)
        )
        or args.batch < 1
        or (args.jobs is not None and args.jobs < 1)
    ):
        raise T2VError(
            "A number of prompts is negative, or --batch or --jobs less than 1: give 0 prompts to leave a group out."
        )
    if args.output.exists() and not args.output.is_dir():
        raise T2VError(f"--output is {args.output}, a file: a folder is wanted.")
    if args.output.exists() and not os.access(args.output, os.W_OK):
        raise T2VError(f"--output is {args.output}, which is not writable: choose another folder.")

    from ..arguments import checked_scale, checked_seed
    from ..films.settings import METHODS
    from ..sampling.schedulers import check_scheduler

    if args.scheduler is not None:
        check_scheduler(args.scheduler)
    if args.method is not None and not args.stories:
        raise T2VError("--method is given without --stories: other videos are made in one pass, so leave it out.")
    args.method = args.method or "windows"
    if args.method not in METHODS:
        raise T2VError(f"--method is {args.method!r}: choose one of {', '.join(METHODS)}.")
    _check_ways(args)
    checked_seed(args.seed)
    checked_scale(1.0 if args.guidance is None else args.guidance)


def _rounds(args: argparse.Namespace) -> Rounds:
    """What is asked, and with which options besides the usual ones."""
    from dataclasses import replace

    from ..evaluation.scoring import questions
    from ..sampling.schedulers import SCHEDULERS

    given = {group: getattr(args, group.replace(" ", "_")) for group in GROUPS}
    named = (
        any(count is not None for count in given.values())
        or args.schedulers
        or args.stories
        or args.images
        or args.zero_shot
    )
    counts = {
        group: (0 if named else usual) if given[group] is None else given[group] for group, usual in GROUPS.items()
    }
    unguided = counts.pop("unguided")
    asked = questions({group: count for group, count in counts.items() if count}, args.seed)
    rounds: Rounds = [(asked, {})] if asked else []
    if unguided:
        pairs = [question for question in asked if question.group == "pairs"]
        again = pairs[:unguided] if len(pairs) >= unguided else questions({"pairs": unguided}, args.seed)
        rounds.append(([replace(q, group="guidance 1") for q in again], {"guidance_scale": 1.0}))
    if args.schedulers:
        again = questions({"plain": args.schedulers}, args.seed)
        rounds += [([replace(q, group=name) for q in again], {"scheduler": name}) for name in SCHEDULERS]
    if not rounds and not args.stories and not args.images and not args.zero_shot:
        raise T2VError("Every group has 0 prompts: ask for at least one.")
    return rounds


def _answers(args: argparse.Namespace, rounds: Rounds, options: dict[str, Any], jobs: int) -> list[Answer]:
    """Make and score all videos that are asked for."""
    from tqdm import tqdm

    from ..evaluation.run import answers, batches, truth
    from ..evaluation.workers import make_videos, spread

    made: Iterable[list[Answer]]
    if args.truth:
        made = ([each] for group, _ in rounds for each in answers(truth(group), group, batch=args.batch))
    else:
        parts = [(part, {**options, **changes}) for group, changes in rounds for part in batches(group, args.batch)]
        made = spread(partial(make_videos, model=args.model, device=args.device), parts, jobs)
    given = []
    with tqdm(total=sum(len(group) for group, _ in rounds), desc="videos", unit="", disable=not rounds) as bar:
        for part in made:
            given += part
            bar.update(len(part))
    return given


def _check(args: argparse.Namespace, rounds: Rounds, options: dict[str, Any]) -> None:
    """Refuse now what would be found wrong, or found to be ignored, after minutes of work."""
    from ..loading import load_pipeline
    from ..request import Request
    from ..sampling.solvers import make_solver

    if args.truth:
        given = [f"--{name.split('_')[0]}" for name, value in options.items() if value is not None]
        given += ["--model"] * (args.model != BUILT_IN) + ["--stories"] * bool(args.stories)
        given += ["--schedulers"] * bool(args.schedulers) + ["--images"] * bool(args.images)
        given += ["--zero-shot"] * bool(args.zero_shot)
        if given:
            raise T2VError(f"--truth draws clips of the world's own and makes none: leave {', '.join(given)} out.")
        return
    if args.frames is not None and args.frames < SHORTEST:
        raise T2VError(f"--frames is {args.frames}: a motion shows from {SHORTEST} frames on, 16 are usual.")
    if args.stories and args.scheduler not in (None, "ddim"):
        raise T2VError(f"--scheduler is {args.scheduler!r}: stories are made with ddim, so leave it or --stories out.")
    if args.images:
        _check_pictures(args)
    if args.zero_shot:
        _check_zero_shot(args, rounds)
        return
    if args.stories and args.frames is not None and not rounds:
        raise T2VError("--frames is given, but a story's scenes have 16 frames each: leave it out.")
    pipeline = load_pipeline(args.model, device="cpu")  # what is wrong with it is said here, once
    Request.checked(pipeline, frames=args.frames, steps=args.steps)
    for _, changes in rounds:
        name = (options | changes)["scheduler"] or pipeline.defaults.scheduler
        make_solver(name, pipeline.schedule, args.steps or pipeline.defaults.steps, [])


def _check_ways(args: argparse.Namespace) -> None:
    """Refuse ways that do not exist, or that are given without pictures."""
    from ..evaluation.pictures import WAYS

    if args.way and not args.images:
        raise T2VError("--way is given without --images: it says what is made of pictures, so leave it out.")
    for name in args.way or ():
        if name not in WAYS:
            raise T2VError(f"--way is {name!r}: choose one of {', '.join(WAYS)}.")


def _check_pictures(args: argparse.Namespace) -> None:
    """Refuse what videos of pictures do not take."""
    for name in ("scheduler", "frames", "steps"):
        if (value := getattr(args, name)) is not None:
            raise T2VError(f"--{name} is {value}: each way from pictures to videos has its own, so leave it out.")


def _pictured(args: argparse.Namespace, jobs: int) -> str:
    """Make and judge videos of pictures; returns their table, and draws each as a row of frames to images.png."""
    from tqdm import tqdm

    from ..evaluation import pictures, report
    from ..evaluation.workers import make_pictured, spread

    asked = pictures.asked(args.images, args.seed)
    ways = [pictures.WAYS[name] for name in args.way or pictures.WAYS]
    # also a way that gets few pictures gets some of all kinds, which follow each other in groups
    parts = [(way, q) for way in ways for q in asked[:: 1 if args.way else way.every]]
    call = {"guidance_scale": args.guidance}
    made = spread(partial(make_pictured, model=args.model, device=args.device, call=call), parts, jobs)
    given = list(tqdm(made, total=len(parts), desc="videos of pictures", unit=""))
    rows = [(f"{v.way.name}: {v.question.prompt[:48]}", v.shown, v.kept and v.right["all"]) for v in given]
    report.strips(rows, args.output / "images.png", columns=3)
    return pictures.table(given)


def _check_zero_shot(args: argparse.Namespace, rounds: Rounds) -> None:
    """Refuse what image models do not take, and load one, so that what is wrong with it is said at once."""
    from ..zero_shot.loading import load_zero_shot

    if rounds or args.stories or args.images:
        raise T2VError("--zero-shot is for image models, and other groups are for video models: ask for one of them.")
    if args.frames is not None:
        raise T2VError(f"--frames is {args.frames}: zero-shot videos are judged by 8 frames, so leave it out.")
    options = {"steps": args.steps, "guidance_scale": args.guidance, "scheduler": args.scheduler}
    load_zero_shot(_image_model(args), device="cpu").request("", **options)


def _image_model(args: argparse.Namespace) -> str:
    return IMAGE_BUILT_IN if args.model == BUILT_IN else str(args.model)


def _zero_shot(args: argparse.Namespace, jobs: int) -> str:
    """Make and judge zero-shot videos; returns their table, and draws each as a row of frames to zero_shot.png."""
    from tqdm import tqdm

    from ..evaluation import report, zero_shot
    from ..evaluation.workers import make_zero_shot, spread

    asked = {
        "named": zero_shot.asked(args.zero_shot, args.seed),
        "left open": zero_shot.asked(max(1, args.zero_shot // 2), args.seed, named=False),
    }
    options = {"steps": args.steps, "guidance_scale": args.guidance, "scheduler": args.scheduler}
    groups, rows = {}, []
    for (kind, questions), anchored in product(asked.items(), (True, False)):
        name = f"{kind}, {'with' if anchored else 'without'} anchors"
        make = partial(make_zero_shot, model=_image_model(args), device=args.device, anchored=anchored, call=options)
        made = spread(make, questions, jobs)
        groups[name] = list(tqdm(made, total=len(questions), desc=name, unit=""))
        rows += [(f"{name}: {v.question.prompt}", v.frames, v.right["colour and shape"]) for v in groups[name]]
    report.strips(rows, args.output / "zero_shot.png", columns=2)
    return zero_shot.table(groups)


def _stories(args: argparse.Namespace, jobs: int) -> str:
    """Make and judge stories; returns their table, and draws each as a row of frames to stories.png."""
    from tqdm import tqdm

    from ..evaluation import report, stories
    from ..evaluation.workers import make_story, spread

    asked = stories.tales(args.stories, seed=args.seed)
    call = {"steps": args.steps, "guidance_scale": args.guidance, "method": args.method}
    made = spread(partial(make_story, model=args.model, device=args.device, call=call), asked, jobs)
    given = list(tqdm(made, total=len(asked), desc="stories", unit=""))
    rows = [(" / ".join(verdict.tale.text.splitlines()), frames, verdict.whole) for verdict, frames in given]
    report.strips(rows, args.output / "stories.png")
    return stories.table([verdict for verdict, _ in given])
