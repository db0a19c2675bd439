"""``invoke read``: a book that a reader's browser opens, and nobody else's."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.integration.browser import browsing, open_book, open_chapter, run_all, shown
from tests.integration.test_book import Shelf, chapter
from tests.integration.workbench import (
    Checkout,
    Done,
    containers,
    give_to,
    listening,
    refused,
    strangers,
    succeed,
    wait_for,
)

TIMED = chapter(
    "2. Plot",
    "import time\nprint('at', time.time_ns())",
    "import matplotlib.pyplot as plt\n\nplt.plot([1, 2], [2, 1])\nplt.show()",
)


@pytest.fixture(scope="module")
def shelf(cloned: Callable[[str], Checkout]) -> Shelf:
    """A clone with a small book that has been made."""
    shelf = Shelf(cloned("reader"))
    shelf.write("02.plot", TIMED)
    succeed(shelf.book())
    return shelf


@pytest.fixture
def port() -> int:
    """One that is free; other checkouts of this machine may be read at the usual one."""
    with listening("127.0.0.1") as server:
        return int(server.getsockname()[1])


@pytest.fixture
def reader(shelf: Shelf, client: Any) -> Iterator[Checkout]:
    """That clone, in which nothing is read before and after."""
    yield shelf.checkout
    done = shelf.checkout.invoke("read", "--stop")
    assert done.returncode == 0, done.stdout
    assert containers(client, shelf.checkout) == []


@pytest.fixture
def somebody(shelf: Shelf, ordinary: Checkout, client: Any) -> Iterator[Checkout]:
    """The clone of a user who is not root; the image is found by its name."""
    assert shelf.made["alias"]
    yield ordinary
    succeed(ordinary.invoke("read", "--stop"))
    assert containers(client, ordinary) == []


def read(checkout: Checkout, port: int, *arguments: str) -> Done:
    """Type ``invoke read``; it says where, and opens nothing."""
    env = {"INVOKE_BOOK_PORT": str(port)}
    return checkout.invoke("read", "--no-open", *arguments, env=env, timeout=120)


def url_of(said: str) -> str:
    """The URL to which a reader is sent."""
    (url,) = re.findall(r"^reading at (http://\S+)$", said, re.MULTILINE)
    return str(url)


def ask(
    url: str, path: str, token: str = "", method: str = "GET", body: Any = None
) -> tuple[int, str]:
    """The status and text of one request to the server of a URL, through no proxy."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)
    try:
        headers = {"Authorization": f"token {token}"} if token else {}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def token_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["token"][0]


# -- in a browser


def test_a_reader_opens_the_url_runs_a_chapter_and_sees_the_plot(
    reader: Checkout, port: int
) -> None:
    url = url_of(succeed(read(reader, port)))
    asked: list[str] = []
    with browsing() as page:
        page.on("request", lambda request: asked.append(request.url))
        open_book(page, url)
        open_chapter(page, "2. Plot")
        before = shown(page).locator(".jp-OutputArea-output").first.inner_text()
        run_all(page)
        after = shown(page).locator(".jp-OutputArea-output").first.inner_text()
        picture = shown(page).locator(".jp-OutputArea img").last
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("image => image.naturalWidth") > 100
        assert page.locator(".jp-Dialog, .Toastify__toast").count() == 0  # nobody is interrupted
    assert re.fullmatch(r"at \d+", before.strip())  # as it was shipped: executed
    assert re.fullmatch(r"at \d+", after.strip())
    assert before != after
    # No news, no update, no font from elsewhere.
    hosts = {urlsplit(u).netloc for u in asked if not u.startswith(("data:", "blob:"))}
    assert hosts == {f"127.0.0.1:{port}"}
    assert [u for u in asked if "/lab/api/news" in u or "/lab/api/update" in u] == []


def test_without_the_token_there_is_no_entry(reader: Checkout, port: int) -> None:
    url = url_of(succeed(read(reader, port)))
    with browsing() as page:
        for entry in (url.split("?")[0], url.replace(token_of(url), "f" * 48)):
            page.goto(entry)
            assert urlsplit(page.url).path == "/login"
            page.get_by_label("Password or token").or_(page.locator("#password_input")).wait_for()
            assert page.locator(".jp-NotebookPanel").count() == 0
    for path in ("/api/contents", "/api/kernels", "/files/index.ipynb"):
        assert ask(url, path)[0] in (302, 403), path
        assert ask(url, path, token="f" * 48)[0] in (302, 403), path
    assert ask(url, "/api/kernels", method="POST", body={"name": "python3"})[0] == 403
    assert ask(url, "/api/contents", token=token_of(url))[0] == 200


