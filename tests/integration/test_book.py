"""``invoke book``: chapters that were executed where they are read, or a sentence on why not."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway.errors import BAD_CONFIG
from tests.integration.conftest import Built
from tests.integration.test_preflight import on
from tests.integration.workbench import (
    ROOT,
    Checkout,
    Done,
    refused,
    rows_of,
    snapshot,
    succeed,
)

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

"""
LINE = HEAD.count("\n") + 3  # of the first cell's fence, in ``chapter``


def chapter(title: str, *cells: str, prose: str = "") -> str:
    """Markdown of a chapter; ``prose`` comes at the end."""
    fences = [f"```{{code-cell}} ipython3\n{cell}\n```\n" for cell in cells]
    return "\n".join([f"{HEAD}# {title}\n", *fences, prose]).rstrip("\n") + "\n"


ONE = chapter(
    "1. Add",
    "total = sum(range(5))\nprint('the sum is', total)",
    "open('made.txt', 'w').write(open('data/words.txt').read())",
    prose="A $\\frac{1}{2}$, [the plot](../02.plot/index.md#2.-Plot).\n\n![](data/dot.svg)\n",
)
TWO = chapter(
    "2. Plot",
    "import matplotlib.pyplot as plt\n\nplt.plot([1, 2], [2, 1])\nplt.show()",
    prose="$$\n\\sum_i x_i^2\n$$\n",
)
DOT = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="4"/></svg>\n'


class Shelf:
    """A clone with a small book of its own."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        self.source = checkout.root / "chapters"
        self.write("01.add", ONE)
        (self.source / "01.add" / "data").mkdir()
        (self.source / "01.add" / "data" / "words.txt").write_text("words\n")
        (self.source / "01.add" / "data" / "dot.svg").write_text(DOT)
        self.write("02.plot", TWO)

    def write(self, name: str, text: str) -> None:
        (self.source / name).mkdir(parents=True, exist_ok=True)
        (self.source / name / "index.md").write_text(text)

    def book(self, *arguments: str, **env: str) -> Done:
        """Type ``invoke book``; the settings come by the environment."""
        settings = {"INVOKE_BOOK": "chapters", **env}
        return self.checkout.invoke("book", *arguments, env=settings, timeout=900)

    def notebook(self, name: str) -> dict[str, Any]:
        file = self.checkout.out / "book" / "notebooks" / name / "index.ipynb"
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    def page(self, name: str) -> str:
        return (self.checkout.out / "book" / "html" / name / "index.html").read_text()

    @property
    def made(self) -> dict[str, Any]:
        """What the last book's receipt says."""
        file = self.checkout.out / "oar" / "book" / "receipts" / "book.json"
        facts: dict[str, Any] = json.loads(file.read_text())["facts"]
        return facts

    def images(self, client: Any) -> set[str]:
        """Names of the books that this checkout made."""
        found = client.images.list(filters=self.checkout.label)
        return {tag for i in found for tag in i.tags if "-book" in tag}


@pytest.fixture(scope="module")
def shelf(cloned: Callable[[str], Checkout]) -> Shelf:
    return Shelf(cloned("shelf"))


@pytest.fixture(scope="module")
def first(shelf: Shelf) -> str:
    """What was said when the book was made; nothing but out/ was written to."""
    before = snapshot(shelf.source)
    said = succeed(shelf.book())
    assert snapshot(shelf.source) == before
    return said


def texts(cell: dict[str, Any]) -> str:
    return "".join(t for output in cell["outputs"] for t in output.get("text", []))


