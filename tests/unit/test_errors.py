"""An error says what failed, the likely cause and the next command."""

from __future__ import annotations

import errno

import pytest
from invoke.exceptions import Exit

from slipway import errors, verb
from slipway.errors import CANNOT_CREATE, IO_ERROR, UNAVAILABLE, SlipwayError, nearest


def test_an_error_is_what_why_and_what_to_type_each_on_its_line() -> None:
    error = SlipwayError("it failed", cause="one\ntwo\n", fix=["do this", "or that"], code=66)
    assert isinstance(error, Exit)  # invoke prints the message and ends with the code
    assert error.code == 66
    assert error.message == ("error: it failed\n  one\n  two\n  try: do this\n  try: or that")


def test_an_error_may_be_one_line() -> None:
    error = SlipwayError("it failed")
    assert error.message == "error: it failed"
    assert error.code == UNAVAILABLE


def test_our_codes_are_between_64_and_78_and_differ() -> None:
    codes = {name: code for name, code in vars(errors).items() if name.isupper()}
    codes["SOFTWARE"] = getattr(errors, "SOFTWARE", 70)
    assert len(codes) >= 10
    assert all(64 <= code <= 78 for code in codes.values())
    assert len(set(codes.values())) == len(codes)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("noavc", "did you mean 'noavx'? known: cpu, noavx"),
        ("zzz", "known: cpu, noavx"),
        ("", "known: cpu, noavx"),
    ],
)
def test_the_nearest_name_is_offered_when_one_is_near(name: str, hint: str) -> None:
    assert nearest(name, ["noavx", "cpu"]) == hint


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.ENOSPC, IO_ERROR, "the disk is full: /w/out/x"),
        (errno.EACCES, CANNOT_CREATE, "/w/out/x"),
        (errno.EPERM, CANNOT_CREATE, "/w/out/x"),
        (errno.EROFS, CANNOT_CREATE, "/w/out/x"),
        (errno.EIO, IO_ERROR, "/w/out/x"),
    ],
)
def test_the_system_s_refusal_is_no_traceback(number: int, code: int, words: str) -> None:
    error = verb._of_system(OSError(number, "words", "/w/out/x"))  # noqa: SLF001
    assert error.code == code
    assert words in error.what


def test_a_refusal_without_a_file_still_reads_well() -> None:
    error = verb._of_system(OSError(errno.ENOSPC, "No space left on device"))  # noqa: SLF001
    assert "None" not in str(error.message)


@pytest.mark.parametrize(
    ("argv", "after"),
    [
        (["invoke", "run", "x.py"], []),
        (["invoke", "run", "x.py", "--"], []),
        (["invoke", "run", "x.py", "--", "--epochs", "3"], ["--epochs", "3"]),
        (["invoke", "run", "--", "a b", "", "--", "it's"], ["a b", "", "--", "it's"]),
    ],
)
def test_what_follows_the_dashes_arrives_word_for_word(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], after: list[str]
) -> None:
    monkeypatch.setattr("sys.argv", argv)
    assert verb.arguments_after_dashes() == after
