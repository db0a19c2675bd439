"""The files by which an editor opens a checkout in the development image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import tasks
from slipway import devcontainer
from slipway.errors import CANNOT_CREATE, SlipwayError
from slipway.settings import ROOT, Settings
from tests.unit.fakes import make_workshop


def described(settings: Settings) -> dict[str, Any]:
    text = devcontainer.files(settings)["devcontainer.json"]
    found: dict[str, Any] = json.loads(text.split("\n", 1)[1])
    return found


def test_the_repository_s_own_are_made_from_the_default_settings() -> None:
    made = devcontainer.files(Settings())
    assert {name: (ROOT / ".devcontainer" / name).read_text() for name in made} == made


def test_they_say_what_the_settings_say() -> None:
    found = described(Settings(shm_size="3g", ccache_size="7G"))
    assert found["runArgs"] == ["--shm-size", "3g"]
    assert found["containerEnv"]["CCACHE_MAXSIZE"] == "7G"


def test_the_image_is_the_one_that_the_first_command_makes() -> None:
    command = described(Settings())["initializeCommand"]
    assert command[:3] == ["./go", "invoke", "dev"]
    known = {name for flag in tasks.namespace["dev"].get_arguments() for name in flag.names}
    assert command[3].removeprefix("--") in known
    assert f"\nFROM {command[4]}\n" in devcontainer.files(Settings())["Dockerfile"]
    assert command[4].startswith("slipway-")  # or clean would leave it


def test_the_checkout_stands_at_its_own_path_and_no_container_is_privileged() -> None:
    found = described(Settings())
    assert found["workspaceMount"].count(found["workspaceFolder"]) == 2
    assert "privileged" not in json.dumps(found)


def test_they_are_written_and_written_again(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    devcontainer.write(workshop, force=False)
    devcontainer.write(make_workshop(tmp_path, shm_size="3g"), force=False)
    assert '"3g"' in (tmp_path / ".devcontainer" / "devcontainer.json").read_text()


def test_what_somebody_else_wrote_is_replaced_only_by_force(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    file = tmp_path / ".devcontainer" / "Dockerfile"
    file.parent.mkdir()
    file.write_text("FROM mine\n")
    with pytest.raises(SlipwayError, match="is not ours") as caught:
        devcontainer.write(workshop, force=False)
    assert caught.value.code == CANNOT_CREATE
    assert [path.name for path in file.parent.iterdir()] == ["Dockerfile"]
    devcontainer.write(replace(workshop, dry=True), force=True)
    assert file.read_text() == "FROM mine\n"
    devcontainer.write(workshop, force=True)
    assert devcontainer.TAG in file.read_text()
