"""Anchors: the frames from which every frame takes the keys and values of its self-attention.

Sources: Khachatryan et al. 2023, Text2Video-Zero (arXiv:2303.13439), section 3.3.2: the first frame; Wu et al. 2022,
Tune-A-Video (arXiv:2212.11565), section 4.2: the first and the previous frame; Zhang et al. 2023, ControlVideo
(arXiv:2305.13077), section 3.2: all frames; Kara et al. 2023, RAVE (arXiv:2312.04524), section 3.3: groups of frames that are
shuffled at every step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import T2VError

ANCHORS = ("first", "first + previous", "first + previous + next", "all", "shuffled groups")
"""Names of the choices."""

GROUP = 9
"""Frames in a shuffled group: RAVE's grid of 3x3."""


def anchor_frames(anchor: str, frames: int, *, seed: int = 0, step: int = 0, group: int = GROUP) -> Tensor:
    """The frames that each frame attends to.

    Args:
        anchor: one of `ANCHORS`.
        frames: of the video.
        seed: for shuffled groups.
        step: for shuffled groups: the number of the denoising step.
        group: for shuffled groups: frames in a group. The last one takes frames of the group before it where the frames
            do not come out even.

    Returns:
        (frames, n) int64.

    Raises:
        T2VError: for another anchor, or no frames.
    """
    if frames < 1 or group < 1:
        raise T2VError(f"There are {frames} frames in groups of {group}: at least 1 is wanted of each.")
    own = torch.arange(frames)
    first = torch.zeros_like(own)
    if anchor == "first":
        return first[:, None]
    if anchor == "first + previous":
        return torch.stack([first, (own - 1).clamp(min=0)], dim=1)
    if anchor == "first + previous + next":
        return torch.stack([first, (own - 1).clamp(min=0), (own + 1).clamp(max=frames - 1)], dim=1)
    if anchor == "all":
        return own.expand(frames, -1)
    if anchor == "shuffled groups":
        return _shuffled(frames, min(group, frames), seed, step)
    raise T2VError(f"The anchor is {anchor!r}: choose one of {', '.join(ANCHORS)}.")


def _shuffled(frames: int, group: int, seed: int, step: int) -> Tensor:
    """(frames, group): each frame's group in an order of the frames that is drawn for the step."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
    order = torch.randperm(frames, generator=generator)
    groups = torch.empty(frames, group, dtype=torch.int64)
    for start in range(0, frames, group):
        members = order[min(start, frames - group) : start + group]
        groups[order[start : start + group]] = members.sort().values
    return groups


def anchored(tokens: Tensor, anchor_frames: Tensor, frames: int, videos: int = 1) -> Tensor:
    """The tokens that each frame takes its keys and values from.

    Args:
        tokens: (rows, n, c) of a self-attention, rows = chunks * videos * frames: the branches of guidance one after
            another, in each of them the videos, in each of these its frames.
        anchor_frames: (frames, anchors) of `anchor_frames`.
        frames: of each video.
        videos: in each branch.

    Returns:
        (rows, anchors * n, c).

    Raises:
        T2VError: where the rows are no multiple of all frames of all videos.
    """
    rows = len(tokens)
    if rows % (frames * videos):
        raise T2VError(
            f"The model gets {rows} latents at once, which are not {videos} video(s) of {frames} frames: give the number "
            "of frames that the latents have."
        )
    by_frame: Tensor = tokens.unflatten(0, (-1, frames))
    return by_frame[:, anchor_frames.to(tokens.device)].reshape(rows, -1, tokens.shape[2])
