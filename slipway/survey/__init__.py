"""What a source tree says about itself: its build system, its name, what it needs, its tests.

It only looks. Each value is kept with the file it was seen in, for ``slipway.draft`` to tell.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import zipfile
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from slipway.errors import BAD_DATA, SlipwayError
from slipway.records import Record
from slipway.survey import manifests
from slipway.survey.ground import TESTS, Ground, Mark, Seen, read, walk
from slipway.survey.licences import of_text
from slipway.survey.needs import Wish, applying, build_depends, debian_python
from slipway.versions import READERS as VERSIONS

SOURCES = (".c", ".cc", ".cpp", ".cxx", ".h", ".hpp", ".py")


MESON = '"$BUILD/meson"'
# Shell lines in a writable copy of the tree; the script in the container sets DESTDIR and BUILD.
CONFIGURE = ("./configure --prefix=/usr", "make", 'make install DESTDIR="$DESTDIR"')
COMMANDS: dict[str, tuple[str, ...]] = {
    "Meson": (
        # Configured already, Meson says so and succeeds.
        f"meson setup {MESON} --prefix=/usr --buildtype=debugoptimized",
        f"meson compile -C {MESON}",
        f'meson install -C {MESON} --no-rebuild --destdir "$DESTDIR"',
    ),
    "configure": CONFIGURE,
    "autotools": ("autoreconf --force --install", *CONFIGURE),
}
TOOLS = {"Meson": ("meson",), "autotools": ("autoconf", "automake", "libtool")}


class Survey(Record, frozen=True, kw_only=True):
    """What was seen of one source tree, or of a wheel."""

    mark: Mark | None = None
    """None: a prebuilt wheel, which is not built."""
    directory: str = ""
    """Sub-directory of the tree that is built."""
    name: Seen | None = None
    version: Seen | None = None
    summary: Seen | None = None
    license: Seen | None = None
    homepage: Seen | None = None
    maintainer: Seen | None = None
    commands: tuple[str, ...] = ()
    """Of the system ``script``."""
    options: dict[str, Seen] = msgspec.field(default_factory=dict)
    """Build options that differ from the tree's own defaults, and why."""
    apt: tuple[Seen, ...] = ()
    """Debian packages that building needs."""
    pip: tuple[Seen, ...] = ()
    """Requirements of the Python build, as they are written."""
    depends: tuple[Seen, ...] = ()
    """Debian packages that running needs."""
    ctest: Seen | None = None
    """A call that makes tests for CTest."""
    pytest: Seen | None = None
    """The directory of the Python tests."""
    checks: tuple[Seen, ...] = ()
    """Commands that test."""
    headers: Seen | None = None
    """What installs headers."""
    module: str = ""
    """The name by which Python imports it."""
    hints: tuple[Seen, ...] = ()
    """What a person has to know or decide; ``where`` is the part of project.yaml it belongs to."""


def survey(tree: Path, in_image: Container[str] = ()) -> Survey:
    """Look at a source tree.

    :param in_image: Debian packages that every build has.
    :raises SlipwayError: it has no build system, or a file that is needed cannot be understood.
    """
    ground = Ground(tree)
    kind, is_python = ground.mark.kind, ground.mark.system == "pep517"
    name = ground.first("name")
    project = name.value if name else tree.name
    pytest = python_tests(ground)
    ctest = cmake_tests(ground) if ground.mark.system == "cmake" else None
    checks = make_tests(ground) if ground.mark.system in ("make", "script") else ()
    options, hints = switches(ground) if ground.mark.system == "cmake" else ({}, [])
    depends = runtime(ground)
    apt, unknown = needed(ground, tests=bool(pytest or ctest or checks or options))
    if is_python and pytest:
        apt += [Seen(package.value, "which the tests import") for package in depends]
    return Survey(
        mark=ground.mark,
        directory=ground.directory,
        name=name,
        version=declared(ground),
        summary=ground.first("summary", lambda text: manifests.one_line(text, project)),
        license=ground.first("license") or licence_file(ground),
        homepage=ground.first("homepage"),
        maintainer=ground.first("maintainer"),
        commands=COMMANDS.get(kind, ()),
        options=options,
        apt=once(package for package in apt if package.value not in in_image),
        pip=requirements(ground),
        depends=depends if is_python else (),
        ctest=ctest,
        pytest=pytest,
        checks=checks,
        headers=headers(ground) if not is_python else None,
        module=module(ground, project) if is_python else "",
        hints=(*hints, *unknown, *advice(ground)),
    )


