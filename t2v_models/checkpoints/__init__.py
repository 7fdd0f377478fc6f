"""Checkpoints of 3D-UNet models: read without running code, recognised by names and shapes, converted by renaming."""

from .checkpoint import Checkpoint, inspect, load_state_dict, load_unet, open_checkpoint
from .detect import LAYOUTS
from .info import CheckpointInfo, PartInfo
from .lora import LoraReport, apply_loras
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
    "inspect",
    "load_state_dict",
    "load_unet",
    "open_checkpoint",
    "read_lora",
]
