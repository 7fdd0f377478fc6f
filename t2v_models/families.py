"""What a family of models wants besides its weights: noise schedule, sizes, frame rate, guidance, licence.

Shapes tell the network, and often the family; where several share one network, the first of the table is taken unless
the checkpoint holds more (a noise schedule, a diffusers configuration) or the caller names the family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .unet import PRESETS, UNetConfig

CC_BY_NC = "CC BY-NC 4.0: no commercial use"
VIDEOCRAFTER = "Apache-2.0 by its tag; its authors' README allows research and non-commercial use only"


@dataclass(frozen=True)
class Defaults:
    """What a call uses where it is not told otherwise: what the model's authors show."""

    frames: int = 16
    width: int = 256
    height: int = 256
    fps: float = 8
    steps: int = 50
    guidance_scale: float = 9.0
    scheduler: str = "ddim"
    fps_condition: float | None = None


@dataclass(frozen=True)
class Family:
    """One family of models: how it was trained and what it is used with. All sizes are pixels."""

    name: str
    title: str
    licence: str
    unet: str
    """The name of its UNet's shape in `t2v_models.unet.PRESETS`; "" for a model with a shape of its own."""
    text_encoder: str = "OpenCLIP ViT-H/14, penultimate layer"
    vae: str = "Stable Diffusion's, 8x, 4 channels"
    vae_scale: float = 0.18215
    prediction: str = "epsilon"
    """What the network predicts: "epsilon", the noise, or "v_prediction", the velocity."""
    betas: tuple[float, float] = (0.00085, 0.012)
    """First and last beta; their square roots are spaced evenly over 1000 steps ("scaled_linear")."""
    schedule: str = "scaled_linear"
    """How the betas run between them, by diffusers' names; "squaredcos_cap_v2" is the cosine schedule, without them."""
    zero_terminal_snr: bool = False
    """Betas are rescaled so that the last step is pure noise."""
    scale_base: float | None = None
    """VideoCrafter's use_scale: the latent is scaled by linspace(1, base, 400) over t, then by base."""
    width: int = 256
    height: int = 256
    frames: int = 16
    fps: float = 8
    """Frames per second at which its videos are saved."""
    fps_condition: float | None = None
    """The frame rate (DynamiCrafter: frame stride or rate) that is told to the network."""
    steps: int = 50
    guidance_scale: float = 9.0
    scheduler: str = "ddim"
    eta: float = 0.0
    """Noise added anew at every DDIM step."""
    guidance_rescale: float = 0.0
    timestep_spacing: str = "leading"
    """How DDIM picks its steps: "leading" (with offset 1) or "trailing"."""
    distilled: bool = False
    """Consistency-distilled: few steps, the guidance scale is embedded or fixed, no negative prompt."""
    even_steps: int = 0
    """Of T2V-Turbo: how many timesteps its own are taken from, in steps of the same length; 0 for diffusers' way."""
    image: bool = False
    """Wants a first image besides the text."""
    upscaler: bool = False
    """Meant for refining a video (video to video), not for making one from noise."""
    frame_levels: bool = False
    """Trained with a noise level for every frame: takes known frames clean, and frames of rising noise."""
    pace: tuple[str, str] | None = None
    """Words for slow and for fast motion that the model understands."""
    negative_prompt: str = ""
    notes: str = ""

    @property
    def defaults(self) -> Defaults:
        """What a user would set to get what the authors show."""
        return Defaults(
            self.frames,
            self.width,
            self.height,
            self.fps,
            self.steps,
            self.guidance_scale,
            self.scheduler,
            self.fps_condition,
        )

    def scheduler_config(self) -> dict[str, Any]:
        """The same as a diffusers scheduler_config.json."""
        config = {
            "_class_name": "LCMScheduler" if self.distilled else "DDIMScheduler",
            "beta_start": self.betas[0],
            "beta_end": self.betas[1],
            "beta_schedule": self.schedule,
            "num_train_timesteps": 1000,
            "prediction_type": self.prediction,
            "rescale_betas_zero_snr": self.zero_terminal_snr,
            "timestep_spacing": self.timestep_spacing,
            "clip_sample": False,
            "set_alpha_to_one": False,
            "steps_offset": 1,
        }
        if self.even_steps:
            config |= {"original_inference_steps": self.even_steps, "even_steps": True}
        return config if self.scale_base is None else config | {"scale_base": self.scale_base}


