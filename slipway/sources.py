"""Where a source tree comes from: the ``source:`` part of project.yaml, and its fetching.

=========================================  =====================================================
``source:``                                what it is
=========================================  =====================================================
not there                                  the directory of project.yaml, or ``--source DIR``
``directory: DIR``                         another directory on this disk
``git: URL``, ``ref: v1.2.3``              a repository at a tag, branch or commit
``sdist: NAME``, ``version``, ``sha256``   a source archive of a Python package index, unpacked
``wheel: NAME``, ``version``, ``sha256``   a prebuilt wheel, as it is
``debian: NAME``                           a source package of the base image's Debian archive
=========================================  =====================================================

Trees stand in ``out/sources``, files that were fetched in ``downloads`` of the cache. Each is
fetched once, checked, made beside its place and renamed, so it is there whole or not at all, and
never written to again. They stay writable: a build that writes where it stands gets a copy, and a
copy of read-only files would be read-only too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from packaging.version import InvalidVersion
from packaging.version import Version as Pep440

from slipway import console
from slipway.errors import BAD_CONFIG, SlipwayError
from slipway.settings import Workshop

Kind = Literal["here", "directory", "git", "sdist", "wheel", "debian"]
KINDS: tuple[Kind, ...] = ("directory", "git", "sdist", "wheel", "debian")

# Which further keys each kind has: must, may.
KEYS: dict[Kind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "here": ((), ()),
    "directory": ((), ()),
    "git": (("ref",), ("submodules",)),
    "sdist": (("version", "sha256"), ()),
    "wheel": (("version", "sha256"), ()),
    "debian": ((), ("version",)),
}

SHA256 = r"[0-9a-f]{64}"
PACKAGE = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
DEBIAN_PACKAGE = r"[a-z0-9][a-z0-9+.-]+"
DEBIAN_VERSION = r"[0-9][A-Za-z0-9.+:~-]*"

Runner = Callable[[list[str], Sequence[Path]], None]
"""Runs a script of ours in a container that has apt and a network, the directories, which exist,
mounted writable at their own paths, as the caller's user; raises SlipwayError where it fails."""


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the tree comes from: directory, git, sdist, wheel or debian; none: it is here."""

    directory: str = ""
    """Path from project.yaml's directory, or absolute; ``~`` is the home directory."""
    git: str = ""
    """URL, or a path from project.yaml's directory."""
    ref: str = ""
    """Tag, branch or commit; of one name, a tag goes before a branch."""
    submodules: bool = True
    """Whether they are fetched too; then one that cannot be is an error."""
    sdist: str = ""
    """Name in the package index."""
    wheel: str = ""
    """Name in the package index."""
    debian: str = ""
    """Name of a source package."""
    version: str = ""
    """By PEP 440; Debian's own spelling, revision included, for ``debian`` (empty: its newest)."""
    sha256: Annotated[
        str | dict[str, Any],
        msgspec.Meta(extra_json_schema={"additionalProperties": {"type": "string"}}),
    ] = ""
    """Of the file; of a wheel also one for each Python: ``{cp312: …, cp38-abi3: …, py3: …}``."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense; msgspec puts the file and the key before the words."""
        named = [kind for kind in KINDS if getattr(self, kind)]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)}: a tree comes from one of them")
        must, may = KEYS[self.kind]
        for field in self.__struct_fields__:
            given = getattr(self, field) != Source.__struct_defaults__[_position(field)]
            if given and field not in (self.kind, *must, *may):
                with_it = [kind for kind in KINDS if field in (*KEYS[kind][0], *KEYS[kind][1])]
                raise ValueError(f"{field} goes with {' or '.join(with_it)}")
            if field in must and not given:
                raise ValueError(f"{self.kind} needs {field}")
        for problem in _problems(self):
            raise ValueError(problem)

    @property
    def kind(self) -> Kind:
        """Which of them it is."""
        return next((kind for kind in KINDS if getattr(self, kind)), "here")


