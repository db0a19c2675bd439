"""Sources fetched for real: from an index on the loopback, from git repositories, from archives."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from slipway.errors import SlipwayError
from slipway.settings import Settings, Workshop, convert
from slipway.sources import Source, fetch
from slipway.unpack import unpack
from slipway.versions import declared_version, version_of

ROOT = Path(__file__).parents[2]
DATE = 1_500_000_000

FETCH = """
import json, sys
from pathlib import Path
from slipway.settings import Settings, Workshop, convert
from slipway.sources import Source, fetch
root, settings, source = sys.argv[1:]
workshop = Workshop(Path(root), convert(json.loads(settings), Settings, "", fix="mend it"))
print(fetch(workshop, convert(json.loads(source), Source, "", fix="mend it"), base=Path(root)))
"""


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the person who runs the tests, and commits that are the same each time."""
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "A Writer")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "writer@example.org")
        monkeypatch.setenv(f"GIT_{who}_DATE", f"{DATE} +0000")


def workshop_in(tmp_path: Path, *, pip: str = "", dry: bool = False) -> Workshop:
    root = tmp_path / "checkout"
    root.mkdir(exist_ok=True)
    data = {"cache_dir": str(tmp_path / "cache"), "mirrors": {"pip": pip}}
    return Workshop(root, convert(data, Settings, "", fix="mend it"), dry)


def fetched(workshop: Workshop, python_tag: str = "", **source: Any) -> Path:
    return fetch(
        workshop,
        convert(source, Source, "", fix="mend it"),
        base=workshop.root.parent,
        python_tag=python_tag,
    )


def refusal(workshop: Workshop, **source: Any) -> SlipwayError:
    with pytest.raises(SlipwayError) as error:
        fetched(workshop, **source)
    return error.value


def files_of(*directories: Path) -> set[Path]:
    """What is in directories, without locks."""
    found = {path for top in directories for path in top.rglob("*") if path.is_file()}
    return {path for path in found if path.name != ".lock"}


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


# -- a package index


def tar_of(members: dict[str, str | bytes | tarfile.TarInfo], mode: str = "w:gz") -> bytes:
    """An archive of contents, or of members of any other kind, by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name, info.mtime = name, DATE
            data = b"" if isinstance(content, tarfile.TarInfo) else content
            data = data.encode() if isinstance(data, str) else data
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def special(kind: bytes, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname, info.mode = kind, target, mode
    return info


OAR: dict[str, str | bytes | tarfile.TarInfo] = {
    "oar-1.0/CMakeLists.txt": "project(oar VERSION 1.0)\n",
    "oar-1.0/src/kernel.cpp": "int main() {}\n",
    "oar-1.0/link": special(tarfile.SYMTYPE, "src/kernel.cpp"),
}


class Index:
    """A package index, and what was asked of it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.json = True
        self.told: dict[str, str] = {}  # sha256 that it tells, where that is not the file's
        self.broken = 0  # answers of which half is sent
        self.stalled = threading.Event()  # clear: half of a file is sent, and no more
        self.stalled.set()
        self.password = ""
        self.asked: list[str] = []
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/simple/"

    def add(self, name: str, content: bytes) -> str:
        self.files[name] = content
        return hashlib.sha256(content).hexdigest()

    def stop(self) -> None:
        self.stalled.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        key = base64.b64encode(f"me:{self.password}".encode()).decode()
        if self.password and handler.headers.get("Authorization") != f"Basic {key}":
            handler.send_error(401)
            return
        name = handler.path.rpartition("/")[2]
        if handler.path == "/simple/oar/":
            kind, body = self.page()
        elif name in self.files:
            kind, body = "application/octet-stream", self.files[name]
        else:
            handler.send_error(404)
            return
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        half = len(body) // 2
        handler.wfile.write(body[:half])
        handler.wfile.flush()
        if name and self.broken:
            self.broken -= 1
            return
        if name:
            self.stalled.wait()
        handler.wfile.write(body[half:])

    def page(self) -> tuple[str, bytes]:
        rows = [(n, self.told.get(n, hashlib.sha256(c).hexdigest())) for n, c in self.files.items()]
        if self.json:
            files = [
                {"filename": n, "url": f"../../files/{n}", "hashes": {"sha256": h} if h else {}}
                for n, h in rows
            ]
            return "application/vnd.pypi.simple.v1+json", json.dumps({"files": files}).encode()
        links = [f'<a href="../../files/{n}#{f"sha256={h}" if h else ""}">{n}</a>' for n, h in rows]
        return "text/html", f"<html><body>{''.join(links)}</body></html>".encode()


