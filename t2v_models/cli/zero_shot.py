"""``generate --zero-shot``: videos of an image model."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..builtin_model import BUILT_IN, IMAGE_BUILT_IN
from ..errors import T2VError
from ..numbers import exact_number
from .device import check_device
from .inputs import read_size
from .pictures import changed, read_picture

if TYPE_CHECKING:
    from torch import Tensor

    from ..zero_shot.controls import Control
    from ..zero_shot.motion import Motion
    from ..zero_shot.pipeline import ZeroShotPipeline
    from ..zero_shot.request import Request

log = logging.getLogger(__name__)

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

OPTIONS = ("path", "curve", "t0", "t1", "anchor", "warp", "chunk", "control", "control_strength")
"""Options that only --zero-shot has."""

OTHERS = (
    "image",
    "end_image",
    "method",
    "clip",
    "candidates",
    "loop",
    "resume",
    "family",
    "text_encoder",
    "image_encoder",
    "lora",
)
"""Options of `generate` that --zero-shot does not have."""

Write = Callable[[Path, Iterator[Any], float, dict[str, str]], Path]


def add_zero_shot_options(group: argparse._ArgumentGroup) -> None:
    """The command's options for videos of an image model."""
    group.add_argument(
        "--zero-shot",
        action="store_true",
        help="make the video with an image model, without training: --model is a folder of Stable Diffusion or Stable "
        f'Diffusion XL in diffusers\' layout, the "{IMAGE_BUILT_IN}" if left out; see docs/zero-shot.md',
    )
    group.add_argument(
        "--path",
        metavar="NAME",
        help='how the camera moves: straight (usual), "there and back", zoom, turn, circle or curve',
    )
    group.add_argument(
        "--curve",
        metavar="POINTS",
        help='a way of the camera in pixels of a frame of 512x512, such as "0,0 80,0 80,60"',
    )
    group.add_argument("--t0", type=float, help="where the first frame is moved, 0 to 1 of the schedule (default 0.88)")
    group.add_argument("--t1", type=float, help="where frames part, 0 to 1 of the schedule, above t0 (default 0.94)")
    group.add_argument(
        "--anchor",
        metavar="NAME",
        help='frames that every frame looks at: first (usual), "first + previous", "first + previous + next", all, or '
        '"shuffled groups"',
    )
    group.add_argument("--warp", metavar="HOW", help="nearest (usual), or bilinear: by parts of a latent, which blurs")
    group.add_argument(
        "--chunk", type=int, metavar="N", help="frames that are made at a time, with the first among them; 0: all"
    )
    group.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a ControlNet and what it follows, instead of a motion: NAME is its folder, or a part of its folder's name in or "
        "beside the model, such as canny or depth; FILE is a video, a picture or a folder of pictures, of edges, depth …; of "
        "others, edges are drawn for canny",
    )
    group.add_argument("--control-strength", type=float, metavar="SCALE", help="of the controls (default 1)")


def check(args: argparse.Namespace) -> None:
    """Refuse options that do not fit --zero-shot, or that only fit it."""
    if not args.zero_shot:
        if args.model == IMAGE_BUILT_IN:
            raise T2VError(f"--model is {IMAGE_BUILT_IN!r}, which makes videos with --zero-shot alone: add this.")
        given = [name for name in OPTIONS if getattr(args, name) not in (None, [])]
        if given:
            raise T2VError(f"{_option(given[0])} is given without --zero-shot: add this, or leave it out.")
        if isinstance(args.motion, tuple):
            raise T2VError("--motion has two numbers, which are for --zero-shot: add this, or give one number.")
        return
    given = [name for name in OTHERS if getattr(args, name) not in (None, [], False)]
    given += [name for name in changed(args) if name != "motion"]
    if given:
        raise T2VError(f"{_option(given[0])} is given with --zero-shot, which does not take it: leave one of them out.")
    if args.control_strength is not None and not args.control:
        raise T2VError(
            "--control-strength is given without --control: name a ControlNet and its pictures, or leave it out."
        )
    moved = [name for name in ("motion", "path", "curve", "t0", "t1", "warp") if getattr(args, name) is not None]
    if args.control and moved:
        raise T2VError(
            f"{_option(moved[0])} is given with --control, whose pictures lead the motion: leave one of them out."
        )
    motion(args)


def _option(name: str) -> str:
    return f"--{ {'clip': 'continue'}.get(name, name).replace('_', '-') }"