def _position(field: str) -> int:
    return Source.__struct_fields__.index(field)


def _problems(source: Source) -> list[str]:
    """What is wrong with the values themselves."""
    problems = []
    if source.ref and re.search(r"^[-/]|\.\.|@\{|[\s~^:?*\[\\\x00-\x1f\x7f]", source.ref):
        problems.append(f"ref: '{source.ref}' is no name of a tag, branch or commit")
    if source.git.startswith("-"):
        problems.append(f"git: '{source.git}' is no URL and no path")
    for kind in ("sdist", "wheel"):
        name = getattr(source, kind)
        if name and not re.fullmatch(PACKAGE, name):
            problems.append(f"{kind}: '{name}' is no name of a Python package")
    if source.debian:
        if not re.fullmatch(DEBIAN_PACKAGE, source.debian):
            problems.append(f"debian: '{source.debian}' is no name of a Debian source package")
        if source.version and not re.fullmatch(DEBIAN_VERSION, source.version):
            problems.append(f"version: '{source.version}' is no version of a Debian package")
    elif source.version and not _is_pep440(source.version):
        problems.append(f"version: '{source.version}' is no version by PEP 440")
    if isinstance(source.sha256, dict) and source.kind != "wheel":
        problems.append("sha256: an sdist is one file and has one")
    several = source.sha256 if isinstance(source.sha256, dict) else {"": source.sha256}
    for key, value in several.items():
        if value and not (isinstance(value, str) and re.fullmatch(SHA256, value)):
            where = f"sha256.{key}" if key else "sha256"
            problems.append(f"{where}: '{value}' is no sha256 (64 hex digits, in small letters)")
    return problems


def _is_pep440(version: str) -> bool:
    try:
        Pep440(version)
    except InvalidVersion:
        return False
    return True


def fetch(
    workshop: Workshop,
    source: Source,
    *,
    base: Path,
    python_tag: str = "",
    run: Runner | None = None,
) -> Path:
    """The directory of the source tree, or the wheel's file; fetched where it is not here yet.

    With invoke's ``--dry`` look-ups run, and what is returned is where it would be.

    :param base: project.yaml's directory: the tree itself where no source is named, and where a
        relative path of ``git`` starts.
    :param python_tag: for a wheel, the Python that it is for, such as ``cp313``.
    :param run: for a Debian source package, what runs a script in a container.
    """
    if source.kind == "directory":
        return (base / Path(source.directory).expanduser()).resolve()
    if source.kind == "git":
        from slipway.checkouts import fetch_checkout

        return fetch_checkout(
            workshop, source.git, source.ref, base=base, submodules=source.submodules
        )
    if source.kind == "sdist":
        return fetch_sdist(workshop, source)
    if source.kind == "wheel":
        return fetch_wheel(workshop, source, python_tag)
    if source.kind == "debian":
        return fetch_debian(workshop, source, run)
    return base


def fetch_sdist(workshop: Workshop, source: Source) -> Path:
    """The directory of an unpacked sdist."""
    digest = str(source.sha256)
    from packaging.utils import canonicalize_name

    from slipway.fetched import make_whole

    name = f"{canonicalize_name(source.sdist)}-{Pep440(source.version)}-{digest[:12]}"
    final = workshop.out / "sources" / name
    if final.is_dir():
        return final
    # requests takes 60 ms to import, which a tree that is here does not pay.
    from slipway.indexes import Wanted, fetch_file
    from slipway.unpack import unpack

    archive = fetch_file(workshop, Wanted("sdist", source.sdist, source.version, digest))
    if not workshop.dry and make_whole(final, lambda partial: unpack(archive, partial)):
        size = console.megabytes(archive.stat().st_size)
        where = console.shown(final, workshop.root)
        console.say(f"source: {archive.name}, {size}, unpacked from the cache into {where}")
    return final


