"""Serving the book: which container, which port, for whom, and when a browser opens."""

from __future__ import annotations

import errno
import json
import runpy
import socket
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from slipway import base, engine, reading
from slipway.engine import Caller, run_arguments
from slipway.errors import CANNOT_CREATE, UNAVAILABLE, SlipwayError
from slipway.housekeeping import READ
from slipway.reading import Reading
from slipway.settings import ROOT
from tests.unit.fakes import VERSION, make_tree, make_workshop

FOUND = Reading("slipway-c-read-oar", 8889, "t0ken", Path("/home/ann/book"), False, "sha256:1")
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "read-book"))


def arguments(tmp_path: Path, *, lan: bool = False) -> list[str]:
    workshop = make_workshop(tmp_path)
    return run_arguments(
        reading.job_of(workshop, "oar", Path("/home/ann/book"), port=8890, lan=lan),
        "slipway-book:1",
        checkout="c",
        root=tmp_path,
        user=Caller(1000, 1000, "ann"),
        identity=tmp_path,
        terminal=False,
    )


# -- the container


def test_the_container_stays_is_found_again_and_belongs_to_the_reader(tmp_path: Path) -> None:
    argv = arguments(tmp_path)
    assert argv[:6] == ["run", "--detach", "--restart", "no", "--init", "--name"]
    assert argv[6] == "slipway-c-read-oar"
    assert "--rm" not in argv  # its last words would go with it
    for words in (
        ("--label", "slipway.checkout=c"),
        ("--label", "slipway.read=oar"),
        ("--label", "slipway.work=/home/ann/book"),
        ("--user", "1000:1000"),
        ("--mount", "type=bind,source=/home/ann/book,target=/work"),
        ("--env", "SLIPWAY_PORT=8890"),
        ("--workdir", "/work"),
    ):
        assert words in list(pairwise(argv)), words
    assert argv[-2:] == ["slipway-book:1", "read-book"]


def test_the_book_is_for_this_machine_alone_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert "127.0.0.1:8890:8888" in arguments(tmp_path)
    assert "0.0.0.0:8890:8888" in arguments(tmp_path, lan=True)
    assert sum("8890:8888" in word for word in arguments(tmp_path, lan=True)) == 1


def inspected(*, running: bool = True, host: str = "127.0.0.1") -> dict[str, Any]:
    return {
        "Name": "/slipway-c-read-oar",
        "Image": "sha256:1",
        "State": {"Running": running, "ExitCode": 0},
        "Config": {
            "Env": ["PATH=/bin", "JUPYTER_TOKEN=a=b"],
            "Labels": {"slipway.read": "oar", "slipway.work": "/home/ann/book"},
        },
        "NetworkSettings": {"Ports": {"8888/tcp": [{"HostIp": host, "HostPort": "8889"}]}},
    }


def test_what_runs_is_read_off_the_container() -> None:
    expected = Reading("slipway-c-read-oar", 8889, "a=b", Path("/home/ann/book"), False, "sha256:1")
    assert reading.described(inspected()) == expected


def test_who_is_let_in_from_the_network_is_read_off_too() -> None:
    found = reading.described(inspected(host="0.0.0.0"))  # noqa: S104
    assert found
    assert found.lan


def test_a_container_that_has_ended_serves_nothing() -> None:
    assert reading.described(inspected(running=False)) is None


# -- a second call


def test_a_second_call_that_asks_for_nothing_else_is_answered() -> None:
    reading.refuse_other(FOUND, None, lan=False)
    reading.refuse_other(FOUND, FOUND.work, lan=False)


@pytest.mark.parametrize(
    ("folder", "lan", "words"),
    [
        (None, True, ["to this machine alone", "invoke read --lan"]),
        (Path("/a b"), False, ["work folder /home/ann/book", "invoke read --work '/a b'"]),
    ],
)
def test_a_second_call_that_asks_for_something_else_is_told(
    folder: Path | None, lan: bool, words: list[str]
) -> None:
    with pytest.raises(SlipwayError) as caught:
        reading.refuse_other(FOUND, folder, lan=lan)
    assert caught.value.code == CANNOT_CREATE
    assert caught.value.fix[0] == "invoke read --stop"
    said = str(caught.value.args) + caught.value.what + " ".join(caught.value.fix)
    assert [word for word in words if word not in said] == []


# -- addresses and ports


def test_the_url_logs_in_whatever_the_token_holds() -> None:
    url = reading.address("127.0.0.1", 8889, "a&b/c")
    assert url == "http://127.0.0.1:8889/lab/tree/index.ipynb?token=a%26b%2Fc"


