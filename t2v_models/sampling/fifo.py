"""Endless video: a queue of frames, each one noise level behind the next.

Every round brings every frame one level down, hands out the first, which is finished, and takes in a frame of noise at
the end, so memory does not depend on the length. Source: Kim et al. 2024, FIFO-Diffusion (arXiv:2405.11473), with its
lookahead denoising; written from the paper's equations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..errors import T2VError
from .ddim import add_noise, ddim_step

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``predict(x, timesteps, numbers)``: x (k, c, f, h, w), timesteps (k, f), the frames' numbers (k, f) -> like x."""


def fifo(
    predict: Predict,
    clip: Tensor,
    timesteps: Tensor,
    abar: Tensor,
    kind: str,
    *,
    window: int,
    generator: torch.Generator,
    final_abar: float | None = None,
) -> Iterator[Tensor]:
    """The frames that follow a clip, one by one, without end.

    Args:
        predict: the model's (guided) prediction for windows of frames with a noise level each.
        clip: (1, c, t, h, w) clean frames to go on from, at least one; they stay as they are.
        timesteps: (n,) from noisy to clean, see `t2v_models.sampling.ddim.ddim_timesteps`; n is a multiple of half a
            window, and is the length of the queue.
        abar: (1000,) signal shares of all timesteps.
        kind: "epsilon" or "v_prediction".
        window: frames that the model sees at once; an even number. Its first half is less noisy than the frames it is
            asked about (lookahead), so each frame is denoised once per round.
        generator: of the noise (a CPU one).
        final_abar: the signal share at the end, abar[0] where None.

    Yields:
        (1, c, 1, h, w) the next finished frame.

    Raises:
        T2VError: for a window that cannot slide over that queue, or an empty clip.
    """
    half, count = window // 2, len(timesteps)
    if window < 2 or window % 2 or count % half:
        raise T2VError(
            f"A window of {window} frames over {count} steps: an even window is wanted, and as many steps as make "
            f"whole halves of it, {max(1, round(count / max(half, 1))) * max(half, 1)} for one."
        )
    if clip.ndim != 5 or clip.shape[0] != 1 or not clip.shape[2]:
        raise T2VError(
            f"The clip to go on from has shape {tuple(clip.shape)}: (1, c, t, h, w) is wanted, t at least 1."
        )
    device, frame_shape = clip.device, (*clip.shape[:2], 1, *clip.shape[3:])
    levels = timesteps.flip(0).to(device)  # the front of the queue is the cleanest
    last = abar[0] if final_abar is None else torch.tensor(final_abar, dtype=abar.dtype)
    share = abar.to(device)[levels]
    share_next = torch.cat([last[None].to(device), share[:-1]])
    share, share_next = (s.to(clip.dtype)[:, None, None] for s in (share, share_next))  # (n, 1, 1), by frame

    def fresh() -> Tensor:
        return torch.randn(frame_shape, generator=generator).to(device, clip.dtype)

    def known(number: int) -> Tensor:
        return clip[:, :, max(0, number) : max(0, number) + 1]

    length = clip.shape[2]
    numbers = torch.arange(length - count, length, device=device)
    noises = [fresh() for _ in range(count)]
    queue = torch.cat([add_noise(known(int(n)), e, s) for n, e, s in zip(numbers, noises, share, strict=True)], dim=2)
    done = torch.cat([known(int(numbers[0]) - half + i) for i in range(half)], dim=2)
    starts = range(0, count, half)
    while True:
        line = torch.cat([done, queue], dim=2)
        line_levels = torch.cat([torch.zeros_like(levels[:half]), levels])
        line_numbers = torch.cat([numbers[:1] - half + torch.arange(half, device=device), numbers])
        windows = torch.cat([line[:, :, s : s + window] for s in starts])
        window_levels = torch.stack([line_levels[s : s + window] for s in starts])
        window_numbers = torch.stack([line_numbers[s : s + window] for s in starts]).clamp(min=0)
        prediction = predict(windows, window_levels, window_numbers)[:, :, half:]
        prediction = torch.cat(list(prediction.split(1)), dim=2)
        queue = ddim_step(queue, prediction, share, share_next, kind)
        for i, number in enumerate(numbers.tolist()):
            if number >= length:
                break
            queue[:, :, i : i + 1] = add_noise(known(number), noises[i], share_next[i])
        finished = queue[:, :, :1]
        if int(numbers[0]) >= length:
            yield finished
        else:
            finished = known(int(numbers[0]))
        done = torch.cat([done, finished], dim=2)[:, :, 1:]
        noises = [*noises[1:], fresh()]
        queue = torch.cat([queue[:, :, 1:], noises[-1]], dim=2)
        numbers = numbers + 1
