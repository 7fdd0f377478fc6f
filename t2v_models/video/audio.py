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


def to_audio(audio: Any) -> Audio:
    """Convert ComfyUI's AUDIO, a mapping of waveform (1, channels, n) or (channels, n) and sample_rate; an Audio stays.

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
        raise T2VError(f"The audio input cannot be read ({quoted(error)}): wire sound that can, or none.") from error
    try:
        if hasattr(samples, "detach"):
            samples = samples.detach().cpu().float().numpy()
        samples = np.asarray(samples, dtype=np.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise T2VError(f"The audio's waveform holds no numbers ({quoted(error)}): give a float tensor.") from error
    if samples.ndim == 3 and samples.shape[0] == 1:
        samples = samples[0]
    if samples.ndim != 2 or not 1 <= samples.shape[0] <= 8:
        raise T2VError(f"A waveform must have the shape (1, channels, n) with 1 to 8 channels, not {samples.shape}.")
    if not 1000 <= rate <= 768000:
        raise T2VError(f"The audio's sample_rate is {rate}: from 1000 to 768000 is possible.")
    return Audio(np.nan_to_num(samples, posinf=1.0, neginf=-1.0), rate)
