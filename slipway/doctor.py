"""What this machine has and lacks, each finding with its fix. Looks only; ``setup`` acts."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from slipway import base, ccache, console, engine, gpu, podman, processes
from slipway.errors import UNAVAILABLE, SlipwayError
from slipway.records import Record
from slipway.settings import Workshop

CAP_SYS_ADMIN = 21  # bit in CapEff, include/uapi/linux/capability.h: what a container engine needs
LOW_DISK = 5e9

# What the scripts call when they run in place; packages-dev.txt brings them all.
TOOLS = (
    *("bash", "cmake", "ctest", "ninja", "ccache", "mold", "g++", "readelf", "objcopy", "strip"),
    *("dpkg-deb", "dpkg-shlibdeps", "lintian"),
)

Level = Literal["ok", "note", "problem"]


class Finding(Record, frozen=True):
    """One thing that was looked at."""

    level: Level
    what: str
    fix: str = ""


def engine_error() -> SlipwayError | None:
    """Why the engine cannot be used, or None when it answers."""
    try:
        engine.ask(["version", "--format", "{{.Server.Version}}"], "ask the engine for its version")
    except SlipwayError as error:
        return error
    return None


def can_run_engine() -> str:
    """Why no engine can be started on this machine at all; empty when one could be."""
    if sys.platform != "linux":
        return "a container engine has to be installed by hand on this system"
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return ""
    bits = next((x.split()[1] for x in status.splitlines() if x.startswith("CapBnd:")), "0")
    if not int(bits, 16) >> CAP_SYS_ADMIN & 1:
        return "this is a container without the privileges that a container engine needs"
    return ""


def is_debian() -> bool:
    """Whether apt and Debian's or Ubuntu's packages are here."""
    try:
        release = Path("/etc/os-release").read_text()
    except OSError:
        return False
    return shutil.which("apt-get") is not None and ("debian" in release or "ubuntu" in release)


def missing_tools(workshop: Workshop) -> list[str]:
    """Programs that jobs in place need and this machine lacks."""
    missing = [t for t in TOOLS if not shutil.which(t, path="/usr/bin:/bin:/usr/sbin:/sbin")]
    homes = (Path("/opt/slipway"), workshop.cache / "host")
    if not any((home / "bin" / "python3").exists() for home in homes):
        missing.append("Python packages of requirements-image.txt")
    return missing


def missing_packages(names: Sequence[str]) -> list[str]:
    """Debian packages of ``build.apt`` that jobs in place need and this machine lacks."""
    if not names:
        return []
    bare = [name.partition("=")[0] for name in names]
    asked = processes.look(["dpkg-query", "--show", "--showformat=${Package}\n", *bare])
    here = asked.stdout.split()
    return [name for name in bare if name.partition(":")[0] not in here]


def look(workshop: Workshop) -> Iterator[Finding]:
    """Every finding, in the order in which one would mend them."""
    yield Finding("ok", f"Python {sys.version.split()[0]}, checkout {workshop.checkout}")
    if engine.MARKER.exists():
        yield Finding("ok", "inside the dev image: build, test and deb run in place")
        return
    error = engine_error()
    if error:
        yield Finding("problem", f"{error.what}: {error.cause}", "; ".join(error.fix))
        why = can_run_engine()
        if why:
            yield Finding("note", why, "./go invoke all --engine host")
    else:
        yield from _podman() if podman.is_client() else _docker()
        found = base.found(workshop, engine.inspect_images(*base.candidates(workshop)))
        if found:
            yield Finding("ok", f"base image {found.reference} ({found.identity})")
        elif shutil.which("mmdebstrap"):
            yield Finding("note", "no base image yet", "it is pulled or made when first needed")
        else:
            yield Finding(
                "note",
                f"no base image {workshop.settings.base} yet, and no mmdebstrap to make one with",
                "./go invoke setup, if no registry can be reached",
            )
    yield from _local(workshop)
    if not error or workshop.settings.engine == "host":
        yield gpu_finding(workshop, gpu.look(engine.place(workshop)))


def _podman() -> Iterator[Finding]:
    """Podman's own program, which answers."""
    version = engine.ask(["version", "--format", "{{.Server.Version}}"], "ask").strip()
    yield Finding("ok", f"podman {version} answers ({engine.client()})")
    user = engine.caller()
    for what, fix in podman.lacks(user.name, user.uid):
        yield Finding("problem", what, fix)


