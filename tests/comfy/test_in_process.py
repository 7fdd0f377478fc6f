"""The checks of checks/, each a test per ComfyUI; all checks of a file share one process."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parent / "checks").glob("*.py"))
NAMES = [
    (path, node.name)
    for path in FILES
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "name"), NAMES, ids=[f"{path.stem}-{name[6:]}" for path, name in NAMES])
def test_in_the_host(run_checks: Callable[[Path], dict], path: Path, name: str) -> None:
    results = run_checks(path)
    if name not in results:
        pytest.fail(f"the host ended before this check:\n{results['']['error']}", pytrace=False)
    if not results[name]["ok"]:
        pytest.fail(results[name]["error"], pytrace=False)
