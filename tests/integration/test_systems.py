"""Trees not written for Slipway: each build system, its packages, and what goes wrong."""

from __future__ import annotations

import hashlib
import http.server
import re
import subprocess
import textwrap
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Built, directory_name
from tests.integration.workbench import (
    Checkout,
    bridge_address,
    give_to,
    refused,
    shown_commands,
    snapshot,
    strangers,
    succeed,
    tree,
)

HEAD = """\
name: {name}
summary: a tree for a test
license: Apache-2.0
maintainer: Test <test@example.org>
variants: {{cpu: {{}}}}
"""

# A Python module in C that adds, and its test.
MODULE = """\
#include <Python.h>
static PyObject *add(PyObject *self, PyObject *args) {
  long a, b;
  if (!PyArg_ParseTuple(args, "ll", &a, &b)) return NULL;
  return PyLong_FromLong(a + b);
}
static PyMethodDef methods[] = {{"add", add, METH_VARARGS, NULL}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_sum", NULL, -1, methods};
PyMODINIT_FUNC PyInit__sum(void) { return PyModule_Create(&module); }
"""
PYTHON = {
    "summing/__init__.py": "from summing._sum import add\n",
    "summing/_sum.c": MODULE,
    "tests/test_sum.py": "import summing\n\ndef test_sum():\n    assert summing.add(2, 3) == 5\n",
}
PYPROJECT = """\
[build-system]
requires = ["{package}"]
build-backend = "{backend}"
[project]
name = "summing"
version = "1.5.0"
"""
SETUP = """\
from setuptools import Extension, setup
setup(packages=["summing"], ext_modules=[Extension("summing._sum", ["summing/_sum.c"])])
"""
SCIKIT = """\
cmake_minimum_required(VERSION 3.20)
project(summing LANGUAGES C)
find_package(Python REQUIRED COMPONENTS Interpreter Development.Module)
Python_add_library(_sum MODULE summing/_sum.c WITH_SOABI)
install(TARGETS _sum DESTINATION summing)
"""
MESON = """\
project('summing', 'c', version: '1.5.0')
py = import('python').find_installation(pure: false)
py.extension_module('_sum', 'summing/_sum.c', subdir: 'summing', install: true)
py.install_sources('summing/__init__.py', subdir: 'summing')
"""
BACKENDS = {
    "setuptools": ("setuptools", "setuptools.build_meta", {"setup.py": SETUP}),
    "scikit-build-core": (
        "scikit-build-core",
        "scikit_build_core.build",
        {"CMakeLists.txt": SCIKIT},
    ),
    "meson-python": ("meson-python", "mesonpy", {"meson.build": MESON}),
}
PIP = "[setuptools==80.9.0, scikit-build-core==0.11.6, meson-python==0.18.0]"

MAKEFILE = """\
CFLAGS ?= -O2
libtally.so.1: tally.o
	$(CC) -shared -Wl,-soname,libtally.so.1 $(LDFLAGS) -o $@ $^
tally.o: tally.c
	$(CC) $(CFLAGS) -fPIC -DLIMIT=$(LIMIT) -c -o $@ $<
check: libtally.so.1
	nm -D libtally.so.1 | grep -q tally_add
install:
	install -D libtally.so.1 $(DESTDIR)$(PREFIX)/lib/libtally.so.1
	ln -s libtally.so.1 $(DESTDIR)$(PREFIX)/lib/libtally.so
	install -D -m 644 tally.h $(DESTDIR)$(PREFIX)/include/tally.h
	install -D -m 644 tally.3 $(DESTDIR)$(PREFIX)/share/man/man3/tally.3
	ln -s tally.3 $(DESTDIR)$(PREFIX)/share/man/man3/tally_add.3
"""
TALLY = {
    "Makefile": MAKEFILE,
    "tally.c": "int tally_add(int a, int b) { return a + b > LIMIT ? LIMIT : a + b; }\n",
    "tally.h": "int tally_add(int a, int b);\n",
    "tally.3": ".TH TALLY 3\n.SH NAME\ntally \\- add, within a limit\n",
}


