"""Compiling and testing a tree for one variant."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.exceptions import Exit
from msgspec.structs import replace

from slipway import console, engine, images, locks, outputs, processes, receipts
from slipway.engine import Job, Mount, Place
from slipway.errors import BAD_DATA, NO_INPUT, SlipwayError
from slipway.images import fingerprint
from slipway.records import Record
from slipway.settings import Workshop
from slipway.variants import choose

if TYPE_CHECKING:
    from slipway.project import Tree

FEW_BYTES = 16_000_000  # a file system with less free than this is what broke the build


class Site(Record, frozen=True):
    """One tree, one variant, and the place where its jobs run."""

    workshop: Workshop
    tree: Tree
    variant: str
    place: Place
    image: str
    """The dev image; empty when jobs run in place."""
    links: tuple[Path, ...] = ()
    """What links out of the tree lead to: see ``links_out``."""

    @property
    def out(self) -> Path:
        """``out/PROJECT/VARIANT``."""
        return self.workshop.out / self.tree.project.name / self.variant

    @property
    def build(self) -> Path:
        """Build directory: CMake's and Ninja's."""
        return self.out / "build"

    @property
    def reports(self) -> Path:
        """JUnit XML of the tests."""
        return self.out / "reports"

    @property
    def title(self) -> str:
        """``oar 0.1.0 cpu``."""
        return f"{self.tree.project.name} {self.tree.version.pep440} {self.variant}"

    def script(self, name: str) -> str:
        """Where the script of a verb stands for a job."""
        return self.place.inside(self.workshop.scripts / name)

    def shown(self, path: Path) -> str:
        """A path as a person reads it."""
        return console.shown(path, self.workshop.root)

    def mounts(self) -> list[Mount]:
        """What every job of this site sees: source and scripts to read, its own to write."""
        ccache = self.workshop.cache / "ccache"
        return [
            Mount(self.tree.source, readonly=True),
            *(Mount(path, readonly=True) for path in self.links),
            Mount(self.workshop.scripts, readonly=True),
            Mount(self.out),
            Mount(ccache, target="/run/ccache"),
        ]

    def job(self, verb: str, command: Sequence[str], env: dict[str, str]) -> Job:
        """A job of this site, without a network."""
        return Job(
            name=f"{verb}-{self.tree.project.name}-{self.variant}",
            command=[self.script(verb), *command],
            mounts=self.mounts(),
            env={"SOURCE_DATE_EPOCH": str(self.tree.version.epoch), **env},
            workdir=self.place.inside(self.out),
            shm_size=self.workshop.settings.shm_size,
        )

    def prepare(self) -> None:
        """Make the directories that jobs write to, before docker makes them, as root."""
        for directory in (self.build, self.reports):
            outputs.make(directory, self.workshop.out)
        (self.workshop.cache / "ccache").mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def locked(self, verb: str) -> Iterator[None]:
        """Hold the lock of this site's directory, or say who holds it."""
        if self.workshop.dry:
            yield
            return
        self.prepare()
        with locks.held(self.out, verb):
            yield


def links_out(source: Path) -> tuple[Path, ...]:
    """Files and directories outside ``source`` that symbolic links in it lead to.

    They are mounted too, so that a link means the same inside; one that leads nowhere is an error,
    since the compiler's own words for it are hard to read.
    """
    found: set[Path] = set()
    for name, folders, files in os.walk(source):
        if ".git" in folders:
            folders.remove(".git")
        for entry in (*folders, *files):
            path = os.path.join(name, entry)
            if not os.path.islink(path):
                continue
            target = Path(os.path.realpath(path))
            if target.is_relative_to(source) or engine.hides_image(target.as_posix()):
                continue
            if not target.exists():
                raise SlipwayError(
                    f"the link {path} leads to {target}, which is not there",
                    fix=[f"ls -l {shlex.quote(path)}, then mend the link or remove it"],
                    code=NO_INPUT,
                )
            found.add(target)
    return tuple(sorted(p for p in found if not any(q in found for q in p.parents)))


