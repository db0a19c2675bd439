"""Files out of a Python package index: the one that pip is configured with, asked for one file.

``pip download`` of an sdist runs the sdist's own build to learn its name; asking the index for the
file runs nothing. The sha256 in project.yaml is what is trusted, not the index.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit
from urllib.request import url2pathname

import requests
import urllib3
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion
from packaging.version import Version as Pep440

from slipway import console
from slipway.errors import (
    BAD_CONFIG,
    BAD_DATA,
    IO_ERROR,
    NO_INPUT,
    UNAVAILABLE,
    USAGE,
    SlipwayError,
)
from slipway.fetched import alone, sha256, without_credentials
from slipway.processes import look
from slipway.settings import Workshop
from slipway.unpack import SUFFIXES

# The JSON of PEP 691 where the index has it, else the pages of PEP 503.
ACCEPT = (
    "application/vnd.pypi.simple.v1+json, "
    "application/vnd.pypi.simple.v1+html;q=0.2, "
    "text/html;q=0.1"
)
TIMEOUT_S = (10, 60)  # to connect; between two bytes
NEWEST_GLIBC = 41  # 2.41, Debian 13's

# pip's own options, its configuration files and PIP_* merged by itself. `pip config get` tells one
# level only, and not the default.
ASK_PIP = """
import json
from pip._internal.commands import create_command
options, _ = create_command("download").parse_args(["x"])
indexes = [] if options.no_index else [options.index_url, *options.extra_index_urls]
print(json.dumps([indexes, options.find_links]))
"""


@dataclass(frozen=True)
class Wanted:
    """One file of one release."""

    kind: Literal["sdist", "wheel"]
    name: str
    version: str
    sha256: str
    python_tag: str = ""
    """For a wheel, the Python that it is for: ``cp313``; empty: whichever has the sha256."""

    def __str__(self) -> str:
        python = f" for {self.python_tag}" if self.python_tag else ""
        return f"{self.kind} {self.name} {self.version}{python}"


@dataclass(frozen=True)
class File:
    """A file that an index offers."""

    name: str
    url: str
    sha256: str = ""
    """Empty: the index does not tell."""
    yanked: bool = False
    """Whether its maker has taken it back; who names its version still gets it."""


@dataclass(frozen=True)
class Places:
    """Where pip looks, in its order."""

    indexes: tuple[str, ...]
    """URLs below which each project has a page."""
    find_links: tuple[str, ...] = ()
    """Directories with files, or URLs of pages that link to them."""


# -- deciding: pure functions


def fitting(wanted: Wanted, files: Iterable[File]) -> list[File]:
    """The files that are what is wanted by their names, the best first."""
    if wanted.kind == "sdist":
        found = [f for f in files if is_sdist(f.name, wanted.name, wanted.version)]
        return sorted(found, key=lambda f: f.sha256 != wanted.sha256)
    order = {tag: number for number, tag in enumerate(supported(wanted.python_tag))}
    rows = []
    for file in files:
        tags = wheel_tags(file.name, wanted.name, wanted.version)
        ranks = [order[tag] for tag in tags if tag in order]
        if ranks or (tags and not wanted.python_tag and file.sha256 == wanted.sha256):
            rows.append((file.sha256 != wanted.sha256, min(ranks, default=0), file.name, file))
    return [row[-1] for row in sorted(rows, key=lambda row: row[:-1])]


def is_sdist(filename: str, name: str, version: str) -> bool:
    """Whether a file is the sdist of that release, spelt as PEP 625 has it or as before."""
    return _same(version, _sdist_version(filename, name))


def _sdist_version(filename: str, name: str) -> str:
    """The version in an sdist's file name; empty where it is no sdist of ``name``."""
    suffix = next((s for s in SUFFIXES if filename.endswith(s)), None)
    parts = filename.removesuffix(suffix).split("-") if suffix else []
    for count in range(1, len(parts)):
        version = "-".join(parts[count:])
        if canonicalize_name("-".join(parts[:count])) == canonicalize_name(name) and _is(version):
            return version
    return ""


