"""The graph editor in a real browser: templates open, run and play; nodes are found, placed and wired by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from .hosts import PACK

pytestmark = pytest.mark.slow

TEMPLATES = sorted(path.stem for path in (PACK / "workflows" / "api").glob("*.json"))
READY = "() => window.app?.graph && app.extensionManager && !app.extensionManager.spinner"


@pytest.fixture(scope="module")
def page(server) -> Iterator[Any]:
    """The editor, loaded."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(120_000)
        page.goto(server.url, wait_until="commit", timeout=180_000)
        page.wait_for_function(READY, timeout=180_000)
        page.wait_for_function("() => !!LiteGraph.registered_node_types.T2VModelLoader")
        page.keyboard.press("Escape")
        yield page
        browser.close()


def load(page, workflow: dict) -> None:
    page.evaluate("async (workflow) => { await app.loadGraphData(workflow); }", workflow)
    page.wait_for_timeout(500)


def template(server, name: str) -> dict:
    return server.get(f"/api/workflow_templates/t2v-nodes/{name}.json")


def test_every_template_is_offered_with_its_thumbnail(server):
    offered = server.get("/workflow_templates")["t2v-nodes"]
    assert set(TEMPLATES) <= set(offered)
    for name in TEMPLATES:
        assert server.get(f"/api/workflow_templates/t2v-nodes/{name}.jpg")[:2] == b"\xff\xd8", name


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_opens_whole_and_becomes_its_api_form(server, page, name):
    load(page, template(server, name))
    missing = page.evaluate("() => app.graph._nodes.filter(n => n.has_errors || n.constructor.nodeData === undefined "
    "&& !['Note', 'MarkdownNote'].includes(n.type)).map(n => n.type)")  # fmt: skip
    assert missing == []
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    wanted = json.loads((PACK / "workflows" / "api" / f"{name}.json").read_text())
    assert prompt.keys() == wanted.keys()
    for key, node in wanted.items():
        assert prompt[key]["class_type"] == node["class_type"]
        given = prompt[key]["inputs"]
        assert {field: given.get(field) for field in node["inputs"]} == node["inputs"], (key, given)
    choices = page.evaluate(
        """() => app.graph._nodes.flatMap(n => (n.widgets || []).filter(w => Array.isArray(w.options?.values)
            && !w.options.values.includes(w.value)).map(w => n.type + "." + w.name + "=" + w.value))"""
    )
    assert choices == []


def run(page, steps: int = 2) -> None:
    """Shorten the graph, press Run, and wait until the queue is empty."""
    page.evaluate(
        """async (steps) => {
            for (const node of app.graph._nodes) for (const widget of node.widgets || [])
                if (widget.name === "steps") widget.value = steps;
                else if (widget.name === "seed") widget.value = Math.floor(Math.random() * 1e9);
            window.t2vDone = null;
            app.api.addEventListener("execution_success", () => { window.t2vDone = "done"; }, {once: true});
            const failed = e => { window.t2vDone = e.detail.exception_message; };
            app.api.addEventListener("execution_error", failed, {once: true});
            await app.queuePrompt(0, 1);
        }""",
        steps,
    )
    page.wait_for_function("() => window.t2vDone", timeout=300_000)
    assert page.evaluate("() => window.t2vDone") == "done"


def plays(page) -> None:
    """Bring the whole graph into view, and wait until a video in it has moved on."""
    page.evaluate(
        "() => { app.canvas.ds.scale = 0.5; app.canvas.ds.offset = [40, 200]; app.graph.setDirtyCanvas(true, true); }"
    )
    page.wait_for_function("() => [...document.querySelectorAll('video')].some(v => v.readyState >= 2)")
    page.evaluate("() => document.querySelectorAll('video').forEach(v => { v.muted = true; v.play(); })")
    page.wait_for_function("() => [...document.querySelectorAll('video')].some(v => v.currentTime > 0 && v.videoWidth)")


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_runs_and_its_video_plays(server, page, name):
    load(page, template(server, name))
    run(page)
    plays(page)


def search_and_add(page, text: str) -> None:
    """Double-click on the empty canvas, type, take the first hit."""
    box = page.locator("#graph-canvas").bounding_box()
    page.mouse.dblclick(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.3)
    page.wait_for_timeout(800)
    page.keyboard.type(text, delay=20)
    page.wait_for_timeout(1500)
    page.keyboard.press("Enter")
    page.wait_for_timeout(500)
    page.mouse.click(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.3)  # newer editors drop it here
    page.wait_for_timeout(500)


def test_a_node_is_found_by_the_search_and_wired_with_the_mouse(page):
    page.evaluate(
        """() => { app.graph.clear(); const n = LiteGraph.createNode("T2VModelLoader"); app.graph.add(n);
            n.pos = [100, 150]; app.canvas.ds.scale = 1; app.canvas.ds.offset = [0, 0]; }"""
    )
    page.wait_for_timeout(300)
    search_and_add(page, "T2V Text Encode")
    types = page.evaluate("() => app.graph._nodes.map(n => n.type)")
    assert "T2VTextEncode" in types, types
    start, end = page.evaluate(
        """() => {
            const [loader, text] = ["T2VModelLoader", "T2VTextEncode"].map(t => app.graph._nodes.find(n => n.type === t));
            text.pos = [700, 150];
            const rect = app.canvas.canvas.getBoundingClientRect();
            const at = (node, input, slot) => { const p = node.getConnectionPos(input, slot);
                return [rect.left + p[0], rect.top + p[1]]; };
            return [at(loader, false, 1), at(text, true, text.inputs.findIndex(i => i.name === "clip"))];
        }"""
    )
    page.wait_for_timeout(300)
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, steps=5)
    page.mouse.move(*end, steps=5)
    page.mouse.up()
    page.wait_for_timeout(300)
    linked = page.evaluate(
        """() => app.graph._nodes.find(n => n.type === "T2VTextEncode").inputs.find(i => i.name === "clip").link"""
    )
    assert linked is not None


def test_the_vue_renderer_shows_and_runs_the_nodes(server, page):
    version = server.get("/system_stats")["system"]["comfyui_version"]
    if tuple(int(part) for part in version.split(".")[:2]) < (0, 24):
        pytest.skip("this editor's Vue node renderer is an early preview")
    page.evaluate("() => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")
    try:
        load(page, template(server, "text_to_video"))
        page.wait_for_selector("[data-node-id]", timeout=30_000)
        assert page.locator("[data-node-id]", has_text="T2V Model Loader").count() >= 1
        run(page)
        page.wait_for_function("() => [...document.querySelectorAll('video')].some(v => v.readyState >= 2)")
    finally:
        page.evaluate("() => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")