def sites(
    workshop: Workshop, variant: str, project: str, source: str, wanted: str
) -> Iterator[Site]:
    """The sites that a task's flags mean, one after the other; the first variant by default.

    :param wanted: what ``--engine`` says.
    """
    place = engine.place(workshop, wanted)
    contained = isinstance(place, engine.Docker)
    # The engine is asked while git and the disk are.
    dev = processes.meanwhile(lambda: images.look_for_dev(workshop) if contained else "")
    from slipway.project import resolve  # 8 ms that pass in the meantime too

    tree = resolve(workshop, project, source)
    defaults = [v for v in workshop.settings.default_variants if v in tree.variants]
    names = choose(tree.variants, variant, defaults[:1] or list(tree.variants)[:1])
    links = links_out(tree.source)
    image = dev()
    if contained:
        image = images.ensure_dev(workshop, image)
    else:
        from slipway import doctor

        lacking = doctor.missing_tools(workshop)
        if lacking:
            raise SlipwayError(
                f"missing on this machine: {', '.join(lacking)}",
                cause="jobs run in place here, without a container",
                fix=["./go invoke setup --engine host"],
            )
    for name in names:
        yield Site(workshop, tree, name, place, image, links)


def fetch_in_dev(workshop: Workshop, command: Sequence[str], directories: Sequence[Path]) -> None:
    """Run a script that fetches something with apt, where jobs run, but with a network.

    :param directories: what it writes to; they exist.
    """
    place = engine.place(workshop)
    mounts = [Mount(workshop.scripts, readonly=True), *(Mount(d) for d in directories)]
    mirror = workshop.out / ".run" / "mirror"
    if workshop.settings.mirrors.apt:
        outputs.make(mirror.parent, workshop.out)
        mirror.write_text(f"{workshop.settings.mirrors.apt}\n")
        mounts.append(Mount(mirror, target="/run/slipway/apt/mirror", readonly=True))
    job = Job(
        name="fetch",
        command=[place.inside(Path(w)) if Path(w).is_absolute() else w for w in command],
        mounts=mounts,
        network=True,
        alone=False,
        inherit=[name for name in engine.PROXIES if name in os.environ],
    )
    contained = isinstance(place, engine.Docker)
    status = place.run(job, images.ensure_dev(workshop) if contained else "")
    if status:
        raise SlipwayError(
            f"nothing was fetched: status {status}",
            cause="the words of apt are above",
            fix=["check the name and version, and mirrors.apt in invoke.yaml"],
            code=status,
        )


def shell(
    workshop: Workshop,
    variant: str,
    project: str,
    source: str,
    network: bool,
    command: Sequence[str],
) -> None:
    """A shell, or ``command``, where the jobs of a site run, with their environment.

    The source is read-only as it is for every job; ``out/PROJECT/VARIANT`` can be written.
    """
    site = next(iter(sites(workshop, variant, project, source, "")))
    if not workshop.dry:
        site.prepare()
    job = replace(
        site.job("build", [], compiler_environment(site)),
        name="shell",
        command=list(command) or ["bash"],
        workdir=site.place.inside(site.build),
        network=network,
        interactive=True,
        alone=False,
    )
    status = site.place.run(job, site.image)
    if status:
        raise Exit(code=status)


def compiler_environment(s: Site) -> dict[str, str]:
    """Flags and caches for whatever build system runs: they come in by the environment.

    The instruction set is the variant's. Paths of this machine are mapped to ``/usr/src/NAME`` in
    what is compiled, so that two checkouts make the same bytes; ccache compares paths relative to
    the directory that holds both source and build.
    """
    source, build = s.place.inside(s.tree.source), s.place.inside(s.build)
    name = f"/usr/src/{s.tree.project.name}"
    maps = [f"-ffile-prefix-map={source}={name}", f"-ffile-prefix-map={build}={name}/build"]
    flags = f"{s.tree.variants[s.variant].compiler_flags} {shlex.join(maps)}"
    common = os.path.commonpath([source, build])
    ccache = "/run/ccache" if s.image else str(s.workshop.cache / "ccache")
    return {
        "CFLAGS": flags,
        "CXXFLAGS": flags,
        "LDFLAGS": "-fuse-ld=mold -Wl,-z,relro -Wl,-z,now",
        "CCACHE_DIR": ccache,
        "CCACHE_BASEDIR": common if common != "/" else source,
        "CCACHE_COMPILERCHECK": "content",
        "CCACHE_NOHASHDIR": "1",
        "CCACHE_ABSSTDERR": "1",  # or messages would name files relative to the build directory
        "CCACHE_MAXSIZE": s.workshop.settings.ccache_size,
        "CCACHE_STATSLOG": f"{build}/.ccache-statistics",
        "NINJA_STATUS": "[%f/%t %es] ",
    }


