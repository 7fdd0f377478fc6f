"""What the API can bring and no widget gives, in a running ComfyUI: each is refused in the pack's own sentence."""

from __future__ import annotations

import math
from typing import Any

import pytest

from . import graphs

pytestmark = pytest.mark.slow


def refusal(server, graph: dict[str, Any]) -> str:
    """The host's refusal of a graph, or our sentence when it runs; fails for another exception and for success."""
    status, answer = server.post("/prompt", {"prompt": graph})
    if status != 200:
        assert status == 400, answer
        return str(answer)
    run = server.run(graph)
    assert run.error is not None, "it ran"
    assert run.error["exception_type"].endswith("T2VError"), run.error
    return run.error["exception_message"]


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("sampler", "cfg"),
        ("sampler", "denoise"),
        ("sampler", "cfg_rescale"),
        ("sampler", "eta"),
        ("film", "fps"),
        ("film", "cfg"),
    ],
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(server, node, name, value):
    graph = graphs.ours() if node == "sampler" else graphs.film(method="windows")
    graph[node]["inputs"][name] = value
    assert name in refusal(server, graph)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "a red circle \udfff"])
def test_texts_that_are_no_text_are_refused(server, text):
    graph = graphs.ours()
    graph["positive"]["inputs"]["text"] = text
    assert "no text" in refusal(server, graph)
    graph = graphs.ours()
    graph["save"] = graphs.node(
        "T2VSaveVideo", images=("frames", 0), fps=8.0, format="h264-mp4", quality=80, filename_prefix=text, loop_count=0,
        pingpong=False, save_output=True,
    )  # fmt: skip
    assert "no text" in refusal(server, graph)
    load = {"video": text, "fps": 0.0, "start_frame": 0, "every_nth": 1, "frame_cap": 0, "width": 0, "height": 0}
    graph = {"load": graphs.node("T2VLoadVideo", **load), "save": graphs.node("PreviewImage", images=("load", 0))}
    assert "There is no clip" in refusal(server, graph)


def test_a_link_of_a_wrong_type_into_a_clips_name_is_refused(server):
    load = {
        "video": ["latent", 0],
        "fps": 0.0,
        "start_frame": 0,
        "every_nth": 1,
        "frame_cap": 0,
        "width": 0,
        "height": 0,
    }
    graph = {
        "latent": graphs.node("T2VEmptyLatent", width=64, height=64, frames=1, batch_size=1),
        "load": graphs.node("T2VLoadVideo", **load),
        "save": graphs.node("PreviewImage", images=("load", 0)),
    }
    assert "video takes COMBO, not LATENT" in refusal(server, graph)
