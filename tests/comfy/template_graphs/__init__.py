"""The graphs of workflows/, of which `write_workflows` makes the files."""

from __future__ import annotations

from . import clips, long_videos, pictures
from .parts import Nodes

__all__ = ["GRAPHS", "Nodes"]

GRAPHS = {**clips.GRAPHS, **long_videos.GRAPHS, **pictures.GRAPHS}
"""Name of a template -> its nodes and its note."""
