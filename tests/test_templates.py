"""The templates' graphs are easy to read: nodes keep apart, wires run from left to right, and notes name what is missing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from .comfy.template_graphs import MODELS

FOLDER = Path(__file__).resolve().parents[1] / "workflows"
TEMPLATES = sorted(path.stem for path in FOLDER.glob("*.json"))
TITLE = 30
"""Height of a node's title, which stands above its place."""


def graph(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    (left, top), (width, height) = one["pos"], one["size"]
    (x, y), (wide, high) = other["pos"], other["size"]
    return left < x + wide and x < left + width and top - TITLE < y + high and y - TITLE < top + height


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_two_nodes_overlap(name: str) -> None:
    nodes = graph(name)["nodes"]
    pairs = itertools.combinations(nodes, 2)
    assert [(one["type"], other["type"]) for one, other in pairs if overlap(one, other)] == []


@pytest.mark.parametrize("name", TEMPLATES)
def test_wires_run_from_left_to_right_and_in_a_column_downwards(name: str) -> None:
    saved = graph(name)
    places = {node["id"]: (*node["pos"], node["type"]) for node in saved["nodes"]}
    wires = [(places[start], places[end]) for _, start, _, end, *_ in saved["links"]]
    assert [(start, end) for start, end in wires if start[:2] >= end[:2]] == []


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_names_every_file_that_it_wants(name: str) -> None:
    """In its note with an address, and in the node's properties, from which the editor offers the download."""
    nodes = graph(name)["nodes"]
    notes = "".join(str(node["widgets_values"]) for node in nodes if node["type"] == "MarkdownNote")
    for node in nodes:
        wanted = [MODELS[value] for value in node.get("widgets_values") or [] if value in MODELS]
        assert node["properties"].get("models", []) == wanted
        assert all(file["url"] in notes and f"models/{file['directory']}" in notes for file in wanted)
