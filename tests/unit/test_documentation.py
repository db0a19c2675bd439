"""The documentation: its reference is what runs, its mistakes are told by file and line."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

import tasks
from slipway import documentation, project, reference, schema
from slipway.documentation import facts_of, headers_of, job_of, line_of, located, mistakes
from slipway.errors import BAD_DATA, NO_INPUT, SlipwayError
from slipway.images import docs_recipe
from slipway.project import Documented
from slipway.reference import Flag, TaskFacts
from slipway.settings import DEFAULTS, ROOT, Settings
from tests.unit.fakes import make_site, make_tree, make_workshop

DOCS = ROOT / "docs"
RECIPES = sorted((DOCS / "recipes").glob("[!i]*.md"))
ROLES = [
    *("adopting-team", "application-developer", "contributor"),
    *("reader", "release-engineer", "writer"),
]


def blocks(text: str) -> list[str]:
    return re.findall(r"^```bash recipe\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/docs as a module."""
    file = str(ROOT / "scripts" / "docs")
    loader = importlib.machinery.SourceFileLoader("scripts_docs", file)
    spec = importlib.util.spec_from_loader("scripts_docs", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


# -- the reference


def test_a_task_s_page_has_every_flag_with_its_help() -> None:
    flags = (
        Flag("script", "a script", takes_value=True, positional=True),
        Flag("jobs", "so | many", takes_value=True),
        Flag("yes", "do not ask", takes_value=False),
    )
    text = reference.tasks_page([TaskFacts("build", "Compile.", flags), TaskFacts("dev", "Make.")])
    assert "## build\n\nCompile.\n" in text
    assert "invoke build SCRIPT [FLAGS]" in text
    assert "| `--jobs JOBS` | so \\| many |" in text
    assert "| `--yes` | do not ask |" in text
    assert "## dev\n\nMake.\n\n```text\ninvoke dev [FLAGS]\n```\n\nIt has no flags." in text


def test_the_settings_page_has_every_setting_with_its_default_and_meaning() -> None:
    text = reference.settings_page()
    first = text.split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", first, re.MULTILINE)
    assert [row[0] for row in rows] == list(DEFAULTS)
    shown = {key: (default, meaning) for key, default, meaning in rows}
    assert shown["base"][0] == '`"debian:trixie-slim"`'
    assert "debian:bookworm-slim" in shown["base"][1]
    assert "| `dev_mb` | `800` |" in text
    for name in ("variants.NAME", "mirrors", "book_limits", "budgets"):
        assert f"](#{reference.anchor(name)})" in first
        assert f"\n## {name}\n" in text


def test_the_project_page_has_every_key_of_every_part() -> None:
    text = reference.project_page()
    sections = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    parts = schema.schema()["$defs"]
    assert len(sections) == len(parts)
    found = {tuple(re.findall(r"^\| `(\w+)` \|", s, re.MULTILINE)) for s in sections.values()}
    assert found == {tuple(part["properties"]) for part in parts.values()}
    linked = set(re.findall(r"\]\(#([\w-]+)\)", text))
    assert linked == {reference.anchor(name) for name in sections} - {"all-keys"}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"type": "string"}, "text"),
        ({"type": "array", "items": {"type": "integer"}}, "list of number"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "name to text"),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "yes or no"),
        ({"enum": ["a", "b"]}, "`a`, `b`"),
        ({"$ref": "#/$defs/Row"}, "part [variants.NAME](#variantsname)"),
    ],
)
def test_what_a_value_may_be_is_said_in_a_few_words(rule: dict[str, object], words: str) -> None:
    assert reference.kind_of(rule, {"Row": "variants.NAME"}) == words


def test_a_cell_holds_nothing_that_markdown_acts_on() -> None:
    assert reference.cell("a|b\n  <c> *d* _e_ {f} [g]") == (
        "a\\|b \\<c> \\*d\\* \\_e\\_ \\{f} \\[g]"
    )


def test_every_module_of_slipway_has_a_page() -> None:
    names = reference.modules_of(ROOT / "slipway")
    assert {"slipway.builds", "slipway.documentation", "slipway.survey"} <= set(names)
    assert all(name.isascii() and "__init__" not in name for name in names)
    assert len(names) == len(set(names)) == len(list((ROOT / "slipway").rglob("*.py"))) - 1


