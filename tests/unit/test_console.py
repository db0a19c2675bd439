"""What a person reads."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import pytest

from slipway import console
from slipway.console import bold, dim, megabytes, moment, seconds, show_command, shown, table
from slipway.errors import USAGE, SlipwayError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.0 s"),
        (0.449, "0.4 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3605, "60 min 05 s"),
    ],
)
def test_a_duration_is_as_exact_as_it_matters(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 kB"),
        (99_400, "99 kB"),
        (1_000_000, "1.0 MB"),
        (166_120_000, "166.1 MB"),
        (2**30, "1073.7 MB"),
    ],
)
def test_a_size_is_in_powers_of_ten_as_docker_s(size: float, text: str) -> None:
    assert megabytes(size) == text


def test_a_moment_is_local_and_to_the_minute() -> None:
    stamp = time.mktime((2026, 11, 23, 9, 6, 59, 0, 0, -1))
    assert moment(stamp) == "2026-11-23 09:06"


def test_a_path_of_the_checkout_is_shown_relative_to_it() -> None:
    assert shown(Path("/w/out/x"), Path("/w")) == "out/x"
    assert shown(Path("/elsewhere/x"), Path("/w")) == "/elsewhere/x"
    assert shown(Path("/w2/x"), Path("/w")) == "/w2/x"


def test_a_command_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["docker", "run", "a b", "it's", "$HOME", ""]
    show_command(argv, {"DOCKER_BUILDKIT": "1", "A": "b c"})
    said = capsys.readouterr().out
    assert said.startswith("$ ")
    assert said.endswith("\n")
    assert shlex.split(said[2:]) == ["DOCKER_BUILDKIT=1", "A=b c", *argv]


def test_a_table_has_columns_as_wide_as_their_widest(capsys: pytest.CaptureFixture[str]) -> None:
    table([["STEP", "SIZE"], ["build", ""], ["a", "101 kB"]])
    assert capsys.readouterr().out == "STEP   SIZE\nbuild\na      101 kB\n"


def test_a_row_that_is_too_short_is_a_bug_and_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((ValueError, IndexError)):
        table([["A", "B"], ["a"]])
    assert capsys.readouterr().out == ""


def test_there_are_no_colours_but_on_a_terminal_that_wants_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert bold("x") == dim("x") == "x"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert bold("x") == "\033[1mx\033[0m"
    assert dim("x") == "\033[2mx\033[0m"
    monkeypatch.setenv("NO_COLOR", "")
    assert bold("x") == "x"


def test_what_is_said_is_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, object]] = []
    monkeypatch.setattr("builtins.print", lambda *_, **flags: calls.append(flags))
    console.say("x")
    assert calls == [{"flush": True}]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20GB", 20 * 10**9),
        ("500M", 500 * 10**6),
        ("1.5 g", 1_500_000_000),
        ("7", 7),
        ("1kb", 1000),
    ],
)
def test_a_size_is_read_as_docker_writes_it(text: str, size: int) -> None:
    assert console.parse_size(text, "") == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "20 XB", "1,5G"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SlipwayError) as caught:
        console.parse_size(text, "invoke clean --keep 20GB")
    assert caught.value.fix == ("invoke clean --keep 20GB",)
    assert caught.value.code == USAGE


def test_a_number_has_a_colour_of_its_own_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert console.coloured("x", 0) == "x"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert len({console.coloured("x", number) for number in range(6)}) == 6
    assert console.coloured("x", 1) == console.coloured("x", 7)