_VC = {"width": 512, "height": 320, "steps": 50, "guidance_scale": 12.0, "eta": 1.0, "fps": 8}
_DC = {
    "image": True,
    "steps": 50,
    "guidance_scale": 7.5,
    "eta": 1.0,
    "fps": 8,
    "licence": "Apache-2.0 by its tag; its authors allow research use only",
}
_DC_V = {
    "prediction": "v_prediction",
    "zero_terminal_snr": True,
    "guidance_rescale": 0.7,
    "timestep_spacing": "trailing",
}
_ZS = {"licence": CC_BY_NC, "unet": "modelscope"}
_VGEN = {
    "unet": "modelscope",
    "licence": "research and non-commercial use only, says its authors' README",
    "prediction": "v_prediction",
    "zero_terminal_snr": True,
    "vae": "Stable Diffusion 2.1's, 8x, 4 channels",
    "width": 448,
    "height": 256,
}

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("modelscope", "ModelScope text to video 1.7B", CC_BY_NC, "modelscope"),
        Family("zeroscope-v1", "ZeroScope v1", **_ZS, width=320, height=320, frames=24),
        Family("zeroscope-v2-30x448x256", "ZeroScope v2 30x448x256", **_ZS, width=448, height=256, frames=30),
        Family("zeroscope-v2-576w", "ZeroScope v2 576w", **_ZS, width=576, height=320, frames=24, steps=40),
        Family(
            "zeroscope-v2-xl",
            "ZeroScope v2 XL",
            **_ZS,
            width=1024,
            height=576,
            frames=24,
            upscaler=True,
            notes="Refines 576x320 videos upscaled to 1024x576, strength 0.6 to 0.85, with the same prompt.",
        ),
        Family("potat1", "Potat1", "Open RAIL by its tag; made from ModelScope's, CC BY-NC 4.0", "modelscope",
               width=1024, height=576, frames=24, fps=24),
        Family("animov", "Animov", CC_BY_NC, "modelscope", width=512, height=512),
        Family("show-1-sr2", "Show-1's last stage", CC_BY_NC, "modelscope", width=576, height=320, frames=29,
               upscaler=True, notes="Refines a small video, strength 0.8."),
        Family("vgen", "VGen text to video", **_VGEN, schedule="squaredcos_cap_v2"),
        Family("tf-t2v", "TF-T2V", **_VGEN),
        Family("videolcm", "VideoLCM", **_VGEN, distilled=True, scheduler="lcm", steps=4, guidance_scale=1.0,
               timestep_spacing="linspace"),
        Family("videocrafter2", "VideoCrafter2", VIDEOCRAFTER, "videocrafter2", **_VC, scale_base=0.7,
               fps_condition=28),
        Family("videocrafter1-512", "VideoCrafter1 text to video 512", VIDEOCRAFTER, "videocrafter1-512", **_VC),
        Family("videocrafter1-1024", "VideoCrafter1 text to video 1024", VIDEOCRAFTER, "videocrafter1-1024",
               **(_VC | {"width": 1024, "height": 576}), scale_base=0.3, fps_condition=28),
        Family("videocrafter1-i2v", "VideoCrafter1 image to video 512", VIDEOCRAFTER, "videocrafter1-i2v", **_VC,
               scale_base=0.7, fps_condition=8, image=True),
        Family("dynamicrafter-256", "DynamiCrafter 256", unet="dynamicrafter-256", **_DC, fps_condition=3),
        Family("dynamicrafter-512", "DynamiCrafter 512", unet="dynamicrafter-512", **_DC, **_DC_V,
               width=512, height=320, scale_base=0.7, fps_condition=24),
        Family("dynamicrafter-1024", "DynamiCrafter 1024", unet="dynamicrafter-1024", **_DC, **_DC_V,
               width=1024, height=576, scale_base=0.3, fps_condition=10),
        Family("t2v-turbo-ms", "T2V-Turbo on ModelScope", "CC BY 4.0; made from ModelScope's, CC BY-NC 4.0",
               "t2v-turbo-ms", distilled=True, even_steps=50, scheduler="lcm", steps=4, guidance_scale=7.5),
        Family("t2v-turbo-vc2", "T2V-Turbo on VideoCrafter2", "CC BY 4.0", "t2v-turbo-vc2", width=512, height=320,
               distilled=True, even_steps=200, scheduler="lcm", steps=4, guidance_scale=7.5, fps_condition=16),
        Family("t2v-turbo-v2", "T2V-Turbo v2", "Apache-2.0", "t2v-turbo-v2", width=512, height=320,
               distilled=True, even_steps=200, scheduler="lcm", steps=16, guidance_scale=7.5, fps_condition=16),
    )
}  # fmt: skip
"""The families by name."""


