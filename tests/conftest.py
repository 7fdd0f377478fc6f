"""Settings of all tests.

Of two processes side by side (`-n 2`), each uses one core, and the slowest files run first. Every test starts with the same
random seed, whichever tests ran before it; T2V_TEST_SEED=1 sets another.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SLOWEST = (
    "test_in_process.py",
    "test_builtin.py",
    "test_training.py",
    "test_builtin_films.py",
    "test_killed_films.py",
    "test_server.py",
    "test_editor.py",
    "test_film.py",
    "test_video_faults.py",
)
"""Files of half a minute or more. If one ran last, the other process would be idle."""

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(
        config.option, "loadscopereorder"
    ):  # an option of pytest-xdist, which would sort the files by their number of tests
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: SLOWEST.index(item.path.name) if item.path.name in SLOWEST else len(SLOWEST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Skip what an older ffmpeg cannot do and says so."""
    try:
        return (yield)
    except Exception as error:
        if "This ffmpeg cannot read animated WebP" in str(error):
            pytest.skip("this ffmpeg cannot read animated WebP")
        raise


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    if torch := sys.modules.get("torch"):
        torch.manual_seed(int(os.environ.get("T2V_TEST_SEED", "0")))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with 2 MiB of space."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.name == "nt" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture(scope="session")
def image_models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny image models of diffusers': sd, sdxl, and a ControlNet for sd, sd-controlnet-canny."""
    from .support import image_pipelines

    folder = tmp_path_factory.mktemp("image-models")
    pipe = image_pipelines.stable_diffusion()
    image_pipelines.saved(pipe, folder / "sd")
    image_pipelines.saved(image_pipelines.stable_diffusion_xl(), folder / "sdxl")
    image_pipelines.saved(image_pipelines.controlnet(pipe.unet), folder / "sd-controlnet-canny")
    return folder
