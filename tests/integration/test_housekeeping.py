"""``ps``, ``stop`` and ``clean``: they see what this checkout made, and touch nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway.engine import LABEL
from tests.integration.conftest import Built
from tests.integration.workbench import (
    GATE,
    Checkout,
    containers,
    refused,
    runs,
    succeed,
    tree,
    wait_for,
)


@pytest.fixture
def foreign(client: Any) -> Iterator[Any]:
    """A container and an image that another checkout made."""
    labels = {LABEL: "somebody"}
    image = client.images.get("slipway-base:debian-trixie-slim")
    container = client.containers.run(image.id, "sleep 600", detach=True, init=True, labels=labels)
    made = container.commit("slipway-foreign", "kept", changes=f"LABEL {LABEL}=somebody")
    yield container, made
    container.remove(force=True)
    client.images.remove(made.id, force=True)


@pytest.fixture
def busy(scratch: Checkout, area: Path, client: Any) -> Iterator[tuple[Checkout, Any]]:
    """A checkout in which a build is under way, and its container."""
    gated = tree(area / "trees" / f"gated-{scratch.name}", cmake=GATE)
    with scratch.start("build", "--project", str(gated)) as process:
        container = wait_for(lambda: runs(client, scratch, "ninja"), "the build starts")
        yield scratch, container
        (gated / "open").touch()
        process.communicate(timeout=60)


def test_ps_shows_what_is_ours_and_nothing_else(
    busy: tuple[Checkout, Any], foreign: Any, built: Built
) -> None:
    checkout, container = busy
    said = succeed(checkout.invoke("ps"))
    assert container.name in said
    assert foreign[0].name not in said
    assert "slipway-foreign" not in said
    assert "out " in said
    assert "free" in said
    images = succeed(built.checkout.invoke("ps"))
    assert f"slipway-{built.checkout.name}-oar:" in images
    assert "oar:" in images


def test_stop_ends_what_is_ours_and_nothing_else(
    busy: tuple[Checkout, Any], foreign: Any, client: Any
) -> None:
    checkout, _ = busy
    succeed(checkout.invoke("stop"))
    assert containers(client, checkout) == []
    foreign[0].reload()
    assert foreign[0].status == "running"


@pytest.mark.parametrize("flags", [("--everything",), ("--keep", "1kB"), ()])
def test_clean_does_not_take_a_directory_that_a_build_is_writing_to(
    busy: tuple[Checkout, Any], flags: tuple[str, ...]
) -> None:
    checkout, _ = busy
    out = checkout.out / "tiny" / "cpu" / "build"
    project = checkout.root.parent.parent / "trees" / f"gated-{checkout.name}"
    if "--everything" in flags:
        # It stops what runs first, and then there is nothing that writes.
        succeed(checkout.invoke("clean", *flags))
        assert not out.exists()
        return
    more = () if flags else ("--project", str(project))
    done = checkout.invoke("clean", *flags, *more)
    refused(done, 75, "is in use by process", "invoke build")
    assert out.is_dir()


def test_clean_takes_images_only_when_asked_and_only_our_own(
    built: Built, scratch: Checkout, area: Path, client: Any, foreign: Any
) -> None:
    project = str(tree(area / "trees" / "to-be-cleaned"))
    succeed(scratch.invoke("prod", "--project", project))
    names = [t for i in client.images.list(filters=scratch.label) for t in i.tags]
    assert any(name.startswith(f"slipway-{scratch.name}-tiny:") for name in names)
    mine = client.images.get(next(n for n in names if n.startswith(f"slipway-{scratch.name}")))
    mine.tag("somebodys-own-name", "1")  # a name that a person gave it is not ours to take
    try:
        succeed(scratch.invoke("clean", "--project", project))
        assert not (scratch.out / "tiny").exists()
        assert {*mine.tags, "somebodys-own-name:1"} == set(client.images.get(mine.id).tags)
        succeed(scratch.invoke("clean", "--images", "--project", project))
        assert client.images.get(mine.id).tags == ["somebodys-own-name:1"]
    finally:
        client.images.remove("somebodys-own-name:1", force=True)
    client.images.get(foreign[1].id)
    assert [i for i in client.images.list(filters=built.checkout.label) if i.tags]


def test_clean_keeps_no_more_than_asked_and_says_what_goes(scratch: Checkout, area: Path) -> None:
    project = str(tree(area / "trees" / "to-be-kept-small"))
    succeed(scratch.invoke("build", "--project", project))
    said = succeed(scratch.invoke("clean", "--keep", "1kB"))
    assert "removing" in said
    assert not (scratch.out / "tiny" / "cpu" / "build").exists()
    refused(scratch.invoke("clean", "--keep", "much"), 64, "'much' is no size")