def wheel_tags(filename: str, name: str, version: str = "") -> frozenset[Tag]:
    """The tags of a wheel of that release (of any, without a version); none for other files."""
    try:
        its_name, its_version, _build, tags = parse_wheel_filename(filename)
    except (InvalidWheelFilename, InvalidVersion):
        return frozenset()
    right = not version or _same(version, str(its_version))
    return tags if right and its_name == canonicalize_name(name) else frozenset()


def _is(version: str) -> bool:
    try:
        Pep440(version)
    except InvalidVersion:
        return False
    return True


def _same(one: str, other: str) -> bool:
    return _is(one) and _is(other) and Pep440(one) == Pep440(other)


def supported(python_tag: str) -> list[Tag]:
    """The tags that a CPython on x86-64 Linux takes, best first; without a tag, any Python's.

    Of two platforms the older glibc comes first: that file runs in more places.
    """
    old = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
    platforms = []
    for minor in range(5, NEWEST_GLIBC + 1):
        names = (f"manylinux_2_{minor}", old.get(minor, ""))
        platforms += [f"{name}_x86_64" for name in names if name]
    platforms.append("linux_x86_64")
    if not python_tag:
        return list(compatible_tags((3, 99), None, platforms))
    version = python_version(python_tag)
    return [
        *cpython_tags(version, [python_tag], platforms),
        *compatible_tags(version, python_tag, platforms),
    ]


def python_version(python_tag: str) -> tuple[int, int]:
    """``cp313`` as (3, 13)."""
    minor = python_tag.removeprefix("cp3")
    if minor == python_tag or not minor.isdecimal():
        raise SlipwayError(f"'{python_tag}' is no Python, cp313 would be one", code=USAGE)
    return 3, int(minor)


def digest_for(python_tag: str, digests: dict[str, str]) -> str | None:
    """The sha256 for a Python out of ``{"cp312": …, "cp38-abi3": …, "py3": …}``."""
    if not python_tag:
        return next(iter(digests.values())) if len(digests) == 1 else None
    for tag in supported(python_tag):
        for key in (f"{tag.interpreter}-{tag.abi}", tag.interpreter):
            # An older Python's own file is none of ours: only its stable ABI (cp38-abi3) is.
            own = tag.interpreter == python_tag or not tag.interpreter.startswith("cp")
            if key in digests and (own or key.endswith("-abi3")):
                return digests[key]
    return None


def newest_of(requirement: Requirement, files: Iterable[File], python_tag: str) -> str | None:
    """The newest version that satisfies a requirement and has a wheel for a Python; None: none has.

    A pre-release is taken only where nothing else will do.
    """
    order = set(supported(python_tag))
    named = {
        file.name.split("-")[1]
        for file in files
        if not file.yanked and wheel_tags(file.name, requirement.name) & order
    }
    fit = list(requirement.specifier.filter(Pep440(unquote(version)) for version in named))
    return str(max(fit)) if fit else None


def near(version: str, versions: Iterable[str]) -> list[str]:
    """Two versions below, two above, and the newest."""
    known = sorted({Pep440(v) for v in versions if _is(v)})
    at = bisect.bisect_left(known, Pep440(version)) if _is(version) else len(known)
    return [str(v) for v in sorted({*known[max(0, at - 2) : at + 2], *known[-1:]})]


def parse_page(text: str, url: str, content_type: str) -> list[File]:
    """The files on a project's page, JSON or HTML.

    :param url: the page's own address, which relative links start from.
    """
    if content_type.partition(";")[0].strip().endswith("json"):
        rows: list[dict[str, Any]] = json.loads(text)["files"]
        return [
            File(
                row["filename"],
                urljoin(url, row["url"]),
                row.get("hashes", {}).get("sha256", ""),
                yanked=bool(row.get("yanked")),
            )
            for row in rows
        ]
    page = _Links()
    page.feed(text)
    files = []
    for href, yanked in page.links:
        address, fragment = urldefrag(urljoin(urljoin(url, page.base), href.strip()))
        digest = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
        name = unquote(urlsplit(address).path.rpartition("/")[2])
        files.append(File(name, address, digest.lower(), yanked=yanked))
    return files


