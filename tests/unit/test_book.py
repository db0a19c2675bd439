"""The book: what is wrong with a chapter, what is executed again, what its images are made of."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from slipway import book
from slipway.book import (
    LANGUAGES,
    Bench,
    Page,
    Problem,
    check,
    choose,
    files_of,
    has_book,
    pages_of,
)
from slipway.builds import Site
from slipway.engine import Docker
from slipway.errors import BAD_DATA, NO_INPUT, USAGE, SlipwayError, nearest
from slipway.housekeeping import KINDS
from slipway.images import ALIAS
from slipway.settings import ROOT
from tests.unit.fakes import make_site, make_tree, make_workshop

HEAD = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# 1. A title

"""
FIRST = HEAD.count("\n") + 1  # the line that comes after it


def problems(body: str, *there: str) -> list[Problem]:
    return check(HEAD + body, lambda path: path in there)


# -- mistakes that can be told without executing


def test_a_good_chapter_has_no_mistake() -> None:
    body = """\
Prose with `code [a](b.md)`, $f[x](y)$, a [link](../02.two/index.md#part), a [site](https://x.org),
a [mail](mailto:a@b.c), [below](#below) and ![a figure](figures/a%20b.svg).

$$
[a](b)
$$

```{code-cell} ipython3
:tags: [long]

# no title, and [no](link)
```

~~~text
```
~~~

``` python
x = 1
```
"""
    assert problems(body, "../02.two/index.md", "figures/a b.svg") == []


@pytest.mark.parametrize(
    ("body", "line", "words"),
    [
        ("```\nx\n```\n", 0, "a code fence without a language: write text, python or bash"),
        ("a\n\n~~~\nx\n~~~\n", 2, "a code fence without a language"),
        (
            "```pythonn\nx\n```\n",
            0,
            "no language 'pythonn' for a code fence; did you mean 'python'?",
        ),
        ("```{note}\nx\n```\n", 0, "a fence '{note}' that notebooks do not have"),
        ("```{code-cell} julia\nx\n```\n", 0, "a fence '{code-cell} julia' that notebooks do not"),
        ("```python\nx\n", 0, "a code fence without an end"),
        ("````python\n```\n", 0, "a code fence without an end"),
        ("$$\nx\n", 0, "a formula without an end"),
        ("# 2. Another\n", 0, "a second title: the first is in line 12"),
        ("[gone](../03.gone/index.md)\n", 0, "no file for the link to ../03.gone/index.md"),
        ("[of two\nlines](gone.md#x)\n", 1, "no file for the link to gone.md#x"),
        ("[a]: gone.md\n", 0, "no file for the link to gone.md"),
        ("![a figure](figures/gone.png)\n", 0, "no file for the figure to figures/gone.png"),
        ('<img src="gone.png" alt="">\n', 0, "no file for the figure to gone.png"),
        ("![a](https://x.org/a.png)\n", 0, "the figure https://x.org/a.png lies elsewhere"),
        ("[a](/etc/passwd)\n", 0, "the link to /etc/passwd is not relative"),
    ],
)
def test_a_mistake_is_told_with_its_line(body: str, line: int, words: str) -> None:
    (problem,) = problems(body)
    assert problem.line == FIRST + line
    assert problem.words.startswith(words)


def test_a_chapter_needs_a_title() -> None:
    (problem,) = check(HEAD.replace("# 1. A title", "```text\n# no title\n```"), lambda _: True)
    assert problem.words.startswith("no title")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("# A title\n", "no front matter: begin it with\n---\njupytext:"),
        ("---\na: 1\n\n# A title\n", "front matter without an end"),
        ("---\na: [1\n---\n# A title\n", "front matter that is no YAML"),
        ("---\na: 1\n---\n# A title\n", "front matter without jupytext or kernelspec"),
        ("---\njust words\n---\n# A title\n", "front matter without jupytext or kernelspec"),
        (HEAD.replace("myst", "markdown"), "format_name 'markdown' and kernel 'python3'"),
        (HEAD.replace("name: python3", "name: julia"), "format_name 'myst' and kernel 'julia'"),
    ],
)
def test_front_matter_says_that_it_is_a_notebook(head: str, words: str) -> None:
    (problem,) = check(head, lambda _: True)
    assert problem.line == 1
    assert problem.words.startswith(words)


