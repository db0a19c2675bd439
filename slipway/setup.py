"""Bringing a machine to where tasks run: the only place that installs anything.

An engine that is there is used as it is, never restarted or configured. What is missing is
installed on Debian and Ubuntu, after the plan has been shown; elsewhere the commands are named.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from pathlib import Path

from slipway import base, console, doctor, engine, podman, processes
from slipway.engine import Place
from slipway.errors import UNAVAILABLE, SlipwayError
from slipway.settings import Workshop

DOCKERD_LOG = Path("/var/log/slipway-dockerd.log")
DOCKERD_WAIT_S = 60


def setup(workshop: Workshop, *, wanted: str, yes: bool) -> None:
    """Make this machine ready for the engine that ``--engine`` or the setting names."""
    choice = engine.choice(workshop, wanted)
    if choice == "host":
        ensure_host(workshop, yes=yes)
    elif choice == "auto" and engine.MARKER.exists():
        console.say("inside the dev image: nothing to set up, tasks run in place")
    else:
        ensure_engine(workshop, yes=yes)
        ensure_bootstrap(workshop, yes=yes)
    if not workshop.dry:
        doctor.doctor(workshop)


def ensure_place(workshop: Workshop, *, wanted: str, yes: bool) -> tuple[Place, str]:
    """Where ``all`` runs, made ready; and, where that is in place, the reason."""
    choice = engine.choice(workshop, wanted)
    if choice == "host":
        ensure_host(workshop, yes=yes)
        return engine.InPlace(workshop), "--engine host"
    if choice == "auto" and engine.MARKER.exists():
        return engine.InPlace(workshop), "this is the inside of the dev image"
    if choice == "auto" and doctor.engine_error():
        why = doctor.can_run_engine()
        if why and not _named_engine():
            console.say(f"{why}: going on in place, without images")
            ensure_host(workshop, yes=yes)
            return engine.InPlace(workshop), why
    ensure_engine(workshop, yes=yes)
    ensure_bootstrap(workshop, yes=yes)
    return engine.Docker(workshop), ""


def _named_engine() -> str:
    """The engine that the user names by variable or context; empty for this machine's own."""
    named = os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT") or ""
    if not named and shutil.which("docker"):
        current = processes.look(["docker", "context", "show"])
        named = current.stdout.strip() if current.returncode == 0 else ""
    return "" if named in ("", "default") else named


def ensure_engine(workshop: Workshop, *, yes: bool) -> None:
    """An engine that answers and a client that can build, installed and started if need be."""
    if podman.is_client():
        ensure_podman(workshop, yes=yes)
        return
    error = doctor.engine_error()
    if error is None:
        engine.build_client()
        return
    if error.code != UNAVAILABLE or _named_engine():
        raise error  # no permission, or an engine that somebody named: not ours to replace
    if not doctor.is_debian():
        raise SlipwayError(
            error.what,
            cause=f"{error.cause}\nSlipway installs an engine on Debian and Ubuntu only",
            fix=["install Docker as its documentation says, then ./go invoke doctor"],
        )
    why = doctor.can_run_engine()
    if why:
        raise SlipwayError(error.what, cause=why, fix=["./go invoke all --engine host"])
    packages = (
        [] if shutil.which("dockerd", path="/usr/sbin:/usr/bin:/usr/local/bin") else ["docker.io"]
    )
    if not shutil.which("mmdebstrap"):
        packages.append("mmdebstrap")  # small, and asked for in the same breath
    plan = (
        [f"install {', '.join(packages)} from this system's own package archive"]
        if packages
        else []
    )
    systemd = Path("/run/systemd/system").is_dir()
    start = "systemctl start docker" if systemd else f"dockerd, its log in {DOCKERD_LOG}"
    user = engine.caller()
    plan.append(f"start the engine ({start})")
    if user.uid:
        plan.append(f"let {user.name} use it (group docker)")
    agree(plan, yes=yes)
    if workshop.dry:
        return
    if packages:
        apt_install(packages, with_docker="docker.io" in packages)
    if doctor.engine_error():
        start_engine(systemd=systemd)
    if user.uid:
        as_root(["usermod", "-aG", "docker", user.name])
    refused = doctor.engine_error()
    if refused:
        raise refused
    engine.build_client()


def ensure_podman(workshop: Workshop, *, yes: bool) -> None:
    """Podman's program with what it needs, installed if need be: there is nothing to start."""
    user = engine.caller()
    if not doctor.engine_error() and podman.init_program():
        return
    if not doctor.is_debian():
        raise SlipwayError(
            "no podman that can start containers on this machine",
            cause="Slipway installs it on Debian and Ubuntu only",
            fix=[f"install {', '.join(podman.PACKAGES)}, then ./go invoke doctor"],
        )
    packages = [*podman.PACKAGES, *(podman.ROOTLESS if user.uid else ()), "mmdebstrap"]
    agree([f"install {', '.join(packages)} from this system's own package archive"], yes=yes)
    if workshop.dry:
        return
    apt_install(packages)
    refused = doctor.engine_error()
    if refused:
        raise refused


