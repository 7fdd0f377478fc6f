"""``convert``: a checkpoint in another layout."""

from __future__ import annotations

import argparse
from pathlib import Path

from .inputs import add_family, add_loras, read_lora_option

LAYOUTS = ("diffusers", "modelscope", "videocrafter")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's options."""
    parser = subparsers.add_parser(
        "convert",
        help="write a checkpoint in another layout",
        description="Write a checkpoint in another layout: a pure renaming, which can be undone exactly. A target "
        "that ends in .safetensors, .pth, .ckpt, .pt or .bin is one file (of videocrafter with all parts, else the "
        "UNet alone); any other is a folder with all parts.",
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="a model file or folder of any layout")
    parser.add_argument("target", type=Path, metavar="DST", help="the file or folder to write; it must not exist")
    add_family(parser)
    parser.add_argument("--layout", required=True, choices=LAYOUTS)
    parser.add_argument("--dtype", choices=("fp32", "fp16", "bf16"), help="of all weights; left out: as they are")
    add_loras(parser, "It is merged into the UNet; T2V-Turbo's unet_lora.pt becomes exact only this way")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> str:
    """Convert; returns what was written."""
    from tqdm import tqdm

    from ..checkpoints import open_checkpoint
    from ..checkpoints.convert import convert
    from ..checkpoints.tensors import DTYPES

    loras = [read_lora_option(text) for text in args.lora]
    with tqdm(unit="B", unit_scale=True, desc=args.target.name, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        dtype = DTYPES[args.dtype] if args.dtype else None
        source = open_checkpoint(args.source, family=args.family)
        files = convert(source, args.target, args.layout, dtype=dtype, loras=loras, progress=progress)
    return "\n".join(f"{file} ({file.stat().st_size / 1e6:.1f} MB)" for file in files)