@pytest.fixture
def index() -> Iterator[Index]:
    served = Index()
    yield served
    served.stop()


@pytest.mark.parametrize("as_json", [True, False])
def test_an_sdist_is_fetched_once_and_then_offline(
    tmp_path: Path, index: Index, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    index.json = as_json
    digest = index.add("oar-1.0.tar.gz", tar_of(OAR))
    index.add("oar-0.9.tar.gz", b"other")
    workshop = workshop_in(tmp_path, pip=index.url)
    wanted = {"sdist": "Oar", "version": "1.0", "sha256": digest}

    tree = fetched(workshop, **wanted)
    assert tree == workshop.out / f"sources/oar-1.0-{digest[:12]}"
    assert (tree / "link").read_text() == "int main() {}\n"
    said = capsys.readouterr().out
    assert f"from http://{index.host}/files/oar-1.0.tar.gz" in said
    assert "unpacked from the cache into out/sources/oar-1.0-" in said
    version = version_of(tree, declared_version(tree))
    assert (version.pep440, version.epoch) == ("1.0", DATE)

    index.stop()
    asked = len(index.asked)
    assert fetched(workshop, **wanted) == tree
    assert capsys.readouterr().out == ""
    shutil.rmtree(workshop.out)
    assert fetched(workshop, **wanted) == tree
    assert "unpacked from the cache" in capsys.readouterr().out
    assert (tree / "CMakeLists.txt").is_file()
    assert len(index.asked) == asked


def test_a_new_version_with_the_old_sha256(tmp_path: Path, index: Index) -> None:
    digest = index.add("oar-1.0.tar.gz", tar_of(OAR))
    newer = index.add("oar-1.1.tar.gz", b"newer")
    workshop = workshop_in(tmp_path, pip=index.url)
    fetched(workshop, sdist="oar", version="1.0", sha256=digest)
    error = refusal(workshop, sdist="oar", version="1.1", sha256=digest)
    assert error.cause.splitlines() == [
        f"project.yaml: {digest}",
        f"oar-1.1.tar.gz: {newer}",
        "the former is oar-1.0.tar.gz's",
    ]


def test_offline_without_the_file(tmp_path: Path) -> None:
    workshop = workshop_in(tmp_path, pip=f"http://127.0.0.1:{closed_port()}/simple")
    error = refusal(workshop, sdist="oar", version="1.0", sha256="a" * 64)
    assert error.what == "sdist oar 1.0 is not here, and the package index cannot be read"
    assert "no connection" in error.cause
    assert error.code == 69
    assert not files_of(workshop.root, workshop.cache)


def test_a_zip(tmp_path: Path, index: Index) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, mode, text in (
            ("oar-1.0/run", 0o100755, "#!/bin/sh\n"),
            ("oar-1.0/plain", 0o100644, "x"),
            ("oar-1.0/link", 0o120777, "plain"),
        ):
            info = zipfile.ZipInfo(name, (2017, 7, 14, 2, 40, 0))
            info.external_attr = mode << 16
            archive.writestr(info, text)
    digest = index.add("oar-1.0.zip", buffer.getvalue())
    tree = fetched(workshop_in(tmp_path, pip=index.url), sdist="oar", version="1.0", sha256=digest)
    assert os.access(tree / "run", os.X_OK)
    assert not os.access(tree / "plain", os.X_OK)
    assert os.readlink(tree / "link") == "plain"
    assert (tree / "plain").stat().st_mtime == DATE


def test_wheels_for_two_pythons(tmp_path: Path, index: Index) -> None:
    digests = {
        tag: index.add(f"oar-1.0-{tag}-{tag}-manylinux_2_17_x86_64.whl", tag.encode())
        for tag in ("cp312", "cp313")
    }
    workshop = workshop_in(tmp_path, pip=index.url)
    wanted: dict[str, Any] = {"wheel": "oar", "version": "1.0", "sha256": digests}
    file = fetched(workshop, "cp313", **wanted)
    assert (file.name, file.read_text()) == (
        "oar-1.0-cp313-cp313-manylinux_2_17_x86_64.whl",
        "cp313",
    )
    assert fetched(workshop, "cp312", **wanted).read_text() == "cp312"
    with pytest.raises(SlipwayError) as error:
        fetched(workshop, "cp39", **wanted)
    assert error.value.cause == "it has them for: cp312, cp313"
    with pytest.raises(SlipwayError) as error:
        fetched(workshop, "cp39", **{**wanted, "sha256": "a" * 64})
    assert error.value.cause == "there are files for: cp312, cp313"

    index.stop()
    assert fetched(workshop, "cp313", **wanted) == file


def test_a_file_of_the_cache_that_has_changed_is_fetched_again(
    tmp_path: Path, index: Index
) -> None:
    digest = index.add("oar-1.0-py3-none-any.whl", b"wheel")
    workshop = workshop_in(tmp_path, pip=index.url)
    file = fetched(workshop, wheel="oar", version="1.0", sha256=digest)
    file.write_text("damaged")
    assert fetched(workshop, wheel="oar", version="1.0", sha256=digest) == file
    assert file.read_bytes() == b"wheel"


@pytest.mark.parametrize("told", [None, "", "the wanted one"])
def test_a_sha256_that_differs(tmp_path: Path, index: Index, told: str | None) -> None:
    found = index.add("oar-1.0.tar.gz", tar_of(OAR))
    if told is not None:  # else the index says it, and nothing is fetched
        index.told["oar-1.0.tar.gz"] = told and "a" * 64
    workshop = workshop_in(tmp_path, pip=index.url)
    error = refusal(workshop, sdist="oar", version="1.0", sha256="a" * 64)
    assert error.what.startswith("the sha256 of oar-1.0.tar.gz is not what project.yaml says")
    assert error.cause == f"project.yaml: {'a' * 64}\noar-1.0.tar.gz: {found}"
    assert error.code == 65
    assert not files_of(workshop.root, workshop.cache)
    assert ("/files/oar-1.0.tar.gz" in index.asked) is (told is not None)


def test_a_version_and_a_project_that_are_not_there(tmp_path: Path, index: Index) -> None:
    for version in ("1.0", "1.1", "1.3", "2.0"):
        index.add(f"oar-{version}.tar.gz", b"x")
    workshop = workshop_in(tmp_path, pip=index.url)
    error = refusal(workshop, sdist="oar", version="1.2", sha256="a" * 64)
    assert error.what == "no sdist oar 1.2 in the package index"
    assert error.cause == "near it: 1.0, 1.1, 1.3, 2.0"
    assert error.code == 66
    error = refusal(workshop, sdist="oars", version="1.2", sha256="a" * 64)
    assert error.what == "the package index has no files of 'oars'"
    error = refusal(workshop, wheel="oar", version="1.0", sha256="a" * 64)
    assert error.what == "the package index has no wheels of 'oar'"


def test_a_download_that_breaks_off(tmp_path: Path, index: Index) -> None:
    content = os.urandom(1 << 16)
    digest = index.add("oar-1.0-py3-none-any.whl", content)
    index.broken = 1
    workshop = workshop_in(tmp_path, pip=index.url)
    error = refusal(workshop, wheel="oar", version="1.0", sha256=digest)
    assert "broke off after 32768 of 65536 bytes" in error.what
    assert error.code == 74
    assert not files_of(workshop.root, workshop.cache)
    file = fetched(workshop, wheel="oar", version="1.0", sha256=digest)
    assert file.read_bytes() == content


def test_a_dry_run_looks_and_writes_nothing(
    tmp_path: Path, index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = index.add("oar-1.0.tar.gz", tar_of(OAR))
    workshop = workshop_in(tmp_path, pip=index.url, dry=True)
    tree = fetched(workshop, sdist="oar", version="1.0", sha256=digest)
    assert not tree.exists()
    assert "would be fetched from http://127.0.0.1" in capsys.readouterr().out
    assert index.asked == ["/simple/oar/"]
    assert not workshop.out.exists()
    assert not workshop.cache.exists()


def test_the_index_is_the_one_that_pip_is_configured_with(
    tmp_path: Path,
    index: Index,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """PIP_INDEX_URL with a password, an extra index on the disk, a directory of find-links."""
    index.password = "se:cret"  # noqa: S105
    digest = index.add("oar-1.0.tar.gz", tar_of(OAR))
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:se%3Acret@{index.host}/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    (tmp_path / "pip.conf").write_text(
        f"[global]\nextra-index-url = {(tmp_path / 'extra').as_uri()}\n"
        f"[download]\nfind-links = {tmp_path / 'links'}\n"
    )
    page = tmp_path / "extra/oar/index.html"
    page.parent.mkdir(parents=True)
    page.write_text('<a href="oar-1.1.tar.gz">oar</a>')
    (tmp_path / "links").mkdir()
    digests = {"1.0": digest}
    for version, place in (("1.1", page.parent), ("1.2", tmp_path / "links")):
        content = tar_of({f"oar-{version}/VERSION": version})
        (place / f"oar-{version}.tar.gz").write_bytes(content)
        digests[version] = hashlib.sha256(content).hexdigest()

    workshop = workshop_in(tmp_path)
    for version, sha256 in digests.items():
        tree = fetched(workshop, sdist="oar", version=version, sha256=sha256)
        assert tree.name.startswith(f"oar-{version}-")
    assert "cret" not in capsys.readouterr().out
    index.password = "another"  # noqa: S105
    error = refusal(workshop, sdist="oar", version="1.9", sha256=digest)
    assert "HTTP 401 (credentials?)" in error.cause
    assert "cret" not in str(error.message)


def test_two_at_once_fetch_it_once(tmp_path: Path, index: Index) -> None:
    digest = index.add("oar-1.0.tar.gz", tar_of(OAR))
    index.stalled.clear()
    workshop = workshop_in(tmp_path, pip=index.url)
    wanted = {"sdist": "oar", "version": "1.0", "sha256": digest}
    children = [in_a_process(workshop, wanted) for _ in range(2)]
    wait_for(lambda: index.asked.count("/simple/oar/") == 2)
    index.stalled.set()
    words = [child.communicate(timeout=20)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], words
    assert index.asked.count("/files/oar-1.0.tar.gz") == 1
    assert {text.splitlines()[-1] for text in words} == {str(fetched(workshop, **wanted))}


# -- killed half way


def in_a_process(workshop: Workshop, source: dict[str, Any]) -> subprocess.Popen[str]:
    settings = {
        "cache_dir": str(workshop.cache),
        "mirrors": {"pip": workshop.settings.mirrors.pip},
    }
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, workshop.root, json.dumps(settings), json.dumps(source)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def killed_when(condition: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    wait_for(condition)
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL


def test_killed_in_the_middle_of_a_download(tmp_path: Path, index: Index) -> None:
    content = os.urandom(1 << 22)
    digest = index.add("oar-1.0-py3-none-any.whl", content)
    workshop = workshop_in(tmp_path, pip=index.url)
    wanted = {"wheel": "oar", "version": "1.0", "sha256": digest}
    index.stalled.clear()

    def begun() -> bool:
        return any(path.stat().st_size for path in workshop.cache.rglob("*.partial"))

    killed_when(begun, in_a_process(workshop, wanted))
    assert not list(workshop.cache.rglob("*.whl"))
    index.stalled.set()
    file = fetched(workshop, **wanted)
    assert file.read_bytes() == content
    assert files_of(workshop.cache) == {file}


def test_killed_in_the_middle_of_unpacking(tmp_path: Path, index: Index) -> None:
    many = {f"oar-1.0/{number:05}": b"x" for number in range(4000)}
    digest = index.add("oar-1.0.tar.gz", tar_of({**OAR, **many}))
    workshop = workshop_in(tmp_path, pip=index.url)
    wanted = {"sdist": "oar", "version": "1.0", "sha256": digest}
    partial = workshop.out / f"sources/.work/oar-1.0-{digest[:12]}/partial/oar-1.0"
    killed_when((partial / "00100").exists, in_a_process(workshop, wanted))
    assert partial.is_dir()
    assert not list(workshop.out.glob("sources/oar*"))
    (partial / "left over").touch()
    tree = fetched(workshop, **wanted)
    assert len(list(tree.iterdir())) == 4003
    assert not list(workshop.out.glob("sources/.work/*"))


# -- archives


def unpacked(tmp_path: Path, content: bytes, name: str = "oar-1.0.tar.gz") -> Path:
    (tmp_path / name).write_bytes(content)
    into = tmp_path / "in/to"
    into.mkdir(parents=True)
    return unpack(tmp_path / name, into)


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("../../evil", "x"),
        ("/evil", "x"),
        ("oar-1.0/link", special(tarfile.SYMTYPE, "/etc/passwd")),
        ("oar-1.0/link", special(tarfile.SYMTYPE, "../../../etc/passwd")),
        ("oar-1.0/hard", special(tarfile.LNKTYPE, "../../checkout")),
        ("oar-1.0/device", special(tarfile.CHRTYPE)),
        ("oar-1.0/pipe", special(tarfile.FIFOTYPE)),
        ("oar-1.0/link/inside", "x"),
    ],
)
def test_nothing_of_an_evil_archive_is_written(
    tmp_path: Path, index: Index, name: str, member: str | tarfile.TarInfo
) -> None:
    digest = index.add("oar-1.0.tar.gz", tar_of({**OAR, name: member}))
    workshop = workshop_in(tmp_path, pip=index.url)
    error = refusal(workshop, sdist="oar", version="1.0", sha256=digest)
    assert error.what.startswith("oar-1.0.tar.gz is not unpacked: '")
    assert error.code == 65
    assert not files_of(workshop.root)
    assert not list(tmp_path.rglob("*evil*"))


def test_a_link_and_what_goes_through_it_in_a_zip(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("oar/link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "../..")
        archive.writestr("oar/link/evil", "x")
    with pytest.raises(SlipwayError) as error:
        unpacked(tmp_path, buffer.getvalue(), "oar-1.0.zip")
    assert "oar-1.0.zip is not unpacked" in error.value.what
    assert files_of(tmp_path) == {tmp_path / "oar-1.0.zip"}


def test_what_is_kept_of_a_member_and_what_is_not(tmp_path: Path) -> None:
    setuid, strange, folder = (special(tarfile.REGTYPE, mode=m) for m in (0o6755, 0o406, 0o500))
    folder.type = tarfile.DIRTYPE
    tree = unpacked(
        tmp_path,
        tar_of(
            {
                "a": folder,
                "a/setuid": setuid,
                "a/strange": strange,
                "a/again": "first",
                "./a/again": "second",
                "a/hard": special(tarfile.LNKTYPE, "a/again"),
            }
        ),
    )
    assert tree == tmp_path / "in/to/a"
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tree, *tree.iterdir())}
    assert modes == {
        "a": 0o755,
        "setuid": 0o755,
        "strange": 0o644,
        "again": 0o644,
        "hard": 0o644,
    }
    assert (tree / "again").read_text() == (tree / "hard").read_text() == "second"
    assert (tree / "hard").stat().st_nlink == 1
    assert {p.stat().st_mtime for p in (tree, *tree.iterdir())} == {DATE}
    assert {p.stat().st_uid for p in tree.iterdir()} == {os.getuid()}


@pytest.mark.parametrize(
    ("name", "mode"),
    [("x.tar.xz", "w:xz"), ("x.tar.bz2", "w:bz2"), ("x.tar", "w"), ("x.tgz", "w:gz")],
)
def test_other_compressions_and_several_top_directories(
    tmp_path: Path, name: str, mode: str
) -> None:
    tree = unpacked(tmp_path, tar_of({"a/x": "1", "b/y": "2"}, mode), name)
    assert tree == tmp_path / "in/to"
    assert sorted(p.name for p in tree.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_archive(tmp_path: Path, name: str, whole: bool) -> None:
    content = tar_of({"a": os.urandom(5000)})[:3000] if whole else b"no archive"
    with pytest.raises(SlipwayError, match="is damaged, or no archive") as error:
        unpacked(tmp_path, content, name)
    assert error.value.code == 65


# -- git


class Repo:
    """A repository, and verbs that read as what is done to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "-q", "-b", "main")
        self.commit()

    def git(self, *arguments: str) -> str:
        allow = ["-c", "protocol.file.allow=always"]
        return subprocess.run(
            ["git", "-C", str(self.path), *allow, *arguments],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def commit(self) -> str:
        with (self.path / "kernel.cpp").open("a") as file:
            file.write("// one more line\n")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "a change")
        return self.git("rev-parse", "HEAD")


@contextlib.contextmanager
def served(
    directory: Path, password: str
) -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """The files of a bare repository at /oar.git/, for those who know the password.

    While the first event is clear no object is sent; the second says that one was asked for.
    """
    going, asked = threading.Event(), threading.Event()
    going.set()
    key = f"Basic {base64.b64encode(password.encode()).decode()}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = directory / self.path.partition("?")[0].removeprefix("/oar.git/")
            allowed = self.headers.get("Authorization") == key
            body = file.read_bytes() if allowed and file.is_file() else b""
            if "/objects/" in self.path and not going.is_set():
                asked.set()
                going.wait()
                return
            self.send_response(200 if body else 404 if allowed else 401)
            if not allowed:
                self.send_header("WWW-Authenticate", 'Basic realm="oar"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}", going, asked
    finally:
        going.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "oar")


def test_a_tag_is_fetched_once_and_then_offline(
    tmp_path: Path, repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    repo.git("tag", "-a", "-m", "release", "v1.2.3")
    commit = repo.git("rev-parse", "HEAD")
    repo.commit()
    repo.git("tag", "v1.3.0")
    workshop = workshop_in(tmp_path)
    tree = fetched(workshop, git="oar", ref="v1.2.3")
    assert tree == workshop.out / f"sources/oar-{commit[:12]}"
    version = version_of(tree)
    assert (version.pep440, version.commit, version.dirty) == ("1.2.3", commit, False)
    assert version.epoch == DATE
    assert "checked out in out/sources/oar-" in capsys.readouterr().out

    shutil.rmtree(repo.path / ".git")
    assert fetched(workshop, git="oar", ref="v1.2.3") == tree
    assert fetched(workshop, git="oar", ref=commit) == tree
    assert fetched(workshop, git="oar", ref=commit[:9]) == tree
    assert capsys.readouterr().out == ""
    other = fetched(workshop, git="oar", ref="v1.3.0")
    assert version_of(other).pep440 == "1.3.0"


def test_a_branch_moves_and_offline_stays(
    tmp_path: Path, repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    repo.git("tag", "v1.0")
    workshop = workshop_in(tmp_path)
    address = repo.path.as_uri()
    first = fetched(workshop, git=address, ref="main")
    commit = repo.commit()
    second = fetched(workshop, git=address, ref="main")
    assert second != first
    assert version_of(second).commit == commit
    assert version_of(second).pep440 == f"1.0.1.dev1+g{commit[:7]}"
    assert version_of(first).pep440 == "1.0"

    capsys.readouterr()
    repo.path.rename(tmp_path / "away")
    assert fetched(workshop, git=address, ref="main") == second
    assert "does not answer; 'main' is as it was fetched last" in capsys.readouterr().out


def test_a_commit_in_no_branch(tmp_path: Path, repo: Repo) -> None:
    repo.git("checkout", "-q", "--detach")
    commit = repo.commit()
    repo.git("checkout", "-q", "main")
    repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    tree = fetched(workshop_in(tmp_path), git="oar", ref=commit)
    assert version_of(tree).commit == commit


def test_a_checkout_needs_nothing_else(tmp_path: Path, repo: Repo) -> None:
    """Neither the mirror nor its place, and is removed like any directory."""
    repo.git("tag", "v1.0")
    workshop = workshop_in(tmp_path)
    tree = fetched(workshop, git="oar", ref="v1.0")
    shutil.rmtree(workshop.out / "sources/git")
    tree.rename(tmp_path / "elsewhere")
    assert version_of(tmp_path / "elsewhere").pep440 == "1.0"
    assert all(os.stat(p).st_mode & stat.S_IWUSR for p in (tmp_path / "elsewhere").rglob("*/"))


def test_hooks_of_the_person_do_not_run(
    tmp_path: Path, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = tmp_path / "template/hooks/post-checkout"
    hook.parent.mkdir(parents=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(hook.parent.parent))
    fetched(workshop_in(tmp_path), git=str(repo.path), ref="main")
    assert not (tmp_path / "ran").exists()


def test_submodules_come_along(tmp_path: Path, repo: Repo) -> None:
    inner = Repo(tmp_path / "inner")
    repo.git("submodule", "--quiet", "add", "../inner", "third_party/inner")
    repo.commit()
    repo.git("tag", "v1.0")
    workshop = workshop_in(tmp_path)
    tree = fetched(workshop, git="oar", ref="v1.0")
    assert (tree / "third_party/inner/kernel.cpp").is_file()
    assert version_of(tree).pep440 == "1.0"

    inner.path.rename(tmp_path / "away")
    shutil.rmtree(tree)
    error = refusal(workshop, git="oar", ref="v1.0")
    assert error.what == f"a submodule of {repo.path} at 'v1.0' cannot be fetched"
    assert not tree.exists()
    bare = fetched(workshop, git="oar", ref="v1.0", submodules=False)
    assert not list((bare / "third_party/inner").iterdir())


def test_a_ref_that_does_not_exist(tmp_path: Path, repo: Repo) -> None:
    for tag in ("v1.0.0", "v1.0.1", "v2.0.0"):
        repo.git("tag", tag)
    workshop = workshop_in(tmp_path)
    error = refusal(workshop, git="oar", ref="v1.0.2")
    assert error.what == f"{repo.path} has no tag, branch or commit 'v1.0.2'"
    assert error.cause.startswith("near it: v1.0.")
    assert error.code == 66
    assert not workshop.out.exists()
    for ref in ("1" * 40, "1234567"):
        assert refusal(workshop, git="oar", ref=ref).code == 66


def test_a_repository_that_cannot_be_reached(tmp_path: Path) -> None:
    address = f"http://me:secret@127.0.0.1:{closed_port()}/oar.git"
    workshop = workshop_in(tmp_path)
    error = refusal(workshop, git=address, ref="v1.0")
    assert error.what == f"git cannot read {address.replace('me:secret@', '')}"
    assert "127.0.0.1" in error.cause
    assert "secret" not in str(error.message)
    assert error.code == 69
    assert not workshop.out.exists()


def test_a_password_reaches_the_server_and_no_file(tmp_path: Path, repo: Repo) -> None:
    """Git's plain HTTP: an index that asks for a password serves a repository's files."""
    repo.git("tag", "v1.0")
    repo.git("update-server-info")
    with served(repo.path / ".git", "me:secret") as (host, _going, _asked):
        workshop = workshop_in(tmp_path)
        assert refusal(workshop, git=f"http://{host}/oar.git", ref="v1.0").code == 69
        tree = fetched(workshop, git=f"http://me:secret@{host}/oar.git", ref="v1.0")
    assert version_of(tree).pep440 == "1.0"
    texts = [path.read_bytes() for path in files_of(workshop.root)]
    assert not [text for text in texts if b"secret" in text]


def test_killed_in_the_middle_of_a_fetch(tmp_path: Path, repo: Repo) -> None:
    repo.git("tag", "v1.0")
    repo.git("update-server-info")
    workshop = workshop_in(tmp_path)
    with served(repo.path / ".git", "me:secret") as (host, going, asked):
        wanted = {"git": f"http://me:secret@{host}/oar.git", "ref": "v1.0"}
        going.clear()
        child = in_a_process(workshop, wanted)
        assert asked.wait(20)
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        going.set()
        assert not list(workshop.out.glob("sources/oar*"))
        assert version_of(fetched(workshop, **wanted)).pep440 == "1.0"


def test_a_dry_run_of_git(tmp_path: Path, repo: Repo) -> None:
    commit = repo.git("rev-parse", "HEAD")
    workshop = workshop_in(tmp_path, dry=True)
    assert fetched(workshop, git="oar", ref="main").name == f"oar-{commit[:12]}"
    assert refusal(workshop, git="oar", ref="none").code == 66
    assert not workshop.out.exists()


# -- Debian


def test_a_debian_source_is_made_by_a_container_and_kept(tmp_path: Path) -> None:
    workshop = workshop_in(tmp_path)
    source = Source(debian="libfann", version="2.2.0+ds-8")
    with pytest.raises(SlipwayError, match="no container to fetch it in"):
        fetch(workshop, source, base=tmp_path)
    ran: list[list[str]] = []

    def run(argv: list[str], mounted: Any) -> None:
        ran.append(argv)
        downloads, partial = mounted
        assert argv[-2:] == [str(downloads), str(partial / "tree")]
        assert downloads.is_dir()
        (partial / "tree/debian").mkdir(parents=True)

    for _ in range(2):
        tree = fetch(workshop, source, base=tmp_path, run=run)
        assert tree == workshop.out / "sources/libfann-2.2.0+ds-8"
        assert (tree / "debian").is_dir()
    assert len(ran) == 1


def test_no_source_named_is_the_directory_of_the_project(tmp_path: Path) -> None:
    assert fetch(workshop_in(tmp_path), Source(), base=tmp_path) == tmp_path
