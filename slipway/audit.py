"""``invoke audit``: every ELF file of a build, a package, a wheel or an image, held to its variant.

What we compiled fails when it asks more of a CPU than the variant's row says. What others
compiled, and what asks the CPU before it uses more, is named with the reason. A verdict depends on
nothing but the file, so it is kept by the file's hash, for all checkouts.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import io
import os
import re
import shlex
import tarfile
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from slipway import console, engine, isa, processes, receipts
from slipway.builds import Site
from slipway.errors import BAD_CONFIG, BAD_DATA, NO_INPUT, SlipwayError, nearest
from slipway.images import file_hash
from slipway.isa import UnreadableError, Verdict
from slipway.packages import package_name
from slipway.project import Tree, resolve
from slipway.records import Record
from slipway.settings import Workshop
from slipway.unpack import DAMAGED

# Debian's packages that go beyond what every x86-64 CPU has, and why they run anyway: patterns
# of their names, of which the first that fits counts.
OTHERS: dict[str, str] = {
    "libc6": "ld.so, libc and libm choose their functions by what the CPU has",
    "libc-bin": "ldconfig is linked with libc, which asks the CPU",
    "tini": "is linked with libc, which asks the CPU",
    "libstdc++6": "std::random_device asks the CPU before it uses RDRAND and RDSEED",
    "libgfortran*": "its MATMUL is there several times, chosen by what the CPU has",
    "libatomic1": "its 16-byte operations are chosen by what the CPU has",
    "libitm1": "asks the CPU for RTM before it uses it",
    "libblas3": "OpenBLAS's kernels, where it is that, are chosen when it is loaded",
    "liblapack3": "OpenBLAS's kernels, where it is that, are chosen when it is loaded",
    "libopenblas*": "OpenBLAS's kernels are chosen when it is loaded",
    "python3-numpy*": "NumPy's kernels are chosen when it is imported",
    "libssl3*": "OpenSSL's ciphers and hashes are chosen by OPENSSL_ia32cap",
    "libgcrypt20": "its ciphers and hashes are chosen by what the CPU has",
    "libgnutls30*": "its ciphers and hashes are chosen by what the CPU has",
    "libnettle8*": "its ciphers and hashes are chosen by what the CPU has",
    "librhash*": "its CRC is chosen by what the CPU has",
    "libxxhash0": "its hash is chosen by what the CPU has",
    "libdeflate0": "its checksums and decoder are chosen by what the CPU has",
    "libzstd1": "its decoder with BMI2 is chosen by what the CPU has",
    "libpcre2-*": "compiles patterns for the CPU that it finds",
    "coreutils": "cksum and wc ask the CPU before they use more",
}
# For the rest of an image, which is told and does not fail. Debian compiles for the first level,
# so what goes beyond it asks the CPU first.
NOT_NAMED = "compiled by others, and not in the allow-list"

SHOWN_FILES, SHOWN_PLACES = 8, 2  # of what fails


class File(Record, frozen=True):
    """One ELF file."""

    path: str
    """Below what is audited; ``lib.a(part.o)`` in an archive."""
    verdict: Verdict | None
    problem: str = ""
    """Why there is no verdict."""


class Judged(Record, frozen=True):
    """One ELF file, held to a row of the variants' table."""

    file: File
    owner: str = ""
    """The package of others that it is from; empty: it is ours."""
    beyond: tuple[str, ...] = ()
    """Extensions that a CPU of the row need not have."""
    reason: str = ""
    """Why it may: of the allow-list."""

    @property
    def fails(self) -> bool:
        """Whether what it is audited in fails for it."""
        return bool(self.beyond or self.file.problem) and not self.reason

    @property
    def said(self) -> str:
        """The verdict in a few words."""
        if self.file.problem:
            return self.file.problem + (f": allowed, {self.reason}" if self.reason else "")
        if not self.beyond:
            return "ok"
        return f"allowed: {self.reason}" if self.reason else f"beyond it: {', '.join(self.beyond)}"


# -- deciding: pure functions


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern fits: `*` and `?` stay within a directory, `**` goes through any number."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/"))
    means = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return bool(re.fullmatch("".join(means.get(p, re.escape(p)) for p in parts), path))


