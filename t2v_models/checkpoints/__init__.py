"""Every checkpoint of the family: read safely, recognised by its names and shapes, converted by renaming."""

from .checkpoint import Checkpoint, CheckpointInfo, inspect, load_state_dict, load_unet, open_checkpoint
from .detect import LAYOUTS

__all__ = [
    "LAYOUTS",
    "Checkpoint",
    "CheckpointInfo",
    "inspect",
    "load_state_dict",
    "load_unet",
    "open_checkpoint",
]