_CALLED = {
    "zeroscopev2xl": "zeroscope-v2-xl",
    "zs2xl": "zeroscope-v2-xl",
    "zeroscopev2576w": "zeroscope-v2-576w",
    "zs2576w": "zeroscope-v2-576w",
    "zeroscopev230x448x256": "zeroscope-v2-30x448x256",
    "zeroscopev2dark30x448x256": "zeroscope-v2-30x448x256",
    "zeroscopev1": "zeroscope-v1",
    "potat1": "potat1",
    "animov": "animov",
    "show1sr2": "show-1-sr2",
}
"""What fine-tunes of ModelScope are called where they are published, without punctuation."""


def family_called(*names: str) -> str | None:
    """The fine-tune that a folder or a configuration calls by its name.

    Only for models that differ in nothing but default sizes, licence and notes: everything else is told by the tensors.
    """
    for name in names:
        plain = "".join(letter for letter in name.lower() if letter.isalnum())
        for called, family in _CALLED.items():
            if called in plain:
                return family
    return None


def family_for(config: UNetConfig, hints: Mapping[str, Any] | None = None) -> Family:
    """The family of a UNet of this shape.

    Args:
        config: the UNet's configuration.
        hints: what else the checkpoint tells: "family" (a name of `FAMILIES`), "scale_base", "zero_terminal_snr",
            and what overrides the table: "prediction", "betas", "width", "height", "frames", "fps" …; "called", a
            name that chooses among fine-tunes of one model.
    """
    hints = {name: tuple(v) if isinstance(v, list) else v for name, v in (hints or {}).items()}  # JSON has lists
    named = FAMILIES.get(str(hints.get("family", "")))
    shape = replace(config, default_fps=UNetConfig.default_fps)
    fitting = [
        family
        for family in FAMILIES.values()
        if replace(PRESETS[family.unet], default_fps=UNetConfig.default_fps) == shape
    ]
    called = FAMILIES.get(str(hints.get("called", "")))
    if named is not None:
        family = named
    elif called is not None and called in fitting and not {"prediction", "zero_terminal_snr"} & _unlike(called, hints):
        family = called
    elif fitting:
        family = max(fitting, key=lambda f: sum(getattr(f, key, None) == value for key, value in hints.items()))
    else:
        family = Family(
            str(hints.get("family") or "custom"), "A model with a shape of its own", "unknown: see its source", ""
        )
    return replace(family, **{name: value for name, value in hints.items() if _fits(family, name, value)})


def _unlike(family: Family, hints: Mapping[str, Any]) -> set[str]:
    """The hints that contradict a family."""
    return {name for name, value in hints.items() if getattr(family, name, value) != value}


def _fits(family: Family, name: str, value: Any) -> bool:
    """Whether a hint is a field of a family and of its type, so that a stray configuration does no harm."""
    if name not in Family.__dataclass_fields__ or name in ("name", "unet"):
        return False
    if name in ("betas", "pace"):
        kind = str if name == "pace" else (int, float)
        return isinstance(value, tuple) and len(value) == 2 and all(isinstance(item, kind) for item in value)
    if name in ("scale_base", "fps_condition"):
        return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
    wanted = type(getattr(family, name))
    if wanted in (int, float) and not isinstance(value, bool):
        return isinstance(value, int) if wanted is int else isinstance(value, (int, float))
    return isinstance(value, wanted)
