"""The ComfyUI installations in which the tests of the nodes run."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]
NAME = "t2v-nodes"


@dataclass(frozen=True)
class Host:
    """One installation."""

    root: Path

    @property
    def version(self) -> str:
        found = re.search(r'__version__ = "([^"]+)"', (self.root / "comfyui_version.py").read_text())
        return found.group(1) if found else self.root.name

    @property
    def python(self) -> Path:
        """Path of its own interpreter, or of the one that runs the tests."""
        for folder in (".venv", "venv"):
            for candidate in (self.root / folder / "bin/python", self.root / folder / "Scripts/python.exe"):
                if candidate.exists():
                    return candidate
        return Path(sys.executable)

    def base(self, folder: Path, models: dict[str, Path]) -> Path:
        """Make a base directory with this pack in custom_nodes and `models`, by name, in models/diffusers."""
        for part in (
            "custom_nodes",
            "models/diffusers",
            "models/text2video",
            "models/loras",
            "input",
            "output",
            "user",
        ):
            (folder / part).mkdir(parents=True, exist_ok=True)
        link(PACK, folder / "custom_nodes" / NAME)
        for name, path in models.items():
            link(path, folder / "models" / "diffusers" / name)
        return folder


def link(source: Path, target: Path) -> None:
    """Make a symbolic link, or a copy if the system allows no links."""
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:
        if source.is_file():
            shutil.copy(source, target)
            return
        ignore = shutil.ignore_patterns(".git", ".venv", "__pycache__", "out", "output")
        shutil.copytree(source, target, ignore=ignore)


def find() -> list[Host]:
    """Return the hosts in COMFYUI_PATH (separated as in PATH), or the one around this clone, or ~/comfy/ComfyUI*."""
    given = os.environ.get("COMFYUI_PATH", "")
    roots = [Path(part).expanduser() for part in given.split(os.pathsep) if part]
    if not roots:
        around = PACK.parent.parent if PACK.parent.name == "custom_nodes" else None
        roots = [around] if around else sorted(Path("~/comfy").expanduser().glob("ComfyUI*"))
    return [Host(root) for root in roots if (root / "comfyui_version.py").is_file()]


def why_none() -> str:
    """Return the reason for skipping tests if there is no host."""
    return "no ComfyUI found: set COMFYUI_PATH to one or more installations to run the tests of the nodes"
