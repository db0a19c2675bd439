"""The contract: what a build leaves alone, who owns what it makes; nothing leaks or stays."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.integration.conftest import Built
from tests.integration.workbench import (
    GATE,
    SLOW,
    SLOW_CMAKE,
    SOURCES,
    Checkout,
    bridge_address,
    containers,
    git,
    listening,
    refused,
    rows_of,
    runs,
    shown_commands,
    snapshot,
    strangers,
    succeed,
    tmpfs,
    tree,
    wait_for,
)

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


# -- 1. the source tree


def test_build_test_and_package_leave_the_source_tree_as_it_was(built: Built) -> None:
    assert snapshot(built.checkout.root / "examples" / "oar") == built.before
    assert git(built.checkout.root, "status", "--porcelain") == ""


def test_a_tree_that_nobody_may_write_to_is_built_tested_and_packaged(
    ordinary: Checkout, tiny: Path
) -> None:
    for path in (*tiny.rglob("*"), tiny):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = snapshot(tiny)
    succeed(ordinary.invoke("test", "--project", str(tiny)))
    succeed(ordinary.invoke("deb", "--project", str(tiny)))
    assert snapshot(tiny) == before


def test_a_build_that_writes_into_its_source_fails(built: Built, tiny: Path) -> None:
    tree(tiny, cmake='file(WRITE "${CMAKE_SOURCE_DIR}/made" "")\n')
    done = built.checkout.invoke("build", "--project", str(tiny))
    assert done.returncode
    assert "Read-only file system" in done.stdout
    assert not (tiny / "made").exists()


# -- 2. host paths


@pytest.mark.parametrize("variant", ["cpu", "noavx"])
def test_compile_commands_name_files_of_this_machine(built: Built, variant: str) -> None:
    file = built.checkout.out / "oar" / variant / "build" / "compile_commands.json"
    entries = json.loads(file.read_text())
    source = built.checkout.root / "examples" / "oar"
    assert any(Path(entry["file"]).is_relative_to(source) for entry in entries)
    for entry in entries:
        # GoogleTest's and nanobind's own files are the image's.
        if not entry["file"].startswith(("/usr/", "/opt/slipway/")):
            assert Path(entry["file"]).is_file()
        assert Path(entry["directory"]).is_dir()
        includes = re.findall(r"-I(\S+)", " ".join(shlex.split(entry["command"])))
        assert all(Path(i).exists() for i in includes if str(source) in i)


@pytest.mark.parametrize(("variant", "isa"), [("cpu", "x86-64-v3"), ("noavx", "x86-64-v2")])
def test_every_file_is_compiled_for_its_variants_instruction_set(
    built: Built, variant: str, isa: str
) -> None:
    file = built.checkout.out / "oar" / variant / "build" / "compile_commands.json"
    for entry in json.loads(file.read_text()):
        # But for Oar's module that asks the CPU, which every CPU runs.
        asks = ["x86-64"] if entry["file"].endswith("/python/cpu.cc") else []
        assert re.findall(r"-march=(\S+)", entry["command"]) == [isa, *asks]


def test_an_error_names_the_file_where_the_editor_finds_it(built: Built, tiny: Path) -> None:
    (tiny / "one.cc").write_text("int one() { return uno; }\n")
    done = built.checkout.invoke("build", "--project", str(tiny))
    assert f"{tiny}/one.cc:1:" in done.stdout


# -- 3. owners


@pytest.mark.parametrize("who", ["ordinary", "nameless"])
def test_all_that_is_made_belongs_to_the_user_who_typed(
    who: str, tiny: Path, request: pytest.FixtureRequest
) -> None:
    checkout: Checkout = request.getfixturevalue(who)
    assert checkout.user
    said = succeed(checkout.invoke("test", "--project", str(tiny)))
    said += succeed(checkout.invoke("deb", "--project", str(tiny)))
    assert "1 tests executed" in said
    assert list((checkout.root / "dist").glob("tiny-*/*.deb"))
    assert strangers(checkout.root, checkout.user.uid) == []
    assert strangers(checkout.user.home, checkout.user.uid) == []


def test_the_user_inside_is_the_user_outside(nameless: Checkout) -> None:
    assert nameless.user
    script = "id -u; whoami; test -w ~ && echo home; python3 -c 'import getpass; getpass.getuser()'"
    said = succeed(nameless.invoke("shell", "--", "sh", "-c", script))
    assert said.splitlines()[-3:] == ["12345", "caller", "home"]


# -- 4. no network


def test_neither_compiling_nor_testing_reaches_a_server(
    built: Built, client: Any, tiny: Path
) -> None:
    image = rows_of(built.first.stdout)["dev image", "all"][2]
    address = bridge_address(client, image)
    with listening() as server:
        port = server.getsockname()[1]
        words = ["bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"]
        # On the default network the very same words reach it.
        subprocess.run(["docker", "run", "--rm", image, *words], check=True, timeout=60)
        server.accept()[0].close()
        reach = " ".join(f'"{word}"' for word in words)
        tree(
            tiny,
            cmake=f"""
            execute_process(COMMAND {reach} RESULT_VARIABLE status)
            message("configuring: ${{status}}")
            add_custom_target(compiling ALL COMMAND {reach} || echo no way out)
            add_test(NAME reaches COMMAND {reach})
            """,
        )
        done = built.checkout.invoke("test", "--project", str(tiny))
        assert "configuring: 1" in done.stdout
        assert "no way out" in done.stdout
        refused(done, 8, "1 of 2 tests")
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


# -- 5. labels, names, locks


def events(client: Any, since: float) -> list[dict[str, str]]:
    """What the engine says of containers made since a moment, by anybody: their attributes."""
    found = client.events(
        since=int(since),
        until=int(time.time()) + 1,
        filters={"type": "container", "event": "create"},
        decode=True,
    )
    return [event["Actor"]["Attributes"] for event in found if event["time"] >= int(since)]


def test_every_container_carries_the_checkouts_label(built: Built, client: Any) -> None:
    time.sleep(1)  # the engine counts whole seconds
    since = time.time()
    folder = built.checkout.root / "examples" / "digits"
    (built.checkout.out / "oar" / "cpu" / "receipts" / "build.json").unlink(missing_ok=True)
    for task in ("build", "test", "run train_oar.py -- --help", "shell -- true"):
        succeed(built.checkout.invoke(*task.split(), cwd=folder))
    made = [a for a in events(client, since) if "slipway" in a["image"]]
    assert all("slipway.checkout" in attributes for attributes in made)
    mine = [a["name"] for a in made if a["slipway.checkout"] == built.checkout.name]
    assert len(mine) == 4  # `test` finds that there is nothing to build
    assert all(name.startswith(f"slipway-{built.checkout.name}-") for name in mine)


@contextlib.contextmanager
def waiting_build(
    client: Any, checkout: Checkout, source: Path, **more: Any
) -> Iterator[subprocess.Popen[str]]:
    """A build of a tree with a gate, seen in the middle; no container of it outlives the test."""
    try:
        with checkout.start("build", "--project", str(source), **more) as process:
            wait_for(
                lambda: runs(client, checkout, "sleep") or process.poll() is not None,
                "the build comes to its gate",
            )
            assert process.poll() is None, process.stdout and process.stdout.read()
            yield process
    finally:
        for container in containers(client, checkout):
            with contextlib.suppress(docker.errors.APIError):
                container.remove(force=True)


def test_two_checkouts_work_side_by_side_and_one_is_cleaned_without_the_other(
    built: Built, other: Checkout, client: Any, tiny: Path, area: Path
) -> None:
    tree(tiny, cmake=GATE)
    mine = {"INVOKE_CACHE_DIR": str(area / "cache-of-other")}
    kept = {image.id for image in client.images.list(filters=built.checkout.label)}
    with (
        waiting_build(client, built.checkout, tiny) as first,
        waiting_build(client, other, tiny, env=mine) as second,
    ):
        running = containers(client, built.checkout)
        succeed(other.invoke("stop", env=mine))
        assert second.wait(30) != 0
        assert containers(client, other) == []
        succeed(other.invoke("clean", "--everything", env=mine))
        assert not other.out.exists()
        assert containers(client, built.checkout) == running
        (tiny / "open").touch()
        assert first.wait(60) == 0
    assert (built.checkout.out / "tiny" / "cpu" / "build" / "tiny").is_file()
    assert {image.id for image in client.images.list(filters=built.checkout.label)} == kept


def test_a_second_build_of_a_directory_is_told_who_is_at_it(
    built: Built, client: Any, tiny: Path
) -> None:
    tree(tiny, cmake=GATE)
    with waiting_build(client, built.checkout, tiny) as first:
        done = built.checkout.invoke("build", "--project", str(tiny))
        refused(done, 75, "out/tiny/cpu is in use", f"process {first.pid}", "invoke build")
        (tiny / "open").touch()
        assert first.wait(60) == 0


# -- 6. signals


def stop(process: subprocess.Popen[str], signum: signal.Signals) -> str:
    """Send a signal as people do: Ctrl-C to all in the foreground, others to the task."""
    if signum == signal.SIGINT:
        os.killpg(process.pid, signum)
    else:
        process.send_signal(signum)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signum, said
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_in_the_middle_of_a_compile_leaves_no_container(
    built: Built, client: Any, tiny: Path, signum: signal.Signals
) -> None:
    tree(tiny, cmake=SLOW_CMAKE, two=SLOW)
    with built.checkout.start("build", "--project", str(tiny)) as process:
        wait_for(lambda: runs(client, built.checkout, "cc1plus"), "the compiler runs")
        stop(process, signum)
    wait_for(lambda: not containers(client, built.checkout), "the container goes", seconds=15)
    # Nothing is in the way of the next build.
    (tiny / "two.cc").write_text(SOURCES["two.cc"])
    succeed(built.checkout.invoke("build", "--project", str(tiny)))


def processes_with(word: str) -> list[str]:
    """The processes of this machine, containers' included, with a certain command line."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(file.read_text(errors="replace").replace("\0", " ").strip())
    return [line for line in found if line == word]


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_in_the_middle_of_an_image_build_ends_it(
    scratch: Checkout, client: Any, signum: signal.Signals
) -> None:
    dockerfile = scratch.root / "Dockerfile.dev"
    pause = f"sleep 4{os.getpid()}{signum:d}"
    text, count = re.subn(r"(FROM \S+ AS dev\n)", rf"\1RUN {pause}\n", dockerfile.read_text())
    assert count == 1
    dockerfile.write_text(text)
    with scratch.start("dev") as process:
        wait_for(lambda: processes_with(pause), "the build comes to its pause")
        stop(process, signum)
    wait_for(lambda: not processes_with(pause), "the build ends", seconds=15)
    assert containers(client, scratch) == []
    assert client.images.list(filters=scratch.label) == []
    assert not list((scratch.out / ".run").glob("context-*"))