def test_the_pages_lead_to_headers_and_modules(tmp_path: Path) -> None:
    (tmp_path / "include" / "oar").mkdir(parents=True)
    for name in ("oar/b.h", "oar/a.hpp", "oar/notes.txt"):
        (tmp_path / "include" / name).write_text("")
    headers = reference.headers_of([tmp_path / "include"])
    assert headers == ["oar/a.hpp", "oar/b.h"]
    made = reference.pages(
        [],
        ours=["slipway.builds"],
        name="oar",
        headers=headers,
        modules=["oar.ops"],
        with_index=True,
    )
    assert "oar-a.hpp\noar-b.h\noar.ops\n" in made["tree/index.md"]
    assert ".. doxygenfile:: a.hpp" in made["tree/oar-a.hpp.md"]
    assert ".. automodule:: oar.ops" in made["tree/oar.ops.md"]
    assert "# oar\n" in made["index.md"]
    assert set(made) >= {"slipway/builds.md", "tasks.md", "settings.md", "project.md"}


# -- what the script is told


def test_the_pages_by_hand_lead_where_there_are_some(tmp_path: Path) -> None:
    site = make_site(tmp_path, docs={"modules": ["oar.ops", "oar"]}, test={"pythonpath": ["py"]})
    out = tmp_path / "out"
    bare = facts_of(site, out / "work", out / "docs")
    assert bare["root_doc"] == "generated/index"
    assert bare["title"] == "oar"
    assert bare["pages"] == ["generated/**.md"]
    assert bare["packages"] == ["oar", "slipway"]
    assert bare["pythonpath"] == [str(site.build / "py")]
    assert bare["xml"] == ""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Home\n")
    whole = facts_of(site, out / "work", out / "docs")
    assert whole["root_doc"] == "docs/index"
    assert whole["title"] == "Slipway"
    assert "docs/**.md" in whole["pages"]


