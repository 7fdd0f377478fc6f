"""The models that come with this package: the names by which they are chosen, and their folders."""

from pathlib import Path

BUILT_IN = "built-in"
BUILT_IN_FOLDER = Path(__file__).parent / "builtin"

IMAGE_BUILT_IN = "built-in image model"
"""A UNet of single pictures, which has the built-in model's text encoder, autoencoder and noise schedule."""
IMAGE_BUILT_IN_FOLDER = Path(__file__).parent / "builtin_image"
