"""A unit test starts no process and opens no connection: what tries fails, and says where to go."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

STARTS = ("exec", "fork", "posix_spawn", "spawn", "system")
DOORS = [
    "subprocess.Popen.__init__",
    "socket.socket.connect",
    "socket.socket.connect_ex",
    *(f"os.{name}" for name in dir(os) if name.startswith(STARTS)),
]


@pytest.fixture(autouse=True)
def no_processes_and_no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    def shut(*args: object, **_: object) -> NoReturn:
        pytest.fail(f"a unit test stays in its process, see tests/integration; it tried {args}")

    for door in DOORS:
        monkeypatch.setattr(door, shut)