def test_an_index_page_may_be_plain_markdown() -> None:
    assert check("# The book\n\n- words\n", lambda _: True, is_chapter=False) == []


# -- finding chapters


def write(root: Path, *names: str) -> Path:
    """A book with chapters of these names; empty: the index page."""
    directory = root / "book"
    for name in names:
        (directory / name).mkdir(parents=True, exist_ok=True)
        (directory / name / "index.md").write_text(HEAD)
    return directory


def test_the_pages_are_the_index_and_the_chapters_in_order(tmp_path: Path) -> None:
    directory = write(tmp_path, "", "02.two", "01.one", "figures", "drafts")
    assert [page.name for page in pages_of(directory)] == ["", "01.one", "02.two"]


def test_what_jupyter_and_python_leave_behind_is_no_part_of_a_chapter(tmp_path: Path) -> None:
    chapter = write(tmp_path, "01.one") / "01.one"
    for name in (".ipynb_checkpoints/a", "__pycache__/a", ".hidden", "data/a.csv", "data/.x"):
        (chapter / name).parent.mkdir(exist_ok=True)
        (chapter / name).touch()
    assert [f.relative_to(chapter).as_posix() for f in files_of(chapter)] == [
        "index.md",
        "data/a.csv",
    ]


@pytest.mark.parametrize("names", [(), ("figures",)])
def test_a_book_without_chapters_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    write(tmp_path, *names)
    with pytest.raises(SlipwayError) as caught:
        pages_of(tmp_path / "book")
    assert caught.value.code == NO_INPUT


def refused(directory: Path) -> SlipwayError:
    with pytest.raises(SlipwayError) as caught:
        book.check_pages(directory, pages_of(directory), lambda p: str(p.relative_to(directory)))
    assert caught.value.code == BAD_DATA
    return caught.value


def test_all_mistakes_of_a_book_are_told_at_once(tmp_path: Path) -> None:
    directory = write(tmp_path, "01.one", "02.two", "02.second", "03.three")
    (directory / "01.one" / "index.md").write_text(HEAD + "```x\n```\n[a](b)\n")
    (directory / "03.three" / "index.md").unlink()
    error = refused(directory)
    assert error.what == "4 mistakes in the book"
    assert error.cause.splitlines() == [
        f"01.one/index.md:{FIRST}: no language 'x' for a code fence; {nearest('x', LANGUAGES)}",
        f"01.one/index.md:{FIRST + 2}: no file for the link to b",
        "02.two: a second chapter of number 02, beside 02.second",
        "03.three: no index.md, which is the chapter",
    ]


def test_a_link_may_not_lead_out_of_the_book(tmp_path: Path) -> None:
    directory = write(tmp_path, "01.one")
    (tmp_path / "README.md").touch()
    (directory / "01.one" / "index.md").write_text(HEAD + "[a](../../README.md)\n")
    assert "no file for the link to ../../README.md" in refused(directory).cause


# -- choosing


PAGES = [Page(name, Path("/b", name), ()) for name in ("", "01.one", "02.two", "10.ten")]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("", ["", "01.one", "02.two", "10.ten"]),
        ("01", ["01.one"]),
        ("2", ["02.two"]),
        ("10, 01.one", ["01.one", "10.ten"]),
    ],
)
def test_chapters_are_chosen_by_number_or_name(wanted: str, names: list[str]) -> None:
    assert [page.name for page in choose(PAGES, wanted)] == names