def test_the_image_s_own_url_is_the_same() -> None:
    assert SCRIPT["address"]("8889", "a&b") == reading.address("127.0.0.1", 8889, "a&b")
    assert SCRIPT["FIRST"] == reading.FIRST
    assert SCRIPT["CANNOT_CREATE"] == CANNOT_CREATE


@pytest.mark.parametrize(
    "said",
    [
        "docker: driver failed: Bind for 127.0.0.1:8888 failed: port is already allocated.",
        "Error starting userland proxy: listen tcp4 127.0.0.1:8888: bind: address already in use.",
    ],
)
def test_docker_s_words_for_a_port_that_is_taken_are_known(said: str) -> None:
    assert reading.is_taken(said)


def test_docker_s_other_words_are_not_about_a_port() -> None:
    assert not reading.is_taken("docker: Error response from daemon: No such image: x")


@pytest.mark.parametrize(
    ("number", "free"), [(errno.EADDRINUSE, False), (errno.EACCES, True), (0, True)]
)
def test_a_port_that_only_root_may_open_is_docker_s_to_open(
    monkeypatch: pytest.MonkeyPatch, number: int, free: bool
) -> None:
    asked = []

    class Attempt(socket.socket):
        def bind(self, address: Any) -> None:
            asked.append(address)
            if number:
                raise OSError(number, "no")

    monkeypatch.setattr("slipway.reading.socket.socket", Attempt)
    assert reading.is_free(80, lan=False) is free
    assert reading.is_free(80, lan=True) is free
    assert asked == [("127.0.0.1", 80), ("0.0.0.0", 80)]  # noqa: S104


def test_the_first_free_port_is_taken_and_one_lost_meanwhile_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[str] = []
    removed: list[str] = []

    def start(_: object, job: engine.Job, image: str) -> str:
        started.append(job.ports[0])
        assert len(job.hidden[reading.TOKEN]) >= 32
        return "port is already allocated" if job.ports[0].startswith("9001") else ""

    monkeypatch.setattr(engine.Docker, "start", start)
    monkeypatch.setattr(engine, "remove_container", removed.append)
    monkeypatch.setattr(reading, "is_free", lambda port, **_: port > 9000)
    workshop = make_workshop(tmp_path, book_port=8999)
    found = reading.start(workshop, "oar", "image", tmp_path, lan=False)
    assert found
    assert (found.port, started) == (9002, ["9001:8888", "9002:8888"])
    assert removed == [found.name]  # docker keeps what it could not start
    assert "port 8999 is taken: this is 9002" in capsys.readouterr().out


@pytest.mark.parametrize("first", [8888, 65530])
def test_where_no_port_is_free_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    tried: list[int] = []

    def is_free(port: int, **_: bool) -> bool:
        tried.append(port)
        return False

    monkeypatch.setattr(reading, "is_free", is_free)
    with pytest.raises(SlipwayError, match=f"no port from {first} on is free"):
        reading.start(make_workshop(tmp_path, book_port=first), "oar", "i", tmp_path, lan=False)
    assert tried == list(range(first, min(first + 100, 65536)))


def test_docker_s_own_trouble_is_told_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.Docker, "start", lambda *_: "No space left on device")
    monkeypatch.setattr(engine, "remove_container", lambda _: None)
    monkeypatch.setattr(reading, "is_free", lambda *_, **__: True)
    with pytest.raises(SlipwayError, match="start the book"):
        reading.start(make_workshop(tmp_path), "oar", "i", tmp_path, lan=False)


# -- a browser


@pytest.mark.parametrize(
    ("environ", "platform", "terminal", "expected"),
    [
        ({"DISPLAY": ":0"}, "linux", True, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True, True),
        ({}, "linux", True, False),
        ({"DISPLAY": ":0"}, "linux", False, False),
        ({"DISPLAY": ":10", "SSH_CONNECTION": "1 2 3 4"}, "linux", True, False),
        ({}, "darwin", True, True),
        ({"SSH_CONNECTION": "1 2 3 4"}, "darwin", True, False),
        ({}, "win32", True, True),
    ],
)
def test_a_browser_opens_where_a_person_sees_it(
    environ: dict[str, str], platform: str, terminal: bool, expected: bool
) -> None:
    assert reading.opens(environ, platform, terminal=terminal) is expected


# -- the reader's folder


def test_notebooks_go_to_a_named_place_that_clean_keeps(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    folder = reading.work_folder(workshop, "oar", "")
    assert folder == workshop.out / READ / "oar"
    assert folder.is_dir()


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    folder = reading.work_folder(make_workshop(tmp_path), "oar", str(tmp_path / "a" / "b"))
    assert folder.is_dir()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for wanted, words in (("file", "it is a file"), ("file/in", "is a file")):
        with pytest.raises(SlipwayError) as caught:
            reading.work_folder(make_workshop(tmp_path), "oar", str(tmp_path / wanted))
        assert words in caught.value.what
        assert caught.value.code == CANNOT_CREATE


# -- the image


def receipt(root: Path, tag: str) -> None:
    file = reading.receipt_of(make_workshop(root), "oar")
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"inputs": "", "made_at": 0, "facts": {"tag": tag}}))


