"""Compiling and testing a tree for one variant."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.exceptions import Exit
from msgspec.structs import replace

from slipway import (
    ccache,
    console,
    copies,
    engine,
    gpu,
    images,
    locks,
    outputs,
    processes,
    receipts,
)
from slipway.engine import Job, Mount, Place
from slipway.errors import IO_ERROR, NO_INPUT, USAGE, SlipwayError, nearest
from slipway.explain import BUILDING, explain
from slipway.gpu import NOT_ASKED, Answer
from slipway.images import fingerprint
from slipway.records import Record
from slipway.settings import Workshop

if TYPE_CHECKING:
    from slipway.project import Tree
    from slipway.why import Reason

RELEASE, DEBUG = BUILD_TYPES = ("release", "debug")
# Ninja's word that it has looked at everything. Only after that is no container needed to hear it
# again: a tree with a command that runs each time never gets it.
NOTHING_TO_DO = "ninja: no work to do."
CONFIGURED = ".slipway-configured"  # the stamp that scripts/build keeps
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
    gpu: Answer = NOT_ASKED
    """What tests and a shell have of the machine's GPUs; nothing else needs one."""
    build_type: str = RELEASE
    """One of ``BUILD_TYPES``: debug is for a debugger alone, and is never packaged."""
    sanitize: tuple[str, ...] = ()
    """What is compiled in to find mistakes as they happen, as ``-fsanitize`` names it."""
    coverage: bool = False
    """Whether lines count how often they run."""

    @property
    def is_debug(self) -> bool:
        """Whether it is compiled without optimisation and with the paths of this machine."""
        return self.build_type == DEBUG

    @property
    def instruments(self) -> tuple[str, ...]:
        """What users do not get: sanitizers, and the counting of lines."""
        return (*self.sanitize, *(["coverage"] if self.coverage else []))

    @property
    def _mark(self) -> str:
        """What stands beside what users get: ``.debug``, ``.address-undefined``."""
        marks = [*([DEBUG] if self.is_debug else []), "-".join(self.instruments)]
        return "".join(f".{mark}" for mark in marks if mark)

    @property
    def out(self) -> Path:
        """``out/PROJECT/VARIANT``; on another base than usual, ``out/PROJECT/VARIANT.bookworm``;
        for the build type debug ``VARIANT.debug``, with sanitizers ``VARIANT.address-undefined``.
        """
        name = f"{self.variant}{self.workshop.mark}{self._mark}"
        return self.workshop.out / self.tree.project.name / name

    @property
    def build(self) -> Path:
        """Build directory: CMake's and Ninja's."""
        return self.out / "build"

    @property
    def copied(self) -> bool:
        """Whether jobs see a copy of the source, which they may write to."""
        return self.tree.project.build.copied and not self.tree.wheel

    @property
    def copy(self) -> Path:
        """That copy."""
        return self.out / "source"

    @property
    def source_inside(self) -> str:
        """Where the source stands for a job: a copy at the source's own path, but in place."""
        if self.copied and not self.image:
            return str(self.copy)
        return self.place.inside(self.tree.source)

    @property
    def top_inside(self) -> str:
        """Where the directory that is built stands for a job."""
        return f"{self.source_inside}/{self.tree.project.build.directory}".rstrip("/")

    @property
    def reports(self) -> Path:
        """JUnit XML of the tests."""
        return self.out / "reports"

    @property
    def title(self) -> str:
        """``oar 0.1.0 cpu``, ``oar 0.1.0 cpu.debug``, ``oar 0.1.0 cpu (address, undefined)``."""
        name = f"{self.variant}{f'.{DEBUG}' if self.is_debug else ''}"
        more = f" ({', '.join(self.instruments)})" if self.instruments else ""
        return f"{self.tree.project.name} {self.tree.version.pep440} {name}{more}"

    @property
    def flags(self) -> str:
        """What names this site on a command line: ``--variant cpu --build-type debug``."""
        return f"--variant {self.variant}{f' --build-type {DEBUG}' if self.is_debug else ''}"

    def script(self, name: str) -> str:
        """Where the script of a verb stands for a job."""
        return self.place.inside(self.workshop.scripts / name)

    def shown(self, path: Path) -> str:
        """A path as a person reads it."""
        return console.shown(path, self.workshop.root)

    def mounts(self) -> list[Mount]:
        """What every job of this site sees: source and scripts to read, its own to write."""
        source = self.tree.source
        return [
            Mount(self.copy, instead_of=source) if self.copied else Mount(source, readonly=True),
            *(Mount(path, readonly=True) for path in self.links),
            Mount(self.workshop.scripts, readonly=True),
            Mount(self.out),
            Mount(self.workshop.cache / "ccache", target="/run/ccache", stays_there=True),
        ]

    def job(
        self, verb: str, command: Sequence[str], env: dict[str, str], *, network: bool = False
    ) -> Job:
        """A job of this site, without a network unless the project says so."""
        return Job(
            name=f"{verb}-{self.tree.project.name}-{self.variant}{self._mark}",
            command=[self.script(verb), *command],
            mounts=self.mounts(),
            env={"SOURCE_DATE_EPOCH": str(self.tree.version.epoch), **env},
            workdir=self.place.inside(self.out),
            shm_size=self.workshop.settings.shm_size,
            network=network,
            inherit=[n for n in engine.PROXIES if n in os.environ] if network else [],
        )

    def given_gpu(self, job: Job) -> Job:
        """``job`` with the GPU that was decided on; where it was declined, with none."""
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if self.gpu.hidden and not self.image else {}
        return replace(job, gpu=self.gpu.arguments, env={**job.env, **hidden})

    def prepare(self) -> None:
        """Make the directories that jobs write to, before docker makes them, as root."""
        for directory in (self.build, self.reports, *([self.copy] if self.copied else [])):
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