@pytest.mark.parametrize("wanted", ["03", "tow", "two", "0"])
def test_a_chapter_that_is_not_there(wanted: str) -> None:
    with pytest.raises(SlipwayError, match=f"no chapter '{wanted}'") as caught:
        choose(PAGES, wanted)
    assert caught.value.code == USAGE
    assert "known: 01.one, 02.two, 10.ten" in caught.value.cause


# -- whether there is a book


def test_the_book_is_the_default_project_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    workshop = make_workshop(tmp_path)
    tree = make_tree(tmp_path / "examples" / "oar")
    assert not has_book(workshop, tree)
    write(tmp_path, "01.one")
    assert has_book(workshop, tree)
    assert not has_book(workshop, make_tree(tmp_path / "examples" / "other"))
    assert not has_book(make_workshop(tmp_path, book=""), tree)


# -- what is executed again


@pytest.fixture
def site(tmp_path: Path) -> Site:
    write(tmp_path, "01.one")
    return make_site(tmp_path)


def key(site: Site) -> str:
    directory = site.workshop.root / "book"
    bench = Bench(site, directory, "reader:1", book.image_inputs(site, "slipway-dev:1"))
    (page,) = pages_of(directory)
    return bench.key(page)


@pytest.mark.parametrize(
    "file",
    [
        "book/01.one/index.md",
        "book/01.one/data/new.csv",
        "Dockerfile.book",
        "Dockerfile.prod",
        "requirements-book.txt",
        "scripts/book",
        "examples/oar/CMakeLists.txt",
        "examples/oar/project.yaml",
    ],
)
def test_a_chapter_is_executed_again_when_it_or_what_it_runs_in_changes(
    site: Site, file: str
) -> None:
    before = key(site)
    assert key(site) == before
    path = site.workshop.root / file
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as stream:
        stream.write("more\n")
    assert key(site) != before


def test_a_commit_that_changes_neither_executes_nothing_again(site: Site) -> None:
    from msgspec.structs import replace

    before = key(site)
    version = replace(site.tree.version, pep440="1.2.1", commit="f" * 40, epoch=1)
    assert key(replace(site, tree=replace(site.tree, version=version))) == before


# -- the images


def test_the_reader_image_is_the_production_image_and_the_wheels(site: Site) -> None:
    recipe = book.reader_recipe(site, "slipway-c-oar:1", "slipway-dev:1")
    assert recipe.target == recipe.kind == "reader"
    assert recipe.base.reference == "slipway-c-oar:1"
    assert recipe.arguments == {"DEV": "slipway-dev:1"}
    other = book.reader_recipe(site, "slipway-c-oar:2", "slipway-dev:1")
    assert recipe.tag != other.tag
    assert recipe.tag.startswith(f"slipway-{site.workshop.checkout}-oar-reader:")


def test_the_book_s_image_is_the_reader_s_and_the_notebooks(site: Site, tmp_path: Path) -> None:
    notebooks = tmp_path / "notebooks"
    (notebooks / "01.one").mkdir(parents=True)
    file = notebooks / "01.one" / "index.ipynb"
    file.write_text("{}")
    recipe = book.recipe(site, "slipway-c-oar:1", "slipway-dev:1", notebooks)
    assert recipe.files["chapters/01.one/index.ipynb"] == file
    assert recipe.labels[ALIAS] == "oar-book:1.2.0"
    before = recipe.tag
    file.write_text("{ }")
    assert recipe.tag != before
    assert KINDS.index("prod") < KINDS.index("reader") < KINDS.index(recipe.kind)


