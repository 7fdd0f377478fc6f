"""Videos from diffusers' image models: Text2Video-Zero without ComfyUI.

Sources: Khachatryan et al. 2023, Text2Video-Zero (arXiv:2303.13439); with controls, section 3.4 of it and Zhang et al. 2023,
ControlVideo (arXiv:2305.13077).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import Progress
from ..errors import T2VError
from ..sampling.guidance import classifier_free
from ..sampling.scenes import Story
from ..sampling.schedule import NoiseSchedule
from ..vae.frames import decode_frames
from .anchors import anchor_frames
from .attention import Anchors
from .motion import sources, warp
from .noise import frame_noise
from .request import Defaults, Request, checked_request
from .smoothing import background, foreground, interleaved
from .steps import Steps
from .texts import FrameTexts, branches, encode


class ZeroShotPipeline:
    """Text to video with an image model; made by `t2v_models.zero_shot.loading.load_zero_shot`.

    Attributes: pipe (diffusers' StableDiffusionPipeline or StableDiffusionXLPipeline, to which LoRAs may be added), schedule
    (`NoiseSchedule`), defaults (`Defaults`).
    """

    def __init__(self, pipe: Any, defaults: Defaults | None = None) -> None:
        self.pipe = pipe
        self.defaults = defaults or Defaults()
        self.schedule = NoiseSchedule.from_config(dict(pipe.scheduler.config))
        self.anchors = Anchors()
        self.anchors.put_into([pipe.unet])
        self._anchored_nets: list[Any] = []

    @property
    def device(self) -> torch.device:
        """Where the UNet's weights are."""
        return torch.device(self.pipe.unet.device)

    @property
    def scale(self) -> int:
        """Pixels to a latent, on each side."""
        return int(self.pipe.vae_scale_factor)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels that the model was made for."""
        sample = self.pipe.unet.config.sample_size or 64
        height, width = (sample, sample) if isinstance(sample, int) else sample
        return width * self.scale, height * self.scale

    def request(self, prompt: str | Sequence[str] | Story, negative_prompt: str = "", **options: Any) -> Request:
        """Check the values of a call, as `__call__` has them; T2VError for those that no video can be made with."""
        request = checked_request(self.defaults, self.size, self.scale, prompt, negative_prompt, **options)
        steps = self._steps(request)
        if not request.controls:
            steps.split(request.t0, request.t1)
        return request

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | Story,
        negative_prompt: str = "",
        *,
        progress: Progress | None = None,
        **options: Any,
    ) -> Tensor:
        """Make one video.

        Args:
            prompt: a text, one text a frame, or a story of `t2v_models.sampling.story.parse_story`.
            negative_prompt: what the video must not show.
            progress: called with (done, total) after every step; it may raise to cancel.
            options:
                frames, width, height, steps, guidance_scale: the model's defaults where None. frames is the number of
                    prompts or of hints, where there are some.
                seed: 0 if left out.
                scheduler: one of `t2v_models.zero_shot.steps.SCHEDULERS`; "ddim" where None.
                motion: a `Motion`; not with controls, which lead the motion.
                t0, t1: 0..1, parts of the schedule's timesteps: the first frame is warped at t0, and frames part at t1.
                how: "nearest" or "bilinear", see `t2v_models.zero_shot.motion.warp`.
                anchor: which frames self-attention looks at, one of `t2v_models.zero_shot.anchors.ANCHORS`.
                chunk: frames that are denoised at a time, the first one among them; 0 for all. With the anchor "first" the
                    result is the same for all; other anchors look no further than the chunk. 8, or 0 for other anchors and
                    with smooth_steps, where None.
                controls: several `Control`. Then all frames begin with one noise, and there is no motion field.
                masks: (f, H, W) or (1, H, W), 0..1, 1 for what is in the foreground: the background of all frames follows
                    that of the first, see `t2v_models.zero_shot.smoothing.background`; and alpha of it.
                smooth_steps: numbers of steps at which frames become the mean of their neighbours in turn, see
                    `t2v_models.zero_shot.smoothing.interleaved`.

        Returns:
            (f, h, w, 3) float32, 0..1, on the CPU.

        Raises:
            T2VError: for values that no video can be made with.
        """
        return torch.cat(list(self.stream(self.request(prompt, negative_prompt, **options), progress)))

    @torch.no_grad()
    def stream(self, request: Request, progress: Progress | None = None) -> Iterator[Tensor]:
        """Make a video chunk by chunk: yields (n, h, w, 3) frames, 0..1, on the CPU; memory does not grow with its length."""
        for latents in self.latents(request, progress):
            yield from decode_frames(self.pipe.vae, latents.transpose(0, 1), self.device)

    @torch.no_grad()
    def latents(self, request: Request, progress: Progress | None = None) -> Iterator[Tensor]:
        """Make the latents (n, c, h, w) of a video, chunk by chunk."""
        yield from _Run(self, request, progress).chunks()

    def _steps(self, request: Request) -> Steps:
        return Steps(request.scheduler, self.schedule, request.steps, self.device)

    def anchor_nets(self, nets: Sequence[Any]) -> None:
        """Put the anchors into ControlNets, once each."""
        new = [net for net in nets if not any(net is known for known in self._anchored_nets)]
        self.anchors.put_into(new)
        self._anchored_nets += new

    def check_finite(self, x: Tensor) -> None:
        """Raise T2VError where latents hold NaN or infinity."""
        if not torch.isfinite(x).all():
            dtype = self.pipe.unet.dtype
            remedy = {
                torch.float32: "leave LoRAs out, try another model folder, or lower the guidance scale",
                torch.bfloat16: "load the model with dtype=torch.float32 (--dtype fp32)",
            }.get(dtype, "load the model with dtype=torch.bfloat16 or torch.float32 (--dtype bf16 or fp32)")
            raise T2VError(f"The latents have become NaN or infinite (weights {dtype}): {remedy}.")


class _Run:
    """One video in the making."""

    def __init__(self, pipeline: ZeroShotPipeline, request: Request, progress: Progress | None) -> None:
        self.pipeline, self.request = pipeline, request
        self.steps = pipeline._steps(request)
        self.i1, self.i0 = (0, 0) if request.controls else self.steps.split(request.t0, request.t1)
        self.positive, self.negative = encode(pipeline.pipe, request)
        self.shape = (
            pipeline.pipe.vae.config.latent_channels,
            request.height // pipeline.scale,
            request.width // pipeline.scale,
        )
        pipeline.anchor_nets([control.net for control in request.controls])
        total = self.i0 + len(request.chunks()) * (len(self.steps) - self.i1)
        self.report = _counter(progress, total)

    def chunks(self) -> Iterator[Tensor]:
        """The latents (n, c, h, w) of all chunks; the first frame comes with the first one only."""
        first, warped = self._first_frame()
        for numbers in self.request.chunks():
            x = self._parted(first, warped, numbers)
            x, _ = self.steps.run(x, self.i1, len(self.steps), self._predictor(numbers, anchored=True))
            self.pipeline.check_finite(x)
            yield x if numbers[1:2] in ([], [1]) else x[1:]

    def _noise(self, numbers: Sequence[int]) -> Tensor:
        return frame_noise(self.request.seed, numbers, self.shape).to(self.pipeline.device)

    def _first_frame(self) -> tuple[Tensor, Tensor]:
        """The latents (1, c, h, w) of the first frame at t1 and at t0; with controls, its noise twice."""
        x = self.steps.start(self._noise([0]))
        if self.request.controls:
            return x, x
        warped, first = self.steps.run(x, 0, self.i0, self._predictor([0], anchored=False), kept=self.i1)
        self.pipeline.check_finite(warped)
        return first, warped

    def _parted(self, first: Tensor, warped: Tensor, numbers: list[int]) -> Tensor:
        """The latents (f, c, h, w) of frames at t1, where they part; numbers begin with 0."""
        request = self.request
        if request.controls or len(numbers) == 1:
            return first.repeat(len(numbers), 1, 1, 1)
        field = sources(request.motion, numbers, request.frames, *self.shape[1:])
        moved = warp(warped, field[1:], request.how)
        x = torch.cat([first, self.steps.forward(moved, self.i0, self.i1, self._noise(numbers[1:]))])
        if request.masks is None:
            return x
        masks = request.masks if len(request.masks) == 1 else request.masks[numbers]
        return background(x, foreground(masks, *self.shape[1:]), field, request.alpha, request.how)

    def _predictor(self, numbers: list[int], *, anchored: bool) -> Callable[[Tensor, Tensor, int], Tensor]:
        """What predicts these frames at a step; anchored: self-attention looks at the anchors, else each at its own."""
        request, pipeline = self.request, self.pipeline
        texts = branches(self.positive, self.negative, numbers)
        hints = [control.at(numbers, request.width, request.height) for control in request.controls]
        dtype = pipeline.pipe.unet.dtype
        if self.negative is not None:
            hints = [torch.cat([each, each]) for each in hints]
        hints = [each.to(pipeline.device, dtype) for each in hints]

        def predict(x: Tensor, t: Tensor, step: int) -> Tensor:
            options = {"seed": request.seed, "step": step}
            pipeline.anchors.frames = anchor_frames(request.anchor, len(numbers), **options) if anchored else None
            try:
                prediction = self._predict(x.to(dtype), t, texts, hints).float()
            finally:
                pipeline.anchors.frames = None
            if self.negative is not None:
                negative, positive = prediction.chunk(2)
                prediction = classifier_free(positive, negative, request.guidance_scale)
            if step in request.smooth_steps:
                prediction = self._smoothed(x, prediction, t, step)
            self.report()
            return prediction

        return predict

    def _predict(self, x: Tensor, t: Tensor, texts: FrameTexts, hints: Sequence[Tensor]) -> Tensor:
        """Call ControlNets and UNet once: (f, c, h, w) latents -> the predictions of all branches of guidance."""
        pipe = self.pipeline.pipe
        x = torch.cat([x, x]) if self.negative is not None else x
        given: dict[str, Any] = {"encoder_hidden_states": texts.context.to(x.dtype), "return_dict": False}
        if texts.pooled is not None:
            height, width = self.request.height, self.request.width
            sizes = torch.tensor([height, width, 0, 0, height, width]).to(x).expand(len(x), -1)
            given["added_cond_kwargs"] = {"text_embeds": texts.pooled.to(x.dtype), "time_ids": sizes}
        added: dict[str, Any] = {}
        for control, hint in zip(self.request.controls, hints, strict=True):
            down, middle = control.net(x, t, controlnet_cond=hint, conditioning_scale=control.strength, **given)
            if added:
                down = [one + other for one, other in zip(down, added["down_block_additional_residuals"], strict=True)]
                middle = middle + added["mid_block_additional_residual"]
            added = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        prediction: Tensor = pipe.unet(x, t, **given, **added)[0]
        return prediction

    def _smoothed(self, seen: Tensor, prediction: Tensor, t: Tensor, step: int) -> Tensor:
        """The prediction whose clean latents are interleaved with their neighbours; all (f, c, h, w)."""
        schedule, t = self.pipeline.schedule, t.long()
        clean = interleaved(schedule.to_clean(seen, prediction, t)[0], step)
        if schedule.prediction_type == "v_prediction":
            return schedule.velocity(seen, clean, t)
        signal, noise = schedule.factors(t, seen)
        return (seen - signal * clean) / noise


def _counter(progress: Progress | None, total: int) -> Callable[[], None]:
    """A function that reports one step more at each call."""
    done = 0

    def report() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return report
