"""What the registry's package holds: the parts that a user needs, and no call that the registry's scan flags."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PARTS = {
    "CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "__init__.py", "docs", "locales", "nodes",
    "pyproject.toml", "requirements.txt", "t2v_models", "web", "workflows",
}  # fmt: skip

FLAGGED_MODULES = {
    "subprocess",
    "pickle",
    "cPickle",
    "dill",
    "marshal",
    "shelve",
    "ctypes",
    "pty",
    "socket",
    "requests",
}
FLAGGED_CALLS = {"eval", "exec", "compile", "__import__"}
FLAGGED_NAMES = {
    "os.system", "os.popen", "os.environ", "os.environb", "os.getenv", "os.putenv", "os.execv", "os.spawnv",
    "torch.load", "torch.hub", "pickle.loads", "pickle.load",
}  # fmt: skip


def git(*arguments: str) -> set[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True, text=True, encoding="utf-8")
    return set(done.stdout.splitlines())


@pytest.fixture(scope="module")
def shipped() -> list[str]:
    """The files of the package, as comfy-cli packs them: those that git lists, less those that .comfyignore matches."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs git and a clone")
    return sorted(git("ls-files") - git("ls-files", "--cached", "--ignored", "--exclude-from=.comfyignore"))


@pytest.fixture(scope="module")
def code(shipped: list[str]) -> dict[str, ast.Module]:
    return {name: ast.parse((ROOT / name).read_bytes()) for name in shipped if name.endswith(".py")}


def imported(tree: ast.Module) -> set[str]:
    """The first names of all modules that a file imports, and of what it imports from them."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found |= {node.module.split(".")[0]}
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def used(tree: ast.Module) -> set[str]:
    """The built-in functions that a file calls, and the attributes of modules that it names ("os.environ")."""
    calls = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    return calls | {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)} | imported(tree)


def test_the_package_holds_these_parts(shipped: list[str]) -> None:
    assert {name.split("/")[0] for name in shipped} == PARTS
    left_out = ("t2v_models/evaluation", "t2v_models/shapes", "t2v_models/training", "t2v_models/video/ffmpeg/")
    assert [name for name in shipped if name.startswith(left_out)] == []


def test_the_package_is_small(shipped: list[str]) -> None:
    assert sum((ROOT / name).stat().st_size for name in shipped) < 23_000_000  # two models of 11 and 9 MB
    assert len(shipped) < 360


def test_no_shipped_code_uses_what_the_scan_flags(code: dict[str, ast.Module]) -> None:
    flagged = FLAGGED_CALLS | FLAGGED_NAMES | FLAGGED_MODULES
    assert {name: found for name, tree in code.items() if (found := used(tree) & flagged)} == {}


@pytest.mark.parametrize(
    "line",
    [
        "eval('1')",
        "import os\nos.environ['A']",
        "from os import environ",
        "import pickle",
        "import os\nos.system('ls')",
        "import subprocess",
        "from subprocess import run",
    ],
)
def test_the_search_finds_each_kind_of_flagged_code(line: str) -> None:
    found = used(ast.parse(line)) | {f"os.{name}" for name in imported(ast.parse(line))}
    assert found & (FLAGGED_CALLS | FLAGGED_NAMES | FLAGGED_MODULES)


def test_the_package_holds_no_binary_but_pictures_and_safetensors(shipped: list[str]) -> None:
    text = {"", ".py", ".md", ".json", ".toml", ".txt", ".typed", ".svg"}
    others = {Path(name).suffix for name in shipped} - text
    assert others <= {".png", ".jpg", ".gif", ".webp", ".safetensors"}


def test_every_shipped_line_of_code_is_in_windows_code_page(code: dict[str, ast.Module]) -> None:
    """comfy-test's lint asks for this; other characters are written as escapes."""
    wrong = {
        name: set((ROOT / name).read_text("utf-8")) - set(bytes(range(256)).decode("cp1252", "ignore")) for name in code
    }
    assert {name: characters for name, characters in wrong.items() if characters} == {}


def test_the_registry_reads_the_dependencies_that_pip_reads() -> None:
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [line for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines() if line]
    assert project["dependencies"] == wanted
    assert "dynamic" not in project


@pytest.fixture(scope="module")
def package(shipped: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package."""
    folder = tmp_path_factory.mktemp("package")
    for name in shipped:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def run(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=package, capture_output=True, text=True, check=False)


def test_every_module_of_the_package_imports_without_the_parts_that_are_left_out(package: Path) -> None:
    modules = sorted(
        ".".join(path.relative_to(package).with_suffix("").parts)
        for path in (package / "t2v_models").rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    )
    done = run(package, "-c", f"import importlib\nfor name in {modules}: importlib.import_module(name)")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["evaluate", "train-builtin"])
def test_a_command_that_is_not_in_the_package_says_where_it_is(package: Path, command: str) -> None:
    done = run(package, "-m", "t2v_models", command)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "comes with the pack's repository" in done.stderr


@pytest.mark.slow
def test_the_package_makes_a_video(package: Path, tmp_path: Path) -> None:
    video = tmp_path / "circle.mp4"
    prompt = "a red circle moves right"
    done = run(package, "-m", "t2v_models", "generate", prompt, "--frames=2", "--steps=1", f"--output={video}")
    assert done.returncode == 0, done.stderr
    assert video.stat().st_size > 500


def test_templates_name_the_pack_for_each_of_its_nodes() -> None:
    """The convention of ComfyUI's own templates; an editor without the pack then offers to install it."""
    for path in (ROOT / "workflows").glob("*.json"):
        for node in json.loads(path.read_text("utf-8"))["nodes"]:
            ours = node["type"].startswith("T2V")
            assert (node["properties"].get("cnr_id") == "t2v-nodes") == ours, (path.name, node["type"])
            assert not ours or re.fullmatch(r"\d+\.\d+\.\d+", node["properties"]["ver"])