def motion(args: argparse.Namespace) -> Motion | None:
    """The motion that is asked for; None for the model's own."""
    from ..zero_shot.motion import PATHS, Motion

    if args.curve is not None:
        if args.path not in (None, "curve") or args.motion is not None:
            raise T2VError(
                "--curve is given with --motion or another --path: a curve says all, so leave the others out."
            )
        return Motion("curve", points=tuple(_point(part) for part in args.curve.split()))
    if args.motion is None and args.path is None:
        return None
    path = args.path or "straight"
    path = {name.replace(" ", "-"): name for name in PATHS}.get(path, path)
    if path == "curve":
        raise T2VError('--path is curve: give its points, such as --curve "0,0 80,0 80,60".')
    if args.motion is None:
        return Motion(path, x=3.0) if path in ("zoom", "turn") else Motion(path)
    x, y = args.motion if isinstance(args.motion, tuple) else (args.motion, 0.0)
    return Motion(path, x, y)


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = (float(exact_number(part)) for part in text.split(","))
    except ValueError as error:
        raise T2VError(f'--curve holds {text!r}: points X,Y are wanted, such as "0,0 80,0 80,60".') from error
    return x, y


def run(args: argparse.Namespace, prompts: list[str], outputs: list[Path], bar: Any, write: Write) -> str:
    """Make and write the videos; returns their paths.

    Args:
        args: of the command.
        prompts: a text for each video, or one story.
        outputs: a file for each.
        bar: makes a progress bar of a title.
        write: writes frames to a file.
    """
    from ..arguments import checked_rate, checked_seed
    from ..checkpoints.tensors import DTYPES
    from ..zero_shot.loading import load_zero_shot

    checked_seed(args.seed, len(prompts))
    check_device(args.device)
    model = IMAGE_BUILT_IN if args.model == BUILT_IN else args.model
    pipeline = load_zero_shot(model, device=args.device, dtype=DTYPES[args.dtype] if args.dtype else None)
    fps = checked_rate(pipeline.defaults.fps if args.fps is None else args.fps)
    controls = [_control(text, args, pipeline, model) for text in args.control]
    requests = [_request(args, pipeline, prompt, args.seed + i, fps, controls) for i, prompt in enumerate(prompts)]
    written = []
    for prompt, output, request in zip(prompts, outputs, requests, strict=True):
        with bar(prompt) as shown:
            frames = pipeline.stream(request, shown.show)
            written.append(write(output, frames, fps, {"prompt": prompt, "seed": str(request.seed)}))
    return "\n".join(map(str, written))


def _request(
    args: argparse.Namespace,
    pipeline: ZeroShotPipeline,
    prompt: str,
    seed: int,
    fps: float,
    controls: list[Control],
) -> Request:
    """One video, checked: a mistake in the last one is better known before the first begins."""
    from ..sampling.story import parse_story, with_negative

    width, height = read_size(args.size)
    options: dict[str, Any] = {"frames": args.frames, "width": width, "height": height, "seed": seed}
    text: Any = prompt
    negative = args.negative_prompt
    if args.story is not None:
        frames = args.frames or min((len(each.hints) for each in controls), default=pipeline.defaults.frames)
        text, negative = parse_story(with_negative(prompt, negative), frames, fps), ""
    chosen = {name: getattr(args, name) for name in ("anchor",) if getattr(args, name) is not None}
    if args.warp is not None:
        chosen["how"] = args.warp
    return pipeline.request(
        text,
        negative,
        **options,
        **chosen,
        steps=args.steps,
        guidance_scale=args.guidance,
        scheduler=args.scheduler,
        motion=motion(args),
        t0=args.t0,
        t1=args.t1,
        chunk=args.chunk,
        controls=controls,
    )


def _control(text: str, args: argparse.Namespace, pipeline: ZeroShotPipeline, model: str) -> Control:
    """--control NAME=FILE."""
    from ..zero_shot.controls import Control
    from ..zero_shot.edges import are_edges, canny
    from ..zero_shot.loading import load_controlnet

    name, equals, file = text.partition("=")
    if not equals or not name or not file:
        raise T2VError(f"--control is {text!r}: NAME=FILE is wanted, such as canny=dance.mp4.")
    net = load_controlnet(name, pipeline, model)
    width, height = read_size(args.size)
    hints = _hints(Path(file), args, width or pipeline.size[0], height or pipeline.size[1])
    if "canny" in Path(name).name.lower() and not are_edges(hints):
        log.info("%s is not made of edges: they are drawn for the ControlNet.", file)
        hints = canny(hints)
    return Control(net, hints, 1.0 if args.control_strength is None else args.control_strength)


def _hints(file: Path, args: argparse.Namespace, width: int, height: int) -> Tensor:
    """The pictures of a control, (n, height, width, 3), 0..1; what sticks out is cut off."""
    import numpy as np
    import torch

    from ..image.fit import fit
    from ..video import VideoReader

    if not file.exists():
        raise T2VError(f"There is no {file}, which --control names: give a video, a picture or a folder of pictures.")
    frames: Iterator[Any]
    if file.suffix.lower() in PICTURES and file.is_file():
        frames = iter([np.array(read_picture(file).convert("RGB"))])
    else:
        frames = iter(VideoReader(file, fps=args.fps, count=args.frames))
    hints = [fit(torch.from_numpy(frame)[None].float() / 255, width, height) for frame in frames]
    if not hints:
        raise T2VError(
            f"{file}, which --control names, holds no frame: give a video, a picture or a folder of pictures."
        )
    return torch.cat(hints)
