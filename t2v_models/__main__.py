"""``python -m t2v_models COMMAND …``: the library from the command line."""

from __future__ import annotations

import argparse
import logging
import sys
from importlib import import_module

from .cli import COMMANDS
from .errors import T2VError, is_out_of_memory, shortened


def main(argv: list[str] | None = None) -> int:
    """Run one command and print the text it returns; the exit status is 0, 2 for a wrong input, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m t2v_models", description="Text to video with 3D-UNet models.")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is done")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        import_module(f".cli.{command}", __package__).add_parser(subparsers)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO if args.verbose else logging.WARNING, format="%(message)s")
    try:
        report = args.func(args)
    except (T2VError, OSError) as error:
        print(f"{parser.prog} {args.command}: {shortened(str(error))}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        advice = getattr(args, "save_memory", "close other programs, or use a machine with more")
        print(f"{parser.prog} {args.command}: There is not enough memory for this: {advice}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if report:
        print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
