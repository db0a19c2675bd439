"""``.devcontainer/``: an editor's own client opens the checkout in the image, and builds in it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway.engine import build_client
from slipway.errors import USAGE
from tests.integration.workbench import Checkout, Done, give_to, refused, strangers, succeed, tree

CLI = "@devcontainers/cli@0.89.0"
FOLDER = "devcontainer.local_folder"  # the label by which the client finds its container again


@pytest.fixture(scope="module")
def cli(area: Path) -> list[str]:
    """The client that VS Code has built in, as a program of its own."""
    prefix = area / "npm"
    quiet = ["--silent", "--no-audit", "--no-fund", "--no-update-notifier"]
    subprocess.run(
        ["npm", "install", *quiet, "--prefix", str(prefix), CLI], check=True, timeout=180
    )
    return [str(prefix / "node_modules" / ".bin" / "devcontainer")]


@pytest.fixture(scope="module")
def author(ordinary: Checkout, client: Any) -> Iterator[Checkout]:
    """Who opens the checkout in an editor; no container and no image of the client's is left."""
    tree(ordinary.root / "tiny")
    give_to(ordinary.root / "tiny", 1000)
    yield ordinary
    for container in mine(client, ordinary):
        name = container.attrs["Config"]["Image"]
        container.remove(force=True, v=True)
        for tag in (name, name.removesuffix("-uid")):
            if client.images.list(name=tag):
                client.images.remove(tag)
    assert mine(client, ordinary) == []


def mine(client: Any, checkout: Checkout) -> list[Any]:
    """The containers in which a checkout is open."""
    return list(client.containers.list(all=True, filters={"label": f"{FOLDER}={checkout.root}"}))


def typed(cli: list[str], checkout: Checkout, verb: str, *arguments: str) -> Done:
    """Type ``devcontainer VERB`` with the docker that can build."""
    where = ["--docker-path", build_client()[0][0], "--workspace-folder", str(checkout.root)]
    return checkout.typed(*cli, verb, *where, *arguments, timeout=280)


def outcome(done: Done) -> dict[str, Any]:
    """The client's last word, which is JSON."""
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"outcome"')]
    assert lines, done.stdout[-4000:]
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def test_settings_that_are_wrong_open_nothing_and_are_told_in_our_words(
    cli: list[str], author: Checkout, client: Any
) -> None:
    file = author.root / "invoke.yaml"
    right = file.read_text()
    file.write_text(f"{right}\nshm_siz: 2g\n")
    try:
        done = typed(cli, author, "up")
    finally:
        file.write_text(right)
    assert done.returncode != 0
    assert outcome(done)["outcome"] == "error"
    assert "shm_siz" in done.stdout
    assert "did you mean 'shm_size'?" in done.stdout
    assert "try: " in done.stdout
    assert "Traceback" not in done.stdout
    assert mine(client, author) == []


def test_the_checkout_opens_in_the_image_and_builds_in_place(
    cli: list[str], author: Checkout, client: Any
) -> None:
    opened = outcome(typed(cli, author, "up"))
    assert opened["outcome"] == "success"
    assert opened["remoteUser"] == "dev"
    assert opened["remoteWorkspaceFolder"] == str(author.root)
    (container,) = mine(client, author)
    assert container.id == opened["containerId"]
    assert not container.attrs["HostConfig"]["Privileged"]

    who = succeed(typed(cli, author, "exec", "sh", "-c", "id -un; id -u; pwd; ls /etc/slipway-dev"))
    assert who.split() == ["dev", "1000", str(author.root), "/etc/slipway-dev"]

    said = succeed(typed(cli, author, "exec", "./go", "invoke", "build", "--project", "tiny"))
    assert "built tiny 1.0 cpu in out/tiny/cpu/build" in said
    assert "docker" not in said  # in place: there is no engine in it
    assert (author.out / "tiny" / "cpu" / "build" / "tiny").is_file()
    assert strangers(author.out / "tiny", 1000) == []

    other = typed(cli, author, "exec", "./go", "invoke", "build", "--project", "elsewhere")
    refused(other, USAGE, "no project 'elsewhere'")  # the status comes through
