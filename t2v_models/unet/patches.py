"""The patch points that ComfyUI nodes use on the host's own UNet (FreeU, PAG, ToMe, …), honoured here too.

They come as one dictionary, the host's ``transformer_options``; without it nothing happens. Feature maps reach a patch
folded as ``(b t) c h w``, tokens as ``(b t) n c``, like a batch of images, so a patch made for images works on every
frame. Temporal layers are not offered to spatial patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from .attention import Attention
    from .transformer import TransformerBlock


class Options:
    """The options of one forward pass: the host's dictionary and where in the UNet we are."""

    def __init__(self, values: dict[str, Any] | None, x: Tensor) -> None:
        self.values: dict[str, Any] = {} if values is None else values
        self.patches: dict[str, list] = self.values.get("patches", {})
        self.replacements: dict[str, dict] = self.values.get("patches_replace", {})
        self.patched = bool(self.patches or self.replacements)
        windows = self.values.get("temporal_windows")
        # once, not in every layer
        self.windows = windows and [(frames.to(x.device), share.to(x)) for frames, share in windows]

    def plain(self) -> dict[str, Any]:
        """The values as of now, without the patches: for temporal layers, and as the patches' own argument."""
        return {key: value for key, value in self.values.items() if key not in ("patches", "patches_replace")}

    def at(self, place: str, index: int) -> None:
        """Tell the patches which block runs: place is "input", "middle" or "output"."""
        self.values["block"] = (place, index)

    def begin(self, shape: list[int]) -> None:
        """Tell the patches the folded shape ((b t), c, h, w) of the latent."""
        self.values["original_shape"] = shape
        self.values["transformer_index"] = 0

    def after_middle(self, h: Tensor, x: Tensor, emb: Tensor, context: Tensor, timesteps: Tensor) -> Tensor:
        """h through the patches after the middle block, which see everything else too."""
        for patch in self.patches.get("middle_block_after_patch", ()):
            seen = {"h": h, "x": x, "emb": emb, "context": context, "y": None, "timesteps": timesteps}
            h = patch({**seen, "transformer_options": self.values})["h"]
        return h

    def output_block(self, h: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """h and the skip it is about to be joined with, through the patches (FreeU)."""
        for patch in self.patches.get("output_block_patch", ()):
            h, skip = patch(h, skip, self.values)
        return h, skip

    def apply(self, name: str, x: Tensor, *more: Any) -> Tensor:
        """x through every patch of that name."""
        for patch in self.patches.get(name, ()):
            x = patch(x, *more, self.values)
        return x

    def temporal_attention(self, layer: Attention, x: Tensor) -> Tensor:
        """Attention over frames, within the windows of "temporal_windows" where given. x: (n, t, c) -> the same."""
        return layer(x, options=self.plain(), windows=self.windows)

    def transformer_block(self, block: TransformerBlock, x: Tensor, text: Tensor, image: Tensor | None) -> Tensor:
        """The spatial transformer block with every patch applied. x: (n, p, c), text: (n, m, d) -> (n, p, c)."""
        extra = dict(self.plain(), n_heads=block.attn1.heads, dim_head=block.attn1.head_dim)
        extra.setdefault("block_index", 0)
        extra["attn_precision"] = None
        x = x + self._attention("attn1", block.attn1, block.norm1(x), None, None, extra)
        for patch in self.patches.get("middle_patch", ()):
            x = patch(x, extra)
        x = x + self._attention("attn2", block.attn2, block.norm2(x), text, image, extra)
        return x + block.ff(block.norm3(x))

    def _attention(
        self, name: str, layer: Attention, x: Tensor, context: Tensor | None, image: Tensor | None, extra: dict
    ) -> Tensor:
        value = None
        for patch in self.patches.get(f"{name}_patch", ()):
            context = x if context is None else context
            value = context if value is None else value
            x, context, value = patch(x, context, value, extra)
        block = self.values.get("block")
        replacements = self.replacements.get(name, {})
        replacement = replacements.get((*block, 0) if block else None, replacements.get(block))
        if replacement is None:
            x = layer(x, context, value, image, options=self.values)
        else:
            context = x if context is None else context
            value = context if value is None else value
            q = layer.to_q(x)
            x = replacement(q, layer.to_k(context), layer.to_v(value), extra)
            x = layer.to_out(layer.add_image(x, q, image, self.values))
        for patch in self.patches.get(f"{name}_output_patch", ()):
            x = patch(x, extra)
        return x
