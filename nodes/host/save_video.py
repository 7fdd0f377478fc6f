"""Frames and latents to video files in the host's folders."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy.cli_args import args
from comfy_api.latest import InputImpl, Types
from torch import Tensor

from ...t2v_models.errors import T2VError
from ...t2v_models.video import (
    FORMATS,
    Audio,
    Format,
    VideoReader,
    VideoWriter,
    available_formats,
    frame_rate,
    json_text,
    still_png,
    to_audio,
)
from .decoding import checked_vae, decode, without_repeated
from .load_video import as_audio, check_fits, load
from .models import chunked_vae
from .models.reference_vae import ReferenceVAE
from .output_names import clip_place

log = logging.getLogger(__name__)


PREVIEW_SIDE = 512
"""Pixels of the longer side of the mp4 that the editor plays in place of a format that no browser shows."""


def format_names() -> list[str]:
    """List the formats that ffmpeg can write; all of them where there is no ffmpeg, which the node reports when it runs."""
    try:
        return available_formats()
    except T2VError as error:
        log.warning("%s", error)
        return list(FORMATS)


EDITOR_READS = 1_900_000
"""The graph editor reads a workflow from the first 2 MiB of a video only; with a larger one, a PNG is written, too."""


@dataclass(frozen=True)
class Saved:
    """One file, or folder of frames, and what the editor needs to show it."""

    path: Path
    shown: dict[str, str]  # filename, subfolder, type of what the editor plays
    stored: dict[str, str]  # filename, subfolder, type of the clip itself
    video: Any  # the host's VIDEO


@dataclass(frozen=True)
class Settings:
    """The widgets of the save node."""

    fps: float
    format: str
    quality: int
    prefix: str
    loop_count: int
    pingpong: bool
    save_output: bool


def clips(images: Tensor | None, latent: dict | None, vae: Any) -> list[tuple[int, Iterable[Tensor]]]:
    """Return (number of frames, the frames, each (h, w, 3)) of every clip: one of images, or those of the latent.

    Raises:
        T2VError: where neither or both are wired, where the vae is missing, and for images of a wrong shape.
    """
    if (images is None) == (latent is None):
        raise T2VError("Wire either images, or latent and vae.")
    if images is not None:
        if images.ndim != 4 or images.shape[-1] not in (3, 4) or not len(images):
            raise T2VError(f"The images have shape {tuple(images.shape)}: (frames, height, width, 3) is wanted.")
        return [(len(images), images[..., :3])]
    latent = without_repeated(latent)
    samples = latent["samples"]
    if vae is None:
        raise T2VError("A latent needs its vae to be saved: wire the VAE of T2VModelLoader.")
    videos = samples if samples.ndim == 5 else samples.movedim(0, 1)[None]
    checked_vae(vae)
    return [(video.shape[1], decoded(vae, {**latent, "samples": video[None]})) for video in videos]


def decoded(vae: Any, latent: dict) -> Iterator[Tensor]:
    """Yield the frames of a LATENT of one clip, each (h, w, 3), decoded when they are needed: a few at a time, or the clip
    at once where the VAE sees all of it."""
    if isinstance(vae, ReferenceVAE):
        yield from decode(vae, latent)
        return
    frames = chunked_vae.fold(latent["samples"])
    chunk = chunked_vae.frames_at_once(vae, vae.memory_used_decode, frames)
    for start in range(0, len(frames), chunk):
        yield from chunked_vae.decode(vae, frames[start : start + chunk])


def played(count: int, frames: Iterable[Tensor], pingpong: bool, repeats: int) -> Iterator[Tensor]:
    """Yield the frames in playing order: forwards, with pingpong then backwards, all of it `repeats` times."""
    order = [*range(count), *(range(count - 2, 0, -1) if pingpong else ())] * repeats
    if len(order) == count:
        yield from frames
    elif isinstance(frames, Tensor):
        for index in order:
            yield frames[index]
    else:  # frames that are decoded once wait in a file, not in memory
        with tempfile.TemporaryFile(dir=_temp_folder()) as file:
            for frame in frames:
                shape = frame.shape
                file.write((frame.float().clamp(0, 1) * 65535).round().cpu().numpy().astype(np.uint16).tobytes())
                yield frame
            size = 2 * math.prod(shape)
            for index in order[count:]:
                file.seek(index * size)
                waiting = np.frombuffer(file.read(size), np.uint16).reshape(shape)
                yield torch.from_numpy(waiting.astype(np.float32) / 65535)


def _temp_folder() -> str | None:
    """The host's temp folder; None, for the system's, where the host has not made it yet."""
    folder = folder_paths.get_temp_directory()
    return folder if os.path.isdir(folder) else None


def sound(audio: Any, form: Format) -> Audio | None:
    """Read the host's AUDIO whole; None, and a line in the log, where it cannot be read or the format holds no sound.

    Some nodes give a mapping that reads the sound when it is asked, and raises where there is none.
    """
    if audio is None:
        return None
    if not form.audio:
        log.warning("A %s file holds no sound: the audio is left out.", form.title)
        return None
    try:
        read = to_audio(audio)
    except T2VError as error:
        if isinstance(error.__cause__, comfy.model_management.InterruptProcessingException):
            raise error.__cause__ from None
        log.warning("The clip is saved without sound: %s", error)
        return None
    if not read.samples.shape[1]:
        log.warning("The clip is saved without sound: the audio input has no samples.")
        return None
    return read


def save(clip: tuple[int, Iterable[Tensor]], settings: Settings, audio: Any, metadata: dict[str, str]) -> Saved:
    """Write one clip, (number of frames, frames), into the host's output or temp folder, under the next free number."""
    count, frames = clip
    form = FORMATS[settings.format]
    total = (2 * count - 2 if settings.pingpong and count > 2 else count) * (
        1 if form.loops else settings.loop_count + 1
    )
    audio = sound(audio, form)
    shown = played(count, frames, settings.pingpong, 1 if form.loops else settings.loop_count + 1)
    progress = comfy.utils.ProgressBar(total)
    first, writer, preview = None, None, None
    try:
        for index, frame in enumerate(shown):
            comfy.model_management.throw_exception_if_processing_interrupted()
            if writer is None:
                first = frame
                place = clip_place(settings.prefix, form.extension, frame, save_output=settings.save_output)
                writer = _writer(place, form, settings, audio, metadata)
                preview = None if form.plays else _Preview(settings)
            writer.write(frame)
            if preview:
                preview.write(frame)
            progress.update_absolute(index + 1, total)
        path = writer.close()
        proxy = preview.close() if preview else None
    except BaseException:
        for unfinished in (writer, preview):
            if unfinished:
                unfinished.abort()
        raise
    if metadata and (not form.drop or sum(map(len, metadata.values())) > EDITOR_READS):
        still = path.with_name(f"{path.stem if form.extension else path.name}.png")
        try:
            still_png(still, first, metadata)
        except OSError as error:  # the clip is whole
            log.warning("The workflow is not beside the clip: %s", error)
    stored = result_of(path, "output" if settings.save_output else "temp")
    shown_result = result_of(proxy, "temp") if proxy else stored
    return Saved(path, shown_result, stored, _video(path, proxy, form, frames, audio, settings))


