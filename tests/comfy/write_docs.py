"""Writes web/docs/ and locales/en/: help pages with pictures from the editor, and all texts, from the nodes' schemas.

    python -m tests.comfy.write_docs URL_OF_A_RUNNING_COMFYUI [NODE …]
    python -m tests.comfy.write_docs --texts URL_OF_A_RUNNING_COMFYUI

Put a LoRA named style.safetensors into models/loras and an empty clip.mp4 into input first: the pictures show their names.
The paragraphs of USAGE are what the schema cannot say; the pages of HANDWRITTEN keep their texts.
"""

from __future__ import annotations

import io
import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

from .write_workflows import open_editor

PACK = Path(__file__).resolve().parents[2]
FOLDER = PACK / "web" / "docs"
ENGLISH = PACK / "locales" / "en" / "nodeDefs.json"
HANDWRITTEN = ("T2VSaveVideo", "T2VLoadVideo")

USAGE = {
    "T2VModelLoader": "Choose **built-in** to try everything at once, and **built-in image model** for T2VZeroShot. Other "
    "models go into `models/text2video` (one file, "
    "or a folder with the files as published), `models/diffusion_models`, `models/checkpoints` or `models/diffusers`; "
    "the folders of `extra_model_paths.yaml` are read, too. The loader recognises a layout by the names in the file: "
    "ModelScope's, diffusers', VideoCrafter's, T2V-Turbo's. ZeroScope, Potat1, Animov and Show-1 differ in their names only: "
    "keep the published name.\n\nIf the file has no text encoder or VAE, choose them here: OpenCLIP ViT-H and the VAE "
    "of Stable Diffusion fit most of these models.",
    "T2VLoraLoader": "Chain several of these for several LoRAs. Load LoRA works too, for the spatial layers of LoRAs in "
    "kohya's and diffusers' names. Whole changes of weights and biases, which ComfyUI's trainer writes, are applied too. "
    "The log names whatever of a file does not fit the model.\n\nT2V-Turbo's `unet_lora.pt` also changes an embedding of the "
    "guidance that its base model lacks. This node leaves that change out, which the log reports, takes T2V-Turbo's own "
    "steps (`lcm` with `diffusers`), and switches off VideoCrafter2's scaling of the signal. `python -m t2v_models convert "
    "--lora` makes the whole model of both.",
    "T2VTextEncode": "CLIP Text Encode gives the same result. A text of more than 75 tokens continues in a second window.",
    "T2VEmptyLatent": "Models are at their best at the size and length they were trained on: leave the zeros and wire MODEL.",
    "T2VLatentLayout": "Video latents have five dimensions. Nodes for image latents that turn, flip, crop or composite "
    "act on the wrong one: put this node with **frames** before them and with **clips** after them.",
    "T2VModelConditioning": "Put it between T2VModelLoader and the sampler. It works with every sampler.",
    "T2VVideoSampler": "`ddim` with `diffusers` is what ModelScope and its fine-tunes were published with, `lcm` with "
    "`diffusers` T2V-Turbo and VideoLCM; `dpmpp_2m` with `diffusers` needs half the steps of `ddim`. A latent of frames as a "
    "batch works too, but a seed draws other noise for it.\n\nTo split the steps between two samplers, give the first an "
    "`end_at_step` and `return_with_leftover_noise`, and the second the same number as `start_at_step`, without `add_noise`."
    "\n\nCore's areas and masks of a conditioning work on clips, with this sampler and with KSampler: areas in pixels or in "
    "percent, mask bounds, one mask or one for each frame. A noise mask with one picture per frame that was set before "
    "RepeatLatentBatch stays with its frames here. The KSampler of newer ComfyUIs takes the masks of all clips for those of "
    "one: set the mask after RepeatLatentBatch there.",
    "T2VFilm": "Films have their own sampling and windows: T2VWindows, T2VFreeNoise, T2VFreeInit and what other nodes set for "
    "samplers have no effect on them; the log names what is left out. A stopped film continues only with the same model, "
    "LoRAs, CLIP and settings. With FreeU and other nodes that put code into the model, a film is made but cannot be "
    "resumed, since the settings of that code cannot be compared; the log says so.",
    "T2VStory": "ConditioningSetTimestepRange and ConditioningZeroOut work after this node. ConditioningAverage and "
    "ConditioningConcat take a single text and are refused after it: use them before, one conditioning per scene, and wire "
    "those here.",
    "T2VImageToVideo": "Wire all four outputs to the sampler: T2VVideoSampler, KSampler or SamplerCustomAdvanced. With "
    "the built-in model, and with hold the picture and repeat and slide, the picture is the first frame, bit for bit "
    "but for the VAE. DynamiCrafter and kin begin close to it; they were trained to begin with any frame of a "
    "clip.\n\nWhich method? With a model for pictures or the built-in one, model's own. With another model, frame init "
    "if the layout is enough, or with a camera (pan, zoom, roll); repeat and slide if the first frame must stay. repeat "
    "and slide goes through its own sampler, DDIM over the chosen sigmas, and wants video latents of 5 dimensions. hold "
    "the picture with two pictures needs a few of resample, so that what is between agrees with both.\n\nBetween two "
    "pictures the text has little to say: cfg 1 and the name of what is seen suit the built-in model. Noise masks that "
    "were set on the LATENT before are replaced.",
    "T2VBetweenImages": "Wire Load Image nodes through Batch Images (ImageBatch), or any list of images; a list may "
    "hold pictures of several sizes. A list of texts as positive gives each clip its own. It samples clip after clip "
    "with the chosen sampler; the seed grows by one from clip to clip. The first clip between two pictures is what "
    "T2VImageToVideo with image and end_image makes.",
    "T2VZeroShot": "The first frame is denoised alone down to t1 and t0. Frame k begins as its copy at t0, moved by k "
    "times the motion, gets its own noise up to t1 again, and all frames are denoised together from there. In every "
    "self-attention softmax(Q K^T / sqrt(d)) V, the keys K and values V are those of the first frame, so that all frames "
    "show its colours, surfaces and shapes.\n\nMoved latents make a moved picture because at t0 they hold little but the "
    "layout; the noise up to t1 hides the seams, and the model paints the details anew. A whole latent is 8 pixels: with "
    "motion 12 and frames of 512 the shifts are 1, 3, 4, 6 latents. Once the picture has moved by its whole width, it "
    "comes back mirrored: take a path that returns, or less motion.\n\nThe motion is a camera's: it moves the whole "
    "picture. Where a person should walk, use poses with T2VCrossFrameAttention and T2VSameNoise, or a model that was made "
    "for video. With few steps there may be none between t0 and t1: move these apart. The node's own cross-frame attention "
    "replaces that of T2VCrossFrameAttention. For long videos set chunk to 8 and wire the LATENT and the VAE to "
    "T2VSaveVideo; chunks have the same noise for each frame as one run.",
    "T2VCrossFrameAttention": "Self-attention is softmax(Q K^T / sqrt(d)) V over the places of one frame. Here Q stays "
    "each frame's own, and K and V are those of the anchors: colours, surfaces and shapes come from there, places from the "
    "frame's own latents. It makes no motion, and frames that begin with different noise still show different scenes: add "
    "T2VSameNoise.\n\nEdges, depth, poses: wire one picture per frame through ControlNetApplyAdvanced to the sampler; "
    "fewer pictures are repeated from the first, which the log says. The attention inside a ControlNet is out of reach and "
    "stays per frame. Editing: InstructPixToPixConditioning with the frames, then DualCFGGuider, style regular, cfg_conds "
    "7.5 for the text, cfg_cond2_negative 1 to 1.5 for the picture.\n\nPut it before HyperTile. Context windows cut the "
    "frames apart and are refused, and so are this pack's 3D models, which have temporal layers of their own. To see what "
    "it does, compare with strength 0.",
    "T2VSameNoise": "Frame k has mix * first + sqrt(1 - mix^2) * own noise, so that the amount of noise is right at every "
    "mix. With 1 and the same hint for every frame, all frames are the same picture. Samplers with fresh noise in every "
    "step (euler_ancestral, dpmpp_2m_sde) would shimmer without it. T2VZeroShot needs none: there each frame's noise is "
    "its own by design.",
    "T2VContinue": "It has its own sampling: T2VWindows, T2VFreeNoise, T2VFreeInit and what other nodes set for samplers have "
    "no effect on it; the log names what is left out.",
    "T2VVAEDecodeFrames": "With the VAE of T2VModelLoader, VAE Decode gives the same result. With one of Load VAE, it decodes "
    "only the first frame, and this node all of them.",
    "T2VVAEEncodeFrames": "For video to video: wire the frames here, the latent to T2VVideoSampler, and set its `denoise` to "
    "0.5 to 0.8.",
}
"""What a page says besides the description, by node."""