# -- what it is


def once(rows: Iterable[Seen]) -> tuple[Seen, ...]:
    """Each value once, with the first place where it was seen."""
    found: dict[str, Seen] = {}
    for row in rows:
        found.setdefault(row.value, row)
    return tuple(found.values())


def declared(ground: Ground) -> Seen | None:
    """The version that Slipway reads where git has none, else that of an sdist."""
    for top in dict.fromkeys([ground.top, ground.tree]):
        for name, reader in VERSIONS:
            if (text := read(top / name)) and (version := reader(text)):
                return Seen(version, ground.shown(top / name))
    return ground.first("version")


def licence_file(ground: Ground) -> Seen | None:
    """The licence by its own text."""
    pattern = re.compile(r"(UN)?LICEN[CS]E.*|COPYING.*|COPYRIGHT.*", re.IGNORECASE)
    for top in dict.fromkeys([ground.top, ground.tree]):
        files = [path for path in top.iterdir() if pattern.fullmatch(path.name) and path.is_file()]
        # COPYING.LESSER adds to a COPYING that is the GPL's; else the plainest name says most.
        for path in sorted(files, key=lambda p: ("LESSER" not in p.name.upper(), len(p.name), p)):
            text = read(path)
            later = "GNU" in text and says_later(ground.top)
            if found := of_text(text, later=later):
                return Seen(found, ground.shown(path))
    return None


def says_later(top: Path) -> bool:
    """Whether the heads of the sources say "any later version"; GNU's text leaves that open."""
    sources = walk(top, lambda name: name.endswith(SOURCES))
    heads = (read(path)[:3000] for path in itertools.islice(sources, 20))
    return any("any later version" in " ".join(re.sub(r"[*#/]", " ", h).split()) for h in heads)


def module(ground: Ground, name: str) -> str:
    """The package that Python imports, where a directory of the project's name is one."""
    plain = re.sub(r"[-.]+", "_", name)
    for start in (ground.top, ground.top / "src", ground.top / "python"):
        for spelling in dict.fromkeys([plain, plain.lower()]):
            if (start / spelling / "__init__.py").is_file():
                return spelling
    return ""


# -- what it needs


def requirements(ground: Ground) -> tuple[Seen, ...]:
    """What Python's build backend needs; for an old setup.py setuptools, which a venv lacks.

    CMake and Ninja stay in it, though the image has them: pip checks that what is named is there.
    """
    if ground.mark.system != "pep517":
        return ()
    wanted = ground.pyproject.get("build-system", {}).get("requires", ["setuptools"])
    where = ground.shown(ground.top / ground.mark.file)
    return tuple(Seen(f"{r.name}{_extras(r.extras)}{r.specifier}", where) for r in applying(wanted))


def _extras(names: set[str]) -> str:
    return f"[{','.join(sorted(names))}]" if names else ""


def runtime(ground: Ground) -> tuple[Seen, ...]:
    """Debian's packages of what the Python package needs when it runs."""
    facts = next((f for f in ground.facts if f.depends), None)
    if facts is None:
        return ()
    names = [debian_python(requirement.name) for requirement in applying(facts.depends)]
    return tuple(Seen(name, facts.where) for name in dict.fromkeys(names))


