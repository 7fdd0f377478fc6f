"""The house keeps its rules: arrows that point one way, nothing heavy at import, clean lint, format and types."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("nodes", "t2v_models")

LIBRARY = "The library: commands, films and clips, then models and solvers, then errors"
"""The name of a contract in pyproject.toml."""

LINT_IMPORTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"

IMPORT_ALL = """
import pkgutil, sys
from importlib import import_module
import t2v_models
names = [found.name for found in pkgutil.walk_packages(t2v_models.__path__, "t2v_models.")]
for name in names:
    if not name.endswith("__main__"):
        import_module(name)
assert len(names) > 80, names
print(*sorted({"diffusers", "transformers", "PIL", "imageio_ffmpeg"} & set(sys.modules)))
"""


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A command of this Python, with both its outputs as one text in `stdout`."""
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def demand(done: subprocess.CompletedProcess[str]) -> None:
    """Fail with what a command said, unless it ended well."""
    if done.returncode:
        pytest.fail(done.stdout, pytrace=False)


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A copy of the code, as the package `pack` that the contracts of pyproject.toml name."""
    pytest.importorskip("importlinter", reason="pip install import-linter")
    copy = tmp_path / "pack"
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy / room, ignore=all_but_code)
    shutil.copy(ROOT / "__init__.py", copy)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return copy


def all_but_code(folder: str, names: list[str]) -> list[str]:
    """The names in a folder that are no Python files and no folders of them."""
    return [name for name in names if not name.endswith(".py") and not (Path(folder) / name).is_dir()]


def check_imports(pack: Path) -> subprocess.CompletedProcess[str]:
    return run("-c", LINT_IMPORTS, "--no-cache", cwd=pack.parent)


def test_imports_point_one_way_and_make_no_circle(pack: Path) -> None:
    demand(check_imports(pack))


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("t2v_models/sampling/ddim.py", "from .. import pipeline", LIBRARY),
        ("t2v_models/films/settings.py", "def late(): from ..pipeline import Pipeline", LIBRARY),
        ("t2v_models/errors.py", "import comfy.utils", "The library imports no host"),
        ("t2v_models/video/frames.py", "from ...nodes import video", "The nodes stand on the library"),
        (
            "nodes/host/models/folders.py",
            "from ..sampling import preview",
            "The host's rooms: a run stands on the models",
        ),
        ("nodes/host/compat.py", "from .. import inputs", "Node schemas stand on the host's rooms"),
        ("nodes/text.py", "import folder_paths", "Only the host's rooms import the host"),
        ("t2v_models/video/frame_rate.py", "from . import reader", "No circles, in no folder"),
        ("t2v_models/unheard_of.py", "", LIBRARY),
    ],
)
def test_an_arrow_back_breaks_the_contracts(pack: Path, file: str, line: str, broken: str) -> None:
    with (pack / file).open("a", encoding="utf-8") as code:
        code.write(f"\n{line}\n")
    done = check_imports(pack)
    assert done.returncode
    assert broken in {line.removesuffix(" BROKEN") for line in done.stdout.splitlines() if line.endswith(" BROKEN")}


def test_the_library_imports_nothing_heavy_before_it_is_needed() -> None:
    done = run("-c", IMPORT_ALL)
    demand(done)
    assert done.stdout.split() == []


@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=lambda command: command[0])
def test_ruff_finds_nothing(command: tuple[str, ...]) -> None:
    pytest.importorskip("ruff", reason="pip install ruff")
    demand(run("-m", "ruff", *command, "--quiet", "."))


@pytest.mark.slow
def test_mypy_finds_nothing() -> None:
    pytest.importorskip("mypy", reason="pip install mypy")
    demand(run("-m", "mypy"))
