"""Pushing to real registries on loopback, and pulling from them: once, and what goes wrong."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import subprocess
import tarfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from slipway import manifest
from slipway.engine import LABEL
from slipway.images import KEY, KIND
from slipway.manifest import Manifest, ReleasedImage
from slipway.registry import MANIFESTS
from tests.integration.conftest import Built
from tests.integration.workbench import (
    ROOT,
    Checkout,
    Done,
    Registry,
    clone_working_tree,
    listening,
    refused,
    rows_of,
    serving,
    succeed,
    tmpfs,
    wait_for,
)

USER, PASSWORD = "ann", "c0rrect-h0rse"
SHARED_MB, OWN_MB = 3, 1


@pytest.fixture(scope="module")
def shop(area: Path, checkouts: list[Checkout]) -> Checkout:
    """A clone from which is pushed; nothing is built in it."""
    checkout = Checkout(area / "push" / "slipway")
    checkouts.append(checkout)
    clone_working_tree(ROOT, checkout.root)
    return checkout


def import_layer(client: Any, size_mb: int) -> Any:
    """An image of one layer of random bytes, which no registry has and nothing compresses."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        content = os.urandom(size_mb * 1_000_000)
        info = tarfile.TarInfo(f"data-{uuid.uuid4()}")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    words = client.api.import_image_from_data(archive.getvalue())
    return client.images.get(json.loads(words.splitlines()[-1])["status"])


@pytest.fixture(scope="module")
def wares(client: Any) -> Iterator[dict[str, str]]:
    """Images that share their first layer: alias to id."""
    start = import_layer(client, SHARED_MB)
    made = {}
    for alias in ("oar:1.2.0", "oar:1.2.0-noavx", "oar-book:1.2.0"):
        container = client.containers.create(start.id, "x")
        own = io.BytesIO()
        with tarfile.open(fileobj=own, mode="w") as tar:
            info = tarfile.TarInfo("own")
            info.size = OWN_MB * 1_000_000
            tar.addfile(info, io.BytesIO(os.urandom(info.size)))
        container.put_archive("/", own.getvalue())
        made[alias] = container.commit("slipway-push-test", alias.replace(":", "-")).id
        container.remove()
    yield made
    for image in made.values():  # with the last of them goes what they start from
        client.images.remove(image, force=True)


def release(shop: Checkout, wares: Mapping[str, str], version: str = "1.2.0") -> str:
    """Put a release into ``dist/`` and return its tag."""
    names = {alias.replace("1.2.0", version): image for alias, image in wares.items()}
    directory = shop.root / "dist" / f"oar-{version}"
    directory.mkdir(parents=True, exist_ok=True)
    found = Manifest(
        project="oar",
        version=version,
        tag=f"v{version}",
        commit="1a2b3c4d" * 5,
        epoch=0,
        is_rehearsal=False,
        made_at=0,
        variants=("cpu", "noavx"),
        files=(),
        images=tuple(ReleasedImage(a, "prod", "cpu", i, 1, ()) for a, i in names.items()),
        tests=(),
        isa=(),
        steps=(),
        tools={},
        base="",
    )
    manifest.write(directory, found)
    return found.tag


@pytest.fixture
def main(tmp_path: Path) -> Iterator[Registry]:
    with serving(tmp_path / "main") as made:
        yield made


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Registry]:
    """A registry with a password."""
    with serving(tmp_path / "locked", user=USER, password=PASSWORD) as made:
        yield made


@pytest.fixture
def docker_config(tmp_path: Path) -> Path:
    """Docker's own configuration, without any password."""
    directory = tmp_path / "docker"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    return directory


def log_in(directory: Path, name: str, password: str = PASSWORD) -> None:
    """What ``docker login`` leaves."""
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (directory / "config.json").write_text(json.dumps({"auths": {name: {"auth": auth}}}))


def settings(shop: Checkout, *names: str) -> list[str]:
    """invoke's arguments that name a registry and its mirrors."""
    file = shop.root.parent / f"settings-{uuid.uuid4().hex}.yaml"
    mirrors = ", ".join(f"'{name}'" for name in names[1:])
    file.write_text(f"registry: '{names[0]}'\nregistry_mirrors: [{mirrors}]\npull_wait_s: 3\n")
    return ["-f", str(file)]


