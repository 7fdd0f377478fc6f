"""The sound of a clip: float samples, as in ComfyUI's AUDIO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import T2VError
from ..foreign import quoted


@dataclass(frozen=True)
class Audio:
    """The sound of a clip."""

    samples: np.ndarray
    """(channels, n) float32 in -1..1."""
    rate: int
    """Samples a second."""

    @property
    def channels(self) -> int:
        """The number of channels."""
        return self.samples.shape[0]

    def exactly(self, count: int) -> Audio:
        """Return the first count samples, with silence after the end."""
        samples = self.samples[:, :count]
        missing = count - samples.shape[1]
        return Audio(np.pad(samples, ((0, 0), (0, missing))) if missing else samples, self.rate)


_LOUDEST = {"int8": 1 << 7, "int16": 1 << 15, "int32": 1 << 31, "uint8": 1 << 7}
"""Of samples that are whole numbers, the one that stands for 1; those of uint8 are silent at 128."""


def _floats(samples: Any) -> np.ndarray:
    """A waveform of any type that sound has, as float32."""
    try:
        if hasattr(samples, "detach"):
            samples = samples.detach().cpu()
            samples = (samples.float() if samples.is_floating_point() else samples).numpy()
        samples = np.asarray(samples)
        kind = samples.dtype.name
        if loudest := _LOUDEST.get(kind):
            return ((samples.astype(np.float64) - (loudest if kind == "uint8" else 0)) / loudest).astype(np.float32)
        if kind == "bool" or samples.dtype.kind in "iuc":
            raise T2VError(f"The audio's waveform holds {kind}, which is no sound: give a float tensor of -1 to 1.")
        return samples.astype(np.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, T2VError):
            raise
        raise T2VError(f"The audio's waveform holds no numbers ({quoted(error)}): give a float tensor.") from error


def to_audio(audio: Any) -> Audio:
    """Convert ComfyUI's AUDIO, a mapping of waveform (1, channels, n) or (channels, n) and sample_rate; an Audio stays.

    Samples are floats of -1 to 1; whole numbers of 8, 16 and 32 bits become such.

    Raises:
        T2VError: where it is no such mapping, the shape has not 1 to 8 channels, or the rate is not 1000 to 768000.
    """
    if isinstance(audio, Audio):
        return audio
    try:
        samples, rate = audio["waveform"], int(audio["sample_rate"])
    except (TypeError, KeyError, ValueError) as error:
        raise T2VError("Audio must be a mapping with waveform (1, channels, n) and sample_rate.") from error
    except Exception as error:  # a lazy mapping of another node raises whatever it likes
        why = quoted(error) or type(error).__name__
        raise T2VError(f"The audio input cannot be read ({why}): wire sound that can, or none.") from error
    samples = _floats(samples)
    if samples.ndim == 3 and samples.shape[0] == 1:
        samples = samples[0]
    if samples.ndim != 2 or not 1 <= samples.shape[0] <= 8:
        raise T2VError(f"A waveform must have the shape (1, channels, n) with 1 to 8 channels, not {samples.shape}.")
    if not 1000 <= rate <= 768000:
        raise T2VError(f"The audio's sample_rate is {rate}: from 1000 to 768000 is possible.")
    return Audio(np.nan_to_num(samples, posinf=1.0, neginf=-1.0), rate)
