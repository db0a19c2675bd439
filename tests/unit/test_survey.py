"""What is seen of a source tree: trees of a few lines, and what is made of them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from slipway.errors import BAD_CONFIG, BAD_DATA, NO_INPUT, SlipwayError
from slipway.survey import Survey, survey, survey_wheel
from slipway.survey.ground import Seen, walk
from slipway.survey.licences import is_expression, of_name, of_text
from slipway.survey.manifests import cmake_calls, of_readme, one_line, person
from slipway.survey.needs import build_depends, debian_python
from slipway.versions import declared_version

CMAKE = "cmake_minimum_required(VERSION 3.20)\nproject(hull VERSION 3.2 LANGUAGES CXX)\n"
MESON = "project('sail', 'c', version: '2.1', license: 'MIT')\n"
PYPROJECT = """\
[build-system]
requires = ["scikit-build-core>=0.10", "cmake>=3.20", "tomli; python_version < '3.11'"]
build-backend = "scikit_build_core.build"
[project]
name = "Deep_Hull"
version = "1.4"
description = "A hull for deep water."
license = "MIT"
dependencies = ["numpy>=1.20", "PyYAML", "colorama; sys_platform == 'win32'", "x; extra == 'y'"]
maintainers = [{name = "Ann Other", email = "ann@example.org"}]
urls = {Documentation = "https://doc.example.org", Homepage = "https://example.org"}
"""


def grow(top: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    return top


def values(rows: tuple[Seen, ...]) -> list[str]:
    return [row.value for row in rows]


def hints(seen: Survey, part: str) -> str:
    return "\n".join(hint.value for hint in seen.hints if hint.where == part)


# -- the build system


@pytest.mark.parametrize(
    ("files", "system", "kind"),
    [
        ({"pyproject.toml": PYPROJECT}, "pep517", "scikit_build_core.build"),
        ({"pyproject.toml": '[build-system]\nrequires = ["x"]\n'}, "pep517", "setuptools"),
        ({"pyproject.toml": '[project]\nname = "x"\n'}, "pep517", "setuptools"),
        (
            {"pyproject.toml": PYPROJECT, "CMakeLists.txt": CMAKE},
            "pep517",
            "scikit_build_core.build",
        ),
        ({"pyproject.toml": "[tool.black]\n", "CMakeLists.txt": CMAKE}, "cmake", "CMake"),
        ({"setup.py": "from setuptools import setup\nsetup()\n"}, "pep517", "setuptools"),
        ({"CMakeLists.txt": CMAKE, "Makefile": "all:\n"}, "cmake", "CMake"),
        ({"meson.build": MESON, "configure": "", "Makefile": ""}, "script", "Meson"),
        ({"configure": "#!/bin/sh\n", "Makefile": "all:\n"}, "script", "configure"),
        ({"configure.ac": "AC_INIT\n", "Makefile.am": ""}, "script", "autotools"),
        ({"Makefile": "all:\n"}, "make", "make"),
        ({"GNUmakefile": "all:\n"}, "make", "make"),
    ],
)
def test_a_build_system_is_told_by_its_file(
    tmp_path: Path, files: dict[str, str], system: str, kind: str
) -> None:
    mark = survey(grow(tmp_path, files)).mark
    assert mark is not None
    assert (mark.system, mark.kind) == (system, kind)


def test_the_only_directory_below_with_a_build_system_is_built(tmp_path: Path) -> None:
    tree = grow(
        tmp_path,
        {"cpp/CMakeLists.txt": CMAKE, "tests/CMakeLists.txt": CMAKE, "third_party/x/Makefile": ""},
    )
    seen = survey(tree)
    assert seen.directory == "cpp"
    assert seen.name == Seen("hull", "cpp/CMakeLists.txt")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"main.c": ""}, "looked for, in it and one level below: pyproject.toml, setup.py"),
        ({"pyproject.toml": "[tool.ruff]\n"}, "looked for"),
        (
            {"a/Makefile": "", "b/CMakeLists.txt": CMAKE},
            "several directories below it have one: a, b",
        ),
    ],
)
def test_a_tree_without_one_is_an_error_that_says_what_to_do(
    tmp_path: Path, files: dict[str, str], words: str
) -> None:
    with pytest.raises(SlipwayError, match="no build system") as caught:
        survey(grow(tmp_path, files))
    assert caught.value.code == NO_INPUT
    assert words in caught.value.cause
    assert "--source" in caught.value.fix[0]
    assert "system: script" in caught.value.fix[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[build-system\n", "is no TOML"),
        ("project = 1\n", "project is no table"),
        ("[project]\nauthors = ['Ann']\n", "[project] is not what PEP 621 has"),
        ("[project]\nurls = 1\n", "[project] is not what PEP 621 has"),
    ],
)
def test_a_pyproject_that_makes_no_sense_is_an_error_that_names_it(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(SlipwayError, match=r"pyproject\.toml cannot be understood") as caught:
        survey(grow(tmp_path, {"pyproject.toml": text}))
    assert caught.value.code == BAD_CONFIG
    assert words in caught.value.cause


def test_looking_changes_nothing(tmp_path: Path) -> None:
    tree = grow(
        tmp_path, {"setup.py": "open('made', 'w')\nfrom setuptools import setup\nsetup()\n"}
    )
    survey(tree)
    assert [path.name for path in tree.iterdir()] == ["setup.py"]


def test_what_meson_and_configure_take_installs_into_destdir(tmp_path: Path) -> None:
    for files in ({"meson.build": MESON}, {"configure": ""}, {"configure.ac": ""}):
        *_, configured, _built, installed = survey(grow(tmp_path, files)).commands
        assert "--prefix=/usr" in configured
        assert '"$DESTDIR"' in installed
        next(tmp_path.iterdir()).unlink()


# -- who it is


def test_pyproject_tells_most(tmp_path: Path) -> None:
    seen = survey(grow(tmp_path, {"pyproject.toml": PYPROJECT}))
    where = "pyproject.toml"
    assert seen.name == Seen("Deep_Hull", where)
    assert seen.version == Seen("1.4", where)
    assert seen.summary == Seen("hull for deep water", where)
    assert seen.license == Seen("MIT", where)
    assert seen.homepage == Seen("https://example.org", where)
    assert seen.maintainer == Seen("Ann Other <ann@example.org>", where)
    assert values(seen.depends) == ["python3-numpy", "python3-yaml"]
    assert values(seen.pip) == ["scikit-build-core>=0.10", "cmake>=3.20"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("setup.py", "from setuptools import setup\nsetup(name='keel', version='1.0', url=u())\n"),
        ("setup.py", "import setuptools\nsetuptools.setup(name='keel')\n"),
        ("setup.cfg", "[metadata]\nname = keel\nversion = attr: keel.version\n"),
        ("PKG-INFO", "Metadata-Version: 2.1\nName: keel\nVersion: 1.0\n"),
        ("CMakeLists.txt", "# project(no)\nproject(keel)\n"),
        ("meson.build", "# project('no')\nproject('keel', 'c')\n"),
        ("debian/control", "Source: keel\nMaintainer: Ann <a@example.org>\n"),
    ],
)
def test_a_name_is_seen_where_a_tree_has_it(tmp_path: Path, file: str, text: str) -> None:
    seen = survey(grow(tmp_path, {"setup.py": "", "CMakeLists.txt": "", file: text}))
    assert seen.name == Seen("keel", file)


def test_a_tree_that_says_nothing_is_still_seen(tmp_path: Path) -> None:
    seen = survey(grow(tmp_path, {"CMakeLists.txt": "project(${NAME})\n"}))
    assert (seen.name, seen.version, seen.summary, seen.license) == (None, None, None, None)
    assert (seen.homepage, seen.maintainer, seen.ctest, seen.pytest) == (None, None, None, None)


def test_cmake_tells_summary_and_home_page(tmp_path: Path) -> None:
    text = 'project(hull VERSION 1.0\n  DESCRIPTION "The hull: it floats."\n  HOMEPAGE_URL "http://x.org")\n'
    seen = survey(grow(tmp_path, {"CMakeLists.txt": text}))
    assert seen.summary == Seen("it floats", "CMakeLists.txt")
    assert seen.homepage == Seen("http://x.org", "CMakeLists.txt")


def test_the_version_is_the_one_that_building_will_read(tmp_path: Path) -> None:
    tree = grow(tmp_path, {"CMakeLists.txt": CMAKE, "VERSION": "9.9\n", "PKG-INFO": "Version: 8\n"})
    seen = survey(tree)
    assert seen.version == Seen("3.2", "CMakeLists.txt")
    assert declared_version(tree) == "3.2"
    (tree / "CMakeLists.txt").write_text("project(hull)\n")
    (tree / "VERSION").unlink()
    assert survey(tree).version == Seen("8", "PKG-INFO")


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("A fast library.", "fast library"),
        ("hull: the fast\n library", "fast library"),
        ("Hull is a fast library", "fast library"),
        ("one " * 30, "one " * 18 + "one"),
        ("Short sentence. " + "long " * 30, "Short sentence"),
        ("", ""),
    ],
)
def test_a_summary_is_one_short_line(text: str, summary: str) -> None:
    assert one_line(text, "hull") == summary
    assert len(one_line(text, "hull")) <= 75


def test_a_long_summary_does_not_end_in_a_small_word() -> None:
    text = "Powerful and Pythonic processing of documents that combines libraries with others"
    assert one_line(text).endswith("combines libraries")


@pytest.mark.parametrize(
    ("name", "mail", "both"),
    [
        ("Ann", "a@x.org", "Ann <a@x.org>"),
        ("", "Ann <a@x.org>", "Ann <a@x.org>"),
        ("Ann <a@x.org>", "", "Ann <a@x.org>"),
        ("", '"Ann O" <a@x.org>, Bo <b@x.org>', "Ann O <a@x.org>"),
        ("Ann", "", ""),
        ("", "a@x.org", ""),
    ],
)
def test_a_person_has_a_name_and_a_mail(name: str, mail: str, both: str) -> None:
    assert person(name, mail) == both


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("# Hull - floats in any water\n", "Hull - floats in any water"),
        ("[![ci](x)](y)\n\n# Hull\n\nIt **floats** in [water](u). More.\n", "It floats in water"),
        ("====\nHull\n====\n\n.. image:: x\n\nIt floats, always.\n", "It floats, always."),
        ("<p>\n", ""),
    ],
)
def test_a_readme_s_heading_or_first_sentence_will_do(text: str, summary: str) -> None:
    assert of_readme(text, "README.md").summary == summary


# -- licences

MIT = """MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
"""
BSD = "Redistribution and use in source and binary forms, with or without\nmodification"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("                Apache License\n      Version 2.0, January 2004\n", "Apache-2.0"),
        (MIT, "MIT"),
        (BSD, "BSD-2-Clause"),
        (f"{BSD}\n * may be used to endorse or promote products\n", "BSD-3-Clause"),
        ("GNU GENERAL PUBLIC LICENSE\n   Version 2, June 1991\n", "GPL-2.0-only"),
        ("GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007\n", "GPL-3.0-only"),
        ("GNU LESSER GENERAL PUBLIC LICENSE\n  Version 2.1, February 1999", "LGPL-2.1-only"),
        ("GNU LESSER GENERAL PUBLIC LICENSE\n  Version 3, 29 June 2007", "LGPL-3.0-only"),
        ("Mozilla Public License Version 2.0\n====\n", "MPL-2.0"),
        (
            "Permission to use, copy, modify, and/or distribute this software\nfor any purpose",
            "ISC",
        ),
        ("Boost Software License - Version 1.0 - August 17th, 2003", "BSL-1.0"),
        ("2. you must not claim that you\nwrote the original software.", "Zlib"),
        ("This is free and unencumbered software released into the public domain.", "Unlicense"),
        (f"{BSD}\n\nBundled: Apache License\nVersion 2.0, January 2004", "BSD-2-Clause"),
        ("// SPDX-License-Identifier: MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        ("All rights reserved.", ""),
    ],
)
def test_a_licence_is_known_by_its_text(text: str, name: str) -> None:
    assert of_text(text) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("MIT", "MIT"),
        ("The MIT License", "MIT"),
        ("License :: OSI Approved :: Apache Software License", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("BSD-3-clause", "BSD-3-Clause"),
        ("3-Clause BSD License", "BSD-3-Clause"),
        ("Expat", "MIT"),
        ("GPL-2+", "GPL-2.0-or-later"),
        ("GPL-3.0", "GPL-3.0-only"),
        ("LGPL-2.1+", "LGPL-2.1-or-later"),
        ("License :: GNU General Public License v3 or later (GPLv3+)", "GPL-3.0-or-later"),
        ("MIT AND (Apache-2.0 OR BSD-2-Clause)", "MIT AND (Apache-2.0 OR BSD-2-Clause)"),
        ("BSD", ""),
        ("License :: OSI Approved :: BSD License", ""),
        ("public-domain", ""),
        ("Proprietary", ""),
    ],
)
def test_a_licence_is_known_by_its_name(text: str, name: str) -> None:
    assert of_name(text) == name
    assert not name or is_expression(name)


def test_gnu_s_later_versions_are_found_in_the_sources(tmp_path: Path) -> None:
    tree = grow(
        tmp_path,
        {
            "CMakeLists.txt": CMAKE,
            "COPYING": "GNU GENERAL PUBLIC LICENSE\nVersion 2, June 1991\n",
            "a.c": "/* version 2, or (at your option) any\n * later version. */\n",
        },
    )
    assert survey(tree).license == Seen("GPL-2.0-or-later", "COPYING")
    (tree / "a.c").unlink()
    assert survey(tree).license == Seen("GPL-2.0-only", "COPYING")


def test_debian_knows_the_licence_of_most_files(tmp_path: Path) -> None:
    text = "Format: x\n\nFiles: tests/*\nLicense: MIT\n\nFiles: *\nLicense: LGPL-2.1+\n text\n"
    tree = grow(tmp_path, {"CMakeLists.txt": CMAKE, "debian/copyright": text, "COPYING": BSD})
    assert survey(tree).license == Seen("LGPL-2.1-or-later", "debian/copyright")


# -- what it needs


def test_calls_of_cmake_are_read_without_comments_and_with_their_conditions() -> None:
    text = """
    set(A "x # no comment" #[[ a bracket ]] b) # find_package(No)
    IF(B) # (
      find_package(C REQUIRED)
    endif()
    Find_Package(D [=[e f]=])
    """
    calls = [(c.name, c.arguments, c.conditional) for c in cmake_calls(text)]
    assert calls == [
        ("set", ("A", "x # no comment", "b"), False),
        ("if", ("B",), False),
        ("find_package", ("C", "REQUIRED"), True),
        ("endif", (), True),
        ("find_package", ("D", "e f"), False),
    ]


def test_cmake_s_libraries_become_debian_packages(tmp_path: Path) -> None:
    text = """
    find_package(ZLIB REQUIRED)
    find_package(Protobuf 3.0 REQUIRED)
    find_package(Threads REQUIRED)
    find_package(Frob CONFIG REQUIRED)
    find_package(PNG)
    pkg_check_modules(FFT REQUIRED IMPORTED_TARGET fftw3>=3.3 libzstd)
    if(X)
      find_package(MPI REQUIRED)
      find_package(Unknown REQUIRED)
    endif()
    # find_package(Boost REQUIRED)
    """
    foreign = {"third_party/x/CMakeLists.txt": "find_package(HDF5 REQUIRED)\n"}
    seen = survey(
        grow(tmp_path, {"CMakeLists.txt": CMAKE + text, **foreign}), in_image=["zlib1g-dev"]
    )
    assert values(seen.apt) == [
        "libprotobuf-dev",
        "protobuf-compiler",
        "libfftw3-dev",
        "libzstd-dev",
    ]
    told = hints(seen, "apt")
    assert "find_package(Frob), CMakeLists.txt: name the Debian package that has it" in told
    assert "libpng-dev for find_package(PNG), libopenmpi-dev for find_package(MPI)" in told
    assert "Unknown" not in told


def test_meson_s_libraries_become_debian_packages(tmp_path: Path) -> None:
    text = "dependency('zlib')\ndependency('libpng', required: false)\ndependency('frob')\n"
    seen = survey(grow(tmp_path, {"meson.build": MESON + text}))
    assert values(seen.apt) == ["meson", "zlib1g-dev", "pkgconf"]
    assert "dependency('frob'), meson.build: name" in hints(seen, "apt")
    assert "libpng-dev" in hints(seen, "apt")


def test_what_pip_brings_is_not_asked_of_debian(tmp_path: Path) -> None:
    text = '[build-system]\nrequires = ["scikit-build-core", "pybind11>=2"]\n'
    cmake = "find_package(pybind11 REQUIRED)\nfind_package(ZLIB REQUIRED)\n"
    seen = survey(grow(tmp_path, {"pyproject.toml": text, "CMakeLists.txt": CMAKE + cmake}))
    assert values(seen.apt) == ["zlib1g-dev"]


def test_debian_s_own_list_goes_before_a_guess(tmp_path: Path) -> None:
    control = "Source: hull\nBuild-Depends: debhelper-compat (= 13),\n cmake, libfoo-dev (>= 1)\n"
    cmake = CMAKE + "find_package(ZLIB REQUIRED)\n"
    seen = survey(grow(tmp_path, {"CMakeLists.txt": cmake, "debian/control": control}))
    assert seen.apt == (Seen("libfoo-dev", "debian/control"),)


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("debhelper (>= 9), dh-python, cmake, pkgconf", ["pkgconf"]),
        ("liba-dev | libb-dev, liba-dev", ["liba-dev"]),
        ("python3-all-dev:any, ${misc:Depends}", ["python3-all-dev"]),
        ("a1 [arm64], a2 [!arm64], a3 [any], a4 [!amd64], a5 [amd64 i386]", ["a2", "a3", "a5"]),
        ("c1 <!nocheck>, c2 <cross>, c3 <!cross>, c4 <!nodoc> <!nocheck>", ["c1", "c3", "c4"]),
        ("a1,\n# a2,\n a3", ["a1", "a3"]),
    ],
)
def test_build_depends_is_reduced_to_names(field: str, names: list[str]) -> None:
    assert build_depends(field, tests=True) == names


def test_without_tests_their_packages_go() -> None:
    assert build_depends("c1 <!nocheck>, c2 <!nodoc>", tests=False) == ["c2"]


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("numpy", "python3-numpy"),
        ("Typing_Extensions", "python3-typing-extensions"),
        ("scikit-learn", "python3-sklearn"),
        ("python-dateutil", "python3-dateutil"),
    ],
)
def test_a_python_package_has_debian_s_name(name: str, package: str) -> None:
    assert debian_python(name) == package


def test_an_old_setup_py_needs_setuptools(tmp_path: Path) -> None:
    text = "from setuptools import setup\nsetup(name='keel', install_requires=['scipy'])\n"
    seen = survey(grow(tmp_path, {"setup.py": text}))
    assert seen.pip == (Seen("setuptools", "setup.py"),)
    assert values(seen.depends) == ["python3-scipy"]


def test_what_the_python_tests_import_is_there_when_they_run(tmp_path: Path) -> None:
    tree = grow(tmp_path, {"pyproject.toml": PYPROJECT, "tests/test_a.py": ""})
    assert values(survey(tree, in_image=["python3-numpy"]).apt) == ["python3-yaml"]


def test_what_a_build_will_stumble_over_is_told(tmp_path: Path) -> None:
    cmake = CMAKE + "include(FetchContent)\nFetchContent_Declare(googletest URL x)\n"
    modules = '[submodule "a"]\n\tpath = lib/a\n\turl = x\n'
    seen = survey(grow(tmp_path, {"CMakeLists.txt": cmake, ".gitmodules": modules}))
    assert "may fetch googletest" in hints(seen, "build")
    assert "network: true" in hints(seen, "build")
    assert "without install rules" in hints(seen, "package")
    assert "submodules not checked out: lib/a" in hints(seen, "source")


@pytest.mark.parametrize(
    ("files", "installs"),
    [
        ({"CMakeLists.txt": CMAKE + "install(DIRECTORY include/ DESTINATION include)\n"}, True),
        ({"CMakeLists.txt": CMAKE + "install(FILES a.hpp DESTINATION x)\n"}, True),
        ({"CMakeLists.txt": CMAKE + "install(TARGETS a PUBLIC_HEADER DESTINATION x)\n"}, True),
        ({"CMakeLists.txt": CMAKE + "install(TARGETS a)\n"}, False),
        ({"meson.build": MESON + "install_headers('a.h')\n"}, True),
        ({"Makefile": "install:\n\tinstall a.h $(DESTDIR)/usr/include/a.h\n"}, True),
        ({"Makefile": "install:\n"}, False),
    ],
)
def test_installed_headers_are_seen(tmp_path: Path, files: dict[str, str], installs: bool) -> None:
    assert bool(survey(grow(tmp_path, files)).headers) == installs


# -- tests


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("enable_testing()\n", True),
        ("include(CTest)\n", True),
        ("gtest_discover_tests(t)\n", True),
        ("# enable_testing()\n", False),
        ("#[[ add_test(x) ]]\n", False),
        ("include(Other)\n", False),
    ],
)
def test_ctest_s_tests_are_seen(tmp_path: Path, text: str, found: bool) -> None:
    assert bool(survey(grow(tmp_path, {"CMakeLists.txt": CMAKE + text})).ctest) == found


def test_tests_that_are_off_are_switched_on(tmp_path: Path) -> None:
    text = """
    option(HULL_BUILD_TESTS "x" OFF)
    option(HULL_GPU_TESTS "x" OFF)
    option(BUILD_TESTING "x" ON)
    option(HULL_FASTEST "x" OFF)
    """
    seen = survey(grow(tmp_path, {"CMakeLists.txt": CMAKE + text}))
    assert {key: value.value for key, value in seen.options.items()} == {"HULL_BUILD_TESTS": "ON"}
    assert "BUILD_TESTING, CMakeLists.txt, is on by default" in hints(seen, "test")


@pytest.mark.parametrize(
    ("file", "directory"),
    [
        ("tests/test_a.py", "tests"),
        ("tests/deep/er/a_test.py", "tests/deep/er"),
        ("python/tests/test_a.py", "python/tests"),
        ("tests/helper.py", None),
        ("docs/test_a.py", None),
    ],
)
def test_python_s_tests_are_seen(tmp_path: Path, file: str, directory: str | None) -> None:
    seen = survey(grow(tmp_path, {"pyproject.toml": PYPROJECT, file: ""}))
    assert (seen.pytest.value if seen.pytest else None) == directory


@pytest.mark.parametrize(
    ("files", "commands"),
    [
        ({"Makefile": "all: a\ncheck test: all\n"}, ["make check"]),
        ({"Makefile": "test: all\n"}, ["make test"]),
        ({"Makefile": "check := x\nCHECK: all\n"}, []),
        ({"configure": "", "Makefile.am": "SUBDIRS = src\n"}, ["make check"]),
        ({"configure": "", "Makefile.in": "check:\n"}, ["make check"]),
        ({"meson.build": MESON + "test('a', b)\n"}, ['meson test -C "$BUILD/meson"']),
        ({"meson.build": MESON}, []),
    ],
)
def test_make_s_and_meson_s_tests_are_seen(
    tmp_path: Path, files: dict[str, str], commands: list[str]
) -> None:
    assert values(survey(grow(tmp_path, files)).checks) == commands


def test_the_module_is_the_directory_of_the_project_s_name(tmp_path: Path) -> None:
    tree = grow(tmp_path, {"pyproject.toml": PYPROJECT, "src/deep_hull/__init__.py": ""})
    assert survey(tree).module == "deep_hull"


# -- files


def test_walking_stays_in_what_is_the_project_s_own(tmp_path: Path) -> None:
    names = ["b/x", "x", "vendor/x", ".git/x", "build-debug/x", "sub/.git/y", "sub/x", "a/b/x"]
    tree = grow(tmp_path, dict.fromkeys(names, ""))
    found = [path.relative_to(tree).as_posix() for path in walk(tree, lambda name: name == "x")]
    assert found == ["x", "b/x", "a/b/x"]


def test_a_wheel_is_known_by_its_metadata(tmp_path: Path) -> None:
    wheel = tmp_path / "hull-1.0-py3-none-any.whl"
    text = (
        "Name: hull\nVersion: 1.0\nSummary: A hull\nLicense-Expression: MIT\n"
        "Author-email: Ann <a@example.org>\nProject-URL: Homepage, https://example.org\n"
        "Requires-Dist: numpy>1\nRequires-Dist: x; extra == 'y'\n"
    )
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("hull/__init__.py", "")
        archive.writestr("hull-1.0.dist-info/METADATA", text)
    seen = survey_wheel(wheel)
    assert (seen.mark, seen.module) == (None, "hull")
    assert seen.license == Seen("MIT", "METADATA")
    assert seen.homepage == Seen("https://example.org", "METADATA")
    assert "it needs numpy>1:" in hints(seen, "package")


def test_what_is_no_wheel_is_an_error(tmp_path: Path) -> None:
    wheel = tmp_path / "hull-1.0-py3-none-any.whl"
    wheel.write_text("nothing")
    with pytest.raises(SlipwayError, match="is no wheel") as caught:
        survey_wheel(wheel)
    assert caught.value.code == BAD_DATA
