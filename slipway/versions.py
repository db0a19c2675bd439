"""One version of a source tree, in three spellings: PEP 440, Debian, image tag.

The version follows from git where the tree is tracked there, else from the project's own files:

=================================================  ==========================
the source tree                                    its version
=================================================  ==========================
at the tag ``v1.2.3`` or ``1.2.3``                 ``1.2.3``
5 commits after the tag                            ``1.2.4.dev5+g1a2b3c4``
5 commits after ``v1.2.3rc1``                      ``1.2.3rc2.dev5+g1a2b3c4``
at the tag, with changes                           ``1.2.4.dev0+g1a2b3c4.dirty``
7 commits, no tag, the files declare ``0.1.0``     ``0.1.0.dev7+g1a2b3c4``
a shallow clone in which no tag is seen            ``0.1.0.dev0+g1a2b3c4``
not in git, the files declare ``0.1.0``            ``0.1.0``
=================================================  ==========================

With nothing declared, ``0.0.0`` stands for the declared version. What comes after a tag counts
towards the lowest release that can follow, so it sorts after the tag and before that release, and
changes at a tag count as a development version with no commits yet. Tags that are no PEP 440
release (``nightly``, ``v1``, ``v1.0.dev1``) are skipped; of the others that HEAD contains, those at
HEAD come first, then the highest. PEP 440 and Debian order their spellings alike, given equally
many numbers and one commit per distance (of two hashes, neither is the later).
"""

from __future__ import annotations

import calendar
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace
from packaging.version import InvalidVersion
from packaging.version import Version as Pep440

from slipway.errors import BAD_CONFIG, NO_INPUT, SlipwayError
from slipway.processes import meanwhile
from slipway.records import Record

MAX_TAG = 128  # characters, as the reference grammar of the distribution project allows

# What git sets for its hooks: with these, `git -C` would look at the hook's repository.
REPOSITORY_VARIABLES = (
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_WORK_TREE",
)


class Version(Record, frozen=True):
    """The version of one source tree at one moment."""

    pep440: str
    debian: str
    tag: str
    """For an image: ``[A-Za-z0-9_.-]`` only, 128 characters at most."""
    commit: str
    """The full hash of HEAD; empty where git does not know the tree."""
    dirty: bool
    """Whether files below the source directory differ from the commit, or are not in it."""
    epoch: int
    """Seconds since 1970: SOURCE_DATE_EPOCH, else the commit's date, else the newest file's."""


class Commit(Record, frozen=True):
    """What git knows of a source tree."""

    hash: str
    epoch: int
    release: Pep440 | None
    """The release that HEAD is, or that it comes after."""
    distance: int
    """Commits since that release, or since the beginning; 0 where a shallow clone hides it."""
    dirty: bool


def version_of(source: Path, declared: str | None = None) -> Version:
    """The version of a source tree; it takes a few git processes and writes nothing.

    :param declared: the version in the project's own files, see :func:`declared_version`.
    :raises SlipwayError: the declared version or SOURCE_DATE_EPOCH is none, or git fails.
    """
    try:
        coming = Pep440(declared or "0.0.0")
    except InvalidVersion:
        raise SlipwayError(
            f"'{declared}' is no version by PEP 440",
            cause=f"the files of {source} declare it; 1.2.3, 1.2.3rc1 or 1.2.3.post1 are versions",
            code=BAD_CONFIG,
        ) from None
    commit = read_commit(source)
    version = version_at(commit, coming) if commit else coming
    return Version(
        pep440=str(version),
        debian=debian_spelling(version),
        tag=tag_spelling(version),
        commit=commit.hash if commit else "",
        dirty=commit.dirty if commit else False,
        epoch=source_date_epoch(lambda: commit.epoch if commit else newest_file(source)),
    )


def version_of_file(wheel: Path, version: str) -> Version:
    """The version of a prebuilt wheel, dated by the newest file in it.

    :param version: by PEP 440.
    """
    import zipfile  # only wheels need it

    def newest() -> int:
        with zipfile.ZipFile(wheel) as archive:
            dates = [info.date_time for info in archive.infolist()]
        return calendar.timegm((*max(dates), 0, 0, 0))

    known = Pep440(version)
    return Version(
        pep440=str(known),
        debian=debian_spelling(known),
        tag=tag_spelling(known),
        commit="",
        dirty=False,
        epoch=source_date_epoch(newest),
    )


# -- deciding: pure functions


