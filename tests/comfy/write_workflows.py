"""Writes workflows/: the graphs below in API format, and as the editor saves them, with thumbnails of their videos.

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

FOLDER = Path(__file__).resolve().parents[2] / "workflows"
SAMPLER = {"seed": 1, "steps": 20, "cfg": 4.0, "sampler_name": "ddim", "scheduler": "diffusers", "denoise": 1.0}
CORE_SAMPLER = {"seed": 1, "steps": 20, "cfg": 4.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
SAVE = {
    "fps": 8.0,
    "format": "h264-mp4",
    "quality": 80,
    "loop_count": 0,
    "pingpong": False,
    "save_output": True,
}
CORE_SAVE = {"format": "auto", "codec": "auto"}

Nodes = dict[str, tuple[str, dict[str, Any], tuple[int, int], str]]
"""Id -> class, inputs (a link is (id, slot)), position, title."""


def _base(prompt: str, text_node: str = "T2VTextEncode") -> Nodes:
    return {
        "1": ("T2VModelLoader", {"model": "built-in", "weight_dtype": "default"}, (20, 180), ""),
        "2": (text_node, {"clip": ("1", 1), "text": prompt}, (400, 80), "What the video shows"),
        "3": (text_node, {"clip": ("1", 1), "text": ""}, (400, 320), "What it must not show"),
        "4": (
            "T2VEmptyLatent",
            {"width": 0, "height": 0, "frames": 0, "batch_size": 1, "model": ("1", 0)},
            (400, 560),
            "",
        ),
    }


def _sampler(latent: str, **changes: Any) -> dict[str, Any]:
    return {"model": ("1", 0), "positive": ("2", 0), "negative": ("3", 0), "latent": (latent, 0), **SAMPLER, **changes}


GRAPHS: dict[str, tuple[Nodes, str]] = {
    "text_to_video": (
        {
            **_base("a red circle moves right"),
            "5": ("T2VVideoSampler", _sampler("4"), (840, 180), ""),
            "6": ("T2VVAEDecodeFrames", {"latent": ("5", 0), "vae": ("1", 2)}, (1240, 80), ""),
            "7": ("T2VSaveVideo", {**SAVE, "filename_prefix": "video/T2V", "images": ("6", 0)}, (1240, 200), ""),
        },
        "**Text to video.** The built-in model knows coloured circles, squares, triangles and stars that move: try "
        "`a yellow star moves up on a blue background`. Other models: put them into `models/text2video` and choose one "
        "in T2V Model Loader.",
    ),
    "text_to_video_core_nodes": (
        {
            **_base("a blue square moves up", "CLIPTextEncode"),
            "5": (
                "KSampler",
                {
                    "model": ("1", 0),
                    "positive": ("2", 0),
                    "negative": ("3", 0),
                    "latent_image": ("4", 0),
                    **CORE_SAMPLER,
                },
                (840, 180),
                "",
            ),
            "6": ("VAEDecode", {"samples": ("5", 0), "vae": ("1", 2)}, (1240, 80), ""),
            "7": ("CreateVideo", {"images": ("6", 0), "fps": 8.0}, (1240, 180), ""),
            "8": (
                "SaveVideo",
                {"video": ("7", 0), "filename_prefix": "video/T2V-core", **CORE_SAVE},
                (1240, 320),
                "",
            ),
        },
        "**The same with ComfyUI's own nodes.** MODEL, CLIP and VAE are the usual ones: KSampler, LoRA and patch nodes "
        "work with them.",
    ),
    "video_to_video": (
        {
            **_base("a red circle moves right"),
            "5": ("T2VVideoSampler", _sampler("4"), (840, 180), "The first video"),
            "6": ("T2VVAEDecodeFrames", {"latent": ("5", 0), "vae": ("1", 2)}, (1240, 80), ""),
            "7": (
                "T2VVAEEncodeFrames",
                {"images": ("6", 0), "vae": ("1", 2), "width": 0, "height": 0},
                (1240, 200),
                "Any frames can come in here",
            ),
            "8": (
                "T2VTextEncode",
                {"clip": ("1", 1), "text": "a green square moves right"},
                (1240, 400),
                "What to make of it",
            ),
            "9": (
                "T2VVideoSampler",
                {**_sampler("7", seed=2, steps=14, denoise=0.7), "positive": ("8", 0)},
                (1680, 180),
                "The second video",
            ),
            "10": ("T2VVAEDecodeFrames", {"latent": ("9", 0), "vae": ("1", 2)}, (2080, 80), ""),
            "11": (
                "T2VSaveVideo",
                {**SAVE, "filename_prefix": "video/T2V-changed", "images": ("10", 0)},
                (2080, 200),
                "",
            ),
        },
        "**Video to video.** The frames of one video are encoded and partly replaced: denoise says how much. Use "
        "T2V Load Video instead of the first sampler for a video of your own.",
    ),
    "two_passes": (
        {
            **_base("a white star moves down on a red background"),
            "5": ("T2VVideoSampler", _sampler("4"), (840, 180), "Small"),
            "6": ("T2VVAEDecodeFrames", {"latent": ("5", 0), "vae": ("1", 2)}, (1240, 80), ""),
            "7": (
                "ImageScaleBy",
                {"image": ("6", 0), "upscale_method": "bicubic", "scale_by": 1.5},
                (1240, 200),
                "Upscale",
            ),
            "8": (
                "T2VVAEEncodeFrames",
                {"images": ("7", 0), "vae": ("1", 2), "width": 0, "height": 0},
                (1240, 360),
                "",
            ),
            "9": ("T2VVideoSampler", _sampler("8", seed=2, steps=6, denoise=0.3), (1680, 180), "Refine"),
            "10": ("T2VVAEDecodeFrames", {"latent": ("9", 0), "vae": ("1", 2)}, (2080, 80), ""),
            "11": (
                "T2VSaveVideo",
                {**SAVE, "filename_prefix": "video/T2V-large", "images": ("10", 0)},
                (2080, 200),
                "",
            ),
        },
        "**Two passes.** A small video is upscaled and refined, as ZeroScope 576w and XL are meant: load XL in a "
        "second T2V Model Loader for the second sampler, upscale 576x320 to 1024x576, denoise 0.6 to 0.85.",
    ),
    "image_chain": (
        {
            **_base("a yellow triangle moves left"),
            "5": ("T2VVideoSampler", _sampler("4"), (840, 180), ""),
            "6": ("T2VVAEDecodeFrames", {"latent": ("5", 0), "vae": ("1", 2)}, (1240, 80), "Frames are images"),
            "7": (
                "ImageScaleBy",
                {"image": ("6", 0), "upscale_method": "lanczos", "scale_by": 4.0},
                (1240, 200),
                "",
            ),
            "8": (
                "ImageSharpen",
                {"image": ("7", 0), "sharpen_radius": 2, "sigma": 1.0, "alpha": 0.5},
                (1240, 360),
                "",
            ),
            "9": ("CreateVideo", {"images": ("8", 0), "fps": 8.0}, (1640, 80), ""),
            "10": (
                "SaveVideo",
                {"video": ("9", 0), "filename_prefix": "video/T2V-images", **CORE_SAVE},
                (1640, 220),
                "",
            ),
        },
        "**An image chain.** Every image node takes the frames: upscale, sharpen, mask, blend, save one by one.",
    ),
}


def api(nodes: Nodes) -> dict[str, Any]:
    """The API format."""
    out = {}
    for key, (class_type, inputs, _, title) in nodes.items():
        links = {name: list(value) if isinstance(value, tuple) else value for name, value in inputs.items()}
        out[key] = {"inputs": links, "class_type": class_type, "_meta": {"title": title or class_type}}
    return out


ARRANGE = """
([prompt, places, note]) => {
    app.loadApiJson(prompt, "workflow");
    for (const node of app.graph._nodes) {
        const [x, y, title] = places[node.id];
        node.pos = [x, y];
        const size = node.computeSize();
        const text = node.widgets?.some(w => w.type === "customtext" || w.name === "text");
        node.size = text ? [400, 180] : [Math.max(size[0], 320), size[1]];
        if (title) node.title = title;
    }
    const sheet = LiteGraph.createNode("MarkdownNote");
    if (sheet) {
        app.graph.add(sheet);
        sheet.pos = [20, -60]; sheet.size = [700, 110];
        sheet.widgets[0].value = note;
    }
    const saved = app.graph.serialize();
    delete saved.extra?.ds;
    return saved;
}
"""


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
            saved = clean(page.evaluate(ARRANGE, [prompt, places, note]))
            (FOLDER / f"{name}.json").write_text(json.dumps(saved, indent=1) + "\n")


def thumbnails(url: str, names: list[str]) -> None:
    """Run the graphs in API format; four frames of each one's last video become its thumbnail."""
    for name in names or sorted(path.stem for path in (FOLDER / "api").glob("*.json")):
        prompt = json.loads((FOLDER / "api" / f"{name}.json").read_text())
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
