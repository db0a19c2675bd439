"""Where the base image comes from: an archive, a registry, its mirror; and Debian 12 beside 13."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway.base import IDENTITY
from tests.integration.conftest import Built
from tests.integration.workbench import (
    Checkout,
    listening,
    refused,
    rows_of,
    serving,
    succeed,
)


@pytest.fixture(scope="module")
def bookworm(cloned: Callable[[str], Checkout]) -> Checkout:
    """A clone whose setting says Debian 12."""
    checkout = cloned("bookworm")
    (checkout.root / "invoke.yaml").write_text("base: debian:bookworm-slim\n")
    return checkout


def test_oar_is_built_tested_and_packaged_on_debian_12_by_one_setting(bookworm: Checkout) -> None:
    said = succeed(bookworm.invoke("test", timeout=1200))
    assert re.search(r"tested .*: [1-9]\d+ tests executed \(CTest \d+, pytest \d+\)", said), said
    succeed(bookworm.invoke("deb"))
    (file,) = (bookworm.root / "dist").rglob("*.deb")
    assert file.name.endswith("+deb12_amd64.deb")
    fields = subprocess.run(
        ["dpkg-deb", "--field", str(file), "Depends"], check=True, capture_output=True, text=True
    ).stdout
    # One module serves one Python: 3.11's, before the stable ABI that nanobind uses.
    assert "python3 (>= 3.11~), python3 (<< 3.12)" in fields


def test_the_default_is_debian_13_with_its_own_python(built: Built) -> None:
    file = built.checkout.root / rows_of(built.first.stdout)["deb", "cpu"][2]
    assert file.name.endswith("+deb13_amd64.deb")
    fields = subprocess.run(
        ["dpkg-deb", "--field", str(file), "Depends"], check=True, capture_output=True, text=True
    ).stdout
    assert "python3 (>= 3.13~)" in fields


def test_the_dev_image_of_the_other_debian_keeps_within_the_budget_too(
    bookworm: Checkout, client: Any
) -> None:
    tag = re.findall(r"slipway-dev:\S+?(?=,)", succeed(bookworm.invoke("dev")))[0]
    assert client.images.get(tag).attrs["Size"] <= 800e6


def test_a_registry_that_says_nothing_is_given_up(scratch: Checkout) -> None:
    with listening("127.0.0.1") as silent:
        port = silent.getsockname()[1]
        start = time.monotonic()
        env = {"INVOKE_BASE": f"127.0.0.1:{port}/nobody/home:1", "INVOKE_PULL_WAIT_S": "3"}
        done = scratch.invoke("dev", env=env)
        took = time.monotonic() - start
    refused(done, 69, f"no base image '127.0.0.1:{port}/nobody/home:1'", "no answer within 3 s")
    assert took < 60


def test_a_registry_to_which_there_is_no_way_is_given_up(scratch: Checkout) -> None:
    with listening("127.0.0.1") as closed:
        port = closed.getsockname()[1]
    done = scratch.invoke("dev", env={"INVOKE_BASE": f"127.0.0.1:{port}/nobody/home:1"})
    refused(done, 69, "no base image", "connection refused")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A registry on this machine's loopback."""
    with serving(tmp_path / "storage") as made:
        yield made.name


def base_of(client: Any) -> Any:
    """The image that the built checkout stands on."""
    names = {tag: image for image in client.images.list() for tag in image.tags}
    return names.get("debian:trixie-slim") or names["slipway-base:debian-trixie-slim"]


def test_what_its_own_registry_does_not_have_comes_from_the_mirror(
    built: Built, scratch: Checkout, client: Any, registry: str
) -> None:
    base, mirrored = base_of(client), f"{registry}/library/debian:slipway-test"
    base.tag(mirrored)
    subprocess.run(["docker", "push", "--quiet", mirrored], check=True, capture_output=True)
    client.images.remove(mirrored)
    (scratch.root / "invoke.yaml").write_text(
        f"base: debian:slipway-test\npull_wait_s: 5\nmirrors: {{registry: '{registry}'}}\n"
    )
    said = succeed(scratch.invoke("dev"))
    assert "$ docker pull debian:slipway-test" in said
    assert f"$ docker pull {mirrored}" in said
    assert client.images.get(mirrored).id == base.id
    # The same base under another name makes the same dev image: it was here already.
    assert rows_of(built.first.stdout)["dev image", "all"][2] in said
    assert "docker build" not in said
    client.images.remove(mirrored)


def test_a_mirror_that_has_no_such_image_is_named_with_its_answer(
    scratch: Checkout, registry: str
) -> None:
    (scratch.root / "invoke.yaml").write_text(
        f"base: nobody/home:1\npull_wait_s: 5\nmirrors: {{registry: '{registry}'}}\n"
    )
    done = scratch.invoke("dev")
    refused(done, 69, "no base image 'nobody/home:1'", f"{registry}/nobody/home:1", "not found")


def packages(image: str) -> str:
    command = ["docker", "run", "--rm", image, "dpkg-query", "--show"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_same_packages_are_the_same_base_wherever_it_was_made(
    built: Built, scratch: Checkout, client: Any
) -> None:
    base, second = base_of(client), "slipway-base:debian-trixie"
    # Only the base is wanted: there is no stage of that name in this file.
    (scratch.root / "Dockerfile.dev").write_text("ARG BASE\nFROM ${BASE} AS nothing\n")
    done = scratch.invoke("dev", env={"INVOKE_BASE": "debian:trixie"})
    refused(done, done.returncode, "the dev image was not built")
    again = client.images.get(second)
    identity = again.labels[IDENTITY]
    assert again.id != base.id
    assert re.fullmatch(r"trixie-[0-9a-f]{12}", identity)
    # The archive may have moved on since the first was made.
    assert (base.labels[IDENTITY] == identity) == (packages(base.id) == packages(second))
    client.images.remove(second)
