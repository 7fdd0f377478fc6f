"""Prompt to frames, without a host: our UNet, diffusers' schedulers and VAE, transformers' CLIP."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .arguments import (
    Progress,
    checked_rate,
    checked_scale,
    checked_seed,
    checked_shape,
    checked_steps,
    is_guided,
    warn_of_unused,
)
from .errors import T2VError
from .families import Family
from .fingerprint import fingerprint, settled
from .sampling.guidance import classifier_free, motion_guidance, rescale
from .sampling.schedule import NoiseSchedule
from .sampling.solvers import make_solver
from .sampling.story import parse_story, same_form, with_negative
from .sampling.windows import Windows
from .unet import UNet3D

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Video:
    """What a pipeline returns."""

    frames: Tensor
    """(b, t, h, w, 3), float32, 0..1."""

    latents: Tensor
    """(b, 4, t, h/8, w/8), float32."""

    fps: float


class Pipeline:
    """Text to video with one model; made by `t2v_models.load_pipeline`.

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
        self.family, self.defaults = family, family.defaults
        self.scheduler_config = scheduler_config
        self.schedule = NoiseSchedule.from_config(
            scheduler_config, scale_base=family.scale_base, keeps_last_scale=family.keeps_last_scale
        )

    @property
    def device(self) -> torch.device:
        """Where the UNet's weights are."""
        return self.unet.out[2].weight.device

    def identity(self) -> str:
        """Another for another model: a film that was begun with one cannot go on with the other."""
        return fingerprint(self.unet) + fingerprint(self.text_encoder) + settled(self)

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
            method: a key of `t2v_models.films.film.METHODS`: yields (n, h, w, 3) frames of the story as they are finished. It
                takes the story (or prompt), size, steps, guidance scale and seed; for more see `t2v_models.films.film.Film`.
            progress: see `Progress`.
            decode: False leaves `Video.frames` empty; a film then yields latents.

        Raises:
            T2VError: for values that no video can be made with.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        negatives = [negative_prompt] * len(prompts) if isinstance(negative_prompt, str) else list(negative_prompt)
        if (story is not None or method is not None) and not len(prompts) == len(negatives) == 1:
            raise T2VError(f"{len(prompts)} prompts and {len(negatives)} negative ones for one film: give one of each.")
        if method is not None:
            from .films.film import Film

            other = {"scheduler": scheduler, "eta": eta, "guidance_rescale": guidance_rescale, "video": video}
            other |= {"latents": latents, "strength": None if strength == 1 else strength}
            unknown = [name for name, value in other.items() if value is not None]
            if unknown:
                raise T2VError(
                    f"Films take no {' and no '.join(unknown)}: leave {'it' if len(unknown) == 1 else 'them'} out."
                )
            size = {"frames": frames, "width": width, "height": height, "fps": fps}
            how = {"steps": steps, "guidance_scale": guidance_scale, "seed": seed, "window": windows}
            film = Film(self, story or prompts[0], negatives[0], method=method, **size, **how, progress=progress)
            return film.frames() if decode else film.latents()
        choose = self.defaults
        steps = checked_steps(choose.steps if steps is None else steps)
        scale = checked_scale(choose.guidance_scale if guidance_scale is None else guidance_scale)
        contrast = self.family.guidance_rescale if guidance_rescale is None else guidance_rescale
        eta = self.family.eta if eta is None else eta
        shape = self._shape(prompts, negatives, frames, width, height, video)
        rate = checked_rate(fps, choose.fps)
        if not 0 < strength <= 1:
            raise T2VError(f"strength is {strength}: more than 0 and at most 1 is wanted.")

        # 1. text
        guided = is_guided(self, scale)
        if story is None:
            context = self._texts(prompts, negatives if guided else None)
        else:
            told = parse_story(with_negative(story, negatives[0]), shape[2], rate)
            negatives = [scene.text for scene in told.negatives]
            numbers = torch.arange(shape[2])[None]
            context = told.told(self.encode_text).at(numbers)
            if guided:
                negative = told.told(self.encode_text, negative=True).at(numbers)
                context = torch.cat(same_form(negative, context, shape[2]))
        warn_of_unused(negatives, self, scale)
        if self.family.upscaler and video is None:
            log.warning("%s is not made for videos from noise: give it one by video= and strength=.", self.family.title)

        # 2. noise
        generators = [torch.Generator().manual_seed(checked_seed(seed, len(prompts)) + i) for i in range(len(prompts))]
        solver = make_solver(
            scheduler or choose.scheduler,
            self.schedule,
            steps,
            generators,
            strength=1.0 if video is None else strength,
            eta=eta,
            device=self.device,
        )
        x = torch.cat([torch.randn(1, *shape[1:], generator=g) for g in generators]) if latents is None else latents
        if tuple(x.shape) != shape:
            raise T2VError(f"latents has shape {tuple(x.shape)}: {shape} is wanted.")
        x = x.to(self.device, torch.float32)
        if windows is not None:
            windows = windows.over(shape[2])
            x = torch.cat([windows.noise(each[None], g) for each, g in zip(x, generators, strict=True)])
        x = solver.start(x, None if video is None else self.encode_video(video))

        # 3. denoise
        for i, t in enumerate(solver.timesteps):
            model_input = solver.model_input(x, t)
            levels = t.expand(len(prompts)).to(self.device)
            unet = self.unet if windows is None else windows.around(self.unet, i)
            told = self.conditions(levels, fps, scale)
            prediction = unet(model_input.to(self.unet.dtype), levels, context, **told).float()
            if guided:
                uncond, cond = prediction.chunk(2)
                prediction = rescale(classifier_free(cond, uncond, scale), cond, contrast)
            x = solver.step(prediction, x, t)
            if progress is not None:
                progress(i + 1, len(solver.timesteps))
        x = solver.finish(x)
        self.check_finite(x)

        # 4. decode
        if not decode:
            return Video(torch.empty(0), x, rate)
        return Video(torch.stack([torch.cat(list(self.decode(each))) for each in x]), x, rate)

    def check_finite(self, x: Tensor) -> None:
        """A black video with no word about it is the worst of results."""
        if not torch.isfinite(x).all():
            raise T2VError(
                f"The latents have become NaN or infinite (weights {self.unet.dtype}, latent {tuple(x.shape)}): "
                "load the model with dtype=torch.float32 or torch.bfloat16 (--dtype fp32 or bf16)."
            )

    def conditions(self, levels: Tensor, fps: float | None, guidance_scale: float) -> dict[str, Any]:
        """What this UNet is told besides the text, for videos at these noise levels, (b,) or (b, t)."""
        told: dict[str, Any] = {}
        if self.unet.config.fps_embedding:
            told["fps"] = self.defaults.fps_condition if fps is None else fps
        if self.unet.config.guidance_dim:
            told["guidance"] = torch.full((len(levels),), float(guidance_scale), device=self.device)
        if self.unet.config.motion_dim:
            told["motion_guidance"] = motion_guidance(levels.to(self.device))
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

    def _texts(self, prompts: list[str], negatives: list[str] | None) -> Tensor:
        """Contexts of several prompts, (b, n, d), or (2b, n, d) after those of their negatives.

        Each is encoded as if it were alone, and its tokens are repeated where another is longer: attention comes out the
        same.
        """
        told = [[prompt] for prompt in prompts]
        if negatives is not None:
            told = [[negative, *prompt] for negative, prompt in zip(negatives, told, strict=True)]
        parts = [self.encode_text(texts) for texts in told]
        tokens = math.lcm(*(part.shape[1] for part in parts))
        parts = [part.repeat(1, tokens // part.shape[1], 1) for part in parts]
        return torch.cat([torch.stack(rows) for rows in zip(*parts, strict=True)])

    def encode_video(self, video: Tensor, chunk: int = 8) -> Tensor:
        """video: (b, t, h, w, 3), 0..1 -> (b, 4, t, h/8, w/8), the mode of each frame's latent."""
        parts = []
        for part in video.flatten(0, 1).split(chunk):
            pixels = part.movedim(-1, 1).to(self.device, self.vae.dtype) * 2 - 1
            parts.append(self.vae.encode(pixels).latent_dist.mode().float())
        latents = torch.cat(parts) * self.vae.config.scaling_factor
        return latents.unflatten(0, video.shape[:2]).transpose(1, 2)

    @torch.no_grad()
    def decode(self, latents: Tensor, chunk: int = 8) -> Iterator[Tensor]:
        """latents: (4, t, h, w) of one video -> (n, 8h, 8w, 3), 0..1, a chunk of frames at a time."""
        for part in latents.transpose(0, 1).split(chunk):
            pixels = self.vae.decode(part.to(self.device, self.vae.dtype) / self.vae.config.scaling_factor).sample
            yield (pixels.float() / 2 + 0.5).clamp(0, 1).movedim(1, -1).contiguous().cpu()

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
        """See the function of that name."""
        return checked_shape(self, count, frames, width, height)