def test_every_chapter_is_executed_and_the_notebooks_have_the_outputs(
    shelf: Shelf, first: str
) -> None:
    assert re.search(r"^executed 01\.add: 2 cells, \d", first, re.MULTILINE)
    assert re.search(r"^executed 02\.plot: 1 cell, \d", first, re.MULTILINE)
    cells = shelf.notebook("01.add")["cells"]
    assert [cell["cell_type"] for cell in cells] == ["markdown", "code", "code", "markdown"]
    assert texts(cells[1]) == "the sum is 10\n"
    assert "(../02.plot/index.ipynb#2.-Plot)" in "".join(cells[3]["source"])
    assert [cell["id"] for cell in cells] == ["cell-1", "cell-2", "cell-3", "cell-4"]
    assert all(cell["metadata"] == {} for cell in cells)
    (figure,) = (o for o in shelf.notebook("02.plot")["cells"][1]["outputs"] if "data" in o)
    assert figure["data"]["image/png"].startswith("iVBOR")
    # What lies beside the Markdown is shipped, what a cell wrote is not.
    kept = {p.name for p in (shelf.checkout.out / "book" / "notebooks" / "01.add").rglob("*.*")}
    assert kept == {"index.ipynb", "words.txt", "dot.svg"}


def test_pages_need_no_network_and_no_script(shelf: Shelf, first: str) -> None:
    assert first
    one, two, index = shelf.page("01.add"), shelf.page("02.plot"), shelf.page("")
    for page in (one, two, index):
        assert "<script" not in page
        assert re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", page) == []
        assert "@import" not in page
    assert re.search(r"<math .*?<mfrac>", one)
    assert '<math display="block"' in two
    assert "data:image/png;base64,iVBOR" in two
    assert "data:image/svg+xml;base64," in one
    assert 'href="../02.plot/index.html#2.-Plot"' in one
    assert 'id="2.-Plot"' in two
    assert re.search(r'href="01.add/index.html">1\. Add</a>', index)


