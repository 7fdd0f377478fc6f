"""The templates that want published image models run as they stand, with small models in the place of these files."""

import copy
import json

SIZE = 64
STEPS = 2


def _template(host, name, size=SIZE):
    """A template's graph in the API's form, with frames of this size and few steps."""
    graph = json.loads((host.pack / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    changed = {"width": size, "height": size, "steps": STEPS}
    for node in graph.values():
        for key, value in changed.items():
            if isinstance(node["inputs"].get(key), int) and node["class_type"] != "T2VEmptyLatent":
                node["inputs"][key] = value
    return graph


def _of_class(graph, class_type):
    (found,) = [key for key, node in graph.items() if node["class_type"] == class_type]
    return found


def _checkpoint(host, model):
    """What Load Checkpoint gives, with the VAE of the built-in image model."""
    return model, "clip", host.run("T2VModelLoader", "built-in image model", "default")[2]


def _outputs(host, graph, given, key):
    """What a node gives; `given` holds the outputs of nodes that ran already or have a stand-in."""
    import small_image_unets

    if key in given:
        return given[key]
    node = graph[key]
    inputs = {
        name: _outputs(host, graph, given, value[0])[value[1]] if isinstance(value, list) else value
        for name, value in node["inputs"].items()
    }
    if node["class_type"] == "CLIPTextEncode":  # the small models' own width
        given[key] = (small_image_unets.texts()[0 if inputs["text"] else 1],)
    else:
        given[key] = host.run(node["class_type"], **inputs)
    return given[key]


def _frames(host, graph, stand_ins):
    """The frames that the graph saves, (frames, h, w, 3), and all outputs."""
    given = {_of_class(graph, class_type): copy.copy(outputs) for class_type, outputs in stand_ins.items()}
    key, slot = graph[_of_class(graph, "T2VSaveVideo")]["inputs"]["images"]
    frames = _outputs(host, graph, given, key)[slot]
    assert frames.shape == (16, SIZE, SIZE, 3)
    assert frames.isfinite().all()
    return frames, given


def check_the_frames_of_the_template_have_edges(host):
    graph = _template(host, "zero_shot_edges", size=512)
    edges = graph[_of_class(graph, "Canny")]["inputs"]
    frames = _outputs(host, graph, {}, edges["image"][0])[0]
    found = host.run("Canny", frames[-1:], edges["low_threshold"], edges["high_threshold"])[0]
    assert found.sum() > 500


def check_edges_of_a_video_drive_an_image_model(host):
    import small_image_unets
    import torch

    stand_ins = {
        "CheckpointLoaderSimple": _checkpoint(host, small_image_unets.sd15()),
        "ControlNetLoader": (small_image_unets.controlnet(),),
    }
    graph = _template(host, "zero_shot_edges")
    frames, given = _frames(host, graph, stand_ins)
    edges = given[_of_class(graph, "Canny")][0]
    assert len(edges) == len(frames), "one picture of edges for each frame"
    assert edges.max() == 1
    graph[_of_class(graph, "ControlNetApplyAdvanced")]["inputs"]["strength"] = 0.0
    assert not torch.equal(_frames(host, graph, stand_ins)[0], frames)


def check_an_instruction_edits_a_video_by_instruct_pix2pix_s_formula(host):
    import small_image_unets
    import torch

    model = small_image_unets.instruct_pix2pix()
    graph = _template(host, "zero_shot_edit")
    stand_ins = {"CheckpointLoaderSimple": _checkpoint(host, model)}
    frames, given = _frames(host, graph, stand_ins)
    assert frames.std() > 0
    guider = given[_of_class(graph, "DualCFGGuider")][0]
    counts = {name: len(conds) for name, conds in guider.original_conds.items()}
    assert counts == {"positive": 1, "middle": 1, "negative": 1}
    pictures = {name: conds[0].get("concat_latent_image") for name, conds in guider.original_conds.items()}
    assert torch.equal(pictures["positive"], pictures["middle"]), "the video, with the instruction and without"
    assert pictures["negative"] is None, "neither the video nor the instruction"
