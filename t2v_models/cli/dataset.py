"""``dataset``: what a data set of clips and texts holds."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's options."""
    parser = subparsers.add_parser(
        "dataset",
        help="tell what a data set of clips and texts holds",
        description="Look at a data set of clips and texts before a model is trained on it.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    inspect = actions.add_parser(
        "inspect",
        help="count its clips, lengths, sizes and captions",
        description="Print the form of a data set, its number of clips, their lengths, sizes and captions, and what is "
        "missing or damaged; write a sheet with pictures of the first clips. Nothing is downloaded or executed.",
    )
    inspect.add_argument("path", type=Path, metavar="PATH", help="a video, a folder, or a .csv, .json or .jsonl file")
    inspect.add_argument("--caption", metavar="TEXT", help="the text of clips that have none of their own")
    inspect.add_argument(
        "--sheet",
        type=Path,
        default=Path("dataset.png"),
        metavar="FILE",
        help="where the sheet goes (default dataset.png)",
    )
    inspect.add_argument(
        "--measure", type=int, default=200, metavar="N", help="how many clips are opened for their lengths and sizes"
    )
    inspect.set_defaults(func=run)


def run(args: argparse.Namespace) -> str:
    """Inspect; returns the report."""
    from ..datasets.inspection import inspect, write_sheet

    contents = inspect(args.path, caption=args.caption, measure=args.measure)
    if not contents.shown:
        return f"{contents}\nNo clip could be opened, so there is no sheet."
    write_sheet(contents, args.sheet)
    return f"{contents}\nsheet     {args.sheet}"
