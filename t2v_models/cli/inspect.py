"""``inspect``: what a checkpoint is, from its names and shapes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..texts import strict_json
from .inputs import add_family

if TYPE_CHECKING:
    from ..checkpoints import CheckpointInfo
    from ..families import Defaults, Family
    from ..unet import UNetConfig


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's options."""
    parser = subparsers.add_parser(
        "inspect",
        help="tell what a checkpoint is",
        description="Tell what a model file or folder is: family, layout, parts, defaults, licence. Nothing in it is "
        "executed, and only names and shapes are read.",
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="a file or folder of any layout")
    add_family(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> str:
    """Inspect; returns the report."""
    from ..checkpoints import inspect

    info = inspect(args.path, family=args.family)
    if args.json:
        import dataclasses

        return strict_json(dataclasses.asdict(info), indent=2)
    return report(info)


def report(info: CheckpointInfo) -> str:
    """A page of text about a checkpoint."""
    rows = [("path", info.path)]
    if info.family:
        rows.append(("family", f"{info.family.title} ({info.family.name})"))
    if info.other_families:
        rows.append(("", f"or {', '.join(info.other_families)}, which tensors do not tell: name it by --family"))
    rows += [
        ("layout", info.layout),
        ("weights", f"{info.parameters:,} parameters, {info.dtype}"),
        ("licence", info.licence),
    ]
    if info.config and info.family:
        rows += _network(info.config, info.family)
        rows += _use(info.family, info.defaults)
    lines = [f"{name:<9} {value}" for name, value in rows]
    lines.append("parts")
    for kind, part in info.parts.items():
        size = f"{part.parameters:,} parameters in {part.tensors} tensors, {part.dtype}" if part.tensors else ""
        where = ", ".join(part.files)
        lines.append(f"  {kind:<16} {part.layout:<13} {size}{'  ' if size and where else ''}{where}")
    return "\n".join(lines)


def _network(config: UNetConfig, family: Family) -> list[tuple[str, str]]:
    """The rows about the UNet."""
    extras = [
        title
        for title, has in (
            ("temporal convolutions", config.temporal_convolution),
            (f"relative positions up to {config.relative_position}", config.relative_position),
            ("frame rate embedding", config.fps_embedding),
            ("embedded guidance", config.guidance_dim),
            ("motion guidance", config.motion_dim),
            ("image attention", config.image_attention),
            ("image latents", family.image_latents),
            ("image branches", config.image_branches),
        )
        if has
    ]
    channels = "-".join(map(str, config.channels))
    return [
        ("network", f"{channels} channels, heads of {config.head_dim}, text width {config.context_dim}"),
        ("with", ", ".join(extras) or "nothing more"),
    ]


def _use(family: Family, defaults: Defaults) -> list[tuple[str, str]]:
    """The rows about what the model predicts and how it is used."""
    size = f"{defaults.width}x{defaults.height}, {defaults.frames} frames at {defaults.fps:g} fps"
    how = f"{defaults.steps} steps, guidance {defaults.guidance_scale:g}, {defaults.scheduler}"
    rows = [
        ("predicts", family.prediction_type + (", zero terminal SNR" if family.zero_terminal_snr else "")),
        ("defaults", f"{size}, {how}"),
    ]
    if defaults.fps_condition is not None:
        rows.append(("", f"given to the network: {defaults.fps_condition:g}, {_motion(family)}"))
    if family.notes:
        rows.append(("", family.notes))
    return rows


def _motion(family: Family) -> str:
    """What the number means that the network is given, and its range."""
    meaning = family.fps_meaning or "frames per second"
    return meaning if family.fps_range is None else f"{meaning} ({family.fps_range[0]:g} to {family.fps_range[1]:g})"