# -- how it starts


def test_the_page_answers_as_soon_as_the_command_ends(reader: Checkout, port: int) -> None:
    for _ in range(2):
        url = url_of(succeed(read(reader, port)))
        status, text = ask(url, "/lab/tree/index.ipynb", token_of(url))
        assert (status, "jupyter-config-data" in text) == (200, True)
        succeed(reader.invoke("read", "--stop"))


def test_a_second_call_finds_the_first(reader: Checkout, port: int, client: Any) -> None:
    first = succeed(read(reader, port))
    assert urlsplit(url_of(first)).port == port
    assert "docker run" not in succeed(read(reader, port))
    assert url_of(succeed(read(reader, port + 1))) == url_of(first)
    (container,) = containers(client, reader)
    assert container.labels["slipway.read"] == "oar"
    assert container.attrs["HostConfig"]["RestartPolicy"]["Name"] in ("no", "")
    refused(read(reader, port, "--lan"), 73, "to this machine alone", "invoke read --stop")
    refused(read(reader, port, "--work", "elsewhere"), 73, "with the work folder", "--work")
    assert not (reader.root / "elsewhere").exists()
    assert [c.id for c in containers(client, reader)] == [container.id]
    assert token_of(url_of(first)) not in first.split("reading at")[0]  # as docker was called


def test_stop_ends_it_and_says_when_there_is_nothing(
    reader: Checkout, port: int, client: Any
) -> None:
    url = url_of(succeed(read(reader, port)))
    assert "stopped" in succeed(reader.invoke("read", "--stop"))
    assert containers(client, reader) == []
    with pytest.raises(ConnectionRefusedError):
        ask(url, "/api")
    assert "is not being served" in succeed(reader.invoke("read", "--stop"))


def test_where_the_port_is_taken_the_next_free_one_is_used(reader: Checkout) -> None:
    with listening("127.0.0.1") as server:
        taken = server.getsockname()[1]
        said = succeed(read(reader, taken))
    url = url_of(said)
    found = urlsplit(url).port or 0
    assert taken < found < taken + 100
    assert f"port {taken} is taken: this is {found}" in said
    assert ask(url, "/api/status", token_of(url))[0] == 200


def test_what_has_died_is_taken_away_and_started_again(
    reader: Checkout, port: int, client: Any
) -> None:
    first = url_of(succeed(read(reader, port)))
    (container,) = containers(client, reader)
    container.kill()
    said = succeed(read(reader, port))
    assert f"removing {container.name}, which has ended" in said
    assert url_of(said) != first
    assert ask(url_of(said), "/api/status", token_of(url_of(said)))[0] == 200
    assert len(containers(client, reader)) == 1


def test_ctrl_c_before_it_answers_leaves_nothing(reader: Checkout, port: int, client: Any) -> None:
    env = {"INVOKE_BOOK_PORT": str(port)}
    with reader.start("read", "--no-open", env=env) as process:
        wait_for(lambda: containers(client, reader), "a container")
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "reading at" not in said
    assert containers(client, reader) == []


def test_ctrl_c_in_a_second_call_leaves_what_was_up(
    reader: Checkout, port: int, client: Any
) -> None:
    url = url_of(succeed(read(reader, port)))
    (container,) = containers(client, reader)
    container.pause()  # it runs, and does not answer
    try:
        with reader.start("read", "--no-open", env={"PYTHONUNBUFFERED": "1"}) as process:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=3)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130
    finally:
        container.unpause()
    assert [c.id for c in containers(client, reader)] == [container.id]
    assert ask(url, "/api/status", token_of(url))[0] == 200


def test_the_network_is_let_in_only_when_it_is_asked_for(
    reader: Checkout, port: int, client: Any
) -> None:
    succeed(read(reader, port))
    (container,) = containers(client, reader)
    (published,) = container.attrs["NetworkSettings"]["Ports"]["8888/tcp"]
    assert published == {"HostIp": "127.0.0.1", "HostPort": str(port)}
    succeed(reader.invoke("read", "--stop"))
    said = succeed(read(reader, port, "--lan"))
    (outside,) = re.findall(r"^from the network at (http://\S+)$", said, re.MULTILINE)
    assert urlsplit(outside).hostname not in ("127.0.0.1", "0.0.0.0")  # noqa: S104
    assert ask(outside, "/api/status", token_of(outside))[0] == 200
    assert ask(outside, "/api/status")[0] == 403
    assert "can run programs" in said


# -- the reader's folder