@pytest.mark.parametrize(
    ("here", "expected"),
    [
        (["slipway-c-oar-book:1", "oar-book:1.2.0"], "slipway-c-oar-book:1"),
        (["oar-book:1.2.0", "mirror:5000/library/oar-book:1.2.0"], "oar-book:1.2.0"),
        (["mirror:5000/library/oar-book:1.2.0"], "mirror:5000/library/oar-book:1.2.0"),
    ],
)
def test_the_image_made_here_comes_first_then_one_of_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: list[str], expected: str
) -> None:
    receipt(tmp_path, "slipway-c-oar-book:1")
    for module in (engine, base):
        monkeypatch.setattr(
            module,
            "inspect_images",
            lambda *tags: {tag: {"Id": tag} for tag in tags if tag in here},
        )
    monkeypatch.setattr(reading, "resolve", lambda *_: make_tree(tmp_path / "oar"))
    workshop = make_workshop(tmp_path, mirrors={"registry": "mirror:5000"})
    assert reading.choose_image(workshop, "", "oar") == expected


def test_an_image_that_is_not_here_is_pulled_from_its_registry_then_the_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for module in (engine, base):
        monkeypatch.setattr(module, "inspect_images", lambda *_: {})
    monkeypatch.setattr(reading, "resolve", lambda *_: make_tree(tmp_path / "oar"))

    def pull(reference: str, wait_s: float, *, dry: bool) -> str:
        asked.append(reference)
        return "no such host" if len(asked) == 1 else ""

    monkeypatch.setattr(base, "pull", pull)
    workshop = make_workshop(tmp_path, mirrors={"registry": "mirror:5000/"})
    mirrored = f"mirror:5000/library/oar-book:{VERSION.tag}"
    assert reading.choose_image(workshop, "", "oar") == mirrored
    assert asked == [f"oar-book:{VERSION.tag}", mirrored]


def test_the_registry_of_the_settings_is_asked_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for module in (engine, base):
        monkeypatch.setattr(module, "inspect_images", lambda *_: {})
    monkeypatch.setattr(reading, "resolve", lambda *_: make_tree(tmp_path / "oar"))

    def pull(reference: str, *_: object, **__: object) -> str:
        asked.append(reference)
        return "not there"

    monkeypatch.setattr(base, "pull", pull)
    workshop = make_workshop(tmp_path, registry="main:5000/team", registry_mirrors=["one:5000"])
    with pytest.raises(SlipwayError):
        reading.choose_image(workshop, "", "oar")
    book = f"oar-book:{VERSION.tag}"
    assert asked == [f"main:5000/team/{book}", f"one:5000/{book}", book]


def test_where_there_is_no_image_it_is_said_what_makes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (engine, base):
        monkeypatch.setattr(module, "inspect_images", lambda *_: {})
    monkeypatch.setattr(reading, "resolve", lambda *_: make_tree(tmp_path / "oar"))
    monkeypatch.setattr(base, "pull", lambda *_, **__: "no such host")
    with pytest.raises(SlipwayError, match="there is no image of the book") as caught:
        reading.choose_image(make_workshop(tmp_path), "", "oar")
    assert caught.value.fix == ("invoke book",)
    assert caught.value.code == UNAVAILABLE
    assert "no such host" in caught.value.cause


# -- inside the image


def test_chapters_are_brought_and_what_the_reader_has_stays(tmp_path: Path) -> None:
    chapters, work = tmp_path / "chapters", tmp_path / "work"
    for name in ("index.ipynb", "01.line/index.ipynb", "01.line/data/x.csv"):
        (chapters / name).parent.mkdir(parents=True, exist_ok=True)
        (chapters / name).write_text(f"the book's {name}")
        (chapters / name).chmod(0o444)
    (work / "01.line").mkdir(parents=True)
    (work / "01.line" / "index.ipynb").write_text("mine")
    SCRIPT["bring"](chapters, work)
    assert (work / "01.line" / "index.ipynb").read_text() == "mine"
    assert (work / "index.ipynb").read_text() == "the book's index.ipynb"
    assert (work / "01.line" / "data" / "x.csv").stat().st_mode & 0o200  # the reader may write
    before = sorted(work.rglob("*"))
    SCRIPT["bring"](chapters, work)
    assert sorted(work.rglob("*")) == before