def not_source(workshop: Workshop, source: Path) -> tuple[Path, ...]:
    """Directories in a source tree that are ours, not source.

    That is what is made, and the whole checkout where it lies in the tree of the library.
    """
    if workshop.root != source and workshop.root.is_relative_to(source):
        return (workshop.root,)
    return workshop.out, workshop.dist


def links_out(source: Path, leave_out: Container[Path] = ()) -> tuple[Path, ...]:
    """Files and directories outside ``source`` that symbolic links in it lead to.

    They are mounted too, so that a link means the same inside; one that leads nowhere is an error,
    since the compiler's own words for it are hard to read.
    """
    found: set[Path] = set()
    for name, folders, files in os.walk(source):
        folders[:] = [f for f in folders if f != ".git" and Path(name, f) not in leave_out]
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
    workshop: Workshop,
    variant: str,
    project: str,
    source: str,
    wanted: str,
    gpu_wanted: str | None = None,
    build_type: str = "",
) -> Iterator[Site]:
    """The sites that a task's flags mean, one after the other; the first variant by default.

    :param wanted: what ``--engine`` says.
    :param gpu_wanted: what ``--gpu`` says; None for a task that runs nothing on a GPU.
    :param build_type: what ``--build-type`` says; empty: release.
    """
    build_type = check_build_type(build_type or RELEASE)
    place = engine.place(workshop, wanted)
    contained = isinstance(place, engine.Docker)
    mode = "" if gpu_wanted is None else gpu.wanted(workshop, gpu_wanted)
    if mode:
        gpu.demand(workshop, mode, place)
    # The engine is asked while git and the disk are.
    dev = processes.meanwhile(lambda: images.look_for_dev(workshop) if contained else "")
    from slipway.project import resolve  # 8 ms that pass in the meantime too

    tree = resolve(workshop, project, source)
    names = chosen(workshop, tree, variant)
    links = links_out(tree.source, not_source(workshop, tree.source))
    image = dev()
    if contained:
        image = images.ensure_dev(workshop, image)
    else:
        from slipway import doctor

        needed = doctor.missing_packages(tree.project.build.apt)
        lacking = [*doctor.missing_tools(workshop), *needed]
        if any(tree.variants[name].cuda for name in names) and not nvcc_here():
            lacking.append("nvcc of CUDA 13, on PATH or named by CUDACXX (scripts/cuda-install)")
        if lacking:
            raise SlipwayError(
                f"missing on this machine: {', '.join(lacking)}",
                cause="jobs run in place here, without a container",
                fix=[
                    "./go invoke setup --engine host",
                    *([shlex.join(["sudo", "apt-get", "install", *needed])] if needed else []),
                ],
            )
    for name in names:
        inside = project_image(workshop, tree, name, image) if contained else ""
        row = tree.variants[name]
        answer = gpu.decide(workshop, mode, place, inside, row) if mode else NOT_ASKED
        yield Site(workshop, tree, name, place, inside, links, answer, build_type)


