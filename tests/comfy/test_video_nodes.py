"""T2VSaveVideo and T2VLoadVideo in every ComfyUI that is found, one process a host."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path

import pytest

from . import hosts, tiny_model

HERE = Path(__file__).parent
CHECKS = HERE / "checks" / "video.py"
NAMES = [
    node.name
    for node in ast.parse(CHECKS.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
]
HOSTS = hosts.find()

pytestmark = [pytest.mark.comfy, pytest.mark.slow, pytest.mark.skipif(not HOSTS, reason=hosts.why_none())]


@pytest.fixture(scope="module", params=HOSTS, ids=lambda host: host.version)
def results(request, tmp_path_factory):
    """check name -> its outcome in this host."""
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("host")
    model = tiny_model.build(folder / "tiny")
    base, result = request.param.base(folder / "base", {"tiny": model}), folder / "result.json"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [request.param.python, HERE / "in_host.py", request.param.root, base, CHECKS, result],
        env=environment, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert result.exists(), done.stderr[-3000:]
    return json.loads(result.read_text())


@pytest.mark.parametrize("name", NAMES)
def test_in_the_host(results, name):
    assert name in results, "the process ended before this check"
    assert results[name]["ok"], results[name].get("error")
