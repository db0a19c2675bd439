"""Slipway beside what people would use instead, on the same tree, in alternating runs.

``invoke bench`` measures the rows it is asked for, keeps every single run in ``runs/ROW.json`` with
commit and machine, and writes README.md from all the rows that are kept. Nothing else writes there.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from slipway import (
    applications,
    base,
    builds,
    ccache,
    console,
    engine,
    images,
    production,
    project,
    receipts,
)
from slipway.errors import USAGE, SlipwayError, nearest
from slipway.receipts import write_whole
from slipway.settings import Workshop

HERE = Path(__file__).resolve().parent
LAYER = "{{.Size}} {{.CreatedBy}}"
NUMPY = ("python3-numpy", "liblapack3", "libblas3", "libgfortran5", "libquadmath0")
MAY_RESET = "SLIPWAY_MAY_RESET_THIS_MACHINE"


@dataclass
class Row:
    """One line of the table: two sides, or one with a limit, and every run of each."""

    name: str
    what: str
    beside: str
    reach: str
    unit: str = "s"
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    commit: str = ""
    machine: str = ""
    date: str = ""

    @property
    def ratio(self) -> float | None:
        """Median of ours by median of theirs."""
        if not (self.ours and self.theirs):
            return None
        return statistics.median(self.ours) / statistics.median(self.theirs)


def machine() -> str:
    """Processor, cores, memory, system and engine, for people who compare."""
    model = "unknown processor"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    docker = engine.ask(["version", "--format", "{{.Server.Version}}"], "ask the engine").strip()
    cores = len(os.sched_getaffinity(0))
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    return f"{model}, {cores} cores, {memory:.0f} GiB, {system}, docker {docker}"


def timed(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    typed: str = "",
) -> float:
    """Seconds that a command takes; one that fails ends the benchmark with its words.

    :param typed: what stands on its standard input.
    """
    # As on a person's machine, where Python keeps what it has compiled; CI machines often say no.
    plain = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    done = subprocess.run(
        list(argv),
        cwd=cwd,
        env={**plain, **(env or {})},
        input=typed,
        capture_output=True,
        text=True,
        check=False,
    )
    duration = time.perf_counter() - start
    if done.returncode:
        raise SlipwayError(
            f"a benchmark's command failed: {shlex.join(argv)}",
            cause=(done.stdout + done.stderr)[-2000:],
            code=done.returncode,
        )
    return duration


def until(argv: Sequence[str], mark: str, *, cwd: Path | None = None) -> tuple[float, str]:
    """Seconds until a command says ``mark``, and all that it says; it runs to its end."""
    start, reached, said = time.perf_counter(), 0.0, ""
    out, both = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(argv, cwd=cwd, stdout=out, stderr=both, text=True) as process:
        for line in process.stdout or ():
            said += line
            if mark in line and not reached:
                reached = time.perf_counter() - start
    if process.returncode or not reached:
        raise SlipwayError(f"{shlex.join(argv)} did not say '{mark}'", cause=said[-2000:])
    return reached, said


def invoke(*arguments: str) -> list[str]:
    """The command line of a task, with the interpreter that runs this."""
    return [sys.executable, "-m", "invoke", *arguments]


def alternate(row: Row, runs: int, ours: Callable[[], float], theirs: Callable[[], float]) -> None:
    """Run both sides in turn, so that a slow minute of the machine hits both; one warm-up each."""
    ours()
    theirs()
    for number in range(runs):
        row.ours.append(ours())
        row.theirs.append(theirs())
        console.say(
            f"  {row.name} {number + 1}/{runs}: {row.ours[-1]:.3f} beside {row.theirs[-1]:.3f}"
        )


@contextmanager
def source_copy(tree: project.Tree) -> Iterator[Path]:
    """A copy of the source that may be edited."""
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as directory:
        target = Path(directory) / "source"
        shutil.copytree(tree.source, target)
        yield target


def edit(file: Path) -> None:
    """Change a file's content, so that neither side finds the result in a cache."""
    with file.open("a") as stream:
        stream.write(f"// {time.time_ns()}\n")


