"""Read clips with captions, from every form in which people keep them, one at a time."""

from .batches import batches, length_bucket, size_bucket
from .clips import Clip, Faults
from .dataset import Dataset
from .forms import clips, form_of
from .frames import Example, read_frames

__all__ = [
    "Clip",
    "Dataset",
    "Example",
    "Faults",
    "batches",
    "clips",
    "form_of",
    "length_bucket",
    "read_frames",
    "size_bucket",
]