def push(shop: Checkout, names: Sequence[str], *flags: str, **more: Any) -> Done:
    return shop.invoke(*settings(shop, *names), "push", *flags, timeout=240, **more)


def ask(name: str, path: str, *, auth: tuple[str, str] | None = None) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(
            f"http://{name}/v2/{path}",
            headers={"Accept": ", ".join(MANIFESTS)},
            auth=auth,
            timeout=10,
        )


def images_in(name: str, *, auth: tuple[str, str] | None = None) -> dict[str, str]:
    """All that a registry has: alias to the id of the image."""
    found = {}
    for repository in ask(name, "_catalog", auth=auth).json()["repositories"]:
        # An upload that failed leaves a repository without a tag.
        for tag in ask(name, f"{repository}/tags/list", auth=auth).json().get("tags") or ():
            body = ask(name, f"{repository}/manifests/{tag}", auth=auth).json()
            found[f"{repository}:{tag}"] = body["config"]["digest"]
    return found


def with_names(wares: Mapping[str, str], *series: str) -> dict[str, str]:
    """What a registry has of a release when names have moved to it."""
    names = {a.replace("1.2.0", s): i for a, i in wares.items() for s in series}
    return {**wares, **names}


def local_names(client: Any, name: str) -> list[str]:
    """Names of images on this machine that belong to a registry."""
    tags = [tag for image in client.images.list() for tag in image.tags]
    return [tag for tag in tags if tag.startswith(f"{name}/")]


# -- whole and once


def test_a_release_goes_to_the_registry_and_every_mirror_once_and_names_follow(
    shop: Checkout,
    wares: dict[str, str],
    main: Registry,
    locked: Registry,
    docker_config: Path,
    client: Any,
) -> None:
    tag = release(shop, wares)
    log_in(docker_config, locked.name)
    env = {"DOCKER_CONFIG": str(docker_config)}
    names = [main.name, f"{locked.name}/team/tools"]
    said = succeed(push(shop, names, "--tag", tag, "--yes", env=env))
    assert "pushed oar 1.2.0: 3 images, compared by digest" in said
    expected = with_names(wares, "latest", "1.2")
    assert images_in(main.name) == expected
    team = {f"team/tools/{alias}": image for alias, image in expected.items()}
    assert images_in(locked.name, auth=(USER, PASSWORD)) == team
    assert PASSWORD not in said
    assert local_names(client, main.name) == local_names(client, locked.name) == []
    # One upload for the layer that all share, one for each one's own, one for each configuration.
    for registry in (main, locked):
        assert len(registry.asked("PUT", "/blobs/uploads/")) == 1 + 2 * len(wares)
    sent = len(main.asked("PUT", ""))
    again = succeed(push(shop, names, "--tag", tag, "--yes", env=env))
    assert f"oar 1.2.0 is unchanged in {names[0]}, {names[1]}" in again
    assert "$ docker push" not in again
    assert len(main.asked("PUT", "")) == sent


def test_names_never_go_back_to_a_lower_version(
    shop: Checkout, wares: dict[str, str], main: Registry
) -> None:
    (oar,) = (image for alias, image in wares.items() if alias == "oar:1.2.0")
    (older,) = (image for alias, image in wares.items() if alias == "oar:1.2.0-noavx")
    for version, image in (("1.2.0", oar), ("1.1.0", older), ("1.3.0rc1", older)):
        tag = release(shop, {"oar:1.2.0": image}, version)
        succeed(push(shop, [main.name], "--tag", tag, "--yes"))
    assert images_in(main.name) == {
        "oar:1.2.0": oar,
        "oar:1.2": oar,
        "oar:latest": oar,
        "oar:1.1.0": older,
        "oar:1.1": older,
        "oar:1.3.0rc1": older,
    }


def test_a_version_that_was_released_is_not_replaced(
    shop: Checkout, wares: dict[str, str], main: Registry
) -> None:
    first, second = list(wares.values())[:2]
    tag = release(shop, {"oar:1.2.0": first})
    succeed(push(shop, [main.name], "--tag", tag, "--yes"))
    release(shop, {"oar:1.2.0": second})
    done = push(shop, [main.name], "--tag", tag, "--yes")
    refused(done, 65, f"{main.name}/oar:1.2.0 is there already, and is another image")
    assert images_in(main.name)["oar:1.2.0"] == first


