"""A project.yaml as text: what a survey saw, each value with a comment that says where.

Lines are made by hand, since comments are half of it; values are quoted by YAML's own writer.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from slipway.survey import Survey
from slipway.survey.ground import Seen

WIDTH = 100
HUGE = 1 << 30  # YAML's writer breaks no line

UNKNOWN_LICENSE = "LicenseRef-unknown"
UNKNOWN_MAINTAINER = "Your Name <you@example.org>"

HEAD = """\
How {name} is built, tested and packaged. `invoke init` wrote this from what it saw in \
{place}, and it is yours to edit. All keys: `invoke init --schema`."""


def draft(
    seen: Survey, *, name: str, source: Mapping[str, Any], remark: str, place: str, schema: str
) -> str:
    """The text of a project.yaml.

    :param source: the part of that name.
    :param remark: what a person should know of the source.
    :param place: what was looked at.
    :param schema: where the JSON Schema is, from the file's directory.
    """
    lines = [f"# yaml-language-server: $schema={schema}"]
    lines += comment(HEAD.format(name=name, place=place))
    lines += [""]
    lines += about(seen, name)
    lines += part("source", [*notes(remark), *hints(seen, "source"), *nested(source)])
    if seen.mark:
        lines += part("build", build(seen))
    else:
        text = "A prebuilt wheel's code is what it is: name the variants whose CPUs run it."
        lines += ["", *comment(text), "# variants: {cpu: {}}"]
    lines += part("test", test(seen))
    lines += part("package", package(seen))
    lines += part("image", image(seen))
    return "\n".join(lines) + "\n"


def about(seen: Survey, name: str) -> list[str]:
    """The keys at the top."""
    came = f"from {seen.name.where}" if seen.name else "after the directory"
    lines = entry("name", name, came)
    # A name alone tells nothing, and lintian calls so short a description an error.
    summary = seen.summary if seen.summary and len(seen.summary.value) >= 10 else None
    lines += or_not("summary", summary, f"the {name} library", "not found: what it is, in one line")
    lines += or_not(
        "license",
        seen.license,
        UNKNOWN_LICENSE,
        "not found: its name by https://spdx.org/licenses",
    )
    if seen.homepage:
        lines += or_not("homepage", seen.homepage, "", "")
    else:
        lines += ['# homepage: ""  # not found: address of the project\'s page']
    return lines + or_not(
        "maintainer", seen.maintainer, UNKNOWN_MAINTAINER, "not found: who makes the packages"
    )


def build(seen: Survey) -> list[str]:
    """What is in ``build``."""
    if seen.mark is None:
        return []
    file = f"{seen.directory}/{seen.mark.file}" if seen.directory else seen.mark.file
    kind = f"{seen.mark.kind}, " if seen.mark.kind.lower() != seen.mark.system else ""
    lines = entry("system", seen.mark.system, f"{kind}from {file}")
    if seen.directory:
        lines += entry("directory", seen.directory, "the only one with a build system")
    if seen.options:
        lines += ["options:"]
        for key, value in seen.options.items():
            lines += indented(entry(key, value.value, value.where))
    if seen.commands:
        lines += ["commands:", *items([Seen(command, "") for command in seen.commands])]
    lines += hints(seen, "apt")
    if seen.apt:
        lines += ["apt:", *items(seen.apt)]
    if seen.pip:
        lines += ["pip:", *items(seen.pip)]
    return lines + hints(seen, "build")


def test(seen: Survey) -> list[str]:
    """What is in ``test``."""
    lines = hints(seen, "test")
    is_cmake = seen.mark is not None and seen.mark.system == "cmake"
    if is_cmake and (seen.ctest or seen.options):
        lines += entry(
            "ctest", True, f"{seen.ctest.value}, {seen.ctest.where}" if seen.ctest else ""
        )
    elif is_cmake:
        lines += entry("ctest", False, "not found: enable_testing() or add_test() in CMake's files")
    if seen.pytest:
        lines += entry("pytest", [seen.pytest.value], f"{seen.pytest.where}, for one")
        if is_cmake:
            lines += comment("pythonpath: [DIR]  # of the build directory, where modules are made")
    if seen.checks:
        lines += ["commands:", *items(seen.checks)]
    if not (seen.ctest or seen.options or seen.pytest or seen.checks):
        lines += comment("not found: tests. pytest: [DIR], or commands: [make check]")
    return lines


def package(seen: Survey) -> list[str]:
    """What is in ``package``."""
    lines = hints(seen, "package")
    if seen.mark is None or seen.mark.system == "pep517":
        lines += entry("section", "python")
    if seen.headers:
        lines += entry("dev", True, f"{seen.headers.value}, {seen.headers.where}")
    if seen.depends:
        lines += comment("Debian's packages of the same, by its rule for names: apt show tells")
        lines += ["depends:", *items(seen.depends)]
    return lines


def image(seen: Survey) -> list[str]:
    """What is in ``image``."""
    if not seen.module:
        return []
    show = f'import {seen.module} as m; print(m.__name__, getattr(m, "__version__", ""))'
    return entry("about", ["python3", "-c", show])


# -- lines


def or_not(key: str, seen: Seen | None, otherwise: str, missing: str) -> list[str]:
    """A key with what was seen, or with what stands for it until a person fills it in."""
    if seen is None:
        return entry(key, otherwise, missing)
    return entry(key, seen.value, f"from {seen.where}")


def hints(seen: Survey, where: str) -> list[str]:
    """What a person has to know of a part."""
    return [line for hint in seen.hints if hint.where == where for line in comment(hint.value)]


def notes(text: str) -> list[str]:
    """A comment, or nothing."""
    return comment(text) if text else []


def part(key: str, lines: Sequence[str]) -> list[str]:
    """A mapping below a key, after an empty line; all a comment where only comments are in it."""
    if not lines:
        return []
    inner = indented(lines)
    if all(line.startswith("#") for line in lines):
        return ["", f"# {key}:", *(f"# {line.replace('# ', '', 1)}" for line in inner)]
    return ["", f"{key}:", *inner]


def nested(values: Mapping[str, Any]) -> list[str]:
    """A mapping, or mappings in it, a key a line."""
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines += [f"{key}:", *indented(nested(value))]
        else:
            lines += entry(key, value)
    return lines


def items(rows: Iterable[Seen]) -> list[str]:
    """A list, an item a line, each with where it was seen."""
    lines = []
    for row in rows:
        lines += indented(commented(f"- {scalar(row.value)}", row.where))
    return lines


def entry(key: str, value: Any, remark: str = "") -> list[str]:
    """``key: value`` and a comment."""
    return commented(f"{scalar(key)}: {scalar(value)}", remark)


def commented(line: str, remark: str) -> list[str]:
    """A line with its comment behind it, or above it where the line gets too long."""
    if not remark:
        return [line]
    whole = f"{line}  # {printable(remark)}"
    return [whole] if len(whole) <= WIDTH - 6 else [*comment(remark), line]


def comment(text: str) -> list[str]:
    """A comment of as many lines as it takes."""
    wrapped = textwrap.wrap(
        printable(text), WIDTH - 8, break_long_words=False, break_on_hyphens=False
    )
    return [f"# {line}" for line in wrapped]


def printable(text: str) -> str:
    """A text in one line, without what YAML takes in no comment."""
    return " ".join(re.sub(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd]", " ", text).split())


def indented(lines: Iterable[str]) -> list[str]:
    """Lines of a level below."""
    return [f"  {line}" for line in lines]


def scalar(value: Any) -> str:
    """A value as YAML writes it in one line, whatever is in it."""
    style = '"' if isinstance(value, str) and "\n" in value else None
    text = yaml.safe_dump(
        value, default_flow_style=True, default_style=style, allow_unicode=True, width=HUGE
    )
    return text.removesuffix("...\n").strip()