def listing(workshop: Workshop, runs: int) -> Row:
    """What loading the tasks costs beside invoke's own start."""
    row = Row("list", "`invoke --list`", "the same with an empty tasks.py", "≤ 1.25")
    with tempfile.TemporaryDirectory() as directory:
        # One task that does nothing: with none at all invoke stops before it prints a list.
        text = "from invoke import task\n\n\n@task\ndef nothing(c):\n    pass\n"
        (Path(directory) / "tasks.py").write_text(text)
        alternate(
            row,
            runs,
            lambda: timed(invoke("--list"), cwd=workshop.root),
            lambda: timed(invoke("--list"), cwd=Path(directory)),
        )
    return row


def no_op(workshop: Workshop, runs: int) -> Row:
    """A build of which nothing is left to do."""
    row = Row(
        "no-op",
        "no-op `invoke build`",
        "`docker run --rm -v …` of a bare ninja no-op, default bridge",
        "≤ 0.65",
    )
    site = next(builds.sites(workshop, "cpu", "", "", "docker"))
    for _ in range(2):  # the second time Ninja says that there is nothing to do
        timed(invoke("build"), cwd=workshop.root)
    volumes = [f"{path}:{path}" for path in (site.tree.source, site.out)]
    flags = [word for volume in volumes for word in ("-v", volume)]
    plain = ["docker", "run", "--rm", *flags, "-w", str(site.build), site.image, "ninja"]
    with kept_containers(site, volumes) as others:
        times: dict[str, list[float]] = {name: [] for name in others}

        def theirs() -> float:
            for name, argv in others.items():
                times[name].append(timed([*argv, "ninja", "-C", str(site.build)]))
            return timed(plain)

        alternate(row, runs, lambda: timed(invoke("build"), cwd=workshop.root), theirs)
    for name, found in times.items():
        row.notes.append(f"in the same runs `{name}`: {statistics.median(found):.3f} s")
    row.notes.append(
        "ours starts no container once Ninja has said that there is nothing to do, and"
    )
    row.notes[-1] += " nothing has changed since: source, build directory, settings or image"
    return row


@contextmanager
def kept_containers(site: builds.Site, volumes: Sequence[str]) -> Iterator[dict[str, list[str]]]:
    """What runs a program in a container that is there already, by name; of the programs here.

    docker-compose is Debian's package; devcontainer is npm's @devcontainers/cli.
    """
    flags = [word for volume in volumes for word in ("-v", volume)]
    run = ["docker", "run", "--detach", "--rm", "--init", *flags, site.image, "sleep", "infinity"]
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as directory:
        compose = ["docker-compose", "--project-directory", directory]
        service = {"image": site.image, "volumes": [*volumes], "init": True}
        file = {"version": "3.7", "services": {"dev": {**service, "command": "sleep infinity"}}}
        (Path(directory) / "docker-compose.yml").write_text(json.dumps(file))
        name = subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()
        others = {"docker exec": ["docker", "exec", name]}
        if shutil.which("devcontainer"):
            others["devcontainer exec"] = ["devcontainer", "exec", "--container-id", name]
        if shutil.which("docker-compose"):
            compose += ["--file", f"{directory}/docker-compose.yml"]
            timed([*compose, "up", "--detach"])
            others["docker-compose exec"] = [*compose, "exec", "-T", "dev"]
        try:
            yield others
        finally:
            timed(["docker", "rm", "--force", name])
            if "docker-compose exec" in others:
                timed([*compose, "down", "--timeout", "1"])


def other_no_op(workshop: Workshop, runs: int) -> Row:
    """A build of which nothing is left to do, of a tree that we did not write."""
    row = Row(
        "lightgbm-no-op",
        "no-op `invoke build --project lightgbm` (pep517)",
        "`docker run --rm -v …` of a bare ninja no-op in the same build directory",
        "≤ 1.3",
    )
    build = invoke("build", "--project", "lightgbm")
    site = next(builds.sites(workshop, "cpu", "lightgbm", "", "docker"))
    timed(build, cwd=workshop.root)
    plain = ["docker", "run", "--rm", "-v", f"{site.copy}:{site.tree.source}"]
    plain += ["-v", f"{site.out}:{site.out}", "-w", str(site.build / "native"), site.image, "ninja"]
    alternate(row, runs, lambda: timed(build, cwd=workshop.root), lambda: timed(plain))
    row.notes.append("ours compares the inputs with those of the wheel that is there, and starts")
    row.notes[-1] += " no container; to ask the backend itself takes seconds"
    return row