def test_without_leave_the_plan_is_shown_and_nothing_is_sent(
    shop: Checkout, wares: dict[str, str], main: Registry
) -> None:
    done = push(shop, [main.name], "--tag", release(shop, wares))
    refused(done, 69, "nobody is here to agree", "invoke push --tag v1.2.0 --yes")
    assert f"  - {main.name}: send oar:1.2.0, oar:1.2.0-noavx, oar-book:1.2.0" in done.stdout
    assert images_in(main.name) == {}


def test_what_a_killed_push_has_sent_is_not_sent_again(
    shop: Checkout, wares: dict[str, str], main: Registry, client: Any
) -> None:
    tag = release(shop, wares)
    arguments = [*settings(shop, main.name), "push", "--tag", tag, "--yes"]
    with shop.start(*arguments) as process:
        wait_for(lambda: main.asked("PUT", "/oar/manifests/1.2.0$"), "the first image is there")
        os.kill(main.pid, signal.SIGSTOP)  # so that the next one is not, whatever the machine
        try:
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(timeout=60) == 128 + signal.SIGTERM
        finally:
            os.kill(main.pid, signal.SIGCONT)
    assert local_names(client, main.name) == []
    assert "oar:latest" not in images_in(main.name)
    said = succeed(push(shop, [main.name], "--tag", tag, "--yes"))
    assert f"$ docker push {main.name}/oar:1.2.0\n" not in said
    assert images_in(main.name) == with_names(wares, "latest", "1.2")
    assert len(main.asked("PUT", "/oar/manifests/1.2.0$")) == 1


# -- passwords


def test_a_password_from_standard_input_is_seen_nowhere(
    shop: Checkout, wares: dict[str, str], locked: Registry, docker_config: Path, tmp_path: Path
) -> None:
    tag = release(shop, wares)
    arguments = [*settings(shop, locked.name), "push", "--tag", tag, "--yes"]
    more = ["--username", USER, "--password-stdin"]
    secrets = {PASSWORD, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
    listings = []
    with shop.start(
        *arguments,
        *more,
        stdin=subprocess.PIPE,
        env={"DOCKER_CONFIG": str(docker_config), "TMPDIR": str(tmp_path)},
    ) as process:
        assert process.stdin
        process.stdin.write(f"{PASSWORD}\n")
        process.stdin.close()
        process.stdin = None
        while process.poll() is None:
            ps = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True)
            listings.append(ps.stdout)
            time.sleep(0.02)
        assert process.stdout
        said = process.stdout.read()
        assert process.returncode == 0, said
    assert any(f"docker push {locked.name}/oar" in listing for listing in listings)
    for secret in secrets:
        assert secret not in said
        assert not any(secret in listing for listing in listings)
    assert images_in(locked.name, auth=(USER, PASSWORD)) == with_names(wares, "latest", "1.2")
    assert json.loads((docker_config / "config.json").read_text()) == {}
    assert list(tmp_path.glob("slipway-docker-*")) == []


@pytest.mark.parametrize(
    ("password", "words"),
    [("", "wants credentials, and Docker has none"), ("wrong", "refuses the credentials")],
)
def test_credentials_that_are_missing_or_wrong(
    shop: Checkout,
    wares: dict[str, str],
    locked: Registry,
    docker_config: Path,
    password: str,
    words: str,
) -> None:
    if password:
        log_in(docker_config, locked.name, password)
    env = {"DOCKER_CONFIG": str(docker_config)}
    done = push(shop, [locked.name], "--tag", release(shop, wares), "--yes", env=env)
    refused(done, 77, f"{locked.name} {words}", f"docker login {locked.name}")
    assert "docker push" not in done.stdout.partition("error: ")[0]


