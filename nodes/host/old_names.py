"""Graphs of the API that were saved with the names which some inputs had before they got those of core's nodes."""

from __future__ import annotations

from typing import Any

_WINDOWS = {
    "length": "context_length",
    "overlap": "context_overlap",
    "fusion": "fuse_method",
    "looped": "closed_loop",
}

RENAMED: dict[str, dict[str, str]] = {
    "T2VLoraLoader": {"lora": "lora_name"},
    "T2VVideoSampler": {
        "start_step": "start_at_step",
        "end_step": "end_at_step",
        "leftover_noise": "return_with_leftover_noise",
    },
    "T2VWindows": _WINDOWS,
    "T2VFreeNoise": {old: new for old, new in _WINDOWS.items() if old != "looped"},
    "T2VDrawWindows": _WINDOWS,
    "T2VFilm": {**_WINDOWS, "sketches": "candidates"},
}
"""By node id: the name that an input had, and the one that it has."""


def register() -> None:
    """Have the host's server call `with_present_names` on what it is asked to run."""
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.add_on_prompt_handler(with_present_names)


def with_present_names(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request to run a graph in which inputs of our nodes have their present names.

    A value under the present name stays. The request may be any JSON object; the host checks it afterwards.
    """
    graph = request.get("prompt")
    for node in graph.values() if isinstance(graph, dict) else ():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        kind = node.get("class_type") if isinstance(inputs, dict) else None
        for old, new in RENAMED.get(kind, {}).items() if isinstance(kind, str) else ():
            if old in inputs:
                value = inputs.pop(old)
                inputs.setdefault(new, value)
    return request