def needed(ground: Ground, *, tests: bool) -> tuple[list[Seen], list[Seen]]:
    """Debian packages that building needs, and hints at what no table knows.

    Where Debian packages the tree, its control file is right; else build files tell by name.
    """
    tools = [Seen(name, ground.mark.kind) for name in TOOLS.get(ground.mark.kind, ())]
    control = ground.tree / "debian" / "control"
    fields = (manifests.paragraphs(read(control)) or [{}])[0]
    listed = ", ".join(fields.get(f"build-depends{part}", "") for part in ("", "-arch"))
    if names := build_depends(listed, tests=tests):
        return tools + [Seen(name, ground.shown(control)) for name in names], []
    hints, optional = [], []
    for wish, where in wishes(ground):
        known = wish.packages
        if known is None and wish.needed:
            hints.append(Seen(f"{wish.call}, {where}: name the Debian package that has it", "apt"))
        elif known and wish.needed:
            tools += [Seen(package, f"{wish.call}, {where}") for package in known]
        elif known and known[0] not in {tool.value for tool in tools}:
            optional.append(f"{' '.join(known)} for {wish.call}")
    if optional:
        hints.append(Seen(f"not needed always: {', '.join(optional)}", "apt"))
    return tools, hints


def wishes(ground: Ground) -> Iterator[tuple[Wish, str]]:
    """The libraries that build files look for, each once, and the files; not what pip brings."""
    rows: list[tuple[Wish, str]] = []
    if ground.mark.kind in ("Meson", "mesonpy"):
        rows = [(w, f) for f, text in ground.meson.items() for w in manifests.meson_wishes(text)]
        if rows:  # Meson finds most of them by it
            rows.append((Wish("PkgConfig", "dependency()", True), rows[0][1]))
    elif ground.mark.system in ("cmake", "pep517"):
        rows = [(w, f) for f, calls in ground.cmake.items() for w in manifests.cmake_wishes(calls)]
    told = {re.split(r"[<>=~!\[]", seen.value)[0].lower() for seen in requirements(ground)}
    for wish, where in sorted(rows, key=lambda row: not row[0].needed):
        if wish.name.lower() not in told:
            told.add(wish.name.lower())
            yield wish, where


def advice(ground: Ground) -> list[Seen]:
    """What a build without a network, and a package, will stumble over."""
    found = []
    fetching = ("fetchcontent_declare", "cpmaddpackage", "externalproject_add")
    for call, where in ground.calls(*fetching):
        name = call.arguments[0] if call.arguments else "something"
        text = f"{where} may fetch {name} while it builds: network: true lets it"
        found.append(Seen(text, "build"))
    if ground.mark.system == "cmake" and not any(ground.calls("install")):
        text = "no install() in CMake's files: without install rules there is nothing to package"
        found.append(Seen(text, "package"))
    if ground.mark.system == "make" and "install" not in targets(ground):
        found.append(Seen("the Makefile has no target 'install': nothing to package", "package"))
    modules = re.findall(r"^\s*path\s*=\s*(\S+)", read(ground.tree / ".gitmodules"), re.MULTILINE)
    empty = [m for m in modules if not any(_entries(ground.tree / m))]
    if empty:
        text = f"submodules not checked out: {', '.join(empty)} (git submodule update --init)"
        found.append(Seen(text, "source"))
    return found