SHOW = """
async (type) => {
    await app.extensionManager.setting.set("Comfy.NodeBadge.NodeSourceBadgeMode", "None");
    app.graph.clear();
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    node.pos = [500, 200];  // clear of the editor's menus
    node.size = [Math.max(node.computeSize()[0], 340), node.computeSize()[1]];
    app.canvas.ds.scale = 1; app.canvas.ds.offset = [0, 0];
    app.canvas.deselectAll?.();
    app.graph.setDirtyCanvas(true, true);
    const [left, top] = [app.canvas.canvas.getBoundingClientRect().left, app.canvas.canvas.getBoundingClientRect().top];
    return [left + 490, top + 160, node.size[0] + 20, node.size[1] + 50];
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


def english_of(node: dict[str, Any]) -> dict[str, Any]:
    """A node's entry in locales/en/nodeDefs.json."""
    inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": {name: {"tooltip": spec[1]["tooltip"]} for name, spec in inputs.items()},
        "outputs": {str(number): {"tooltip": text} for number, text in enumerate(node["output_tooltips"])},
    }


def ours(url: str) -> dict[str, dict[str, Any]]:
    """Our nodes by id, as a running ComfyUI describes them."""
    info = json.load(urllib.request.urlopen(f"{url}/object_info", timeout=60))
    return {name: node for name, node in sorted(info.items()) if name.startswith("T2V")}


def write_texts(url: str) -> None:
    """Help pages, without their pictures, and the English locale."""
    nodes = ours(url)
    for name, node in nodes.items():
        if name not in HANDWRITTEN:
            (FOLDER / f"{name}.md").write_text(page_of(name, node), encoding="utf-8")
    texts = {name: english_of(node) for name, node in nodes.items()}
    ENGLISH.write_text(json.dumps(texts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_pictures(url: str, names: list[str]) -> None:
    """A picture of each node, or of the named ones."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        page = open_editor(playwright, url)
        for name in names or ours(url):
            x, y, width, height = page.evaluate(SHOW, name)
            page.wait_for_timeout(400)
            shot = page.screenshot(clip={"x": x, "y": y, "width": width, "height": height})
            picture = Image.open(io.BytesIO(shot)).convert("RGB")
            picture = picture.quantize(64, Image.Quantize.MAXCOVERAGE)  # the colours of small dots stay
            picture.save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    if sys.argv[1] != "--texts":
        write_pictures(sys.argv[1], sys.argv[2:])
    write_texts(sys.argv[2] if sys.argv[1] == "--texts" else sys.argv[1])