def test_a_newer_book_takes_the_place_of_what_nobody_has_changed(tmp_path: Path) -> None:
    chapters, work = tmp_path / "chapters", tmp_path / "work"
    chapters.mkdir()
    work.mkdir()
    for name in ("kept", "changed", "removed"):
        (chapters / name).write_text("first")
    SCRIPT["bring"](chapters, work)
    (work / "changed").write_text("mine")
    (work / "removed").unlink()
    for name in ("kept", "changed", "removed"):
        (chapters / name).write_text("second")
    SCRIPT["bring"](chapters, work)
    assert (work / "kept").read_text() == "second"
    assert (work / "changed").read_text() == "mine"
    assert (work / "removed").read_text() == "second"
    (chapters / "kept").write_text("third")
    SCRIPT["bring"](chapters, work)  # what was brought again is known again
    assert (work / "kept").read_text() == "third"


def test_a_record_that_is_broken_makes_everything_the_reader_s(tmp_path: Path) -> None:
    chapters, work = tmp_path / "chapters", tmp_path / "work"
    for directory, text in ((chapters, "second"), (work, "first")):
        directory.mkdir()
        (directory / "file").write_text(text)
    (work / SCRIPT["BROUGHT"]).write_text("[1, 2")
    SCRIPT["bring"](chapters, work)
    assert (work / "file").read_text() == "first"


def test_jupyterlab_fetches_nothing_and_asks_nothing() -> None:
    chosen = SCRIPT["options"](Path("/work"), Path("/settings"), 8888)
    lab = chosen["LabApp"]
    assert lab["news_url"] is None
    assert lab["check_for_updates_class"] == "jupyterlab.NeverCheckForUpdate"
    assert lab["extension_manager"] == "readonly"
    folder = ROOT / "scripts" / "jupyter"
    notes = json.loads((folder / "overrides.json").read_text())
    notification = notes["@jupyterlab/apputils-extension:notification"]
    assert notification == {"checkForUpdates": False, "fetchNews": "false"}
    off = json.loads((folder / "page_config.json").read_text())["disabledExtensions"]
    assert off["@jupyterlab/apputils-extension:announcements"]
    assert off["@jupyterlab/extensionmanager-extension"]


# -- waiting and telling


def states(monkeypatch: pytest.MonkeyPatch, *, answers: list[bool], running: bool = True) -> None:
    """The server answers as the list says; its container says two words."""
    monkeypatch.setattr(reading, "answers", lambda *_: answers.pop(0) if answers else False)
    state = {"State": {"Running": running, "ExitCode": 0 if running else 78}}
    monkeypatch.setattr(engine, "inspect_container", lambda _: state)
    monkeypatch.setattr(reading, "last_words", lambda _: "last words")
    monkeypatch.setattr("slipway.reading.time.sleep", lambda _: None)


def test_a_book_that_takes_its_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [False, False, True]
    states(monkeypatch, answers=answers)
    reading.wait(FOUND)
    assert answers == []


def test_a_book_that_dies_is_told_in_its_own_words_with_its_own_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states(monkeypatch, answers=[], running=False)
    with pytest.raises(SlipwayError, match="ended at its start, with status 78") as caught:
        reading.wait(FOUND)
    assert (caught.value.cause, caught.value.code) == ("last words", 78)


def test_a_book_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    states(monkeypatch, answers=[])
    monkeypatch.setattr(reading, "PATIENCE_S", 0)
    with pytest.raises(SlipwayError, match="has not answered at port 8889") as caught:
        reading.wait(FOUND)
    assert (caught.value.cause, caught.value.code) == ("last words", UNAVAILABLE)


@pytest.mark.parametrize("no_open", [False, True])
def test_the_browser_gets_the_url_that_is_printed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    no_open: bool,
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(reading, "opens", lambda *_, **__: True)
    monkeypatch.setattr("webbrowser.open", opened.append)
    reading.tell(make_workshop(tmp_path), FOUND, no_open=no_open)
    said = capsys.readouterr().out
    url = "http://127.0.0.1:8889/lab/tree/index.ipynb?token=t0ken"
    assert f"reading at {url}\n" in said
    assert "from the network" not in said
    assert opened == ([] if no_open else [url])


@pytest.mark.parametrize(
    ("made", "older"), [({}, False), ({"Id": "sha256:1"}, False), ({"Id": "sha256:2"}, True)]
)
def test_a_book_made_since_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: dict[str, str], older: bool
) -> None:
    receipt(tmp_path, "tag")
    monkeypatch.setattr(engine, "inspect_images", lambda _: {"tag": made} if made else {})
    assert reading.is_older(make_workshop(tmp_path), "oar", FOUND) is older
