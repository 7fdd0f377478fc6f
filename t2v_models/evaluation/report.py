"""The report of an evaluation: a table, a file of results, a contact sheet and a plot."""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from ..plots.canvas import GRID, INK, Axes, Canvas
from ..shapes.world import SPEEDS
from .run import Answer, Summary
from .scoring import CRITERIA

COLOURS = ((38, 84, 166), (214, 110, 38), (60, 140, 80), (150, 70, 160), (120, 120, 124), (190, 50, 60))
"""Of the criteria, in their order."""
WRONG = (220, 30, 30)


def table(summaries: list[Summary]) -> str:
    """Return lines of text, one for each group, with accuracies in per cent."""
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
    """Write a line for each video: its prompt and seed, which criteria are right, and what is seen."""
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
    """Write an image with a row of frames for each video: right ones, then wrong ones, whose prompts are red.

    Args:
        most: rows in the image; about half of them are for wrong videos, and more if there are fewer right ones.
    """
    wrong = [answer for answer in given if not answer.score.right["all"]]
    right = [answer for answer in given if answer.score.right["all"]]
    wrong = wrong[: max(most // 2, most - len(right))]
    count = min(len(right), most - len(wrong))
    shown = [right[len(right) * i // count] for i in range(count)] + wrong
    rows = [(answer.question.prompt[:64], answer.frames, answer.score.right["all"]) for answer in shown]
    strips(rows, path, columns=columns)


def strips(rows: list[tuple[str, torch.Tensor, bool]], path: Path, *, columns: int = 1) -> None:
    """Write an image of rows of frames.

    Args:
        rows: (text, frames (k, h, w, 3) in 0..1, whether they are right); the texts of wrong ones are red.
    """
    frames = max(len(video) for _, video, _ in rows)
    height, width = rows[0][1].shape[1:3]
    cell = (frames * width + 12, height + 24)
    canvas = Canvas(columns * cell[0] + 12, -(-len(rows) // columns) * cell[1] + 12, font_size=11)
    for index, (text, video, right) in enumerate(rows):
        x, y = 12 + (index % columns) * cell[0], 6 + (index // columns) * cell[1]
        canvas.text((x, y + 2), text, INK if right else WRONG)
        canvas.paste(torch.cat(list(video), 1), (x, y + 18))
    canvas.save(path)


def plot(summaries: list[Summary], given: list[Answer], path: Path) -> None:
    """Write an image with accuracies by group and criterion above, and measured speeds by adverb below."""
    canvas = Canvas(960, 720, font_size=14)
    _draw_accuracies(canvas, summaries, Axes(60, 60, 940, 360, y=(0, 100)))
    _draw_speeds(canvas, given, Axes(120, 450, 940, 680, x=(0, SPEEDS["fast"][1])))
    canvas.save(path)


def _draw_accuracies(canvas: Canvas, summaries: list[Summary], axes: Axes) -> None:
    canvas.text((axes.left, 12), "Right, per cent of the videos")
    for tick in range(0, 101, 20):
        axes.grid_line(canvas, tick, str(tick), 40)
    width = (axes.right - axes.left) / max(len(summaries), 1)
    bar = width * 0.8 / len(CRITERIA)
    for i, summary in enumerate(summaries):
        left = axes.left + i * width + width * 0.1
        for k, name in enumerate(CRITERIA):
            x, y = left + k * bar, axes.up(100 * summary.right[name])
            canvas.rectangle((x, y), (x + bar - 2, axes.bottom), COLOURS[k])
        canvas.text((left, axes.bottom + 6), f"{summary.group} ({summary.count})")
    for k, name in enumerate(CRITERIA):
        x = axes.left + 140 * k
        canvas.rectangle((x, 36), (x + 12, 48), COLOURS[k])
        canvas.text((x + 18, 34), name)


def _draw_speeds(canvas: Canvas, given: list[Answer], axes: Axes) -> None:
    label = axes.left - 100
    title = "Speed by adverb, frame widths per frame; the bands are what the words mean"
    canvas.text((label + 40, axes.top - 40), title)
    for row, (adverb, (low, high)) in enumerate(SPEEDS.items()):
        y = axes.up(1 - (row + 0.5) / len(SPEEDS))
        canvas.rectangle((axes.across(low), y - 26), (axes.across(high), y + 26), GRID)
        canvas.text((label, y - 8), adverb or "(none)")
        for i, speed in enumerate(_speeds(given, adverb)):
            centre = axes.across(min(speed, axes.x[1])), y - 22 + 44 * ((i * 0.618) % 1)
            canvas.dot(centre, 2, COLOURS[0])


def _speeds(given: list[Answer], adverb: str) -> list[float]:
    """The measured speeds of single objects with an adverb."""
    speeds = []
    for answer in given:
        items = answer.question.scene.items
        if answer.score.speed is not None and len(items) == 1 and items[0].speed == adverb:
            speeds.append(answer.score.speed)
    return speeds