def _writer(
    place: Path, form: Format, settings: Settings, audio: Audio | None, metadata: dict[str, str]
) -> VideoWriter:
    """The clip's writer; without the sound, and with a line in the log, where that alone cannot be stored."""
    about = {
        "format": form.name,
        "quality": settings.quality,
        "metadata": metadata,
        "loop": settings.loop_count,
        "cancelled": comfy.model_management.throw_exception_if_processing_interrupted,
    }
    try:
        return VideoWriter(place, settings.fps, audio=audio, **about)
    except T2VError as error:
        if audio is None:
            raise
        writer = VideoWriter(place, settings.fps, **about)
        log.warning("The clip is saved without sound: %s", error)
        return writer


class _Preview:
    """A small mp4 in the temp folder, for the editor. Its errors are logged and do not stop the clip."""

    def __init__(self, settings: Settings) -> None:
        self._writer: VideoWriter | None = None
        with self._spared():
            root = folder_paths.get_temp_directory()
            os.makedirs(root, exist_ok=True)
            folder, name, counter, _, _ = folder_paths.get_save_image_path("t2v_preview", root)
            path = Path(folder) / f"{name}_{counter:05}_.mp4"
            self._writer = VideoWriter(path, settings.fps, format="h264-mp4", quality=40)

    def write(self, frame: Tensor) -> None:
        if self._writer is not None:
            with self._spared():
                self._writer.write(_small(frame))

    def close(self) -> Path | None:
        path = None
        if self._writer is not None:
            with self._spared():
                path = self._writer.close()
        return path

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()
        self._writer = None

    @contextlib.contextmanager
    def _spared(self) -> Iterator[None]:
        try:
            yield
        except (T2VError, OSError) as error:
            log.warning("The clip has no preview in the editor: %s", error)
            self.abort()


