"""Every node is translated, whole: the host shows English where a text is missing."""

from __future__ import annotations

import json

import pytest

from . import write_docs
from .hosts import PACK

LANGUAGES = ["en", "ja", "zh"]


def definitions(language: str) -> dict:
    return json.loads((PACK / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_input_and_output_has_its_text(server, language):
    texts = server.get("/i18n")[language]["nodeDefs"]
    for name, node in server.get("/object_info").items():
        if not name.startswith("T2V"):
            continue
        text = texts[name]
        assert text["display_name"], name
        assert text["description"], name
        inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        assert set(text["inputs"]) == set(inputs), name
        assert all(entry["tooltip"] for entry in text["inputs"].values()), name
        assert len(text["outputs"]) == len(node["output"]), name


@pytest.mark.parametrize("language", ["ja", "zh"])
def test_a_translation_is_none_of_the_english_texts(language):
    english, other = definitions("en"), definitions(language)
    assert english.keys() == other.keys()
    for name, node in english.items():
        assert node["description"] != other[name]["description"], name


@pytest.mark.slow
def test_the_english_texts_and_help_pages_are_those_of_the_schemas(server):
    """Where this fails, `python -m tests.comfy.write_docs --texts URL` writes them anew."""
    nodes, english = write_docs.ours(server.url), definitions("en")
    assert english == {name: write_docs.english_of(node) for name, node in nodes.items()}
    for name in nodes.keys() - set(write_docs.HANDWRITTEN):
        page = (write_docs.FOLDER / f"{name}.md").read_text(encoding="utf-8")
        assert page == write_docs.page_of(name, nodes[name]), name


@pytest.mark.slow
def test_every_node_has_a_help_page_with_its_picture(server):
    for name in server.get("/object_info"):
        if name.startswith("T2V"):
            page = server.get(f"/extensions/t2v-nodes/docs/{name}.md").decode()
            assert f"({name}.png)" in page
            assert server.get(f"/extensions/t2v-nodes/docs/{name}.png")[:4] == b"\x89PNG"
            assert "| input |" in page
