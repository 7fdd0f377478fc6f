"""Writes web/docs/: a help page for every node, with its picture from the editor, and the tables from its schema.

    python -m tests.comfy.write_docs URL_OF_A_RUNNING_COMFYUI [NODE …]

The paragraphs of USAGE are what the schema cannot tell; all else follows the nodes.
"""

from __future__ import annotations

import io
import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

from .write_workflows import open_editor

FOLDER = Path(__file__).resolve().parents[2] / "web" / "docs"

USAGE = {
    "T2VModelLoader": "Choose **built-in** to try everything at once. Other models go into `models/text2video` (one file, "
    "or a folder with the files as published), `models/diffusion_models`, `models/checkpoints` or `models/diffusers`; "
    "`extra_model_paths.yaml` is honoured. Layouts are recognised by what is in the file: ModelScope's, diffusers', "
    "VideoCrafter's, T2V-Turbo's. ZeroScope, Potat1, Animov and Show-1 are told apart by the name alone: keep the published "
    "one.\n\nIf the file has no text encoder or VAE, choose them here: OpenCLIP ViT-H and the VAE "
    "of Stable Diffusion fit most of these models.",
    "T2VLoraLoader": "Chain several of these for several LoRAs. Load LoRA works too, for the spatial layers of LoRAs in "
    "kohya's and diffusers' names.\n\nT2V-Turbo's `unet_lora.pt` also changes an embedding of the guidance that its "
    "base model lacks, and this node leaves that out, as the log says; it uses T2V-Turbo's own steps (`lcm` with "
    "`diffusers`) and switches VideoCrafter2's scaling of the signal off. `python -m t2v_models convert --lora` makes the "
    "whole model of both.",
    "T2VTextEncode": "CLIP Text Encode gives the same. Texts longer than 75 tokens go on in a second window.",
    "T2VEmptyLatent": "Models give their best at the size and length they were trained on: leave the zeros and wire MODEL.",
    "T2VLatentLayout": "Video latents have five dimensions. Nodes made for image latents that turn, flip, crop or composite "
    "act on the wrong one: put this node with **frames** before them and with **clips** behind.",
    "T2VModelConditioning": "Put it between T2VModelLoader and the sampler. It works with every sampler, as it travels with "
    "the model.",
    "T2VVideoSampler": "`ddim` with `diffusers` is what ModelScope and its fine-tunes were published with, `lcm` with "
    "`diffusers` T2V-Turbo and VideoLCM; `dpmpp_2m` with `diffusers` needs half the steps of `ddim`. A latent of frames as a "
    "batch works too; the same seed then draws other noise.\n\nTo split the steps "
    "between two samplers, give the first an `end_at_step` and `return_with_leftover_noise`, and the second the same number as "
    "`start_at_step`, without `add_noise`.",
    "T2VVAEDecodeFrames": "VAE Decode gives the same with the VAE of T2VModelLoader. With one of Load VAE it would decode "
    "only the first frame: this node decodes all.",
    "T2VVAEEncodeFrames": "For video to video: wire the frames here, the latent to T2VVideoSampler, and set its `denoise` to "
    "0.5 to 0.8.",
}
"""More than the description, by node."""

SHOW = """
(type) => {
    app.graph.clear();
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    node.pos = [60, 80];
    node.size = [Math.max(node.computeSize()[0], 340), node.computeSize()[1]];
    app.canvas.ds.scale = 1; app.canvas.ds.offset = [0, 0];
    app.canvas.deselectAll?.();
    app.graph.setDirtyCanvas(true, true);
    const [left, top] = [app.canvas.canvas.getBoundingClientRect().left, app.canvas.canvas.getBoundingClientRect().top];
    return [left + 50, top + 40, node.size[0] + 20, node.size[1] + 50];
}
"""


def table(node: dict[str, Any]) -> str:
    """The inputs and outputs of a node, as Markdown."""
    lines = ["## Inputs", "", "| input | type | default | what it is |", "|---|---|---|---|"]
    for section in ("required", "optional"):
        for name, spec in node["input"].get(section, {}).items():
            kind, options = spec[0], spec[1] if len(spec) > 1 else {}
            if isinstance(kind, list) or kind == "COMBO":
                kind = "choice"
            default = options.get("default", "")
            default = json.dumps(default) if isinstance(default, bool) else str(default)
            optional = " (optional)" if section == "optional" else ""
            first, *others = default.splitlines() or [""]
            default = f"{first} …" if others else first
            tooltip = options.get("tooltip", "").replace("|", "\\|")
            lines.append(f"| `{name}`{optional} | {kind} | {default} | {tooltip} |")
    lines += ["", "## Outputs", "", "| output | what it is |", "|---|---|"]
    for name, tooltip in zip(node["output_name"], node.get("output_tooltips") or [], strict=False):
        lines.append(f"| {name} | {tooltip or ''} |")
    return "\n".join(lines)


def page_of(name: str, node: dict[str, Any]) -> str:
    """A help page."""
    parts = [f"# {node['display_name']}", node["description"], f"![{node['display_name']}]({name}.png)"]
    return "\n\n".join([*parts, *([USAGE[name]] if name in USAGE else []), table(node)]) + "\n"


def write(url: str, names: list[str]) -> None:
    """Pages and pictures."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    info = json.load(urllib.request.urlopen(f"{url}/object_info", timeout=60))
    nodes = {name: node for name, node in info.items() if name.startswith("T2V") and (not names or name in names)}
    with sync_playwright() as playwright:
        page = open_editor(playwright, url)
        for name, node in nodes.items():
            x, y, width, height = page.evaluate(SHOW, name)
            page.wait_for_timeout(400)
            shot = page.screenshot(clip={"x": x, "y": y, "width": width, "height": height})
            picture = Image.open(io.BytesIO(shot)).convert("P", palette=Image.Palette.ADAPTIVE, colors=64)
            picture.save(FOLDER / f"{name}.png", optimize=True)
            page_file = FOLDER / f"{name}.md"
            if name in USAGE or not page_file.exists():  # the other pages are written by hand
                page_file.write_text(page_of(name, node))


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2:])