class _Links(HTMLParser):
    """The links of a page of PEP 503."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[tuple[str, bool]] = []
        self.base = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if href and tag == "a":
            self.links.append((href, "data-yanked" in dict(attrs)))
        elif href and tag == "base":
            self.base = self.base or href


def with_credentials(url: str, index: str) -> str:
    """``url`` with the user and password of the index, where it lies on the same server."""
    theirs, its = urlsplit(index), urlsplit(url)
    who, at, host = theirs.netloc.rpartition("@")
    if at and its.netloc == host and its.scheme == theirs.scheme:
        return urlunsplit(its._replace(netloc=f"{who}@{host}"))
    return url


# -- looking


def places(workshop: Workshop) -> Places:
    """Where files come from: the settings' ``mirrors.pip``, else what pip is configured with."""
    if workshop.settings.mirrors.pip:
        return Places((workshop.settings.mirrors.pip,))
    pythons = dict.fromkeys(
        [sys.executable, *filter(None, map(shutil.which, ("python3", "python")))]
    )
    for python in pythons:
        # -I: a pip.py in the current directory is not pip.
        asked = look([python, "-I", "-c", ASK_PIP], cwd=workshop.root)
        with contextlib.suppress(ValueError):
            indexes, find_links = json.loads(asked.stdout)
            return Places(tuple(indexes), tuple(find_links))
    raise SlipwayError(
        "no pip here says which package index to ask",
        cause=f"asked: {', '.join(pythons)}",
        fix=["set mirrors.pip in invoke.yaml", "sudo apt install python3-pip"],
        code=BAD_CONFIG,
    )


class NoPage(Exception):  # noqa: N818  # an answer, not a failure
    """The place has no such project."""


class Index:
    """A connection to indexes, with the workshop's CA bundle and the environment's proxies."""

    def __init__(self, workshop: Workshop) -> None:
        self.session = requests.Session()
        self.session.mount("https://", requests.adapters.HTTPAdapter(max_retries=2))
        bundle = workshop.ca_bundle
        self.verify: str | bool = str(bundle) if bundle else True

    def close(self) -> None:
        """End the connections."""
        self.session.close()

    def files(self, page: str) -> list[File]:
        """The files on a page, or in a directory.

        :raises NoPage: there is none.
        :raises requests.RequestException: the server cannot be reached, or refuses.
        """
        if path := local_path(page):
            if path.is_dir() and not (path / "index.html").is_file():
                return [File(p.name, p.as_uri()) for p in sorted(path.iterdir()) if p.is_file()]
            path = path / "index.html" if path.is_dir() else path
            if not path.is_file():
                raise NoPage
            return parse_page(path.read_text("utf-8"), path.as_uri(), "text/html")
        with self.get(page, {"Accept": ACCEPT}) as answer:
            if answer.status_code in (404, 410):
                raise NoPage
            answer.raise_for_status()
            kind = answer.headers.get("Content-Type", "")
            found = parse_page(answer.text, answer.url, kind)
        return [replace(f, url=with_credentials(f.url, page)) for f in found]

    def get(self, url: str, headers: dict[str, str]) -> requests.Response:
        """An answer whose body is still to be read."""
        return self.session.get(
            url, headers=headers, stream=True, timeout=TIMEOUT_S, verify=self.verify
        )

    @contextlib.contextmanager
    def blocks(self, url: str) -> Iterator[tuple[int | None, Iterable[bytes]]]:
        """A file's size, where it is told, and its content, as it lies on the server."""
        if path := local_path(url):
            with path.open("rb") as stream:
                yield path.stat().st_size, iter(lambda: stream.read(1 << 20), b"")
            return
        with self.get(url, {"Accept-Encoding": "identity"}) as answer:
            answer.raise_for_status()
            size = answer.headers.get("Content-Length", "")
            # The raw bytes: a server may call a .tar.gz gzip-encoded, which requests would undo.
            blocks = answer.raw.stream(1 << 20, decode_content=False)
            yield int(size) if size.isdecimal() else None, blocks


