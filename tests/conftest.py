"""Two test processes side by side (`-n 2`) get a core each, and the files that take longest first.

Every test draws the same random numbers whichever tests ran before it; T2V_TEST_SEED=1 draws others.
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
"""Half a minute or more each. Begun last, one of them would be waited for with one process idle."""

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config.option, "loadscopereorder"):  # of pytest-xdist: the files with the most tests first
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: SLOWEST.index(item.path.name) if item.path.name in SLOWEST else len(SLOWEST))


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    if torch := sys.modules.get("torch"):
        torch.manual_seed(int(os.environ.get("T2V_TEST_SEED", "0")))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.name == "nt" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)
