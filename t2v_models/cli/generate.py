"""``generate``: prompts to video files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..builtin_model import BUILT_IN
from ..errors import T2VError
from ..texts import checked_text
from .device import add_device, check_device
from .inputs import (
    add_encoders,
    add_family,
    add_loras,
    output_paths,
    read_clip,
    read_lora_option,
    read_prompts,
    read_rate,
    read_size,
    read_story,
)
from .pictures import add_image_options, check_images, image_options, read_pictures
from .zero_shot import add_zero_shot_options
from .zero_shot import check as check_zero_shot
from .zero_shot import run as run_zero_shot

if TYPE_CHECKING:
    from torch import Tensor

    from ..pipeline import Pipeline
    from ..request import Options


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's options."""
    parser = subparsers.add_parser(
        "generate",
        help="make a video of a prompt",
        description="Make a video of each prompt. Left out, a value is the model's own default.",
    )
    parser.add_argument("prompt", nargs="*", help="what the video shows; several make several videos")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="a text file with one prompt per line")
    parser.add_argument("--negative-prompt", default="", metavar="TEXT", help="what the video must not show")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("video.mp4"),
        metavar="FILE",
        help="the format follows "
        "the extension: mp4, webm, gif, png (a picture, or a folder of them) …; several prompts get numbers",
    )
    parser.add_argument(
        "--model", default=BUILT_IN, metavar="PATH", help=f'a model folder or file; "{BUILT_IN}" if left out'
    )
    add_family(parser)
    add_encoders(parser)
    add_loras(parser, "It is added to the UNet and, where it has a part for it, the text encoder")
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same video again (default 0)")
    parser.add_argument("--steps", type=int, help="denoising steps")
    parser.add_argument(
        "--guidance", type=float, metavar="SCALE", help="how closely to follow the prompt; 1: no guidance"
    )
    parser.add_argument("--frames", type=int, help="length in frames")
    parser.add_argument("--size", metavar="WxH", help="width and height in pixels, multiples of 8, such as 256x256")
    parser.add_argument(
        "--fps",
        type=read_rate,
        help="frames per second of the file, of a story's seconds and of a clip to continue; "
        "models that know frame rates are asked for it, too",
    )
    parser.add_argument(
        "--scheduler", metavar="NAME", help="ddim, euler, euler-a, heun, dpm++2m, dpm++2m-karras, unipc, lcm"
    )
    add_device(parser)
    parser.add_argument(
        "--dtype", choices=("fp32", "fp16", "bf16"), help="of the weights; default fp32 on a CPU, else fp16"
    )
    add_image_options(parser.add_argument_group("pictures"))
    _add_film_options(parser.add_argument_group("long videos"))
    add_zero_shot_options(parser.add_argument_group("videos of an image model"))
    parser.set_defaults(func=run, save_memory="ask for fewer frames or a smaller --size, or for --dtype fp16 or bf16")


def _add_film_options(film: argparse._ArgumentGroup) -> None:
    film.add_argument(
        "--story",
        type=Path,
        metavar="FILE",
        help='scenes, one per line, such as "0-2s: a red circle moves right"; see docs/long-videos.md',
    )
    film.add_argument(
        "--method",
        metavar="NAME",
        help="windows, free-noise, coarse-to-fine or endless; image-to-video models have clip-after-clip alone",
    )
    film.add_argument(
        "--continue",
        dest="clip",
        type=Path,
        metavar="FILE",
        help="a video to continue: its frames stay, --frames more follow",
    )
    film.add_argument(
        "--candidates",
        type=int,
        metavar="N",
        help="for coarse-to-fine: how many sets of key frames are made, of which the steadiest is taken (default 4)",
    )
    film.add_argument(
        "--loop", action="store_true", help="lead the end to the beginning (by coarse-to-fine, or --method windows)"
    )
    film.add_argument(
        "--resume",
        action="store_true",
        help="keep finished parts beside the output; the next run of the command continues from them",
    )


