"""What bad input gets: what failed, why, the next command, a status of ours; nothing half-made."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Built
from tests.integration.workbench import (
    SOURCES,
    Checkout,
    refused,
    snapshot,
    succeed,
    tmpfs,
    tree,
)


@pytest.fixture(scope="module")
def spare(other: Checkout) -> Iterator[Checkout]:
    """A clone in which nothing is made here: whatever fails must leave it as it is."""
    before = snapshot(other.root)
    yield other
    after = {n: s for n, s in snapshot(other.root).items() if not n.startswith("out/.run")}
    assert {n for n in after if n not in before and n != "out"} == set()


def programs(directory: Path, *names: str) -> Path:
    """A directory for PATH with these programs of this machine and no others."""
    directory.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found
        (directory / name).symlink_to(found)
    return directory


# -- the engine


def test_no_docker_program(spare: Checkout, tmp_path: Path) -> None:
    path = programs(tmp_path / "bin", "git", "sh", "env")
    done = spare.invoke("build", env={"PATH": str(path)})
    refused(done, 69, "no docker program", "./go invoke setup")


@pytest.mark.parametrize("task", ["build", "all", "ps", "clean --images", "doctor"])
def test_an_engine_that_is_down(spare: Checkout, built: Built, area: Path, task: str) -> None:
    checkout = built.checkout if task.startswith("run") else spare  # which has nothing to run
    dead = area / "dead.sock"
    if not dead.exists():  # bound, and nobody listens
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(dead))
    done = checkout.invoke(*task.split(), env={"DOCKER_HOST": f"unix://{dead}"})
    assert "setting up this machine" not in done.stdout
    if task == "doctor":
        assert done.returncode == 69
        assert "the docker engine does not answer" in done.stdout
        return
    refused(done, 69, "the docker engine does not answer", str(dead), "start that engine")


def test_an_engine_whose_socket_is_not_there(spare: Checkout, area: Path) -> None:
    done = spare.invoke("build", env={"DOCKER_HOST": f"unix://{area}/nowhere.sock"})
    refused(done, 69, "the docker engine does not answer", "nowhere.sock")


@pytest.mark.parametrize("task", ["build", "all", "ps"])
def test_a_socket_that_this_user_may_not_use(ordinary: Checkout, task: str) -> None:
    assert ordinary.user
    outsider = replace(ordinary, user=replace(ordinary.user, groups=()))
    done = outsider.invoke(task)
    refused(done, 77, "may not be used by this user", "permission denied", "usermod -aG docker")


def test_no_client_that_has_buildkit(scratch: Checkout, tmp_path: Path) -> None:
    found = [shutil.which("docker", path=d) for d in scratch.environment()["PATH"].split(":")]
    plain = [
        client
        for client in filter(None, found)
        if subprocess.run([client, "buildx", "version"], capture_output=True).returncode
        and b"version 2" in (said := subprocess.check_output([client, "--version"]))
        and not re.search(rb"version (19|20|21|22)\.", said)
    ]
    path = programs(tmp_path / "bin", "git", "sh", "env")
    if plain:
        (path / "docker").symlink_to(plain[0])
    else:  # what such a client does, for a machine that has only better ones
        script = f"""\
        #!/bin/sh
        case $1 in
          buildx) echo "docker: 'buildx' is not a docker command." >&2; exit 1 ;;
          --version) echo "Docker version 28.2.2, build e6534b4" ;;
          *) exec {found and next(filter(None, found))} "$@" ;;
        esac
        """
        (path / "docker").write_text(textwrap.dedent(script))
        (path / "docker").chmod(0o755)
    listing = scratch.root / "scripts" / "packages-dev.txt"
    listing.write_text(f"{listing.read_text()}tree\n")  # else there is nothing to build
    done = scratch.invoke("dev", env={"PATH": str(path), "HOME": str(tmp_path)})
    refused(done, 69, "BuildKit", "buildx")


# -- names


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("build --variant cpuu", 64, ["no variant 'cpuu'", "did you mean 'cpu'?"]),
        ("run tasks.py --variant nosuch", 64, ["no variant 'nosuch'", "known:"]),
        ("build --project examples/oarr", 64, ["'examples/oarr'", "did you mean 'examples/oar'?"]),
        ("test --source examples/nosuch", 66, ["no source directory"]),
        ("build --source examples/digits", 66, ["has no CMakeLists.txt"]),
        ("run nosuch.py", 66, ["no script nosuch.py"]),
        ("clean --keep much", 64, ["'much' is no size"]),
        ("build --engine dokcer", 64, ["dokcer", "did you mean 'docker'?"]),
    ],
)
def test_a_name_that_does_not_exist(
    spare: Checkout, arguments: str, code: int, words: list[str]
) -> None:
    refused(spare.invoke(*arguments.split()), code, *words)


def test_a_script_outside_the_current_directory(spare: Checkout, tmp_path: Path) -> None:
    (tmp_path / "s.py").touch()
    refused(spare.invoke("run", str(tmp_path / "s.py")), 66, "outside the current directory")


def test_a_flag_that_does_not_exist(spare: Checkout) -> None:
    done = spare.invoke("build", "--varient", "cpu")
    assert done.returncode
    assert "--varient" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_run_before_an_image_is_made(spare: Checkout) -> None:
    refused(spare.invoke("run", "tasks.py"), 69, "no production image of oar", "invoke prod")


# -- settings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pul_wait_s: 3", ["pul_wait_s: unknown key", "did you mean 'pull_wait_s'?"]),
        ("mirrors: {pipp: x}", ["mirrors.pipp: unknown key", "did you mean 'pip'?"]),
        ("pull_wait_s: soon", ["pull_wait_s: Expected `int`"]),
        ("mirrors: {apt: 5}", ["mirrors.apt: Expected `str`"]),
        ("mirrors: fast", ["mirrors: "]),
        ("pull_wait_s: {a: 1}", ["pull_wait_s"]),
        ("default_variants: cpu", ["default_variants: Expected `array`"]),
        ("engine: dokcer", ["engine: ", "dokcer"]),
        ("variants: {cpu: {isa: 3}}", ["variants", "isa: Expected `str`"]),
        ("variants: {tpu: {isa: x86-64-v4}}", ["variants 'cpu' and 'tpu' have the same suffix"]),
        ("a: [1", ["invoke.yaml"]),
        ("- a list", ["invoke.yaml"]),
    ],
)
def test_an_invoke_yaml_that_is_wrong(spare: Checkout, text: str, words: list[str]) -> None:
    file = spare.root / "invoke.yaml"
    before = file.read_text()
    file.write_text(f"{text}\n")
    try:
        refused(spare.invoke("ps"), 78, *words)
    finally:
        file.write_text(before)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("INVOKE_DEFAULT_VARIANTS", "cpu", ["default_variants", "cannot be set by a variable"]),
        ("INVOKE_PULL_WAIT_S", "soon", ["INVOKE_PULL_WAIT_S"]),
        ("INVOKE_ENGINE", "dokcer", ["engine: ", "dokcer"]),
        ("INVOKE_BASEE", "debian", ["INVOKE_BASEE", "INVOKE_BASE"]),
    ],
)
def test_a_variable_that_is_wrong(spare: Checkout, name: str, value: str, words: list[str]) -> None:
    refused(spare.invoke("ps", env={name: value}), 78, *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("test: {ctest: perhaps}", ["test.ctest: Expected `bool`"]),
        ("test: {ctst: true}", ["test.ctst: unknown key", "did you mean 'ctest'?"]),
        ("image: {about: python3}", ["image.about: Expected `array`"]),
        ("homepag: x", ["homepag: unknown key", "did you mean 'homepage'?"]),
        ("build: {system: ninja}", ["build.system"]),
        ("build: {options: {A: '{versoin}'}}", ["A: no placeholder '{versoin}'", "'version'?"]),
        ("variants: {cpuu: {}}", ["variants.cpuu: no such variant", "did you mean 'cpu'?"]),
        ("name: Not A Name", ["name: 'Not A Name'"]),
        ("test: [", ["is not YAML"]),
    ],
)
def test_a_project_yaml_that_is_wrong(
    spare: Checkout, tiny: Path, text: str, words: list[str]
) -> None:
    file = tiny / "project.yaml"
    key = text.partition(":")[0]
    file.write_text(re.sub(rf"(?m)^{key}:.*\n", "", file.read_text()) + f"{text}\n")
    refused(spare.invoke("build", "--project", str(tiny)), 78, str(file), *words)


# -- trees


def test_a_compile_error_is_the_compilers_own_words_and_status(built: Built, tiny: Path) -> None:
    (tiny / "one.cc").write_text("int one() { return uno; }\n")
    done = built.checkout.invoke("build", "--project", str(tiny))
    refused(done, 1, "tiny", "was not built: status 1")
    assert "one.cc:1:" in done.stdout
    assert "was not declared in this scope" in done.stdout


def test_a_cmake_error_is_cmakes_own_words_and_status(built: Built, tiny: Path) -> None:
    tree(tiny, cmake='message(FATAL_ERROR "no such luck")\n')
    done = built.checkout.invoke("build", "--project", str(tiny))
    refused(done, 1, "was not built: status 1")
    assert "no such luck" in done.stdout


def test_a_failing_test_is_named_and_its_status_is_ours(built: Built, tiny: Path) -> None:
    (tiny / "one.cc").write_text("int one() { return 42; }\n")
    done = built.checkout.invoke("test", "--project", str(tiny))
    refused(done, 8, "1 of 1 tests of tiny", "out/tiny/cpu/reports")
    assert re.search(r"starts.*\(Failed\)", done.stdout)


def test_a_failing_python_test_is_named_and_its_status_is_ours(built: Built, tiny: Path) -> None:
    tree(tiny, project="test: {pytest: [checks]}\n")
    (tiny / "checks").mkdir()
    (tiny / "checks" / "test_it.py").write_text("def test_sum():\n    assert 1 + 1 == 3\n")
    done = built.checkout.invoke("test", "--project", str(tiny))
    refused(done, 1, "1 of 2 tests of tiny")
    assert "test_it.py::test_sum" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [("--ctest-filter", "fits-none"), ("--ctest-filter", "fits-none", "--", "-k", "none")],
)
def test_no_test_executed_is_a_failure(
    built: Built, tiny: Path, arguments: tuple[str, ...]
) -> None:
    tree(tiny, project="test: {pytest: [checks]}\n")
    (tiny / "checks").mkdir()
    (tiny / "checks" / "test_it.py").write_text("def test_sum():\n    assert 1 + 1 == 2\n")
    done = built.checkout.invoke("test", "--project", str(tiny), *arguments)
    refused(done, 65, "no test of tiny", "was executed")


def test_a_link_that_leads_nowhere_is_named(spare: Checkout, tiny: Path) -> None:
    (tiny / "lost.h").symlink_to(tiny.parent / "nowhere.h")
    done = spare.invoke("build", "--project", str(tiny))
    refused(done, 66, f"{tiny}/lost.h", "nowhere.h")


def test_a_link_that_leads_out_of_the_tree_is_followed(
    built: Built, tiny: Path, area: Path
) -> None:
    away = area / "elsewhere, else: where"
    away.mkdir()
    (away / "one.cc").write_text(SOURCES["one.cc"])
    (tiny / "one.cc").unlink()
    (tiny / "one.cc").symlink_to(away / "one.cc")
    succeed(built.checkout.invoke("build", "--project", str(tiny)))


def test_spaces_commas_colons_and_umlauts_in_a_trees_path_work(built: Built, area: Path) -> None:
    odd = tree(area / "trees" / "Bäume, drei: α β")
    said = succeed(built.checkout.invoke("test", "--project", str(odd)))
    assert "1 tests executed" in said
    succeed(built.checkout.invoke("deb", "--project", str(odd)))
    shutil.rmtree(next((built.checkout.root / "dist").glob("tiny-*")))


# -- disks and owners


@pytest.mark.parametrize(
    ("task", "place"), [("build", ""), ("test", "tiny"), ("deb", "tiny/cpu"), ("all", "")]
)
def test_an_out_that_belongs_to_root(ordinary: Checkout, tiny: Path, task: str, place: str) -> None:
    assert ordinary.user
    succeed(ordinary.invoke("build", "--project", str(tiny)))
    roots = ordinary.out / place
    os.chown(roots, 0, 0)
    try:
        done = ordinary.invoke(task, "--project", str(tiny))
        refused(done, 73, "belongs to uid 0, you are 1000", "chown -R")
    finally:
        os.chown(roots, ordinary.user.uid, ordinary.user.uid)


def test_a_disk_that_runs_full_while_compiling(spare: Checkout, tiny: Path) -> None:
    tree(tiny, cmake="add_custom_target(fill ALL COMMAND head -c 50M /dev/zero >zeros)\n")
    with tmpfs(spare.out, "24m"):
        done = spare.invoke("build", "--project", str(tiny))
        refused(done, 1, "was not built", "the disk is full", "are left for")


@pytest.mark.parametrize("size", ["4k", "16k"])
def test_a_disk_that_is_full_before_anything_runs(spare: Checkout, tiny: Path, size: str) -> None:
    with tmpfs(spare.out, size):
        done = spare.invoke("build", "--project", str(tiny))
        said = done.stdout[done.stdout.find("error: ") :]
        assert done.returncode, done.stdout
        assert "the disk is full" in said, done.stdout
        assert "\n  try: " in said
        assert "Traceback" not in done.stdout


def test_an_image_over_its_budget_is_not_kept_and_what_is_large_in_it_is_named(
    scratch: Checkout, client: Any, area: Path
) -> None:
    text = (scratch.root / "examples" / "oar" / "project.yaml").read_text()
    small, count = re.subn(r"budget_mb: \d+", "budget_mb: 100", text)
    assert count == 1
    description = area / "small.yaml"
    description.write_text(small)
    tree_of = ["--project", str(description), "--source", "examples/oar"]
    done = scratch.invoke("prod", *tree_of)
    error = refused(done, 65, "more than its budget of 100 MB", "image.budget_mb in ")
    assert len(re.findall(r"\d MB  python3-numpy\n", error)) == 1
    assert len(re.findall(r"(?m)^ +[\d.]+ MB  \S+$", error)) == 10
    kinds = [image.labels["slipway.kind"] for image in client.images.list(filters=scratch.label)]
    assert "prod" not in kinds


# -- programs


def test_arguments_and_status_of_a_program_pass_as_they_are(built: Built, area: Path) -> None:
    folder = built.checkout.root / "examples" / "digits"
    script = folder / "arguments.py"
    script.write_text("import sys\nprint(sys.argv[1:])\nsys.exit(37)\n")
    try:
        words = ["a b", "", "*", "--flag", "$HOME", "ü'\"", "-x", "--", "--variant"]
        done = built.checkout.invoke("run", "arguments.py", "--", *words, cwd=folder)
        assert done.returncode == 37, done.stdout
        assert repr(words) in done.stdout
    finally:
        script.unlink()


def test_what_follows_the_dashes_goes_to_pytest(built: Built) -> None:
    said = succeed(built.checkout.invoke("test", "--", "-k", "build_info or version", "-v"))
    assert re.search(r"\d+ deselected", said)


# -- without our packages


def test_a_bare_invoke_names_the_command_that_brings_the_packages(
    spare: Checkout, tmp_path: Path
) -> None:
    import invoke

    package = Path(invoke.__file__).parent
    shutil.copytree(package, tmp_path / "invoke")
    for metadata in package.parent.glob("invoke-*.dist-info"):
        shutil.copytree(metadata, tmp_path / metadata.name)
    bare = [sys.executable, "-S", "-m", "invoke", "build"]  # -S: without site-packages
    done = spare.typed(*bare, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 78, done.stdout
    assert "./go invoke" in done.stdout
    assert "Traceback" not in done.stdout
    assert len(done.stdout.strip().splitlines()) == 1
