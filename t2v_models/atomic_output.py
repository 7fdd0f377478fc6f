"""Write a file or a folder that appears whole or not at all.

It is written in a private folder beside its place, synced to the disk, and moved at the end.
"""

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
_LONGEST_NAME = 4096
"""Characters of a name that are passed to the system, which names a closer limit itself."""


def checked_path(path: object) -> Path:
    """Return the absolute path that a caller names.

    Raises:
        T2VError: where it is no path, or no file can have this name.
    """
    if not isinstance(path, (str, os.PathLike)) or isinstance(name := os.fspath(path), bytes):
        raise T2VError(f"A path is wanted, not {type(path).__name__}: give a text or a pathlib.Path.")
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise T2VError(f"The name {ascii(name)[:80]} holds half of a surrogate pair: no file can have it.") from error
    if "\0" in name:
        raise T2VError(f"The name {name[:80]!r} holds a NUL character: no file can have it.")
    if len(os.path.basename(name)) > _LONGEST_NAME:
        raise T2VError(f"The name {name[:40]!r}… is too long ({len(name)} characters): choose a shorter one.")
    return Path(os.path.abspath(name))


class AtomicOutput:
    """A hidden folder beside a path, for the unfinished file; `publish` moves the result to the path.

    The hidden folder holds a file that is locked as long as the process lives. So the next writer beside it can find the
    folders that killed processes have left, and remove them.

    Args:
        path: where the file or folder will be.
        overwrite: replace an older file at the end.

    Raises:
        FileExistsError: where the path exists, without `overwrite`.
        OSError: where nothing can be written there, with a sentence that says what to do.
        T2VError: where the name is too long.
    """

    def __init__(self, path: Path, *, overwrite: bool = False):
        self.path = path = checked_path(path)
        self.overwrite = overwrite
        parent = path.parent
        try:
            exists = os.path.lexists(path)
        except OSError as error:
            raise _sentence(path, error) from error
        if len(os.fsencode(path.name)) > 255:
            raise T2VError(f"The name {path.name[:40]!r}… has {len(os.fsencode(path.name))} bytes: 255 are possible.")
        if exists and not overwrite:
            raise FileExistsError(errno.EEXIST, "This file exists already, and is not overwritten", str(path))
        try:
            parent.mkdir(parents=True, exist_ok=True)
            _sweep(parent)
            self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        except OSError as error:
            raise _sentence(path, error) from error
        self._lock: int | None = _locked(self.folder / _LOCK)

    def publish(self, name: str) -> Path:
        """Sync the file or folder of that name, move it to the path, and return where it is.

        Where another process has taken the path meanwhile, the next free name ("clip (2).mp4") is used. A folder always
        gets a free name.

        Raises:
            OSError: where it cannot be written there, with a sentence that says what to do.
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
        """Remove the private folder and everything in it."""
        _empty(self.folder)
        if self._lock is not None:
            with contextlib.suppress(OSError):
                os.close(self._lock)
            self._lock = None
        shutil.rmtree(self.folder, ignore_errors=True)


def _empty(folder: Path) -> None:
    """Remove all but the lock. It goes last, so that a folder whose removal was killed is still found by the next writer."""
    with contextlib.suppress(OSError):
        for path in [path for path in folder.iterdir() if path.name != _LOCK]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _sentence(path: Path, error: OSError) -> Exception:
    """Make an error of the given one's class (PermissionError …) with a sentence that says what to do."""
    if isinstance(error, T2VError):
        return error
    remedy = {
        errno.EACCES: "there is no permission to write there: choose another folder",
        errno.EPERM: "there is no permission to write there: choose another folder",
        errno.EROFS: "that disk is read-only: choose another folder",
        errno.ENOSPC: "no space is left on that disk: make room, or choose another folder",
        errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
        errno.ENOTDIR: "a part of the path is a file, not a folder: choose another folder",
        errno.EEXIST: "a part of the path is a file, not a folder: choose another folder",
    }.get(error.errno or 0, error.strerror or str(error))
    name = str(path) if len(str(path)) < 200 else f"{str(path)[:80]}…{str(path)[-80:]}"
    return type(error)(error.errno or 0, f"{name} cannot be written: {remedy}")


def _move(source: Path, place: Path, overwrite: bool) -> bool:
    """Give source the name place in one step; returns False where the name is taken and must not be overwritten."""
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
    """Write a file, or every file of a folder, out to the disk."""
    if path.is_dir():
        for child in path.iterdir():
            _sync(child)
        _sync_folder(path)
        return
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Write the names in a folder out to the disk."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):  # some network file systems refuse it
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _locked(path: Path) -> int:
    """Make a file that is locked until this process ends; returns its descriptor. Without fcntl it is open, not locked."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _abandoned(folder: Path) -> bool:
    """Whether the process that made a private folder has ended."""
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
    """Remove the private folders that killed writers have left in this folder."""
    for folder in parent.glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            if _abandoned(folder):
                _empty(folder)
                shutil.rmtree(folder, ignore_errors=True)
