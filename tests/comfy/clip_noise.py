"""The noise of a clip for its frames as a batch, so that checks can compare the two layouts bit for bit."""

import contextlib
from unittest import mock


@contextlib.contextmanager
def noise_of_the_clip():
    """Let core draw for a batch of frames the noise that it draws for one clip of them."""
    import comfy.sample
    import torch

    original = comfy.sample.prepare_noise

    def prepare(latent, seed, indices=None):
        if latent.ndim == 4:
            t, c, h, w = latent.shape
            return original(torch.zeros(1, c, t, h, w), seed)[0].transpose(0, 1).contiguous()
        return original(latent, seed, indices)

    with mock.patch.object(comfy.sample, "prepare_noise", prepare):
        yield