def _small(frame: Tensor) -> Tensor:
    """A frame, (h, w, 3), scaled down so that its longer side is at most PREVIEW_SIDE."""
    longest = max(frame.shape[:2])
    if longest <= PREVIEW_SIDE:
        return frame
    size = [max(1, round(side * PREVIEW_SIDE / longest)) for side in frame.shape[:2]]
    small = torch.nn.functional.interpolate(frame.movedim(-1, 0)[None].float(), size, mode="area")
    return small[0].movedim(0, -1)


def result_of(path: Path, folder: str) -> dict[str, str]:
    """Return filename, subfolder and type by which the editor finds a file; for a folder of frames, its first frame's.

    folder: "output" or "temp", the host's folder that holds the path.
    """
    root = folder_paths.get_output_directory() if folder == "output" else folder_paths.get_temp_directory()
    path = min(path.iterdir()) if path.is_dir() else path
    subfolder = path.parent.relative_to(os.path.abspath(root)).as_posix()
    return {"filename": path.name, "subfolder": "" if subfolder == "." else subfolder, "type": folder}


def workflow_texts(prompt: Any, extra: Any) -> dict[str, str]:
    """Return the texts from which the editor restores the graph, by key; {} under --disable-metadata.

    extra: what the client sent beside the prompt; anything but a dictionary is left out.
    """
    if args.disable_metadata:
        return {}
    extra = extra if isinstance(extra, dict) else {}
    texts = {key.lower(): json_text(value) for key, value in extra.items() if key.isascii() and key.isalpha()}
    return texts | ({"prompt": json_text(prompt)} if prompt is not None else {})


def _video(
    path: Path, proxy: Path | None, form: Format, frames: Iterable[Tensor], audio: Audio | None, settings: Settings
) -> Any:
    """The host's VIDEO: the file, or its frames where the host cannot decode the format or read its frame rate."""
    if form.muxer not in ("image2", "webp", "gif"):
        return InputImpl.VideoFromFile(str(path))
    repeated = settings.pingpong or (settings.loop_count and not form.loops)
    about = {"audio": as_audio(audio), "frame_rate": frame_rate(settings.fps)}
    if isinstance(frames, Tensor) and not repeated:
        return InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, **about))
    try:
        return InputImpl.VideoFromComponents(_Written(VideoReader(path), **about))
    except T2VError as error:
        log.warning("The VIDEO output is the preview: %s", error)
        return InputImpl.VideoFromFile(str(proxy or path))


class _Written(Types.VideoComponents):
    """A written clip, whose frames are read back only when a node uses them."""

    def __init__(self, reader: VideoReader, audio: Any, frame_rate: Fraction) -> None:
        check_fits(reader)
        self.reader, self.audio, self.frame_rate = reader, audio, frame_rate

    @cached_property
    def images(self) -> Tensor:
        return load(self.reader)