def test_the_image_has_the_notebooks_and_what_they_import(
    shelf: Shelf, first: str, client: Any
) -> None:
    alias = shelf.made["alias"]
    assert re.fullmatch(r"oar-book:[\w.-]+", alias)
    assert f"made image {alias}" in first
    image = client.images.get(alias)
    assert image.attrs["Size"] <= 1.6e9
    assert image.labels["slipway.kind"] == "book"
    script = "import numpy, oar, os, paddle; print(*sorted(os.listdir('/opt/chapters')))"
    argv = ["docker", "run", "--rm", "--network", "none", "--user", "12345:12345", alias]
    done = subprocess.run(
        [*argv, "python3", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["01.add", "02.plot", "index.ipynb"]


def test_what_is_unchanged_is_not_executed_again(shelf: Shelf, first: str) -> None:
    assert first
    said = succeed(shelf.book())
    for what in (r"01\.add", r"02\.plot", r"oar-book:\S+"):
        assert re.search(rf"^{what} is unchanged since ", said, re.MULTILINE)
    assert "executed" not in said


@pytest.fixture
def extra(shelf: Shelf, first: str) -> Iterator[Callable[[str], None]]:
    """Write a third chapter, which goes again."""
    assert first
    directory = shelf.source / "03.more"
    yield lambda text: shelf.write("03.more", text)
    for path in sorted(directory.rglob("*"), reverse=True):
        path.unlink()
    directory.rmdir()


def stopped(done: Done, *words: str) -> None:
    """The error of a cell, with the cell's own traceback and none of ours."""
    head = re.compile(r"^(  \w+) +Traceback \(most recent call last\)$", re.MULTILINE)
    said = head.sub(r"\1", done.stdout, count=1)
    refused(subprocess.CompletedProcess(done.args, done.returncode, said, ""), 65, *words)


BAD_CELLS = {
    "raises": (
        "def f():\n    raise ValueError('no')\n\nf()",
        {},
        f"03.more, cell 1: ValueError: no\n  chapters/03.more/index.md:{LINE + 4}\n",
        "----> 4 f()",
    ),
    "prints for ever": (
        "while True:\n    print('x' * 1000)",
        {"INVOKE_BOOK_LIMITS_OUTPUT_KB": "100"},
        "03.more, cell 1: put out more than 100 kB, and was stopped",
        "book_limits.output_kb",
    ),
    "never ends": (
        "while True:\n    pass",
        {"INVOKE_BOOK_LIMITS_CELL_S": "2"},
        "03.more, cell 1: took longer than 2 s",
        "book_limits.cell_s",
    ),
    "asks for input": (
        "name = input('who? ')",
        {},
        "03.more, cell 1: asks for input",
        "nobody is there to type",
    ),
    "dies": ("import os\nos.abort()", {}, "03.more, cell 1: the kernel died", "crashed"),
    "fetches": (
        "import urllib.request\nurllib.request.urlopen('http://192.0.2.1/')",
        {},
        "03.more, cell 1: URLError",
        "Network is unreachable",
    ),
}


@pytest.mark.parametrize("name", BAD_CELLS)
def test_a_bad_cell_is_named_and_no_image_made(
    shelf: Shelf, extra: Callable[[str], None], client: Any, name: str
) -> None:
    code, env, *words = BAD_CELLS[name]
    before, images = snapshot(shelf.checkout.out / "book"), shelf.images(client)
    extra(chapter("3. More", code))
    stopped(shelf.book(**env), *words, "try: invoke book --chapter 03")
    assert snapshot(shelf.checkout.out / "book") == before
    assert shelf.images(client) == images


def test_a_chapter_that_takes_too_long_in_all(shelf: Shelf, extra: Callable[[str], None]) -> None:
    extra(chapter("3. More", *["import time\ntime.sleep(2)"] * 3))
    done = shelf.book(INVOKE_BOOK_LIMITS_CHAPTER_S="3")
    refused(done, 65, "03.more, cell 2: the chapter took longer than 3 s", "chapter_s")


MISTAKES = {
    "a fence without a language": ("```\nx\n```\n", "index.md:14: a code fence without a language"),
    "an unknown language": (
        "```pythonn\nx\n```\n",
        "no language 'pythonn'",
        "did you mean 'python'",
    ),
    "a broken link": ("[x](../04.x/index.md)\n", "index.md:14: no file for the link to ../04.x"),
    "a missing figure": ("![x](x.png)\n", "index.md:14: no file for the figure to x.png"),
    "a second title": ("# 4. More\n", "index.md:14: a second title"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_markdown_is_told_before_anything_runs(
    shelf: Shelf, extra: Callable[[str], None], client: Any, name: str
) -> None:
    text, *words = MISTAKES[name]
    images = shelf.images(client)
    extra(chapter("3. More", prose=text))
    done = shelf.book()
    refused(done, 65, "1 mistake in the book", "chapters/03.more/", *words)
    assert "$ docker" not in done.stdout
    assert shelf.images(client) == images


def test_a_chapter_without_a_title(shelf: Shelf, extra: Callable[[str], None]) -> None:
    extra(HEAD + "Words.\n")
    refused(shelf.book(), 65, "chapters/03.more/index.md:11: no title")


def test_a_chapter_that_is_another_text_when_it_is_made_again(
    shelf: Shelf, extra: Callable[[str], None], client: Any
) -> None:
    images = shelf.images(client)
    extra(chapter("3. More", "---\ntags: [x]\n---\nx = 1"))
    done = shelf.book()
    words = ["is another text when it is made from its notebook", "-tags: [x]", "+:tags: [x]"]
    refused(done, 65, f"03.more: {words[0]}", *words[1:])
    assert shelf.images(client) == images


def test_a_formula_that_is_no_latex(shelf: Shelf, extra: Callable[[str], None]) -> None:
    extra(chapter("3. More", prose="$\\fraction{1}{2}$\n"))
    refused(shelf.book(), 65, "has a formula with an unknown command \\fraction")


def test_a_chapter_alone_is_executed_and_no_image_made(
    shelf: Shelf, extra: Callable[[str], None], client: Any
) -> None:
    images = shelf.images(client)
    extra(chapter("3. More", "print(3)"))
    said = succeed(shelf.book("--chapter", "3"))
    assert re.findall(r"^executed (\S+):", said, re.MULTILINE) == ["03.more"]
    assert "the notebook: out/oar/book/chapters/03.more/index.ipynb" in said
    assert shelf.images(client) == images
    refused(shelf.book("--chapter", "7"), 64, "no chapter '7'", "02.plot")


def test_after_an_edit_that_chapter_alone_is_executed(
    shelf: Shelf, first: str, client: Any
) -> None:
    assert first
    before = shelf.made
    shelf.write("02.plot", TWO.replace("[2, 1]", "[2, 3]"))
    said = succeed(shelf.book())
    assert re.findall(r"^executed (\S+):", said, re.MULTILINE) == ["02.plot"]
    assert "01.add is unchanged since" in said
    assert shelf.made["tag"] != before["tag"]
    # A book takes more than a gigabyte: the one before is not kept.
    assert shelf.images(client) == {shelf.made["tag"], shelf.made["alias"]}


def test_a_chapter_executed_again_is_the_same_bytes(shelf: Shelf, first: str) -> None:
    assert first
    directory = shelf.checkout.out / "oar" / "book"
    notebook = directory / "chapters" / "02.plot" / "index.ipynb"
    before = notebook.read_bytes()
    (directory / "receipts" / "02.plot.json").unlink()
    assert "executed 02.plot" in succeed(shelf.book("--chapter", "2"))
    assert notebook.read_bytes() == before


def test_a_book_over_its_budget_is_not_kept(
    shelf: Shelf, extra: Callable[[str], None], client: Any
) -> None:
    images = shelf.images(client)
    extra(chapter("3. More", "print('large')"))
    done = shelf.book(INVOKE_BUDGETS_BOOK_MB="900")
    refused(done, 65, "more than its budget of 900 MB", "paddle", "budgets.book_mb")
    assert shelf.images(client) == images


def test_wheels_that_cannot_be_fetched(scratch: Checkout, client: Any) -> None:
    shelf = Shelf(scratch)
    wheel = f"six==1.16.0 --hash=sha256:{'0' * 64}\n"
    (scratch.root / "requirements-book.txt").write_text(wheel)
    settings = scratch.root / "closed.yaml"
    settings.write_text("mirrors: {pip: 'http://127.0.0.1:9/simple'}\nbook: chapters\n")
    done = scratch.invoke("-f", str(settings), "book", timeout=900)
    refused(done, done.returncode, "the reader image was not built", "mirrors.pip")
    assert shelf.images(client) == set()


def test_a_book_that_is_not_there(built: Built) -> None:
    done = built.checkout.invoke("book", env={"INVOKE_BOOK": "nowhere"})
    refused(done, 66, "no book: no directory", "nowhere")
    refused(built.checkout.invoke("book"), 78, "the settings name no book")


def test_on_a_cpu_without_avx_the_book_says_so_as_it_starts(
    shelf: Shelf, first: str, qemu: Path, client: Any
) -> None:
    """PaddlePaddle's wheel needs AVX, and would die of an illegal instruction."""
    assert first
    image = shelf.made["tag"]
    entry = client.images.get(image).attrs["Config"]["Entrypoint"]
    done = on("Nehalem", qemu, image, *entry, "read-book")
    assert done.returncode == BAD_CONFIG, done
    assert "needs a CPU with x86-64-v3 (AVX2, FMA), and this one has x86-64-v2" in done.stderr
    bare = on("Nehalem", qemu, image, "/opt/book/bin/python3", "-c", "import paddle")
    assert bare.returncode == 132


def test_all_ends_with_the_book_of_the_variant_that_has_one(shelf: Shelf, first: str) -> None:
    assert first
    env = {"INVOKE_BOOK": "chapters"}
    said = succeed(shelf.checkout.invoke("all", "--variant", "cpu", env=env, timeout=900))
    rows = rows_of(said)
    assert list(rows)[-1] == ("book", "cpu")
    assert rows["book", "cpu"][2].startswith(f"{shelf.made['alias']}, unchanged since")


@pytest.mark.skipif(not (ROOT / "book").is_dir(), reason="no chapters in this checkout")
def test_the_chapters_of_this_repository(built: Built) -> None:
    checkout = built.checkout
    said = succeed(checkout.invoke("book", env={"INVOKE_BOOK": "book"}, timeout=900))
    executed = re.findall(r"^executed (\d\d\.\S+): (\d+) cells", said, re.MULTILINE)
    assert [name for name, _ in executed] == sorted(p.name for p in (ROOT / "book").glob("*.*/"))
    for name, _ in executed:
        page = Path(checkout.out, "book", "html", name, "index.html").read_text()
        assert "data:image/png;base64," in page, f"{name} draws nothing"
        assert 'class="output_stderr' not in page.replace("output_subarea ", ""), f"{name} warns"
