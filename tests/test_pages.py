"""README, docs and help pages: links lead somewhere, tables list everything, and the words are plain."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from t2v_models.families import FAMILIES
from t2v_models.films.settings import METHODS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    page for pattern in ("*.md", "docs/*.md", "web/docs/*.md", "t2v_models/**/*.md") for page in ROOT.glob(pattern)
)

RIDDLES = re.compile(
    r"\b(told|sketch(es|ed)?|gone on with|goes? on (from|with)|worked off|has come since|in its ear|shall|such-and-such|"
    r"knows? nothing|nobody can tell|code of their own)\b",
    re.IGNORECASE,
)
"""Words and turns that pages and code avoid: they make a reader guess."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_between_files_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_script_that_a_page_runs_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    modules = [name.replace(".", "/") for name in re.findall(r"python -m ((?:docs|tests|t2v_models)[\w.]*)", text)]
    scripts = re.findall(r"python ([\w/]+\.py)", text)
    assert [name for name in modules if not (ROOT / name).is_dir() and not (ROOT / f"{name}.py").is_file()] == []
    assert [name for name in scripts if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_uses_plain_words(page: Path) -> None:
    text = re.sub(r"`[^`]*`", "``", page.read_text(encoding="utf-8"))  # names in code may be of any kind
    assert [line for line in text.splitlines() if RIDDLES.search(line)] == []


def test_the_code_uses_plain_words() -> None:
    files = [path for room in ("nodes", "t2v_models", "docs/examples") for path in (ROOT / room).rglob("*.py")]
    files.remove(ROOT / "nodes/host/old_names.py")  # holds the names that inputs had
    lines = [(name_of(path), line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    allowed = "sketches and depth maps"  # input channels of TF-T2V
    assert [(name, line) for name, line in lines if RIDDLES.search(line) and allowed not in line] == []


def test_the_readme_has_one_command_that_makes_a_video_and_one_that_runs_the_tests() -> None:
    commands = [line for line in read("README.md").splitlines() if line.startswith("python3 -m venv")]
    assert [("generate" in line, "pytest" in line) for line in commands] == [(True, False), (False, True)]


def test_the_tables_name_every_node_template_method_and_example() -> None:
    nodes = json.loads(read("locales/en/nodeDefs.json"))
    templates = [path.stem for path in (ROOT / "workflows").glob("*.json")]
    examples = [name_of(path) for path in (ROOT / "docs" / "examples").glob("*.py")]
    for page, names in (
        ("docs/nodes.md", [node["display_name"] for node in nodes.values()] + templates),
        ("docs/long-videos.md", METHODS),
        ("docs/python.md", examples),
    ):
        assert [name for name in names if name not in read(page)] == []


def test_the_table_of_models_names_every_family() -> None:
    table = re.sub(r"[^a-z0-9]", "", read("docs/models.md").lower())
    first_words = [re.sub(r"[^a-z0-9]", "", family.title.split()[0].lower()) for family in FAMILIES.values()]
    assert [word for word in first_words if word not in table] == []


def test_the_changelog_has_a_section_for_the_version() -> None:
    version = re.search(r'^version = "(.+)"', read("pyproject.toml"), re.MULTILINE)
    sections = re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert version is not None
    assert sections[0] in ("Unreleased", version[1])