def grow(directory: Path, files: dict[str, str], project: str, name: str) -> Path:
    """A source tree, and a project.yaml beside it that says where it is; returns the latter."""
    for file, text in files.items():
        path = directory / "tree" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    described = directory / f"{name}.yaml"
    described.write_text(
        HEAD.format(name=name) + "source: {directory: tree}\n" + textwrap.dedent(project)
    )
    return described


@pytest.fixture
def place(area: Path, request: pytest.FixtureRequest) -> Path:
    """A directory for one test, outside any checkout."""
    directory = area / "places" / directory_name(request)
    directory.mkdir(parents=True)
    return directory


def contents(deb: Path) -> set[str]:
    """The files and links in a package."""
    listed = subprocess.check_output(["dpkg-deb", "--contents", str(deb)], text=True)
    rows = [line.split(maxsplit=5) for line in listed.splitlines()]
    return {row[5].split(" -> ")[0].removeprefix("./") for row in rows if row[0][0] != "d"}


def field(deb: Path, name: str) -> str:
    return subprocess.check_output(["dpkg-deb", "--field", str(deb), name], text=True).strip()


# -- Python packages


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_python_package_is_compiled_by_its_own_backend(
    built: Built, place: Path, kind: str
) -> None:
    package, backend, files = BACKENDS[kind]
    pyproject = PYPROJECT.format(package=package, backend=backend)
    project = f"build: {{system: pep517, pip: {PIP}}}\ntest: {{pytest: [tests]}}\n"
    name = f"summing-{kind.partition('-')[0]}"
    file = grow(place, {**PYTHON, **files, "pyproject.toml": pyproject}, project, name)
    before = snapshot(place / "tree")
    said = succeed(built.checkout.invoke("test", "--project", str(file)))
    assert "1 tests executed (pytest 1)" in said
    assert snapshot(place / "tree") == before
    again = succeed(built.checkout.invoke("build", "--project", str(file)))
    assert "unchanged since" in again
    assert shown_commands(again) == []
    source = place / "tree" / "summing" / "_sum.c"
    source.write_text(source.read_text().replace("a + b", "a + b + 0"))
    changed = succeed(built.checkout.invoke("build", "--project", str(file)))
    assert re.search(r"[01] of 1 compilations from the cache", changed)


def test_a_python_package_becomes_one_of_debian_s(built: Built, place: Path) -> None:
    package, backend, files = BACKENDS["setuptools"]
    pyproject = PYPROJECT.format(package=package, backend=backend)
    pyproject += '[project.scripts]\nsumming = "summing:main"\n'
    project = f"""\
    build: {{system: pep517, pip: {PIP}}}
    package: {{section: python, commands: {{summing-too: "summing:main"}}}}
    """
    file = grow(place, {**PYTHON, **files, "pyproject.toml": pyproject}, project, "summing")
    succeed(built.checkout.invoke("deb", "--project", str(file)))
    (deb,) = (built.checkout.root / "dist" / "summing-1.5.0").iterdir()
    names = contents(deb)
    assert {"usr/bin/summing", "usr/bin/summing-too"} <= names
    home = "usr/lib/python3/dist-packages"
    assert f"{home}/summing/__init__.py" in names
    assert any(n.startswith(f"{home}/summing/_sum.cpython-") for n in names)
    assert not any(n.endswith(("RECORD", "direct_url.json")) for n in names)
    assert "python3 (<< 3." in field(deb, "Depends")
    script = subprocess.check_output(
        ["sh", "-c", 'dpkg-deb --fsys-tarfile "$0" | tar -xO ./usr/bin/summing', str(deb)],
        text=True,
    )
    assert script.startswith("#!/usr/bin/python3\n")


def test_what_a_backend_lacks_is_named(built: Built, place: Path) -> None:
    pyproject = PYPROJECT.format(package="meson-python", backend="mesonpy")
    files = {**PYTHON, "meson.build": MESON, "pyproject.toml": pyproject}
    file = grow(place, files, "build: {system: pep517}\n", "lacking")
    done = built.checkout.invoke("build", "--project", str(file))
    refused(done, done.returncode, "lacking 1.5.0 cpu was not built", "meson-python", "build.pip")
    assert done.returncode != 0


# -- make


