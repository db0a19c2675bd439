"""What a push sends, which names move, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from slipway import (
    base,
    credentials,
    engine,
    images,
    manifest,
    processes,
    production,
    push,
    reading,
    registry,
)
from slipway.credentials import Credential
from slipway.errors import BAD_CONFIG, BAD_DATA, NO_INPUT, NO_PERMISSION, UNAVAILABLE, SlipwayError
from slipway.errors import USAGE as USAGE_CODE
from slipway.images import KEY, KIND
from slipway.manifest import Manifest, ReleasedImage
from slipway.push import Good, Load, Outcome
from slipway.registry import Client, Stored, target_of
from slipway.variants import TABLE
from tests.unit.fakes import VERSION, make_recipe, make_tree, make_workshop

OAR = Good("oar:1.2.0", "sha256:" + "a" * 64)
NOAVX = Good("oar:1.2.0-noavx", "sha256:" + "b" * 64)
BOOK = Good("oar-book:1.2.0", "sha256:" + "c" * 64)
GOODS = (OAR, NOAVX, BOOK)
LOAD = Load("oar 1.2.0", GOODS, "1.2.0")


class Fake(Client):
    """A registry that is a dictionary: alias to the id of the image there."""

    def __init__(self, name: str, has: Mapping[str, str], trouble: SlipwayError | None) -> None:
        self.target = target_of(name)
        self.has, self.trouble = dict(has), trouble
        self.moved: list[str] = []

    def check(self, name: str) -> None:  # noqa: ARG002
        if self.trouble:
            raise self.trouble

    def stored(self, alias: str) -> Stored | None:
        return stored_of(self.has[alias]) if alias in self.has else None

    def digest(self, alias: str) -> str:
        return stored_of(self.has[alias]).digest if alias in self.has else ""

    def tags(self, name: str) -> list[str]:
        return [alias.partition(":")[2] for alias in self.has if alias.startswith(f"{name}:")]

    def put(self, alias: str, stored: Stored) -> None:
        self.moved.append(alias)
        self.has[alias] = stored.config


def stored_of(image_id: str) -> Stored:
    return Stored(f"sha256:manifest-of-{image_id[-4:]}", "m", b"", image_id)


def place(
    name: str = "main:5000",
    has: Mapping[str, str] | None = None,
    trouble: SlipwayError | None = None,
) -> Fake:
    return Fake(name, has or {}, trouble)


def everything() -> dict[str, str]:
    return {good.alias: good.id for good in GOODS}


DOWN = SlipwayError("mirror:5000 does not answer", cause="Connection refused", fix=["curl x"])


# -- names that move


def moved(version: str, tags: Sequence[str], goods: Sequence[Good] = (OAR,)) -> list[str]:
    return [move.alias for move in push.moves_of(Load("", tuple(goods), version), tags)]


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        ([], ["oar:1.2", "oar:latest"]),
        (["1.1.9", "1.2.0", "1.2", "latest"], ["oar:1.2", "oar:latest"]),
        (["1.3.0"], ["oar:1.2"]),
        (["1.3.0-noavx", "1.10.0"], ["oar:1.2"]),
        (["1.2.1"], []),
        (["1.3.0rc1", "2.0.0.dev3-g1a2b3c4", "nightly"], ["oar:1.2", "oar:latest"]),
        (["1.2.0.post1"], []),
    ],
)
def test_names_move_to_the_highest_version_only(tags: list[str], names: list[str]) -> None:
    assert moved("1.2.0", tags) == names


@pytest.mark.parametrize("version", ["", "1.2.0rc1", "1.2.1.dev5+g1a2b3c4", "1.2.1.dev0+g1.dirty"])
def test_names_never_move_to_what_is_no_final_version(version: str) -> None:
    assert moved(version, []) == []
    assert not push.is_final(version)


def test_each_variant_and_the_book_have_names_of_their_own() -> None:
    assert moved("1.2.0", [], GOODS) == [
        *("oar:1.2", "oar:1.2-noavx", "oar-book:1.2"),
        *("oar:latest", "oar:latest-noavx", "oar-book:latest"),
    ]


def test_a_version_of_two_numbers_is_no_series() -> None:
    assert moved("1.2", [], [Good("oar:1.2-gpu", "x")]) == ["oar:latest-gpu"]


# -- looking


def test_what_is_there_by_its_content_is_not_missing() -> None:
    outcome = push.look(LOAD, place(has={OAR.alias: OAR.id}))
    assert outcome.missing(GOODS) == [NOAVX, BOOK]
    assert outcome.cells == {OAR.alias: push.THERE}
    assert not outcome.is_done(GOODS)


def test_a_released_version_of_other_content_is_refused() -> None:
    outcome = push.look(LOAD, place(has={NOAVX.alias: "sha256:other"}))
    assert outcome.trouble
    assert (
        outcome.trouble.what == "main:5000/oar:1.2.0-noavx is there already, and is another image"
    )
    assert outcome.trouble.code == BAD_DATA
    assert not outcome.is_done(GOODS)


def test_a_development_version_of_other_content_is_sent_again() -> None:
    good = Good("oar:1.2.1.dev5-g1a2b3c4", "sha256:new")
    load = Load("oar", (good,), "1.2.1.dev5+g1a2b3c4")
    outcome = push.look(load, place(has={good.alias: "sha256:old"}))
    assert outcome.trouble is None
    assert outcome.missing(load.goods) == [good]


def test_the_plan_says_for_each_registry_what_is_sent_and_what_moves() -> None:
    outcomes = [
        push.look(LOAD, place(has={OAR.alias: OAR.id})),
        push.look(LOAD, place("mirror:5000", trouble=DOWN)),
    ]
    names = "oar:1.2, oar:1.2-noavx, oar-book:1.2, oar:latest, oar:latest-noavx, oar-book:latest"
    assert push.plan_of(LOAD, outcomes) == [
        "main:5000: send oar:1.2.0-noavx, oar-book:1.2.0; 1 of 3 are there already",
        "mirror:5000: nothing, since mirror:5000 does not answer",
        f"then, if all of it is everywhere: {names}",
    ]


def test_where_no_registry_takes_anything_it_ends_before_a_person_is_asked() -> None:
    refusing = SlipwayError("main:5000 refuses the credentials", cause="HTTP 401", code=77)
    outcomes = [
        push.look(LOAD, place(trouble=refusing)),
        push.look(LOAD, place("mirror:5000", trouble=DOWN)),
    ]
    with pytest.raises(SlipwayError, match="was not pushed: main:5000 refuses") as caught:
        push.refuse_hopeless(LOAD, outcomes)
    assert caught.value.cause == "HTTP 401\nmirror:5000 does not answer: Connection refused"
    assert caught.value.code == NO_PERMISSION
    push.refuse_hopeless(LOAD, [*outcomes, push.look(LOAD, place())])


def test_ctrl_c_is_no_registry_s_failure() -> None:
    with pytest.raises(processes.Interrupted):
        push.look(LOAD, place(trouble=processes.Interrupted(2)))


def test_a_release_without_images_is_not_pushed() -> None:
    empty = replace(make_manifest("v1.2.0", "1.2.0"), images=())
    with pytest.raises(SlipwayError, match="has no images"):
        push.from_manifest(empty)


# -- the end


def finished(outcome: Outcome) -> Outcome:
    for good in outcome.missing(GOODS):
        outcome.there[good.alias], outcome.cells[good.alias] = stored_of(good.id), push.SENT
    return outcome


def test_names_move_once_everything_is_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    places = [place(has={"oar:1.3.0": "x"}), place("mirror:5000", has=everything())]
    outcomes = [finished(push.look(LOAD, client)) for client in places]
    push.conclude(LOAD, outcomes)
    assert places[0].moved == ["oar:1.2", "oar:1.2-noavx", "oar-book:1.2"]
    assert places[1].moved == [
        *places[0].moved,
        "oar:latest",
        "oar:latest-noavx",
        "oar-book:latest",
    ]
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    table = {row[0].strip(): [cell.strip() for cell in row[1:] if cell] for row in rows}
    assert table["IMAGE"] == ["main:5000", "mirror:5000"]
    assert table["oar:1.2.0"] == ["pushed", "there already"]
    assert table["oar:1.2"] == ["moved", "moved"]
    assert table["oar:latest"] == ["stays", "moved"]


def test_a_second_push_finds_nothing_to_do() -> None:
    client = place()
    push.conclude(LOAD, [finished(push.look(LOAD, client))])
    client.has |= everything()
    assert push.is_unchanged(LOAD, [push.look(LOAD, client)])
    client.has["oar:latest"] = "sha256:older"
    assert not push.is_unchanged(LOAD, [push.look(LOAD, client)])


def test_no_name_moves_while_one_registry_lacks_something(
    capsys: pytest.CaptureFixture[str],
) -> None:
    good, bad = place(), place("mirror:5000", trouble=DOWN)
    outcomes = [finished(push.look(LOAD, good)), push.look(LOAD, bad)]
    with pytest.raises(SlipwayError, match=r"oar 1\.2\.0 is not everywhere") as caught:
        push.conclude(LOAD, outcomes)
    assert good.moved == bad.moved == []
    assert caught.value.code == UNAVAILABLE
    assert "mirror:5000 does not answer: Connection refused" in caught.value.cause
    assert "failed: mirror:5000 does not answer" in capsys.readouterr().out


# -- docker's words

REFUSED = "denied: requested access to the resource is denied\n"
HTTP = "Get https://lab:5000/v2/: http: server gave HTTP response to HTTPS client\n"
FULL = "3b0c: Pushing\nreceived unexpected HTTP status: 500 Internal Server Error\n"


@pytest.mark.parametrize(
    ("said", "what", "cause", "code"),
    [
        (REFUSED, "does not let you write", "denied", NO_PERMISSION),
        ("no basic auth credentials", "does not let you write", "no basic", NO_PERMISSION),
        (HTTP, "speaks HTTP", "HTTPS client", BAD_CONFIG),
        (FULL, "was not taken", "its disk may be full", UNAVAILABLE),
        ("dial tcp: connection reset", "was not taken", "connection reset", UNAVAILABLE),
    ],
)
def test_what_docker_says_is_explained(said: str, what: str, cause: str, code: int) -> None:
    error = push.explain(said, "lab:5000/oar:1", "lab:5000")
    assert what in error.what
    assert cause in error.cause
    assert error.code == code
    assert error.fix


def test_the_digest_is_read_from_what_docker_says_last() -> None:
    digest = "sha256:" + "0" * 64
    assert push.digest_in(f"a: Pushed\n1.2.0: digest: {digest} size: 1994\n") == digest
    assert push.digest_in("a: Pushed\n") == ""


# -- what is sent


@pytest.mark.parametrize(
    "flags",
    [
        {"tag": "v1", "dev": True},
        {"folder": "tides", "dev": True},
        {"tag": "v1", "folder": "tides"},
        {"user": "ann"},
        {"password_stdin": True},
        {"user": "ann", "password_stdin": True},
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags: dict[str, Any]) -> None:
    none = {
        "tag": "",
        "folder": "",
        "dev": False,
        "user": "",
        "password_stdin": False,
        "yes": False,
    }
    with pytest.raises(SlipwayError) as caught:
        push.check_flags(**{**none, **flags})
    assert caught.value.code == USAGE_CODE


def test_a_password_with_leave_is_fine() -> None:
    push.check_flags(tag="", folder="", dev=False, user="ann", password_stdin=True, yes=True)


def test_without_a_registry_there_is_nowhere_to_push_to(tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match="no registry to push to") as caught:
        push.push(make_workshop(tmp_path), "", "", "")
    assert caught.value.code == BAD_CONFIG


def make_manifest(tag: str, version: str, *, is_rehearsal: bool = False) -> Manifest:
    return Manifest(
        project="oar",
        version=version,
        tag=tag,
        commit="1a2b3c4d" * 5,
        epoch=0,
        is_rehearsal=is_rehearsal,
        made_at=0,
        variants=("cpu",),
        files=(),
        images=tuple(ReleasedImage(g.alias, "prod", "cpu", g.id, 1, ()) for g in GOODS),
        tests=(),
        isa=(),
        steps=(),
        tools={},
        base="",
    )


def test_a_release_is_found_by_its_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop = make_workshop(tmp_path)
    make_tree(tmp_path / "oar")
    monkeypatch.setattr(push, "find", lambda *_: tmp_path)
    monkeypatch.setattr(push, "read_project", lambda _: make_tree(tmp_path / "oar").project)
    for tag, version in (("v1.1.0", "1.1.0"), ("v1.2.0", "1.2.0"), ("", "1.3.0.dev1+g1")):
        directory = workshop.dist / f"oar-{version}"
        directory.mkdir(parents=True)
        manifest.write(directory, make_manifest(tag, version, is_rehearsal=not tag))
    assert push.release_of(workshop, "", "v1.2.0").version == "1.2.0"
    for tag in ("v1.2.1", ""):
        with pytest.raises(SlipwayError, match="no release of oar in dist/") as caught:
            push.release_of(workshop, "", tag)
        assert caught.value.code == NO_INPUT
        assert "v1.1.0, v1.2.0" in caught.value.cause


def test_a_rehearsal_is_sent_nowhere(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path, registry="main:5000")
    with pytest.raises(SlipwayError, match="is a rehearsal"):
        push.push_release(workshop, make_manifest("", "1.2.0", is_rehearsal=True))


def receipt(file: Path, alias: str, tag: str) -> None:
    file.parent.mkdir(parents=True)
    facts = {"tag": tag, "alias": alias}
    file.write_text(json.dumps({"inputs": "", "made_at": 0, "facts": facts}))


def test_what_receipts_know_of_this_very_version_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop, tree = make_workshop(tmp_path), make_tree(tmp_path / "oar")
    monkeypatch.setattr(push, "resolve", lambda *_: tree)
    prod = workshop.out / "oar"
    receipt(prod / "cpu" / "receipts" / "prod.json", f"oar:{VERSION.tag}", "slipway-c-oar:1")
    receipt(prod / "noavx" / "receipts" / "prod.json", "oar:1.1.0-noavx", "slipway-c-oar:0")
    receipt(reading.receipt_of(workshop, "oar"), f"oar-book:{VERSION.tag}", "slipway-c-book:1")
    here = {"slipway-c-oar:0", "slipway-c-oar:1", "slipway-c-book:1"}
    monkeypatch.setattr(
        engine, "inspect_images", lambda *tags: {t: {"Id": f"id {t}"} for t in tags if t in here}
    )
    load = push.made_here(workshop, "", "")
    assert load.version == VERSION.pep440
    assert load.goods == (
        Good("oar:1.2.0", "id slipway-c-oar:1"),
        Good("oar-book:1.2.0", "id slipway-c-book:1"),
    )
    here.clear()
    with pytest.raises(SlipwayError, match=r"no image of oar 1\.2\.0 was made here") as caught:
        push.made_here(workshop, "", "")
    assert caught.value.code == NO_INPUT


def test_a_release_whose_images_are_gone_is_not_pushed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "inspect_images", lambda *_: {OAR.id: {}})
    with pytest.raises(SlipwayError, match=r"not every image of oar 1\.2\.0 is here") as caught:
        push.check_ids(LOAD)
    assert caught.value.cause == f"{NOAVX.alias} was {NOAVX.id}\n{BOOK.alias} was {BOOK.id}"


# -- pulling a production image


@pytest.mark.parametrize(
    ("wanted", "mode", "alias"),
    [("noavx", "auto", "oar:1.2.0-noavx"), ("", "auto", "oar:1.2.0"), ("", "on", "oar:1.2.0-gpu")],
)
def test_a_production_image_that_was_not_made_here_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, mode: str, alias: str
) -> None:
    workshop = make_workshop(tmp_path, registry="main:5000")
    tree = make_tree(tmp_path / "oar", variants=TABLE)
    best = lambda rows, names, has_gpu: (names[0], "")  # noqa: ARG005, E731
    monkeypatch.setattr(production, "best_for_host", best)
    monkeypatch.setattr(base, "found_or_pulled", lambda _, sources: (sources[0], []))
    found = production.fetched(workshop, tree, wanted, mode)
    assert list(found.values()) == [f"main:5000/{alias}"]


def test_without_a_registry_no_production_image_is_looked_for(tmp_path: Path) -> None:
    workshop, tree = make_workshop(tmp_path), make_tree(tmp_path / "oar")
    assert production.fetched(workshop, tree, "cpu", "auto") == {}


# -- pulling the dev image by its hash


@pytest.fixture
def pulls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was pulled; there is no engine."""
    found: list[str] = []

    def pull(reference: str, wait_s: float, *, dry: bool) -> str:
        found.append(reference)
        return ""

    monkeypatch.setattr(base, "pull", pull)
    monkeypatch.setattr(engine, "info", dict)
    monkeypatch.setattr(images, "adopt", lambda *_: "")
    return found


