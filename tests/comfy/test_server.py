"""A running ComfyUI, over HTTP and the websocket, as the browser uses it."""

from __future__ import annotations

import json
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from ..support.image_models import write_model
from . import graphs
from .live import Run, Server

pytestmark = pytest.mark.slow


def metadata(server, entry) -> dict[str, str]:
    """What the saved file says of itself, read by the host's PyAV."""
    path = server.base / entry["type"] / entry["subfolder"] / entry["filename"]
    code = "import av, json, sys; print(json.dumps(dict(av.open(sys.argv[1]).metadata)))"
    return json.loads(subprocess.check_output([server.host.python, "-c", code, str(path)]))


def test_the_pack_is_loaded_with_all_its_nodes_and_no_complaint(server):
    log = server.log.read_text()
    assert "t2v-nodes" in log
    assert "IMPORT FAILED" not in "".join(line for line in log.splitlines() if "t2v-nodes" in line)
    info = server.get("/object_info")
    ours = {name: node for name, node in info.items() if name.startswith("T2V")}
    assert len(ours) >= 9
    for name, node in ours.items():
        assert node["description"], name
        inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        for key, spec in inputs.items():
            assert len(spec) > 1, f"{name}.{key} has no tooltip"
            assert spec[1].get("tooltip"), f"{name}.{key} has no tooltip"
        assert all(node.get("output_tooltips") or ["missing"]), name


@pytest.mark.parametrize("kind", ["ours", "native"])
def test_a_prompt_becomes_a_saved_video_with_progress_previews_and_its_workflow_inside(server, kind):
    graph = getattr(graphs, kind)(seed=11)
    workflow = {"version": 0.4, "nodes": [], "links": [], "marker": kind}
    run = server.run(graph, workflow)
    assert run.error is None, run.error
    assert run.progress("sampler")[-4:] == [1, 2, 3, 4]
    assert len(run.previews) >= 4
    (entry,) = server.outputs(run)["save"]["images"]
    data = server.file(entry)
    assert data[4:8] == b"ftyp"
    said = metadata(server, entry)
    assert json.loads(said["prompt"])["sampler"]["inputs"]["seed"] == 11
    assert json.loads(said["workflow"])["marker"] == kind


@pytest.mark.parametrize("method", ["windows", "free-noise", "coarse-to-fine", "endless"])
def test_a_film_shows_previews_and_how_far_it_is(server, method):
    run = server.run(graphs.film(method=method))
    assert run.error is None, run.error
    reported = run.progress("film")
    assert reported == sorted(reported)
    (total,) = {m["data"]["max"] for m in run.messages if m["type"] == "progress" and m["data"].get("node") == "film"}
    assert reported[-1] == total
    assert len(set(reported)) >= 4
    assert len(run.previews) >= 3


def test_a_cancelled_film_stops_within_a_part_of_it(server):
    asked: list[int] = []

    def cancel(message):
        if message["type"] == "progress" and message["data"].get("node") == "film" and not asked:
            asked.append(message["data"]["max"])
            server.post("/interrupt", {})

    run = server.run(graphs.film(method="coarse-to-fine", frames=64, steps=100), on_message=cancel)
    assert run.messages[-1]["type"] == "execution_interrupted"
    assert run.progress("film")[-1] < asked[0] / 10


def test_a_cancel_is_obeyed_within_a_step_and_the_queue_goes_on(server):
    asked: list[float] = []

    def cancel(message):
        if message["type"] == "progress" and message["data"].get("node") == "sampler" and not asked:
            asked.append(time.monotonic())
            server.post("/interrupt", {})

    run = server.run(graphs.ours(seed=12, steps=500), on_message=cancel)
    assert run.messages[-1]["type"] == "execution_interrupted"
    assert len(run.progress("sampler")) < 20
    assert server.run(graphs.ours(seed=13, steps=2)).error is None


def test_freed_models_are_loaded_again(server):
    assert server.run(graphs.ours(seed=14, steps=2)).error is None
    server.post("/free", {"unload_models": True, "free_memory": True})
    time.sleep(1)
    assert server.run(graphs.ours(seed=15, steps=2)).error is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"latent": {"frames": 0, "width": 0, "model": None}}, ["0", "wire the MODEL"]),
        ({"latent": {"width": 100}}, ["100", "multiple of 8"]),
        ({"latent": {"frames": 10000}}, ["10000 frames", "fewer", "T2VWindows"]),
        ({"latent": {"frames": 1000, "width": 2048, "height": 2048}}, ["1000 frames", "fewer", "GB"]),
        ({"latent": {"node": "EmptySD3LatentImage", "width": 64, "height": 64, "batch_size": 2}}, ["16", "4"]),
        ({"sampler": {"steps": 400, "denoise": 0.1}}, ["400 steps", "1000"]),
    ],
    ids=["no size and no model", "width 100", "10000 frames", "1000 large frames", "16 channels", "too many steps"],
)
def test_a_wrong_value_is_one_sentence_and_the_queue_goes_on(server, change, words):
    graph = graphs.ours(seed=16, steps=2)
    for key, inputs in change.items():
        inputs = dict(inputs)
        if "node" in inputs:
            graph[key] = graphs.node(inputs.pop("node"))
        graph[key]["inputs"].update(inputs)
        graph[key]["inputs"] = {name: value for name, value in graph[key]["inputs"].items() if value is not None}
    run = server.run(graph)
    assert run.error is not None
    message = run.error["exception_message"].strip()
    assert all(word in message for word in words), message
    assert message.count("\n") == 0
    assert len(message) < 300
    assert server.run(graphs.ours(seed=17, steps=2)).error is None


