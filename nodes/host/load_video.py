"""Video files, and folders of numbered pictures, to images and sound."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from torch import Tensor

from ...t2v_models.errors import T2VError
from ...t2v_models.foreign import quoted
from ...t2v_models.video import Audio, VideoReader, holds_pictures
from .memory import check_bytes, check_images, images_that_fit

ENDINGS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif", ".webp", ".apng", ".mpg", ".mpeg", ".ts", ".flv")
"""Endings of the files in the input folder that are listed as clips."""


def clip_names() -> list[str]:
    """List the clips in the host's input folder and its subfolders, and the folders of pictures, with a / at their end.

    A link that the host refuses, since it leads out of the folder, is left out.
    """
    root = Path(folder_paths.get_input_directory())
    found = []
    for folder, folders, files in os.walk(root, followlinks=True):
        inside = Path(folder).relative_to(root)
        deep = len(inside.parts) >= 3  # links may lead in circles
        names = [name for name in folders if not name.startswith(".") and _text(name)]
        names = [name for name in names if _allowed(Path(folder) / name, inside / name)]
        folders[:] = [] if deep else sorted(names)
        clips = [name for name in files if name.lower().endswith(ENDINGS) and _text(name)]
        found += [(inside / name).as_posix() for name in clips if _allowed(Path(folder) / name, inside / name)]
        if inside.parts and holds_pictures(files):
            found.append(inside.as_posix() + "/")
    return sorted(found, key=str.casefold)


def _text(name: str) -> bool:
    """Whether a file's name is text, which the editor can be sent."""
    return name.isprintable() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _allowed(path: Path, name: Path) -> bool:
    """Whether the host opens a path of the input folder by its name; hosts since 0.28 refuse links that lead out of it."""
    if not path.is_symlink():
        return True
    try:
        folder_paths.get_annotated_filepath(name.as_posix())
    except ValueError:
        return False
    return True


def clip_path(name: Any) -> Path:
    """Return the path of a listed clip; [output] or [temp] after the name chooses another folder of the host.

    Raises:
        T2VError: where there is no such clip, or its name leads out of these folders.
    """
    missing = T2VError(
        f"There is no clip {quoted(repr(name))} in the input folder: upload it, or press R to refresh the list."
    )
    if not isinstance(name, str):
        raise missing
    name = name.rstrip("/")
    kinds = (folder_paths.get_input_directory(), folder_paths.get_output_directory(), folder_paths.get_temp_directory())
    try:
        path = Path(folder_paths.get_annotated_filepath(name))
        inside = any(Path(os.path.abspath(root)) in Path(os.path.abspath(path)).parents for root in kinds)
        there = inside and path.exists()
    except (OSError, ValueError) as error:  # too long, no text, or a path that the host refuses
        if _behind_link(name, kinds[0]):
            raise T2VError(
                f"{quoted(name)} lies behind a link that leads out of the input folder, which this ComfyUI refuses: copy the "
                "clip into the input folder."
            ) from error
        raise missing from error
    if not there:
        raise missing
    return path


def _behind_link(name: str, root: str) -> bool:
    """Whether a name stays in a folder, and a link on its way leads out of it."""
    path = os.path.abspath(os.path.join(root, name))
    try:
        return Path(os.path.abspath(root)) in Path(path).parents and os.path.exists(path)
    except (OSError, ValueError):
        return False


def misfits(linked: dict[str, Any], described: dict[str, dict[str, Any]]) -> str:
    """Return which linked inputs are of a wrong type, or "".

    linked: the type of what comes, by input. described: the node's INPUT_TYPES.
    """
    wanted = {
        name: spec[0] for section in ("required", "optional") for name, spec in described.get(section, {}).items()
    }
    wrong = [
        f"{name} takes {'|'.join(sorted(_types(kind)))}, not {'|'.join(sorted(_types(linked[name])))}"
        for name, kind in wanted.items()
        if name in linked and linked[name] not in (kind, "*") and not _types(linked[name]) & _types(kind)
    ]
    return "; ".join(wrong)


def _types(described: Any) -> set[str]:
    """The host's types that a description names: several with commas between; a list of choices is a COMBO."""
    return {"COMBO"} if isinstance(described, list) else set(str(described).split(","))


def fingerprint(name: Any) -> str:
    """Return what changes when a clip changes: names, times and sizes of its files."""
    try:
        path = clip_path(name)
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        stats = [(file.name, file.stat()) for file in files]
    except (OSError, ValueError):
        return f"{name} is gone"
    return repr([(name, stat.st_mtime_ns, stat.st_size) for name, stat in stats])


def opened(
    name: Any,
    *,
    fps: float,
    start: int,
    every: int,
    count: int,
    size: tuple[int, int],
    strict: bool,
) -> VideoReader:
    """Open a listed clip, whose reading hears the host's cancel; 0 for fps, count or a side is the clip's own.

    Raises:
        T2VError: where there is no such clip, or it is damaged and `strict`.
    """
    return VideoReader(
        clip_path(name),
        fps=fps or None,
        start=start,
        every=every,
        count=count or None,
        size=size if any(size) else None,
        strict=strict,
        cancelled=comfy.model_management.throw_exception_if_processing_interrupted,
    )


def check_fits(reader: VideoReader) -> None:
    """Raise T2VError, before anything is read, where the settings leave no frame, or the frames do not fit the memory."""
    count, (width, height) = len(reader), reader.size
    if not count:
        raise _nothing_left(reader)
    fits = images_that_fit(height, width)
    every_nth = -(-count // max(1, fits))
    remedy = f"set frame_cap to {fits} or less, or every_nth to {every_nth}, or a smaller width and height"
    check_images(count, height, width, remedy)
    images, sound = 12 * count * height * width, reader.audio_bytes
    if sound:
        what = f"The clip of {count} frames with {sound / 1e9:.1f} GB of sound ({reader.info.audio.channels} channels)"
        check_bytes(images + sound, what, "set a smaller frame_cap, or a smaller width and height")


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
    return as_audio(reader.audio())


def as_audio(audio: Audio | None) -> dict[str, Any] | None:
    """Return sound as the host's AUDIO; None where there is none."""
    if audio is None:
        return None
    return {"waveform": torch.from_numpy(audio.samples)[None], "sample_rate": audio.rate}
