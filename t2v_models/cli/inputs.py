"""What the options of ``generate`` mean: texts, sizes, rates, a clip to continue, and where videos go."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import T2VError, shortened
from ..numbers import exact_number
from ..texts import MOST_STORY, checked_text

if TYPE_CHECKING:
    from torch import Tensor


def add_family(parser: argparse.ArgumentParser) -> None:
    """Add --family NAME."""
    parser.add_argument(
        "--family",
        metavar="NAME",
        help="which model it is, where neither its tensors nor its name tell, such as dynamicrafter-512-interp",
    )


def add_encoders(parser: argparse.ArgumentParser) -> None:
    """Add --text-encoder and --image-encoder PATH."""
    for name, what in (("text", "text encoder"), ("image", "image encoder (CLIP's vision tower)")):
        parser.add_argument(
            f"--{name}-encoder", type=Path, metavar="PATH", help=f"the {what}, where the model's own file has none"
        )


def add_loras(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --lora FILE[:STRENGTH], which may be given several times; `what` ends its help."""
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:STRENGTH]",
        help=f"a LoRA, such as motion.safetensors:0.6 (strength 1 if left out); may be given several times. {what}",
    )


def read_lora_option(text: str) -> tuple[Path, float]:
    """Return the file and the strength of FILE, FILE:STRENGTH or FILE=STRENGTH.

    A name that is a file is one as a whole, so that of "C:\\my.pt" and "a:0.5.pt" nothing is taken for a strength.

    Raises:
        T2VError: where there is no such file, or what follows it is no number.
    """
    name, mark, strength = re.fullmatch(r"(?:(.*)([:=]))?(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    if Path(text).is_file():
        return Path(text), 1.0
    if mark and Path(name).is_file():
        try:
            return Path(name), float(exact_number(strength))
        except (T2VError, OverflowError) as error:
            raise T2VError(
                f"--lora {text}: {shortened(strength, 40)!r} is no number; write FILE:STRENGTH, such as lora.pt:0.8."
            ) from error
    raise T2VError(f"--lora {text}: there is no such file; write FILE or FILE:STRENGTH, such as lora.pt:0.8.")


def read_clip(args: argparse.Namespace) -> tuple[Tensor, float]:
    """The frames of --continue, (t, h, w, 3), 0..1, and their rate."""
    import numpy as np
    import torch

    from ..video import VideoReader

    width, height = read_size(args.size)
    size = None if width is None or height is None else (width, height)
    reader = VideoReader(args.clip, fps=args.fps, size=size)
    frames = list(reader)
    if not frames:
        raise T2VError(
            f"Of {args.clip} no frame is left{f' at {args.fps:g} frames a second' if args.fps else ''}: a clip of at "
            "least one is wanted."
        )
    return torch.from_numpy(np.stack(frames)).float().div_(255), args.fps or float(reader.info.fps)


def read_prompts(args: argparse.Namespace) -> list[str]:
    """The prompts of the command line and of --prompts."""
    prompts = list(args.prompt)
    if args.prompts is not None:
        lines = [line.strip() for line in read_text(args.prompts).splitlines()]
        if not any(lines):
            raise T2VError(f"{args.prompts} holds no prompt: write one per line.")
        prompts += [line for line in lines if line]
    for prompt in prompts:
        checked_text(prompt, f"The prompt {shortened(prompt, 100)!r}")
    if not prompts:
        raise T2VError(
            'No prompt is given: write one, such as "a red circle moves right", or name a file by --prompts.'
        )
    return prompts


def read_story(args: argparse.Namespace) -> str:
    """The text of --story; T2VError where a prompt is given, too."""
    if args.prompt or args.prompts is not None:
        raise T2VError("--story and a prompt are given: a film takes all its texts from the story, so leave one out.")
    text = read_text(args.story)
    return checked_text(text, f"The story in {args.story}", MOST_STORY)


def read_text(path: Path) -> str:
    """A text file's content."""
    try:
        return path.read_text(encoding="utf-8-sig")  # Windows begins a file with a mark
    except UnicodeDecodeError as error:
        raise T2VError(f"{path} is no UTF-8 text (byte {error.start} is not): save it as UTF-8.") from error
    except OSError as error:
        raise T2VError(f"{path} cannot be read ({error.strerror}): name a text file.") from error


def read_size(text: str | None) -> tuple[int | None, int | None]:
    """--size, such as 64x64 -> (width, height); None twice where it is not given."""
    if text is None:
        return None, None
    match = re.fullmatch(r"(\d+)[x×](\d+)", text.strip().lower())
    if not match or not int(match[1]) or not int(match[2]):
        raise T2VError(f"--size is {text!r}: WIDTHxHEIGHT is wanted, such as 64x64.")
    return int(match[1]), int(match[2])


def output_paths(path: Path, count: int) -> list[Path]:
    """One file per prompt; T2VError where it could not be written."""
    folder = path.parent
    if not folder.is_dir():
        raise T2VError(f"--output is {path}, but there is no folder {folder}: make it first.")
    if path.is_dir():
        raise T2VError(f"--output is the folder {path}: name a file in it, such as {path / 'video.mp4'}.")
    if not os.access(folder, os.W_OK):
        raise T2VError(f"--output is {path}, but the folder {folder} is not writable: choose another.")
    if count == 1:
        return [path]
    paths = [path.with_name(f"{path.stem}-{i + 1:0{len(str(count))}d}{path.suffix}") for i in range(count)]
    for each in paths:
        if each.is_dir():
            raise T2VError(f"{each}, where one of the videos would go, is a folder: choose another --output.")
    return paths


def read_rate(text: str) -> float:
    """24, 29.97 or 30000/1001 -> frames per second."""
    try:
        return float(exact_number(text))
    except T2VError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no frame rate, such as 24, 29.97 or 30000/1001") from error