def check_build_type(wanted: str) -> str:
    """``wanted``, which must be one of ``BUILD_TYPES``."""
    if wanted not in BUILD_TYPES:
        raise SlipwayError(
            f"no build type '{wanted}'",
            cause=nearest(wanted, BUILD_TYPES),
            fix=["invoke build --build-type debug"],
            code=USAGE,
        )
    return wanted


def chosen(workshop: Workshop, tree: Tree, variant: str) -> list[str]:
    """The variants that ``--variant`` means; by default one, the first of the setting's."""
    defaults = [v for v in workshop.settings.default_variants if v in tree.variants]
    return tree.choose(variant, defaults[:1] or list(tree.variants)[:1])


def nvcc_here() -> bool:
    """Whether this machine has CUDA's compiler where CMake finds it."""
    return bool(shutil.which(os.environ.get("CUDACXX", "nvcc")))


def project_image(workshop: Workshop, tree: Tree, variant: str, dev: str) -> str:
    """The image that a variant is built in: the dev image, with what it and the project need."""
    needs = tree.project.build
    if tree.variants[variant].cuda:
        dev = images.ensure_gpu(workshop, dev)
    return images.ensure_project(workshop, dev, tree.project.name, needs.apt, needs.pip)


def python_tag(workshop: Workshop) -> str:
    """Tag of the Python that packages are made for, such as ``cp313``: that of the dev image."""
    place = engine.place(workshop)
    ask = ["/usr/bin/python3", "-c", "import sys; print('cp%d%d' % sys.version_info[:2])"]
    if not isinstance(place, engine.Docker):
        return processes.look(ask).stdout.strip()
    image = images.ensure_dev(workshop)
    memory = workshop.out / ".run" / "python" / image.rpartition(":")[2]
    if memory.is_file():
        return memory.read_text()
    run = ["run", "--rm", "--network", "none", "--label", f"{engine.LABEL}={workshop.checkout}"]
    if workshop.dry:
        console.say("the dev image would be asked for its Python, and the wheel for it be fetched")
        raise Exit(code=0)  # more is not known
    tag = engine.ask([*run, image, *ask], "ask the dev image for its Python").strip()
    receipts.write_whole(memory, tag)
    return tag


