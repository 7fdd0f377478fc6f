"""Videos that follow pictures, by models that were made for texts alone.

The ways are those of `t2v_models.image.methods`: FrameInit changes the noise of an ordinary run, "hold" and "repeat and
slide" are runs of their own, by DDIM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .arguments import Progress
from .errors import T2VError
from .families import Family
from .image.camera import camera_stills
from .image.fit import fit
from .image.methods import FRAME_INIT, HOLD, SLIDE, ImageMethod
from .request import ClipRequest
from .sampling.frame_init import frame_init_noise
from .sampling.keyframes import PredictFrames, calls_between, sample_between
from .sampling.repeat_and_slide import calls_to_slide, check_known, repeat_and_slide
from .sampling.schedule import NoiseSchedule

Encode = Callable[[Tensor], Tensor]
"""``encode(video)``: frames (b, t, h, w, 3), 0..1 -> latents (b, 4, t, h/8, w/8)."""

Decode = Callable[[Tensor], Tensor]
"""``decode(latents)``: latents (b, 4, t, h/8, w/8) -> frames (b, t, h, w, 3), 0..1."""

Predictor = Callable[[slice, Callable[[int], None]], PredictFrames]
"""``predictor(videos, report)`` -> the guided prediction for clips of these videos of the request; after every call it calls
``report`` with the number of calls so far."""


@dataclass(frozen=True)
class Followed:
    """The pictures of a request, as latents, and how a model follows them."""

    method: ImageMethod
    first: Tensor | None
    """(b, 4, 1, h, w); for FrameInit (b, 4, t, h, w), the still over which the camera moves."""
    last: Tensor | None
    """(b, 4, 1, h, w)."""
    schedule: NoiseSchedule
    known_clean: bool
    """The model was trained with a timestep for every frame, and takes known frames without noise."""
    window: int
    """Frames that the model sees at once."""

    @classmethod
    def of(cls, request: ClipRequest, family: Family, encode: Encode, schedule: NoiseSchedule) -> Followed | None:
        """Encode the pictures of a request; None where it has none, or where its image strength is 0.

        Raises:
            T2VError: for what the request's method cannot do.
        """
        method = request.image_method
        if method is None or request.image_strength == 0:
            return None
        _check(request, method, family)
        size = 8 * request.shape[4], 8 * request.shape[3]

        def encoded(picture: Tensor | None) -> Tensor | None:
            if picture is None:
                return None
            fitted = fit(picture, *size, request.image_fit)
            moves = method.name == FRAME_INIT and not method.camera.still
            frames = camera_stills(fitted, request.shape[2], method.camera) if moves else fitted[:, None]
            return encode(frames)

        first, last = encoded(request.image), encoded(request.end_image)
        return cls(method, first, last, schedule, family.frame_timesteps, family.frames)

    def first_noise(self, noise: Tensor, strength: float) -> Tensor:
        """Return the noise to begin an ordinary run with: FrameInit's, mixed in by the strength; other methods' unchanged."""
        if self.method.name != FRAME_INIT or self.first is None:
            return noise
        made = frame_init_noise(noise, self.first, self.schedule, self.method.timestep, self.method.cutoff)
        return made if strength == 1 else (1 - strength) * noise + strength * made

    @property
    def samples(self) -> bool:
        """Whether the method is a run of its own, by `sample`, and no ordinary run from `first_noise`."""
        return self.method.name != FRAME_INIT

    def sample(
        self,
        predictor: Predictor,
        noise: Tensor,
        timesteps: Tensor,
        generators: Sequence[torch.Generator],
        *,
        encode: Encode,
        decode: Decode,
        progress: Progress | None,
    ) -> Tensor:
        """Sample the videos by the method.

        Args:
            predictor: the model.
            noise: (b, 4, t, h, w), standard normal.
            timesteps: (n,) from noisy to clean.
            generators: one for each video, of the noise that the method draws besides.
            encode, decode: the VAE.
            progress: called with (done, total) calls of the model.

        Returns:
            Clean latents, like noise.
        """
        b, frames = noise.shape[0], noise.shape[2]
        # a method that draws noise samples video by video, so that each is the same as if it were made alone
        parts = [slice(0, b)] if self._draws_nothing else [slice(i, i + 1) for i in range(b)]
        calls = self._calls(frames, len(timesteps))
        made = []
        for i, part in enumerate(parts):
            predict = predictor(part, _later(progress, i * calls, len(parts) * calls))
            if self.method.name == SLIDE:
                made.append(self._slide(predict, part, frames, timesteps, generators[part.start], encode, decode))
            else:
                made.append(self._hold(predict, noise[part], part, timesteps, generators[part.start]))
        return torch.cat(made)

    @property
    def _draws_nothing(self) -> bool:
        return self.method.name == HOLD and (self.known_clean or not self.method.resample)

    def _calls(self, frames: int, steps: int) -> int:
        """Return how many times the model is called for one video, or for all where they are sampled together."""
        if self.method.name == HOLD:
            return calls_between(steps, known_clean=self.known_clean, resample=self.method.resample)
        known = known_frames(self.method, self.window)
        return calls_to_slide(frames, steps, window=self.window, known=known, resample=self.method.resample)

    def _hold(
        self, predict: PredictFrames, noise: Tensor, part: slice, timesteps: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Keep the given ends, and sample the frames between them."""
        clean, known = torch.zeros_like(noise), torch.zeros(noise.shape[2], dtype=torch.bool)
        for at, picture in ((0, self.first), (-1, self.last)):
            if picture is not None:
                clean[:, :, at], known[at] = picture[part, :, 0].to(clean), True
        return sample_between(
            predict,
            noise,
            known,
            clean,
            timesteps,
            self.schedule,
            known_clean=self.known_clean,
            resample=self.method.resample,
            generator=generator,
        )

    def _slide(
        self,
        predict: PredictFrames,
        part: slice,
        frames: int,
        timesteps: Tensor,
        generator: torch.Generator,
        encode: Encode,
        decode: Decode,
    ) -> Tensor:
        """Repeat the picture, and sample frame after frame behind it."""
        if self.first is None:
            raise ValueError("There is no picture to repeat.")
        return repeat_and_slide(
            predict,
            self.first[part],
            frames,
            timesteps,
            self.schedule,
            window=self.window,
            known=known_frames(self.method, self.window),
            resample=self.method.resample,
            generator=generator,
            refresh=lambda latents: encode(decode(latents)),
        )