def fetch_wheel(workshop: Workshop, source: Source, python_tag: str) -> Path:
    """The file of a wheel, for a Python where there is one for each."""
    from slipway.indexes import Wanted, digest_for, fetch_file

    digest: str | None
    if isinstance(source.sha256, dict):
        digest = digest_for(python_tag, source.sha256)
    else:
        digest = source.sha256
    if digest is None:
        raise SlipwayError(
            f"project.yaml has no sha256 of the wheel of {source.wheel} for {python_tag or 'any'}",
            cause=f"it has them for: {', '.join(sorted(source.sha256))}",
            fix=[
                f"add source.sha256.{python_tag or 'cp313'} to project.yaml",
                "choose another base image, whose Python is one of these",
            ],
            code=BAD_CONFIG,
        )
    return fetch_file(workshop, Wanted("wheel", source.wheel, source.version, digest, python_tag))


def fetch_debian(workshop: Workshop, source: Source, run: Runner | None) -> Path:
    """The directory of an unpacked Debian source package, patches applied.

    Without a version it is the newest that the base image's archive has when it is fetched, and
    that one from then on.
    """
    final = workshop.out / "sources" / debian_name(source, workshop.settings.base)
    if final.is_dir():
        return final
    if workshop.dry:
        console.say(f"source: Debian's {source.debian} would be fetched into {final}")
        return final
    if run is None:
        raise SlipwayError(
            f"Debian's source package {source.debian} is not here, and no container to fetch it in",
            cause="apt and dpkg-source of the base image do it",
            fix=["invoke build, with an engine"],
        )
    downloads = workshop.cache / "downloads" / f"debian-{final.name}"

    def fill(partial: Path) -> Path:
        downloads.mkdir(parents=True, exist_ok=True)
        tree = partial / "tree"
        run(debian_command(workshop, source, downloads, tree), [downloads, partial])
        return tree

    from slipway.fetched import make_whole

    if make_whole(final, fill):
        where = console.shown(final, workshop.root)
        console.say(f"source: Debian's {source.debian} unpacked into {where}")
    return final


def debian_name(source: Source, image: str) -> str:
    """A directory's name: the package and its version, else the base image that has chosen it."""
    which = source.version or re.sub(r".*/", "", image)
    return f"{source.debian}-" + re.sub(r"[^A-Za-z0-9.+~-]+", "-", which)


def debian_command(workshop: Workshop, source: Source, downloads: Path, tree: Path) -> list[str]:
    """The command that fetches and unpacks a Debian source package, for a container."""
    script = str(workshop.scripts / "debian-source")
    version = ["--version", source.version] if source.version else []
    return [script, *version, source.debian, str(downloads), str(tree)]


def known_version(source: Source, tree: Path) -> str | None:
    """The version that the source itself tells, by PEP 440; None: git or the files tell it."""
    if source.kind in ("sdist", "wheel"):
        return source.version
    if source.kind != "debian":
        return None
    version = source.version
    changelog = tree / "debian" / "changelog"
    if not version and changelog.is_file():
        with changelog.open(encoding="utf-8", errors="replace") as stream:
            version = debian_version(stream.readline())
    return upstream(version)


def debian_version(line: str) -> str:
    """The version in the first line of debian/changelog; empty where there is none."""
    found = re.match(r"\S+ \(([^)\s]+)\)", line)
    return found[1] if found else ""


def upstream(version: str) -> str | None:
    """The upstream version in a Debian one, by PEP 440; None where it is none.

    Epoch and revision go, and what says that files were left out (``+dfsg1``, ``+ds``).
    """
    bare = re.sub(r"^\d+:|-[^-]*$", "", version)
    bare = re.sub(r"[+~.](dfsg|ds|repack)[.\d]*$", "", bare).replace("~", "")
    return bare if _is_pep440(bare) else None


def described(source: Source) -> str:
    """A source in one line, for what a person reads."""
    if source.kind == "git":
        from slipway.fetched import without_credentials

        return f"{without_credentials(source.git)} at {source.ref}"
    name = getattr(source, source.kind, "")
    return f"{source.kind} {name} {source.version}".strip() if name else "the project's directory"