def run(args: argparse.Namespace) -> str:
    """Make the videos; returns their paths."""
    prompts = read_prompts(args) if args.story is None else [read_story(args)]
    chosen = args.method
    check_zero_shot(args)
    if args.zero_shot:
        outputs = output_paths(args.output, len(prompts))
        _check_output(args)
        return run_zero_shot(args, prompts, outputs, _Bar, _write)
    if args.method is None and (args.clip is not None or args.loop or args.story is not None):
        args.method = "endless" if args.clip is not None else "coarse-to-fine" if args.loop or args.image else "windows"
    outputs = output_paths(args.output, len(prompts))
    _check(args)
    loras = [read_lora_option(text) for text in args.lora]
    clip, rate = (None, args.fps) if args.clip is None else read_clip(args)
    pictures = read_pictures(args)

    from ..arguments import checked_seed
    from ..checkpoints.tensors import DTYPES
    from ..loading import load_pipeline

    checked_seed(args.seed, len(prompts))
    check_device(args.device)
    dtype = DTYPES[args.dtype] if args.dtype else None
    pipeline = load_pipeline(
        args.model,
        dtype=dtype,
        device=args.device,
        family=args.family,
        text_encoder=args.text_encoder,
        image_encoder=args.image_encoder,
        loras=loras,
    )
    width, height = read_size(args.size)
    options: Options = {
        "frames": args.frames,
        "width": width,
        "height": height,
        "fps": rate,
        "steps": args.steps,
        "guidance_scale": args.guidance,
    }
    if args.method is None:
        return _clips(args, pipeline, prompts, outputs, options, pictures)
    beginning = {"clip": clip, **dict(zip(["image"], pictures, strict=False))}
    if pipeline.family.image:  # whose films have a method of their own
        if args.candidates is not None:
            raise T2VError(
                f"--candidates is given, and films of {pipeline.family.title} have no key frames: leave it out."
            )
        args.method = chosen
    return _films(args, pipeline, prompts, outputs, options, beginning)


def _clips(
    args: argparse.Namespace,
    pipeline: Pipeline,
    prompts: list[str],
    outputs: list[Path],
    options: Options,
    pictures: list[Any],
) -> str:
    """Make and write a clip of each prompt, with the pictures or without any; returns their paths, one a line."""
    from ..between_images import between_images

    how: dict[str, Any] = {"scheduler": args.scheduler, **image_options(args)}
    ends = {
        name: picture for name, picture in zip(("image", "end_image"), pictures, strict=False) if picture is not None
    }
    written = []
    for i, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        options["seed"] = args.seed + i
        with _Bar(prompt) as bar:
            call: dict[str, Any] = {**how, **options, "progress": bar.show}
            if len(pictures) > 2:
                parts = between_images(pipeline, prompt, pictures, args.negative_prompt, **call)
                fps = options["fps"] or pipeline.defaults.fps
            else:
                video = pipeline(prompt, args.negative_prompt, **ends, **call)
                parts, fps = iter([video.frames[0]]), video.fps
            written.append(_write(output, parts, fps, _about(prompt, options["seed"])))
    return "\n".join(map(str, written))


def _films(
    args: argparse.Namespace,
    pipeline: Pipeline,
    prompts: list[str],
    outputs: list[Path],
    options: Options,
    beginning: dict[str, Any],
) -> str:
    """Make and write a film of each prompt, which begins with a clip, a picture, or neither; returns their paths."""
    from ..films.film import Film
    from ..films.settings import usual_windows

    how: dict[str, Any] = {"method": args.method, "image_fit": args.image_fit, **beginning}
    if args.candidates is not None:
        how["candidates"] = args.candidates
    if args.loop:
        own = pipeline.defaults.frames
        how["window"] = usual_windows(own, args.frames or own, looped=True)
    bars = [_Bar(prompt) for prompt in prompts]
    films = []  # all are checked before the first begins: a mistake in the last story is better known now
    for i, (prompt, output, bar) in enumerate(zip(prompts, outputs, bars, strict=True)):
        options["seed"] = args.seed + i
        resume = output.with_name(f"{output.name}.unfinished") if args.resume else None
        films.append(Film(pipeline, prompt, args.negative_prompt, resume=resume, progress=bar.show, **how, **options))
    written = []
    for film, prompt, output, bar in zip(films, prompts, outputs, bars, strict=True):
        with bar:
            written.append(_write(output, film.frames(), film.fps, _about(prompt, film.job.settings.seed)))
    for film in films:  # not before all are written: else a stopped command would make the first ones again
        film.finish()
    return "\n".join(map(str, written))