def answers(monkeypatch: pytest.MonkeyPatch, places: Mapping[str, str | SlipwayError]) -> None:
    """What each registry answers when it is asked for a digest."""

    def digest(client: Client, _alias: str) -> str:
        said = places[str(client.target)]
        if isinstance(said, SlipwayError):
            raise said
        return said

    monkeypatch.setattr(Client, "digest", digest)


def test_with_no_registry_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "clients", lambda *_: pytest.fail("asked"))
    assert not images.pull_by_hash(make_workshop(tmp_path), make_recipe(tmp_path))


def test_the_dev_image_comes_from_the_first_that_has_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pulls: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ["main:5000", "one:5000", "two:5000/team", "three:5000"]
    workshop = make_workshop(tmp_path, registry=names[0], registry_mirrors=names[1:])
    down = SlipwayError("main:5000 does not answer")
    last = {"two:5000/team": "sha256:1", "three:5000": "x"}
    answers(monkeypatch, {"main:5000": down, "one:5000": "", **last})
    recipe = make_recipe(tmp_path)
    assert images.pull_by_hash(workshop, recipe)
    assert pulls == [f"two:5000/team/{recipe.tag}"]
    assert capsys.readouterr().out.splitlines() == [
        f"no main:5000/{recipe.tag}: main:5000 does not answer",
        f"no one:5000/{recipe.tag}: it is not there",
    ]