def test_a_makefile_is_built_in_a_copy_and_packed_as_two_packages(
    built: Built, place: Path
) -> None:
    project = """\
    build: {system: make, options: {LIMIT: "100"}}
    test: {commands: [make check]}
    package: {dev: true}
    """
    file = grow(place, TALLY, project, "tally")
    before = snapshot(place / "tree")
    said = succeed(built.checkout.invoke("test", "--project", str(file)))
    assert "1 tests executed (commands 1)" in said
    assert snapshot(place / "tree") == before
    again = succeed(built.checkout.invoke("build", "--project", str(file)))
    assert "is up to date" in again
    assert "copied" not in again
    succeed(built.checkout.invoke("deb", "--project", str(file)))
    dev, runtime = sorted((built.checkout.root / "dist" / "tally-0.0.0").iterdir())
    assert "usr/lib/libtally.so.1" in contents(runtime)
    assert "usr/include/tally.h" not in contents(runtime)
    assert {"usr/include/tally.h", "usr/lib/libtally.so"} <= contents(dev)
    manuals = {f"usr/share/man/man3/{name}.3.gz" for name in ("tally", "tally_add")}
    assert manuals <= contents(dev)
    assert field(dev, "Depends") == "tally (= 0.0.0+deb13)"
    assert "libc6" in field(runtime, "Depends")


def test_another_variable_makes_everything_anew(built: Built, place: Path) -> None:
    project = 'build: {system: make, options: {LIMIT: "100"}}\n'
    file = grow(place, TALLY, project, "tally-again")
    succeed(built.checkout.invoke("build", "--project", str(file)))
    file.write_text(file.read_text().replace("100", "200"))
    said = succeed(built.checkout.invoke("build", "--project", str(file)))
    assert "-DLIMIT=200" in said


def test_every_file_of_a_copy_belongs_to_the_caller(ordinary: Checkout, place: Path) -> None:
    file = grow(place, TALLY, 'build: {system: make, options: {LIMIT: "1"}}\n', "tally-own")
    give_to(place, 1000)
    succeed(ordinary.invoke("build", "--project", str(file)))
    assert (ordinary.out / "tally-own" / "cpu" / "source" / "tally.o").is_file()
    assert strangers(ordinary.out / "tally-own", 1000) == []


def test_a_makefile_without_install_rules(built: Built, place: Path) -> None:
    files = {"Makefile": "all:\n\ttrue\n"}
    file = grow(place, files, "build: {system: make}\n", "bare")
    done = built.checkout.invoke("deb", "--project", str(file))
    refused(done, done.returncode, "bare was not made", "no install rules", "install target")
    assert not (built.checkout.root / "dist" / "bare-0.0.0").exists()


# -- scripts


def test_a_script_installs_into_a_stage(built: Built, place: Path) -> None:
    project = """\
    build:
      system: script
      options: {GREETING: "{variant} it's"}
      commands:
        - cc $CFLAGS $LDFLAGS -o hail hail.c
        - printf '%s\\n' "$GREETING" >greeting
        - install -D hail "$DESTDIR/usr/bin/hail"
        - install -D -m 644 greeting "$DESTDIR/usr/share/hail/greeting"
    test: {commands: ["./hail", 'test -s "greeting" && true </dev/null']}
    """
    file = grow(place, {"hail.c": "int main(void) { return 0; }\n"}, project, "hail")
    said = succeed(built.checkout.invoke("test", "--project", str(file)))
    assert "2 tests executed (commands 2)" in said
    assert list((place / "tree").iterdir()) == [place / "tree" / "hail.c"]
    greeting = built.checkout.out / "hail" / "cpu" / "source" / "greeting"
    assert greeting.read_text() == "cpu it's\n"
    succeed(built.checkout.invoke("deb", "--project", str(file)))
    (deb,) = (built.checkout.root / "dist" / "hail-0.0.0").iterdir()
    assert {"usr/bin/hail", "usr/share/hail/greeting"} <= contents(deb)


