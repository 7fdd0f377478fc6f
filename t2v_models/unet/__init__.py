"""The one 3D UNet of every supported family."""

from .config import PRESETS, UNetConfig
from .unet3d import UNet3D

__all__ = ["PRESETS", "UNet3D", "UNetConfig"]
