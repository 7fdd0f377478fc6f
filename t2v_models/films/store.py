"""A folder of finished parts, with which a stopped film continues."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..atomic_files import write_tensors, write_text
from ..errors import T2VError

log = logging.getLogger(__name__)


NOTE = "film.txt"
"""The file in a film's folder that says which film it is."""


@contextlib.contextmanager
def _sentence(folder: Path) -> Iterator[None]:
    """Make a T2VError of the system's errors about a folder."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL or half of a surrogate pair in the name
        why = error.strerror if isinstance(error, OSError) else error
        raise T2VError(
            f"The unfinished film cannot be kept in {str(folder)!r} ({why}): choose another folder, or make this one "
            "writable."
        ) from error


class Store:
    """Finished tensors of a film, as files of a folder; without a folder nothing is stored.

    Args:
        folder: need not exist.
        about: all that decides how the film looks.

    Raises:
        T2VError: where the folder holds another film, or tensors of something else.
    """

    def __init__(self, folder: str | Path | None, about: dict[str, Any]) -> None:
        self.folder, self.text = None if folder is None else Path(folder), repr(sorted(about.items()))
        if self.folder is None:
            return
        folder = self.folder
        note = folder / NOTE
        with _sentence(folder):
            known = note.read_text(encoding="utf-8", errors="replace") if note.exists() else None
            others = any(folder.glob("*.safetensors"))
        if known is not None and known != self.text:
            raise T2VError(
                f"{folder} holds an unfinished film of other settings: finish that one with its own, remove the folder, or "
                "choose another."
            )
        if known is None and others:
            raise T2VError(f"{folder} holds .safetensors files and no unfinished film: choose a new or empty folder.")

    def begin(self) -> None:
        """Make the folder, with a note of which film it holds. T2VError where it cannot be made."""
        if self.folder is not None:
            with _sentence(self.folder):
                begun = (self.folder / NOTE).exists()
                self.folder.mkdir(parents=True, exist_ok=True)
            if not begun:
                write_text(self.folder / NOTE, self.text)

    def get(self, name: str) -> dict[str, Tensor] | None:
        """Read the tensors stored under a name; None where there are none, or the file is damaged."""
        path = None if self.folder is None else self.folder / f"{name}.safetensors"
        if path is None or not path.exists():
            return None
        try:
            return {key: value.clone() for key, value in load_file(path).items()}  # no view: the file may be replaced
        except SafetensorError as error:
            log.warning("%s cannot be read (%s): that part is made again.", path, error)
            return None

    def put(self, name: str, **tensors: Tensor) -> None:
        """Store tensors under a name; a stop at any moment leaves the old ones or the new ones."""
        if self.folder is not None:
            write_tensors(self.folder / f"{name}.safetensors", tensors)

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """Return the latents stored under a name; where there are none, make and store them."""
        stored = self.get(name)
        if stored is not None:
            return stored["latents"]
        latents = make()
        self.put(name, latents=latents)
        return latents

    def clear(self) -> None:
        """Remove the film's files, and the folder if nothing else lies in it."""
        if self.folder is not None:
            for path in self.folder.glob("*.safetensors"):
                path.unlink()
            (self.folder / NOTE).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty
                self.folder.rmdir()
