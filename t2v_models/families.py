"""The families of models: what each needs besides its weights, such as noise schedule, sizes, frame rate and licence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

CC_BY_NC = "CC BY-NC 4.0: no commercial use"
VIDEOCRAFTER = "Apache-2.0 by its tag; its authors' README allows research and non-commercial use only"
DYNAMICRAFTER = "Apache-2.0 by its tag; its authors allow research use only"
VGEN = "research and non-commercial use only, says its authors' README"


@dataclass(frozen=True)
class Defaults:
    """The settings of a call that its caller leaves out; for a known family those of its authors' examples."""

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
    """One family of models: how it was trained and how it is used. Widths and heights are in pixels."""

    name: str
    title: str
    licence: str
    unet: str
    """Name of its UNet's configuration in `t2v_models.unet.PRESETS`; "" for a UNet that is none of them."""
    text_encoder: str = "OpenCLIP ViT-H/14, penultimate layer"
    vae: str = "Stable Diffusion's, 8x, 4 channels"
    vae_scale: float = 0.18215
    """Factor on the VAE's latents that gives them a standard deviation near 1."""
    prediction_type: str = "epsilon"
    """What the UNet predicts: "epsilon" (the noise) or "v_prediction" (the velocity)."""
    betas: tuple[float, float] = (0.00085, 0.012)
    """First and last beta of the 1000 timesteps."""
    beta_schedule: str = "scaled_linear"
    """How beta runs between them, in diffusers' words: "scaled_linear" spaces the square roots evenly, "linear" the betas;
    "squaredcos_cap_v2" is the cosine schedule, which needs no betas."""
    zero_terminal_snr: bool = False
    """The betas are rescaled so that the last timestep is pure noise. Source: Lin et al. 2023 (arXiv:2305.08891)."""
    scale_base: float | None = None
    """VideoCrafter's use_scale: the latent is scaled by linspace(1, base, 400) over the timesteps, then by base."""
    keeps_last_scale: bool = False
    """DynamiCrafter ends its sampling with the last timestep's scale left on the latent; VideoCrafter takes it off."""
    width: int = 256
    height: int = 256
    frames: int = 16
    fps: float = 8
    """Frames per second at which its videos are saved."""
    fps_condition: float | None = None
    """Frame rate (DynamiCrafter: frame rate or frame stride) that the UNet is conditioned on; None where it has no such
    embedding."""
    steps: int = 50
    guidance_scale: float = 9.0
    scheduler: str = "ddim"
    eta: float = 0.0
    """Share of fresh noise in each DDIM step: 0 for none, 1 for as much as DDPM. Source: arXiv:2010.02502."""
    guidance_rescale: float = 0.0
    """Share by which guidance keeps the standard deviation of the guided prediction. Source: arXiv:2305.08891."""
    timestep_spacing: str = "leading"
    """How DDIM spaces its timesteps, in diffusers' words: "leading" (with offset 1), "trailing" or "linspace"."""
    ends_clean: bool = False
    """DDIM's last step goes to the clean latent, and not to timestep 0 (diffusers' set_alpha_to_one)."""
    distilled: bool = False
    """Consistency-distilled: few steps, a guidance scale that is fixed or embedded, no negative prompt."""
    even_steps: int = 0
    """T2V-Turbo: number of evenly spaced timesteps from which those of sampling are taken; 0: diffusers' LCM spacing."""
    image: bool = False
    """Needs a first image besides the text."""
    image_latents: str = ""
    """How image latents, concatenated to the noisy latent, fill the frames: "repeat", "ends" or "ramp", see
    `t2v_models.image.latents`; "" for none."""
    image_tokens: str = ""
    """What makes tokens of the encoded image: "resampler" (VideoCrafter1, DynamiCrafter), "i2vgen" (branches of the UNet
    itself) or "" for none."""
    fps_range: tuple[float, float] | None = None
    """Least and greatest value of the frame rate embedding that the model was trained with; None where it has none, or
    where its authors give no range."""
    fps_meaning: str = ""
    """What that value is, and how it changes the motion; "" for no embedding, or for a plain frame rate."""
    dual_decoder: bool = False
    """Its VAE's decoder sees the pictures at both ends of the clip (ToonCrafter)."""
    drops_last_frame: bool = False
    """Where no picture for the end is given, the last frame repeats the first (a loop), and is left out of the video."""
    upscaler: bool = False
    """Refines a video (video to video) rather than making one from noise."""
    frame_timesteps: bool = False
    """Trained with a timestep of its own for every frame: some frames may be known, others noisier than their neighbours."""
    speed_words: tuple[str, str] | None = None
    """Words for slow and for fast motion that the model learned; None where it learned none."""
    latent_colours: tuple[tuple[float, float, float], ...] | None = None
    """How its latents show colours, for previews: five rows of red, green and blue, -1..1, four for the channels and the
    constant; None for latents of Stable Diffusion's VAE."""
    negative_prompt: str = ""
    notes: str = ""

    @property
    def defaults(self) -> Defaults:
        """The settings with which the authors show the model."""
        return Defaults(
            frames=self.frames,
            width=self.width,
            height=self.height,
            fps=self.fps,
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            scheduler=self.scheduler,
            fps_condition=self.fps_condition,
        )

    def scheduler_config(self) -> dict[str, Any]:
        """The noise schedule as the contents of a diffusers scheduler_config.json, with the keys of our own that apply."""
        config = {
            "_class_name": "LCMScheduler" if self.distilled else "DDIMScheduler",
            "beta_start": self.betas[0],
            "beta_end": self.betas[1],
            "beta_schedule": self.beta_schedule,
            "num_train_timesteps": 1000,
            "prediction_type": self.prediction_type,
            "rescale_betas_zero_snr": self.zero_terminal_snr,
            "timestep_spacing": self.timestep_spacing,
            "clip_sample": False,
            "set_alpha_to_one": self.ends_clean,
            "steps_offset": 1,
        }
        if self.even_steps:
            config |= {"original_inference_steps": self.even_steps, "even_steps": True}
        if self.scale_base is not None:
            config["scale_base"] = self.scale_base
        if self.keeps_last_scale:
            config["keeps_last_scale"] = True
        return config