def local_path(url: str) -> Path | None:
    """The path that a ``file:`` URL or a plain path means; None for other URLs."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if "://" in url else Path(url).expanduser()


def newest(workshop: Workshop, requirement: Requirement, python_tag: str) -> str | None:
    """The newest version in the package index that satisfies a requirement; None: there is none.

    Only wheels count: the dev image takes nothing else.

    :param python_tag: the Python that it is for: ``cp313``.
    :raises SlipwayError: no place where pip looks answers.
    """
    where = places(workshop)
    pages = pages_of(where, requirement.name)
    offered: list[File] = []
    silent: list[str] = []
    with contextlib.closing(Index(workshop)) as index:
        for page in pages:
            try:
                offered += index.files(page)
            except NoPage:
                continue
            except (requests.RequestException, ValueError, KeyError, OSError) as error:
                silent.append(f"{without_credentials(page)}: {reason(error)}")
    found = newest_of(requirement, offered, python_tag)
    if found is None and silent:
        raise SlipwayError(
            f"the newest {requirement.name} is not known: the package index cannot be read",
            cause="\n".join(silent),
            fix=["invoke doctor, which looks at network, proxy and certificates"],
            code=UNAVAILABLE,
        )
    return found


def pages_of(where: Places, name: str) -> list[str]:
    """The pages, or directories, in which the files of a project are looked for."""
    pages = [*where.find_links]
    return pages + [f"{url.rstrip('/')}/{canonicalize_name(name)}/" for url in where.indexes]


def look_up(index: Index, wanted: Wanted, where: Places) -> File:
    """The file that is wanted, out of the first place that has it.

    :raises SlipwayError: no place has it, or its sha256 is another.
    """
    pages = pages_of(where, wanted.name)
    offered: list[File] = []
    silent: list[str] = []
    for page in pages:
        try:
            found = index.files(page)
        except NoPage:
            continue
        except (requests.RequestException, ValueError, KeyError, OSError) as error:
            silent.append(f"{without_credentials(page)}: {reason(error)}")
            continue
        for file in fitting(wanted, found)[:1]:
            if file.sha256 in ("", wanted.sha256):
                return file
        offered += found
    raise missing(wanted, [without_credentials(page) for page in pages], offered, silent)


def missing(
    wanted: Wanted, pages: Sequence[str], offered: Sequence[File], silent: Sequence[str]
) -> SlipwayError:
    """What to say when no place has what is wanted.

    :param offered: all that they have under that name.
    :param silent: which of them did not answer, and why.
    """
    if others := fitting(wanted, offered):
        return differs(wanted, others[0].name, others[0].sha256, offered)
    if wanted.kind == "sdist":
        named = [v for f in offered if (v := _sdist_version(f.name, wanted.name))]
    else:
        wheels = [f.name for f in offered if wheel_tags(f.name, wanted.name)]
        named = [name.split("-")[1] for name in wheels]
        same = [n for n in wheels if wheel_tags(n, wanted.name, wanted.version)]
        if same:
            pythons = sorted({t.interpreter for n in same for t in wheel_tags(n, wanted.name)})
            return SlipwayError(
                f"no {wanted} on x86-64 Linux",
                cause=f"there are files for: {', '.join(pythons)}",
                fix=["choose another base image, whose Python is one of these"],
                code=NO_INPUT,
            )
    if named:
        return SlipwayError(
            f"no {wanted} in the package index",
            cause="\n".join([f"near it: {', '.join(near(wanted.version, named))}", *silent]),
            fix=["mend source.version in project.yaml"],
            code=NO_INPUT,
        )
    if silent:
        return SlipwayError(
            f"{wanted} is not here, and the package index cannot be read",
            cause="\n".join(silent),
            fix=[
                "invoke doctor, which looks at network, proxy and certificates",
                "set mirrors.pip or ca_bundle in invoke.yaml",
            ],
            code=UNAVAILABLE,
        )
    known = [f for f in offered if _sdist_version(f.name, wanted.name)]
    known += [f for f in offered if wheel_tags(f.name, wanted.name)]
    kind = f"{wanted.kind}s" if known else "files"
    return SlipwayError(
        f"the package index has no {kind} of '{wanted.name}'",
        cause="\n".join(["asked:", *pages]),
        fix=[f"mend source.{wanted.kind} in project.yaml"],
        code=NO_INPUT,
    )


def differs(
    wanted: Wanted, filename: str, found: str, offered: Sequence[File] = ()
) -> SlipwayError:
    """The error for a file that is not the one whose sha256 project.yaml has."""
    lines = [f"project.yaml: {wanted.sha256}", f"{filename}: {found}"]
    lines += [f"the former is {f.name}'s" for f in offered if f.sha256 == wanted.sha256]
    return SlipwayError(
        f"the sha256 of {filename} is not what project.yaml says; nothing of it was kept",
        cause="\n".join(lines),
        fix=["mend source.sha256 in project.yaml, once it is known why they differ"],
        code=BAD_DATA,
    )


def reason(error: Exception) -> str:
    """Why a server did not give what was asked, in one line."""
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted (ca_bundle in invoke.yaml?)"
    if isinstance(error, requests.exceptions.Timeout):
        return "no answer in time"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        return f"HTTP {status}" + (" (credentials?)" if status in (401, 403) else "")
    if isinstance(error, requests.ConnectionError):
        return "no connection (offline? a proxy?)"
    return without_credentials(f"{type(error).__name__}: {error}")


# -- acting


def fetch_file(workshop: Workshop, wanted: Wanted) -> Path:
    """The file, out of the downloads or, the first time, out of an index; its sha256 is right."""
    home = workshop.cache / "downloads" / wanted.sha256[:16]
    if kept := kept_file(home, wanted):
        return kept
    where = places(workshop)
    with contextlib.closing(Index(workshop)) as index:
        file = look_up(index, wanted, where)
        final = home / Path(file.name).name
        if workshop.dry:
            origin = without_credentials(file.url)
            console.say(f"source: {file.name} would be fetched from {origin}")
            return final
        with alone(home):
            if kept := kept_file(home, wanted):
                return kept
            download(index, wanted, file, final)
    return final


def kept_file(home: Path, wanted: Wanted) -> Path | None:
    """The file that was fetched before, if it is still what it was.

    Of another version it is none: then project.yaml has the version of one and the sha256 of the
    other, and the index says so.
    """
    files = [File(p.name, "", wanted.sha256) for p in home.glob("[!.]*")] if home.is_dir() else []
    for file in fitting(wanted, files):
        path = home / file.name
        if sha256(path) == wanted.sha256:
            return path
        console.say(f"source: {path} has changed since it was fetched, and is fetched again")
    return None


def download(index: Index, wanted: Wanted, file: File, final: Path) -> None:
    """Write the file beside, check it, then rename."""
    beside = final.with_name(f".{final.name}.partial")  # of a killed process too: written over
    origin = without_credentials(urldefrag(file.url)[0])
    digest = hashlib.sha256()
    size, got = None, 0
    try:
        with index.blocks(file.url) as (size, blocks), beside.open("wb") as copy:
            told = console.megabytes(size) if size is not None else "of unknown size"
            console.say(f"source: fetching {file.name}, {told}, from {origin}")
            for block in blocks:
                digest.update(block)
                got += copy.write(block)
        if size is not None and got != size:
            raise broke_off(file.name, origin, got, size)
        if digest.hexdigest() != wanted.sha256:
            raise differs(wanted, file.name, digest.hexdigest())
        beside.replace(final)
    except (urllib3.exceptions.HTTPError, requests.RequestException) as error:
        if got:
            raise broke_off(file.name, origin, got, size) from error
        raise SlipwayError(
            f"{file.name} cannot be fetched",
            cause=f"{origin}: {reason(error)}",
            fix=["invoke doctor, which looks at network, proxy and certificates"],
            code=UNAVAILABLE,
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def broke_off(filename: str, origin: str, got: int, size: int | None) -> SlipwayError:
    """The error for a download that ended too early."""
    whole = f" of {size}" if size is not None else ""
    return SlipwayError(
        f"the download of {filename} broke off after {got}{whole} bytes; nothing of it was kept",
        cause=f"the connection to {origin} ended",
        fix=["the same command again"],
        code=IO_ERROR,
    )