def test_a_command_that_fails_is_a_failed_test(built: Built, place: Path) -> None:
    project = """\
    build: {system: script, commands: ["true"]}
    test: {commands: ["true", "exit 7"]}
    """
    file = grow(place, {"x": ""}, project, "failing")
    done = built.checkout.invoke("test", "--project", str(file))
    refused(done, 7, "1 of 2 tests of failing 0.0.0 cpu failed")


# -- prebuilt wheels


def wheel_project(place: Path, name: str, needs: str = "") -> tuple[Path, dict[str, str]]:
    """A wheel in a directory that pip is told to look in, and a project.yaml that names it."""
    wheel = place / "wheels" / f"{name}-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name_in_it, text in {
            f"{name}.py": "answer = 42\n",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/licenses/LICENSE": "Apache\n",
            f"{info}/RECORD": "",
        }.items():
            archive.writestr(zipfile.ZipInfo(name_in_it, (2024, 1, 2, 3, 4, 6)), text)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    file = place / f"{name}.yaml"
    file.write_text(
        HEAD.format(name=name) + f"source: {{wheel: {name}, version: '1.0', sha256: {digest}}}\n"
    )
    return file, {"PIP_FIND_LINKS": str(wheel.parent)}


def test_a_prebuilt_wheel_is_packed_in_a_private_directory(built: Built, place: Path) -> None:
    file, env = wheel_project(place, "answering")
    succeed(built.checkout.invoke("deb", "--project", str(file), env=env))
    (deb,) = (built.checkout.root / "dist" / "answering-1.0").iterdir()
    names = contents(deb)
    assert {"usr/lib/answering/answering.py", "usr/bin/answering-python"} <= names
    assert "usr/lib/answering/answering-1.0.dist-info/licenses/LICENSE" in names
    assert not any(name.startswith("usr/lib/python3/") for name in names)


def test_what_a_wheel_needs_and_nobody_locked_is_named(built: Built, place: Path) -> None:
    file, env = wheel_project(place, "needing", "Requires-Dist: no-such-thing>=2\n")
    done = built.checkout.invoke("deb", "--project", str(file), env=env)
    refused(done, 65, "needing needs no-such-thing>=2, which is not locked", "requirements")
    assert not (built.checkout.root / "dist" / "needing-1.0").exists()


# -- what a build may not do


WRITER = """\
file(WRITE ${CMAKE_SOURCE_DIR}/generated.h "#define X 1\\n")
"""


def test_a_build_that_writes_into_its_source_is_told_of_the_key(built: Built, tiny: Path) -> None:
    tree(tiny, cmake=WRITER)
    done = built.checkout.invoke("build", "--project", str(tiny))
    refused(done, 1, "mounted read-only", "generated.h", "build: {writable: true}")
    tree(tiny, cmake=WRITER, project="build: {writable: true}\n")
    succeed(built.checkout.invoke("build", "--project", str(tiny)))
    assert not (tiny / "generated.h").exists()
    assert (built.checkout.out / "tiny" / "cpu" / "source" / "generated.h").is_file()


