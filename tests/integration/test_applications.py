"""``invoke app``: a folder becomes an image that anybody may run, or a sentence says why not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.workbench import ROOT, Checkout, Done, refused, succeed

TRAIN = """\
import os, six, numpy, oar
print('trains', six.__version__, numpy.__file__, oar.__name__, os.getcwd())
"""


class Yard:
    """A clone, and an application beside it."""

    def __init__(self, checkout: Checkout, folder: Path) -> None:
        self.checkout = checkout
        self.folder = folder
        folder.mkdir(parents=True)
        self.write("train.py", TRAIN)
        # NumPy is in the production image already.
        self.write("requirements.txt", "six==1.17.0\nnumpy\n")
        self.write("data/words.txt", "words\n")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_text(text)

    def app(self, *arguments: str, **more: Any) -> Done:
        """Type ``invoke app``."""
        return self.checkout.invoke("app", "--dir", str(self.folder), *arguments, **more)

    @property
    def made(self) -> dict[str, str]:
        """The tag and the alias of the image that was made last."""
        file = self.checkout.out / "apps" / self.folder.name / "cpu.json"
        facts: dict[str, str] = json.loads(file.read_text())["facts"]
        return facts


@pytest.fixture(scope="module")
def harbour(cloned: Callable[[str], Checkout]) -> Checkout:
    """A clone in which applications are made."""
    return cloned("harbour")


@pytest.fixture(scope="module")
def yard(harbour: Checkout, area: Path) -> Yard:
    return Yard(harbour, area / "my apps" / "hull")


@pytest.fixture(scope="module")
def first(yard: Yard) -> str:
    """What was said when the image was made."""
    return succeed(yard.app())


@pytest.fixture
def copied(yard: Yard, first: str, tmp_path: Path) -> Yard:
    """The same application in a folder that a test may edit; its name is another."""
    assert first
    return Yard(yard.checkout, tmp_path / "barge")


def docker(*arguments: str) -> str:
    argv = ["docker", *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def started(image: str, *command: str, options: tuple[str, ...] = ()) -> str:
    """What an image says as a uid that nobody knows, without a network."""
    free = ("--rm", "--network", "none", "--user", "12345:12345")
    return docker("run", *free, *options, image, *command)


def test_a_folder_becomes_an_image_that_any_uid_runs(yard: Yard, first: str) -> None:
    alias = yard.made["alias"]
    assert re.fullmatch(r"hull:[\w.-]+", alias)
    assert f"made image {alias}, " in first
    said = started(alias).split()
    assert said == [
        "trains",
        "1.17.0",
        "/usr/lib/python3/dist-packages/numpy/__init__.py",
        "oar",
        "/work",
    ]
    files = started(alias, "find", "/app", "-type", "f").split()
    assert sorted(files) == ["/app/data/words.txt", "/app/train.py"]


def test_a_script_of_the_current_directory_runs_in_it(
    yard: Yard, first: str, tmp_path: Path
) -> None:
    assert first
    tmp_path.chmod(0o755)
    (tmp_path / "train.py").write_text("import six; print('the one that is here')\n")
    said = started(
        yard.made["alias"], "python", "train.py", options=("--volume", f"{tmp_path}:/work")
    )
    assert said == "the one that is here\n"


def test_what_is_unchanged_is_not_made_again(yard: Yard, first: str) -> None:
    assert first
    said = succeed(yard.app())
    assert re.search(r"^hull:\S+ is unchanged since ", said, re.MULTILINE)
    assert "docker build" not in said


def test_an_edit_is_in_the_image_within_three_seconds(copied: Yard, client: Any) -> None:
    succeed(copied.app())
    took, tags = [], [copied.made["tag"]]
    for number in range(3):
        copied.write("train.py", f"print('edit {number}')\n")
        start = time.monotonic()
        succeed(copied.app())
        took.append(time.monotonic() - start)
        assert started(copied.made["alias"]) == f"edit {number}\n"
        tags.append(copied.made["tag"])
    assert min(took) <= 3, took
    # Of the edits only the last has left an image.
    here = {tag for image in client.images.list() for tag in image.tags}
    assert [tag in here for tag in tags] == [False, False, False, True]


def test_what_is_printed_does_the_same_as_the_folder_s_own(copied: Yard) -> None:
    succeed(copied.app())
    layers = "{{json .RootFS.Layers}}"
    derived = docker("image", "inspect", "--format", layers, copied.made["tag"])
    done = copied.checkout.typed(
        *copied.checkout.command("app", "--dir", str(copied.folder), "--show-dockerfile"),
        stderr=subprocess.DEVNULL,
    )
    copied.write("Dockerfile", succeed(done))
    assert "unchanged" in succeed(copied.app())
    assert docker("image", "inspect", "--format", layers, copied.made["tag"]) == derived
    copied.write("Dockerfile", f"{done.stdout}ENV HULL=mine\n")
    succeed(copied.app())
    assert started(copied.made["alias"], "sh", "-c", "echo $HULL") == "mine\n"


def test_files_of_any_name_are_in_it_as_they_are(copied: Yard) -> None:
    names = ["a[1].csv", "cost$x.csv", "what?", "two words", "größe"]
    for name in (*names, "some [data]/$HOME"):
        copied.write(name, name)
    copied.write("a1.csv", "another one")
    succeed(copied.app())
    alias = copied.made["alias"]
    for name in (*names, "some [data]/$HOME"):
        assert started(alias, "cat", f"/app/{name}") == name


def test_a_debian_package_is_installed(copied: Yard) -> None:
    copied.write("apt.txt", "# a small one\nhostname\n")
    succeed(copied.app())
    assert (
        started(copied.made["alias"], "dpkg-query", "-Wf", "${Package}", "hostname") == "hostname"
    )


def test_a_new_application_trains(harbour: Checkout, area: Path) -> None:
    """What ``init --app`` makes needs PaddlePaddle, as the book does: its wheel is fetched once."""
    folder = area / "tides"
    said = succeed(harbour.invoke("init", "--app", str(folder)))
    assert f"next: ./go invoke train --dir {folder}" in said
    succeed(harbour.invoke("app", "--dir", str(folder)))
    facts = json.loads((harbour.out / "apps" / "tides" / "cpu.json").read_text())["facts"]
    assert "y = 3.000 x + -1.000, by 1 process\n" in started(facts["alias"])


WEIGH = """\
import importlib.metadata, importlib.util, pathlib
total = 0
for found in importlib.metadata.distributions(path=PATHS):
    for file in found.files:
        path = pathlib.Path(found.locate_file(file))
        if path.suffix == ".py":
            made = pathlib.Path(importlib.util.cache_from_source(str(path)))
            total += made.stat().st_size if made.exists() else 0
        total += path.stat().st_size if path.is_file() and path.suffix != ".pyc" else 0
