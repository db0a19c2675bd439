"""An image's identity is what goes into it, and nothing secret is among its arguments."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from slipway import images
from slipway.base import Base
from slipway.engine import LABEL, PROXIES
from slipway.errors import SlipwayError
from slipway.images import (
    KEY,
    KIND,
    SECRET_LIMIT,
    Recipe,
    build_arguments,
    dev_recipe,
    ensure_gpu,
    fingerprint,
    gpu_recipe,
    secrets,
    stage,
)
from slipway.processes import Heard
from slipway.settings import Workshop
from tests.unit.fakes import make_recipe, make_workshop

# -- the key


def test_the_key_is_the_same_each_time_and_everywhere(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    keys = {make_recipe(tmp_path / name).key for name in "ab"}
    assert len(keys) == 1
    assert re.fullmatch(r"[0-9a-f]{12}", keys.pop())


def edit(name: str, text: str) -> Callable[[Recipe, Path], Recipe]:
    def change(recipe: Recipe, root: Path) -> Recipe:
        (root / name).write_text(text)
        return recipe

    return change


def redate(recipe: Recipe, root: Path) -> Recipe:
    os.utime(root / "file", (1, 1))
    return recipe


def set_mode(recipe: Recipe, root: Path) -> Recipe:
    (root / "file").chmod(0o755)
    return recipe


def with_(**changes: Any) -> Callable[[Recipe, Path], Recipe]:
    return lambda recipe, _: replace(recipe, **changes)


CHANGES: dict[str, Callable[[Recipe, Path], Recipe]] = {
    "the Dockerfile": edit("Dockerfile.x", "FROM y\n"),
    "a staged file": edit("file", "other\n"),
    "a staged file's mode": set_mode,
    "the base": with_(base=Base("debian:trixie-slim", "sha256:2")),
    "the target": with_(target="prod"),
    "an argument": with_(arguments={"A": "2"}),
    "one more argument": with_(arguments={"A": "1", "B": ""}),
    "a label": with_(labels={"l": "2"}),
    "a text": lambda recipe, _: replace(recipe, files={**recipe.files, "text": "other"}),
    "a file's name": lambda recipe, root: replace(recipe, files={"x": root / "file"}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_key_changes_with(tmp_path: Path, change: Callable[[Recipe, Path], Recipe]) -> None:
    recipe = make_recipe(tmp_path)
    before = recipe.key
    assert change(recipe, tmp_path).key != before


SAME: dict[str, Callable[[Recipe, Path], Recipe]] = {
    "the order of arguments": lambda recipe, _: replace(recipe, arguments={"B": "2", "A": "1"}),
    "a file's date": redate,
    "another name of the same base": with_(base=Base("mirror/debian:trixie-slim", "sha256:1")),
    "a file that is not staged": edit("other", "new"),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_the_key_does_not_change_with(
    tmp_path: Path, change: Callable[[Recipe, Path], Recipe]
) -> None:
    recipe = make_recipe(tmp_path, arguments={"A": "1", "B": "2"})
    before = recipe.key
    assert change(recipe, tmp_path).key == before


def test_parts_that_join_alike_are_told_apart() -> None:
    assert fingerprint(b"ab", b"c") != fingerprint(b"a", b"bc")
    assert fingerprint(b"a") != fingerprint("a")


def test_a_tag_is_the_name_and_the_key(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    assert recipe.tag == f"slipway-dev:{recipe.key}"
    named = replace(recipe, repository="slipway-0a1b2c3d-oar")
    assert named.tag == f"slipway-0a1b2c3d-oar:{recipe.key}"


def test_the_dev_image_depends_on_what_its_dockerfile_mounts(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    base = Base("debian:trixie-slim", "sha256:1")
    before = dev_recipe(workshop, base).key
    for name in ("scripts/build", "scripts/test", "tasks.py", "README.md"):
        (tmp_path / name).write_text("changed")
    assert dev_recipe(workshop, base).key == before
    for name in (
        "scripts/apt-install",
        "scripts/pip-install",
        "scripts/packages-dev.txt",
        "requirements-image.txt",
        "Dockerfile.dev",
    ):
        (tmp_path / name).write_text("changed")
        key = dev_recipe(workshop, base).key
        assert key != before, name
        before = key


def test_the_image_with_cuda_depends_on_the_dev_image_and_on_the_compiler_s_lock(
    tmp_path: Path,
) -> None:
    workshop = make_workshop(tmp_path)
    before = gpu_recipe(workshop, "slipway-dev:0123456789ab")
    assert before.tag.startswith("slipway-dev-gpu:")
    assert before.arguments == {"DEV": "slipway-dev:0123456789ab"}
    keys = {before.key, gpu_recipe(workshop, "slipway-dev:ba9876543210").key}
    for name in ("scripts/cuda-install", "requirements-cuda.txt", "Dockerfile.dev"):
        (tmp_path / name).write_text("changed")
        keys.add(gpu_recipe(workshop, "slipway-dev:0123456789ab").key)
    assert len(keys) == 5


def test_the_image_with_cuda_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop = make_workshop(tmp_path)
    here: dict[str, Any] = {}
    made: list[str] = []

    def build(_: Workshop, recipe: Recipe, **_more: str) -> str:
        made.append(recipe.target)
        here[recipe.tag] = {}
        return recipe.tag

    monkeypatch.setattr(images, "inspect_images", lambda *_: here)
    monkeypatch.setattr(images, "build_image", build)
    tags = {ensure_gpu(workshop, "slipway-dev:0123456789ab") for _ in range(2)}
    assert made == ["dev-gpu"]
    assert len(tags) == 1


# -- the context and the secrets


@pytest.fixture
def no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workshop, "ca_bundle", None)


def bundle_of(root: Path, size: int) -> str:
    (root / "ca.pem").write_bytes(b"x" * size)
    return str(root / "ca.pem")


def secrets_of(workshop: Workshop, root: Path) -> list[str]:
    for name in ("ca", "apt"):
        (root / "context" / name).mkdir(parents=True, exist_ok=True)
    return secrets(workshop, root, root / "context")


def test_only_the_staged_files_are_sent(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("stays here")
    recipe = make_recipe(tmp_path)
    (tmp_path / "file").chmod(0o755)
    stage(recipe, tmp_path / "context")
    sent = {path.relative_to(tmp_path / "context") for path in tmp_path.glob("context/**/*")}
    assert {str(path) for path in sent} == {"apt", "ca", "text", "tools", "tools/file"}
    assert (tmp_path / "context" / "text").read_text() == "words"
    assert os.access(tmp_path / "context" / "tools" / "file", os.X_OK)


def test_a_ca_bundle_is_a_secret(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path, SECRET_LIMIT)
    argv = secrets_of(make_workshop(tmp_path, ca_bundle=bundle), tmp_path)
    assert argv == ["--secret", f"id=ca,src={bundle}"]
    assert list((tmp_path / "context" / "ca").iterdir()) == []


def test_a_bundle_that_buildkit_refuses_as_a_secret_goes_to_the_context(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path, SECRET_LIMIT + 1)
    argv = secrets_of(make_workshop(tmp_path, ca_bundle=bundle), tmp_path)
    assert argv == []
    assert (tmp_path / "context" / "ca" / "ca.pem").stat().st_size == SECRET_LIMIT + 1


@pytest.mark.usefixtures("no_bundle")
def test_without_bundle_and_mirrors_nothing_is_handed_over(tmp_path: Path) -> None:
    assert secrets_of(make_workshop(tmp_path), tmp_path) == []
    assert list((tmp_path / "context").glob("*/*")) == []


@pytest.mark.usefixtures("no_bundle")
def test_mirrors_reach_the_build_and_not_its_arguments(tmp_path: Path) -> None:
    mirrors = {"pip": "https://ann:secret@pip.example/simple", "apt": "http://apt.example/debian"}
    argv = secrets_of(make_workshop(tmp_path, mirrors=mirrors), tmp_path)
    assert argv == ["--secret", f"id=pip,src={tmp_path / 'pip.conf'}"]
    assert "secret@" not in " ".join(argv)
    conf = tmp_path / "pip.conf"
    assert conf.read_text() == f"[global]\nindex-url = {mirrors['pip']}\n"
    assert conf.stat().st_mode & 0o077 == 0
    assert not conf.is_relative_to(tmp_path / "context")
    assert (tmp_path / "context" / "apt" / "mirror").read_text() == "http://apt.example/debian\n"


# -- the command


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    found = (["docker", "build"], {"DOCKER_BUILDKIT": "1"})
    monkeypatch.setattr(images, "build_client", lambda: found)
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("client", "no_bundle")
def test_the_command_that_builds_a_recipe(tmp_path: Path) -> None:
    workshop, recipe = make_workshop(tmp_path), make_recipe(tmp_path)
    argv, variables = build_arguments(workshop, recipe, tmp_path)
    assert argv == [
        *("docker", "build", "--file", str(recipe.dockerfile)),
        *("--build-arg", "BASE=debian:trixie-slim", "--target", "dev", "--build-arg", "A=1"),
        *("--tag", recipe.tag, "--label", f"{KIND}=dev", "--label", f"{KEY}={recipe.key}"),
        *("--label", f"{LABEL}={workshop.checkout}", "--label", "l=1"),
        str(tmp_path / "context"),
    ]
    assert variables == {"DOCKER_BUILDKIT": "1"}


@pytest.mark.usefixtures("client", "no_bundle")
def test_a_proxy_goes_by_name_and_its_value_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://ann:secret@proxy:3128")
    monkeypatch.setenv("NO_PROXY", "localhost,secret.example")
    recipe = make_recipe(tmp_path)
    before = recipe.key
    argv, variables = build_arguments(make_workshop(tmp_path), recipe, tmp_path)
    assert "secret" not in " ".join([*argv, *variables.values()])
    by_name = [b for a, b in pairwise(argv) if a == "--build-arg" and "=" not in b]
    assert by_name == ["https_proxy", "NO_PROXY"]
    monkeypatch.delenv("https_proxy")
    assert recipe.key == before


def test_no_dockerfile_declares_a_proxy() -> None:
    """A declared ARG would be kept in the image's history; BuildKit's predefined ones are not."""
    root = Path(__file__).parents[2]
    for dockerfile in root.glob("Dockerfile.*"):
        assert not re.search(r"^\s*(ARG|ENV)\b.*proxy", dockerfile.read_text(), re.I | re.M)


@pytest.mark.usefixtures("client", "no_bundle")
def test_what_a_failed_build_has_said_may_be_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(argv: list[str], *, heard: Heard | None, **_: Any) -> int:
        assert Path(argv[argv.index("--file") + 1]).read_text() == "FROM x\n"
        if heard:
            heard.add(b"no hull\n")
        return 3

    monkeypatch.setattr("slipway.processes.call", fail)
    monkeypatch.setattr(images, "ask", lambda *_: "")
    workshop, recipe = make_workshop(tmp_path), make_recipe(tmp_path, dockerfile="FROM x\n")

    def explain(said: str) -> SlipwayError | None:
        return SlipwayError(f"explained: {said.strip()}") if "hull" in said else None

    with pytest.raises(SlipwayError, match="explained: no hull"):
        images.build_image(workshop, recipe, explain=explain)
    for unknown in (None, lambda _: None):
        with pytest.raises(SlipwayError, match="the dev image was not built") as caught:
            images.build_image(workshop, recipe, explain=unknown)
        assert caught.value.code == 3


def test_a_dockerfile_s_text_counts_as_its_file_would(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    assert replace(recipe, dockerfile=recipe.text.decode()).key == recipe.key
