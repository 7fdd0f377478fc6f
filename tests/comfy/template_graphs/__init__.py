"""The graphs of workflows/, of which `write_workflows` makes the files."""

from __future__ import annotations

from . import clips, long_videos, pictures, zero_shot
from .parts import Nodes
from .thumbnails import THUMBNAILS
from .zero_shot import MODELS, NEED_FILES

__all__ = ["GRAPHS", "MODELS", "NEED_FILES", "THUMBNAILS", "Nodes"]

GRAPHS = {**clips.GRAPHS, **long_videos.GRAPHS, **pictures.GRAPHS, **zero_shot.GRAPHS}
"""Name of a template -> its nodes and its note."""