def configure_mode(
    s: Site, env: dict[str, str], options: dict[str, str]
) -> tuple[str, str, list[str]]:
    """Whether to configure, the stamp to keep, and CMake's arguments.

    ``fresh`` when what CMake reads only once has changed (compilers, flags, source directory);
    ``again`` when options have; ``no`` when nothing has: Ninja itself sees changed CMake files.
    """
    once = {k: v for k, v in env.items() if k in ("CFLAGS", "CXXFLAGS", "LDFLAGS")}
    toolchain = fingerprint(once, s.image, s.place.inside(s.tree.source))
    stamp = json.dumps({"toolchain": toolchain, "options": options}, sort_keys=True)
    arguments = [f"-D{key}={value}" for key, value in options.items()]
    try:
        text = (s.build / ".slipway-configured").read_text()
        before = json.loads(text)
        same, gone = before["toolchain"] == toolchain, [*before["options"]]
    except (OSError, *receipts.NOT_OURS):
        return "fresh", stamp, arguments
    if text == stamp and (s.build / "build.ninja").is_file():
        return "no", stamp, arguments
    if not same:
        return "fresh", stamp, arguments
    gone = [key for key in gone if key not in options]
    return "again", stamp, [*(f"-U{key}" for key in gone), *arguments]


class Built(Record, frozen=True):
    """How a build went."""

    duration: float
    compiled: int
    hits: int

    @property
    def cache(self) -> str:
        """``10 of 12 compilations from the cache``."""
        if not self.compiled:
            return "nothing to compile"
        return f"{self.hits} of {self.compiled} compilations from the cache"


def build(s: Site, *, jobs: int = 0) -> Built:
    """Configure if inputs changed, compile what changed, and say how it went."""
    start = time.monotonic()
    env = compiler_environment(s)
    mode, stamp, arguments = configure_mode(s, env, s.tree.options(s.variant))
    statistics = s.build / ".ccache-statistics"
    if not s.workshop.dry:
        statistics.unlink(missing_ok=True)
    if jobs:
        env["SLIPWAY_JOBS"] = str(jobs)
    inside = s.place.inside
    command = [inside(s.tree.source), inside(s.build), mode, stamp, *arguments]
    status = s.place.run(s.job("build", command, env), s.image)
    if status:
        raise SlipwayError(
            f"{s.title} was not built: status {status}",
            cause=disk_full(s.out) or "the words of cmake or the compiler are above",
            fix=[f"invoke build --variant {s.variant} once that is mended"],
            code=status,
        )
    hits, compiled = ccache_counts(statistics)
    result = Built(time.monotonic() - start, compiled, hits)
    if not s.workshop.dry:
        console.say(
            f"{console.bold('built')} {s.title} in {s.shown(s.build)}, "
            f"{console.seconds(result.duration)}, {result.cache}"
        )
    return result


def ccache_counts(log: Path) -> tuple[int, int]:
    """Hits and compilations in a CCACHE_STATSLOG: one counter's name on each line."""
    try:
        counters = log.read_text().split("\n")
    except OSError:
        return 0, 0
    hits = sum(c in ("direct_cache_hit", "preprocessed_cache_hit") for c in counters)
    return hits, hits + counters.count("cache_miss")


def disk_full(directory: Path) -> str:
    """A sentence when the file system of ``directory`` is full, which is then the likely cause."""
    free = shutil.disk_usage(directory).free
    if free > FEW_BYTES:
        return ""
    return f"the disk is full: {console.megabytes(free)} are left for {directory}"


class Tested(Record, frozen=True):
    """What a test run executed, read from its JUnit XML."""

    executed: int
    failed: int
    not_run: tuple[str, ...]
    parts: str
    """``CTest 30, pytest 60``."""


