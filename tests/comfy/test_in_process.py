"""The checks of checks/, each a test per ComfyUI; all share one process, since a host takes long to begin."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import CHECKS, PARITY, Results

FILES = [path for path in sorted(CHECKS.glob("*.py")) if path != PARITY]
NAMES = [
    (path, node.name)
    for path in FILES
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "name"), NAMES, ids=[f"{path.stem}-{name[6:]}" for path, name in NAMES])
def test_in_the_host(run_checks: Callable[..., Results], path: Path, name: str) -> None:
    run_checks(*FILES).demand(path, name)
