"""``invoke all``: packages, images and a table, and a second run that does nothing twice."""

from __future__ import annotations

import re
import shlex
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from slipway.engine import build_client
from slipway.settings import Settings
from slipway.variants import TABLE
from slipway.versions import Version, version_of
from tests.integration.conftest import Built
from tests.integration.workbench import git, rows_of, succeed

VARIANTS = ("cpu", "noavx")


def version(built: Built) -> Version:
    return version_of(built.checkout.root / "examples" / "oar", "0.1.0")


def alias(built: Built, variant: str) -> str:
    return f"oar:{version(built).tag}{TABLE[variant].suffix}"


def packages(built: Built) -> list[Path]:
    return sorted((built.checkout.root / "dist").rglob("*"))


def docker_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", "run", "--rm", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_table_has_every_step_of_every_variant(built: Built) -> None:
    rows = rows_of(built.first.stdout)
    steps = {(step, v) for step in ("build", "test", "deb", "image", "run") for v in VARIANTS}
    assert set(rows) == {("set up", "all"), ("dev image", "all"), *steps}
    for row in rows.values():
        assert re.search(r"\d (s|min \d+ s)$", row[-1]), row
        assert "unchanged" not in " ".join(row), row


def test_each_package_is_in_dist_and_in_the_table_and_nothing_else_is(built: Built) -> None:
    rows = rows_of(built.first.stdout)
    named = {built.checkout.root / rows["deb", v][2] for v in VARIANTS}
    assert {p for p in packages(built) if p.is_file()} == named
    assert {p.name.partition("_")[0] for p in named} == {"oar", "oar-noavx"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_tests_were_executed_and_the_table_counts_them_right(
    built: Built, variant: str
) -> None:
    reports = built.checkout.out / "oar" / variant / "reports"
    counts = {}
    for kind, name in (("CTest", "ctest.xml"), ("pytest", "pytest.xml")):
        root = ElementTree.parse(reports / name).getroot()  # noqa: S314  # our own tools wrote it
        cases = root.iter("testcase")
        counts[kind] = sum(case.find("skipped") is None for case in cases)
    assert all(counts.values())
    parts = f"CTest {counts['CTest']}, pytest {counts['pytest']}"
    text = f"{sum(counts.values())} tests executed ({parts})"
    assert text in rows_of(built.first.stdout)["test", variant]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_production_image_says_what_it_is_in_its_labels(
    built: Built, client: Any, variant: str
) -> None:
    image = client.images.get(alias(built, variant))
    own = next(tag for tag in image.tags if tag.startswith("slipway-"))
    labels = image.labels
    assert labels["slipway.checkout"] == built.checkout.name
    assert labels["slipway.kind"] == "prod"
    assert labels["slipway.key"] == own.partition(":")[2]
    assert labels["slipway.variant"] == variant
    assert labels["slipway.isa"] == TABLE[variant].isa
    assert labels["org.opencontainers.image.version"] == version(built).pep440
    head = git(built.checkout.root, "rev-parse", "HEAD")
    assert labels["org.opencontainers.image.revision"] == head
    assert rows_of(built.first.stdout)["image", variant][2] == alias(built, variant)


def test_the_dev_image_is_named_by_what_goes_into_it(built: Built, client: Any) -> None:
    tag = rows_of(built.first.stdout)["dev image", "all"][2]
    labels = client.images.get(tag).labels
    assert labels["slipway.kind"] == "dev"
    assert f"slipway-dev:{labels['slipway.key']}" == tag


@pytest.mark.parametrize("variant", VARIANTS)
def test_package_image_and_module_agree_on_the_version(built: Built, variant: str) -> None:
    expected = version(built)
    assert ".dev" in expected.pep440  # else the three spellings would not differ
    file = built.checkout.root / rows_of(built.first.stdout)["deb", variant][2]
    fields = ["dpkg-deb", "--field", str(file), "Version"]
    packaged = subprocess.run(fields, check=True, capture_output=True, text=True).stdout.strip()
    assert packaged == f"{expected.debian}+deb13"
    done = docker_run(alias(built, variant), "python3", "-c", "import oar; print(oar.__version__)")
    assert done.stdout.strip() == expected.pep440, done.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_without_arguments_says_how_its_library_was_built(
    built: Built, variant: str
) -> None:
    done = docker_run(alias(built, variant))
    said = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert said["variant"] == variant, done.stderr
    assert said["isa"] == TABLE[variant].isa
    assert said["version"] == version(built).pep440
    assert said["commit"] == git(built.checkout.root, "rev-parse", "HEAD")


def test_images_keep_within_their_budgets(built: Built, client: Any) -> None:
    budgets = Settings().budgets
    rows = rows_of(built.first.stdout)
    assert client.images.get(rows["dev image", "all"][2]).attrs["Size"] <= budgets.dev_mb * 1e6
    for variant in VARIANTS:
        assert client.images.get(alias(built, variant)).attrs["Size"] <= budgets.image_mb * 1e6
    names = {tag: image for image in client.images.list() for tag in image.tags}
    base = names.get("debian:trixie-slim") or names["slipway-base:debian-trixie-slim"]
    assert base.attrs["Size"] <= budgets.base_mb * 1e6


@pytest.mark.parametrize("uid", [0, 12345])
def test_an_image_runs_as_any_user_with_a_name_and_a_home(built: Built, uid: int) -> None:
    script = (
        'whoami; cd; pwd; touch x && python3 -c "import oar, getpass; print(getpass.getuser())"'
    )
    done = docker_run("--user", f"{uid}:{uid}", alias(built, "cpu"), "sh", "-c", script)
    name, home = ("root", "/root") if uid == 0 else ("user", "/home/user")
    assert done.stdout.split() == [name, home, name], done.stderr


def test_an_image_has_python_by_both_names_and_starts_in_work(built: Built) -> None:
    script = "python --version; python3 --version; pwd"
    done = docker_run(alias(built, "cpu"), "sh", "-c", script)
    first, second, directory = done.stdout.splitlines()
    assert first == second
    assert first.startswith("Python 3.")
    assert directory == "/work"


def test_an_image_holds_nothing_that_only_building_needs(built: Built) -> None:
    script = """
    for name in gcc g++ cc c++ ld make cmake ninja ccache pip pip3; do command -v $name; done
    find /usr/include /usr/lib/gcc /var/lib/apt/lists /var/cache/apt/archives -type f ! -name lock
    find / -xdev -path '*/pip*' -name '*.whl'
    find / -xdev -name package.deb
    """
    done = docker_run("--entrypoint", "sh", alias(built, "cpu"), "-c", script)
    assert done.stdout == ""
    assert docker_run("--entrypoint", "sh", alias(built, "cpu"), "-c", "command -v apt-get").stdout


def test_another_image_can_be_built_from_it_with_apt(
    built: Built, client: Any, tmp_path: Path
) -> None:
    lines = [
        f"FROM {alias(built, 'cpu')}",
        "RUN apt-get update && apt-get install --yes --no-install-recommends hello && hello",
        'RUN python -c "import oar"',
    ]
    (tmp_path / "Dockerfile").write_text("\n".join(lines))
    command, variables = build_client()
    tag = f"slipway-test-from:{built.checkout.name}"
    done = subprocess.run(
        [*command, "--tag", tag, str(tmp_path)],
        env=built.checkout.environment(variables),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    client.images.remove(tag)


def test_a_second_all_needs_no_network_and_does_nothing_twice(built: Built) -> None:
    reports = sorted(built.checkout.out.glob("oar/*/reports/*.xml"))
    times = [file.stat().st_mtime_ns for file in reports]
    # A network namespace of its own: not even a loopback device is up.
    alone = built.checkout.typed("unshare", "--net", *built.checkout.command("all"))
    said = succeed(alone)
    rows = rows_of(said)
    for variant in VARIANTS:
        assert "nothing to compile" in rows["build", variant][2]
        for step in ("test", "deb", "image", "run"):
            assert "unchanged since" in rows[step, variant][2], said
    assert "tests executed" not in said
    assert [file.stat().st_mtime_ns for file in reports] == times


def test_the_digits_are_learned_in_the_image_that_suits_this_machine(built: Built) -> None:
    folder = built.checkout.root / "examples" / "digits"
    said = succeed(built.checkout.invoke("run", "train_oar.py", cwd=folder))
    assert re.search(r"running (cpu|noavx): \S+ is the highest of cpu, noavx", said), said
    accuracy = re.search(r"test accuracy ([\d.]+)", said)
    assert accuracy, said
    assert float(accuracy.group(1)) >= 0.97


@pytest.mark.parametrize("task", ["build", "run train_oar.py -- --help", "shell -- true"])
def test_a_task_works_without_a_terminal_at_either_end(built: Built, task: str) -> None:
    pipe = ["bash", "-c", 'set -o pipefail; "$@" </dev/null | cat', "bash"]
    folder = built.checkout.root / "examples" / "digits"
    command = [*pipe, *built.checkout.command(*task.split())]
    said = succeed(built.checkout.typed(*command, cwd=folder))
    assert "TTY" not in said
    assert "\033" not in said


def test_a_shell_on_a_terminal_is_the_callers_own(built: Built) -> None:
    words = "test -t 0 && test -t 1 && echo it is $(whoami) in $PWD"
    command = shlex.join(built.checkout.command("shell", "--", "bash", "-c", words))
    said = succeed(
        built.checkout.typed("script", "--quiet", "--return", "--command", command, "/dev/null")
    )
    assert f"it is root in {built.checkout.out}/oar/cpu/build" in said
