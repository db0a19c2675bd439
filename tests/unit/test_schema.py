"""The JSON Schema of project.yaml: it is what the types are, and says what the docstrings say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from slipway import schema
from slipway.settings import ROOT

SCHEMA: dict[str, Any] = json.loads(schema.text())
PARTS: dict[str, dict[str, Any]] = SCHEMA["$defs"]
LEAST = {"name": "oar", "summary": "s", "license": "MIT", "maintainer": "Ann <a@example.org>"}


def errors(value: Any, rule: dict[str, Any], where: str = "") -> Iterator[str]:
    """What is wrong with a value, by the part of JSON Schema that ours uses."""
    if "$ref" in rule:
        rule = PARTS[rule["$ref"].rpartition("/")[2]]
    if "anyOf" in rule and all(any(errors(value, one)) for one in rule["anyOf"]):
        yield f"{where}: none of them"
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    if "type" in rule and not isinstance(value, kinds.get(rule["type"], type(None))):
        yield f"{where}: no {rule['type']}"
        return
    if "enum" in rule and value not in rule["enum"]:
        yield f"{where}: not one of {rule['enum']}"
    if isinstance(value, list):
        for item in value:
            yield from errors(item, rule.get("items", {}), where)
    if isinstance(value, dict):
        yield from (f"{where}: lacks {key}" for key in rule.get("required", []) if key not in value)
        for key, inner in value.items():
            other = rule.get("additionalProperties", {})
            known = rule.get("properties", {}).get(key, other)
            if known is False:
                yield f"{where}.{key}: unknown"
            else:
                yield from errors(inner, known, f"{where}.{key}")


def test_the_file_is_what_the_types_give() -> None:
    written = schema.FILE.read_text(encoding="utf-8")
    assert written == schema.text(), f"the types have changed; type: {schema.REWRITE}"


def test_every_key_is_described_in_one_line() -> None:
    texts = [p["description"] for part in PARTS.values() for p in part["properties"].values()]
    assert len(texts) > 40
    assert [t for t in texts if "\n" in t or "``" in t or "  " in t or not t] == []


def test_the_words_are_those_of_the_attribute_s_docstring() -> None:
    described = PARTS["Build"]["properties"]["directory"]["description"]
    assert described == "Sub-directory of the source that is built; empty: its top."


def test_unknown_keys_are_refused_in_every_part() -> None:
    assert {
        name for name, part in PARTS.items() if part["additionalProperties"] is not False
    } == set()


def test_an_editor_is_told_which_json_schema_it_is() -> None:
    assert SCHEMA["$schema"].endswith("/2020-12/schema")
    assert SCHEMA["$ref"] == "#/$defs/Project"


@pytest.mark.parametrize("file", sorted(ROOT.glob("examples/*/project.yaml")), ids=str)
def test_the_bundled_projects_are_valid_by_it(file: Path) -> None:
    assert list(errors(yaml.safe_load(file.read_text()), SCHEMA)) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, ""),
        ({"summarry": "x"}, ".summarry: unknown"),
        ({"build": {"option": {}}}, ".build.option: unknown"),
        ({"build": {"system": "bazel"}}, "not one of"),
        ({"test": {"pytest": "tests"}}, ".test.pytest: no array"),
        ({"variants": {"cpu": {"options": {"A": 1}}}}, ".variants.cpu.options.A: no string"),
        ({"source": {"sha256": {"cp313": "ab"}}}, ""),
        ({"test": {"ctest": None}}, ""),
    ],
)
def test_it_refuses_what_reading_refuses(more: dict[str, Any], words: str) -> None:
    found = "\n".join(errors({**LEAST, **more}, SCHEMA))
    assert words in found
    assert bool(found) == bool(words)


def test_a_string_that_follows_no_field_is_no_description() -> None:
    code = (
        'class A:\n    """A."""\n    x: int\n    """The\n    ``x``."""\n    y: int\n    """Y."""\n'
    )
    assert schema.attributes(code) == {"A": {"x": "The x.", "y": "Y."}}
    assert not re.search("``", schema.text())
