"""A plan is shown, and carried out with leave only."""

from __future__ import annotations

import io

import pytest

from slipway import engine, plans
from slipway.errors import SlipwayError


def agree(*, leave: bool = False) -> None:
    plans.agree(
        "two steps:", ["one", "two"], leave=leave, again="invoke x", refused="no step taken"
    )


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What somebody at a terminal types."""
    typed = io.StringIO()
    monkeypatch.setattr(engine, "on_terminal", lambda: True)
    monkeypatch.setattr("sys.stdin", typed)
    return typed


def test_with_leave_the_plan_is_shown_and_nobody_asked(capsys: pytest.CaptureFixture[str]) -> None:
    agree(leave=True)
    assert capsys.readouterr().out == "two steps:\n  - one\n  - two\n"


def test_where_nobody_is_there_it_says_how_to_give_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "on_terminal", lambda: False)
    with pytest.raises(SlipwayError, match="nobody is here") as caught:
        agree()
    assert caught.value.fix == ("invoke x --yes",)


@pytest.mark.parametrize("answer", ["y\n", " Yes \n"])
def test_a_person_who_agrees(person: io.StringIO, answer: str) -> None:
    person.write(answer)
    person.seek(0)
    agree()


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "yess\n"])
def test_anything_else_is_a_no(person: io.StringIO, answer: str) -> None:
    person.write(answer)
    person.seek(0)
    with pytest.raises(SlipwayError, match="no step taken"):
        agree()