def _entries(directory: Path) -> Sequence[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []


def headers(ground: Ground) -> Seen | None:
    """What installs headers, so that a -dev package has something to hold."""
    for call, where in ground.calls("install"):
        text = " ".join(call.arguments)
        if "PUBLIC_HEADER" in text or "FILE_SET" in text:
            return Seen("headers are installed", where)
        plain = call.arguments[:1] in (("FILES",), ("DIRECTORY",))
        if plain and re.search(r"include|\.h(h|pp|xx)?\b", text, re.IGNORECASE):
            return Seen("headers are installed", where)
    for where, text in {**ground.meson, **ground.makefiles}.items():
        if re.search(r"\binstall_headers\b|include_HEADERS|includedir\)/|/include\b.*\.h\b", text):
            return Seen("headers are installed", where)
    return None


# -- how it is tested


def cmake_tests(ground: Ground) -> Seen | None:
    """The first call that gives CTest something to run."""
    adding = ("enable_testing", "add_test", "gtest_discover_tests", "gtest_add_tests")
    for call, where in ground.calls(*adding, "catch_discover_tests", "doctest_discover_tests"):
        return Seen(f"{call.name}()", where)
    for call, where in ground.calls("include"):
        if call.arguments[:1] == ("CTest",):
            return Seen("include(CTest)", where)
    return None


def switches(ground: Ground) -> tuple[dict[str, Seen], list[Seen]]:
    """Options that have to be set for tests to be built, and hints at those that are on anyway."""
    options, hints = {}, []
    for where, calls in ground.cmake.items():
        for name, is_on in manifests.test_switches(calls).items():
            if is_on:
                hints.append(Seen(f"{name}, {where}, is on by default", "test"))
            else:
                options[name] = Seen("ON", f"tests, which {where} leaves out by default")
    return options, hints


def python_tests(ground: Ground) -> Seen | None:
    """The directory that holds all of the Python tests, the narrowest."""
    places = [*TESTS, *(f"{ground.directory}/{name}" for name in TESTS if ground.directory)]
    for place in places:
        found = [*walk(ground.tree / place, lambda n: bool(re.fullmatch(PYTEST, n)))]
        if found:
            common = Path(os.path.commonpath([path.parent for path in found]))
            return Seen(ground.shown(common), ground.shown(found[0]))
    return None


PYTEST = r"test_.*\.py|.*_test\.py"


def make_tests(ground: Ground) -> tuple[Seen, ...]:
    """The command that runs a tree's own tests, where it is make or Meson that knows it."""
    if ground.mark.kind == "Meson":
        for where, text in ground.meson.items():
            if re.search(r"^\s*test\s*\(", text, re.MULTILINE):
                return (Seen(f"meson test -C {MESON}", where),)
        return ()
    known = targets(ground)
    named = next((name for name in ("check", "test") if name in known), "")
    return (Seen(f"make {named}", known[named]),) if named else ()


def targets(ground: Ground) -> dict[str, str]:
    """The targets of the Makefile, and the file; automake makes check and install by itself."""
    found: dict[str, str] = {}
    for where, text in ground.makefiles.items():
        for names in re.findall(r"^([\w. -]+?)\s*::?(?!=)", text, re.MULTILINE):
            found |= dict.fromkeys(names.split(), where)
        if where.endswith(".am") and text:
            found |= {"check": where, "install": where}
    return found


# -- a prebuilt wheel


def survey_wheel(wheel: Path) -> Survey:
    """What a wheel's METADATA tells."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            file = next(n for n in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
            text = archive.read(file).decode(errors="replace")
    except (zipfile.BadZipFile, StopIteration, OSError) as error:
        raise SlipwayError(
            f"{wheel} is no wheel",
            cause=str(error) or "there is no METADATA in it",
            fix=[shlex.join(["python3", "-m", "zipfile", "--list", str(wheel)])],
            code=BAD_DATA,
        ) from None
    told = manifests.of_metadata(text, "METADATA")

    def seen(value: str) -> Seen | None:
        return Seen(value, told.where) if value else None

    needs = ", ".join(str(requirement) for requirement in applying(told.depends))
    plain = re.sub(r"[-.]+", "_", told.name)
    inner = [name for name in (plain, plain.lower()) if f"{name}/__init__.py" in names]
    hint = f"it needs {needs}: requirements: FILE names a lock of these, with hashes"
    return Survey(
        name=seen(told.name),
        version=seen(told.version),
        summary=seen(manifests.one_line(told.summary, told.name)),
        license=seen(told.license),
        homepage=seen(told.homepage),
        maintainer=seen(told.maintainer),
        module=inner[0] if inner else "",
        hints=(Seen(hint, "package"),) if needs else (),
    )
