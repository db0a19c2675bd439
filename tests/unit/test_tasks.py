"""The flat list of tasks: its grammar, and how thin it is."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest

import tasks
from slipway.settings import DEFAULTS, ROOT

TASKS: dict[str, Any] = dict(tasks.namespace.tasks)
SOURCE = ast.parse((ROOT / "tasks.py").read_text())
# Asked for once: a task forgets its help texts when it has told them.
FLAGS = {name: task.get_arguments() for name, task in TASKS.items()}
each = pytest.mark.parametrize("name", sorted(TASKS))


def test_a_person_can_read_the_whole_list() -> None:
    assert 14 <= len(TASKS) <= 28
    assert not tasks.namespace.collections  # flat


@each
def test_the_first_line_of_a_docstring_fits_into_the_list(name: str) -> None:
    first = TASKS[name].__doc__.splitlines()[0]
    assert len(first) <= 60
    assert first.endswith(".")


@each
def test_every_flag_is_explained(name: str) -> None:
    unexplained = [a.name for a in FLAGS[name] if not a.help]
    assert unexplained == []


@each
def test_flags_have_long_names_only(name: str) -> None:
    short = [n for a in FLAGS[name] for n in a.names if len(n) < 2]
    assert short == []


def test_only_a_script_is_positional() -> None:
    positional = {
        name: [flag.name for flag in flags if flag.positional] for name, flags in FLAGS.items()
    }
    assert {name: names for name, names in positional.items() if names} == {"run": ["script"]}


def test_a_flag_means_the_same_in_every_task() -> None:
    meanings: dict[str, set[str]] = {}
    for flag in (flag for flags in FLAGS.values() for flag in flags):
        meanings.setdefault(flag.name, set()).add((flag.help or "").split(" (default")[0])
    several = {name for name, texts in meanings.items() if len(texts) > 1}
    # One, several, or one of those made; the production image's tests, or any image; a name for
    # the dev image, or git's of a release.
    assert several <= {"variant", "image", "tag"}


def test_the_defaults_are_invoke_s_configuration() -> None:
    assert tasks.namespace.configuration() == DEFAULTS


# -- thin verbs, no docker strings, no logic


def test_no_string_is_a_docker_command() -> None:
    strings = [
        node.value
        for node in ast.walk(SOURCE)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    named = {text for text in strings if re.search(r"\bdocker\b", text.lower())}
    assert {
        text for text in named if not re.fullmatch(r"docker(, podman, or host: .*)?", text)
    } == set()
    assert not any(re.search(r"--(mount|volume|network|rm|label)\b", text) for text in strings)


def test_loading_the_tasks_imports_only_what_every_task_needs() -> None:
    """Each task imports its subject itself: ``invoke --list`` must not pay for all of them."""
    modules = {
        node.module
        for node in SOURCE.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("slipway")
    }
    assert modules == {"slipway.settings", "slipway.verb"}


def test_a_task_is_a_few_lines() -> None:
    bodies = {
        node.name: sum(1 for part in ast.walk(node) if isinstance(part, ast.stmt)) - 1
        for node in SOURCE.body
        if isinstance(node, ast.FunctionDef) and node.name != "task"
    }
    assert {name for name, lines in bodies.items() if lines > 7} == set()
