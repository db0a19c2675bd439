"""Sphinx's settings for `invoke docs`; what differs from run to run comes by the environment."""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

_told = json.loads(Path(os.environ["SLIPWAY_DOCS"]).read_text(encoding="utf-8"))

sys.path[:0] = [*_told["pythonpath"], _told["root"]]

from slipway.reference import modules_of  # noqa: E402


def _see_types(names: list[str]) -> None:
    """Import what modules import for type checkers alone: signatures name it."""
    found = []
    for name in names:
        with contextlib.suppress(ImportError):  # autodoc says it better
            found.append(importlib.import_module(name))
    for module in found:
        for node in ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                body = ast.Module(node.body, [])
                with contextlib.suppress(ImportError):  # what is a stub file alone
                    exec(compile(body, str(module.__file__), "exec"), module.__dict__)  # noqa: S102


_see_types([*modules_of(Path(_told["root"]) / "slipway"), *_told["modules"]])

project = _told["title"]
root_doc = _told["root_doc"]
include_patterns = _told["pages"]
exclude_patterns = ["**/.*"]
extensions = ["myst_parser", "sphinx.ext.autodoc", *(["breathe"] if _told["xml"] else [])]
html_theme = "furo"
html_title = project
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False

# Every reference to what is documented here has to lead somewhere. Others' types have no pages.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", rf"(?!({'|'.join(_told['packages'])})\.).*|.*\.T|.*\._.*"),
    (r"cpp:identifier", r"(std|CU\w+|u?int\d+_t|size_t|Index).*"),
    (r"cpp:.*", r"(std::)?(u?int\d+_t|size_t|string|vector|runtime_error).*"),
]

myst_heading_anchors = 4
myst_links_external_new_tab = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
suppress_warnings = ["duplicate_declaration.cpp"]  # a namespace that two headers open

breathe_projects = {"tree": _told["xml"]}
breathe_default_project = "tree"
breathe_default_members = ("members",)
breathe_show_include = False


def _without_pages(app: Any, docname: str, content: list[str]) -> None:
    """A link to a directory, or to a page that is not made here, is its text alone."""
    home = (Path(app.srcdir) / docname).parent

    def plain(match: re.Match[str]) -> str:
        target = (home / match["target"]).absolute()
        inside = Path(os.path.normpath(target))
        is_page = inside.suffix == ".md" and inside.relative_to(app.srcdir).parts[0] == "examples"
        return match["text"] if target.is_dir() or (is_page and target.is_file()) else match[0]

    content[0] = re.sub(r"(?<!!)\[(?P<text>[^]]+)\]\((?P<target>[^)\s:#]+)\)", plain, content[0])


def setup(app: Any) -> None:
    """What Sphinx calls."""
    app.connect("source-read", _without_pages)
