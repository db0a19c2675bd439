"""Where sources come from: what is decided before anything is fetched or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from slipway.checkouts import Found, Remote, choose, no_ref, parse_refs, remote_of
from slipway.errors import SlipwayError
from slipway.fetched import close_to, without_credentials
from slipway.indexes import (
    File,
    Wanted,
    digest_for,
    fitting,
    is_sdist,
    near,
    parse_page,
    with_credentials,
)
from slipway.settings import Settings, Workshop, convert
from slipway.sources import (
    Source,
    debian_command,
    debian_name,
    debian_version,
    described,
    known_version,
    upstream,
)
from slipway.unpack import Member, Refused, plan

A, B = "a" * 64, "b" * 64
SDIST = {"sdist": "oar", "version": "1.0", "sha256": A}


def message(data: Any) -> str:
    with pytest.raises(SlipwayError) as error:
        convert(data, Source, "project.yaml", fix="mend it")
    assert error.value.code == 78
    return str(error.value.message)


# -- source: in project.yaml


def test_nothing_named_is_the_directory_itself() -> None:
    assert convert({}, Source, "", fix="mend it").kind == "here"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"git": "../oar", "ref": "v1.0"}, "git"),
        ({"git": "https://example.org/oar.git", "ref": "main", "submodules": False}, "git"),
        (SDIST, "sdist"),
        ({"wheel": "oar", "version": "1.0", "sha256": {"cp312": A, "py3": B}}, "wheel"),
        ({"debian": "libfann"}, "debian"),
        ({"debian": "libfann", "version": "1:2.2.0+ds-8~bpo12+1"}, "debian"),
    ],
)
def test_each_kind_of_source(data: Any, kind: str) -> None:
    assert convert(data, Source, "", fix="mend it").kind == kind


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"git": "x", "ref": "v1", "debian": "fann"}, "git and debian: a tree comes from one"),
        ({"git": "x"}, "git needs ref"),
        ({"sdist": "oar", "version": "1.0"}, "sdist needs sha256"),
        ({"ref": "v1"}, "ref goes with git"),
        ({**SDIST, "ref": "v1"}, "ref goes with git"),
        ({"debian": "fann", "sha256": A}, "sha256 goes with sdist or wheel"),
        ({"submodules": False}, "submodules goes with git"),
        ({**SDIST, "sha256": "abc"}, "sha256: 'abc' is no sha256 (64 hex digits"),
        ({**SDIST, "sha256": {"cp312": A}}, "an sdist is one file"),
        ({**SDIST, "sdist": "../oar"}, "sdist: '../oar' is no name of a Python package"),
        ({**SDIST, "version": "one"}, "version: 'one' is no version by PEP 440"),
        ({**SDIST, "version": 1.1}, "version: Expected `str`, got `float`"),
        ({"wheel": "o", "version": "1.0", "sha256": {"cp312": 5}}, "sha256.cp312: '5' is no"),
        ({"debian": "Fann"}, "no name of a Debian source package"),
        ({"debian": "fann", "version": "-1"}, "no version of a Debian package"),
        ({"git": "--upload-pack=x", "ref": "v1"}, "is no URL and no path"),
        *(
            ({"git": "x", "ref": ref}, "is no name of a tag, branch or commit")
            for ref in ("-f", "a..b", "a b", "HEAD~1", "v1^", "main@{1}", "/main")
        ),
        ({"svn": "x"}, "svn: unknown key"),
    ],
)
def test_what_makes_no_sense_is_refused(data: Any, words: str) -> None:
    assert words in message(data)


def test_the_types_give_a_json_schema() -> None:
    schema = msgspec.json.schema(Source)["$defs"]["Source"]
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(Source.__struct_fields__)


def test_a_source_in_one_line_has_no_password() -> None:
    source = Source(git="https://me:secret@example.org/oar.git", ref="v1")
    assert described(source) == "https://example.org/oar.git at v1"
    assert described(convert(SDIST, Source, "", fix="mend it")) == "sdist oar 1.0"
    assert described(Source()) == "the project's directory"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:p@ss@example.org/x y", "https://example.org/x y"),
        ("fatal: 'HTTPS://token@example.org/'", "fatal: 'HTTPS://example.org/'"),
        ("ssh://git@example.org/x", "ssh://git@example.org/x"),
        ("ssh://git:secret@example.org/x", "ssh://git@example.org/x"),
        ("git@example.org:x", "git@example.org:x"),
        ("https://example.org/a@b", "https://example.org/a@b"),
    ],
)
def test_credentials_are_not_shown(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


# -- git

REFS = parse_refs(
    "1111111111111111111111111111111111111111\trefs/heads/main\n"
    "2222222222222222222222222222222222222222\trefs/tags/v1.0\n"
    "3333333333333333333333333333333333333333\trefs/tags/v1.0^{}\n"
    "4444444444444444444444444444444444444444\trefs/tags/v1.1\n"
    "5555555555555555555555555555555555555555\trefs/heads/v1.1\n"
)


@pytest.mark.parametrize(
    ("ref", "found"),
    [
        ("main", Found("1" * 40, moves=True)),
        ("v1.0", Found("3" * 40, moves=False)),
        ("v1.1", Found("4" * 40, moves=False)),
        ("7" * 40, Found("7" * 40, moves=False)),
        ("7777777", Found("", moves=False)),
        ("v9", None),
    ],
)
def test_what_a_ref_means(ref: str, found: Found | None) -> None:
    assert choose(ref, REFS) == found


def test_a_ref_that_is_not_there_names_those_near_it() -> None:
    error = no_ref(Remote("https://u:p@example.org/oar.git", is_local=False), "v1.01", REFS)
    assert error.what == "https://example.org/oar.git has no tag, branch or commit 'v1.01'"
    assert set(error.cause.removeprefix("near it: ").split(", ")) == {"v1.0", "v1.1"}
    assert error.code == 66


@pytest.mark.parametrize(
    ("address", "name", "is_local"),
    [
        ("https://example.org/team/Oar.git", "Oar", False),
        ("https://example.org/team/oar/", "oar", False),
        ("git@example.org:oar.git", "oar", False),
        ("file:///srv/oar/.git", "oar", True),
        ("https://example.org/%20 x", "20-x", False),
    ],
)
def test_a_repository_has_a_name(address: str, name: str, is_local: bool) -> None:
    remote = remote_of(address, Path())
    assert (remote.name, remote.is_local) == (name, is_local)


def test_two_repositories_of_one_name_have_two_mirrors_and_a_password_makes_no_third() -> None:
    one, other, same = (
        remote_of(f"https://{host}/oar.git", Path()).mirror_name
        for host in ("example.org", "example.com", "u:p@example.org")
    )
    assert one != other
    assert one == same


def test_a_path_starts_at_the_project(tmp_path: Path) -> None:
    (tmp_path / "oar").mkdir()
    assert remote_of("../oar", tmp_path / "project").url == str(tmp_path / "oar")
    with pytest.raises(SlipwayError, match="no git repository"):
        remote_of("../none", tmp_path)


# -- package index


@pytest.mark.parametrize(
    ("filename", "fits"),
    [
        ("oar_kernels-1.0.tar.gz", True),
        ("Oar.Kernels-1.0.0.zip", True),
        ("oar-kernels-1.0.tar.bz2", True),
        ("oar-kernels-extra-1.0.tar.gz", False),
        ("oar-kernels-1.0.1.tar.gz", False),
        ("oar_kernels-1.0-py3-none-any.whl", False),
        ("oar-kernels-1.0.exe", False),
    ],
)
def test_sdists_by_their_names_of_today_and_before(filename: str, fits: bool) -> None:
    assert is_sdist(filename, "oar-kernels", "1.0") is fits


WHEELS = [
    "oar-1.0-cp312-cp312-macosx_11_0_arm64.whl",
    "oar-1.0-cp312-cp312-manylinux_2_28_aarch64.whl",
    "oar-1.0-cp312-cp312-manylinux_2_28_x86_64.whl",
    "oar-1.0-cp312-cp312-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    "oar-1.0-cp312-cp312-musllinux_1_2_x86_64.whl",
    "oar-1.0-cp310-abi3-linux_x86_64.whl",
    "oar-1.1-cp313-cp313-linux_x86_64.whl",
    "oar-1.0-py2-none-any.whl",
    "oar-1.0.tar.gz",
    "no wheel.whl",
]


@pytest.mark.parametrize(
    ("tag", "chosen"),
    [
        ("cp312", "oar-1.0-cp312-cp312-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"),
        ("cp313", "oar-1.0-cp310-abi3-linux_x86_64.whl"),
        ("cp39", None),
    ],
)
def test_the_wheel_for_a_python(tag: str, chosen: str | None) -> None:
    files = [File(name, "") for name in WHEELS]
    found = fitting(Wanted("wheel", "Oar", "1.0", A, tag), files)
    assert (found[0].name if found else None) == chosen


def test_a_sha256_chooses_among_what_fits_and_without_a_python_among_all() -> None:
    files = [File(name, "", A if "2_28_x86" in name else B) for name in WHEELS]
    for tag in ("cp312", ""):
        found = fitting(Wanted("wheel", "oar", "1.0", A, tag), files)
        assert found[0].name == "oar-1.0-cp312-cp312-manylinux_2_28_x86_64.whl"


@pytest.mark.parametrize(
    ("tag", "keys", "chosen"),
    [
        ("cp312", {"cp312": A, "cp311": B}, A),
        ("cp313", {"cp312": A, "cp311": B}, None),
        ("cp313", {"cp38-abi3": A, "cp312": B}, A),
        ("cp37", {"cp38-abi3": A}, None),
        ("cp313", {"py3": A}, A),
        ("", {"py3": A}, A),
        ("", {"cp312": A, "cp311": B}, None),
    ],
)
def test_the_sha256_for_a_python(tag: str, keys: dict[str, str], chosen: str | None) -> None:
    assert digest_for(tag, keys) == chosen


def test_a_tag_that_is_no_python() -> None:
    with pytest.raises(SlipwayError, match=r"'3\.13' is no Python"):
        digest_for("3.13", {"py3": A})


def test_the_versions_near_one() -> None:
    known = ["1.10", "1.2", "1.9", "1.0", "2.0", "3.0", "odd"]
    assert near("1.8", known) == ["1.0", "1.2", "1.9", "1.10", "3.0"]
    assert near("odd", known) == ["2.0", "3.0"]
    assert near("1.8", []) == []


def test_names_near_one_or_the_last() -> None:
    assert close_to("v1.22", ["v1.2.2", "v1.2.1", "nightly"])[0] == "v1.2.2"
    assert close_to("zzz", ["a", "b", "c"], 2) == ["b", "c"]


PAGE = f"""<html><head><base href="https://files.example.org/deep/"></head><body>
<A HREF="oar-1.0.tar.gz#sha256={A}" data-yanked="">oar-1.0.tar.gz</A>
<a href="https://example.org/oar-1.0%2Bcpu-py3-none-any.whl#md5=x">whl</a><a name="x">no link</a>
</body></html>"""


def test_a_page_in_html() -> None:
    assert parse_page(PAGE, "https://example.org/simple/oar/", "text/html; charset=utf-8") == [
        File("oar-1.0.tar.gz", "https://files.example.org/deep/oar-1.0.tar.gz", A, yanked=True),
        File("oar-1.0+cpu-py3-none-any.whl", "https://example.org/oar-1.0%2Bcpu-py3-none-any.whl"),
    ]


def test_a_page_in_json() -> None:
    rows = [{"filename": "oar-1.0.zip", "url": "../../f/oar-1.0.zip", "hashes": {"sha256": A}}]
    text = msgspec.json.encode({"files": rows}).decode()
    found = parse_page(
        text, "https://example.org/simple/oar/", "application/vnd.pypi.simple.v1+json"
    )
    assert found == [File("oar-1.0.zip", "https://example.org/f/oar-1.0.zip", A)]


def test_the_password_of_an_index_goes_to_its_own_server_only() -> None:
    index = "https://me:secret@example.org/simple/"
    assert with_credentials("https://example.org/f", index) == "https://me:secret@example.org/f"
    for other in ("https://example.com/f", "http://example.org/f", "https://example.org:444/f"):
        assert with_credentials(other, index) == other


# -- Debian


@pytest.mark.parametrize(
    ("debian", "pep440"),
    [
        ("2.2.0+ds-8", "2.2.0"),
        ("1:2.2.0~rc1+dfsg1-8~bpo12+1", "2.2.0rc1"),
        ("2.2.0", "2.2.0"),
        ("20190101git", None),
        ("", None),
    ],
)
def test_the_version_of_a_debian_source(debian: str, pep440: str | None) -> None:
    assert upstream(debian) == pep440


def test_the_version_that_a_source_tells(tmp_path: Path) -> None:
    (tmp_path / "debian").mkdir()
    line = "libfann (2.2.0+ds-8) unstable; urgency=medium\n\n  * Change.\n"
    (tmp_path / "debian/changelog").write_text(line)
    assert debian_version(line) == "2.2.0+ds-8"
    assert debian_version("no changelog") == ""
    assert known_version(Source(debian="libfann"), tmp_path) == "2.2.0"
    assert known_version(Source(debian="libfann", version="3.0-1"), tmp_path) == "3.0"
    assert known_version(convert(SDIST, Source, "", fix="mend it"), tmp_path) == "1.0"
    assert known_version(Source(git="x", ref="v1"), tmp_path) is None


def test_the_command_for_a_debian_source(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, Settings())
    argv = debian_command(workshop, Source(debian="fann", version="1:2-3"), Path("/d"), Path("/t"))
    script = str(tmp_path / "scripts/debian-source")
    assert argv == [script, "--version", "1:2-3", "fann", "/d", "/t"]
    assert debian_name(Source(debian="fann", version="1:2-3"), "") == "fann-1-2-3"
    assert debian_name(Source(debian="fann"), "h:5/debian:trixie-slim") == "fann-debian-trixie-slim"


# -- archives


def file(path: str, **more: Any) -> Member:
    return Member(path, more.pop("kind", "file"), 0, **more)


def link(path: str, target: str, kind: str = "link") -> Member:
    return file(path, kind=kind, target=target)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([file("../x")], "'../x' escapes by '..'"),
        ([file("a/../../x")], "escapes by '..'"),
        ([file("a\\..\\..\\x")], "escapes by '..'"),
        ([file("/etc/x")], "is an absolute path"),
        ([file("C:\\x")], "is an absolute path"),
        ([link("a/l", "/etc/passwd")], "is a link to an absolute path"),
        ([link("a/l", "../../x")], "is a link out of it"),
        # The top directory is renamed: what is beside it in the archive is not beside it then.
        ([file("a/x"), link("a/l", "../b")], "is a link out of it"),
        # By names alone inside, through the other link not.
        ([link("a/b/up", "../.."), link("l", "a/b/up/../x"), file("f")], "is a link out of it"),
        ([link("a/l", "m"), link("a/m", "l")], "leads in a circle"),
        ([link("a/l", "."), file("a/l/x")], "'a/l/x' goes through the link 'a/l'"),
        ([file("a/l/x"), link("a/l", ".")], "'a/l/x' goes through the link 'a/l'"),
        ([file("a"), file("a/x")], "goes through the file 'a'"),
        ([link("a/l", "b"), file("a/l")], "is in it twice, as link and as file"),
        ([link("a/h", "/etc/passwd", "hardlink")], "is a hard link out of it"),
        ([link("a/h", "a/later", "hardlink"), file("a/later")], "is a hard link out of it"),
        ([file("a/d", kind="device")], "is a device"),
        ([file("a/d", kind="fifo")], "is a named pipe"),
        ([file("a/d", kind="other")], "is of no known kind"),
    ],
)
def test_archives_that_are_refused(members: list[Member], words: str) -> None:
    with pytest.raises(Refused) as error:
        plan(members)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("members", "paths", "top"),
    [
        ([file("./a/x"), file("a//y")], ["a/x", "a/y"], "a"),
        ([file("a/x"), file("b/y")], ["a/x", "b/y"], ""),
        ([file("x")], ["x"], ""),
        ([link("a", "b")], ["a"], ""),
        ([file("a/x", is_executable=True), link("a/h", "a/x", "hardlink")], ["a/x", "a/h"], "a"),
        ([file("a/b/x"), link("a/l", "b/../b/x"), link("a/m", "l")], ["a/b/x", "a/l", "a/m"], "a"),
        ([link("a/b/l", "../nowhere")], ["a/b/l"], "a"),
        ([file("a/..x"), file("a/x..")], ["a/..x", "a/x.."], "a"),
        ([], [], ""),
    ],
)
def test_archives_that_are_not(members: list[Member], paths: list[str], top: str) -> None:
    planned = plan(members)
    assert (list(planned.members), planned.top) == (paths, top)


def test_a_hard_link_is_a_copy_of_what_it_names() -> None:
    one = file("a/x", is_executable=True)
    copy = plan([one, link("a/h", "./a/x", "hardlink")]).members["a/h"]
    assert (copy.kind, copy.is_executable) == ("file", True)