def fetch_in_dev(
    workshop: Workshop, command: Sequence[str], directories: Sequence[Path], image: str = ""
) -> None:
    """Run a script that fetches something with apt, where jobs run, but with a network.

    :param directories: what it writes to; they exist.
    :param image: another one than the dev image.
    """
    place = engine.place(workshop)
    mounts = [Mount(workshop.scripts, readonly=True), *(Mount(d) for d in directories)]
    if workshop.ca_bundle:
        mounts.append(Mount(workshop.ca_bundle, target="/run/slipway/ca/ca.pem", readonly=True))
    mirror = workshop.out / ".run" / "mirror"
    if workshop.settings.mirrors.apt:
        outputs.make(mirror.parent, workshop.out)
        mirror.write_text(f"{workshop.settings.mirrors.apt}\n")
        mounts.append(Mount(mirror, target="/run/slipway/apt/mirror", readonly=True))
    if workshop.settings.mirrors.pip:
        conf = outputs.make(mirror.parent, workshop.out) / "pip.conf"
        conf.touch(0o600)
        conf.write_text(images.pip_configuration(workshop))
        mounts.append(Mount(conf, target="/run/secrets/pip", readonly=True))
    job = Job(
        name="fetch",
        command=[place.inside(Path(w)) if Path(w).is_absolute() else w for w in command],
        mounts=mounts,
        network=True,
        alone=False,
        inherit=[name for name in engine.PROXIES if name in os.environ],
    )
    contained = isinstance(place, engine.Docker)
    status = place.run(job, (image or images.ensure_dev(workshop)) if contained else "")
    if status:
        full = disk_full(directories[0])
        raise SlipwayError(
            f"nothing was fetched: status {status}",
            cause=full or "the words of apt or pip are above",
            fix=["check names and versions, and mirrors in invoke.yaml"],
            code=IO_ERROR if full else status,
        )


def shell(
    workshop: Workshop,
    variant: str,
    project: str,
    source: str,
    network: bool,
    gpu_wanted: str,
    command: Sequence[str],
) -> None:
    """A shell, or ``command``, where the jobs of a site run, with their environment.

    The source is read-only as it is for every job; ``out/PROJECT/VARIANT`` can be written.
    """
    site = next(iter(sites(workshop, variant, project, source, "", gpu_wanted)))
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
    status = site.place.run(site.given_gpu(job), site.image)
    if status:
        raise Exit(code=status)


def prefix_maps(s: Site) -> dict[str, str]:
    """Paths of this machine, to what stands for them in what is compiled; none in a debug build,
    nor where lines are counted: that report names files as they are here.
    """
    source, name = s.source_inside, f"/usr/src/{s.tree.project.name}"
    if s.is_debug or s.coverage:
        return {}
    if s.tree.project.build.system in ("make", "script"):
        # They compile in the source; and a Makefile's shell splits a flag at a space in it, quoted
        # or not, so a source with an odd path keeps it in its debug symbols.
        flag = f"{source}={name}"
        return {source: name} if shlex.quote(flag) == flag else {}
    return {source: name, s.place.inside(s.build): f"{name}/build"}


def compiler_environment(s: Site) -> dict[str, str]:
    """Flags and caches for whatever build system runs: they come in by the environment.

    The instruction set is the variant's. Paths of this machine are mapped to ``/usr/src/NAME`` in
    what is compiled, so that two checkouts make the same bytes; ccache compares paths relative to
    the directory that holds both source and build. A debug build keeps the paths as they are, which
    is what a breakpoint in an editor names, and takes from the cache only what was compiled here.
    """
    source, build = s.source_inside, s.place.inside(s.build)
    system = s.tree.project.build.system
    maps = [f"-ffile-prefix-map={path}={name}" for path, name in prefix_maps(s).items()]
    flags = f"{s.tree.variants[s.variant].compiler_flags} {shlex.join(maps)}".rstrip()
    if system != "cmake":  # which takes these two from its build type
        flags = f"-g {'-O0' if s.is_debug else '-O2'} {flags}"
    linker = "-fuse-ld=mold -Wl,-z,relro -Wl,-z,now"
    if s.sanitize:
        chosen = f"-fsanitize={','.join(s.sanitize)}"
        # The first mistake ends the program: one that is only printed fails no test.
        flags = f"{flags} {chosen} -fno-sanitize-recover=all -fno-omit-frame-pointer"
        linker = f"{linker} {chosen}"
    if s.coverage:
        flags = f"{flags} --coverage -fprofile-update=atomic"
        linker = f"{linker} --coverage"
    common = os.path.commonpath([source, build])
    shared = {"CCACHE_BASEDIR": common if common != "/" else source, "CCACHE_NOHASHDIR": "1"}
    directory = "/run/ccache" if s.image else str(s.workshop.cache / "ccache")
    return {
        "CFLAGS": flags,
        "CXXFLAGS": flags,
        "LDFLAGS": linker,
        "CCACHE_DIR": directory,
        **({} if s.is_debug else shared),
        "CCACHE_COMPILERCHECK": "content",
        "CCACHE_ABSSTDERR": "1",  # or messages would name files relative to the build directory
        "CCACHE_MAXSIZE": s.workshop.settings.ccache_size,
        "CCACHE_STATSLOG": f"{build}/.ccache-statistics",
        "NINJA_STATUS": "[%f/%t %es] ",
        # An object holds the path that its counters are written to: none of another directory.
        **({"CCACHE_DISABLE": "1"} if s.coverage else {}),
        **({} if system == "cmake" else {"SETUPTOOLS_SCM_PRETEND_VERSION": s.tree.version.pep440}),
    }


