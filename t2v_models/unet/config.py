"""The configuration of a 3D UNet, and those of the published models."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class UNetConfig:
    """The shape of one 3D UNet. The defaults are ModelScope 1.7B (1,411,233,860 parameters).

    Raises ValueError, naming the field, where a value cannot make a network.
    """

    in_channels: int = 4
    """Channels of the latent that enters: 4, or 8 where an image latent is concatenated (DynamiCrafter, I2VGen-XL)."""

    out_channels: int = 4
    """Channels of the prediction."""

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Width of each resolution level; each has half the height and width of the one before."""

    num_res_blocks: int = 2
    """Residual blocks of each level on the way down; one more on the way up."""

    attention_levels: tuple[bool, ...] = (True, True, True, False)
    """Which levels have spatial (and temporal) transformers; the middle block always has them."""

    head_dim: int = 64
    """Channels of one attention head. The shapes of weights do not contain it, so unusual models need a config.json."""

    context_dim: int = 1024
    """Width of the text embedding."""

    init_attention: bool = True
    """A temporal transformer right after the first convolution."""

    init_heads: int = 8
    """Heads of that first transformer: its inner width is init_heads * head_dim, independent of channels[0]."""

    temporal_attention: bool = True
    """A temporal transformer after every spatial one."""

    temporal_convolution: bool = True
    """Four (3, 1, 1) convolutions after every residual block; VideoCrafter1 text to video has none."""

    relative_position: int = 0
    """Largest relative frame distance with an embedding of its own in temporal attention; 0: no positions."""

    fps_embedding: bool = False
    """An embedding of the frame rate (VideoCrafter) or frame stride (DynamiCrafter) is added to the timestep's."""

    default_fps: float = 16
    """The value that is embedded if the caller gives none."""

    guidance_dim: int = 0
    """Width of the guidance scale embedding of distilled models (T2V-Turbo: 256); 0: none."""

    motion_dim: int = 0
    """Width of T2V-Turbo v2's motion guidance embedding; needs guidance_dim; 0: none."""

    image_attention: bool = False
    """Extra keys and values for image tokens in the text attention (VideoCrafter1 I2V, DynamiCrafter)."""

    image_scale: bool = False
    """A learned scale of the image attention, one per layer (DynamiCrafter 256)."""

    image_branches: bool = False
    """Three small networks for a picture's latent and CLIP embedding (I2VGen-XL); half of in_channels are image latents."""

    norm_groups: int = 32
    """Groups of every group normalisation."""

    norm_eps: float = 1e-5
    """Epsilon of the residual blocks' normalisations; transformers use 1e-6."""

    def __post_init__(self) -> None:
        for name in ("channels", "attention_levels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        positive = ("in_channels", "out_channels", "num_res_blocks", "head_dim", "context_dim", "init_heads")
        for name in (*positive, "norm_groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"UNetConfig.{name} is {getattr(self, name)}: it must be at least 1.")
        for name in ("relative_position", "guidance_dim", "motion_dim"):
            if getattr(self, name) < 0:
                raise ValueError(f"UNetConfig.{name} is {getattr(self, name)}: it must be 0 (none) or more.")
        if not self.channels:
            raise ValueError("UNetConfig.channels is empty: give one width per resolution level.")
        if len(self.attention_levels) != len(self.channels):
            raise ValueError(
                f"UNetConfig.attention_levels has {len(self.attention_levels)} entries for {len(self.channels)} "
                "levels: give one per level."
            )
        for width in self.channels:
            if width % self.norm_groups:
                raise ValueError(f"UNetConfig.channels has {width}, no multiple of norm_groups={self.norm_groups}.")
        for width, attention in zip(self.channels, self.attention_levels, strict=True):
            if attention and width % self.head_dim:
                raise ValueError(f"UNetConfig.channels has {width}, no multiple of head_dim={self.head_dim}.")
        if self.channels[-1] % self.head_dim:
            raise ValueError(f"UNetConfig.channels ends in {self.channels[-1]}, no multiple of head_dim.")
        if self.motion_dim and not self.guidance_dim:
            raise ValueError("UNetConfig.motion_dim is set without guidance_dim: motion guidance builds on it.")
        if self.image_scale and not self.image_attention:
            raise ValueError("UNetConfig.image_scale is set without image_attention: there is nothing to scale.")
        if self.image_branches and self.in_channels % 2:
            raise ValueError("UNetConfig.in_channels is odd: with image_branches half of them are image latents.")

    @property
    def takes_image(self) -> bool:
        """Whether the network needs a picture besides the text."""
        return self.image_attention or self.image_branches

    @property
    def embed_dim(self) -> int:
        """Width of the timestep embedding after its two layers."""
        return 4 * self.channels[0]


_VIDEOCRAFTER1 = UNetConfig(temporal_convolution=False, relative_position=16)
_DYNAMICRAFTER = UNetConfig(in_channels=8, fps_embedding=True, image_attention=True)

PRESETS: dict[str, UNetConfig] = {
    "modelscope": UNetConfig(),
    "t2v-turbo-ms": UNetConfig(guidance_dim=256),
    "videocrafter2": UNetConfig(fps_embedding=True),
    "t2v-turbo-vc2": UNetConfig(fps_embedding=True, guidance_dim=256),
    "t2v-turbo-v2": UNetConfig(fps_embedding=True, guidance_dim=256, motion_dim=256),
    "videocrafter1-512": _VIDEOCRAFTER1,
    "videocrafter1-1024": replace(_VIDEOCRAFTER1, fps_embedding=True),
    "videocrafter1-i2v": UNetConfig(fps_embedding=True, image_attention=True),
    "dynamicrafter-256": replace(_DYNAMICRAFTER, image_scale=True, default_fps=3),
    "dynamicrafter-512": replace(_DYNAMICRAFTER, default_fps=24),
    "dynamicrafter-1024": replace(_DYNAMICRAFTER, default_fps=10),
    "i2vgen-xl": UNetConfig(in_channels=8, fps_embedding=True, image_branches=True),
}
"""The published shapes by name; several models share one (ZeroScope, Potat1 … are "modelscope")."""
