"""``train-builtin``: make the built-in models again, from a seed."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ..errors import T2VError
from . import need_package
from .device import add_device, check_device


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's options."""
    parser = subparsers.add_parser(
        "train-builtin",
        help="train a model like the built-in one, from a seed",
        description="Train the built-in model on generated clips: an autoencoder, a text encoder, the 3D UNet between "
        "them, then the decoder once more; or, by --image, the UNet of single pictures for zero-shot video. Stop it at any "
        "time: the same command goes on where it was.",
    )
    parser.add_argument(
        "--image", action="store_true", help="train the image model, with the built-in model's text encoder and decoder"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        help="where the model goes; default output/builtin, with --image output/builtin_image",
    )
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER", help="unfinished stages and loss.png; default OUTPUT-training"
    )
    parser.add_argument("--seed", type=int, default=0)
    add_device(parser)
    parser.add_argument("--threads", type=int, default=2, help="processor cores to use (default 2)")
    parser.add_argument(
        "--steps", type=int, metavar="N", help="steps of the denoiser before its finish; default the recipe's"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="shorten every stage: 0.001 for a try (default 1)")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> str:
    """Train; returns where things are."""
    need_package("training", "train-builtin")
    if args.threads < 1 or (args.steps is not None and args.steps < 1) or not 0 < args.scale <= 1:
        raise T2VError("--threads and --steps must be at least 1, --scale more than 0 and at most 1.")
    args.output = args.output or Path("output/builtin_image" if args.image else "output/builtin")
    if args.output.exists() and not args.output.is_dir():
        raise T2VError(f"--output is {args.output}, a file: a folder is wanted.")

    work = args.work or Path(f"{args.output.resolve()}-training")
    if work.resolve() == args.output.resolve():
        raise T2VError(
            f"--work and --output are both {work}: give two folders, for unfinished stages and for the model."
        )

    check_device(args.device)

    import torch

    from ..arguments import checked_seed

    checked_seed(args.seed, videos=1_000_000)  # parts count on from it
    torch.set_num_threads(args.threads)
    picture = (_train_image if args.image else _train)(args, work)
    kind = " --zero-shot" if args.image else ""
    return f"The model is in {args.output}, its loss curves are in {picture}. Try it:{kind} --model {args.output}"


def _train(args: argparse.Namespace, work: Path) -> Path:
    from ..training.builtin.recipe import Recipe, train_builtin

    recipe = Recipe()
    if args.steps is not None:
        recipe = replace(recipe, denoiser=recipe.denoiser.over(args.steps))
    return train_builtin(work, args.output, recipe.scaled(args.scale), seed=args.seed, device=args.device)


def _train_image(args: argparse.Namespace, work: Path) -> Path:
    from ..training.builtin.image import ImageRecipe, train_image

    recipe = ImageRecipe()
    if args.steps is not None:
        recipe = replace(recipe, schedule=recipe.schedule.over(args.steps))
    return train_image(work, args.output, recipe.scaled(args.scale), seed=args.seed, device=args.device)
