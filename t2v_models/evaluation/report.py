"""An evaluation as a table, a contact sheet and a plot."""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from ..shapes.world import SPEEDS
from .run import Answer, Summary
from .scoring import CRITERIA

COLOURS = ((38, 84, 166), (214, 110, 38), (60, 140, 80), (150, 70, 160), (120, 120, 124), (190, 50, 60))
INK, GRID, PAPER, WRONG = (40, 40, 46), (222, 222, 226), (255, 255, 255), (220, 30, 30)


def table(summaries: list[Summary]) -> str:
    """Lines of text: a group each, accuracies in per cent."""
    head = ["group", "videos", *CRITERIA, "speed error", "flicker", "jitter"]
    rows = [
        [s.group, str(s.count)]
        + [f"{100 * s.right[name]:.1f}" for name in CRITERIA]
        + ["-" if s.speed_error is None else f"{100 * s.speed_error:.1f} %"]
        + ["-" if value is None else f"{value:.2f}" for value in (s.flicker, s.jitter)]
        for s in summaries
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for first, *others in [head, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def write_csv(given: list[Answer], path: Path) -> None:
    """Every video: prompt, seed, what was right, what was seen."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["group", "prompt", "seed", *CRITERIA, "speed", "speed error", "flicker", "jitter", "seen"])
        for answer in given:
            s, q = answer.score, answer.question
            seen = "; ".join(f"{o.colour} {o.shape} {o.motion}" for o in s.measured.objects)
            seen += f" on {s.measured.background}"
            right = [int(s.right[name]) for name in CRITERIA]
            writer.writerow(
                [q.group, q.prompt, q.seed, *right, _short(s.speed), _short(s.speed_error), _short(s.flicker),
                 _short(s.jitter), seen]
            )  # fmt: skip


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def contact_sheet(given: list[Answer], path: Path, *, columns: int = 3, most: int = 48) -> None:
    """A row of frames per video under its prompt, in red where something is wrong: right ones, then wrong ones."""
    wrong = [answer for answer in given if not answer.score.right["all"]]
    right = [answer for answer in given if answer.score.right["all"]]
    wrong = wrong[: max(most // 2, most - len(right))]
    count = min(len(right), most - len(wrong))
    shown = [right[len(right) * i // count] for i in range(count)] + wrong
    rows = [(answer.question.prompt[:64], answer.frames, answer.score.right["all"]) for answer in shown]
    strips(rows, path, columns=columns)


def strips(rows: list[tuple[str, torch.Tensor, bool]], path: Path, *, columns: int = 1) -> None:
    """Rows of (text, frames (k, h, w, 3) in 0..1, whether it is right) as one picture; the text of wrong ones is red."""
    from PIL import Image, ImageDraw, ImageFont

    frames = max(len(video) for _, video, _ in rows)
    height, width = rows[0][1].shape[1:3]
    cell = (frames * width + 12, height + 24)
    image = Image.new("RGB", (columns * cell[0] + 12, -(-len(rows) // columns) * cell[1] + 12), PAPER)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(11)
    for index, (text, video, right) in enumerate(rows):
        x, y = 12 + (index % columns) * cell[0], 6 + (index // columns) * cell[1]
        strip = (torch.cat(list(video), 1).clamp(0, 1) * 255).round().byte().numpy()
        draw.text((x, y + 2), text, INK if right else WRONG, font)
        image.paste(Image.fromarray(strip), (x, y + 18))
    image.save(path)


def plot(summaries: list[Summary], given: list[Answer], path: Path) -> None:
    """Accuracy by group and criterion above, measured speeds by adverb below, to a PNG."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (960, 720), PAPER)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(14)
    left, right = 60, 940

    # 1. accuracies
    top, bottom = 60, 360
    draw.text((left, 12), "Right, per cent of the videos", INK, font)
    for tick in range(0, 101, 20):
        y = bottom - (bottom - top) * tick / 100
        draw.line([(left, y), (right, y)], GRID)
        draw.text((left - 40, y - 8), str(tick), INK, font)
    block = (right - left) / max(len(summaries), 1)
    bar = block * 0.8 / len(CRITERIA)
    for i, summary in enumerate(summaries):
        for k, name in enumerate(CRITERIA):
            x = left + i * block + block * 0.1 + k * bar
            y = bottom - (bottom - top) * summary.right[name]
            draw.rectangle([x, y, x + bar - 2, bottom], COLOURS[k])
        draw.text((left + i * block + block * 0.1, bottom + 6), f"{summary.group} ({summary.count})", INK, font)
    for k, name in enumerate(CRITERIA):
        x = left + 140 * k
        draw.rectangle([x, 36, x + 12, 48], COLOURS[k])
        draw.text((x + 18, 34), name, INK, font)

    # 2. speeds
    top, bottom = 450, 680
    draw.text((left, top - 40), "Speed by adverb, frame widths per frame; the bands are what the words mean", INK, font)
    highest = SPEEDS["fast"][1]
    for row, (adverb, (low, high)) in enumerate(SPEEDS.items()):
        y = top + (bottom - top) * (row + 0.5) / len(SPEEDS)
        x0, x1 = (left + 60 + (right - left - 60) * value / highest for value in (low, high))
        draw.rectangle([x0, y - 26, x1, y + 26], GRID)
        draw.text((left - 40, y - 8), adverb or "(none)", INK, font)
        speeds = [
            a.score.speed
            for a in given
            if a.score.speed is not None
            and len(a.question.scene.items) == 1
            and a.question.scene.items[0].speed == adverb
        ]
        for i, speed in enumerate(speeds):
            x = left + 60 + (right - left - 60) * min(speed / highest, 1)
            z = y - 22 + 44 * ((i * 0.618) % 1)
            draw.ellipse([x - 2, z - 2, x + 2, z + 2], COLOURS[0])
    image.save(path)