def judge(file: File, level: str, allow: Mapping[str, str], owner: str = "") -> Judged:
    """Hold a file to a level.

    :param allow: patterns of files, or of functions as ``FILE:FUNCTION``, and the reasons.
    :param owner: the package of others that it is from.
    """
    beyond = tuple(file.verdict.beyond(level)) if file.verdict else ()
    if owner and not beyond and not file.problem:
        return Judged(file, owner)
    if owner:
        fits = (why for name, why in OTHERS.items() if fnmatch.fnmatchcase(owner, name))
        return Judged(file, owner, beyond, next(fits, NOT_NAMED))
    rows = [(*pattern.partition(":")[::2], why) for pattern, why in allow.items()]
    rows = [row for row in rows if matches(row[0], file.path)]
    whole = next((why for _, function, why in rows if not function), "")
    if whole or not beyond or not file.verdict:
        return Judged(file, owner, beyond, whole)
    functions = {name: why for _, name, why in rows}
    held = {e: _reasons(file.verdict.extensions[e], functions) for e in beyond}
    left = tuple(e for e, reasons in held.items() if not reasons)
    why = dict.fromkeys(reason for reasons in held.values() for reason in reasons)
    return Judged(file, owner, left or beyond, "" if left else "; ".join(why))


def _reasons(use: isa.Use, functions: Mapping[str, str]) -> list[str]:
    """Why every function that uses an extension may; empty where one may not."""
    if use.functions > len(use.places):  # which ones the rest are is not known
        return []
    found = []
    for place in use.places:
        fits = (why for name, why in functions.items() if fnmatch.fnmatchcase(place.function, name))
        found.append(next(fits, ""))
    return found if all(found) else []


def lost_vectors(judged: Iterable[Judged], level: str) -> bool:
    """Whether vector code was compiled, and none of it as AVX, where the level has that.

    A compiler that is told of AVX uses no SSE encoding at all, so it was not told. A library of
    whole numbers may have no vector code, and loses nothing. Files that are allowed as a whole do
    not count.
    """
    if isa.LEVELS.index(level) < isa.LEVELS.index("x86-64-v3"):
        return False
    ours = [j.file.verdict for j in judged if not j.owner and not j.reason and j.file.verdict]
    old, new = (sum(counts) for counts in zip((0, 0), *(v.vectors for v in ours), strict=True))
    return bool(old) and not new


def level_of(tree: Tree, variant: str) -> str:
    """The level of a variant's row, which has to be one of the psABI's."""
    level = tree.variants[variant].isa
    if level not in isa.LEVELS:
        raise SlipwayError(
            f"variants.{variant}.isa in invoke.yaml: '{level}' is no level of the x86-64 psABI",
            cause=nearest(level, isa.LEVELS),
            fix=["write one of them: any other cannot be audited"],
            code=BAD_CONFIG,
        )
    return level


def failure(what: str, judged: Sequence[Judged], level: str, source: str) -> SlipwayError | None:
    """What is wrong with what was audited: files and functions by name, and what to do.

    :param what: such as ``the build of oar 1.2.0 noavx``.
    """
    failing = [j for j in judged if j.fails]
    unreadable = [j for j in failing if j.file.problem]
    if unreadable:
        first = unreadable[0]
        return SlipwayError(
            f"{what}: {first.file.path} {first.file.problem}",
            cause="so nobody can say which CPUs run it",
            fix=[
                "invoke clean, then invoke build: a file that was cut off is made anew",
                _allowed(first.file.path),
            ],
            code=BAD_DATA,
        )
    if failing:
        search = shlex.join(["grep", "-rnE", "march=|mtune=native|-mavx|-mfma", source])
        lines = [line for j in failing[:SHOWN_FILES] for line in _told(j)]
        more = len(failing) - SHOWN_FILES
        return SlipwayError(
            f"{what} goes beyond {level} in {len(failing)} of {len(judged)} files",
            cause="\n".join([*lines, *([f"and {more} more files"] if more > 0 else [])]),
            fix=[
                f"{search}, and leave it to the variant",
                _allowed(failing[0].file.path),
            ],
            code=BAD_DATA,
        )
    if lost_vectors(judged, level):
        return SlipwayError(
            f"{what} has vector code, and none of {level}'s: it runs slower than it could",
            cause="the flags of the variant did not reach the compiler: a build system that sets "
            "CMAKE_CXX_FLAGS or CXXFLAGS itself drops what the environment says",
            fix=[
                shlex.join(["grep", "-rnE", 'C(XX)?_?FLAGS *[:=" ]', source]),
                "append to the flags there are, or use {flags} in build.options",
                "audit: {allow: {'**': REASON}} in project.yaml, if it is right as it is",
            ],
            code=BAD_DATA,
        )
    return None


