"""Run a benchmark's check in every ComfyUI that the tests find, on one thread."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def results(file: str, check: str) -> Iterator[tuple[str, Any]]:
    """Yield each host's version and what a check of a file returned there. SystemExit where it failed."""
    sys.path.insert(0, str(ROOT))
    from tests.comfy import hosts

    for host in hosts.find():
        with tempfile.TemporaryDirectory() as folder:
            base, result = Path(folder) / "base", Path(folder) / "result.json"
            base.mkdir()
            host.base(base, {})
            command = [host.python, ROOT / "tests/comfy/in_host.py", host.root, base, result, file]
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            found = json.loads(result.read_text())[Path(file).stem][check]
            if not found["ok"]:
                raise SystemExit(found["error"])
            yield host.version, found["value"]
