"""Prompt to frames, without a host: our UNet, diffusers' schedulers and VAE, transformers' CLIP."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .arguments import Progress, check_memory, warn_of_unused
from .conditions import Conditions, predict
from .errors import T2VError
from .families import Family
from .fingerprint import schedule_digest, weights_digest
from .image.conditioning import ImageModel
from .image_guidance import GuidingPictures
from .image_to_video import Followed
from .request import ClipRequest
from .sampling.guidance import guide
from .sampling.keyframes import PredictFrames
from .sampling.scenes import equal_length, equal_shape
from .sampling.schedule import NoiseSchedule
from .sampling.solvers import make_solver
from .text_encoding import encode_texts
from .unet import UNet3D, UNetConfig
from .vae.frames import decode_frames, encode_frames

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .request import ClipOptions

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
    schedule (`NoiseSchedule`), family, defaults (the family's), image_model (`ImageModel`; None for text alone).
    """

    def __init__(
        self,
        unet: UNet3D,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        scheduler_config: dict[str, Any],
        family: Family,
        image_model: ImageModel | None = None,
    ) -> None:
        self.unet, self.vae, self.text_encoder, self.tokenizer = unet, vae, text_encoder, tokenizer
        self.image_model = image_model
        self.family, self.defaults = family, family.defaults
        self.schedule = NoiseSchedule.from_config(
            scheduler_config, scale_base=family.scale_base, keeps_last_scale=family.keeps_last_scale
        )

    @property
    def config(self) -> UNetConfig:
        """The UNet's configuration."""
        return self.unet.config

    @property
    def device(self) -> torch.device:
        """Where the UNet's weights are."""
        return next(self.unet.parameters()).device

    def identity(self) -> str:
        """A digest of weights, noise schedule and family: a film is resumed only with the model that began it."""
        parts = [self.unet, self.text_encoder]
        if self.image_model is not None:
            parts += [each for each in (self.image_model.encoder, self.image_model.projector) if each is not None]
        return "".join(map(weights_digest, parts)) + schedule_digest(self.schedule, self.family)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = "",
        negative_prompt: str | Sequence[str] | None = "",
        *,
        progress: Progress | None = None,
        decode: bool = True,
        **options: Unpack[ClipOptions],
    ) -> Video:
        """Make one video per prompt.

        Args:
            prompt: one text or several; None is no text.
            negative_prompt: what the videos must not show: one text, or one per prompt.
            progress: called with (done, total) after every step; it may raise to cancel.
            decode: False leaves `Video.frames` empty.
            options:
                frames, width, height, fps, steps, guidance_scale, scheduler: the model's defaults where None; width and
                    height are multiples of 8.
                guidance_rescale: 0..1, see `t2v_models.sampling.guidance.rescale`; the model's default where None.
                eta: 0..1, share of the noise that DDIM draws anew at every step; the model's default where None.
                seed: of the first video, 0 if left out; the next has seed + 1 and so on, so that each can be made alone.
                video: (b, t, h, w, 3), 0..1, or uint8, 0..255, or a list of pictures: a video to start from, and
                strength: how much of it to replace, 0 < strength <= 1.
                latents: (b, 4, t, h/8, w/8) standard normal noise to use instead of the seed's.
                story: a text that changes over the frames, instead of a prompt: see `t2v_models.sampling.story`; or what
                    `parse_story` makes of one.
                windows: how a video longer than the model's own is denoised: see `t2v_models.sampling.windows`. For long
                    films see `t2v_models.Film`.
                image: (h, w, 3), 0..1, or uint8, or a picture of Pillow's, of any size: what an image-to-video model
                    animates; several, (b, h, w, 3) or a list, are for one prompt each.
                end_image: likewise, the picture that the video ends with, for models that take one. A model of texts that
                    holds pictures takes one, the other or both.
                image_fit: "crop", "pad" or "stretch", how a picture gets the video's size.
                image_strength: 0..1, how much the picture counts; 0 is the text alone.
                image_guidance_scale: how closely to follow the picture; `guidance_scale` where None.
                image_noise: (b, 4, n, h/8, w/8) standard normal noise, to sample the VAE's latents of the n pictures
                    as the originals do; their modes where None.
                image_method: how a model of texts follows a picture: "hold", "frame-init" or "repeat-and-slide", or an
                    `ImageMethod` with settings; see `t2v_models.image.methods`.
                motion: the number that the UNet takes besides the text: see `Family.fps_meaning`; the model's own where
                    None. Without a picture, `fps` is that number.

        Raises:
            T2VError: for values that no video can be made with.
        """
        request = ClipRequest.of_prompts(self, prompt, negative_prompt, **options)
        check_memory(request.shape, decoded=decode)
        pictures = GuidingPictures.of(self.image_model, request, self.device)
        if self.family.upscaler and request.video is None:
            log.warning("%s is not made for videos from noise: give it one by video= and strength=.", self.family.title)
        followed = None
        if self.image_model is None:
            followed = Followed.of(request, self.family, self.encode_video, self.schedule)
        branches = pictures.branches(self)
        conditions = Conditions.of(self.config, request.fps_condition, request.guidance_scale)
        if self.image_model is not None:
            conditions = pictures.conditions(self.image_model, conditions, branches, self._encode_stills)
        context = self._encode(request, guided=branches > 1)
        if branches == 3:  # the negative prompt with no picture, with the picture, and the prompt
            context = torch.cat([context.chunk(2)[0], context])
        x = self._denoise(request, context, conditions, followed, progress)
        if self.family.drops_last_frame and request.end_image is None and x.shape[2] > 1:
            x = x[:, :, :-1]  # a loop's, which is its first picture again
        if not decode:
            return Video(torch.empty(0), x, request.fps)
        videos = zip(x, pictures.pairs(len(x)), strict=True)
        frames = [torch.cat(list(self.decode(*each))) for each in videos]
        return Video(torch.stack(frames), x, request.fps)

    def _encode_stills(self, pictures: Tensor, noise: Tensor | None) -> Tensor:
        """(b, h, w, 3), 0..1 -> (b, 4, h/8, w/8)."""
        return self.encode_video(pictures[:, None], noise=noise)[:, :, 0]

    def _encode(self, request: ClipRequest, *, guided: bool) -> Tensor:
        """The texts of the videos: (b, n, d), or (b, t, n, d) of a story; guided, (2b, …), those of the negatives first."""
        if request.story is None:
            if not guided:
                warn_of_unused(request.negatives, self, request.guidance_scale)
            return self._encode_prompts(request.prompts, request.negatives if guided else None)
        if not guided:
            warn_of_unused((scene.text for scene in request.story.negatives), self, request.guidance_scale)
        frames = request.shape[2]
        numbers = torch.arange(frames)[None]
        context = request.story.encode(self.encode_text).at(numbers)
        if not guided:
            return context
        negative = request.story.encode(self.encode_text, negative=True).at(numbers)
        return torch.cat(equal_shape(negative, context, frames))

    def _encode_prompts(self, prompts: Sequence[str], negatives: Sequence[str] | None) -> Tensor:
        """(b, n, d), or (2b, n, d) with the negatives first; each prompt is encoded as if it were alone."""
        rows = [[prompt] for prompt in prompts]
        if negatives is not None:
            rows = [[negative, *row] for negative, row in zip(negatives, rows, strict=True)]
        parts = equal_length([self.encode_text(texts) for texts in rows])
        return torch.cat([torch.stack(texts) for texts in zip(*parts, strict=True)])

    def _noise(self, request: ClipRequest, generators: Sequence[torch.Generator]) -> Tensor:
        """Standard normal noise of the request's shape on the UNet's device: the seeds' or the caller's."""
        x = request.latents
        if x is None:
            x = torch.cat([torch.randn(1, *request.shape[1:], generator=each) for each in generators])
        x = x.to(self.device, torch.float32)
        if request.windows is None:
            return x
        return torch.cat([request.windows.noise(v[None], g) for v, g in zip(x, generators, strict=True)])

    def _denoise(
        self,
        request: ClipRequest,
        context: Tensor,
        conditions: Conditions,
        followed: Followed | None,
        progress: Progress | None,
    ) -> Tensor:
        """From noise, or a noised video, to clean latents of the request's shape."""
        generators = [torch.Generator().manual_seed(request.seed + i) for i in range(request.shape[0])]
        noise = self._noise(request, generators)
        if followed is not None:
            if followed.samples:
                return self._follow(followed, request, context, conditions, noise, generators, progress)
            noise = followed.first_noise(noise, request.image_strength)
        solver = make_solver(
            request.scheduler,
            self.schedule,
            request.steps,
            generators,
            strength=1.0 if request.video is None else request.strength,
            eta=request.eta,
            device=self.device,
        )
        x = solver.start(noise, None if request.video is None else self.encode_video(request.video))
        for i, t in enumerate(solver.timesteps):
            unet = self.unet if request.windows is None else request.windows.around(self.unet, i)
            timesteps = t.expand(len(x)).to(self.device)
            model_input = solver.model_input(x, t).to(self.unet.dtype)
            prediction = predict(unet, model_input, timesteps, context, conditions).float()
            scales = request.guidance_scale, request.image_guidance_scale
            prediction = guide(prediction.split(len(x)), *scales, request.guidance_rescale)
            x = solver.step(prediction, x, t)
            if progress is not None:
                progress(i + 1, len(solver.timesteps))
        x = solver.finish(x)
        self.check_finite(x)
        return x

    def _follow(
        self,
        followed: Followed,
        request: ClipRequest,
        context: Tensor,
        conditions: Conditions,
        noise: Tensor,
        generators: Sequence[torch.Generator],
        progress: Progress | None,
    ) -> Tensor:
        """From noise and pictures to clean latents of the request's shape."""

        def predictor(videos: slice, report: Callable[[int], None]) -> PredictFrames:
            texts, calls = context.unflatten(0, (-1, len(noise)))[:, videos].flatten(0, 1), count()

            def guided(x: Tensor, timesteps: Tensor) -> Tensor:
                call = next(calls)
                unet = self.unet if request.windows is None else request.windows.around(self.unet, call)
                if torch.equal(timesteps, timesteps[:, :1].expand_as(timesteps)):
                    timesteps = timesteps[:, 0]
                prediction = predict(unet, x.to(self.unet.dtype), timesteps, texts, conditions).float()
                report(call + 1)
                scales = request.guidance_scale, request.image_guidance_scale
                return guide(prediction.split(len(x)), *scales, request.guidance_rescale)

            return guided

        def decode(latents: Tensor) -> Tensor:
            return torch.stack([torch.cat(list(self.decode(each))) for each in latents])

        timesteps = self.schedule.timesteps(request.steps)
        encode = self.encode_video
        x = followed.sample(predictor, noise, timesteps, generators, encode=encode, decode=decode, progress=progress)
        self.check_finite(x)
        return x

    def conditions(self, fps: float | None, guidance_scale: float) -> Conditions:
        """Those of these values that the UNet has an embedding for; T2VError where it needs a picture besides."""
        if self.image_model is not None:
            raise T2VError(
                f"{self.family.title} predicts no frames without a picture: make clips of it, or a film by 'clip-after-clip'."
            )
        return Conditions.of(self.config, fps, guidance_scale)

    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        conditions: Conditions,
        options: dict[str, Any] | None = None,
    ) -> Tensor:
        """Call the UNet once; arguments, shapes and options as in `UNet3D.forward`, the result in float32.

        Raises:
            T2VError: where the prediction is not finite.
        """
        x, timesteps = x.to(self.unet.dtype), timesteps.to(self.device)
        prediction = predict(self.unet, x, timesteps, context, conditions, options).float()
        self.check_finite(prediction)
        return prediction

    def check_finite(self, x: Tensor) -> None:
        """Raise T2VError where latents hold NaN or infinity; it says their shape and the type of the weights."""
        if not torch.isfinite(x).all():
            remedy = {
                torch.float32: "leave LoRAs out, try another model file, or lower the guidance scale.",
                torch.bfloat16: "load the model with dtype=torch.float32 (--dtype fp32), or leave LoRAs out.",
            }.get(self.unet.dtype, "load the model with dtype=torch.float32 or torch.bfloat16 (--dtype fp32 or bf16).")
            raise T2VError(
                f"The latents have become NaN or infinite (weights {self.unet.dtype}, latent {tuple(x.shape)}): {remedy}"
            )

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (texts, 77 k, d), CLIP's last hidden states; a text longer than 75 tokens fills k windows, as in ComfyUI."""
        return encode_texts(self.text_encoder, self.tokenizer, texts, self.device)

    def encode_video(self, video: Tensor, *, noise: Tensor | None = None) -> Tensor:
        """Frames (b, t, h, w, 3), 0..1 -> latents (b, 4, t, h/8, w/8).

        noise: standard normal, ((b t), 4, h/8, w/8), for a sample of each frame's distribution; its mode where None.
        """
        return encode_frames(self.vae, video, self.device, noise=noise)

    @torch.no_grad()
    def decode(self, latents: Tensor, ends: Tensor | None = None) -> Iterator[Tensor]:
        """Latents (4, t, h, w) of one video -> frames (n, 8h, 8w, 3), 0..1, on the CPU, a chunk of frames at a time.

        ends: (2, 8h, 8w, 3), 0..1, the first and the last picture, which ToonCrafter's decoder sees.
        """
        yield from decode_frames(self.vae, latents, self.device, ends)