PICTURES = {
    "a model of texts": ({}, "made for texts alone"),
    "several pictures": ({"batch_size": 3}, "one is wanted"),
    "one pixel": ({"width": 1, "height": 1}, "1x1"),
}


@pytest.mark.parametrize(("picture", "words"), PICTURES.values(), ids=PICTURES)
def test_a_wrong_picture_is_one_sentence_and_the_queue_goes_on(server, picture, words):
    graph = graphs.ours(seed=22, steps=2)
    graph["picture"] = graphs.node("EmptyImage", **{"width": 64, "height": 64, "batch_size": 1, "color": 0, **picture})
    graph["animate"] = graphs.node(
        "T2VImageToVideo", model=("model", 0), positive=("positive", 0), negative=("negative", 0), vae=("model", 2),
        image=("picture", 0), frames=4, width=64, height=64, fit="crop", method="model's own", motion=0.0,
        image_strength=1.0, image_cfg=0.0,
    )  # fmt: skip
    for slot, name in enumerate(("model", "positive", "negative", "latent")):
        graph["sampler"]["inputs"][name] = ["animate", slot]
    run = server.run(graph)
    assert run.error is not None
    message = run.error["exception_message"].strip()
    assert words in message
    assert message.count("\n") == 0
    assert server.run(graphs.ours(seed=23, steps=2)).error is None


ANIMATED = {
    "dynamicrafter-512": "dynamicrafter-512/model.safetensors",
    "videocrafter1-i2v": "videocrafter1-i2v/model.safetensors",
    "i2vgen-xl": "i2vgen",
}
"""Models that were made for pictures, by family, with text and image encoders of their own."""


def animated(family: str, picture: str, **settings: int) -> graphs.Graph:
    return graphs.pictured(ANIMATED[family], picture, family=family, seed=24, **settings)


@pytest.fixture(scope="module")
def fresh(host, base) -> dict[str, np.ndarray]:
    """What another server makes of the second picture, by family, without the first one before it."""
    pytest.importorskip("websocket", reason="pip install websocket-client")
    for family, name in ANIMATED.items():
        if name.endswith(".safetensors"):
            write_model(base / "models" / "text2video" / family, family)
    noise = np.random.default_rng(0)
    for name in ("one.png", "two.png"):
        Image.fromarray(noise.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(base / "input" / name)
    with Server(host, base) as server:  # a process for each family would take ten seconds more each
        return {family: frames(server, server.run(animated(family, "two.png"))) for family in ANIMATED}


def frames(server: Server, run: Run) -> np.ndarray:
    """The saved frames of a run, (t, h, w, 3)."""
    assert run.error is None, run.error
    (entry,) = server.outputs(run)["save"]["t2v_files"]
    files = sorted((server.base / entry["type"] / entry["subfolder"]).glob("*.png"))
    return np.stack([np.asarray(Image.open(file)) for file in files])


@pytest.mark.parametrize("family", ANIMATED)
def test_a_picture_is_animated_after_a_cancelled_one_as_in_a_fresh_process(server, fresh, family):
    def cancel(message):
        if message["type"] == "progress" and message["data"].get("node") == "sampler":
            server.post("/interrupt", {})

    first = server.run(animated(family, "one.png"))
    assert first.progress("sampler") == [1, 2]
    assert len(first.previews) >= 2
    cancelled = server.run(animated(family, "one.png", steps=300), on_message=cancel)
    assert cancelled.messages[-1]["type"] == "execution_interrupted"
    assert len(cancelled.progress("sampler")) < 20
    second = frames(server, server.run(animated(family, "two.png")))
    assert second.shape == (16, 32, 64, 3)
    assert np.array_equal(second, fresh[family])
    assert not np.array_equal(second, frames(server, first))


def listed(server) -> list[str]:
    """What the loader offers; newer hosts keep the options of a combo beside its type."""
    kind, options = server.get("/object_info/T2VModelLoader")["T2VModelLoader"]["input"]["required"]["model"]
    return options["options"] if kind == "COMBO" else kind


def test_models_in_the_folders_of_extra_model_paths_are_offered_and_run(server):
    assert {"afar", "afar.safetensors"} <= set(listed(server))
    assert server.run(graphs.ours("afar", seed=21, steps=2)).error is None


def test_a_model_that_vanishes_between_listing_and_running_is_named(server, tiny):
    link = server.base / "models" / "diffusers" / "gone"
    link.symlink_to(tiny["tiny"])
    assert "gone" in listed(server)
    link.unlink()
    assert "gone" not in listed(server)
    status, answer = server.post("/prompt", {"prompt": graphs.ours("gone", seed=18)})
    if status == 200:  # a host that does not check the name beforehand
        run = server.run(graphs.ours("gone", seed=19))
        assert '"gone" is no longer in the model folders' in run.error["exception_message"]
    else:
        assert "gone" in json.dumps(answer)
    assert server.run(graphs.ours(seed=20, steps=2)).error is None


def test_a_graph_of_the_api_with_older_names_of_inputs_runs(server):
    window = {"length": 4, "overlap": 2, "fusion": "flat", "looped": True}
    graph = {"windows": graphs.node("T2VDrawWindows", frames=8, fps=8.0, **window)}
    graph["show"] = graphs.node("PreviewImage", images=("windows", 0))
    run = server.run(graph)
    assert run.error is None, run.error