def _allowed(path: str) -> str:
    name = Path(path).name.partition("(")[0]
    return f"audit: {{allow: {{'**/{name}': REASON}}}} in project.yaml, if it asks the CPU first"


def _told(judged: Judged) -> Iterator[str]:
    verdict = judged.file.verdict
    yield f"{judged.file.path}: {', '.join(judged.beyond)}"
    for extension in judged.beyond[:SHOWN_PLACES]:
        use = verdict.extensions[extension] if verdict else None
        for place in use.places[:SHOWN_PLACES] if use else ():
            yield f"  {extension} in {place}"
    if verdict and verdict.named_by == "sections":
        yield "  it is stripped, without a symbol: offsets are those of sections"


# -- looking: what is read


class Reader(Record, frozen=True):
    """Turns contents into verdicts, and keeps them."""

    kept: Path
    """Directory of the verdicts."""
    debug: Path | None = None
    """Where the symbols are that were split off, by build id."""
    keeps: bool = True
    """Whether what is found now is kept; with ``--dry`` nothing is written."""

    def files(self, path: str, data: bytes) -> Iterator[File]:
        """The ELF files that a content comes to: itself, or an archive's members."""
        if isa.is_elf(data):
            try:
                yield File(path, self.verdict(data))
            except UnreadableError as error:
                yield File(path, None, str(error))
        elif data.startswith(ARCHIVE):
            try:
                for name, content in isa.members(data):
                    if isa.is_elf(content):
                        yield from self.files(f"{path}({name})", content)
            except UnreadableError as error:
                yield File(path, None, str(error))

    def verdict(self, data: bytes) -> Verdict:
        """The verdict on a file: as kept, or found now."""
        symbols = self.symbols(data)
        digest = hashlib.sha256(data)
        if symbols:
            digest.update(hashlib.sha256(symbols).digest())
        file = self.kept / digest.hexdigest()[:2] / f"{digest.hexdigest()}.json"
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(file.read_bytes(), type=Verdict)
        verdict = isa.examine(data, symbols)
        if self.keeps:
            receipts.write_whole(file, msgspec.json.encode(verdict).decode())
        return verdict

    def symbols(self, data: bytes) -> bytes:
        """The symbols that were split off a file; empty where they are not here."""
        identity = isa.parse(data).build_id if self.debug else ""
        if not self.debug or not identity:
            return b""
        file = self.debug / identity[:2] / f"{identity[2:]}.debug"
        return file.read_bytes() if file.is_file() else b""


ARCHIVE = b"!<arch>\n"


def reader(workshop: Workshop, debug: Path | None = None) -> Reader:
    """A reader with the verdicts that all checkouts of this user share."""
    kept = workshop.cache / "isa" / file_hash(Path(isa.__file__))[:16]
    return Reader(kept, debug, keeps=not workshop.dry)


def _wanted(stream: IO[bytes]) -> bytes:
    """A whole content where it is an ELF file or an archive; else nothing."""
    start = stream.read(len(ARCHIVE))
    if isa.is_elf(start) or start == ARCHIVE:
        return start + stream.read()
    return b""


def of_path(look: Reader, path: Path) -> list[File]:
    """The ELF files of a directory, a .deb, a wheel, or of a file itself."""
    if path.is_dir():
        return list(of_directory(look, path))
    if not path.is_file():
        raise SlipwayError(
            f"no file or directory {path}",
            fix=["invoke audit, for what has been made, or --path with what is there"],
            code=NO_INPUT,
        )
    with path.open("rb") as stream:
        start = stream.read(len(ARCHIVE))
    if path.suffix == ".whl":
        return list(of_wheel(look, path))
    if start == ARCHIVE and path.suffix == ".deb":
        return list(of_deb(look, path))
    if isa.is_elf(start) or start == ARCHIVE:
        return list(look.files(path.name, path.read_bytes()))
    raise SlipwayError(
        f"{path} is no ELF file, archive, .deb or wheel",
        cause=f"it begins with {start!r}",
        fix=["invoke audit --path FILE-or-DIRECTORY, with one that is"],
        code=BAD_DATA,
    )


