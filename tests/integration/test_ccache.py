"""A team's compiler cache in Debian's Redis, which builds in containers ask over the network."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from slipway.errors import BAD_CONFIG
from tests.integration.conftest import Built
from tests.integration.workbench import (
    Checkout,
    bridge_address,
    listening,
    refused,
    succeed,
    tree,
    wait_for,
)

PASSWORD = "c0rrect-h0rse"  # noqa: S105  # of a server that lives for a test
TAKEN = re.compile(
    r"(\d+) of (\d+) compilations from the cache(?:, (\d+) of them from the team's)?"
)


@dataclass(frozen=True)
class Server:
    """Redis, for whoever knows the password."""

    host: str
    port: int
    pid: int

    @property
    def where(self) -> str:
        """Without the password."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """What the setting says."""
        return f"redis://{PASSWORD}@{self.where}"

    def ask(self, *words: str) -> str:
        """The answer to a command."""
        argv = ["redis-cli", "-h", self.host, "-p", str(self.port), *words]
        env = {**os.environ, "REDISCLI_AUTH": PASSWORD}
        return subprocess.run(argv, check=True, capture_output=True, text=True, env=env).stdout


@pytest.fixture
def team(built: Built, client: Any, tmp_path: Path) -> Iterator[Server]:
    (image,) = re.findall(r"\bslipway-dev:[0-9a-f]{12}\b", built.first.stdout)[:1]
    host = bridge_address(client, image)
    with listening(host) as free:
        port = free.getsockname()[1]
    config = tmp_path / "redis.conf"  # not by arguments, which others can read
    config.write_text(f"bind {host}\nport {port}\nsave ''\nrequirepass {PASSWORD}\n")
    argv = ["redis-server", str(config)]
    with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        server = Server(host, port, process.pid)

        def answers() -> bool:
            with contextlib.suppress(subprocess.CalledProcessError):
                return server.ask("ping") == "PONG\n"
            return False

        try:
            wait_for(answers, "Redis answers")
            yield server
        finally:
            process.kill()


def build(checkout: Checkout, cache: Path, url: str, *flags: str) -> str:
    """Build with a cache of one's own, which is empty at first, and the team's."""
    env = {"INVOKE_CACHE_DIR": str(cache), "INVOKE_CCACHE_REMOTE": url}
    return succeed(checkout.invoke("build", *flags, env=env, timeout=600))


def taken(said: str) -> tuple[int, int, int]:
    """Hits, compilations, and hits of the team's cache."""
    (found,) = TAKEN.findall(said)
    return int(found[0]), int(found[1]), int(found[2] or 0)


def test_a_second_checkout_builds_from_what_the_first_has_compiled(
    cloned: Callable[[str], Checkout], team: Server, tmp_path: Path
) -> None:
    first = build(cloned("first of a team"), tmp_path / "first", team.url)
    hits, compiled, shared = taken(first)
    assert (hits, shared) == (0, 0)
    assert compiled > 20
    second = build(cloned("second"), tmp_path / "second", team.url)
    hits, again, shared = taken(second)
    assert again == compiled
    assert hits == shared >= 0.95 * compiled
    for said in (first, second):
        assert f"has a network: the team's cache at {team.where} is asked" in said
        assert PASSWORD not in said
        assert "did not answer" not in said


def test_what_is_built_to_be_debugged_is_not_shared_and_has_no_network(
    built: Built, team: Server, tiny: Path, tmp_path: Path
) -> None:
    flags = ("--project", str(tiny), "--build-type", "debug")
    said = build(built.checkout, tmp_path / "cache", team.url, *flags)
    assert "--network none" in said
    assert team.where not in said
    assert team.ask("dbsize") == "0\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "hanging"])
def test_a_server_that_does_not_answer_fails_nothing(
    built: Built, team: Server, tiny: Path, tmp_path: Path, number: signal.Signals
) -> None:
    os.kill(team.pid, number)
    said = build(built.checkout, tmp_path / "cache", team.url, "--project", str(tiny))
    assert taken(said) == (0, 3, 0)
    assert f"the team's cache at {team.where} did not answer 3 times" in said


def test_doctor_looks_at_it(built: Built, team: Server) -> None:
    def doctor() -> str:
        return built.checkout.invoke("doctor", env={"INVOKE_CCACHE_REMOTE": team.url}).stdout

    assert f"the team's compiler cache at {team.where} takes connections" in doctor()
    os.kill(team.pid, signal.SIGKILL)
    wait_for(lambda: "Connection refused" in doctor(), "the server is gone")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"rediss://{PASSWORD}@cache", ["ccache_remote: 'rediss://cache'", "redis://HOST[:PORT]"]),
        (f"redis:/{PASSWORD}@cache", ["is no compiler cache", "mend ccache_remote"]),
        (f"redis://{PASSWORD}@localhost", ["no container reaches a cache at localhost"]),
    ],
)
def test_a_url_that_names_none(built: Built, area: Path, url: str, words: list[str]) -> None:
    # Where it names a machine, something has to be compiled for anybody to ask it.
    project = tree(area / "trees" / "of a team")
    done = built.checkout.invoke(
        "build", "--project", str(project), env={"INVOKE_CCACHE_REMOTE": url}
    )
    refused(done, BAD_CONFIG, *words)
    assert PASSWORD not in done.stdout + done.stderr