class _Bar:
    """A progress bar that appears where its video begins."""

    def __init__(self, prompt: str) -> None:
        self.title = " ".join(prompt.split())[:40]

    def __enter__(self) -> _Bar:
        from tqdm import tqdm

        self.bar = tqdm(desc=self.title, unit="")
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def show(self, done: int, total: int) -> None:
        """Move to done of total."""
        self.bar.total = total
        self.bar.update(done - self.bar.n)


def _about(prompt: str, seed: int) -> dict[str, str]:
    """What is written into a video's file about how it was made."""
    return {"prompt": prompt, "seed": str(seed)}


def _check(args: argparse.Namespace) -> None:
    """Refuse options that do not fit each other, or that the output file cannot hold, before a model is loaded."""
    _check_output(args)
    check_images(args)
    if args.method is not None:
        check_method(args)
    elif args.resume:
        raise T2VError(
            "--resume is given without --method, --loop or --story: only films are kept while they are unfinished."
        )
    elif args.candidates is not None:
        raise T2VError(
            "--candidates is given without --method, --loop or --story: only films have key frames, so leave it out."
        )


def _check_output(args: argparse.Namespace) -> None:
    """Refuse texts, sizes, rates and schedulers that no video of any model can have."""
    from ..sampling.schedulers import check_scheduler
    from ..video import check_rate, format_of

    read_size(args.size)
    checked_text(args.negative_prompt, "--negative-prompt")
    if not _pictures(args.output):
        check_rate(format_of(args.output), args.fps)
    if args.scheduler is not None:
        check_scheduler(args.scheduler)


def check_method(args: argparse.Namespace) -> None:
    """Refuse options that the chosen method does not have."""
    from ..films.settings import CLIP_AFTER_CLIP, LOOPS, METHODS

    if args.method not in (*METHODS, CLIP_AFTER_CLIP):
        raise T2VError(f"--method is {args.method!r}: choose one of {', '.join(METHODS)}.")
    if args.clip is not None and args.loop:
        raise T2VError(
            "--loop and --continue are given: a continued clip cannot lead back to its beginning; leave one out."
        )
    if args.clip is not None and args.method != "endless":
        raise T2VError(f"--method is {args.method!r}: --continue works with endless, so leave --method out.")
    if args.candidates is not None and args.method != "coarse-to-fine":
        raise T2VError(
            f"--candidates is given for --method {args.method}: only coarse-to-fine has key frames, so leave it out."
        )
    if args.loop and args.method not in LOOPS:
        raise T2VError(f"--loop is given for --method {args.method}: choose {' or '.join(LOOPS)}, or leave --loop out.")
    if args.scheduler not in (None, "ddim"):
        raise T2VError(f"--scheduler is {args.scheduler!r}: films are made with ddim, so leave it out.")


def _pictures(path: Path) -> bool:
    """Whether the output is one picture or a folder of them."""
    return path.suffix.lower() == ".png"


def _write(path: Path, parts: Iterator[Tensor], fps: float, about: dict[str, str]) -> Path:
    """Write the frames of all parts, each (t, h, w, 3), to a file, pictures to a folder; returns its path."""
    from ..video import VideoWriter, still_png

    frames: Iterator[Any] = (frame for part in parts for frame in part.numpy())
    format = None
    if _pictures(path):
        first, second = next(frames), next(frames, None)
        if second is None:
            return still_png(path, first, about, overwrite=True)
        frames, path, format = chain((first, second), frames), path.with_suffix(""), "png"
    with VideoWriter(path, fps, format=format, overwrite=True, metadata=about) as writer:
        for frame in frames:
            writer.write(frame)
    return writer.path
