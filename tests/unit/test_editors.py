"""What an editor on the host is given: the build's own commands, and the image's headers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from slipway import editors
from slipway.builds import Site
from slipway.engine import Docker, Job
from slipway.errors import BAD_DATA, SlipwayError
from tests.unit.fakes import make_site

HEADERS = Path("/w/out/ide/headers-1")
MOUNTED = ["/w/oar", "/w/out/oar/cpu", "/run/ccache"]


def entry(command: str, **more: Any) -> dict[str, Any]:
    return {"directory": "/w/out/oar/cpu/build", "file": "/w/oar/a.cc", "command": command, **more}


def arguments(command: str, **more: Any) -> list[str]:
    (made,) = editors.for_editor([entry(command)], HEADERS, MOUNTED, {}, **more)
    words: list[str] = made["arguments"]
    return words


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("c++ -isystem /usr/include/python3.13 -c a.cc", ["/usr/include/python3.13"]),
        ("c++ -I/opt/slipway/nanobind -I /opt/x", ["/opt/slipway/nanobind", "/opt/x"]),
        ("c++ -isystem/opt/cuda/include", ["/opt/cuda/include"]),
        ("c++ -include /usr/include/stdint.h", ["/usr/include/stdint.h"]),
        ("c++ -I/w/oar/include -I/w/out/oar/cpu/build", []),
        ("c++ -I/w/oar2/include", ["/w/oar2/include"]),
        ("c++ -Iinclude -I../x -DIX=/usr -o /usr/x -c /usr/src/x.cc", []),
        ("", []),
    ],
)
def test_the_headers_that_only_the_image_has_are_found(command: str, expected: list[str]) -> None:
    assert editors.of_image([entry(command)], MOUNTED) == sorted(expected)


def test_the_image_s_headers_are_read_from_their_copy_and_the_host_s_where_they_are() -> None:
    words = arguments(
        "/usr/bin/c++ -I/w/oar/include -isystem /usr/include/python3.13 -I/opt/nb -O2 -c a.cc"
    )
    assert words == [
        "c++",
        "--target=x86_64-linux-gnu",
        f"--sysroot={HEADERS}",
        "-I/w/oar/include",
        "-isystem",
        f"{HEADERS}/usr/include/python3.13",
        f"-I{HEADERS}/opt/nb",
        "-O2",
        "-c",
        "a.cc",
    ]


def test_an_option_that_means_more_to_clang_is_left_out() -> None:
    assert "-mgeneral-regs-only" not in arguments("c++ -mgeneral-regs-only -c a.cc")


def test_words_with_blanks_stay_whole_and_more_comes_last() -> None:
    words = arguments("c++ '-DX=a b' -c a.cc", more=["-idirafter", "/x"])
    assert "-DX=a b" in words
    assert words[-2:] == ["-idirafter", "/x"]


def test_a_database_of_argument_lists_is_read_too() -> None:
    given = {"directory": "/b", "file": "a.c", "arguments": ["/usr/bin/ccache", "cc", "-c", "a.c"]}
    (made,) = editors.for_editor([given], HEADERS, MOUNTED, {})
    assert made["arguments"] == [
        *("cc", "--target=x86_64-linux-gnu", f"--sysroot={HEADERS}", "-c", "a.c")
    ]


def test_what_clangd_does_not_know_is_left_out() -> None:
    entries = [entry("/opt/cuda/bin/nvcc -gencode x -c a.cu"), entry("c++ -c a.cc"), entry("")]
    assert len(editors.for_editor(entries, HEADERS, MOUNTED, {})) == 1


def test_what_is_compiled_of_the_image_s_own_files_is_left_out() -> None:
    entries = [entry("c++ -c x.cc", file="/opt/slipway/nanobind/x.cc"), entry("c++ -c a.cc")]
    (made,) = editors.for_editor(entries, HEADERS, MOUNTED, {})
    assert made["file"] == "/w/oar/a.cc"


def test_paths_that_stand_elsewhere_inside_become_the_host_s() -> None:
    given = [entry("c++ -I/src/oar-1/include -c /src/oar-1/a.cc", file="/src/oar-1/a.cc")]
    (made,) = editors.for_editor(given, HEADERS, ["/src/oar-1"], {"/src/oar-1": "/usr/oar"})
    assert made["file"] == "/usr/oar/a.cc"
    assert made["arguments"][-3:] == ["-I/usr/oar/include", "-c", "/usr/oar/a.cc"]


# -- acting


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that were run; nothing is."""
    jobs: list[Job] = []

    def run(_self: Docker, job: Job, _image: str) -> int:
        jobs.append(job)
        return 0

    monkeypatch.setattr(Docker, "run", run)
    return jobs


def built(tmp_path: Path, *options: str) -> Site:
    site = make_site(tmp_path)
    site.build.mkdir(parents=True, exist_ok=True)
    words = ["c++", *options, "-c", f"{site.tree.source}/a.cc"]
    database = [{"directory": str(site.build), "file": words[-1], "arguments": words}]
    (site.build / "compile_commands.json").write_text(json.dumps(database))
    return site


def test_headers_are_copied_once_for_an_image_and_again_for_more_of_them(
    tmp_path: Path, ran: list[Job], capsys: pytest.CaptureFixture[str]
) -> None:
    editors.export(built(tmp_path, "-I/opt/a"))
    editors.export(built(tmp_path, "-I/opt/a"))
    assert [job.command[2:] for job in ran] == [["/opt/a"]]
    editors.export(built(tmp_path, "-I/opt/b"))
    assert ran[-1].command[2:] == ["/opt/a", "/opt/b"]
    site = built(tmp_path, "-I/opt/b")
    editors.export(replace(site, image="slipway-dev:another"))
    assert ran[-1].command[2:] == ["/opt/b"]
    assert len(ran) == 3
    assert not any(job.network for job in ran)
    said = capsys.readouterr().out
    assert f"clangd --compile-commands-dir={tmp_path}/out/ide/oar-cpu" in said
    assert (tmp_path / "out" / "ide" / "oar-cpu" / "compile_commands.json").is_file()


def test_headers_that_were_not_copied_are_an_error_and_not_remembered(
    tmp_path: Path, ran: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Docker, "run", lambda *_: 2)
    with pytest.raises(SlipwayError, match="were not copied: status 2"):
        editors.export(built(tmp_path))
    monkeypatch.undo()
    assert not (editors.headers_of(built(tmp_path)) / ".copied").exists()


def test_a_build_without_a_database_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match=r"no compile_commands\.json") as caught:
        editors.export(make_site(tmp_path, build={"system": "make"}))
    assert caught.value.code == BAD_DATA
    assert "built by make" in caught.value.cause


def test_in_place_the_build_s_own_will_do(tmp_path: Path, ran: list[Job]) -> None:
    site = make_site(tmp_path, host=True)
    site.build.mkdir(parents=True)
    (site.build / "compile_commands.json").write_text("[]")
    editors.export(site)
    assert ran == []
    assert not (tmp_path / "out" / "ide").exists()