def test_a_helper_keeps_the_password(
    shop: Checkout, wares: dict[str, str], locked: Registry, docker_config: Path, tmp_path: Path
) -> None:
    helper = tmp_path / "bin" / "docker-credential-box"
    helper.parent.mkdir()
    helper.write_text(
        f'#!/bin/sh\n[ "$1" = get ] && [ "$(cat)" = {locked.name} ] || exit 1\n'
        f'echo \'{{"Username": "{USER}", "Secret": "{PASSWORD}"}}\'\n'
    )
    helper.chmod(0o755)
    (docker_config / "config.json").write_text(json.dumps({"credsStore": "box"}))
    path = f"{helper.parent}:{os.environ['PATH']}"
    env = {"DOCKER_CONFIG": str(docker_config), "PATH": path}
    said = succeed(push(shop, [locked.name], "--tag", release(shop, wares), "--yes", env=env))
    assert PASSWORD not in said
    assert images_in(locked.name, auth=(USER, PASSWORD)) == with_names(wares, "latest", "1.2")


# -- registries that fail


def free_port() -> int:
    with listening("127.0.0.1") as closed:
        return int(closed.getsockname()[1])


def test_a_registry_that_is_down(shop: Checkout, wares: dict[str, str]) -> None:
    name = f"127.0.0.1:{free_port()}"
    done = push(shop, [name], "--tag", release(shop, wares), "--yes")
    error = refused(done, 69, f"was not pushed: {name} does not answer", "Connection refused")
    assert f"https://{name}/v2/" in error


def test_a_registry_that_takes_connections_and_says_nothing(
    shop: Checkout, wares: dict[str, str]
) -> None:
    with listening("127.0.0.1") as silent:
        name = f"127.0.0.1:{silent.getsockname()[1]}"
        done = push(shop, [name], "--tag", release(shop, wares), "--yes")
    refused(done, 69, f"was not pushed: {name} gave no answer within 3 s")


def test_a_registry_whose_disk_is_full(
    shop: Checkout, wares: dict[str, str], tmp_path: Path, client: Any
) -> None:
    storage = tmp_path / "full"
    with ExitStack() as stack:
        stack.enter_context(tmpfs(storage, "2m"))
        registry = stack.enter_context(serving(storage))
        done = push(shop, [registry.name], "--tag", release(shop, wares), "--yes")
        refused(done, 69, "oar 1.2.0 is not everywhere", "its disk may be full")
        assert re.search(r"^oar:1\.2\.0 +failed: ", done.stdout, re.MULTILINE), done.stdout
        assert "oar:latest" not in images_in(registry.name)
    assert local_names(client, registry.name) == []


def test_one_mirror_of_two_that_fails_leaves_the_names_until_it_is_back(
    shop: Checkout, wares: dict[str, str], main: Registry, tmp_path: Path
) -> None:
    port, tag = free_port(), release(shop, wares)
    with serving(tmp_path / "good") as good:
        names = [main.name, good.name, f"127.0.0.1:{port}"]
        done = push(shop, names, "--tag", tag, "--yes")
        refused(done, 69, "oar 1.2.0 is not everywhere", f"{names[2]} does not answer")
        row = re.search(r"^oar:1\.2\.0 +(.*)$", done.stdout, re.MULTILINE)
        assert row
        cells = re.split(r" {2,}", row[1])
        assert cells == ["pushed", "pushed", f"failed: {names[2]} does not answer"]
        assert images_in(main.name) == images_in(good.name) == wares
        with serving(tmp_path / "back", port=port) as back:
            said = succeed(push(shop, names, "--tag", tag, "--yes"))
            assert f"$ docker push {main.name}" not in said
            for registry in (main, good, back):
                assert images_in(registry.name) == with_names(wares, "latest", "1.2")


# -- what cannot be pushed


@pytest.mark.parametrize("name", ["https://registry.example", "company"])
def test_a_name_that_is_no_registry(shop: Checkout, name: str) -> None:
    done = push(shop, [name], "--yes")
    refused(done, 78, f"registry: '{name}' is no registry", "HOST[:PORT][/PATH]")


def test_no_registry_in_the_settings(shop: Checkout) -> None:
    refused(shop.invoke("push", "--yes"), 78, "the settings name no registry")


def test_a_tag_that_no_release_has(shop: Checkout, wares: dict[str, str], main: Registry) -> None:
    release(shop, wares)
    done = push(shop, [main.name], "--tag", "v1.2.9", "--yes")
    refused(done, 66, "no release of oar in dist/ was made from the tag 'v1.2.9'", "v1.2.0")


