"""A process that reads files of strangers under a limit of memory, and reports what it opened besides them.

    python -m tests.fuzz.child KIND

Reads paths from its input, one a line, and answers each with a line of JSON: the result and the seconds it took. Audit
events (PEP 578) show every file that Python opens, every program that it starts and every address that it calls.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from t2v_models.errors import LONGEST_MESSAGE, T2VError

MEMORY = 2 << 30
"""Bytes of address space that reading may take, above what the process has after its imports. ffmpeg inherits the limit."""

MOST_FRAMES = 64

CALLS = ("socket.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.remove", "os.rename", "os.mkdir", "shutil.",
         "pickle.", "urllib.", "http.", "ftplib.", "ctypes.dlopen", "webbrowser.")  # fmt: skip
"""Audit events that no reader may cause, by the beginnings of their names."""


class Watch:
    """Collects what Python does besides reading one file; nothing while `path` is None."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.found: list[str] = []
        places = [
            sys.prefix,
            sys.base_prefix,
            Path(__file__).resolve().parents[2],
            "/dev/null",
            "/proc",
            "/sys",
            "/usr/share",
        ]
        self.readable = tuple(str(place) for place in places)
        self.temporary = tempfile.gettempdir()
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.path is None:
            return
        if event == "open":
            self._opened(*args)
        elif event == "subprocess.Popen":
            if Path(os.fsdecode(args[0])).resolve() != program():
                self.found.append(f"started {args[0]!r}")
        elif event.startswith(CALLS):
            self.found.append(f"{event} {args!r:.200}")

    def _opened(self, name: Any, mode: str | None, flags: int) -> None:
        if isinstance(name, int):
            return
        path = os.path.abspath(os.fsdecode(name))
        if path in (str(self.path), self.temporary, os.devnull) or os.path.dirname(path) == self.temporary:
            return  # the file, or a file without a name for ffmpeg's messages
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        inside = self.path is not None and path.startswith(f"{self.path}{os.sep}")  # the path may be a folder
        if writes or not (inside or path.startswith(self.readable)):
            self.found.append(f"opened {path!r} {mode}")


def program() -> Path:
    """The ffmpeg in use."""
    from t2v_models.video.ffmpeg.process import ffmpeg_exe

    return Path(ffmpeg_exe()).resolve()


def read_video(engine: str, path: Path) -> str:
    """Read facts, frames and sound; where the strict reading refuses, read leniently, too."""
    from t2v_models.video import VideoReader, engines

    engines.use(engine)
    refusals = []
    for strict in (True, False):
        try:
            reader = VideoReader(path, count=MOST_FRAMES, strict=strict)
            size = reader.info.width, reader.info.height
            for frame in reader:
                if frame.shape != (size[1], size[0], 3):
                    return f"a frame of {frame.shape} in a clip of {size}"
            reader.audio()
        except T2VError as error:
            refusals.append(error)
            continue
        return "loaded"
    return refused(refusals[-1])


def read_checkpoint(path: Path) -> str:
    """Load the network, and compare its weights."""
    from .checkpoints import checked

    return checked(path)


def read_a_lora(path: Path) -> str:
    """Read a LoRA, and add it to a network."""
    from .loras import checked

    return checked(path)


def refused(error: T2VError) -> str:
    """ "refused" where the message is a sentence for people, else what is wrong with it."""
    message = str(error)
    if not message or len(message) > LONGEST_MESSAGE or "\n" in message or "\0" in message or "Traceback" in message:
        return f"unclear error: {message[:300]!r}"
    return "refused"


def careless(path: Path) -> str:
    """Do what no reader may do; the file's text says what. For a test of this module."""
    what = path.read_text()
    if what == "foreign file":
        open("/etc/hostname").close()
    elif what == "written file":
        path.with_suffix(".new").write_text("")
    elif what == "address":
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    elif what == "program":
        subprocess.run([sys.executable, "--version"], check=True)
    elif what == "memory":
        bytearray(MEMORY + (64 << 20))
    elif what == "hang":
        time.sleep(60)
    elif what == "crash":
        os.abort()
    elif what == "long message":
        error = T2VError()
        error.args = ("x" * 5000,)
        raise error
    return "loaded"


READERS: dict[str, Callable[[Path], str]] = {
    "ffmpeg": functools.partial(read_video, "ffmpeg"),
    "pyav": functools.partial(read_video, "pyav"),
    "checkpoint": read_checkpoint,
    "lora": read_a_lora,
    "careless": careless,
}


def outcome(read: Callable[[Path], str], path: Path, watch: Watch) -> str:
    """Read a file: "loaded", "refused", or the fault."""
    watch.path, watch.found = path, []
    try:
        result = read(path)
    except T2VError as error:
        result = refused(error)
    except Exception as error:
        place = error.__traceback__
        while place and place.tb_next:
            place = place.tb_next
        where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
        result = f"{type(error).__name__} at {where}: {str(error)[:200]}"
    finally:
        watch.path = None
    return f"{'; '.join(watch.found)}"[:500] if watch.found else result


def limit_memory() -> None:
    """Limit the address space to what is mapped now and `MEMORY` more; only where the system knows such a limit."""
    try:
        import resource
    except ImportError:
        return
    mapped = 0
    if os.path.exists("/proc/self/statm"):
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))


def main() -> None:
    read = READERS[sys.argv[1]]
    sys.dont_write_bytecode = True
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    watch = Watch()
    paths = iter(sys.stdin.readline, "")
    read(Path(next(paths).strip()))  # an undamaged file: it imports all that is needed
    program()
    limit_memory()
    print(json.dumps(["ready", 0]), file=answers)
    for line in paths:
        start = time.monotonic()
        result = outcome(read, Path(line.rstrip("\n")), watch)
        print(json.dumps([result, time.monotonic() - start]), file=answers)


if __name__ == "__main__":
    main()