print(total)
"""


def test_an_image_adds_what_its_requirements_weigh(harbour: Checkout, client: Any) -> None:
    """The files that the wheels list, and their byte code: nothing of what installed them."""
    succeed(harbour.invoke("app", "--dir", str(harbour.root / "examples" / "digits")))
    facts = json.loads((harbour.out / "apps" / "digits" / "cpu.json").read_text())["facts"]
    paths = "import glob\nPATHS = glob.glob('/opt/app/lib/python3*/site-packages')\n"
    weight = int(started(facts["alias"], "python", "-c", paths + WEIGH))
    folder = harbour.root / "examples" / "digits"
    files = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    base = json.loads((harbour.out / "oar" / "cpu" / "receipts" / "prod.json").read_text())
    added = [client.images.get(tag).attrs["Size"] for tag in (facts["tag"], base["facts"]["tag"])]
    assert added[0] - added[1] == pytest.approx(weight + files, rel=0.02)


# -- the builder


def test_another_builder_that_is_selected_is_not_asked(copied: Yard, tmp_path: Path) -> None:
    """A container's builder cannot see the images that are here. This client fails as it would."""
    real = shutil.which("docker", path=copied.checkout.environment()["PATH"])
    assert real
    shim = tmp_path / "bin" / "docker"
    shim.parent.mkdir()
    script = """\
        #!/bin/sh
        case "$1 $2" in
          "buildx version") exit 0 ;;
          "context show") echo default ;;
          "buildx build")
            if [ "$3 $4 $5" != "--builder default --load" ]; then
              echo "ERROR: failed to solve: pull access denied" >&2
              exit 1
            fi
            shift 5
            DOCKER_BUILDKIT=1 exec BUILDS build "$@"
            ;;
          *) exec REAL "$@" ;;
        esac
        """
    builds = next(
        path
        for path in (shutil.which("docker", path=d) for d in ("/usr/bin", "/usr/local/bin"))
        if path and (b"version 2" in subprocess.check_output([path, "--version"]))
    )
    text = textwrap.dedent(script).replace("REAL", real).replace("BUILDS", builds)
    shim.write_text(text)
    shim.chmod(0o755)
    path = f"{shim.parent}:{copied.checkout.environment()['PATH']}"
    done = copied.app(env={"PATH": path, "BUILDX_BUILDER": "another"})
    assert "docker buildx build --builder default --load" in succeed(done)
    assert started(copied.made["alias"]).startswith("trains ")


