"""The model files in the host's folders, `text2video` among them, and the built-in models."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ....t2v_models.builtin_model import BUILT_IN, BUILT_IN_FOLDER, IMAGE_BUILT_IN, IMAGE_BUILT_IN_FOLDER
from ....t2v_models.errors import T2VError

FROM_MODEL = "from model"
"""The choice of the text encoder or VAE in or beside the model file."""

FILE_FOLDERS = ("text2video", "diffusion_models", "checkpoints")
_BUILT_IN = {BUILT_IN: BUILT_IN_FOLDER, IMAGE_BUILT_IN: IMAGE_BUILT_IN_FOLDER}
_MARKS = ("model_index.json", "unet/config.json", "configuration.json", "text2video_pytorch_model.pth")
"""Files by which a folder is recognised as a model of several files."""


def register() -> None:
    """Add `models/text2video` to the host's folders, after those of extra_model_paths.yaml."""
    folder_paths.add_model_folder_path("text2video", os.path.join(folder_paths.models_dir, "text2video"))
    paths, extensions = folder_paths.folder_names_and_paths["text2video"]
    folder_paths.folder_names_and_paths["text2video"] = (paths, set(extensions) | folder_paths.supported_pt_extensions)


def model_names() -> list[str]:
    """List every model file and folder by the name that workflows store, the built-in models first."""
    return [*_BUILT_IN, *sorted(_models(), key=str.casefold)]


def model_path(name: str) -> Path:
    """Return the path of a listed model. Raises T2VError where it has gone."""
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    found = _models().get(name)
    if found is None:
        # Listed elsewhere under another label, or the list was made before the file came.
        for folder in FILE_FOLDERS:
            path = folder_paths.get_full_path(folder, name)
            if path is not None:
                return Path(path)
        raise _gone(name, "text2video")
    if not found.exists():
        raise _gone(name, "text2video")
    return found


def file_names(folder: str) -> list[str]:
    """List the files in one of the host's folders, after `FROM_MODEL`."""
    return [FROM_MODEL, *folder_paths.get_filename_list(folder)]


def file_path(folder: str, name: str) -> Path:
    """Return the path of a listed file. Raises T2VError where it has gone."""
    path = folder_paths.get_full_path(folder, name)
    if path is None:
        raise _gone(name, folder)
    return Path(path)


def _gone(name: str, folder: str) -> T2VError:
    return T2VError(
        f'"{name}" is no longer in the model folders: put it into models/{folder}, or choose another model (press R to '
        "refresh the list)."
    )


def _models() -> dict[str, Path]:
    """Paths by name; where two folders share a name, the second one has its folder's name after it."""
    models: dict[str, Path] = {}

    def add(name: str, path: Path, folder: str) -> None:
        models[name if name not in models else f"{name} ({folder})"] = path

    for folder in ("text2video", "diffusers"):
        for root in _roots(folder):
            for path in _model_folders(root):
                add(path.relative_to(root).as_posix(), path, folder)
    for folder in FILE_FOLDERS:
        for name in folder_paths.get_filename_list(folder):
            path = folder_paths.get_full_path(folder, name)
            if path is not None:
                add(name, Path(path), folder)
    return models


def _roots(folder: str) -> list[Path]:
    if folder not in folder_paths.folder_names_and_paths:
        return []
    return [Path(path) for path in folder_paths.get_folder_paths(folder) if os.path.isdir(path)]


def _model_folders(root: Path) -> list[Path]:
    """Model folders in a root, or one level down (owner/name)."""
    found = []
    for path in _folders(root):
        for candidate in (path, *_folders(path)):
            if any(os.path.isfile(candidate / mark) for mark in _MARKS):
                found.append(candidate)
    return found


def _folders(root: Path) -> list[Path]:
    """The folders in a folder; none where it cannot be read, so that the pack loads all the same."""
    try:
        return sorted(path for path in root.iterdir() if os.path.isdir(path))  # false where it cannot be read
    except OSError:
        return []


def fingerprint(name: str | None, text_encoder: str | None = FROM_MODEL, vae: str | None = FROM_MODEL) -> str:
    """Return a text that changes with the files of these names, so that the host loads them again.

    None is a name that comes through a link, and is not there yet.
    """
    paths = [] if name in (*_BUILT_IN, None) else [_models().get(name)]
    for folder, file in (("text_encoders", text_encoder), ("vae", vae)):
        if file not in (FROM_MODEL, None):
            found = folder_paths.get_full_path(folder, file)
            paths.append(Path(found) if found else None)
    return f"{name} " + " ".join(_state(path) for path in paths)


def _state(path: Path | None) -> str:
    """Sizes and times of a file and of what is read beside it, or of all files in a folder."""
    if path is None or not path.exists():
        return f"{path} is gone"
    whole = [path] if path.is_dir() else [path, path.parent / "config.json", path.parent / "tokenizer"]
    files = sorted(each for part in whole for each in (part, *part.rglob("*")) if each.is_file())
    return ";".join(f"{each}:{each.stat().st_mtime_ns}:{each.stat().st_size}" for each in files)