def other_warm(workshop: Workshop, runs: int) -> Row:
    """What the compiler cache is worth to a large tree of C++; one run takes five minutes."""
    row = Row(
        "lightgbm-ccache",
        "LightGBM: `clean`, then `build`, ccache warm",
        "the first build",
        "≤ 0.1",
    )
    del runs
    with tempfile.TemporaryDirectory() as cache:
        env = {"INVOKE_CACHE_DIR": cache}
        for times in (row.theirs, row.ours):
            timed(invoke("clean", "--project", "lightgbm"), cwd=workshop.root, env=env)
            build = invoke("build", "--project", "lightgbm")
            times.append(timed(build, cwd=workshop.root, env=env))
    found = ccache.counts(workshop.out / "lightgbm" / "cpu" / "build" / ".ccache-statistics")
    row.notes.append(str(found))
    return row


def wheel_package(workshop: Workshop, runs: int) -> Iterator[Row]:
    """The package of a large prebuilt wheel: seconds to install it, and its image's size."""
    timed(invoke("prod", "--project", "paddle"), cwd=workshop.root)
    (deb,) = (workshop.dist / "paddle-3.3.1").glob("*.deb")
    script = (
        "apt-get -qq update && apt-get -qq --download-only --yes --no-install-recommends install "
        "/deb >/dev/null && date +%s.%N && apt-get -qq --yes --no-install-recommends install /deb "
        ">/dev/null && date +%s.%N"
    )
    mount = engine.mount_argument(str(deb), f"/{deb.name}", True)
    image = base.ensure_base(workshop).reference
    row = Row("paddle-install", "PaddlePaddle's .deb installed in a bare image", "-", "≤ 60 s")
    for _ in range(min(runs, 3)):
        argv = ["docker", "run", "--rm", "--mount", mount, image, "sh", "-c"]
        said = subprocess.run(
            [*argv, script.replace("/deb ", f"/{deb.name} ")],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        row.ours.append(float(said[-1]) - float(said[-2]))
    row.notes.append("without the fetching of Debian's own packages, with byte-compiling")
    yield row
    row = Row("paddle-size", "PaddlePaddle's production image", "-", "≤ 1050 MB", unit="MB")
    tag = production.made_images(workshop, project.resolve(workshop, "paddle"))["cpu"]
    row.ours.append(int(engine.inspect_images(tag)[tag]["Size"]) / 1e6)
    yield row


def touch(workshop: Workshop, runs: int) -> Row:
    """One file edited: compile it, link what holds it."""
    row = Row("touch", "rebuild after one .cc was edited", "host ninja doing the same", "≤ 1.3")
    tree = project.resolve(workshop)
    host = workshop.cache / "host"
    if not host.is_dir():
        raise SlipwayError("the host has no build tools", fix=["./go invoke setup --engine host"])
    with source_copy(tree) as source, tempfile.TemporaryDirectory() as directory:
        path = {"PATH": f"{host}/bin:/usr/bin:/bin", "VIRTUAL_ENV": str(host)}
        flags = tree.variants["cpu"].compiler_flags
        configure = ["cmake", "-S", str(source), "-B", directory, "-G", "Ninja"]
        configure += ["-DCMAKE_BUILD_TYPE=RelWithDebInfo", f"-DCMAKE_CXX_FLAGS={flags}"]
        timed(configure, env=path)
        timed(["ninja", "-C", directory], env=path)
        file = source / "src" / "linear.cc"
        build = invoke("build", "--source", str(source))

        def ours() -> float:
            edit(file)
            return timed(build, cwd=workshop.root)

        def theirs() -> float:
            edit(file)
            return timed(["ninja", "-C", directory], env=path)

        alternate(row, runs, ours, theirs)
        row.notes.append("the edit is real, so neither side finds the object in a cache")
        compiler = subprocess.run(
            ["g++", "--version"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **path},
        ).stdout.splitlines()[0]
        row.notes.append(f"the host compiles with {compiler}, the image with its own")
    timed(invoke("build"), cwd=workshop.root)
    return row


def warm(workshop: Workshop, runs: int) -> Row:
    """What the compiler cache is worth after ``clean``."""
    row = Row("ccache", "`clean`, then `build`, ccache warm", "the first build", "≤ 0.15")
    for number in range(2 if runs > 2 else runs):
        with tempfile.TemporaryDirectory() as cache:
            env = {"INVOKE_CACHE_DIR": cache}
            timed(invoke("clean"), cwd=workshop.root, env=env)
            row.theirs.append(timed(invoke("build"), cwd=workshop.root, env=env))
            timed(invoke("clean"), cwd=workshop.root, env=env)
            row.ours.append(timed(invoke("build"), cwd=workshop.root, env=env))
            found = ccache.counts(workshop.out / "oar" / "cpu" / "build" / ".ccache-statistics")
            console.say(f"  ccache {number + 1}: {row.ours[-1]:.1f} beside {row.theirs[-1]:.1f}")
            row.notes.append(str(found))
    return row


def gpu(workshop: Workshop, runs: int) -> Iterator[Row]:
    """What code for GPUs costs: compiling it, first and from the cache, and in the image."""
    del runs
    row = Row("gpu-ccache", "`build --variant gpu`, ccache warm", "the first build", "≤ 180 s cold")
    build = invoke("build", "--variant", "gpu")
    timed(build, cwd=workshop.root)  # makes the dev image with the compiler for GPUs
    made = workshop.out / "oar" / "gpu"
    with tempfile.TemporaryDirectory() as cache:
        for times in (row.theirs, row.ours):
            shutil.rmtree(made)
            times.append(timed(build, cwd=workshop.root, env={"INVOKE_CACHE_DIR": cache}))
    found = ccache.counts(made / "build" / ".ccache-statistics")
    row.notes.append(str(found))
    yield row
    row = Row("gpu-size", "production image, gpu", "that of cpu", "+ 10 MB", unit="MB")
    timed(invoke("prod", "--variant", "cpu,gpu"), cwd=workshop.root)
    tags = production.made_images(workshop, project.resolve(workshop))
    for variant, sizes in (("gpu", row.ours), ("cpu", row.theirs)):
        sizes.append(int(engine.inspect_images(tags[variant])[tags[variant]]["Size"]) / 1e6)
    yield row


def emulated(workshop: Workshop, runs: int) -> Row:
    """The tests of the variant without AVX on a CPU without AVX."""
    row = Row("emulated", "`test --variant noavx --cpu Nehalem`", "-", "≤ 180 s")
    timed(invoke("prod", "--variant", "noavx"), cwd=workshop.root)
    command = invoke("test", "--variant", "noavx", "--cpu", "Nehalem")
    row.ours += [timed(command, cwd=workshop.root) for _ in range(min(runs, 2))]
    return row


def audited(workshop: Workshop, runs: int) -> Row:
    """Decoding a whole production image, without kept verdicts and with them."""
    row = Row("audit", "`audit --image`, verdicts kept", "without any", "≤ 20 s, ≤ 60 s")
    timed(invoke("prod"), cwd=workshop.root)
    tag = production.made_images(workshop, project.resolve(workshop))["cpu"]
    for _ in range(min(runs, 3)):
        with tempfile.TemporaryDirectory() as cache:
            for times in (row.theirs, row.ours):
                command = invoke("audit", "--image", tag)
                times.append(timed(command, cwd=workshop.root, env={"INVOKE_CACHE_DIR": cache}))
    return row


def first_breakpoint(workshop: Workshop, runs: int) -> Row:
    """From the command to the first breakpoint, in a test binary that is built, and out again."""
    row = Row(
        "debug",
        "`invoke debug` to the first breakpoint, built",
        "gdb in a plain `docker run` on the same binary",
        "≤ 5 s",
    )
    ours = invoke("debug", "--target", "oar_tests", "--", "--gtest_filter=none")
    typed = "break main\nrun\nkill\nquit\n"
    timed(ours, cwd=workshop.root, typed=typed)
    site = next(builds.sites(workshop, "cpu", "", "", "docker", None, builds.DEBUG))
    binary = next(site.build.rglob("oar_tests"))
    plain = ["docker", "run", "--rm", "-i", "--network", "none", "--cap-add", "SYS_PTRACE"]
    plain += ["-v", f"{site.tree.source}:{site.tree.source}:ro", "-v", f"{site.out}:{site.out}"]
    plain += [site.image, "gdb", "-q", "--args", str(binary), "--gtest_filter=none"]
    alternate(
        row,
        runs,
        lambda: timed(ours, cwd=workshop.root, typed=typed),
        lambda: timed(plain, typed=typed),
    )
    return row


def first_login(workshop: Workshop, runs: int) -> Row:
    """From nothing running to a command's answer over ssh."""
    row = Row(
        "ssh",
        "`invoke ssh`, then `ssh … true`, nothing running before",
        "`docker run -d` of the same image, then `docker exec … true`",
        "≤ 2 s",
    )
    site = next(builds.sites(workshop, "cpu", "", "", "docker"))
    with tempfile.TemporaryDirectory() as home:
        env = {"HOME": home, "XDG_CACHE_HOME": str(workshop.cache.parent), "SSH_AUTH_SOCK": ""}
        key = Path(home) / ".ssh" / "id_ed25519"
        key.parent.mkdir(mode=0o700)
        timed(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
        config = workshop.out / "ssh" / "oar-cpu.conf"
        stop = invoke("ssh", "--stop")

        def ours() -> float:
            timed(stop, cwd=workshop.root, env=env)
            start = timed(invoke("ssh"), cwd=workshop.root, env=env)
            return start + timed(["ssh", "-F", str(config), "slipway-oar-cpu", "true"], env=env)

        def theirs() -> float:
            run = ["docker", "run", "-d", "--rm", "--init", "--name", "slipway-bench", site.image]
            answer = timed([*run, "sleep", "60"]) + timed(
                ["docker", "exec", "slipway-bench", "true"]
            )
            timed(["docker", "stop", "--time", "1", "slipway-bench"])
            return answer

        try:
            alternate(row, runs, ours, theirs)
        finally:
            timed(stop, cwd=workshop.root, env=env)
    return row


def documented(workshop: Workshop, runs: int) -> Row:
    """The documentation after one page was edited, and from nothing; its image is there."""
    row = Row("docs", "`invoke docs` after one page was edited", "all of it", "≤ 10 s, ≤ 60 s")
    page = workshop.root / "docs" / "explanation.md"
    before = page.read_bytes()
    timed(invoke("docs"), cwd=workshop.root)
    try:
        for _ in range(min(runs, 3)):
            for made in (workshop.out / "docs", workshop.out / "oar" / "docs"):
                shutil.rmtree(made)
            row.theirs.append(timed(invoke("docs"), cwd=workshop.root))
            page.write_bytes(before + b"\nMeasured.\n")
            row.ours.append(timed(invoke("docs"), cwd=workshop.root))
    finally:
        page.write_bytes(before)
    return row


def edited_app(workshop: Workshop, runs: int) -> Row:
    """An application's image after its program was edited."""
    row = Row(
        "app",
        "`invoke app` after train.py was edited",
        "`docker build` of the Dockerfile that it prints",
        "≤ 3 s",
    )
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as directory:
        folder = Path(directory) / "bench-app"
        shutil.copytree(workshop.root / "examples" / "digits", folder)
        application = applications.find(str(folder))
        dockerfile = Path(directory) / "Dockerfile"
        dockerfile.write_text(application.dockerfile)
        timed(invoke("app", "--dir", str(folder)), cwd=workshop.root)
        prod = production.made_images(workshop, project.resolve(workshop))["cpu"]
        argv, env = engine.build_client()
        argv += ["--file", str(dockerfile), "--tag", "slipway-bench-app", str(folder)]
        argv += ["--build-arg", f"BASE={prod}"]
        argv += ["--build-arg", f"TOOLS={applications.ensure_tools(workshop)}"]

        def edit_program() -> None:
            with (folder / "train.py").open("a") as stream:
                stream.write(f"# {time.time_ns()}\n")

        def ours() -> float:
            edit_program()
            return timed(invoke("app", "--dir", str(folder)), cwd=workshop.root)

        def theirs() -> float:
            edit_program()
            took = timed(argv, env=env)
            images.remove("slipway-bench-app")  # or each run would leave one without a name
            return took

        try:
            alternate(row, runs, ours, theirs)
        finally:
            for facts in (workshop.out / "apps" / folder.name).glob("*.json"):
                for name in ("alias", "tag"):
                    images.remove(str(receipts.facts(facts)[name]))
    return row


def first_step(workshop: Workshop, runs: int) -> Row:
    """From the command to the first step of a job, without the import of PaddlePaddle."""
    row = Row(
        "train",
        "`invoke train --nodes 4` to the digits' first step, without the import",
        "`docker run` of the same image, one process",
        "≤ 15 s",
    )
    digits = ["--dir", "examples/digits"]
    timed(invoke("app", *digits), cwd=workshop.root)
    tag = str(receipts.facts(workshop.out / "apps" / "digits" / "cpu.json")["tag"])
    words = ["--epochs", "1", "--target", "0"]
    program = ["docker", "run", "--rm", "--network", "none", tag, "python", "/app/train.py"]

    def without_import(argv: Sequence[str]) -> float:
        reached, said = until(argv, "first step", cwd=workshop.root)
        return reached - float(re.findall(r"imported in ([\d.]+) s", said)[0])

    alternate(
        row,
        runs,
        lambda: without_import(invoke("train", *digits, "--nodes", "4", "--", *words)),
        lambda: without_import([*program, *words]),
    )
    return row


def second_all(workshop: Workshop, runs: int) -> Row:
    """Everything there, nothing changed."""
    row = Row("second-all", "second `invoke all`, nothing changed", "-", "≤ 10 s")
    timed(invoke("all"), cwd=workshop.root)
    for _ in range(runs):
        row.ours.append(timed(invoke("all"), cwd=workshop.root))
    return row


def first_all(workshop: Workshop, runs: int) -> Row:
    """Both sides on a machine without engine, images and caches, which this makes so."""
    row = Row(
        "first-all",
        "first `./go invoke all` on a machine with nothing",
        "a shell script of the same apt, docker and cmake commands in a row",
        "≤ 0.9",
    )
    if os.environ.get(MAY_RESET) != "1":
        raise SlipwayError(
            "this row removes docker with all its images, and Slipway's caches, from this machine",
            fix=[
                f"{MAY_RESET}=1 ./go invoke bench --rows first-all, on a machine that may lose them"
            ],
            code=USAGE,
        )
    for number in range(min(runs, 2)):
        for side, times in (("theirs", row.theirs), ("ours", row.ours)):
            timed(["bash", str(HERE / "reset-machine")], env={"CACHE": str(workshop.cache)})
            with tempfile.TemporaryDirectory() as directory:
                clone = Path(directory) / "slipway"
                timed(["git", "clone", "--quiet", str(workshop.root), str(clone)])
                command = ["bash", str(HERE / "first-all-by-hand"), str(clone)]
                if side == "ours":
                    command = ["./go", "invoke", "all"]
                # Neither side makes the book: fetching its wheels would be most of both.
                times.append(timed(command, cwd=clone, env={"INVOKE_BOOK": ""}))
            console.say(f"  first-all {number + 1}, {side}: {times[-1]:.0f}")
    row.notes.append("the first side of each pair is the script's; both fetch everything anew")
    return row


def size(workshop: Workshop, runs: int) -> Row:  # noqa: ARG001  # a size is the same each time
    """The production image, and its largest packages."""
    row = Row("size", "production image, cpu", "-", "≤ 170 MB", unit="MB")
    timed(invoke("prod"), cwd=workshop.root)
    tag = production.made_images(workshop, project.resolve(workshop))["cpu"]
    row.ours.append(int(engine.inspect_images(tag)[tag]["Size"]) / 1e6)
    history = engine.ask(
        ["history", "--no-trunc", "--human=false", "--format", LAYER, tag], "list the layers"
    )
    for line in reversed(history.splitlines()):
        layer, _, command = line.partition(" ")
        if int(layer) > 100_000:
            what = "the base" if "RUN" not in command else command.rpartition("apt-install ")[2]
            row.notes.append(f"layer of {int(layer) / 1e6:.1f} MB: {what.partition(' # ')[0]}")
    packages = dict(images.largest(workshop, tag, 400))
    row.notes += [f"{megabytes:.1f} MB {name}" for name, megabytes in list(packages.items())[:12]]
    numpy = sum(packages.get(name, 0) for name in NUMPY)
    row.notes.append(f"NumPy with its BLAS and Fortran libraries: {numpy:.0f} MB; an image without")
    row.notes[-1] += f" would have {row.ours[0] - numpy:.0f} MB, and nothing else is as large"
    return row


def kernels(workshop: Workshop, runs: int) -> Iterator[Row]:
    """Seconds of Oar's kernels in the production images of both variants."""
    timed(invoke("prod", "--variant", "cpu,noavx"), cwd=workshop.root)
    tree = project.resolve(workshop)
    tags = production.made_images(workshop, tree)
    script = tree.source / "benchmarks"
    rows = {
        name: Row(f"kernel-{name}", f"Oar's {name}, cpu variant", "noavx variant", "≤ 0.667")
        for name in ("linear", "conv2d")
    }

    def measure(variant: str) -> dict[str, float]:
        argv = ["docker", "run", "--rm", "--network", "none", "--mount"]
        argv += [engine.mount_argument(str(script), "/work", True), tags[variant]]
        argv += ["python3", "bench_kernels.py"]
        out = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        found: dict[str, float] = json.loads(out)["seconds"]
        return found

    for _ in range(runs):
        cpu, noavx = measure("cpu"), measure("noavx")
        for name, row in rows.items():
            row.ours.append(cpu[name])
            row.theirs.append(noavx[name])
    yield from rows.values()


ROWS: dict[str, Callable[[Workshop, int], Row | Iterator[Row]]] = {
    "list": listing,
    "no-op": no_op,
    "touch": touch,
    "ccache": warm,
    "second-all": second_all,
    "first-all": first_all,
    "lightgbm-no-op": other_no_op,
    "lightgbm-ccache": other_warm,
    "paddle": wheel_package,
    "gpu": gpu,
    "emulated": emulated,
    "audit": audited,
    "debug": first_breakpoint,
    "ssh": first_login,
    "docs": documented,
    "app": edited_app,
    "train": first_step,
    "size": size,
    "kernels": kernels,
}
# Minutes each.
ON_REQUEST = ("first-all", "lightgbm-no-op", "lightgbm-ccache", "paddle", "gpu", "emulated")


def bench(workshop: Workshop, rows: str, runs: int) -> None:
    """Measure ``rows`` (empty: all but those that change the machine) and write README.md."""
    names = [n.strip() for n in rows.split(",") if n.strip()]
    for name in names:
        if name not in ROWS:
            raise SlipwayError(f"no row '{name}'", cause=nearest(name, ROWS), code=USAGE)
    commit = subprocess.run(
        ["git", "-C", str(workshop.root), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    for name in names or [n for n in ROWS if n not in ON_REQUEST]:
        console.say(f"measuring {name}")
        if workshop.dry:
            continue
        made = ROWS[name](workshop, runs)
        for row in [made] if isinstance(made, Row) else made:
            row.commit, row.machine = commit, machine()
            row.date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
            write_whole(
                HERE / "runs" / f"{row.name}.json", json.dumps(asdict(row), indent=1) + "\n"
            )
    if not workshop.dry:
        kept = [Row(**json.loads(f.read_text())) for f in sorted((HERE / "runs").glob("*.json"))]
        write_whole(HERE / "README.md", report(kept))
        console.say(f"wrote {console.shown(HERE / 'README.md', workshop.root)}")


def report(rows: Sequence[Row]) -> str:
    """README.md of the benchmarks: the table, then what each row was measured on."""
    lines = [
        "# Measured",
        "",
        "Written by `invoke bench` from the runs kept in `runs/`; do not edit. Medians; a ratio",
        "is of alternating runs of both sides, lower is better.",
        "",
        "| what | beside | ours | theirs | ratio | to reach | runs |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours = f"{statistics.median(row.ours):.3g} {row.unit}"
        theirs = f"{statistics.median(row.theirs):.3g} {row.unit}" if row.theirs else "-"
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else "-"
        cells = [row.what, row.beside, ours, theirs, ratio, row.reach, str(len(row.ours))]
        lines.append(f"| {' | '.join(cells)} |")
    for row in rows:
        lines += ["", f"## {row.what}", "", f"{row.date}, commit {row.commit}; {row.machine}."]
        lines += [f"- {note}" for note in row.notes]
    return "\n".join(lines) + "\n"