@pytest.fixture
def served(client: Any, built: Built) -> Iterator[str]:
    """A URL on this machine that containers with a network reach."""
    image = client.images.list("slipway-dev")[0].id

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the server's name for it
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"fetched\n")

        def log_message(self, *_: object) -> None:
            pass

    address = bridge_address(client, image)
    server = http.server.ThreadingHTTPServer((address, 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{address}:{server.server_port}/data"
    server.shutdown()
    thread.join()
    server.server_close()


FETCHER = """\
file(DOWNLOAD {url} ${{CMAKE_BINARY_DIR}}/data STATUS status)
list(GET status 0 code)
if(code)
  message(FATAL_ERROR "download: ${{status}}")
endif()
"""


def test_a_configure_step_that_wants_the_network(built: Built, tiny: Path, served: str) -> None:
    tree(tiny, cmake=FETCHER.format(url="http://data.example.org/x"))
    done = built.checkout.invoke("build", "--project", str(tiny))
    refused(done, 1, "wants the network", "build: {network: true}")
    tree(tiny, cmake=FETCHER.format(url=served), project="build: {network: true}\n")
    said = succeed(built.checkout.invoke("build", "--project", str(tiny), env={"no_proxy": "*"}))
    configuring, compiling = shown_commands(said)
    assert "--network none" not in configuring
    assert "--network none" in compiling
    data = built.checkout.out / "tiny" / "cpu" / "build" / "data"
    assert data.read_text() == "fetched\n"


# -- what a build needs

BZIP2 = """\
find_package(BZip2 REQUIRED)
target_link_libraries(tiny BZip2::BZip2)
"""


def test_a_debian_package_that_building_needs(built: Built, tiny: Path, client: Any) -> None:
    tree(tiny, cmake=BZIP2)
    done = built.checkout.invoke("build", "--project", str(tiny))
    refused(done, 1, "Could NOT find BZip2", "build.apt")
    # The image is named after the project and found by its content, whoever made it: only a name
    # that nobody had before shows it being made.
    name = f"tiny-{built.checkout.root.parent.parent.name.lower().replace('_', '-')}"
    tree(tiny, cmake=BZIP2, project="build: {apt: [libbz2-dev]}\n")
    description = tiny / "project.yaml"
    description.write_text(description.read_text().replace("name: tiny", f"name: {name}"))
    said = succeed(built.checkout.invoke("build", "--project", str(tiny)))
    assert f"adding what {name} is built with to the dev image: libbz2-dev" in said
    again = succeed(built.checkout.invoke("build", "--project", str(tiny)))
    assert "ninja: no work to do" in again
    assert "adding" not in again


@pytest.mark.parametrize("need", ["apt: [no-such-package]", "pip: [no-such-package-at-all==1.0]"])
def test_a_package_that_does_not_exist(built: Built, tiny: Path, need: str) -> None:
    tree(tiny, project=f"build: {{{need}}}\n")
    done = built.checkout.invoke("build", "--project", str(tiny))
    refused(done, done.returncode, "no-such-package", "build.apt and build.pip")
    assert done.returncode != 0


# -- what goes into which package


def test_two_packages_that_hold_the_same_file(built: Built, place: Path) -> None:
    project = """\
    build: {system: make, options: {LIMIT: "1"}}
    package:
      files: ["usr/lib/**"]
      dev: ["usr/include/**", "usr/share/**", "usr/lib/*.so*"]
    """
    file = grow(place, TALLY, project, "twice")
    done = built.checkout.invoke("deb", "--project", str(file))
    error = refused(done, 65, "two packages would hold the same file", "usr/lib/libtally.so")
    assert "'usr/lib/**'" in error
    assert not (built.checkout.root / "dist" / "twice-0.0.0").exists()


def test_a_file_that_a_package_of_debian_has(built: Built, tiny: Path) -> None:
    install = "install(TARGETS tiny RUNTIME DESTINATION bin)\ninstall(PROGRAMS main.cc "
    tree(tiny, cmake=f"{install}DESTINATION bin RENAME ninja)\n")
    done = built.checkout.invoke("deb", "--project", str(tiny))
    refused(done, 65, "/usr/bin/ninja is in Debian's ninja-build", "package.exclude")
    tree(
        tiny,
        cmake=f"{install}DESTINATION bin RENAME ninja)\n",
        project="package: {exclude: [usr/bin/ninja]}\n",
    )
    succeed(built.checkout.invoke("deb", "--project", str(tiny)))


def test_a_static_library_alone_leaves_nothing_for_run_time(built: Built, tiny: Path) -> None:
    (tiny / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(tiny VERSION 1.0 LANGUAGES CXX)\n"
        "add_library(one STATIC one.cc)\ninstall(TARGETS one)\n"
    )
    (tiny / "project.yaml").write_text(HEAD.format(name="tiny") + "package: {dev: true}\n")
    done = built.checkout.invoke("deb", "--project", str(tiny))
    refused(done, 65, "nothing is left for tiny", "BUILD_SHARED_LIBS")


def test_a_pattern_that_fits_nothing(built: Built, place: Path) -> None:
    project = """\
    build: {system: make, options: {LIMIT: "1"}}
    package: {exclude: ["usr/libexec/**"]}
    """
    file = grow(place, TALLY, project, "nothing")
    done = built.checkout.invoke("deb", "--project", str(file))
    refused(done, 65, "'usr/libexec/**' fits none of the 5 files", "usr/include/tally.h")