def _docker() -> Iterator[Finding]:
    """An engine that answers, and what builds images at it."""
    answer = engine.ask(["version", "--format", "{{.Server.Version}} {{.Client.Version}}"], "ask")
    server, client = answer.split()
    yield Finding("ok", f"docker engine {server} answers, client {client} ({engine.client()})")
    try:
        command, _ = engine.build_client()
        if podman.is_builder(command):
            yield Finding("ok", f"that engine is Podman: images are built by {command[0]}")
            return
        yield Finding(
            "ok", f"BuildKit through {command[0]}{' buildx' if 'buildx' in command else ''}"
        )
    except SlipwayError as lacking:
        yield Finding("problem", f"{lacking.what}: {lacking.cause}", "; ".join(lacking.fix))


def gpu_finding(workshop: Workshop, facts: gpu.Facts) -> Finding:
    """Whether jobs have a GPU; without one nothing fails but what asks for it."""
    known = gpu.remembered(workshop, facts)
    if known and known.devices:
        return Finding("ok", known.sentence)
    lacks = known.lacks if known else gpu.lacking(facts)
    if lacks and (known or not gpu.ways(facts) or not facts.contained):
        why = "; ".join(lack.why for lack in lacks)
        fixes = [fix for lack in lacks for fix in lack.fix if fix != gpu.FIX_MACHINE]
        where = "" if facts.card or facts.driver else "on a machine that has one: "
        return Finding("note", f"no GPU: {why}", where + "; ".join(dict.fromkeys(fixes)))
    names = " or ".join(way.name for way in gpu.ways(facts))
    return Finding("note", f"a GPU may be had by {names}", "invoke test --variant gpu, which tries")


def _local(workshop: Workshop) -> Iterator[Finding]:
    """What concerns this machine's files and network."""
    bundle = workshop.ca_bundle
    yield (
        Finding("ok", f"CA bundle for builds: {bundle}")
        if bundle
        else Finding(
            "note",
            "no CA bundle found; builds use the base image's",
            "set ca_bundle in invoke.yaml",
        )
    )
    proxies = [name for name in engine.PROXIES if name in os.environ]
    if proxies:
        yield Finding("ok", f"proxy variables reach builds: {', '.join(proxies)}")
    if workshop.settings.ccache_remote:
        where = f"the team's compiler cache at {ccache.shown(workshop.settings)}"
        why_not = ccache.answers(workshop.settings)
        yield (
            Finding("note", f"{where} does not answer: {why_not}", "builds go on without it")
            if why_not
            else Finding("ok", f"{where} takes connections")
        )
    lacking = missing_tools(workshop)
    if workshop.settings.engine == "host" and lacking:
        yield Finding(
            "problem",
            f"engine: host, and missing: {', '.join(lacking)}",
            "./go invoke setup --engine host",
        )
    for directory in (workshop.out, workshop.dist):
        if directory.exists() and not os.access(directory, os.W_OK):
            yield Finding(
                "problem",
                f"{directory} cannot be written: it belongs to uid {directory.stat().st_uid}",
                f'sudo chown -R "$(id -u):$(id -g)" "{directory}"',
            )
    free = shutil.disk_usage(workshop.root).free
    if free < LOW_DISK:
        yield Finding(
            "note", f"{console.megabytes(free)} free for {workshop.root}", "invoke clean --keep 5GB"
        )
    else:
        yield Finding("ok", f"{free / 1e9:.0f} GB free for {workshop.root}")


def doctor(workshop: Workshop) -> None:
    """Print every finding; a problem makes the task fail."""
    problems = 0
    for finding in look(workshop):
        problems += finding.level == "problem"
        console.say(f"{finding.level:8} {finding.what}")
        if finding.fix:
            console.say(f"{'':8} try: {finding.fix}")
    if problems:
        raise SlipwayError(
            f"{problems} problem{'s' * (problems > 1)} found",
            fix=["what stands beside each of them above"],
            code=UNAVAILABLE,
        )


def apt_candidates(names: list[str]) -> list[str]:
    """Those of ``names`` that the configured archives offer."""
    answer = processes.look(["apt-cache", "policy", *names], env={"LC_ALL": "C"})
    offered, name = [], ""
    for line in answer.stdout.splitlines():
        if not line.startswith(" "):
            name = line.rstrip(":")
        elif line.strip().startswith("Candidate:") and "(none)" not in line:
            offered.append(name)
    return offered