def of_directory(look: Reader, top: Path, leave_out: Path | None = None) -> Iterator[File]:
    """The ELF files below a directory, those of wheels in it too; links are not followed.

    :param leave_out: a tree like it, of source: files that it has too were not compiled.
    """
    for path in receipts.files_below(top):
        name = path.relative_to(top)
        if path.is_symlink() or not path.is_file() or (leave_out and (leave_out / name).exists()):
            continue
        if path.suffix == ".whl":
            yield from (
                msgspec.structs.replace(f, path=f"{name}/{f.path}") for f in of_wheel(look, path)
            )
            continue
        with path.open("rb") as stream:
            yield from look.files(name.as_posix(), _wanted(stream))


def of_deb(look: Reader, deb: Path) -> Iterator[File]:
    """The ELF files of a Debian package."""
    with unpacked(deb) as tar:
        for path, stream in _regular(tar):
            yield from look.files(path, _wanted(stream))


@contextlib.contextmanager
def unpacked(deb: Path) -> Iterator[tarfile.TarFile]:
    """What a Debian package installs, to be read once from front to end."""
    with undamaged(str(deb)):
        members = dict(isa.members(deb.read_bytes()))
        name = next((n for n in members if n.startswith("data.tar")), "")
        if not name:
            raise UnreadableError("has no data.tar: it is no Debian package")
        if name.endswith(".zst") and not hasattr(tarfile.TarFile, "zstopen"):
            raise SlipwayError(
                f"{deb} is packed with zstd, which this Python cannot read",
                fix=[
                    shlex.join(["dpkg-deb", "--extract", str(deb), "DIRECTORY"]),
                    "invoke audit --path DIRECTORY",
                ],
                code=BAD_DATA,
            )
        with tarfile.open(fileobj=io.BytesIO(members[name]), mode="r|*") as tar:
            yield tar


def of_wheel(look: Reader, wheel: Path) -> Iterator[File]:
    """The ELF files of a wheel."""
    with undamaged(str(wheel)), zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            with archive.open(info) as stream:
                yield from look.files(info.filename, _wanted(stream))


