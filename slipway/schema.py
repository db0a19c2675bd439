"""JSON Schema of project.yaml, made from its types: what editors complete and check by.

It is committed as ``project.schema.json``, so that a file can name it by a relative path.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import msgspec

from slipway import project, sources

FILE = Path(__file__).with_name("project.schema.json")
REWRITE = "./go invoke init --schema > slipway/project.schema.json"


def text() -> str:
    """The schema as its file has it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def schema() -> dict[str, Any]:
    """The schema of a whole project.yaml, each key with its docstring as the description."""
    made = msgspec.json.schema(project.Project)
    told: dict[str, dict[str, str]] = {}
    for module in (project, sources):
        told |= attributes(Path(str(module.__file__)).read_text(encoding="utf-8"))
    for name, part in made["$defs"].items():
        part["description"] = plain(part["description"])
        for key, described in part["properties"].items():
            described["description"] = told[name][key]
            if "$ref" in described:
                # The defaults of a part's own keys stand with these.
                del described["default"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Slipway's project.yaml",
        **made,
    }


def attributes(code: str) -> dict[str, dict[str, str]]:
    """The docstrings of attributes, by class and name: the string that follows a typed field."""
    classes = [node for node in ast.parse(code).body if isinstance(node, ast.ClassDef)]
    return {node.name: _documented(node) for node in classes}


def _documented(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for field, text in zip(node.body, node.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            named, value = field.target, text.value
            if isinstance(named, ast.Name) and isinstance(value, ast.Constant):
                found[named.id] = plain(str(value.value))
    return found


def plain(docstring: str) -> str:
    """A docstring as one line, without reStructuredText's backquotes."""
    return " ".join(docstring.replace("``", "").split())