# -- bad input


BAD = {
    "a requirement that does not exist": (
        {"requirements.txt": "no-such-package-of-slipway==1\n"},
        66,
        ["what requirements.txt names", "No matching distribution found for no-such-package-of"],
    ),
    "a version that does not exist": (
        {"requirements.txt": "six==99.0\n"},
        66,
        ["what requirements.txt names", "requirement six==99.0"],
    ),
    "a requirement that is none": (
        {"requirements.txt": "six six\n"},
        66,
        ["what requirements.txt names", "'six six'"],
    ),
    "requirements in another file": (
        {"requirements.txt": "six\n-r more.txt\n", "more.txt": "six\n"},
        65,
        ["requirements.txt:2: -r more.txt is a file of its own", "write here what it names"],
    ),
    "a virtual environment itself": (
        {"pyvenv.cfg": "home = /usr/bin\n"},
        66,
        ["is a virtual environment itself", "python3 -m venv"],
    ),
    "a debian package that does not exist": (
        {"apt.txt": "no-such-package-of-slipway\n"},
        66,
        ["what apt.txt names", "no-such-package-of-slipway"],
    ),
    "a step of its own that fails": (
        {"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN echo no hull && exit 3\n"},
        1,
        ["the app image was not built", "docker's words are above", "Dockerfile"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_folder_that_cannot_become_an_image(copied: Yard, client: Any, name: str) -> None:
    files, code, words = BAD[name]
    before = {tag for image in client.images.list() for tag in image.tags}
    for file, text in files.items():
        copied.write(file, text)
    refused(copied.app(), code, *words)
    assert {tag for image in client.images.list() for tag in image.tags} == before


def test_an_index_that_cannot_be_reached(copied: Yard) -> None:
    copied.write("requirements.txt", "pytz==2019.1\n")  # which nobody has fetched
    env = {"INVOKE_MIRRORS_PIP": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    refused(copied.app(env=env), 69, "no package index can be reached", "mirrors.pip")


def test_what_is_printed_is_right_to_hadolint(copied: Yard) -> None:
    copied.write("apt.txt", "hostname\n")
    done = copied.app("--show-dockerfile", stderr=subprocess.DEVNULL)
    linter = str(Path(copied.checkout.python).with_name("hadolint"))
    checked = subprocess.run(
        [linter, "--config", str(ROOT / ".hadolint.yaml"), "-"],
        input=succeed(done),
        capture_output=True,
        text=True,
    )
    assert checked.stdout == ""
