"""Graphs in the API's format for the tests."""

from __future__ import annotations

from typing import Any

Graph = dict[str, dict[str, Any]]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """Return a node; an input that is a tuple is a link (id, slot)."""
    links = {name: list(value) if isinstance(value, tuple) else value for name, value in inputs.items()}
    return {"class_type": class_type, "inputs": links}


def save(images: tuple[str, int], prefix: str = "video/test") -> Graph:
    """Return core's nodes that write frames to a file."""
    return {
        "video": node("CreateVideo", images=images, fps=8.0),
        "save": node("SaveVideo", video=("video", 0), filename_prefix=prefix, format="auto", codec="auto"),
    }


def ours(model: str = "tiny", *, prompt: str = "a red circle", seed: int = 1, steps: int = 4, **latent: int) -> Graph:
    """Return a graph of text to video with this pack's nodes."""
    size = {"width": 64, "height": 64, "frames": 4, "batch_size": 1, **latent}
    return {
        "model": node(
            "T2VModelLoader", model=model, weight_dtype="default", text_encoder="from model", vae="from model"
        ),
        "positive": node("T2VTextEncode", clip=("model", 1), text=prompt),
        "negative": node("T2VTextEncode", clip=("model", 1), text=""),
        "latent": node("T2VEmptyLatent", **size, model=("model", 0)),
        "sampler": node(
            "T2VVideoSampler",
            model=("model", 0),
            positive=("positive", 0),
            negative=("negative", 0),
            latent=("latent", 0),
            seed=seed,
            steps=steps,
            cfg=6.0,
            sampler_name="ddim",
            scheduler="diffusers",
            denoise=1.0,
        ),
        "frames": node("T2VVAEDecodeFrames", latent=("sampler", 0), vae=("model", 2)),
        **save(("frames", 0)),
    }


def film(model: str = "tiny-v", *, method: str, frames: int = 9, steps: int = 4, seed: int = 1) -> Graph:
    """Return a graph that writes a film of a story to a file."""
    graph = ours(model)
    shared = {name: graph[name] for name in ("model", "frames", "video", "save")}
    film = node(
        "T2VFilm",
        model=("model", 0),
        clip=("model", 1),
        story="0-50%: a red circle\n50%-100%: a blue square",
        method=method,
        frames=frames,
        steps=steps,
        seed=seed,
        cfg=4.0,
        fps=8.0,
        width=32,
        height=32,
        context_length=4,
        context_overlap=2,
        fuse_method="pyramid",
        closed_loop=False,
        resume=False,
    )
    return {**shared, "film": film, "frames": node("T2VVAEDecodeFrames", latent=("film", 0), vae=("model", 2))}


def native(model: str = "tiny", *, seed: int = 1, steps: int = 4) -> Graph:
    """Return a graph of text to video that has core's nodes after the loader and the empty latent."""
    graph = ours(model, seed=seed, steps=steps)
    graph["positive"] = node("CLIPTextEncode", clip=("model", 1), text="a red circle")
    graph["negative"] = node("CLIPTextEncode", clip=("model", 1), text="")
    graph["sampler"] = node(
        "KSampler",
        model=("model", 0),
        positive=("positive", 0),
        negative=("negative", 0),
        latent_image=("latent", 0),
        seed=seed,
        steps=steps,
        cfg=6.0,
        sampler_name="euler",
        scheduler="normal",
        denoise=1.0,
    )
    graph["frames"] = node("VAEDecode", samples=("sampler", 0), vae=("model", 2))
    return graph


def pictured(model: str, picture: str, *, family: str = "from model", seed: int = 1, steps: int = 2) -> Graph:
    """Return a graph that animates a picture of the input folder, with a model that was made for pictures, to PNGs."""
    graph = ours(model, seed=seed, steps=steps)
    animate = node(
        "T2VImageToVideo",
        model=("model", 0),
        positive=("positive", 0),
        negative=("negative", 0),
        vae=("model", 2),
        clip_vision=("model", 3),
        image=("picture", 0),
        frames=16,
        width=64,
        height=32,
        fit="crop",
        method="model's own",
        motion=0.0,
        image_strength=1.0,
        image_cfg=3.0,
    )
    graph["model"]["inputs"]["family"] = family
    sampler = graph["sampler"]["inputs"] | {"sampler_name": "ddim (eta)", "eta": 1.0, "cfg_rescale": 0.7}
    sampler |= {name: ["animate", slot] for slot, name in enumerate(("model", "positive", "negative", "latent"))}
    return {
        **{name: graph[name] for name in ("model", "positive", "negative", "frames")},
        "picture": node("LoadImage", image=picture),
        "animate": animate,
        "sampler": node("T2VVideoSampler", **sampler),
        "save": node(
            "T2VSaveVideo",
            images=("frames", 0),
            fps=8.0,
            format="png",
            quality=80,
            filename_prefix="pictured/clip",
            loop_count=0,
            pingpong=False,
            save_output=True,
        ),
    }
