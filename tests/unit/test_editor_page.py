"""docs/editors.md: what is to be copied from it agrees with what the tasks do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import tasks
from slipway import builds, editors, logins
from slipway.settings import ROOT, Settings, Workshop
from tests.unit.fakes import make_site

PAGE = (ROOT / "docs" / "editors.md").read_text()


def block(name: str) -> dict[str, Any]:
    (text,) = re.findall(rf"<!-- {re.escape(name)} -->\n```json\n(.*?)^```", PAGE, re.S | re.M)
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_tasks_are_ours_with_flags_that_they_have() -> None:
    for row in block("tasks.json")["tasks"]:
        assert row["command"] == "./go"
        first, name, *flags = row["args"]
        assert first == "invoke"
        known = {n for flag in tasks.namespace[name].get_arguments() for n in flag.names}
        assert {flag.removeprefix("--") for flag in flags} <= known


def test_every_command_on_the_page_is_one_of_ours() -> None:
    for name, rest in re.findall(r"\./go invoke ([\w-]+)([^`\n]*)", PAGE):
        known = {n for flag in tasks.namespace[name].get_arguments() for n in flag.names}
        assert set(re.findall(r"--([\w-]+)", rest)) <= known, name


def test_the_debugger_is_reached_as_ssh_is_told(tmp_path: Path) -> None:
    (row,) = block("launch.json")["configurations"]
    assert row["preLaunchTask"] in {task["label"] for task in block("tasks.json")["tasks"]}
    keeper = logins.Keeper(Workshop(ROOT, Settings()), "oar-cpu")
    login = logins.Login(keeper.title, "c", 1, "ann", keeper.known_hosts, ())
    place = keeper.config.relative_to(ROOT)
    assert row["pipeTransport"]["pipeArgs"] == ["-F", f"${{workspaceFolder}}/{place}", login.name]


def test_the_source_is_mapped_from_where_the_compiler_says_it_is(tmp_path: Path) -> None:
    (row,) = block("launch.json")["configurations"]
    assert len(row["sourceFileMap"]) == 2
    assert [*row["sourceFileMap"]] == sorted(row["sourceFileMap"], key=len, reverse=True)
    site = make_site(tmp_path)
    flags = builds.compiler_environment(site)["CXXFLAGS"]
    for inside, place in row["sourceFileMap"].items():
        assert place["useForBreakpoints"] is False  # gdb finds a file by the host's path then
        here = place["editorPath"].replace("${workspaceFolder}", str(tmp_path))
        assert f"-ffile-prefix-map={here}={inside} " in f"{flags} "
    assert row["cwd"].replace("${workspaceFolder}", str(tmp_path)) == str(site.build)
    binary = Path(row["program"]).name
    assert f"add_executable({binary}" in "".join(
        file.read_text() for file in (ROOT / "examples" / "oar" / "tests").rglob("CMakeLists.txt")
    )


def test_the_page_says_where_the_compile_commands_are() -> None:
    assert f"`out/ide/oar-cpu/{editors.DATABASE}`" in PAGE
