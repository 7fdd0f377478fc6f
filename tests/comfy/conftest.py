"""Every test here runs once per ComfyUI found, in processes of that ComfyUI's own Python."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..support.i2vgen_folder import write_with_expected
from ..support.model_folder import write_model_folder
from . import hosts
from .live import Server

FOUND = hosts.find()
IN_HOST = Path(__file__).with_name("in_host.py")
CHECKS = Path(__file__).with_name("checks")
PARITY = CHECKS / "parity.py"
"""What test_parity.py compares, which is not in test_in_process.py."""


@dataclass(frozen=True)
class Results:
    """What came of the checks that a host was asked for."""

    found: dict[str, dict[str, dict]]
    """By file and name."""
    ended: str
    """What the host said at its end."""

    def demand(self, file: Path, name: str) -> None:
        """Fail unless the check passed."""
        result = self.found.get(file.stem, {}).get(name)
        if result is None:
            pytest.fail(self.ended, pytrace=False)
        if not result["ok"]:
            pytest.fail(result["error"], pytrace=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in Path(item.fspath).parents:
            item.add_marker(pytest.mark.comfy)


@pytest.fixture(scope="session", params=FOUND or [None], ids=lambda host: host.version if host else "no-comfyui")
def host(request: pytest.FixtureRequest) -> hosts.Host:
    """One ComfyUI after the other."""
    if request.param is None:
        pytest.skip(hosts.why_none())
    return request.param


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models of random weights: one that predicts noise, one that predicts velocity."""
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("models")
    return {
        "tiny": write_model_folder(folder / "tiny"),
        "tiny-v": write_model_folder(folder / "tiny-v", prediction_type="v_prediction", seed=1),
    }


@pytest.fixture(scope="session")
def i2vgen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of I2VGen-XL, with what diffusers' pipeline makes with it."""
    pytest.importorskip("diffusers")
    return {"i2vgen": write_with_expected(tmp_path_factory.mktemp("models") / "i2vgen")}


@pytest.fixture(scope="session")
def base(
    host: hosts.Host, tiny: dict[str, Path], i2vgen: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The base directory of the host: models, inputs, outputs, this pack."""
    return host.base(tmp_path_factory.mktemp(f"base-{host.version}"), tiny | i2vgen)


@pytest.fixture(scope="session")
def run_checks(host: hosts.Host, base: Path) -> Callable[..., Results]:
    """Run all checks of files in the host, in one process. Later calls with these files get the same results."""
    done: dict[tuple[Path, ...], Results] = {}

    def run(*files: Path) -> Results:
        if files not in done:
            result = base / f"results-{len(done)}.json"
            command = [str(host.python), str(IN_HOST), str(host.root), str(base), str(result), *map(str, files)]
            environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
            process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1500)
            found = json.loads(result.read_text()) if result.exists() else {}
            said = process.stdout[-2000:] + process.stderr[-6000:]
            done[files] = Results(found, f"the host ended with {process.returncode} before this check:\n{said}")
        return done[files]

    return run


@pytest.fixture(scope="session")
def server(host: hosts.Host, base: Path, tiny: dict[str, Path]) -> Server:
    """The host as its users start it, on a free port, with models in folders of its own and elsewhere."""
    pytest.importorskip("websocket", reason="pip install websocket-client")
    with Server(host, base, "--extra-model-paths-config", str(elsewhere(base, tiny["tiny"]))) as running:
        yield running


def elsewhere(base: Path, model: Path) -> Path:
    """An extra_model_paths.yaml, and the models in the folders that it names."""
    for folder, name, source in (
        ("videos", "afar", model),
        ("unets", "afar.safetensors", model / "unet" / "diffusion_pytorch_model.safetensors"),
    ):
        (base / "elsewhere" / folder).mkdir(parents=True)
        hosts.link(source, base / "elsewhere" / folder / name)
    config = {"base_path": str(base / "elsewhere"), "text2video": "videos", "diffusion_models": "unets"}
    path = base / "extra_model_paths.yaml"
    path.write_text(json.dumps({"tests": config}), encoding="utf-8")  # JSON is YAML
    return path
