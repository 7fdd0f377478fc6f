"""Writes workflows/: `template_graphs` in API format, and as the editor saves them, with thumbnails of their videos.

    python -m tests.comfy.write_workflows URL_OF_A_RUNNING_COMFYUI [NAME …]
    python -m tests.comfy.write_workflows --thumbnails URL_OF_A_RUNNING_COMFYUI [NAME …]

The editor itself makes the files (its own import, its own serialisation), so that they are as a user would save them.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from t2v_models.video import VideoReader

from .template_graphs import GRAPHS, MODELS, THUMBNAILS, Nodes

FOLDER = Path(__file__).resolve().parents[2] / "workflows"


def api(nodes: Nodes) -> dict[str, Any]:
    """The API format."""
    out = {}
    for key, (class_type, inputs, _, title) in nodes.items():
        links = {name: list(value) if isinstance(value, tuple) else value for name, value in inputs.items()}
        out[key] = {"inputs": links, "class_type": class_type, "_meta": {"title": title or class_type}}
    return out


ARRANGE = """
([prompt, places, note, source, models]) => {
    app.loadApiJson(prompt, "workflow");
    for (const node of app.graph._nodes) {
        const [x, y, title] = places[node.id];
        node.pos = [x, y];
        const size = node.computeSize();
        const text = node.widgets?.some(w => w.type === "customtext" || w.name === "text");
        node.size = text ? [400, 180] : [Math.max(size[0], 320), size[1]];
        node.title = title || node.constructor.title;
        const resumes = node.widgets?.some(w => w.name === "resume" && w.value);
        const control = node.widgets?.find(w => w.name === "control_after_generate");
        if (resumes && control) control.value = "fixed";  // another seed would be another film
        const files = (node.widgets || []).map(w => models[w.value]).filter(Boolean);
        if (files.length) node.properties.models = files;  // the editor offers to download them
        if (node.type.startsWith("T2V")) node.properties = {...source, ...node.properties};
    }
    const sheet = LiteGraph.createNode("MarkdownNote");
    if (sheet) {
        app.graph.add(sheet);
        const height = note.replace(/\\]\\([^)]*\\)/g, "]").length > 330 ? 170 : 110;  // without the addresses of links
        sheet.pos = [20, 50 - height]; sheet.size = [700, height];
        sheet.widgets[0].value = note;
    }
    const saved = app.graph.serialize();
    delete saved.extra?.ds;
    return saved;
}
"""


def source() -> dict[str, str]:
    """The pack's name and version, as pyproject.toml has them; the editor names the pack of nodes that it lacks."""
    text = (FOLDER.parent / "pyproject.toml").read_text("utf-8")
    return {key: text.split(f'\n{name} = "')[1].split('"')[0] for key, name in (("cnr_id", "name"), ("ver", "version"))}


def clean(value: Any) -> Any:
    """Without the nulls that the way out of the browser makes of what is undefined."""
    if isinstance(value, dict):
        return {key: clean(each) for key, each in value.items() if each is not None or key in ("link", "links")}
    return [clean(each) for each in value] if isinstance(value, list) else value


def open_editor(playwright: Any, url: str) -> Any:
    """A page with the editor loaded."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.goto(url, wait_until="commit", timeout=180_000)
    page.wait_for_function(
        "() => window.app?.graph && app.extensionManager && !app.extensionManager.spinner", timeout=180_000
    )
    page.wait_for_function("() => !!LiteGraph.registered_node_types.T2VModelLoader", timeout=60_000)
    page.keyboard.press("Escape")
    return page


def write(url: str, names: list[str]) -> None:
    """All files but the thumbnails."""
    from playwright.sync_api import sync_playwright

    (FOLDER / "api").mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        page = open_editor(playwright, url)
        for name in names or GRAPHS:
            nodes, note = GRAPHS[name]
            prompt = api(nodes)
            (FOLDER / "api" / f"{name}.json").write_text(json.dumps(prompt, indent=2) + "\n")
            places = {key: [*position, title] for key, (_, _, position, title) in nodes.items()}
            saved = clean(page.evaluate(ARRANGE, [prompt, places, note, source(), MODELS]))
            (FOLDER / f"{name}.json").write_text(json.dumps(saved, indent=1) + "\n")


def thumbnails(url: str, names: list[str]) -> None:
    """Run the graphs in API format; four frames of each one's last video become its thumbnail."""
    for name in names or sorted(path.stem for path in (FOLDER / "api").glob("*.json")):
        prompt = json.loads((FOLDER / "api" / f"{name}.json").read_text())
        if name in THUMBNAILS:  # this template wants files
            prompt = {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in THUMBNAILS[name].items()}
        for node in prompt.values():  # four frames show a film of a minute as well as one of an hour
            if isinstance(node["inputs"].get("frames"), int):
                node["inputs"]["frames"] = min(node["inputs"]["frames"], 128)
        body = json.dumps({"prompt": prompt}).encode()
        request = urllib.request.Request(f"{url}/prompt", body, {"Content-Type": "application/json"})
        queued = json.load(urllib.request.urlopen(request))["prompt_id"]
        while not (history := json.load(urllib.request.urlopen(f"{url}/history/{queued}"))):
            time.sleep(1)
        outputs = history[queued]["outputs"]
        if not outputs:
            raise RuntimeError(f"{name}: {history[queued]['status']['messages'][-1]}")
        entry = outputs[max(outputs, key=int)]["images"][0]
        query = urllib.parse.urlencode({key: entry[key] for key in ("filename", "subfolder", "type")})
        with tempfile.NamedTemporaryFile(suffix=Path(entry["filename"]).suffix) as file:
            file.write(urllib.request.urlopen(f"{url}/view?{query}").read())
            file.flush()
            frames = list(VideoReader(file.name))
        sheet(frames).save(FOLDER / f"{name}.jpg", quality=85)


def sheet(frames: list[Any], side: int = 256) -> Any:
    """Four frames, two by two. frames: each (h, w, 3), uint8."""
    from PIL import Image

    out = Image.new("RGB", (2 * side, 2 * side))
    for i in range(4):
        image = Image.fromarray(frames[round(i * (len(frames) - 1) / 3)])
        out.paste(image.resize((side, side), Image.Resampling.BICUBIC), (i % 2 * side, i // 2 * side))
    return out


if __name__ == "__main__":
    if sys.argv[1] == "--thumbnails":
        thumbnails(sys.argv[2], sys.argv[3:])
    else:
        write(sys.argv[1], sys.argv[2:])