def test_chapters_are_executed_offline_and_see_the_book_read_only(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def run(_: Docker, job: Any, image: str, __: Any = None) -> int:
        seen.append((job, image))
        return 1

    monkeypatch.setattr(Docker, "run", run)
    directory = site.workshop.root / "book"
    bench = Bench(site, directory, "reader:1", "")
    (page,) = pages_of(directory)
    with pytest.raises(SlipwayError, match=r"01\.one was not executed: status 1"):
        book.execute(bench, page)
    ((job, image),) = seen
    assert image == "reader:1"
    assert not job.network
    assert {m.source: m.readonly for m in job.mounts}[directory]
    assert job.command[1:3] == ["execute", str(directory / "01.one")]
    assert job.command[4:] == ["90", "180", "2000"]


def test_a_failure_says_where_it_is(tmp_path: Path) -> None:
    page = Page("03.three", Path("/book/03.three"), ())
    file = tmp_path / "failure.json"
    facts = {"what": "ValueError: no", "cause": "a traceback", "line": 57, "cell": 4}
    file.write_text(json.dumps(facts))
    error = book.failure(page, file, 65, str)
    assert error.what == "03.three, cell 4: ValueError: no"
    assert error.cause == "/book/03.three/index.md:57\na traceback"
    assert error.fix == ("invoke book --chapter 03, once that is mended",)
    assert error.code == BAD_DATA


# -- scripts/book: its text functions; what it does with a kernel is in tests/integration


@pytest.fixture(scope="module")
def script() -> Iterator[dict[str, Any]]:
    """The script's functions; the packages of the book's image are not here."""
    names = ("jupytext", "nbformat", "latex2mathml", "latex2mathml.converter", "nbclient")
    stand_ins = {name: ModuleType(name) for name in (*names, "nbclient.exceptions")}
    stand_ins["latex2mathml.converter"].__dict__["convert"] = str
    stand_ins["nbclient"].__dict__["NotebookClient"] = object
    for name in ("CellExecutionError", "CellTimeoutError", "DeadKernelError"):
        stand_ins["nbclient.exceptions"].__dict__[name] = Exception
    with pytest.MonkeyPatch.context() as patch:
        for name, module in stand_ins.items():
            patch.setitem(sys.modules, name, module)
        yield runpy.run_path(str(ROOT / "scripts" / "book"))


def test_the_line_of_each_cell_s_code_is_found(script: dict[str, Any]) -> None:
    text = """\
```{code-cell} ipython3
a
```

```text
```{code-cell}
```

```{code-cell} ipython3
:tags: [x]

b
```
```{code-cell}
---
tags: [x]
---
c
```
```{code-cell}
```
"""
    assert script["cell_lines"](text) == [2, 12, 18, 21]


@pytest.mark.parametrize(
    ("url", "page"),
    [
        ("../02.two/index.md", "../02.two/index.html"),
        ("index.md#part", "index.html#part"),
        ("data/README.md", "data/README.md"),
        ("https://x.org/index.md", "https://x.org/index.md"),
        ("../myindex.md", "../myindex.md"),
    ],
)
def test_links_between_chapters_lead_to_pages(script: dict[str, Any], url: str, page: str) -> None:
    assert script["to_page"](url, ".html") == page
    linked = script["to_notebooks"](f"see [it]({url}) and [that](x.md)")
    assert linked == f"see [it]({page.replace('.html', '.ipynb')}) and [that](x.md)"


def test_a_traceback_is_shown_without_colours_and_not_whole_when_long(
    script: dict[str, Any],
) -> None:
    assert (
        script["shortened"](f"x\n{'-' * 75}\n\x1b[31mValueError\x1b[0m: no\n") == "ValueError: no"
    )
    long = script["shortened"]("\n".join(str(n) for n in range(100)))
    assert long.splitlines()[0] == "0"
    assert "... 52 lines ..." in long
    assert long.splitlines()[-1] == "99"


def test_versions_of_jupytext_are_left_out_unless_the_chapter_has_them(
    script: dict[str, Any],
) -> None:
    made = "a:\n    format_version: 0.13\n    jupytext_version: 1.19\nb\n"
    assert script["without_versions"](made, "a:\nb\n") == "a:\nb\n"
    assert script["without_versions"](made, made) == made
