"""Every checkpoint of the family: read safely, recognised by its names and shapes, converted by renaming."""

from .checkpoint import Checkpoint, CheckpointInfo, PartInfo, inspect, load_state_dict, load_unet, open_checkpoint
from .detect import LAYOUTS
from .lora import LoraReport, apply_loras, host_state_dict, lora_weights
from .lora_formats import read_lora
from .lora_pairs import Lora, LoraPair

__all__ = [
    "LAYOUTS",
    "Checkpoint",
    "CheckpointInfo",
    "Lora",
    "LoraPair",
    "LoraReport",
    "PartInfo",
    "apply_loras",
    "host_state_dict",
    "inspect",
    "load_state_dict",
    "load_unet",
    "lora_weights",
    "open_checkpoint",
    "read_lora",
]
