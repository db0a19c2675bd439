"""The documentation's reference: pages made from the tasks, the settings and project.yaml's types.

Pure: facts in, Markdown out. ``scripts/docs`` writes the pages, where Sphinx finds them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from slipway import schema, settings, variants
from slipway.records import Record


class Flag(Record, frozen=True):
    """One flag of a task, as ``--help`` tells it."""

    name: str
    help: str
    takes_value: bool
    positional: bool = False

    @property
    def shown(self) -> str:
        """``--variant VARIANT``; of a switch its name alone."""
        if self.positional:
            return self.name.upper()
        return f"--{self.name} {self.name.upper()}" if self.takes_value else f"--{self.name}"


class TaskFacts(Record, frozen=True):
    """One task."""

    name: str
    doc: str
    flags: tuple[Flag, ...] = ()


def facts_of(tasks: Mapping[str, Any]) -> list[TaskFacts]:
    """What invoke knows of its tasks, by name.

    To be asked once: a task forgets its help texts when it has told them.
    """
    found = []
    for name, task in sorted(tasks.items()):
        flags = [
            Flag(
                name=argument.name.replace("_", "-"),
                help=argument.help or "",
                takes_value=argument.takes_value,
                positional=argument.positional,
            )
            for argument in task.get_arguments()
        ]
        found.append(TaskFacts(name, (task.__doc__ or "").strip(), tuple(flags)))
    return found


def cell(text: str) -> str:
    """A text for a cell of a table: on one line, and with nothing that Markdown would act on."""
    plain = " ".join(text.split())
    for sign in ("\\", "|", "<", "[", "*", "_", "{"):
        plain = plain.replace(sign, f"\\{sign}")
    return plain


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table, and an empty one."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def tasks_page(tasks: Iterable[TaskFacts]) -> str:
    """Every task with its flags."""
    lines = ["# Tasks", "", "What `invoke --help TASK` says, for all of them.", ""]
    for task in tasks:
        positional = [flag.shown for flag in task.flags if flag.positional]
        lines += [f"## {task.name}", "", task.doc, ""]
        lines += ["```text", " ".join(["invoke", task.name, *positional, "[FLAGS]"]), "```", ""]
        rows = [[f"`{flag.shown}`", cell(flag.help)] for flag in task.flags]
        lines += table(["flag", "meaning"], rows) if rows else ["It has no flags.", ""]
    return "\n".join(lines)


def value(default: Any) -> str:
    """A default as invoke.yaml would have it; what says nothing is shown as nothing."""
    if default in ("", [], {}, None):
        return ""
    return f"`{json.dumps(default, ensure_ascii=False)}`"


def settings_page() -> str:
    """Every setting with its default, parts of its own below."""
    told: dict[str, dict[str, str]] = {}
    for module in (settings, variants):
        told |= schema.attributes(Path(str(module.__file__)).read_text(encoding="utf-8"))
    lines = ["# Settings", "", "The keys of `invoke.yaml`. `invoke -f FILE` wins over `INVOKE_KEY`"]
    lines += ["variables, and these over `invoke.yaml`.", ""]
    parts: dict[str, type[msgspec.Struct]] = {
        "": settings.Settings,
        "variants.NAME": variants.Variant,
        "mirrors": settings.Mirrors,
        "book_limits": settings.Limits,
        "budgets": settings.Budgets,
    }
    for name, kind in parts.items():
        if name:
            lines += [f"## {name}", "", schema.plain(kind.__doc__ or ""), ""]
        nested = {key.partition(".")[0] for key in parts} if not name else set()
        rows = []
        for field in msgspec.structs.fields(kind):
            default = "" if field.required or field.name in nested else _default(field)
            heading = next((key for key in parts if key.partition(".")[0] == field.name), "")
            about = f"see [{heading}](#{anchor(heading)})" if field.name in nested else ""
            text = cell(told[kind.__name__].get(field.name, ""))
            rows.append([f"`{field.name}`", default, " ".join(t for t in (text, about) if t)])
        lines += table(["key", "default", "meaning"], rows)
    return "\n".join(lines)


def _default(field: msgspec.structs.FieldInfo) -> str:
    made = field.default
    if made is msgspec.NODEFAULT:
        made = field.default_factory()
    return value(msgspec.to_builtins(made))


def project_page() -> str:
    """Every key of project.yaml, from its schema."""
    made = schema.schema()
    parts = made["$defs"]
    lines = ["# project.yaml", "", "What describes one source tree. Keys that are not listed are"]
    lines += ["refused. The same as a [JSON Schema](../slipway/project.schema.json).", ""]
    order = ["Project", *(name for name in parts if name != "Project")]
    names = _names(parts)
    for part in order:
        described = parts[part]
        lines += [f"## {names[part]}", "", cell(described["description"]), ""]
        required = described.get("required", [])
        rows = []
        for key, rule in described["properties"].items():
            default = "required" if key in required else value(rule.get("default"))
            rows.append([f"`{key}`", kind_of(rule, names), default, cell(rule["description"])])
        lines += table(["key", "kind", "default", "meaning"], rows)
    return "\n".join(lines)


def _names(parts: Mapping[str, Any]) -> dict[str, str]:
    """What a part is called: by the key that it stands under."""
    names = {"Project": "All keys"}
    for part in parts.values():
        for key, rule in part["properties"].items():
            for one in (rule, rule.get("additionalProperties") or {}):
                reference = one.get("$ref", "") if isinstance(one, dict) else ""
                if reference:
                    suffix = "" if one is rule else ".NAME"
                    names[reference.rpartition("/")[2]] = f"{key}{suffix}"
    return {name: names.get(name, name) for name in parts}


def anchor(heading: str) -> str:
    """Where a heading is linked to, as GitHub and MyST have it."""
    return heading.lower().replace(".", "").replace(" ", "-")


def kind_of(rule: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """What a value may be, in a few words."""
    if "$ref" in rule:
        name = names[rule["$ref"].rpartition("/")[2]]
        return f"part [{name}](#{anchor(name)})"
    if "anyOf" in rule:
        kinds = [kind_of(one, names) for one in rule["anyOf"] if one.get("type") != "null"]
        return " or ".join(kinds)
    if "enum" in rule:
        return ", ".join(f"`{one}`" for one in rule["enum"])
    if rule.get("type") == "array":
        return f"list of {kind_of(rule.get('items', {}), names)}"
    if rule.get("type") == "object":
        inner = rule.get("additionalProperties")
        return f"name to {kind_of(inner, names)}" if isinstance(inner, dict) else "mapping"
    return {"string": "text", "integer": "number", "boolean": "yes or no"}.get(
        str(rule.get("type")), str(rule.get("type", "anything"))
    )


def module_page(name: str, title: str = "") -> str:
    """The API of one Python module, from its docstrings."""
    directive = [f".. automodule:: {name}", "   :members:"]
    return "\n".join([f"# {title or name}", "", "```{eval-rst}", *directive, "```", ""])


def header_page(name: str) -> str:
    """The API that one C++ header declares, from its comments."""
    file = name.rpartition("/")[2]  # Breathe knows files by their last names alone
    directive = [f".. doxygenfile:: {file}", "   :project: tree"]
    return "\n".join([f"# {name}", "", "```{eval-rst}", *directive, "```", ""])


def contents_page(title: str, about: str, pages: Iterable[str]) -> str:
    """A page that leads to others."""
    return "\n".join([f"# {title}", "", about, "", "```{toctree}", *pages, "```", ""])


def modules_of(directory: Path) -> list[str]:
    """The Python modules of Slipway, each of which gets a page."""
    found = []
    for file in sorted(directory.rglob("*.py")):
        parts = file.relative_to(directory).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts:
            found.append(".".join(["slipway", *parts]))
    return found


def headers_of(directories: Iterable[Path]) -> list[str]:
    """The headers below directories, by the names that an ``#include`` has."""
    found = []
    for directory in directories:
        for file in sorted(directory.rglob("*")):
            if file.suffix in (".h", ".hh", ".hpp", ".hxx"):
                found.append(file.relative_to(directory).as_posix())
    return found