def read_reports(files: dict[str, Path]) -> Tested:
    """Count what JUnit XML files say; a test that was skipped was not executed."""
    from xml.etree import ElementTree  # 8 ms that a build need not pay

    executed = failed = 0
    skipped, parts = [], []
    for name, file in files.items():
        if not file.is_file():
            continue
        try:
            root = ElementTree.parse(file).getroot()  # noqa: S314  # our own job wrote it
        except ElementTree.ParseError as error:
            raise SlipwayError(
                f"{file} was not written to its end: {error}",
                cause=disk_full(file.parent) or "what runs the tests was killed",
                fix=["run the tests again"],
                code=BAD_DATA,
            ) from error
        cases = list(root.iter("testcase"))
        ran = [c for c in cases if c.find("skipped") is None and c.get("status") != "disabled"]
        skipped += [f"{c.get('classname')}.{c.get('name')}" for c in cases if c not in ran]
        failed += sum(c.find("failure") is not None or c.find("error") is not None for c in ran)
        executed += len(ran)
        parts.append(f"{name} {len(ran)}")
    return Tested(executed, failed, tuple(skipped), ", ".join(parts))


def test(s: Site, *, ctest_filter: str = "", pytest_arguments: Sequence[str] = ()) -> Tested:
    """Run the tree's tests, offline, and fail when one fails or none ran.

    A filter for one of the two kinds runs that kind alone.
    """
    wanted = s.tree.project.test
    narrowed = bool(ctest_filter) != bool(pytest_arguments)
    command = [s.place.inside(s.build), s.place.inside(s.reports)]
    if wanted.ctest and not (narrowed and pytest_arguments):
        command += ["--ctest", *([ctest_filter] if ctest_filter else [])]
    if wanted.pytest and not (narrowed and ctest_filter):
        source = s.tree.source
        command += ["--pytest", f"--rootdir={s.place.inside(source)}"]
        if wanted.pythonpath:
            paths = [s.place.inside(s.build / p) for p in wanted.pythonpath]
            command += ["--override-ini", f"pythonpath={shlex.join(paths)}"]
        named = any(
            not a.startswith("-") and (source / a.partition("::")[0]).exists()
            for a in pytest_arguments
        )
        command += [_in_source(s, a) for a in pytest_arguments]
        command += [] if named else [s.place.inside(source / p) for p in wanted.pytest]
    for report in ("ctest", "pytest"):
        if not s.workshop.dry:
            (s.reports / f"{report}.xml").unlink(missing_ok=True)
    start = time.monotonic()
    status = s.place.run(s.job("test", command, {"PYTHONDONTWRITEBYTECODE": "1"}), s.image)
    if s.workshop.dry:
        return Tested(0, 0, (), "")
    result = read_reports({"CTest": s.reports / "ctest.xml", "pytest": s.reports / "pytest.xml"})
    for name in result.not_run:
        console.say(f"not run: {name}")
    if not result.executed:
        raise SlipwayError(
            f"no test of {s.title} was executed",
            cause=disk_full(s.out) or "a filter that fits none, or a project without tests",
            fix=["invoke test --ctest-filter REGEX", "invoke test -- -k EXPRESSION"],
            code=BAD_DATA,
        )
    if status:
        raise SlipwayError(
            f"{result.failed} of {result.executed} tests of {s.title} failed"
            if result.failed
            else f"the tests of {s.title} did not end well: status {status}",
            cause=disk_full(s.out) or f"their words are above, and in {s.shown(s.reports)}",
            fix=[f"invoke shell --variant {s.variant}"],
            code=status,
        )
    console.say(
        f"{console.bold('tested')} {s.title}: {result.executed} tests executed ({result.parts}), "
        f"{console.seconds(time.monotonic() - start)}, {s.shown(s.reports)}"
    )
    return result


def _in_source(s: Site, argument: str) -> str:
    """A test named relative to the source, by its absolute path; other arguments as they are."""
    file, colons, rest = argument.partition("::")
    if argument.startswith("-") or not (s.tree.source / file).exists():
        return argument
    return s.place.inside(s.tree.source / file) + colons + rest


def inputs_of(s: Site, *scripts: str) -> str:
    """Fingerprint of all that decides what a step of this site makes."""
    made = (s.workshop.out, s.workshop.dist)
    return fingerprint(
        [receipts.tree_fingerprint(t, made) for t in (s.tree.source, *s.links)],
        s.tree.file.read_bytes(),
        s.tree.version.pep440,
        s.tree.version.epoch,
        s.image,
        compiler_environment(s),
        [images.file_hash(s.workshop.scripts / name) for name in ("build", *scripts)],
    )
