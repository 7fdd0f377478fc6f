"""The patch points that ComfyUI nodes use on the host's own UNet (FreeU, PAG, ToMe, …).

The library imports no host, but this module honours one format of ComfyUI's: the dictionary ``transformer_options``, with
its keys and the arguments that its patches take. Without a dictionary nothing happens. Feature maps reach a patch folded
as ``(b t) c h w``, tokens as ``(b t) n c``, like a batch of images, so a patch made for images works on every frame.
Patches of spatial layers do not see temporal ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

Patch = Callable[..., Any]


class Patches:
    """The patches of one forward pass, and the block of the UNet that runs.

    Attributes:
        values: ComfyUI's transformer_options, which patches read and may change.
        lists: the patches by the name of their patch point.
        replacements: the functions that replace an attention, by "attn1" or "attn2" and then by block.
        windows: of temporal attention, on the latent's device and in its dtype: see `t2v_models.unet.attention.Window`.
    """

    def __init__(self, values: dict[str, Any] | None, x: Tensor) -> None:
        self.values: dict[str, Any] = {} if values is None else values
        self.lists: dict[str, list[Patch]] = self.values.get("patches", {})
        self.replacements: dict[str, dict[Any, Patch]] = self.values.get("patches_replace", {})
        windows = self.values.get("temporal_windows")
        self.windows = windows and [(frames.to(x.device), share.to(x)) for frames, share in windows]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.lists or self.replacements)

    def plain(self) -> dict[str, Any]:
        """The options as of now, without the patches: for temporal layers, and as the patches' own argument."""
        return {key: value for key, value in self.values.items() if key not in ("patches", "patches_replace")}

    def begin(self, shape: list[int]) -> None:
        """Set the options of a new pass: the folded shape ((b t), c, h, w) of the latent, no transformer yet."""
        self.values["original_shape"] = shape
        self.values["transformer_index"] = 0

    def at(self, place: str, index: int) -> None:
        """Set the block that runs: place is "input", "middle" or "output"."""
        self.values["block"] = (place, index)

    def apply(self, name: str, x: Tensor, *more: Any) -> Tensor:
        """x after every patch of that name."""
        for patch in self.lists.get(name, ()):
            x = patch(x, *more, self.values)
        return x

    def after_middle(self, h: Tensor, x: Tensor, emb: Tensor, context: Tensor, timesteps: Tensor) -> Tensor:
        """h after the patches that follow the middle block, which take the UNet's inputs, too."""
        for patch in self.lists.get("middle_block_after_patch", ()):
            inputs = {"h": h, "x": x, "emb": emb, "context": context, "y": None, "timesteps": timesteps}
            h = patch({**inputs, "transformer_options": self.values})["h"]
        return h

    def before_output(self, index: int, h: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """h and the skip that an output block takes together, after the patches (FreeU)."""
        self.at("output", index)
        for patch in self.lists.get("output_block_patch", ()):
            h, skip = patch(h, skip, self.values)
        return h, skip

    def replacement(self, name: str) -> Patch | None:
        """The function that replaces the attention "attn1" or "attn2" of this block; None where none does."""
        block = self.values.get("block")
        replacements = self.replacements.get(name, {})
        return replacements.get((*block, 0) if block else None, replacements.get(block))
