"""Tests of videos run over both engines: the ffmpeg program, and as slow tests over its libraries in this process."""

from collections.abc import Iterator

import pytest

from t2v_models.video import engines


@pytest.fixture(scope="module", autouse=True, params=["ffmpeg", pytest.param("pyav", marks=pytest.mark.slow)])
def every_engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The engine in use, of every test in a module that imports this fixture."""
    pytest.importorskip("imageio_ffmpeg" if request.param == "ffmpeg" else "av")
    engines.use(request.param)
    yield request.param
    engines.use(None)


@pytest.fixture
def program_only(every_engine: str) -> None:
    """Of a test about processes."""
    if every_engine != "ffmpeg":
        pytest.skip("about the ffmpeg program")
