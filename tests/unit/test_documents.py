"""The documents say what the code says."""

from __future__ import annotations

import re
import shlex
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

import tasks
from slipway import errors, verb
from slipway.base import Base, bootstrapped_tag
from slipway.engine import LABEL
from slipway.images import dev_recipe
from slipway.project import Project
from slipway.settings import DEFAULTS, ROOT, Settings, Workshop
from slipway.variants import TABLE, Variant

README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
DOCUMENTS = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY")),
    *(ROOT / folder / "README.md" for folder in ("examples", "scripts", "tests")),
]
each = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def table(marker: str) -> list[list[str]]:
    """The rows below a marker, the head left out, without backquotes."""
    part = README.split(f"<!-- {marker} -->\n")[1].split("\n\n")[0]
    rows = [line.strip("|").split("|") for line in part.splitlines()[2:]]
    return [[cell.strip().replace("`", "") for cell in row] for row in rows]


def test_the_readme_has_every_task_in_the_words_of_its_docstring() -> None:
    first_lines = {
        name: task.__doc__.splitlines()[0].rstrip(".").replace("`", "")
        for name, task in tasks.namespace.tasks.items()
    }
    assert {row[0]: row[1] for row in table("tasks")} == first_lines


def test_the_readme_has_every_task_once_and_in_the_order_of_the_list() -> None:
    names = [row[0] for row in table("tasks")]
    assert names == sorted(tasks.namespace.tasks)


def test_the_readme_has_every_setting_and_its_default() -> None:
    rows = {row[0]: row[1] for row in table("settings")}
    assert list(rows) == list(DEFAULTS)
    for key, default in DEFAULTS.items():
        if isinstance(default, str | int) and default:
            assert rows[key] == str(default)
    assert rows["default_variants"] == ", ".join(DEFAULTS["default_variants"])
    assert re.findall(r"\d+", rows["budgets"]) == [str(mb) for mb in DEFAULTS["budgets"].values()]


def test_the_readme_has_every_exit_code() -> None:
    ours = [
        value
        for module in (errors, verb)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int)
    ]
    assert [int(row[0]) for row in table("exit codes")] == sorted(set(ours))


def test_the_readme_has_every_variant() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (x86-64-v\d)[:,] (.*?) \|", README, re.MULTILINE)
    assert {name: isa for name, isa, _ in rows} == {name: row.isa for name, row in TABLE.items()}
    assert {name for name, _, text in rows if "CUDA" in text} == {n for n in TABLE if TABLE[n].cuda}
    (archs,) = {row.cuda for row in TABLE.values() if row.cuda}
    assert f"CUDA for {', '.join(archs)}, PTX" in README


def test_invoke_yaml_shows_every_variant_as_the_table_has_it() -> None:
    text = (ROOT / "invoke.yaml").read_text().split("\n#variants:\n")[1].split("\n\n")[0]
    shown = yaml.safe_load(re.sub(r"(?m)^#", "", text))
    assert msgspec.convert(shown, dict[str, Variant]) == TABLE


def fences(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_readme_s_project_is_oar_s_without_what_is_optional() -> None:
    (text,) = fences(README, "yaml")
    shown = yaml.safe_load(text)
    msgspec.convert(shown, Project)
    whole: dict[str, Any] = yaml.safe_load((ROOT / "examples/oar/project.yaml").read_text())

    def within(part: Any, other: Any) -> bool:
        if isinstance(part, dict):
            return all(key in other and within(part[key], other[key]) for key in part)
        return bool(part == other)

    assert within(shown, whole)
    assert len(text.splitlines()) == 6


def test_the_two_commands_stand_in_one_block() -> None:
    assert [line.split("  ")[0] for line in fences(README, "sh")[0].splitlines()] == [
        "./go invoke all",
        "./go tox",
    ]


def test_the_picture_is_drawn_for_light_and_dark_and_says_what_it_shows() -> None:
    (alt,) = re.findall(r"!\[([^]]+)\]\(docs/flow\.svg\)", README)
    assert len(alt) > 80
    text = (ROOT / "docs" / "flow.svg").read_text()
    root = ElementTree.fromstring(text)  # noqa: S314  # our own file
    assert root.find("{*}title") is not None
    assert root.find("{*}desc") is not None
    assert "prefers-color-scheme: dark" in text


@each
def test_every_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    local = [link.split("#")[0] for link in links if not link.startswith(("http", "#"))]
    assert [link for link in local if not (document.parent / link).exists()] == []


@each
def test_every_block_says_its_language(document: Path) -> None:
    openings = re.findall(r"^```(.*)$", document.read_text(), re.MULTILINE)[::2]
    assert [language for language in openings if not language] == []


@each
def test_no_line_is_too_long_to_read(document: Path) -> None:
    lines = document.read_text().splitlines()
    assert [line for line in lines if len(line) > 108 and not line.startswith("|")] == []


@pytest.mark.parametrize("folder", ["examples", "scripts", "tests"])
def test_a_folder_s_readme_is_two_lines_and_says_what_does_not_belong(folder: str) -> None:
    heading, blank, *lines = (ROOT / folder / "README.md").read_text().splitlines()
    assert heading.startswith("# ")
    assert blank == ""
    assert len(lines) == 2
    assert re.search(r"not\s+belong", "\n".join(lines))


def test_what_is_new_is_on_top_of_the_changelog() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"


def twin(name: str) -> str:
    found = re.search(rf"<!-- twin: {name} -->\n```sh\n(.*?)^```$", CONTRIBUTING, re.S | re.M)
    assert found, name
    return found[1]


def test_the_docker_lines_use_the_table_s_flags_and_the_contract_s_options() -> None:
    build = twin("build")
    assert TABLE["cpu"].compiler_flags in build
    assert "--network none" in build
    assert "readonly" in build
    assert '--user "$(id -u):$(id -g)"' in build
    everything = "".join(twin(name) for name in ("dev", "build", "test", "deb"))
    assert "--privileged" not in everything
    assert LABEL not in everything  # what is made by hand is not ours to remove


def test_the_base_that_the_docker_lines_start_from_is_the_setting_s() -> None:
    assert f"BASE=${{BASE:-{DEFAULTS['base']}}}" in twin("dev")
    assert f"`{bootstrapped_tag(DEFAULTS['base'])}`" in CONTRIBUTING


def test_the_docker_lines_stage_what_the_dev_image_is_made_of() -> None:
    workshop = Workshop(root=ROOT, settings=Settings())
    words = shlex.split(twin("dev"), comments=True)
    for content in dev_recipe(workshop, Base("x", "y")).files.values():
        assert isinstance(content, Path)
        assert str(content.relative_to(ROOT)) in words