def test_where_nobody_has_it_nothing_is_pulled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pulls: list[str]
) -> None:
    answers(monkeypatch, {"main:5000": ""})
    workshop = make_workshop(tmp_path, registry="main:5000")
    assert not images.pull_by_hash(workshop, make_recipe(tmp_path))
    assert pulls == []


@pytest.mark.parametrize("labels", [None, {}, {KIND: "dev", KEY: "000000000000"}, {KIND: "prod"}])
def test_a_pulled_image_without_the_label_of_its_hash_is_refused_and_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: dict[str, str] | None
) -> None:
    removed: list[str] = []
    source = "main:5000/slipway-dev:1"
    seen = {source: {"Config": {"Labels": labels}}}
    monkeypatch.setattr(images, "inspect_images", lambda *_: seen)
    monkeypatch.setattr(images, "remove", removed.append)
    why = images.adopt(make_workshop(tmp_path), make_recipe(tmp_path), source)
    assert why.startswith("refused: its labels say ")
    assert removed == [source]


def test_our_images_are_looked_for_in_the_registry_then_in_its_mirrors(tmp_path: Path) -> None:
    named = {"registry": "main:5000/team/", "registry_mirrors": ["one:5000", "main:5000/team"]}
    workshop = make_workshop(tmp_path, **named)
    assert base.our_places(workshop, "oar:1") == ["main:5000/team/oar:1", "one:5000/oar:1"]
    assert base.candidates(workshop) == [
        "debian:trixie-slim",
        "main:5000/team/slipway-base:debian-trixie-slim",
        "one:5000/slipway-base:debian-trixie-slim",
        "slipway-base:debian-trixie-slim",
    ]


def test_a_given_password_is_for_its_host_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"main:5000": Credential("ann", "x")}
    monkeypatch.setattr(credentials, "find", lambda host: Credential(f"Docker's for {host}"))
    find = registry._credential  # noqa: SLF001
    assert find(given, "main:5000") == given["main:5000"]
    assert find(given, "one:5000") == Credential("Docker's for one:5000")