def configure_mode(
    s: Site, env: dict[str, str], options: dict[str, str]
) -> tuple[str, str, list[str]]:
    """Whether to configure, the stamp to keep, and the options as arguments.

    ``fresh`` when what CMake reads only once has changed (compilers, flags, source directory);
    ``again`` when options have; ``no`` when nothing has: Ninja itself sees changed CMake files.
    """
    how = s.tree.project.build
    toolchain = {  # in plain, so that --why can say which of it has changed
        "image": s.image,
        "CXXFLAGS": env["CXXFLAGS"],  # and CFLAGS, which are the same
        "LDFLAGS": env["LDFLAGS"],
        "source": s.source_inside,
        "build": [how.system, how.directory, [*how.targets], [*how.commands], how.network],
    }
    stamp = json.dumps({"toolchain": toolchain, "options": options}, sort_keys=True)
    dash_d = "-D" if how.system == "cmake" else ""
    arguments = [f"{dash_d}{key}={value}" for key, value in options.items()]
    try:
        text = (s.build / CONFIGURED).read_text()
        before = json.loads(text)
        same, gone = before["toolchain"] == toolchain, [*before["options"]]
    except (OSError, *receipts.NOT_OURS):
        return "fresh", stamp, arguments
    if how.system != "cmake":  # no other tells by itself what an option changes
        return "no" if text == stamp else "fresh", stamp, arguments
    if text == stamp and (s.build / "build.ninja").is_file():
        return "no", stamp, arguments
    if not same:
        return "fresh", stamp, arguments
    gone = [key for key in gone if key not in options]
    return "again", stamp, [*(f"-U{key}" for key in gone), *arguments]


class Built(Record, frozen=True):
    """How a build went."""

    duration: float
    cache: ccache.Counts = ccache.Counts()


# What the build backends of Python packages are told: a build directory that stays, debug symbols.
BACKENDS: dict[str, dict[str, str]] = {
    "scikit_build_core.build": {
        "build-dir": "{native}",
        "cmake.build-type": "RelWithDebInfo",
        "install.strip": "false",
    },
    "mesonpy": {"build-dir": "{native}", "setup-args": "-Dbuildtype=debugoptimized"},
}
DEBUG_BACKENDS = {"cmake.build-type": "Debug", "setup-args": "-Dbuildtype=debug"}


def backend_settings(s: Site) -> dict[str, str]:
    """The config settings of the backend that pyproject.toml names; none for one not known here."""
    file = s.tree.top / "pyproject.toml"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    backend = re.search(r"""^\s*build-backend\s*=\s*["']([\w.:]+)["']""", text, re.MULTILINE)
    native = s.place.inside(s.build / "native")
    known = BACKENDS.get(backend[1], {}) if backend else {}
    if s.is_debug:
        known = {**known, **{k: v for k, v in DEBUG_BACKENDS.items() if k in known}}
    return {key: value.replace("{native}", native) for key, value in known.items()}


