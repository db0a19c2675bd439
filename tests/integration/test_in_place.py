"""Tasks inside the dev image, and in a container in which no engine can run: the same, in place."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from slipway import base, images
from slipway.engine import mount_argument
from slipway.settings import ROOT, Settings, Workshop
from tests.integration.conftest import Built
from tests.integration.test_systems import TALLY, contents, grow
from tests.integration.workbench import Checkout, Done, give_to, snapshot, strangers, tree


def in_container(
    image: str,
    checkout: Checkout,
    command: Sequence[str],
    *,
    uid: int = 0,
    more: Sequence[str] = (),
) -> Done:
    """Run a command in a plain container, without privileges, in which a checkout is mounted."""
    ccache = Workshop(checkout.root, Settings()).cache / "ccache"
    argv = ["docker", "run", "--rm", "--init", "--label", f"slipway.checkout={checkout.name}"]
    argv += ["--mount", mount_argument(str(checkout.root), str(checkout.root), False)]
    if not uid:  # as a CI keeps its compiler cache from run to run
        argv += ["--mount", mount_argument(str(ccache), "/root/.cache/slipway/ccache", False)]
    argv += ["--user", f"{uid}:{uid}", "--workdir", str(checkout.root), *more, image, *command]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=900
    )
    return subprocess.CompletedProcess(argv, done.returncode, done.stdout + done.stderr, "")


def dev_image(checkout: Checkout) -> str:
    """The dev image that the checkout's ``all`` has used."""
    tag = images.look_for_dev(Workshop(checkout.root, Settings()))
    assert tag
    return tag


@pytest.fixture(scope="module")
def inside(cloned: Any) -> Checkout:
    made: Checkout = cloned("inside")
    return made


OFFLINE = ("--network", "none")


def test_all_in_the_dev_image_makes_everything_but_the_images_and_says_so(
    built: Built, inside: Checkout
) -> None:
    done = in_container(
        dev_image(built.checkout), inside, ["invoke", "all", "--variant", "cpu"], more=OFFLINE
    )
    assert done.returncode == 69, done.stdout
    assert "this is the inside of the dev image" in done.stdout
    assert "error: not made: image oar:" in done.stdout
    assert "tests executed (CTest " in done.stdout
    debs = list((inside.root / "dist").rglob("*.deb"))
    assert [d.name.partition("_")[0] for d in debs] == ["oar"]
    # The very bytes that the host's own run has made of the same commit.
    twin = next((built.checkout.root / "dist").rglob("oar_*.deb"))
    assert debs[0].name == twin.name
    assert debs[0].read_bytes() == twin.read_bytes()


@pytest.mark.parametrize("uid", [1000, 12345])
def test_build_test_and_deb_run_in_place_as_any_user(built: Built, cloned: Any, uid: int) -> None:
    checkout: Checkout = cloned(f"inside-{uid}")
    tree(checkout.root / "tiny")
    give_to(checkout.root, uid)
    home = ("--env", "HOME=/tmp", *OFFLINE)
    for task in ("build", "test", "deb"):
        command = ["invoke", task, "--project", "tiny"]
        done = in_container(dev_image(built.checkout), checkout, command, uid=uid, more=home)
        assert done.returncode == 0, done.stdout
    assert list((checkout.root / "dist").rglob("tiny_*.deb"))
    assert strangers(checkout.root, uid) == []


def test_a_tree_that_is_built_in_a_copy_is_so_in_place(built: Built, cloned: Any) -> None:
    checkout: Checkout = cloned("inside-copy")
    project = 'build: {system: make, options: {LIMIT: "9"}}\ntest: {commands: [make check]}\n'
    file = grow(checkout.root / "trees", TALLY, project, "tally")
    before = snapshot(checkout.root / "trees")
    for task in ("test", "deb"):
        command = ["invoke", task, "--project", str(file)]
        done = in_container(dev_image(built.checkout), checkout, command, more=OFFLINE)
        assert done.returncode == 0, done.stdout
    assert snapshot(checkout.root / "trees") == before
    (deb,) = (checkout.root / "dist").rglob("tally_*.deb")
    assert "usr/lib/libtally.so.1" in contents(deb)


def test_where_no_engine_can_run_all_says_why_and_goes_in_place(
    built: Built, inside: Checkout
) -> None:
    # The packages are here, the marker of the dev image is not: any CI container that has them.
    script = "rm /etc/slipway-dev && exec invoke all --variant cpu"
    done = in_container(dev_image(built.checkout), inside, ["sh", "-c", script], more=OFFLINE)
    assert done.returncode == 69, done.stdout
    assert "without the privileges that a container engine needs" in done.stdout
    assert "going on in place, without images" in done.stdout
    assert "error: not made: image oar:" in done.stdout
    assert list((inside.root / "dist").rglob("oar_*.deb"))


def test_other_tasks_do_not_go_in_place_by_themselves(built: Built, inside: Checkout) -> None:
    script = "rm /etc/slipway-dev && exec invoke build"
    done = in_container(dev_image(built.checkout), inside, ["sh", "-c", script], more=OFFLINE)
    assert done.returncode == 69, done.stdout
    assert "error: no docker program on this machine" in done.stdout
    assert "./go invoke setup" in done.stdout


@pytest.mark.full
def test_a_bare_container_is_set_up_and_does_everything_but_the_images(
    cloned: Any,
) -> None:
    checkout: Checkout = cloned("bare")
    workshop = Workshop(checkout.root, Settings())
    image = base.ensure_base(workshop).reference
    more = ["--env", "PIP_DISABLE_PIP_VERSION_CHECK=1"]
    if bundle := Workshop(ROOT, Settings()).ca_bundle:
        more += ["--mount", mount_argument(str(bundle), "/run/ca.pem", True)]
        more += ["--env", "PIP_CERT=/run/ca.pem", "--env", "SSL_CERT_FILE=/run/ca.pem"]
    needs = "apt-get -qq update && apt-get -qq install python3-venv git >/dev/null"
    script = f"{needs} && exec ./go invoke all --variant cpu"
    done = in_container(image, checkout, ["sh", "-c", script], more=more)
    assert done.returncode == 69, done.stdout
    assert "going on in place" in done.stdout
    assert list(Path(checkout.root / "dist").rglob("oar_*.deb"))
