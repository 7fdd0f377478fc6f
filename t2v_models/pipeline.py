"""Prompt to frames, without a host: our UNet, diffusers' schedulers and VAE, transformers' CLIP."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import T2VError
from .families import Family
from .sampling.guidance import classifier_free, rescale
from .sampling.schedulers import build_scheduler, scaled_schedule
from .sampling.story import parse_story, same_frames
from .sampling.windows import Windows
from .unet import UNet3D

if TYPE_CHECKING:
    from .checkpoints import Checkpoint

log = logging.getLogger(__name__)

BUILT_IN = Path(__file__).parent / "builtin"
CLIP = "openai/clip-vit-large-patch14"
Progress = Callable[[int, int], None]
"""``progress(done, total)`` after every step; it may raise to cancel."""


@dataclass(frozen=True)
class Video:
    """What a pipeline returns."""

    frames: Tensor
    """(b, t, h, w, 3), float32, 0..1."""

    latents: Tensor
    """(b, 4, t, h/8, w/8), float32."""

    fps: float


class Pipeline:
    """Text to video with one model; made by `load_pipeline`.

    Attributes: unet (`UNet3D`), vae (diffusers' AutoencoderKL), text_encoder (transformers' CLIPTextModel), tokenizer,
    scheduler_config, family, defaults (the family's).
    """

    def __init__(
        self,
        unet: UNet3D,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        scheduler_config: dict[str, Any],
        family: Family,
    ) -> None:
        self.unet, self.vae, self.text_encoder, self.tokenizer = unet, vae, text_encoder, tokenizer
        self.scheduler_config, self.family, self.defaults = scheduler_config, family, family.defaults
        self.input_scale: Tensor | None = None
        if family.scale_base is not None:
            betas, self.input_scale = scaled_schedule(_betas(scheduler_config), family.scale_base)
            self.scheduler_config = {**scheduler_config, "trained_betas": betas.tolist()}

    @property
    def device(self) -> torch.device:
        """Where the UNet's weights are."""
        return self.unet.out[2].weight.device

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] = "",
        negative_prompt: str | Sequence[str] = "",
        *,
        frames: int | None = None,
        width: int | None = None,
        height: int | None = None,
        fps: float | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_rescale: float | None = None,
        scheduler: str | None = None,
        eta: float | None = None,
        seed: int = 0,
        video: Tensor | None = None,
        strength: float = 1.0,
        latents: Tensor | None = None,
        story: str | None = None,
        windows: Windows | None = None,
        method: str | None = None,
        progress: Progress | None = None,
        decode: bool = True,
    ) -> Video | Iterator[Tensor]:
        """Make one video per prompt, or, by a method for long videos, an iterator over one film's frames.

        Args:
            prompt: one text or several.
            negative_prompt: what to keep away from: one text, or one per prompt.
            frames, width, height, fps, steps, guidance_scale, scheduler: the model's defaults where None; width and
                height are multiples of 8.
            guidance_rescale: 0..1, see `t2v_models.sampling.guidance.rescale`; the model's default where None.
            eta: 0..1, noise that DDIM adds anew at every step; the model's default where None.
            seed: of the first video; the next has seed + 1 and so on, so that each can be made again alone.
            video: (b, t, h, w, 3), 0..1, a video to start from, and
            strength: how much of it to replace, 0 < strength <= 1.
            latents: (b, 4, t, h/8, w/8) standard normal noise to use instead of the seed's.
            story: a text that changes over the frames, instead of a prompt: see `t2v_models.sampling.story`.
            windows: how a video longer than the model's own is denoised: see `t2v_models.sampling.windows`.
            method: a key of `t2v_models.film.METHODS`: yields (n, h, w, 3) frames of the story as they are finished. It
                takes the story (or prompt), size, steps, guidance scale and seed; for more see `t2v_models.film.Film`.
            progress: see `Progress`.
            decode: False leaves `Video.frames` empty.

        Raises:
            T2VError: for values that no video can be made with.
        """
        if method is not None:
            from .film import Film

            size = {"frames": frames, "width": width, "height": height, "fps": fps}
            how = {"steps": steps, "guidance_scale": guidance_scale, "seed": seed, "window": windows}
            return Film(
                self, story or str(prompt), str(negative_prompt), method=method, **size, **how, progress=progress
            ).frames()
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        negatives = [negative_prompt] * len(prompts) if isinstance(negative_prompt, str) else list(negative_prompt)
        choose = self.defaults
        steps = choose.steps if steps is None else steps
        scale = choose.guidance_scale if guidance_scale is None else guidance_scale
        contrast = self.family.guidance_rescale if guidance_rescale is None else guidance_rescale
        eta = self.family.eta if eta is None else eta
        shape = self._shape(prompts, negatives, frames, width, height, video)
        if not 1 <= steps <= 1000:
            raise T2VError(f"steps is {steps}: a number from 1 to 1000 is wanted.")
        if not 0 < strength <= 1:
            raise T2VError(f"strength is {strength}: more than 0 and at most 1 is wanted.")

        # 1. text
        distilled = self.unet.config.guidance_dim > 0
        guided = scale != 1 and not distilled
        if story is None:
            context = self.encode_text([*negatives, *prompts] if guided else prompts)
        else:
            told = parse_story(story, shape[2], choose.fps if fps is None else fps)
            numbers = torch.arange(shape[2])[None]
            context = told.told(self.encode_text).at(numbers)
            if guided:
                negative = told.told(self.encode_text, negative=True).at(numbers)
                context = torch.cat(same_frames(negative, context, shape[2]))

        # 2. noise
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
        base = build_scheduler(scheduler or choose.scheduler, self.scheduler_config)
        base.set_timesteps(steps, device=self.device)
        order = getattr(base, "order", 1)
        start = (steps - min(int(steps * strength), steps)) * order if video is not None else 0
        timesteps = base.timesteps[start:]
        if not len(timesteps):
            raise T2VError(f"strength {strength} of {steps} steps leaves no step to do: raise one of them.")
        schedulers = [copy.deepcopy(base) for _ in prompts]  # one each: several remember the steps before
        x = torch.cat([torch.randn(1, *shape[1:], generator=g) for g in generators]) if latents is None else latents
        if tuple(x.shape) != shape:
            raise T2VError(f"latents has shape {tuple(x.shape)}: {shape} is wanted.")
        x = x.to(self.device, torch.float32)
        if windows is not None:
            windows = windows.over(shape[2])
            x = torch.cat([windows.noise(each[None], g) for each, g in zip(x, generators, strict=True)])
        if video is not None:
            clean = self.encode_video(video)
            x = torch.cat(
                [s.add_noise(c[None], n[None], timesteps[:1]) for s, c, n in zip(schedulers, clean, x, strict=True)]
            )
            for s in schedulers:
                if hasattr(s, "set_begin_index"):  # those that count their steps
                    s.set_begin_index(start)
        else:
            x = x * base.init_noise_sigma
            if self.input_scale is not None:  # the originals begin on noise of variance one as the network sees it
                x = x / self.input_scale[int(timesteps[0])]

        # 3. denoise
        conditions = self.conditions(len(prompts), fps, scale)
        for i, t in enumerate(timesteps):
            model_input = torch.cat([s.scale_model_input(v[None], t) for s, v in zip(schedulers, x, strict=True)])
            if self.input_scale is not None:
                model_input = model_input * self.input_scale[int(t)]
            levels = t.expand(len(prompts)).to(self.device)
            unet = self.unet if windows is None else windows.around(self.unet, i)
            prediction = unet(model_input.to(self.unet.dtype), levels, context, **conditions).float()
            if guided:
                uncond, cond = prediction.chunk(2)
                prediction = rescale(classifier_free(cond, uncond, scale), cond, contrast)
            x = torch.stack([_step(*each, t, eta) for each in zip(schedulers, prediction, x, generators, strict=True)])
            if progress is not None:
                progress(i + 1, len(timesteps))
        if not torch.isfinite(x).all():
            raise T2VError(
                f"The latents have become NaN or infinite (weights {self.unet.dtype}, latent {tuple(x.shape)}): "
                "load the model with dtype=torch.float32 or torch.bfloat16."
            )

        # 4. decode
        rate = choose.fps if fps is None else fps
        if not decode:
            return Video(torch.empty(0), x, rate)
        return Video(torch.stack([torch.cat(list(self.decode(each))) for each in x]), x, rate)

    def conditions(self, count: int, fps: float | None, guidance_scale: float) -> dict[str, Any]:
        """What this UNet is told besides the text, for that many videos."""
        told: dict[str, Any] = {}
        if self.unet.config.fps_embedding:
            told["fps"] = self.defaults.fps_condition if fps is None else fps
        if self.unet.config.guidance_dim:
            told["guidance"] = torch.full((count,), float(guidance_scale), device=self.device)
        return told

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """(n, 77 k, d): last hidden states. A text longer than the window goes on in the next one, as in ComfyUI."""
        tokenizer = self.tokenizer
        room = tokenizer.model_max_length - 2
        ids = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
        windows = max(1, *(-(-len(each) // room) for each in ids))
        pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        rows = []
        for each in ids:
            for start in range(0, windows * room, room):
                row = [tokenizer.bos_token_id, *each[start : start + room], tokenizer.eos_token_id]
                rows.append(row + [pad] * (tokenizer.model_max_length - len(row)))
        hidden = self.text_encoder(torch.tensor(rows, device=self.device)).last_hidden_state
        return hidden.reshape(len(ids), -1, hidden.shape[-1])

    def encode_video(self, video: Tensor, chunk: int = 8) -> Tensor:
        """video: (b, t, h, w, 3), 0..1 -> (b, 4, t, h/8, w/8), the mode of each frame's latent."""
        pixels = video.flatten(0, 1).movedim(-1, 1).to(self.device, self.vae.dtype) * 2 - 1
        parts = [self.vae.encode(part).latent_dist.mode() for part in pixels.split(chunk)]
        latents = torch.cat(parts).float() * self.vae.config.scaling_factor
        return latents.unflatten(0, video.shape[:2]).transpose(1, 2)

    @torch.no_grad()
    def decode(self, latents: Tensor, chunk: int = 8) -> Iterator[Tensor]:
        """latents: (4, t, h, w) of one video -> (n, 8h, 8w, 3), 0..1, a chunk of frames at a time."""
        for part in latents.transpose(0, 1).split(chunk):
            pixels = self.vae.decode(part.to(self.vae.dtype) / self.vae.config.scaling_factor).sample
            yield (pixels.float() / 2 + 0.5).clamp(0, 1).movedim(1, -1).cpu()

    def _shape(
        self,
        prompts: list[str],
        negatives: list[str],
        frames: int | None,
        width: int | None,
        height: int | None,
        video: Tensor | None,
    ) -> tuple[int, ...]:
        """The latents' shape, or the error that says why there can be none."""
        if not prompts:
            raise T2VError("No prompt is given: at least one is wanted.")
        if len(negatives) != len(prompts):
            raise T2VError(f"{len(negatives)} negative prompts for {len(prompts)} prompts: give one, or one for each.")
        if video is not None:
            if video.ndim != 5 or video.shape[0] != len(prompts) or video.shape[-1] != 3:
                raise T2VError(f"video has shape {tuple(video.shape)}: ({len(prompts)}, t, h, w, 3) is wanted.")
            frames, height, width = video.shape[1:4]
        return self.checked_shape(len(prompts), frames, width, height)

    def checked_shape(self, count: int, frames: int | None, width: int | None, height: int | None) -> tuple[int, ...]:
        """(count, 4, frames, height/8, width/8), the model's defaults where None; T2VError where that cannot be."""
        frames = self.defaults.frames if frames is None else frames
        width = self.defaults.width if width is None else width
        height = self.defaults.height if height is None else height
        if frames < 1:
            raise T2VError(f"frames is {frames}: at least 1 is wanted.")
        for name, size in (("width", width), ("height", height)):
            if size < 8 or size % 8:
                raise T2VError(f"{name} is {size}: a multiple of 8 is wanted, {max(8, round(size / 8) * 8)} for one.")
        return (count, self.unet.config.out_channels, frames, height // 8, width // 8)


def load_pipeline(
    model: str | Path = "built-in", *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> Pipeline:
    """A pipeline from "built-in" or from anything that `t2v_models.inspect` knows and that has all its parts.

    Args:
        model: "built-in", or the path of a model folder or checkpoint.
        dtype: of the weights; where None, float32 on a CPU and float16 elsewhere.
        device: where to run.

    Raises:
        T2VError: where a part (UNet, text encoder, VAE) is missing.
        FileNotFoundError: where the path is.
    """
    from .checkpoints import load_unet, open_checkpoint

    device = torch.device(device)
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.float16)
    checkpoint = open_checkpoint(BUILT_IN if str(model) == "built-in" else Path(model))
    missing = [part for part in ("unet", "vae", "text_encoder") if part not in checkpoint.info.parts]
    if missing:
        raise T2VError(
            f"{model} has no {' and no '.join(missing)}: give the folder that holds all parts of the model, or put the "
            "missing files beside it."
        )
    family = checkpoint.family
    if family.image:
        raise T2VError(
            f"{model} is {family.title}, which wants a first image, and the pipeline gives it none yet: choose a "
            "text-to-video model; `t2v_models.load_unet` loads its UNet, which takes image latents and tokens."
        )
    unet = load_unet(checkpoint, dtype=dtype, device=device)
    if device.type == "cpu":  # its input is laid out so: a convolution is faster when its weight is, too
        unet.to(memory_format=torch.channels_last)
    return Pipeline(
        unet,
        load_vae(checkpoint, dtype=dtype, device=device),
        load_text_encoder(checkpoint, dtype=dtype, device=device),
        load_tokenizer(checkpoint.tokenizer_path),
        checkpoint.scheduler_config(),
        family,
    )


def load_vae(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> Any:
    """diffusers' AutoencoderKL with the checkpoint's weights."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        vae = AutoencoderKL.from_config(checkpoint.vae_config())
    return _filled(vae, checkpoint.vae(), dtype, device)


def load_text_encoder(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> Any:
    """transformers' CLIPTextModel with the checkpoint's weights."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        encoder = CLIPTextModel(CLIPTextConfig(**checkpoint.text_encoder_config()))
    return _filled(encoder, checkpoint.text_encoder(), dtype, device)


def load_tokenizer(path: Path | None) -> Any:
    """transformers' CLIPTokenizer from its folder; CLIP's own where the model brings none."""
    from transformers import CLIPTokenizer

    if path is not None:
        return CLIPTokenizer.from_pretrained(path)
    try:
        return CLIPTokenizer.from_pretrained(CLIP)
    except OSError as error:
        raise T2VError(
            f"The model brings no tokenizer, and {CLIP}'s could not be loaded: put a folder 'tokenizer' with CLIP's "
            "vocab.json and merges.txt beside the weights."
        ) from error


def _filled(module: torch.nn.Module, weights: dict[str, Tensor], dtype: torch.dtype, device: torch.device) -> Any:
    """A module of the meta device with its weights; a buffer that is not saved is made as its class makes it."""
    names = module.state_dict().keys()
    if not any(name.startswith("text_model.") for name in names):  # transformers 5 has dropped this level
        weights = {name.removeprefix("text_model."): weight for name, weight in weights.items()}
    module.load_state_dict({name: weight.to(device, dtype) for name, weight in weights.items()}, assign=True)
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:  # CLIP's position_ids, the only one there is
            owner, _, last = name.rpartition(".")
            positions = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape)
            module.get_submodule(owner).register_buffer(last, positions, persistent=False)
    return module.eval().requires_grad_(False)


def _betas(config: dict[str, Any]) -> Tensor:
    """(1000,) betas of a scaled-linear schedule."""
    start, end, count = config["beta_start"], config["beta_end"], config.get("num_train_timesteps", 1000)
    return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2


def _step(scheduler: Any, prediction: Tensor, x: Tensor, generator: torch.Generator, t: Tensor, eta: float) -> Tensor:
    """One scheduler step of one video; frames are its batch, as in diffusers, so that noise is drawn in that order."""
    taken = signature(scheduler.step).parameters
    extra = {name: value for name, value in (("generator", generator), ("eta", eta)) if name in taken}
    frames = scheduler.step(prediction.transpose(0, 1), t, x.transpose(0, 1), return_dict=False, **extra)[0]
    return frames.transpose(0, 1)