def pages(
    tasks: Iterable[TaskFacts],
    *,
    ours: Sequence[str],
    name: str,
    headers: Sequence[str],
    modules: Sequence[str],
    with_index: bool,
) -> dict[str, str]:
    """All generated pages: path below ``generated/`` to text.

    :param ours: Slipway's own modules.
    :param name: the project's.
    :param headers: of the source tree, as ``headers_of`` names them.
    :param modules: of the source tree.
    :param with_index: where no docs/index.md is written by hand, one is made.
    """
    made = {
        "tasks.md": tasks_page(tasks),
        "settings.md": settings_page(),
        "project.md": project_page(),
        "slipway/index.md": contents_page(
            "Python API of Slipway",
            "What the tasks call, one subject a module.",
            [module.partition(".")[2] for module in ours],
        ),
        **{f"slipway/{m.partition('.')[2]}.md": module_page(m) for m in ours},
        **{f"tree/{header.replace('/', '-')}.md": header_page(header) for header in headers},
        **{f"tree/{module}.md": module_page(module) for module in modules},
    }
    entries = [*(h.replace("/", "-") for h in headers), *modules]
    about = "Its C++ headers, then its Python modules." if entries else "It documents no API."
    made["tree/index.md"] = contents_page(f"API of {name}", about, entries)
    if with_index:
        below = ["tree/index", "tasks", "settings", "project", "slipway/index"]
        made["index.md"] = contents_page(name, "Its API, and the tasks that build it.", below)
    return made