_MODELSCOPE = Family("modelscope", "ModelScope text to video 1.7B", CC_BY_NC, "modelscope")
_VGEN = Family(
    "vgen",
    "VGen text to video",
    VGEN,
    "modelscope",
    prediction_type="v_prediction",
    zero_terminal_snr=True,
    beta_schedule="squaredcos_cap_v2",
    vae="Stable Diffusion 2.1's, 8x, 4 channels",
    width=448,
    height=256,
)
_VIDEOCRAFTER = Family(
    "videocrafter1-512",
    "VideoCrafter1 text to video 512",
    VIDEOCRAFTER,
    "videocrafter1-512",
    width=512,
    height=320,
    guidance_scale=12.0,
    eta=1.0,
)
_DYNAMICRAFTER = Family(
    "dynamicrafter-256",
    "DynamiCrafter 256",
    DYNAMICRAFTER,
    "dynamicrafter-256",
    image=True,
    image_latents="repeat",
    image_tokens="resampler",
    guidance_scale=7.5,
    eta=1.0,
    fps_condition=3,
    fps_range=(1, 6),
    fps_meaning="frame stride: larger is more motion",
)
_DYNAMICRAFTER_V = replace(
    _DYNAMICRAFTER,
    fps_meaning="frames per second: smaller is more motion",
    prediction_type="v_prediction",
    zero_terminal_snr=True,
    guidance_rescale=0.7,
    timestep_spacing="trailing",
    keeps_last_scale=True,
)
_INTERPOLATION = replace(
    _DYNAMICRAFTER_V,
    name="dynamicrafter-512-interp",
    title="DynamiCrafter 512, between two pictures",
    unet="dynamicrafter-512",
    image_latents="ends",
    width=512,
    height=320,
    scale_base=0.7,
    fps_condition=5,
    fps_range=(5, 30),
    notes="Takes a first and a last picture.",
)
_TURBO = Family(
    "t2v-turbo-vc2",
    "T2V-Turbo on VideoCrafter2",
    "CC BY 4.0",
    "t2v-turbo-vc2",
    width=512,
    height=320,
    distilled=True,
    even_steps=200,
    scheduler="lcm",
    steps=4,
    guidance_scale=7.5,
    fps_condition=16,
)

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        _MODELSCOPE,
        replace(_MODELSCOPE, name="zeroscope-v1", title="ZeroScope v1", width=320, height=320, frames=24),
        replace(_MODELSCOPE, name="zeroscope-v2-30x448x256", title="ZeroScope v2 30x448x256", width=448, frames=30),
        replace(_MODELSCOPE, name="zeroscope-v2-576w", title="ZeroScope v2 576w", width=576, height=320, frames=24,
                steps=40),
        replace(_MODELSCOPE, name="zeroscope-v2-xl", title="ZeroScope v2 XL", width=1024, height=576, frames=24,
                upscaler=True, notes="Refines 576x320 videos upscaled to 1024x576, strength 0.6 to 0.85, with the same "
                "prompt."),
        replace(_MODELSCOPE, name="potat1", title="Potat1", width=1024, height=576, frames=24, fps=24,
                licence="Open RAIL by its tag; made from ModelScope's, CC BY-NC 4.0"),
        replace(_MODELSCOPE, name="animov", title="Animov", width=512, height=512),
        replace(_MODELSCOPE, name="show-1-sr2", title="Show-1's last stage", width=576, height=320, frames=29,
                upscaler=True, notes="Refines a small video, strength 0.8."),
        _VGEN,
        replace(_VGEN, name="tf-t2v", title="TF-T2V", beta_schedule="scaled_linear"),
        replace(_VGEN, name="videolcm", title="VideoLCM", beta_schedule="scaled_linear", distilled=True,
                scheduler="lcm", steps=4, guidance_scale=1.0, timestep_spacing="linspace"),
        replace(_VIDEOCRAFTER, name="videocrafter2", title="VideoCrafter2", unet="videocrafter2", scale_base=0.7,
                fps_condition=28),
        _VIDEOCRAFTER,
        replace(_VIDEOCRAFTER, name="videocrafter1-1024", title="VideoCrafter1 text to video 1024",
                unet="videocrafter1-1024", width=1024, height=576, scale_base=0.3, fps_condition=28),
        replace(_VIDEOCRAFTER, name="videocrafter1-i2v", title="VideoCrafter1 image to video 512",
                unet="videocrafter1-i2v", scale_base=0.7, fps_condition=8, image=True, image_tokens="resampler",
                fps_range=(4, 32), fps_meaning="frames per second: smaller is more motion"),
        _DYNAMICRAFTER,
        replace(_DYNAMICRAFTER_V, name="dynamicrafter-512", title="DynamiCrafter 512", unet="dynamicrafter-512",
                width=512, height=320, scale_base=0.7, fps_condition=24, fps_range=(15, 30)),
        replace(_DYNAMICRAFTER_V, name="dynamicrafter-1024", title="DynamiCrafter 1024", unet="dynamicrafter-1024",
                width=1024, height=576, scale_base=0.3, fps_condition=10, fps_range=(5, 20)),
        _INTERPOLATION,
        replace(_INTERPOLATION, name="dynamicrafter-512-loop", title="DynamiCrafter 512, loop", drops_last_frame=True,
                notes="The clip ends in its first picture; the last frame, which repeats it, is left out."),
        replace(_INTERPOLATION, name="tooncrafter-512", title="ToonCrafter 512", fps_condition=10, dual_decoder=True,
                vae="Stable Diffusion's, with a decoder that sees the two pictures"),
        Family("i2vgen-xl", "I2VGen-XL", "MIT", "i2vgen-xl", prediction_type="v_prediction", zero_terminal_snr=True,
               beta_schedule="squaredcos_cap_v2", ends_clean=True, width=1280, height=704, fps_condition=16, image=True,
               image_latents="ramp", image_tokens="i2vgen", fps_meaning="frames per second"),
        replace(_TURBO, name="t2v-turbo-ms", title="T2V-Turbo on ModelScope", unet="t2v-turbo-ms", width=256, height=256,
                even_steps=50, fps_condition=None, licence="CC BY 4.0; made from ModelScope's, CC BY-NC 4.0"),
        _TURBO,
        replace(_TURBO, name="t2v-turbo-v2", title="T2V-Turbo v2", licence="Apache-2.0", unet="t2v-turbo-v2", steps=16),
    )
}  # fmt: skip
"""The families by name."""
