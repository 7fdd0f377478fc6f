"""The node ids that ComfyUI-Manager finds in the sources, by which it installs a pack that a workflow lacks."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from .hosts import PACK

SIGNATURES = Path(__file__).with_name("node_signatures.json")


def ids_in(source: str) -> Iterator[str]:
    """Yield what the Manager takes for the ids of the nodes in a file.

    Its scanner (scanner.py, `is_schema_call` and `extract_v3_nodes`, version 2.0.13) imports nothing. It parses each
    file, and in each class that has a `define_schema` it looks for a call of something named `Schema` with a constant
    string as `node_id=`. Where there is none, it takes the name of the class.
    """
    for cls in ast.walk(ast.parse(source)):
        if not isinstance(cls, ast.ClassDef):
            continue
        if not any(isinstance(part, ast.FunctionDef) and part.name == "define_schema" for part in cls.body):
            continue
        calls = [node for node in ast.walk(cls) if isinstance(node, ast.Call)]
        keywords = [
            keyword
            for call in calls
            if ast.unparse(call.func).rpartition(".")[2] == "Schema"
            for keyword in call.keywords
            if keyword.arg == "node_id"
        ]
        constants = [each.value.value for each in keywords if isinstance(each.value, ast.Constant)]
        yield constants[0] if constants else cls.name


def test_the_manager_finds_the_id_of_every_node():
    wanted = json.loads(SIGNATURES.read_text(encoding="utf-8"))
    sources = [path.read_text(encoding="utf-8") for path in sorted((PACK / "nodes").glob("*.py"))]
    found = [name for source in sources for name in ids_in(source)]
    assert sorted(found) == sorted(wanted)
    by_text = [name for source in sources for name in re.findall(r'Schema\(\s*node_id="(\w+)"', source)]
    assert sorted(by_text) == sorted(wanted)


def test_the_manager_finds_no_id_that_is_not_a_constant_of_the_schema():
    source = 'class A:\n  def define_schema(cls):\n    return known(io.Schema, node_id="T2VA")'
    assert list(ids_in(source)) == ["A"]
    assert list(ids_in(source.replace("known(io.Schema, ", "io.Schema("))) == ["T2VA"]
