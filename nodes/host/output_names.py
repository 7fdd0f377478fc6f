"""Where a new clip lies in the host's folders."""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path

import folder_paths
from torch import Tensor

from ...t2v_models.errors import T2VError


def clip_place(name: str, extension: str, frame: Tensor, *, save_output: bool) -> Path:
    """Return a new clip's path, by the host's patterns and counter.

    Args:
        name: the prefix, with subfolders and patterns such as %date:yyyy-MM-dd% and %width%.
        extension: of the file; "" for a folder.
        frame: (h, w, 3), for the patterns of sizes.
        save_output: the output folder, else the temp folder.

    Raises:
        T2VError: where the name leads out of that folder, or nothing can be written there.
    """
    root = folder_paths.get_output_directory() if save_output else folder_paths.get_temp_directory()
    height, width = frame.shape[:2]
    try:
        os.makedirs(root, exist_ok=True)
        prefix = re.sub("%date:([^%]*)%", lambda match: _date(match[1]), name)
        _check_inside(prefix, root)
        folder, stem, counter, _, _ = folder_paths.get_save_image_path(prefix, root, width, height)
    except OSError as error:
        option = "--output-directory" if save_output else "--temp-directory"
        raise T2VError(
            f"The clip cannot be written to {root} under the name {name[:80]!r} ({error.strerror}): make room or "
            f"make the folder writable, give a shorter name, or start ComfyUI with another {option}."
        ) from error
    except Exception as error:
        raise T2VError(f"The name {name[:80]!r} leads out of {root}: give one that stays inside.") from error
    return Path(folder) / f"{stem}_{counter:05}_{extension}"


def _check_inside(prefix: str, root: str) -> None:
    """Raise ValueError where a name leads out of a folder; the host would print lines of its own before it raises."""
    top = os.path.abspath(root)
    folder = os.path.abspath(os.path.join(root, os.path.dirname(os.path.normpath(prefix))))
    if os.path.commonpath((top, folder)) != top:
        raise ValueError(prefix)


def _date(form: str) -> str:
    """The present time in the editor's patterns: yyyy, yy, and M, d, h, m, s, single or double."""
    now = datetime.datetime.now()
    parts = {"d": now.day, "M": now.month, "h": now.hour, "m": now.minute, "s": now.second}

    def part(match: re.Match[str]) -> str:
        name = match[0]
        if name[0] == "y":
            return {"yy": f"{now.year % 100:02}", "yyyy": str(now.year)}.get(name, name)
        return str(parts[name[0]]).zfill(len(name))

    return re.sub("dd?|MM?|hh?|mm?|ss?|yyy?y?", part, form)