def known_frames(method: ImageMethod, window: int) -> int:
    """Return the known frames of each clip of "repeat-and-slide"; T2VError where they leave none to make."""
    known = window - 1 if method.known is None else method.known
    check_known(known, window)
    return known


def _check(request: ClipRequest, method: ImageMethod, family: Family) -> None:
    """Raise T2VError for what the method cannot do."""
    name, frames = method.name, request.shape[2]
    if request.video is not None:
        raise T2VError("A video and a picture are given to begin with: leave one of them out.")
    if request.image is not None and request.end_image is not None and frames < 2:
        raise T2VError("frames is 1, and the video has two pictures as its ends: at least 2 frames are wanted.")
    if request.image_guidance_scale != request.guidance_scale:
        raise T2VError(f"image_guidance_scale is given, and {family.title} is guided by the text alone: leave it out.")
    if name == FRAME_INIT:
        return
    if request.scheduler not in ("ddim", family.scheduler):
        raise T2VError(f"scheduler is {request.scheduler!r}: the method {name!r} steps by ddim, so leave it out.")
    if request.eta != family.eta:
        raise T2VError(
            f"eta is {request.eta:g}: the method {name!r} takes DDIM's steps without new noise, so leave it out."
        )
    if 0 < request.image_strength < 1:
        raise T2VError(
            f"image_strength is {request.image_strength:g}: the method {name!r} keeps the picture or not, so give 1 or 0, or "
            f"choose {FRAME_INIT!r}."
        )
    if name == SLIDE:
        known_frames(method, family.frames)
        given = {"windows": request.windows, "story": request.story, "latents": request.latents}
        for what, value in given.items():
            if value is not None:
                raise T2VError(f"The method {name!r} makes clip after clip and takes no {what}: leave it out.")


def _later(progress: Progress | None, done: int, total: int) -> Callable[[int], None]:
    """Make a report of the calls of one part, added to those that were done before it."""

    def report(more: int) -> None:
        if progress is not None:
            progress(done + more, total)

    return report