def test_nothing_made_yet(shop: Checkout, main: Registry) -> None:
    done = push(shop, [main.name], "--yes")
    refused(done, 66, "no image of oar", "invoke prod --variant all")


def test_an_image_of_a_release_that_is_gone(
    shop: Checkout, wares: dict[str, str], main: Registry
) -> None:
    gone = {**wares, "oar:1.2.0-noavx": f"sha256:{uuid.uuid4().hex * 2}"}
    done = push(shop, [main.name], "--tag", release(shop, gone), "--yes")
    refused(done, 66, "not every image of oar 1.2.0 is here", "oar:1.2.0-noavx was sha256:")
    assert images_in(main.name) == {}


# -- the dev image, by its hash

TINY = "ARG BASE\nFROM ${BASE} AS dev\nRUN echo %s >/made\n"


@pytest.fixture
def pair(area: Path, checkouts: list[Checkout]) -> tuple[Checkout, Checkout]:
    """Two clones whose dev image is the same small one, which nobody has made yet."""
    mark = uuid.uuid4().hex
    made = []
    for name in ("maker", "taker"):
        checkout = Checkout(area / f"{name}-{mark[:8]}" / "slipway")
        checkouts.append(checkout)
        clone_working_tree(ROOT, checkout.root)
        (checkout.root / "Dockerfile.dev").write_text(TINY % mark)
        made.append(checkout)
    return made[0], made[1]


def tag_of(said: str) -> str:
    (tag,) = set(re.findall(r"slipway-dev:[0-9a-f]{12}", said))
    return str(tag)


def test_a_new_contributor_waits_for_a_download(
    pair: tuple[Checkout, Checkout], main: Registry, client: Any
) -> None:
    maker, taker = pair
    down = f"127.0.0.1:{free_port()}"
    succeed(push(maker, [main.name], "--dev", "--yes"))
    found = [alias for alias in images_in(main.name) if alias.startswith("slipway-dev:")]
    (tag,) = found
    made = client.images.get(tag)
    assert made.labels[LABEL] == maker.name
    assert "is unchanged in" in succeed(push(maker, [main.name], "--dev", "--yes"))
    client.images.remove(tag)
    names = [down, main.name]
    said = succeed(taker.invoke(*settings(taker, *names), "dev"))
    assert f"no {down}/{tag}: {down} does not answer" in said
    assert f"$ docker pull {main.name}/{tag}" in said
    assert "making the dev image" not in said
    pulled = client.images.get(tag)
    assert pulled.labels[KEY] == tag.partition(":")[2]
    assert pulled.labels[LABEL] == taker.name
    assert pulled.attrs["RootFS"]["Layers"] == made.attrs["RootFS"]["Layers"]
    assert local_names(client, main.name) == []
    assert "docker pull" not in succeed(taker.invoke(*settings(taker, *names), "dev"))
    succeed(taker.invoke("clean", "--everything"))
    assert not client.images.list(filters=taker.label)


def test_where_no_registry_has_it_the_dev_image_is_built(
    pair: tuple[Checkout, Checkout], main: Registry, client: Any
) -> None:
    _, taker = pair
    said = succeed(taker.invoke(*settings(taker, main.name), "dev"))
    tag = tag_of(said.rpartition("dev image")[2])
    assert f"no {main.name}/{tag}: it is not there" in said
    assert "making the dev image" in said
    client.images.remove(tag)


def test_an_image_that_is_not_what_its_name_says_is_refused_and_built(
    pair: tuple[Checkout, Checkout], main: Registry, client: Any
) -> None:
    maker, taker = pair
    tag = tag_of(succeed(maker.invoke("dev")).rpartition("dev image")[2])
    client.images.remove(tag)
    wrong = import_layer(client, 1)
    wrong.tag(f"{main.name}/{tag}")
    subprocess.run(["docker", "push", f"{main.name}/{tag}"], check=True, capture_output=True)
    client.images.remove(wrong.id, force=True)
    said = succeed(taker.invoke(*settings(taker, main.name), "dev"))
    assert f"no {main.name}/{tag}: refused: its labels say {KIND}=none, {KEY}=none" in said
    assert "making the dev image" in said
    assert local_names(client, main.name) == []
    client.images.remove(tag)


# -- production images