def _regular(tar: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    for info in tar:
        stream = tar.extractfile(info) if info.isreg() else None
        if stream is not None:
            yield info.name.removeprefix("./").lstrip("/"), stream


@contextlib.contextmanager
def undamaged(what: str) -> Iterator[None]:
    """Say of what is read in here that it is damaged, where Python's own words say it.

    :param what: the file, for the message.
    """
    try:
        yield
    except (UnreadableError, *DAMAGED) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's refusal, not the file's fault
        raise SlipwayError(
            f"{what} is damaged, or not what its name says",
            cause=f"{type(error).__name__}: {error}",
            fix=["make or fetch it again"],
            code=BAD_DATA,
        ) from error


class Contents(Record, frozen=True):
    """What an image holds."""

    files: list[File]
    owners: dict[str, str]
    """Path of an ELF file to the Debian package that it is from; empty: from none."""
    missing: dict[str, list[str]]
    """By package: shared libraries that dpkg lists and the image lacks."""

    @property
    def packages(self) -> set[str]:
        """All packages that are installed."""
        return set(self.missing)


LISTS = re.compile(r"var/lib/dpkg/info/([a-z0-9][a-z0-9+.-]*)(?::[a-z0-9]+)?\.list")


def plain(path: str) -> str:
    """A path by which dpkg's lists and an image agree: /lib and /usr/lib are one directory."""
    return path.strip("/").removeprefix("usr/")


def of_image(look: Reader, stream: IO[bytes]) -> Contents:
    """The ELF files of an image's file system, read once as a tar stream, in any order."""
    files: list[File] = []
    lists: dict[str, list[str]] = {}
    there, origins = set(), {}
    with undamaged("the image"), tarfile.open(fileobj=stream, mode="r|") as tar:
        for info in tar:
            path = info.name.removeprefix("./").lstrip("/")
            there.add(plain(path))
            content = tar.extractfile(info) if info.isreg() else None
            if content is None:
                continue
            if listed := LISTS.fullmatch(path):
                lists[listed[1]] = content.read().decode(errors="replace").splitlines()
                continue
            for file in look.files(path, _wanted(content)):
                files.append(file)
                origins[file.path] = plain(path)
    owners = {plain(path): name for name, paths in lists.items() for path in paths}
    missing = {
        name: [p for p in paths if re.search(r"\.so(\.|$)", p) and plain(p) not in there]
        for name, paths in lists.items()
    }
    return Contents(files, {f: owners.get(path, "") for f, path in origins.items()}, missing)


# -- what is held to what


def judge_all(s: Site, files: Iterable[File], owners: Mapping[str, str]) -> list[Judged]:
    """Hold files to the variant's row.

    :param owners: path to the package of an image that it is from.
    """
    level, allow = level_of(s.tree, s.variant), s.tree.project.audit.allow
    name = package_name(s.tree, s.variant)
    if s.tree.wheel:  # nothing of it was compiled here
        allow = {**allow, "**": f"{s.tree.wheel.name}, as its makers built it"}
    judged = []
    for file in files:
        owner = owners.get(file.path, "")
        judged.append(
            judge(file, level, allow, "" if owner in ("", name, f"{name}-dev") else owner)
        )
    return judged


def check_files(s: Site, what: str, judged: Sequence[Judged], start: float) -> None:
    """Say what came of an audit, or raise what is wrong."""
    level = level_of(s.tree, s.variant)
    error = failure(what, judged, level, str(s.tree.source))
    if error:
        raise error
    ours = [j for j in judged if not j.owner]
    passed = [j for j in judged if j.beyond and j.reason not in ("", NOT_NAMED)]
    allowed = {j.owner or j.file.path for j in passed}
    more = f", {len(judged) - len(ours)} of others" if len(judged) > len(ours) else ""
    named = f"; {len(allowed)} beyond it by the allow-list" if allowed else ""
    strange = sorted({j.owner for j in judged if j.reason == NOT_NAMED})
    named += f"; not in the allow-list: {', '.join(strange)}" if strange else ""
    console.say(
        f"{console.bold('audited')} {what}: {len(ours)} ELF files of ours{more}, {level}{named}, "
        f"{console.seconds(time.monotonic() - start)}"
    )


def check_deb(s: Site, deb: Path) -> list[Judged]:
    """Audit a finished package before it goes to ``dist/``."""
    start = time.monotonic()
    look = reader(s.workshop, s.out / "deb" / "debug" / ".build-id")
    judged = judge_all(s, of_path(look, deb), {})
    check_files(s, deb.name, judged, start)
    return judged


def check_image(s: Site, tag: str) -> list[Judged]:
    """Audit a production image; what is not from our package is others'."""
    start = time.monotonic()
    look = reader(s.workshop, s.out / "deb" / "debug" / ".build-id")
    with exported(s.workshop, tag) as stream:
        contents = of_image(look, stream)
    check_installed(contents, package_name(s.tree, s.variant), tag)
    judged = judge_all(s, contents.files, contents.owners)
    check_files(s, f"image {tag}", judged, start)
    return judged


def check_installed(contents: Contents, name: str, tag: str) -> None:
    """Refuse an image that lacks the library: there would be nothing to find fault with."""
    lost = contents.missing.get(name)
    if lost == []:
        return
    if lost:
        what, cause = f"lacks {lost[0]}", f"its dpkg lists that file as one of {name}'s"
    else:
        what = f"does not hold the package {name}"
        cause = f"its dpkg lists {len(contents.packages)} packages, and not that one"
    raise SlipwayError(
        f"the image {tag} {what}",
        cause=cause,
        fix=["invoke prod, which installs it"],
        code=BAD_DATA,
    )


@contextlib.contextmanager
def exported(workshop: Workshop, tag: str) -> Iterator[IO[bytes]]:
    """The file system of an image as a tar stream, of a container that is never started."""
    if tag not in engine.inspect_images(tag):
        raise SlipwayError(
            f"no image {tag} on this machine",
            fix=["invoke prod, which makes one, or docker pull"],
            code=NO_INPUT,
        )
    # An image need not name a command, and `create` wants one.
    container = engine.container_name(
        engine.Job(name=f"audit-{os.getpid()}", command=[]), workshop.checkout
    )
    label = f"{engine.LABEL}={workshop.checkout}"
    create = ["create", "--name", container, "--label", label, tag, "true"]
    with processes.at_the_end(lambda: engine.remove_container(container)):
        console.show_command([engine.client(), *create])
        engine.ask(create, f"look into {tag}")
        export = [engine.client(), "export", container]
        console.show_command(export)
        with processes.reading(export) as stream:
            yield stream


# -- the task


def audit(
    workshop: Workshop, variant: str, project: str, source: str, path: str, image: str
) -> None:
    """Audit what has been made of a tree, or what ``path`` and ``image`` name, and show it all."""
    tree = resolve(workshop, project, source)
    defaults = [v for v in workshop.settings.default_variants if v in tree.variants]
    for name in tree.choose(variant, defaults[:1] or list(tree.variants)[:1]):
        site = Site(workshop, tree, name, engine.place(workshop), "")
        if workshop.dry and image:
            console.say(f"would look into image {image}")
            continue
        things = list(named(site, path, image) if path or image else made(site))
        if not things:
            raise SlipwayError(
                f"nothing of {site.title} has been made: no build, package or image",
                fix=[f"invoke build --variant {name}", f"invoke audit --variant {name}"],
                code=NO_INPUT,
            )
        errors = [error for what, judged in things if (error := show(site, what, judged))]
        if errors:
            raise errors[0]


def named(s: Site, path: str, image: str) -> Iterator[tuple[str, list[Judged]]]:
    """What the flags of the task name."""
    look = reader(s.workshop, s.out / "deb" / "debug" / ".build-id")
    if path:
        files = of_path(look, Path(path).expanduser().resolve())
        if not files:
            raise SlipwayError(
                f"{path} holds no ELF file",
                fix=["invoke audit --path FILE-or-DIRECTORY, with what was compiled"],
                code=NO_INPUT,
            )
        yield path, judge_all(s, files, {})
    if image:
        with exported(s.workshop, image) as stream:
            contents = of_image(look, stream)
        check_installed(contents, package_name(s.tree, s.variant), image)
        yield f"image {image}", judge_all(s, contents.files, contents.owners)


def made(s: Site) -> Iterator[tuple[str, list[Judged]]]:
    """What is there of a site: its build, its packages, its production image."""
    from slipway import production  # which audits

    look = reader(s.workshop, s.out / "deb" / "debug" / ".build-id")
    built = list(of_directory(look, s.build))
    if s.copied:  # such as make's, which compiles where its source stands
        built += of_directory(look, s.copy, s.tree.source)
    if built:
        yield f"the build of {s.title}", judge_all(s, built, {})
    for name in receipts.facts(s.out / "receipts" / "deb.json").get("files", {}):
        if Path(name).is_file():
            yield Path(name).name, judge_all(s, of_path(look, Path(name)), {})
    tag = "" if s.workshop.dry else production.made_images(s.workshop, s.tree).get(s.variant)
    if tag:
        yield from named(s, "", tag)


def show(s: Site, what: str, judged: Sequence[Judged]) -> SlipwayError | None:
    """Print a table of what was found, keep all of it in a file, and return what is wrong."""
    level = level_of(s.tree, s.variant)
    console.say(f"{console.bold(what)}, held to {level}")
    console.table(rows_of(judged))
    if not s.workshop.dry:
        name = re.sub(r"[^A-Za-z0-9._+-]+", "-", what).strip("-.")
        file = s.out / "audit" / f"{name}.json"
        text = msgspec.json.format(msgspec.json.encode(judged), indent=1).decode()
        receipts.write_whole(file, text + "\n")
        console.say(f"every function by name in {s.shown(file)}")
    return failure(what, judged, level, str(s.tree.source))


def rows_of(judged: Sequence[Judged]) -> list[list[str]]:
    """The table of an audit: a row for each file of ours, and for each package of others.

    Object files, whose code is in what was linked of them, have rows only where they fail.
    """
    rows = [["FILE", "LEVEL", "EXTENSIONS", "VERDICT"]]
    packages: dict[str, list[Judged]] = {}
    for j in judged:
        if j.owner:
            packages.setdefault(j.owner, []).append(j)
        elif j.fails or not j.file.path.endswith((".o", ".o)")):
            rows.append([j.file.path, *_found([j]), j.said])
    for owner, files in sorted(packages.items()):
        worst = max(files, key=lambda j: bool(j.beyond or j.file.problem))
        rows.append([f"{owner} ({len(files)} files)", *_found(files), worst.said])
    return rows


def _found(judged: Sequence[Judged]) -> tuple[str, str]:
    verdicts = [j.file.verdict for j in judged if j.file.verdict]
    names = dict.fromkeys(
        name
        for verdict in verdicts
        for name in verdict.extensions
        if isa.LEVEL_OF.get(name) != isa.LEVELS[0]
    )
    highest = max((v.level for v in verdicts), key=isa.LEVELS.index, default="")
    return highest, " ".join(names)