def version_at(commit: Commit, coming: Pep440) -> Pep440:
    """The version of a commit; ``coming`` is what is released next where no tag says so."""
    if commit.release and not commit.distance and not commit.dirty:
        return commit.release
    # A declared version may itself be a development version, or name a build: neither can be kept.
    base = next_release(commit.release) if commit.release else re.split(r"\.dev|\+", str(coming))[0]
    dirty = ".dirty" if commit.dirty else ""
    return Pep440(f"{base}.dev{commit.distance}+g{commit.hash[:7]}{dirty}")


def rehearsed(version: Version) -> Version:
    """The version of a rehearsal, which says so, and sorts before the release that it rehearses.

    ``1.2.4.dev5+g1a2b3c4`` has ``1.2.4.dev5+g1a2b3c4.rehearsal``, and ``1.2.3``, of a commit with
    that tag, ``1.2.3.dev0+g1a2b3c4.rehearsal``.
    """
    here = version.pep440
    start = here if Pep440(here).local else f"{here}.dev0+g{version.commit[:7]}"
    return renamed(version, Pep440(f"{start}.rehearsal"))


def renamed(version: Version, name: Pep440) -> Version:
    """The same moment of the same tree under another version, in its three spellings."""
    return replace(version, pep440=str(name), debian=debian_spelling(name), tag=tag_spelling(name))


def next_release(release: Pep440) -> str:
    """The lowest release of the same kind that can follow: its last number and one."""
    if str(release) == release.base_version and len(release.release) == 2:
        return f"{release}.1"  # what follows 1.2 may be 1.2.1
    return re.sub(r"\d+$", lambda number: str(int(number[0]) + 1), str(release))


def parse_release(tag: str) -> Pep440 | None:
    """The release that a tag names, in two numbers or more; None for any other tag.

    One number alone is a date, or a mark that moves along with the releases of ``v1``.
    """
    try:
        version = Pep440(tag)  # takes the leading v
    except InvalidVersion:
        return None
    is_release = len(version.release) > 1 and not version.is_devrelease and not version.local
    return version if is_release else None


def debian_spelling(version: Pep440) -> str:
    """The upstream version of a Debian package, in the same order.

    In dpkg's order ``~`` comes before the end of the string, letters come next and ``+`` after
    them. So ``~~dev`` is before ``~a1``, as PEP 440 has it, and ``++post`` after any ``+local``.
    """
    epoch = f"{version.epoch}:" if version.epoch else ""
    numbers = ".".join(str(number) for number in version.release)
    pre = "~{}{}".format(*version.pre) if version.pre else ""
    post = "" if version.post is None else f"++post{version.post}"
    dev = "" if version.dev is None else f"~~dev{version.dev}"
    local = f"+{version.local}" if version.local else ""
    return f"{epoch}{numbers}{pre}{post}{dev}{local}"


def tag_spelling(version: Pep440) -> str:
    """The tag of an image, which may have neither ``+`` nor ``!``."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", str(version))[:MAX_TAG]


# -- looking: git, the environment, the files


def read_commit(source: Path) -> Commit | None:
    """What git knows of a source tree; None without git, or where HEAD has no such directory.

    The latter keeps a tree that is unpacked inside another repository, ignored or just not
    committed there, from taking that one's version.
    """
    # What does not wait for another answer is asked beside the others.
    status = meanwhile(
        lambda: run_git(source, "status", "--porcelain", "--untracked-files=normal", "--", ".")
    )
    fields = "--format=%(refname:strip=2) %(objectname) %(*objectname)"
    merged = meanwhile(
        lambda: run_git(source, "for-each-ref", "--merged=HEAD", fields, "refs/tags")
    )
    try:
        asked = run_git(source, "rev-parse", "--is-shallow-repository", "HEAD", "HEAD:./")
    except FileNotFoundError:  # no git on this machine: the files alone have to do
        return None
    answers = asked.stdout.splitlines()
    if not answers and "not a git repository" not in asked.stderr:
        raise git_error(source, asked.stderr)
    if asked.returncode:
        return None
    shallow, head, _tree = answers
    tags = lines_of(source, merged())
    found = [
        (objects[-1] == head, release, objects[-1])
        for name, *objects in map(str.split, tags)
        if (release := parse_release(name))
    ]
    _, release, tagged = max(found, default=(False, None, ""))
    # From HEAD, which is the first line, back to the tag's commit, that one included.
    before = [f"^{tagged}^@"] if tagged else []
    since = ask_git(source, "rev-list", "--timestamp", "HEAD", *before)
    unknown = shallow == "true" and not release
    dirty = lines_of(source, status())
    return Commit(
        hash=head,
        epoch=int(since[0].split()[0]),
        release=release,
        distance=0 if unknown else len(since) - bool(release),
        dirty=bool(dirty),
    )


def ask_git(source: Path, *arguments: str) -> list[str]:
    """The lines that git answers."""
    return lines_of(source, run_git(source, *arguments))


def lines_of(source: Path, done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of an answer, which must not be a refusal."""
    if done.returncode:
        raise git_error(source, done.stderr)
    return done.stdout.splitlines()