@pytest.fixture
def pushed(built: Built, main: Registry) -> Done:
    """What `all` has made is in a registry."""
    return push(built.checkout, [main.name], "--yes")


def test_what_was_made_of_this_version_is_pushed_and_runs_elsewhere(
    built: Built, scratch: Checkout, main: Registry, pushed: Done, client: Any
) -> None:
    succeed(pushed)
    rows = rows_of(built.first.stdout)
    aliases = [rows["image", variant][2] for variant in ("cpu", "noavx")]
    there = images_in(main.name)  # other variants too, where another test has made them
    assert set(aliases) <= set(there)
    assert there == {alias: client.images.get(alias).id for alias in there}
    # No name moves to a development version. What they share was sent once.
    layers = {d for alias in there for d in client.images.get(alias).attrs["RootFS"]["Layers"]}
    assert len(main.asked("PUT", "/blobs/uploads/")) == len(layers) + len(there)
    (scratch.root / "x.py").write_text("import oar\nprint('it runs', oar.__name__)\n")
    arguments = [*settings(scratch, main.name), "run", "x.py", "--variant", "noavx"]
    said = succeed(scratch.invoke(*arguments))
    assert f"{aliases[1]} was not made here: looking for it in the registry" in said
    assert f"$ docker pull {main.name}/{aliases[1]}" in said
    assert "it runs oar" in said
    client.images.remove(f"{main.name}/{aliases[1]}")


def test_what_the_registry_lacks_is_said_to_have_to_be_made(
    scratch: Checkout, main: Registry
) -> None:
    (scratch.root / "x.py").write_text("")
    done = scratch.invoke(*settings(scratch, main.name), "run", "x.py")
    refused(done, 69, "no production image of oar has been made", "invoke prod")


# -- an application


def image_in(checkout: Checkout, app: Path) -> str:
    """What the cluster is told to fetch."""
    job = yaml.safe_load((checkout.out / "deploy" / app.name / "job.yaml").read_text())
    return str(job["spec"]["template"]["spec"]["containers"][0]["image"])


def test_an_application_is_pushed_and_deployed_by_its_digest(
    built: Built, main: Registry, client: Any, tmp_path: Path
) -> None:
    checkout, app = built.checkout, tmp_path / "tides"
    app.mkdir()
    named, deploy = settings(checkout, main.name), ("deploy", "--dir", str(app))

    def write(word: str) -> None:
        (app / "train.py").write_text(f"print({word!r})\n")

    write("ebb")
    refused(
        push(checkout, [main.name], "--dir", str(app), "--yes"),
        *(66, "no image of tides was made here", "invoke app --dir"),
    )
    said = succeed(checkout.invoke(*named, *deploy))
    tag = image_in(checkout, app)
    assert re.fullmatch(r"tides:[^@/]+", tag)
    assert f"{tag} has not been pushed from here" in said
    succeed(push(checkout, [main.name], "--dir", str(app), "--yes"))
    assert images_in(main.name) == {tag: client.images.get(tag).id}  # no name moves
    assert "unchanged in" in succeed(push(checkout, [main.name], "--dir", str(app), "--yes"))
    succeed(checkout.invoke(*named, *deploy))
    first = image_in(checkout, app)
    assert re.fullmatch(rf"{main.name}/tides@sha256:[0-9a-f]{{64}}", first)
    # What the registry has is of before the edit, and is not what the cluster would get.
    write("flood")
    succeed(checkout.invoke(*named, *deploy))
    assert image_in(checkout, app) == tag
    succeed(push(checkout, [main.name], "--dir", str(app), "--yes"))
    succeed(checkout.invoke(*named, *deploy))
    second = image_in(checkout, app)
    assert second.startswith(f"{main.name}/tides@")
    assert second != first
    for name, word in ((first, "ebb"), (second, "flood")):
        client.images.pull(name)
        program = ["python", "/app/train.py"]
        assert client.containers.run(name, program, remove=True).decode().strip() == word
        client.images.remove(name)
    dead = f"127.0.0.1:{free_port()}"
    refused(
        checkout.invoke(*settings(checkout, dead), *deploy),
        *(69, f"{dead} does not answer", "Connection refused"),
    )
    assert image_in(checkout, app) == second