def build_options(s: Site) -> dict[str, str]:
    """What the build system is told, by name."""
    options = s.tree.options(s.variant)
    system = s.tree.project.build.system
    if system == "pep517":
        return {**backend_settings(s), **options}
    if s.is_debug and system == "cmake":
        return {**options, "CMAKE_BUILD_TYPE": "Debug"}  # scripts/build says another before it
    return options


def build(s: Site, *, jobs: int = 0, why: bool = False) -> Built:
    """Configure if inputs changed, compile what changed, and say how it went.

    :param why: say too what caused it.
    """
    if s.tree.wheel:
        console.say(f"{s.title}: nothing to compile, {s.tree.wheel.name} is a prebuilt wheel")
        return Built(0)
    start = time.monotonic()
    how = s.tree.project.build
    env = compiler_environment(s)
    options = build_options(s)
    mode, stamp, arguments = configure_mode(s, env, options)
    causes = Causes(s, stamp, mode, asked=why)
    receipt, inputs = s.out / "receipts" / "build.json", ""
    # In place, what is installed on this machine may change, and in a copy of the source what is
    # written to it: only Ninja sees either.
    is_seen = how.system == "cmake" and s.image and not s.copied
    if is_seen or how.system == "pep517":
        inputs = fingerprint(inputs_of(s), stamp)
        known = receipts.read(receipt, inputs)
        if known and known.facts.get("made", "") in ("", made_of(s)):
            since = console.moment(known.made_at)
            console.say(f"{s.title} is unchanged since {since}: no work to do")
            causes.tell()
            return Built(time.monotonic() - start)
    if how.system == "script":
        arguments = list(how.commands)
        env |= options
    arguments += how.targets
    statistics = s.build / ".ccache-statistics"
    if not s.workshop.dry:
        statistics.unlink(missing_ok=True)
        if s.copied:
            changed = update_copy(s, afresh=mode == "fresh")
            causes.copied(changed)
    if jobs:
        env["SLIPWAY_JOBS"] = str(jobs)
    env |= causes.variables
    with causes.told():
        if how.network and how.system == "cmake" and mode != "no":
            _run_build(s, "configure", stamp, arguments, env, network=True)
            mode, arguments = "no", []
        network = how.network and how.system != "cmake"
        said = _run_build(s, mode, stamp, arguments, env, network=network)
    result = Built(time.monotonic() - start, ccache.counts(statistics))
    if not s.workshop.dry:
        if how.system == "pep517":
            wheels = {str(w): images.file_hash(w) for w in (s.build / "wheel").glob("*.whl")}
            receipts.write(receipt, inputs, {"files": wheels})
        elif inputs and NOTHING_TO_DO in said:
            receipts.write(receipt, inputs, {"made": made_of(s)})
        console.say(
            f"{console.bold('built')} {s.title} in {s.shown(s.build)}, "
            f"{console.seconds(result.duration)}, {result.cache}"
        )
        if result.cache.errors:
            console.say(
                f"the team's cache at {ccache.shown(s.workshop.settings)} did not answer "
                f"{result.cache.errors} times: what it may have was compiled here; "
                "./go invoke doctor looks at it"
            )
    return result