def run_git(source: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in the source tree so that it looks at this repository, and only looks."""
    env = {name: value for name, value in os.environ.items() if name not in REPOSITORY_VARIABLES}
    env["GIT_OPTIONAL_LOCKS"] = "0"  # else `status` writes the index of the caller's tree
    env["LC_ALL"] = "C"
    # Containers and CI often see a tree that belongs to another user; git 2.38 and later take the
    # exception on the command line. No monitor is started, nor run where one is configured.
    trust = ["-c", "safe.directory=*", "-c", "core.fsmonitor=false"]
    command = ["git", "-C", str(source), *trust, *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=env)


def git_error(source: Path, words: str) -> SlipwayError:
    """What to say when git fails on a tree that is in a repository."""
    trust = shlex.join(["git", "config", "--global", "--add", "safe.directory", str(source)])
    fix = [trust] if "safe.directory" in words else [shlex.join(["git", "-C", str(source), "fsck"])]
    return SlipwayError(f"git cannot read {source}", cause=words, fix=fix, code=NO_INPUT)


def source_date_epoch(otherwise: Callable[[], int]) -> int:
    """The one date that everything made from a source carries, in seconds.

    :param otherwise: asked where SOURCE_DATE_EPOCH is not set.
    """
    named = os.environ.get("SOURCE_DATE_EPOCH")
    if named:
        if not re.fullmatch(r"[0-9]+", named):
            raise SlipwayError(
                f"SOURCE_DATE_EPOCH is '{named}'",
                cause="it counts the seconds since 1970 and is a whole number",
                fix=["unset SOURCE_DATE_EPOCH"],
                code=BAD_CONFIG,
            )
        return int(named)
    return otherwise()


def newest_file(source: Path) -> int:
    """When the newest file below a directory was changed, git's own files aside."""
    newest = 0.0
    for folder, folders, names in os.walk(source):
        folders[:] = [name for name in folders if name != ".git"]
        newest = max([newest, *(Path(folder, name).lstat().st_mtime for name in names)])
    return int(newest)


# -- the project's own files


def declared_version(source: Path) -> str | None:
    """The version that a project's own files declare, None where they declare none.

    Read in this order: ``project(... VERSION ...)`` in CMakeLists.txt, ``[project] version`` in
    pyproject.toml, ``project(version: ...)`` in meson.build, VERSION.txt, VERSION.
    """
    for name, read in READERS:
        path = source / name
        if path.is_file():
            version = read(path.read_text(encoding="utf-8", errors="replace"))
            if version:
                return version
    return None


def cmake_version(text: str) -> str | None:
    """The version in CMake's first ``project()``, where it is written out."""
    code = re.sub(r"#.*", "", text)
    call = re.search(r"\bproject\s*\(([^)]*)\)", code, re.IGNORECASE)
    found = re.search(r'\bVERSION\s+"?(\d[\d.]*)', call[1]) if call else None
    return found[1] if found else None


def pyproject_version(text: str) -> str | None:
    """The version in pyproject.toml, unless it is dynamic."""
    if sys.version_info >= (3, 11):  # here, since most trees have none
        import tomllib
    else:
        import tomli as tomllib

    try:
        version = tomllib.loads(text).get("project", {}).get("version")
    except tomllib.TOMLDecodeError as error:
        raise SlipwayError(
            "pyproject.toml is no TOML", cause=str(error), fix=["mend it"], code=BAD_CONFIG
        ) from None
    return str(version) if version else None


def meson_version(text: str) -> str | None:
    """The version in Meson's ``project()``, where it is written out."""
    code = re.sub(r"#.*", "", text)
    found = re.search(r"\bproject\s*\([^)]*?\bversion\s*:\s*'([^']+)'", code)
    return found[1] if found else None


def plain_version(text: str) -> str | None:
    """The version that is all a file has to say."""
    try:
        Pep440(text)  # takes blanks around it
    except InvalidVersion:
        return None
    return text.strip()


READERS: tuple[tuple[str, Callable[[str], str | None]], ...] = (
    ("CMakeLists.txt", cmake_version),
    ("pyproject.toml", pyproject_version),
    ("meson.build", meson_version),
    ("VERSION.txt", plain_version),
    ("VERSION", plain_version),
)