def test_the_checkout_is_read_and_two_directories_are_written(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    job = job_of(site, tmp_path / "out" / "work", tmp_path / "out" / "docs")
    assert not job.network
    written = [mount.source.name for mount in job.mounts if not mount.readonly]
    assert written == ["work", "docs"]
    assert [m.source for m in job.mounts if m.readonly] == [tmp_path]


def test_a_tree_elsewhere_is_seen_too(tmp_path: Path) -> None:
    site = make_site(tmp_path / "checkout")
    elsewhere = msgspec.structs.replace(site, tree=make_tree(tmp_path / "elsewhere"))
    job = job_of(elsewhere, tmp_path / "work", tmp_path / "html")
    assert tmp_path / "elsewhere" in [m.source for m in job.mounts if m.readonly]


def test_a_directory_of_headers_that_is_not_there_is_named_with_the_nearest(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "oar", docs={"headers": ["incldue"]})
    (tree.source / "include").mkdir()
    with pytest.raises(SlipwayError) as caught:
        headers_of(tree)
    assert caught.value.code == NO_INPUT
    assert "did you mean 'include'?" in caught.value.cause


def test_headers_lie_below_the_source() -> None:
    with pytest.raises(ValueError, match=r"'\.\./x' is not below the source"):
        Documented(headers=("../x",))


def test_the_image_is_the_dev_image_and_its_lock(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    recipe = docs_recipe(workshop, "slipway-dev:0123456789ab")
    assert recipe.arguments == {"DEV": "slipway-dev:0123456789ab"}
    assert recipe.tag.startswith("slipway-dev-docs:")
    before = recipe.key
    (tmp_path / "requirements-docs.txt").write_text("sphinx==1\n")
    assert recipe.key != before


# -- mistakes


CODE = '''"""A module."""

def f() -> None:
    """Does.

    More."""

class C:
    """A class."""

    def m(self) -> None:
        """A method."""
'''


@pytest.mark.parametrize(
    ("name", "line"),
    [("pkg.x", 1), ("pkg.x.f", 4), ("pkg.x.C", 9), ("pkg.x.C.m", 12), ("pkg.x.gone", 1)],
)
def test_a_docstring_is_found_by_the_name_it_belongs_to(name: str, line: int) -> None:
    assert line_of(CODE, name) == line


def test_a_line_of_a_docstring_is_a_line_of_its_file() -> None:
    problem = "/a/x.py:docstring of pkg.x.f:3: Unknown target name. [docutils]"
    assert located(problem, lambda _: CODE) == "/a/x.py:6: Unknown target name. [docutils]"
    assert located("/a/x.md:3: no", lambda _: CODE) == "/a/x.md:3: no"


def test_mistakes_are_listed_once_each_by_file_and_line() -> None:
    error = mistakes(
        ["/r/docs/b.md:2: two", "/r/docs/a.md:9: one", "/r/docs/b.md:2: two", "WARNING: three"],
        lambda path: str(path.relative_to("/r")),
    )
    assert error.what == "3 mistakes in the documentation"
    assert error.cause.splitlines() == ["WARNING: three", "docs/a.md:9: one", "docs/b.md:2: two"]
    assert error.code == BAD_DATA


def test_what_sphinx_says_over_several_lines_is_one_mistake(script: ModuleType) -> None:
    said = (
        "/s/docs/a.md:3: WARNING: 'myst' cross-reference target not found: 'x.md'\n"
        "WARNING: autodoc: failed to import 'oar'; the following exception was raised:\n"
        "Traceback (most recent call last):\n"
        '  File "x.py", line 1, in <module>\n'
        "ModuleNotFoundError: No module named 'numpy' [autodoc.import_object]\n"
    )
    first, second = script.joined(said)
    assert first == "/s/docs/a.md:3: 'myst' cross-reference target not found: 'x.md'"
    assert second.endswith(
        "raised:  ModuleNotFoundError: No module named 'numpy' [autodoc.import_object]"
    )
    assert "File" not in second


def test_a_link_that_leads_nowhere_is_found_on_its_page(tmp_path: Path, script: ModuleType) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.html").write_text(
        '<a class="x" href="sub/b.html#there">b</a> <a href="sub/b.html#gone">b</a>'
        ' <a href="#top" id="top">t</a> <img alt="" src="gone.svg"/> <a href="https://x.org">x</a>'
    )
    (tmp_path / "sub" / "b.html").write_text('<p id="there"><a href="../a.html">a</a></p>')
    assert list(script.links(tmp_path)) == [("a", "sub/b.html#gone"), ("a", "gone.svg")]


def test_a_page_with_a_mistake_is_read_again_next_time(tmp_path: Path, script: ModuleType) -> None:
    source, work = tmp_path / "source", tmp_path / "work"
    (work / "doctrees").mkdir(parents=True)
    memory = work / "doctrees" / "environment.pickle"
    memory.write_text("")
    page = source / "docs" / "a.md"
    page.parent.mkdir(parents=True)
    page.write_text("")
    os.utime(page, (1, 1))
    script.remember([f"{tmp_path}/docs/a.md:1: wrong"], tmp_path, source, work)
    assert page.stat().st_mtime > 1
    assert memory.exists()
    module = source / "generated" / "slipway" / "console.md"
    module.parent.mkdir(parents=True)
    module.write_text("")
    os.utime(module, (1, 1))
    problem = f"{tmp_path}/slipway/console.py:docstring of slipway.console.bold:1: wrong"
    script.remember([problem], tmp_path, source, work)
    assert module.stat().st_mtime > 1
    assert memory.exists()
    script.remember(["<unknown>:1: wrong"], tmp_path, source, work)
    assert not memory.exists()


def test_pages_of_what_is_gone_go(tmp_path: Path, script: ModuleType) -> None:
    source, html = tmp_path / "source", tmp_path / "html"
    for directory in (source, html):
        directory.mkdir()
    (source / "a.md").write_text("")
    for name in ("a", "b", "genindex", "search"):
        (html / f"{name}.html").write_text("")
    script.remove_stale(html, source)
    assert sorted(p.stem for p in html.iterdir()) == ["a", "genindex", "search"]


# -- the pages by hand


def test_every_role_has_recipes_with_the_task_and_plain_docker() -> None:
    assert [page.stem for page in RECIPES] == ROLES
    index = (DOCS / "recipes" / "index.md").read_text()
    for page in RECIPES:
        typed = "".join(blocks(page.read_text()))
        assert re.search(r"^\./go invoke \w+", typed, re.MULTILINE), page
        assert re.search(r"\bdocker (run|build)\b", typed), page
        assert "--privileged" not in typed
        assert f"\n{page.stem}\n" in index


def test_a_recipe_s_tasks_exist() -> None:
    pages = [*RECIPES, DOCS / "tutorial.md"]
    typed = "".join(text for page in pages for text in blocks(page.read_text()))
    assert set(re.findall(r"\./go invoke (\w+)", typed)) <= set(tasks.namespace.tasks)


def test_what_is_documented_of_oar_is_there() -> None:
    read = project.read(ROOT / "examples" / "oar" / "project.yaml")
    assert all((ROOT / "examples" / "oar" / name).is_dir() for name in read.docs.headers)
    assert read.docs.modules
    assert Path("docs/index.md") == documentation.HOME
    assert (ROOT / documentation.HOME).is_file()
    assert Settings().project == "examples/oar"