class Causes:
    """What ``--why`` tells at the end of a build, gathered while it goes on; nothing unasked."""

    def __init__(self, s: Site, stamp: str, mode: str, *, asked: bool) -> None:
        self._site, self._asked, self._mode = s, asked and not s.workshop.dry, mode
        self._reasons: list[Reason] = []
        if self._asked:
            from slipway import why  # whose patterns a build that nobody asks about need not pay

            self._reasons = why.of_configuration(why.stamp(s.build / CONFIGURED), stamp, mode)

    @property
    def variables(self) -> dict[str, str]:
        """What tells ``scripts/build`` to have Ninja explain itself."""
        return {"SLIPWAY_WHY": "1"} if self._asked else {}

    def copied(self, names: Sequence[str]) -> None:
        """Files of the source that changed, where a copy is built and Ninja does not know them."""
        is_cmake = self._site.tree.project.build.system == "cmake"
        if self._asked and not is_cmake and self._mode != "fresh":  # which copies everything
            from slipway import why

            self._reasons += why.of_copy(names)

    def tell(self) -> None:
        """Say it all, with what Ninja has explained."""
        if self._asked:
            from slipway import why

            afresh = self._mode == "fresh"
            ninja = why.read(self._site.build, self._site.source_inside, afresh=afresh)
            for line in why.lines(self._site.title, [*self._reasons, *ninja]):
                console.say(line)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Tell it at the end, also of what fails: that was done for a reason too."""
        try:
            yield
        finally:
            self.tell()


def shared_cache(s: Site) -> dict[str, str]:
    """What tells the compiler of a team's cache, where what is compiled is of use to others."""
    if s.is_debug or s.coverage:
        return {}
    found = ccache.remote(s.workshop.settings, in_container=bool(s.image))
    if found:
        console.say(
            f"the compiler's container has a network: the team's cache at "
            f"{ccache.shown(s.workshop.settings)} is asked"
        )
    return found


def _run_build(
    s: Site,
    mode: str,
    stamp: str,
    arguments: Sequence[str],
    env: dict[str, str],
    *,
    network: bool,
) -> str:
    """Run a step of a build; the last of what it says."""
    how = s.tree.project.build
    command = [how.system, mode, stamp, s.top_inside, s.place.inside(s.build), *arguments]
    heard = processes.Heard()
    remote = shared_cache(s) if mode != "configure" else {}
    job = s.job("build", command, env, network=network or bool(remote))
    status = s.place.run(replace(job, hidden=remote), s.image, heard)
    if status:
        cause, fix = explain(heard.text, BUILDING)
        raise SlipwayError(
            f"{s.title} was not built: status {status}",
            cause=disk_full(s.out) or cause or "the words of the compiler or build tool are above",
            fix=[fix or f"invoke build {s.flags} once that is mended"],
            code=status,
        )
    return heard.text


def made_of(s: Site) -> str:
    """Changes with the files of a build directory, but not with what CTest keeps there; and with
    the image, whose tag says what it was made of, not what the archives had on that day.
    """
    image = engine.inspect_images(s.image).get(s.image, {}).get("Id")
    return fingerprint(image, receipts.tree_fingerprint(s.build, {s.build / "Testing"}))


def update_copy(s: Site, *, afresh: bool) -> list[str]:
    """Bring the copy of the source up to date; the names of the files that were not."""
    ours = not_source(s.workshop, s.tree.source)
    if afresh:
        copies.remove(s.copy)
    changed = copies.sync(s.tree.source, s.copy, ours)
    if changed:
        console.say(f"{len(changed)} files of {s.tree.source} copied into {s.shown(s.copy)}")
    # Where docker mounts into the copy, docker would make the directories itself, as root.
    for mount in s.mounts():
        if (
            not mount.target
            and mount.source.is_relative_to(s.tree.source)
            and mount.source.is_dir()
        ):
            inside = s.copy / mount.source.relative_to(s.tree.source)
            inside.mkdir(parents=True, exist_ok=True)
    return changed


def disk_full(directory: Path) -> str:
    """A sentence when the file system of ``directory`` is full, which is then the likely cause."""
    free = shutil.disk_usage(directory).free
    if free > FEW_BYTES:
        return ""
    return f"the disk is full: {console.megabytes(free)} are left for {directory}"


def inputs_of(s: Site, *scripts: str) -> str:
    """Fingerprint of all that decides what a step of this site makes."""
    ours = not_source(s.workshop, s.tree.source)
    return fingerprint(
        [receipts.tree_fingerprint(t, ours) for t in (s.tree.source, *s.links)],
        s.tree.file.read_bytes(),
        s.tree.version.pep440,
        s.tree.version.epoch,
        s.image,
        compiler_environment(s),
        [images.file_hash(s.workshop.scripts / name) for name in ("build", *scripts)],
    )