def start_engine(*, systemd: bool) -> None:
    """Start the engine and wait until it answers."""
    if systemd:
        as_root(["systemctl", "start", "docker"])
    else:
        # A session of its own: it outlives this task and does not hear its Ctrl-C.
        script = f"exec setsid --fork dockerd >>{DOCKERD_LOG} 2>&1 </dev/null"
        as_root(["sh", "-c", script])
    deadline = time.monotonic() + DOCKERD_WAIT_S
    while time.monotonic() < deadline:
        error = doctor.engine_error()
        if error is None or error.code != UNAVAILABLE:
            console.say("the docker engine is running")
            return
        time.sleep(0.2)
    tail = "\n".join(DOCKERD_LOG.read_text().splitlines()[-5:]) if DOCKERD_LOG.is_file() else ""
    raise SlipwayError(
        f"the docker engine did not start within {DOCKERD_WAIT_S} s",
        cause=tail,
        fix=[f"less {DOCKERD_LOG}" if not systemd else "journalctl -u docker"],
    )


def ensure_bootstrap(workshop: Workshop, *, yes: bool) -> None:
    """mmdebstrap, where the base image is not here and no registry gives it."""
    if shutil.which("mmdebstrap") or not base.suite_of(workshop.settings.base):
        return
    if base.found(workshop, engine.inspect_images(*base.candidates(workshop))):
        return
    for source in base.base_places(workshop):
        if not base.pull(source, workshop.settings.pull_wait_s, dry=workshop.dry):
            return
    if not doctor.is_debian():
        return  # making the base says what is missing
    agree(["install mmdebstrap, to make the base image from the Debian archive"], yes=yes)
    if not workshop.dry:
        apt_install(["mmdebstrap"])


def ensure_host(workshop: Workshop, *, yes: bool) -> None:
    """The dev image's packages on this machine itself, for jobs in place."""
    if not doctor.missing_tools(workshop):
        return
    if not doctor.is_debian():
        raise SlipwayError(
            f"missing on this machine: {', '.join(doctor.missing_tools(workshop))}",
            cause="--engine host installs them on Debian and Ubuntu only",
            fix=["install them by hand", "or use an engine: ./go invoke setup"],
        )
    listing = (workshop.scripts / "packages-dev.txt").read_text().splitlines()
    names = [line for line in listing if line and not line.startswith("#")]
    home = workshop.cache / "host"
    agree(
        [
            f"install {len(names)} Debian packages (scripts/packages-dev.txt)",
            f"make {home} for Python's",
        ],
        yes=yes,
    )
    if workshop.dry:
        return
    apt_install(names)
    requirements = str(workshop.root / "requirements-image.txt")
    status = processes.call(
        [str(workshop.scripts / "pip-install"), str(home), requirements],
        env={"SLIPWAY_WHEELHOUSE": str(workshop.cache / "wheelhouse")},
    )
    if status:
        raise SlipwayError(
            "the Python packages were not installed",
            cause="pip's words are above",
            fix=["set mirrors.pip in invoke.yaml to an index that can be reached"],
            code=status,
        )


def agree(plan: list[str], *, yes: bool) -> None:
    """Show what is about to be done to this machine, and go on only with leave.

    As root, or with ``--yes``, that is leave; else a person is asked once, on a terminal.
    """
    console.say("setting up this machine:")
    for step in plan:
        console.say(f"  - {step}")
    if yes or engine.caller().uid == 0:
        return
    if not is_agreed("./go invoke setup --yes"):
        raise SlipwayError("nothing was installed", fix=["./go invoke setup, when you are ready"])


def is_agreed(unasked: str) -> bool:
    """Ask a person whether to go on with the plan that was shown; an error where none is there.

    :param unasked: the command that agrees by itself.
    """
    if not engine.on_terminal():
        raise SlipwayError(
            "nobody is here to agree to this plan",
            cause="standard input is no terminal",
            fix=[unasked],
        )
    console.say("go on? [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def as_root(argv: list[str]) -> None:
    """Run one command as root, through sudo where we are not."""
    full = argv if engine.caller().uid == 0 else ["sudo", *argv]
    if full[0] == "sudo" and not shutil.which("sudo"):
        raise SlipwayError(
            "this needs root, and there is no sudo", fix=[f"as root: {shlex.join(argv)}"]
        )
    console.show_command(full)
    status = processes.call(full, stdin=None)
    if status:
        raise SlipwayError(
            f"{shlex.join(argv)} failed",
            cause="its words are above",
            fix=["mend that, then ./go invoke setup"],
            code=UNAVAILABLE,
        )


def apt_install(packages: list[str], *, with_docker: bool = False) -> None:
    """Install Debian packages without what they merely recommend."""
    as_root(["apt-get", "--quiet", "update"])
    if (
        with_docker
    ):  # since Debian 13 the command line and BuildKit's client are packages of their own
        packages = [*packages, *doctor.apt_candidates(["docker-cli", "docker-buildx"])]
    quiet = ["--quiet", "--yes", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0"]
    # A slim system leaves out what lintian consists of.
    quiet += ["-o", "Dpkg::Options::=--path-include=/usr/share/lintian/*"]
    as_root(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *quiet, "install", *packages])
