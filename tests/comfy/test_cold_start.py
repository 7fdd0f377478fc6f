"""From nothing to a file: how long the first video takes."""

from __future__ import annotations

import json
import logging
import time

import pytest

from .hosts import PACK
from .live import Server

pytestmark = pytest.mark.slow
LIMIT = 180


def test_a_freshly_started_host_makes_the_first_video_within_three_minutes(host, tmp_path, record_property):
    """Timed from the start of the process, without any warm-up but the system's cache of files."""
    pytest.importorskip("websocket", reason="pip install websocket-client")
    prompt = json.loads((PACK / "workflows" / "api" / "text_to_video.json").read_text())
    base, start = host.base(tmp_path, {}), time.monotonic()
    with Server(host, base) as server:
        answered = time.monotonic() - start
        run = server.run(prompt, timeout=LIMIT)
        finished = time.monotonic() - start
        assert run.error is None, run.error
        files = [entry for node in server.outputs(run).values() for entry in node.get("images", [])]
        (video,) = (server.file(entry) for entry in files)
    assert video[4:8] == b"ftyp"
    for name, seconds in {"seconds_to_answer": answered, "seconds_to_file": finished}.items():
        record_property(name, round(seconds, 1))
    logging.getLogger(__name__).info(
        "ComfyUI %s answers after %.1f s, the file is there after %.1f s", host.version, answered, finished
    )
    assert finished < LIMIT
