"""The video nodes in the graph editor, in a real browser: a saved file, dropped on the canvas, restores the graph."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from t2v_models.video import VideoReader, VideoWriter

from ..support.video_clips import natural

pytestmark = pytest.mark.slow

TITLE = 'br{ace }}{ "quoted" 漢字 😀 \\'
CASES = {
    "h264-mp4": "video/mp4",
    "h265-10bit-mp4": "video/mp4",
    "vp9-webm": "video/webm",
    "av1-webm": "video/webm",
    "prores-mov": "video/quicktime",
    "webp": "image/webp",
    "png": "image/png",
    "png-16bit": "image/png",
    "gif": "image/png",  # the PNG beside it
    "ffv1-mkv": "image/png",
}
BUILD = """
([format, title]) => {
    app.graph.clear();
    const image = LiteGraph.createNode("EmptyImage"), save = LiteGraph.createNode("T2VSaveVideo");
    app.graph.add(image); app.graph.add(save);
    const set = (node, values) => Object.entries(values).forEach(([name, value]) => {
        node.widgets.find(widget => widget.name === name).value = value;
    });
    set(image, {width: 64, height: 48, batch_size: 3, color: 8421504});
    set(save, {format, fps: 23.976, filename_prefix: "browser/" + format});
    save.title = title;
    image.connect(0, save, save.inputs.findIndex(input => input.name === "images"));
}
"""
READ = """
() => app.graph._nodes.map(node => ({
    type: node.type, title: node.title, values: Object.fromEntries((node.widgets || []).map(w => [w.name, w.value])),
    links: (node.inputs || []).filter(input => input.link != null).map(input => input.name),
})).sort((a, b) => a.type < b.type ? -1 : 1)
"""
DROP = """
async ([url, name, type]) => {
    const bytes = await (await fetch(url)).arrayBuffer(), transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, {type}));
    const target = document.querySelector("#graph-canvas") || document.querySelector("canvas");
    target.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
}
"""


@pytest.fixture(scope="module")
def page(server) -> Iterator:
    """The graph editor, loaded."""
    sync_api = pytest.importorskip("playwright.sync_api")
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(server.url, wait_until="commit", timeout=120_000)
        page.wait_for_function(
            "() => window.app?.graph && app.extensionManager && !app.extensionManager.spinner", timeout=120_000
        )
        page.wait_for_function("() => !!LiteGraph.registered_node_types.T2VSaveVideo", timeout=60_000)
        page.keyboard.press("Escape")  # a dialog that offers templates
        yield page
        browser.close()


def run(page, server) -> list[dict]:
    """Queue what is on the canvas; the files that the save node stored."""
    before = set(server.get("/history"))
    page.evaluate("() => app.queuePrompt(0, 1)")
    for _ in range(600):
        page.wait_for_timeout(100)
        history = server.get("/history")
        done = [history[key] for key in set(history) - before if history[key]["status"].get("completed") is not None]
        if done:
            assert done[0]["status"]["status_str"] == "success", done[0]["status"]
            return [file for output in done[0]["outputs"].values() for file in output.get("t2v_files", [])]
    raise AssertionError("the prompt has not ended")


@pytest.mark.parametrize("name", CASES)
def test_a_dropped_file_restores_the_graph(page, server, name):
    page.evaluate(BUILD, [name, TITLE])
    before = page.evaluate(READ)
    (file,) = run(page, server)
    clip = server.base / "output" / file["subfolder"] / file["filename"]
    assert VideoReader(clip.parent if clip.suffix == ".png" else clip).info.frame_count == 3
    dropped = clip if CASES[name] != "image/png" else clip.with_suffix(".png")
    assert dropped.exists()
    page.evaluate("() => app.graph.clear()")
    assert page.evaluate(READ) == []
    url = f"/view?filename={dropped.name}&subfolder={file['subfolder']}&type=output"
    page.evaluate(DROP, [url, dropped.name, CASES[name]])
    page.wait_for_function("() => app.graph._nodes.length === 2", timeout=20_000)
    assert page.evaluate(READ) == before


@pytest.mark.parametrize("name", ["h264-mp4", "gif", "prores-mov", "png"])
def test_the_node_shows_the_clip_moving(page, server, name):
    page.evaluate(BUILD, [name, TITLE])
    run(page, server)
    playing = "() => [...document.querySelectorAll('video')].some(v => v.videoWidth === 64 && v.readyState >= 2)"
    page.wait_for_function(playing, timeout=20_000)


def test_an_uploaded_clip_is_chosen_and_loaded(page, server, tmp_path):
    path = tmp_path / f"upload {os.getpid()} ü.webm"
    with VideoWriter(path, 10) as video:
        for frame in natural(5, 32, 48):
            video.write(frame)
    page.evaluate(
        """() => {
            app.graph.clear();
            const load = LiteGraph.createNode("T2VLoadVideo"), save = LiteGraph.createNode("T2VSaveVideo");
            app.graph.add(load); app.graph.add(save);
            load.connect(0, save, save.inputs.findIndex(input => input.name === "images"));
        }"""
    )
    button = "app.graph._nodes[0].widgets.find(w => w.type === 'button' || w.name === 'upload')"
    with page.expect_file_chooser() as chooser:
        page.evaluate(f"() => {{ {button}.callback(); }}")
    chooser.value.set_files(path)
    chosen = "app.graph._nodes[0].widgets.find(w => w.name === 'video').value"
    page.wait_for_function(f"() => String({chosen}).includes('upload')", timeout=20_000)
    (file,) = run(page, server)
    clip = Path(server.base) / "output" / file["subfolder"] / file["filename"]
    assert VideoReader(clip).info.frame_count == 5
    assert VideoReader(clip).size == (48, 32)
