"""What saved workflows hold of the nodes, and the options that only newer hosts take."""

import ast
import json
from pathlib import Path

SIGNATURES = Path(__file__).resolve().parents[1] / "node_signatures.json"
"""Ids, inputs and outputs of all nodes. A workflow stops working where one of these changes, so none may ever change;
a new optional input goes to the end of its node, and is added there."""


def signature(cls) -> dict[str, dict[str, str]]:
    """Return the names of a node's inputs and outputs in order, each with its type."""
    schema = cls.GET_SCHEMA()
    kinds = {each.id: each.get_io_type() + ", optional" * each.optional for each in schema.inputs}
    return {"inputs": kinds, "outputs": {each.display_name: each.get_io_type() for each in schema.outputs}}


def check_ids_inputs_and_outputs_are_those_that_workflows_hold(host):
    found = {cls.GET_SCHEMA().node_id: signature(cls) for cls in host.module("nodes").NODES}
    wanted = json.loads(SIGNATURES.read_text(encoding="utf-8"))
    assert found.keys() == wanted.keys()
    for name, parts in wanted.items():
        for part, kinds in parts.items():
            assert list(found[name][part].items()) == list(kinds.items()), f"{name}: {part}"


def refused(call) -> bool:
    try:
        call()
    except TypeError:
        return True
    return False


def check_a_misspelt_keyword_is_an_error(host):
    from comfy_api.latest import io

    newer = host.module("nodes.host.compat").newer
    assert refused(lambda: newer(io.Schema, serch_aliases=["video"]))
    assert refused(lambda: newer(io.Int.Input, advancd=True))
    assert refused(lambda: io.Schema(node_id="T2VNone", descripton="A node."))
    for cls in {type(each) for node in host.module("nodes").NODES for each in node.GET_SCHEMA().inputs}:
        assert refused(lambda cls=cls: cls("name", tooltp="A text.")), cls


def calls_of_newer(pack: Path):
    """Yield (what takes the options, their names, the file) for every call of `newer` in the nodes."""
    for path in sorted(pack.glob("nodes/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "newer":
                yield ast.unparse(node.args[0]), {keyword.arg for keyword in node.keywords}, path.name


def check_the_newest_host_takes_every_option(host):
    import comfy.ops
    import comfy.sd
    from comfy_api.latest import io

    compat, calls = host.module("nodes.host.compat"), list(calls_of_newer(host.pack))
    assert set().union(*(options for _, options, _ in calls)) == set(compat.NEWER), "an option is used nowhere"
    if not compat.newer(io.Schema, search_aliases=[]):
        return  # an older one
    for taker, options, file in calls:
        if taker.startswith(("io.", "comfy.")):
            found = compat.newer(eval(taker, {"comfy": comfy, "io": io}), **dict.fromkeys(options))
            assert found.keys() == options, (file, taker)


def check_older_names_of_inputs_are_those_of_no_input_today(host):
    renamed = host.module("nodes.host.old_names").RENAMED
    schemas = {
        cls.GET_SCHEMA().node_id: [each.id for each in cls.GET_SCHEMA().inputs] for cls in host.module("nodes").NODES
    }
    for kind, names in renamed.items():
        for old, new in names.items():
            assert old not in schemas[kind], (kind, old)
            assert new in schemas[kind], (kind, new)


def check_graphs_of_the_api_with_older_names_have_the_present_ones(host):
    import server

    def asked(graph):
        return server.PromptServer.instance.trigger_on_prompt({"prompt": graph})["prompt"]

    linked = {"1": {"class_type": "T2VFilm", "inputs": {"length": ["2", 0], "sketches": 2, "frames": 9}}}
    assert asked(linked)["1"]["inputs"] == {"context_length": ["2", 0], "candidates": 2, "frames": 9}
    both = {"1": {"class_type": "T2VLoraLoader", "inputs": {"lora": "old", "lora_name": "present"}}}
    assert asked(both)["1"]["inputs"] == {"lora_name": "present"}
    for left in (
        {"1": {"class_type": "EmptyLTXVLatentVideo", "inputs": {"length": 9}}},
        {"1": {"class_type": ["T2VFilm"], "inputs": {"length": 9}}},
        {"1": {"class_type": "T2VFilm", "inputs": ["length"]}},
        {"1": {"inputs": {"length": 9}}, "2": None, "3": "length"},
        ["length"],
        None,
    ):
        assert asked(json.loads(json.dumps(left))) == left
