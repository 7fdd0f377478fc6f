"""Sound as other nodes give it: what is sound is converted, what is not is refused."""

from __future__ import annotations

import numpy as np
import pytest

from t2v_models.errors import T2VError
from t2v_models.video.audio import to_audio


@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "int32"])
def test_samples_that_are_whole_numbers_have_the_loudness_of_floats(kind):
    wanted = np.linspace(-0.5, 0.5, 800, dtype=np.float32).reshape(2, 400)
    loudest, silent = (128, 128) if kind == "uint8" else (1 + np.iinfo(kind).max, 0)
    whole = np.round(wanted.astype(np.float64) * loudest + silent).astype(kind)
    torch = pytest.importorskip("torch")
    for samples in (whole, torch.from_numpy(whole)[None], whole[:, ::-1][:, ::-1]):
        found = to_audio({"waveform": samples, "sample_rate": 8000})
        assert np.abs(found.samples - wanted).max() <= 0.51 / loudest + 1e-7


@pytest.mark.parametrize("kind", ["bool", "int64", "complex64"])
def test_numbers_that_are_no_sound_are_refused(kind):
    with pytest.raises(T2VError, match=f"holds {kind}"):
        to_audio({"waveform": np.ones((2, 400), kind), "sample_rate": 8000})


def test_an_error_of_sound_without_words_is_named_by_its_kind():
    class Lazy(dict):
        def __getitem__(self, key):
            raise MemoryError

    with pytest.raises(T2VError, match=r"\(MemoryError\)"):
        to_audio(Lazy())
