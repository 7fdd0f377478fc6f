"""The options of ``generate`` for pictures: which they are, and how a model follows them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import T2VError

if TYPE_CHECKING:
    from PIL import Image


def add_image_options(group: argparse._ArgumentGroup) -> None:
    """The command's options for pictures."""
    group.add_argument(
        "--image",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="a picture that the video begins with; given several times, the video goes from picture to picture",
    )
    group.add_argument("--end-image", type=Path, metavar="FILE", help="a picture that the video ends with")
    group.add_argument(
        "--image-fit",
        default="crop",
        metavar="HOW",
        help="crop (usual), pad or stretch, for a picture of another shape",
    )
    group.add_argument(
        "--image-method",
        default="auto",
        metavar="NAME",
        help="how a model of texts alone follows a picture: hold, frame-init or repeat-and-slide; left out, hold where the "
        "model is exact with it (the built-in one is) or the video has an end, else frame-init; see docs/image-to-video.md",
    )
    group.add_argument(
        "--camera",
        default="none",
        metavar="NAME",
        help="for frame-init, how the camera moves over the picture: pan right, pan left, pan up, pan down, zoom in, zoom "
        "out, roll right or roll left",
    )
    group.add_argument("--known", type=int, metavar="N", help="for repeat-and-slide: known frames of each clip")
    group.add_argument(
        "--resample",
        type=int,
        metavar="N",
        help="for hold and repeat-and-slide: how often each step is repeated (default 4)",
    )
    group.add_argument("--image-strength", type=float, default=1.0, metavar="SHARE", help="0 to 1; 0: the text alone")
    group.add_argument(
        "--image-guidance", type=float, metavar="SCALE", help="how closely an image-to-video model follows the picture"
    )
    group.add_argument(
        "--motion",
        type=read_motion,
        metavar="NUMBER",
        help="how much moves, as the model's family counts it; with --zero-shot X,Y pixels of a frame of 512x512 that the "
        "camera moves right and down with every frame, 12,12 if left out (negative ones as --motion=-12,0), per cent for a "
        "zoom, degrees for a turn",
    )


def read_motion(text: str) -> float | tuple[float, float]:
    """--motion: a number, or two with a comma for --zero-shot."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no motion: a number is wanted, or X,Y with --zero-shot, such as 12,0"
        )
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def check_images(args: argparse.Namespace) -> None:
    """Refuse options for pictures without a picture, and those that films do not have."""
    given = [f"--{name.replace('_', '-')}" for name in changed(args)]
    if given and not args.image and args.end_image is None:
        raise T2VError(f"{given[0]} is given without --image: give a picture, or leave it out.")
    if args.method is None:
        return
    if len(args.image) > 1 or args.end_image is not None:
        raise T2VError(
            f"Several pictures are given with the method {args.method!r} of films: a film begins with one, so leave "
            "--method, --story and --loop out, or give one --image."
        )
    if args.image and args.clip is not None:
        raise T2VError("--image and --continue are given: a film begins with one of them, so leave the other out.")
    unused = [name for name in given if name != "--image-fit"]
    if unused:
        raise T2VError(f"{unused[0]} is given for a film, which holds its picture: leave it out.")


def changed(args: argparse.Namespace) -> list[str]:
    """The options for pictures that are not as usual."""
    usual = {
        "image_fit": "crop",
        "image_method": "auto",
        "camera": "none",
        "known": None,
        "resample": None,
        "image_strength": 1.0,
        "image_guidance": None,
        "motion": None,
    }
    return [name for name, value in usual.items() if getattr(args, name) != value]


def image_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `Pipeline.__call__` takes besides the pictures; {} without pictures."""
    from dataclasses import replace

    from ..image.methods import with_camera

    if not args.image and args.end_image is None:
        return {}
    method: Any = with_camera(args.image_method, args.camera)
    settings = {name: getattr(args, name) for name in ("known", "resample") if getattr(args, name) is not None}
    return {
        "image_fit": args.image_fit,
        "image_method": replace(method, **settings) if method.name != "auto" or settings else "auto",
        "image_strength": args.image_strength,
        "image_guidance_scale": args.image_guidance,
        "motion": args.motion,
    }


def read_pictures(args: argparse.Namespace) -> list[Image.Image | None]:
    """The pictures of --image, and that of --end-image at their end: [None, last] where there is no first."""
    read: list[Image.Image | None] = [read_picture(path) for path in args.image]
    if args.end_image is not None:
        read = [*(read or [None]), read_picture(args.end_image)]
    return read


def read_picture(path: Path) -> Image.Image:
    """Read a picture's file, turned upright; an alpha channel that hides nothing is left out.

    Raises:
        T2VError: for a file that is no picture, or is damaged, too large, or transparent.
    """
    from PIL import Image, ImageOps

    from ..arrays import LARGEST_PICTURE, is_transparent

    try:
        with Image.open(path) as file:
            if max(file.size) > LARGEST_PICTURE:
                raise T2VError(
                    f"{path} is {file.width}x{file.height} pixels: sides of at most {LARGEST_PICTURE} are wanted, so scale it "
                    "first."
                )
            picture: Image.Image = ImageOps.exif_transpose(file)
            picture.load()
    except OSError as error:
        why = error.strerror or "it is no picture, or damaged"
        raise T2VError(f"{path} cannot be read as a picture ({why}): give a PNG, JPEG or WebP file.") from error
    except (ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
        raise T2VError(f"{path} cannot be read as a picture ({error}): give a PNG, JPEG or WebP file.") from error
    if picture.mode.startswith("I"):  # 16 bits a pixel, which Pillow would cut off at 255
        picture = picture.point(lambda value: value / 256).convert("L")
    if picture.mode in ("LA", "RGBA") and picture.getchannel("A").getextrema() == (255, 255):
        picture = picture.convert("RGB")
    if is_transparent(picture):
        raise T2VError(f"{path} is a picture with transparency: lay it on a background first, and save it as RGB.")
    return picture
