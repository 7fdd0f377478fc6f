"""A running ComfyUI server, and a client for it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .hosts import Host


@dataclass
class Run:
    """The websocket's messages about one prompt."""

    prompt_id: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)
    error: dict[str, Any] | None = None
    seconds: float = 0.0

    def progress(self, node: str) -> list[int]:
        """Return the values of a node's progress bar."""
        return [m["data"]["value"] for m in self.messages if m["type"] == "progress" and m["data"].get("node") == node]


class Server:
    """A context that starts main.py, waits until it responds, and ends it."""

    def __init__(self, host: Host, base: Path, *options: str) -> None:
        self.host, self.base, self.options = host, base, options
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = base / f"server-{self.port}.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        command = [str(self.host.python), "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(self.port)]
        command += ["--base-directory", str(self.base), "--database-url", "sqlite:///:memory:"]
        command += ["--disable-api-nodes", "--preview-method", "latent2rgb", *self.options]
        environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=self.host.root, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        for _ in range(600):
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI {self.host.version} did not start:\n{self.log.read_text()[-4000:]}")
            try:
                self.get("/system_stats")
                return self
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.5)
        self.process.kill()
        raise RuntimeError(f"ComfyUI {self.host.version} did not answer:\n{self.log.read_text()[-4000:]}")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            body = response.read()
            return json.loads(body) if "json" in response.headers.get("Content-Type", "") else body

    def post(self, path: str, data: Any) -> tuple[int, Any]:
        """Return the status and the content of the response, for errors too."""
        request = urllib.request.Request(
            self.url + path, json.dumps(data).encode(), headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                body = response.read()
                return response.status, json.loads(body) if body else None
        except urllib.error.HTTPError as error:
            body = error.read()
            return error.code, json.loads(body) if body[:1] in (b"{", b"[") else body.decode()

    def run(
        self,
        prompt: dict[str, Any],
        workflow: dict[str, Any] | None = None,
        on_message: Callable[[dict[str, Any]], None] | None = None,
        timeout: float = 300,
    ) -> Run:
        """Queue an API prompt and wait until it succeeds, fails or is interrupted."""
        import websocket

        client = uuid.uuid4().hex
        connection = websocket.create_connection(f"ws://127.0.0.1:{self.port}/ws?clientId={client}", timeout=timeout)
        extra = {"extra_pnginfo": {"workflow": workflow}} if workflow else {}
        status, response = self.post("/prompt", {"prompt": prompt, "client_id": client, "extra_data": extra})
        if status != 200:
            raise AssertionError(f"refused: {response}")
        run, start = Run(response["prompt_id"]), time.monotonic()
        try:
            while True:
                message = connection.recv()
                if isinstance(message, bytes):
                    run.previews.append(message)
                    continue
                message = json.loads(message)
                if message["data"].get("prompt_id", run.prompt_id) != run.prompt_id:
                    continue
                run.messages.append(message)
                if on_message is not None:
                    on_message(message)
                if message["type"] in ("execution_error", "execution_interrupted"):
                    run.error = message["data"]
                if message["type"] in ("execution_success", "execution_error", "execution_interrupted"):
                    return run
        finally:
            run.seconds = time.monotonic() - start
            connection.close()

    def outputs(self, run: Run) -> dict[str, Any]:
        """Return the outputs of a prompt by node, from the history."""
        for _ in range(50):
            history = self.get(f"/history/{run.prompt_id}")
            if run.prompt_id in history:
                return history[run.prompt_id]["outputs"]
            time.sleep(0.1)
        raise AssertionError("the prompt is not in the history")

    def file(self, entry: dict[str, str]) -> bytes:
        """Return the content of an output file, as /view gives it."""
        query = urllib.parse.urlencode({key: entry[key] for key in ("filename", "subfolder", "type")})
        return self.get(f"/view?{query}")