def test_what_a_reader_writes_is_the_reader_s_and_stays(
    somebody: Checkout, port: int, area: Path
) -> None:
    folder = area / "notes, of mine"
    folder.mkdir()
    give_to(folder, 1000)
    said = succeed(read(somebody, port, "--work", str(folder)))
    assert str(folder) in said
    assert strangers(folder, 1000) == []
    shown_files = {p.name for p in folder.glob("[!.]*")}
    assert shown_files == {"01.add", "02.plot", "index.ipynb"}
    url = url_of(said)
    mine = {"type": "file", "format": "text", "content": "mine"}
    path = "/api/contents/01.add/index.ipynb"
    assert ask(url, path, token_of(url), method="PUT", body=mine)[0] == 200
    succeed(somebody.invoke("read", "--stop"))
    (folder / "02.plot" / "index.ipynb").unlink()
    succeed(read(somebody, port, "--work", str(folder)))
    assert (folder / "01.add" / "index.ipynb").read_text() == "mine"
    assert (folder / "02.plot" / "index.ipynb").is_file()  # what is missing comes again
    assert strangers(folder, 1000) == []


def test_by_default_notebooks_go_below_out(somebody: Checkout, port: int) -> None:
    said = succeed(read(somebody, port))
    assert "your notebooks are in out/read/oar" in said
    assert (somebody.out / "read" / "oar" / "index.ipynb").is_file()
    assert strangers(somebody.out / "read", 1000) == []


def test_a_folder_that_the_reader_may_not_write_to_is_refused(
    somebody: Checkout, port: int, area: Path
) -> None:
    folder = area / "somebody-else-s"
    folder.mkdir(exist_ok=True)
    words = (str(folder), "belongs to uid 0, you are 1000", "--work DIR")
    refused(read(somebody, port, "--work", str(folder)), 73, *words)
    refused(read(somebody, port, "--work", str(folder / "in")), 73, "Permission denied")
    assert list(folder.iterdir()) == []
    refused(read(somebody, port, "--work", str(somebody.root / "go")), 73, "it is a file")


def test_the_last_words_of_what_dies_at_its_start_are_shown(
    somebody: Checkout, port: int, area: Path, client: Any
) -> None:
    folder = area / "half-mine"
    folder.mkdir()
    give_to(folder, 1000)
    (folder / "01.add").mkdir()  # of root's
    said = refused(
        read(somebody, port, "--work", str(folder)),
        73,
        "the book ended at its start, with status 73",
        "the chapters cannot be written to /work",
        "Permission denied",
        "this runs as uid 1000",
    )
    assert "reading at" not in said
    assert containers(client, somebody) == []


# -- the image


def test_without_an_image_and_a_registry_it_is_said_what_makes_one(
    later: Checkout, port: int, client: Any
) -> None:
    env = {"INVOKE_BOOK_PORT": str(port), "INVOKE_PULL_WAIT_S": "2"}
    done = later.invoke("read", "--no-open", env=env)
    error = refused(done, 69, "there is no image of the book: oar-book:", "pull oar-book:")
    assert error.rstrip().endswith("try: invoke book")
    assert containers(client, later) == []


@pytest.mark.parametrize("user", ["", "12345:12345"])
def test_plain_docker_serves_it_too(shelf: Shelf, port: int, user: str, client: Any) -> None:
    command = ["docker", "run", "--detach", "--publish", f"127.0.0.1:{port}:8888"]
    command += ["--env", f"SLIPWAY_PORT={port}", *(["--user", user] if user else [])]
    done = subprocess.run(
        [*command, shelf.made["alias"]], check=True, capture_output=True, text=True
    )
    container = client.containers.get(done.stdout.strip())
    try:
        said = wait_for(lambda: container.logs().decode(), "its URL")
        (url,) = said.splitlines()
        assert url.startswith(f"http://127.0.0.1:{port}/lab/tree/index.ipynb?token=")
        assert len(token_of(url)) >= 32
        assert ask(url, "/api/contents/01.add", token_of(url))[0] == 200
        assert ask(url, "/api/contents/01.add")[0] == 403
        begun = time.monotonic()
        container.stop()
        assert time.monotonic() - begun < 2
    finally:
        container.remove(force=True)


def test_dry_says_what_would_be_started_and_starts_nothing(
    shelf: Shelf, port: int, client: Any
) -> None:
    env = {"INVOKE_BOOK_PORT": str(port)}
    said = succeed(shelf.checkout.invoke("--dry", "read", env=env))
    assert f"--publish 127.0.0.1:{port}:8888" in said
    assert f"{os.sep}work" in said
    assert containers(client, shelf.checkout) == []
