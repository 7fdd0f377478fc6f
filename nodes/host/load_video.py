"""Video files, and folders of numbered PNG frames, to images and sound."""

from __future__ import annotations

import os
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from torch import Tensor

from ...t2v_models.errors import T2VError
from ...t2v_models.video import VideoReader
from .memory import check_images, images_that_fit

ENDINGS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif", ".webp", ".apng", ".mpg", ".mpeg", ".ts", ".flv")
"""Endings of the files in the input folder that are listed as clips."""


def clip_names() -> list[str]:
    """List the clips in the host's input folder and its subfolders, and the folders of PNG frames, with a / at their end."""
    root = Path(folder_paths.get_input_directory())
    found = []
    for folder, folders, files in os.walk(root, followlinks=True):
        inside = Path(folder).relative_to(root)
        deep = len(inside.parts) >= 3  # links may lead in circles
        folders[:] = [] if deep else sorted(name for name in folders if not name.startswith("."))
        found += [(inside / name).as_posix() for name in files if name.lower().endswith(ENDINGS)]
        if inside.parts and any(name.lower().endswith(".png") and name[:-4][-1:].isdigit() for name in files):
            found.append(inside.as_posix() + "/")
    return sorted(found, key=str.casefold)


def clip_path(name: str) -> Path:
    """Return the path of a listed clip; [output] or [temp] after the name chooses another folder of the host.

    Raises:
        T2VError: where there is no such clip, or its name leads out of these folders.
    """
    path = Path(folder_paths.get_annotated_filepath(name.rstrip("/")))
    kinds = (folder_paths.get_input_directory(), folder_paths.get_output_directory(), folder_paths.get_temp_directory())
    inside = any(Path(os.path.abspath(root)) in Path(os.path.abspath(path)).parents for root in kinds)
    if not inside or not path.exists():
        raise T2VError(f"There is no clip {name!r} in the input folder: upload it, or press R to refresh the list.")
    return path


def check_fits(reader: VideoReader) -> None:
    """Raise T2VError, before anything is read, where the settings leave no frame, or the frames do not fit the memory."""
    count, (width, height) = len(reader), reader.size
    if not count:
        raise _nothing_left(reader)
    fits = images_that_fit(height, width)
    every_nth = -(-count // max(1, fits))
    remedy = f"set frame_cap to {fits} or less, or every_nth to {every_nth}, or a smaller width and height"
    check_images(count, height, width, remedy)


def load(reader: VideoReader) -> Tensor:
    """Read the frames to (t, h, w, 3), float, 0..1. Raises T2VError as `check_fits` does."""
    check_fits(reader)
    count, (width, height) = len(reader), reader.size
    images = torch.empty((count + bool(reader.fps), height, width, 3))  # where fps is changed, the count is an estimate
    progress, given = comfy.utils.ProgressBar(count), 0
    for frame in reader:
        if given == len(images):
            break
        comfy.model_management.throw_exception_if_processing_interrupted()
        torch.div(torch.from_numpy(frame), 255, out=images[given])
        given += 1
        progress.update_absolute(min(given, count), count)
    if not given:
        raise _nothing_left(reader)
    return images[:given]


def _nothing_left(reader: VideoReader) -> T2VError:
    if reader.start:
        what = f"none is left after start_frame {reader.start}: begin earlier"
    else:
        what = "which last less than half a frame at that fps: give a higher fps, or 0"
    return T2VError(f"{reader.path.name} has {reader.info.frame_count} frames, {'and ' * bool(reader.start)}{what}.")


def load_audio(reader: VideoReader) -> dict | None:
    """Read the sound of the reader's frames as the host's AUDIO; None where there is none."""
    audio = reader.audio()
    if audio is None:
        return None
    return {"waveform": torch.from_numpy(audio.samples)[None], "sample_rate": audio.rate}
