"""Files that appear whole or not at all: written in a private folder beside their place, synced, moved at the end."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from pathlib import Path

from .errors import T2VError

PREFIX = ".t2v-unfinished-"
_LOCK = "lock"


class AtomicOutput:
    """A hidden folder in the folder of path, for what is not finished. `publish` moves the result to its name.

    The folder holds a locked file as long as its process lives, so that the next writer in the same folder knows which
    folders a killed process has left, and removes them.
    """

    def __init__(self, path: Path, *, overwrite: bool = False):
        self.path = path
        self.overwrite = overwrite
        parent = path.parent
        try:
            taken = os.path.lexists(path)
        except OSError as error:
            raise _sentence(path, error) from error
        if len(os.fsencode(path.name)) > 255:
            raise T2VError(f"The name {path.name[:40]!r}… has {len(os.fsencode(path.name))} bytes: 255 are possible.")
        if taken and not overwrite:
            raise FileExistsError(errno.EEXIST, "This file exists already, and is not overwritten", str(path))
        try:
            parent.mkdir(parents=True, exist_ok=True)
            _sweep(parent)
            self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        except OSError as error:
            raise _sentence(path, error) from error
        self._lock = _locked(self.folder / _LOCK)

    def publish(self, name: str) -> Path:
        """Sync the file or folder of that name and move it to its place; returns the place.

        If another process has taken the name in the meantime, the next free one ("clip (2).mp4") is used.
        """
        source = self.folder / name
        try:
            _sync(source)
            place, number = self.path, 1
            while not _move(source, place, self.overwrite):
                number += 1
                place = self.path.with_name(f"{self.path.stem} ({number}){self.path.suffix}")
            _sync_folder(place.parent)
        except OSError as error:
            raise _sentence(self.path, error) from error
        return place

    def remove(self) -> None:
        """The private folder and everything in it."""
        _empty(self.folder)
        if self._lock is not None:
            with contextlib.suppress(OSError):
                os.close(self._lock)
            self._lock = None
        shutil.rmtree(self.folder, ignore_errors=True)


def _empty(folder: Path) -> None:
    """Remove all but the lock, which goes last: killed before it, the folder is known as one that was left."""
    with contextlib.suppress(OSError):
        for path in [path for path in folder.iterdir() if path.name != _LOCK]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _sentence(path: Path, error: OSError) -> Exception:
    """The same kind of error (PermissionError …) with a sentence that says what to do."""
    if isinstance(error, T2VError):
        return error
    help = {
        errno.EACCES: "there is no permission to write there: choose another folder",
        errno.EPERM: "there is no permission to write there: choose another folder",
        errno.EROFS: "that disk is read-only: choose another folder",
        errno.ENOSPC: "no space is left on that disk: make room, or choose another folder",
        errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
        errno.ENOTDIR: "a part of the path is a file, not a folder: choose another folder",
        errno.EEXIST: "a part of the path is a file, not a folder: choose another folder",
    }.get(error.errno or 0, error.strerror or str(error))
    name = str(path) if len(str(path)) < 200 else f"{str(path)[:80]}…{str(path)[-80:]}"
    return type(error)(error.errno or 0, f"{name} cannot be written: {help}")


def _move(source: Path, place: Path, overwrite: bool) -> bool:
    """Give source the name place in one step; False if the name is taken (and must not be overwritten)."""
    if overwrite and not source.is_dir():
        os.replace(source, place)
        return True
    if source.is_dir():
        if os.path.lexists(place):
            return False
        try:
            os.rename(source, place)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                return False
            raise
        return True
    try:
        os.link(source, place)  # unlike a rename, this never replaces a file
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if os.path.lexists(place):
            return False
        os.rename(source, place)
        return True
    os.unlink(source)
    return True


def _sync(path: Path) -> None:
    """Have the file, or every file of the folder, on the disk before its name is."""
    if path.is_dir():
        for child in path.iterdir():
            _sync(child)
        _sync_folder(path)
        return
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):  # some network file systems refuse it
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _locked(path: Path) -> int | None:
    """A descriptor of a new file that is locked until this process ends; None where locks are not known."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _abandoned(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR)
    except FileNotFoundError:  # just made, or just being removed
        return time.time() - folder.stat().st_mtime > 3600
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows: an open file cannot be removed, so try
        os.close(descriptor)
        descriptor = -1
        os.unlink(folder / _LOCK)
        return True
    except OSError:
        return False
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return True


def _sweep(parent: Path) -> None:
    """Remove what killed writers have left in this folder."""
    for folder in parent.glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            if _abandoned(folder):
                _empty(folder)
                shutil.rmtree(folder, ignore_errors=True)