def test_what_a_killed_process_left_behind_is_not_in_the_way(
    built: Built, client: Any, tiny: Path
) -> None:
    tree(tiny, cmake=GATE)
    with waiting_build(client, built.checkout, tiny) as process:
        left = containers(client, built.checkout)
        process.kill()
        process.wait()
        assert containers(client, built.checkout) == left
        tree(tiny)
        said = succeed(built.checkout.invoke("build", "--project", str(tiny)))
    assert left[0].name in said
    assert containers(client, built.checkout) == []


# -- 7. nothing leaks into an image


class Proxy(http.server.BaseHTTPRequestHandler):
    """Just enough of an HTTP proxy for apt and pip; it counts what it is asked for."""

    asked: list[str] = []  # noqa: RUF012 - one list for all connections is the point

    def do_GET(self) -> None:
        self.asked.append(self.path)
        request = urllib.request.Request(self.path)  # noqa: S310
        for name in ("Range", "If-Range", "If-Modified-Since"):
            if self.headers[name]:
                request.add_header(name, self.headers[name])
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            answer = direct.open(request, timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name not in ("Transfer-Encoding", "Connection"):
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            shutil.copyfileobj(answer, self.wfile)

    def do_CONNECT(self) -> None:
        self.asked.append(self.path)
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as far:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: far, far: self.connection}
            while True:
                ready, _, _ = select.select(list(ends), [], [], 60)
                for end in ready:
                    data = end.recv(1 << 16)
                    if not data:
                        self.close_connection = True
                        return
                    ends[end].sendall(data)
                if not ready:
                    return

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def proxy(client: Any, built: Built) -> Iterator[str]:
    """A proxy that containers reach, by a name that is found again wherever it leaks to."""
    server = http.server.ThreadingHTTPServer(("", 0), Proxy)
    server.daemon_threads = True
    Proxy.asked.clear()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    image = rows_of(built.first.stdout)["dev image", "all"][2]
    yield f"http://leaked-user:leaked-word@{bridge_address(client, image)}:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def proxied(proxy: str, area: Path) -> dict[str, str]:
    """The variables of a network behind a proxy, with a CA bundle at a place that tells itself."""
    store = next(
        Path(p)
        for p in (os.environ.get("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt")
        if p and Path(p).is_file()
    )
    bundle = area / "leaked-bundle.pem"
    bundle.write_bytes(b"# leaked-authority\n" + store.read_bytes())
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    without = dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost")
    return {**dict.fromkeys(names, proxy), **without, "SSL_CERT_FILE": str(bundle)}


def assert_nothing_leaked(client: Any, tag: str) -> None:
    history = ["docker", "history", "--no-trunc", tag]
    said = subprocess.run(history, check=True, capture_output=True, text=True).stdout
    said += json.dumps(client.api.inspect_image(tag))
    assert "apt-install" in said  # the words are those of this image
    assert "leaked-" not in said
    assert "proxy" not in said.lower()
    kept = b""
    for chunk in client.images.get(tag).save():
        assert b"leaked-" not in kept + chunk
        kept = chunk[-16:]


def test_neither_proxy_nor_ca_is_in_a_production_image(
    later: Checkout, client: Any, proxy: str, area: Path
) -> None:
    said = succeed(later.invoke("prod", env=proxied(proxy, area)))
    assert Proxy.asked, "nothing came through the proxy"
    tag = re.findall(r"--tag (slipway-\S+)", said)[-1]
    assert_nothing_leaked(client, tag)
    assert "leaked-word" not in said  # nor on the screen


def test_neither_proxy_nor_ca_is_in_a_dev_image(
    scratch: Checkout, client: Any, proxy: str, area: Path
) -> None:
    # A small one: what matters is how the packages are fetched, by apt and by pip.
    # The comment is another one in each run, so that nothing of it is in a cache.
    listing = f"# {uuid.uuid4()}\npython3\npython3-venv\n"
    (scratch.root / "scripts" / "packages-dev.txt").write_text(listing)
    lock = (scratch.root / "requirements-image.txt").read_text()
    wanted = re.search(r"^packaging==(.*\\\n)+.*\n", lock, re.MULTILINE)
    assert wanted
    (scratch.root / "requirements-image.txt").write_text(wanted.group())
    said = succeed(scratch.invoke("dev", env=proxied(proxy, area)))
    assert Proxy.asked, "nothing came through the proxy"
    tag = re.findall(r"--tag (slipway-dev:\S+)", said)[-1]
    assert_nothing_leaked(client, tag)
    client.images.remove(tag)


# -- 9. reproducible: test_release.py, by another user in another directory


# -- 10. nothing half-made


def test_a_package_that_is_killed_half_way_is_not_in_dist(
    built: Built, client: Any, tiny: Path
) -> None:
    dist = built.checkout.root / "dist"
    before = snapshot(dist)
    wait = 'install(CODE "execute_process(COMMAND sleep 600)")\n'
    tree(tiny, cmake=wait, project="version: 1")
    (tiny / "project.yaml").write_text(
        (tiny / "project.yaml").read_text().replace("version: 1", "")
    )
    with built.checkout.start("deb", "--project", str(tiny)) as process:
        wait_for(lambda: runs(client, built.checkout, "sleep"), "the package is being made")
        process.kill()
        process.wait()
        assert snapshot(dist) == before
        tree(tiny)
        succeed(built.checkout.invoke("deb", "--project", str(tiny)))
    made = list(dist.glob("tiny-*/*"))
    assert [p.suffix for p in made] == [".deb"]
    subprocess.run(["dpkg-deb", "--contents", str(made[0])], check=True, capture_output=True)
    shutil.rmtree(made[0].parent)


def test_a_package_for_which_dist_has_no_room_is_not_there_at_all(
    other: Checkout, tiny: Path
) -> None:
    (tiny / "large").write_bytes(os.urandom(400_000))
    tree(tiny, cmake="install(FILES large DESTINATION share/tiny)\n")
    with tmpfs(other.root / "dist", "128k"):
        done = other.invoke("deb", "--project", str(tiny))
        refused(done, 74, "the disk is full")
        assert [p for p in (other.root / "dist").rglob("*") if p.is_file()] == []
    succeed(other.invoke("deb", "--project", str(tiny)))
    assert len(list((other.root / "dist").glob("tiny-*/*.deb"))) == 1


# -- 13. what is printed, and --dry


def traces(client: Any, checkout: Checkout) -> tuple[Any, ...]:
    """All that a task could make or remove."""
    images = sorted((image.id, *image.tags) for image in client.images.list(filters=checkout.label))
    return snapshot(checkout.root), images, containers(client, checkout)


@pytest.mark.parametrize("task", ["dev", "build", "test", "deb", "prod", "all", "clean", "ps"])
def test_a_dry_task_makes_nothing(
    cloned: Callable[[str], Checkout], client: Any, area: Path, task: str
) -> None:
    root = area / "untouched" / "slipway"
    checkout = Checkout(root) if root.exists() else cloned("untouched")
    before = traces(client, checkout)
    time.sleep(1)  # the engine counts whole seconds
    since = time.time()
    said = succeed(checkout.invoke("--dry", task))
    assert traces(client, checkout) == before
    assert not [a for a in events(client, since) if checkout.name in a["name"]]
    steps = {"test": ["build", "test"], "prod": ["build", "deb"], "deb": ["build", "deb"]}
    steps |= {"build": ["build"], "all": ["build", "test", "deb"]}
    for step in steps.get(task, []):
        assert any(f"-{step}-oar-cpu" in line for line in shown_commands(said)), said
    assert (" build --file " in said) == (task in ("prod", "all"))


@pytest.mark.parametrize("task", ["run train_oar.py", "clean", "clean --images", "stop", "all"])
def test_a_dry_task_removes_nothing_where_something_is(
    built: Built, client: Any, task: str
) -> None:
    before = traces(client, built.checkout)
    time.sleep(1)
    since = time.time()
    folder = built.checkout.root / "examples" / "digits"
    said = succeed(built.checkout.invoke("--dry", *task.split(), cwd=folder))
    assert traces(client, built.checkout) == before
    assert not [a for a in events(client, since) if built.checkout.name in a["name"]]
    if task != "all":  # shows what is not unchanged, which may be nothing
        assert bool(shown_commands(said)) == (task == "run train_oar.py")


def test_the_printed_command_works_in_a_shell(built: Built, tiny: Path) -> None:
    command = ("build", "--project", str(tiny))
    succeed(built.checkout.invoke(*command))
    (line,) = shown_commands(succeed(built.checkout.invoke(*command)))
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "ninja: no work to do." in done.stdout


# -- what is done again, and what is not


def compiled(said: str) -> int:
    return len(re.findall(r"Building CXX object", said))


def test_only_what_changed_is_compiled_again(built: Built, tiny: Path) -> None:
    command = ["build", "--project", str(tiny)]
    assert compiled(succeed(built.checkout.invoke(*command))) == 3
    said = succeed(built.checkout.invoke(*command))
    assert "ninja: no work to do." in said
    # Once Ninja has said so no container is started to hear it again, until something changes.
    said = succeed(built.checkout.invoke(*command))
    assert re.search(r"tiny 1.0 cpu is unchanged since .*: no work to do", said)
    assert shown_commands(said) == []
    made = built.checkout.out / "tiny" / "cpu" / "build" / "tiny"
    made.unlink()
    assert "Linking CXX executable" in succeed(built.checkout.invoke(*command))
    (tiny / "one.cc").write_text("int one() { return 0 + 1; }\n")
    said = succeed(built.checkout.invoke(*command))
    assert compiled(said) == 1
    assert "Configuring done" not in said


def test_a_changed_option_compiles_only_what_it_concerns(built: Built, tiny: Path) -> None:
    use = 'set_source_files_properties(one.cc PROPERTIES COMPILE_DEFINITIONS "WORD=${WORD}")\n'
    tree(tiny, cmake=use, project="build: {options: {WORD: '1'}}\n")
    command = ["build", "--project", str(tiny)]
    assert compiled(succeed(built.checkout.invoke(*command))) == 3
    file = tiny / "project.yaml"
    file.write_text(file.read_text().replace("WORD: '1'", "WORD: '2'"))
    said = succeed(built.checkout.invoke(*command))
    assert "Configuring done" in said
    assert compiled(said) == 1


def hits(said: str) -> float:
    found = re.search(r"(\d+) of (\d+) compilations from the cache", said)
    assert found, said
    assert int(found.group(2)) > 20
    return int(found.group(1)) / int(found.group(2))


def test_after_clean_nearly_all_comes_from_the_compilers_cache(
    other: Checkout, built: Built
) -> None:
    # What the first checkout compiled serves the second, in another directory.
    assert hits(succeed(other.invoke("build"))) >= 0.95
    succeed(other.invoke("clean"))
    assert not (other.out / "oar").exists()
    assert hits(succeed(other.invoke("build"))) >= 0.95


def test_the_dev_images_name_follows_from_what_goes_into_it(
    built: Built, scratch: Checkout
) -> None:
    tag = rows_of(built.first.stdout)["dev image", "all"][2]
    assert tag in succeed(scratch.invoke("dev"))  # in another checkout too
    listing = scratch.root / "scripts" / "packages-dev.txt"
    text = listing.read_text()
    listing.write_text(f"{text}tree\n")
    said = succeed(scratch.invoke("--dry", "dev"))
    changed = re.findall(r"--tag (slipway-dev:\S+)", said)
    assert changed
    assert tag not in changed
    listing.write_text(text)
    assert tag in succeed(scratch.invoke("dev"))
