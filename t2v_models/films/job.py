"""One film to make: what each of the methods is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arguments import Progress
from ..sampling.keyframes import HeldFrames
from ..sampling.scenes import Story
from .guided_model import GuidedModel
from .model import FilmModel, codec_of
from .settings import Settings
from .store import Store


@dataclass
class FilmJob:
    """A story, a model and how the one becomes a film of the other, all checked."""

    model: FilmModel
    story: Story
    shape: tuple[int, ...]
    """Of the film's latents, (1, 4, frames, h/8, w/8); with those of a clip that it continues."""
    fps: float
    """Frames per second that the model is asked for, where it takes a frame rate."""
    settings: Settings
    store: Store
    clip: Tensor | None = None
    """(t, h, w, 3), 0..1, frames that the film continues."""
    image: Tensor | None = None
    """(h, w, 3), 0..1, of the film's size: the picture that the film begins with."""
    progress: Progress | None = None
    preview: Callable[[Tensor], None] | None = None
    """Called with latents (b, 4, t, h, w) of some or all of the frames as they look so far."""

    def guided_model(self, speed: str = "", stride: int = 1, *, guided: bool = True) -> GuidedModel:
        """The model with this film's story.

        Args:
            speed: a word for how fast things move, put before each scene's text that has none.
            stride: frames of the film from one frame that the model sees to the next: it lowers the frame rate that the
                model is asked for.
            guided: at the film's guidance scale, or at 1.
        """
        story = self.story.with_speed(speed, self.model.family.speed_words or ())
        positive, negative = (story.encode(self.model.encode_text, negative=negative) for negative in (False, True))
        return GuidedModel(
            self.model,
            positive,
            negative,
            steps=self.settings.steps,
            guidance_scale=self.settings.guidance_scale if guided else 1.0,
            fps=self.fps / stride,
        )

    def held(self, noise: Tensor, numbers: Sequence[int]) -> HeldFrames:
        """The frames of clips from noise, (b, 4, n, h, w), that are known: number 0, where the film begins with a picture."""
        known, clean = torch.zeros(len(numbers), dtype=torch.bool), torch.zeros_like(noise)
        resample = 0
        if self.image is not None:
            known, resample = torch.tensor(numbers) == 0, self.settings.resample
            clean[:, :, known] = codec_of(self.model).encode_video(self.image[None, None]).to(noise)
        return HeldFrames(known, clean, noise, self.model.schedule, self.model.family.frame_timesteps, resample)

    def noise(self, *key: int) -> torch.Generator:
        """The random generator of one part's noise, which depends on the seed and the key alone."""
        generator = torch.Generator()
        value = self.settings.seed
        for number in key:
            value = (value * 1_000_003 + number + 1) % (2**63 - 1)
        return generator.manual_seed(value)

    def tick(self, done: int, total: int) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(done, total)

    def show(self, latents: Callable[[], Tensor]) -> None:
        """Preview latents as they look so far; they are made only where a preview is wanted."""
        if self.preview is not None:
            self.preview(latents())
