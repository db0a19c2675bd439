"""Where the base image comes from: found here, pulled, pulled through the mirror, or bootstrapped.

``pulled`` is the only function that fetches an image from a registry.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slipway import console, outputs, processes
from slipway.engine import LABEL, client, failure, inspect_images
from slipway.errors import BAD_DATA, SlipwayError
from slipway.records import Record
from slipway.settings import Workshop

IDENTITY = "slipway.base-identity"  # label: suite and hash of the package list
MERGED_USR = Path("/usr/share/mmdebstrap/hooks/maybe-merged-usr")
SUITES = ("bookworm", "trixie", "forky", "sid")

# What Debian's own slim images leave out (debuerreotype's .slimify-excludes).
SLIM = (
    *("path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright"),
    *("path-exclude=/usr/share/man/*", "path-exclude=/usr/share/info/*"),
    *("path-exclude=/usr/share/groff/*", "path-exclude=/usr/share/lintian/*"),
    *("path-exclude=/usr/share/linda/*", "path-exclude=/usr/share/locale/*"),
)


class Base(Record, frozen=True):
    """A base image that is here."""

    reference: str
    """Tag that FROM can name."""
    identity: str
    """Equal on two machines with the same base: a digest, or suite and package list's hash."""


def bootstrapped_tag(reference: str) -> str:
    """Tag of our own image that stands in for ``reference``, whose name stays Debian's."""
    return f"slipway-base:{re.sub(r'[^A-Za-z0-9_.-]', '-', reference)}"


def places(workshop: Workshop, reference: str) -> list[str]:
    """What an image is pulled as: by its own name, then from the mirror, if there is one."""
    mirror = workshop.settings.mirrors.registry
    return [reference, *([f"{mirror.rstrip('/')}/{official(reference)}"] if mirror else [])]


def registries(workshop: Workshop) -> list[str]:
    """Where our own images are: the registry of the settings, then each of its mirrors, once."""
    named = [workshop.settings.registry, *workshop.settings.registry_mirrors]
    return list(dict.fromkeys(name.rstrip("/") for name in named if name))


def our_places(workshop: Workshop, alias: str) -> list[str]:
    """What an image of ours is pulled as, from the registry of the settings and its mirrors."""
    return [f"{registry}/{alias}" for registry in registries(workshop)]


def base_places(workshop: Workshop) -> list[str]:
    """What the base is pulled as; last, as ``push --dev`` has put one that was made somewhere."""
    reference = workshop.settings.base
    return [*places(workshop, reference), *our_places(workshop, bootstrapped_tag(reference))]


def candidates(workshop: Workshop) -> list[str]:
    """Tags under which the base may be found on this machine, best first."""
    return [*base_places(workshop), bootstrapped_tag(workshop.settings.base)]


def official(reference: str) -> str:
    """``debian:x`` as a registry spells it, ``library/debian:x``; a name with a path as it is."""
    return reference if "/" in reference else f"library/{reference}"


def described(reference: str, image: dict[str, Any]) -> Base:
    """The ``Base`` that an inspected image is."""
    labels = image["Config"].get("Labels") or {}
    digests = image.get("RepoDigests") or []
    digest = digests[0].rpartition("@")[2] if digests else image["Id"]
    return Base(reference, labels.get(IDENTITY, digest))


def found(workshop: Workshop, images: dict[str, dict[str, Any]]) -> Base | None:
    """The base among inspected images, if it is one of them."""
    for reference in candidates(workshop):
        if reference in images:
            return described(reference, images[reference])
    return None


def ensure_base(workshop: Workshop) -> Base:
    """The base image of the settings, fetched or made if it is not here."""
    here = found(workshop, inspect_images(*candidates(workshop)))
    if here:
        return here
    reference = workshop.settings.base
    source, tried = pulled(workshop, base_places(workshop))
    if source:
        return Base(source, "") if workshop.dry else _inspected(source)
    suite = suite_of(reference)
    if not suite:
        raise SlipwayError(
            f"no base image '{reference}'",
            cause="\n".join(tried),
            fix=["check base and mirrors.registry in invoke.yaml", f"docker pull {reference}"],
        )
    return bootstrap(workshop, suite, tried)


def pulled(workshop: Workshop, sources: Sequence[str]) -> tuple[str, list[str]]:
    """The name under which an image was pulled, empty when nobody has it; and what was tried.

    :param sources: what it is called by whoever may have it, asked in turn.
    """
    tried: list[str] = []
    for source in sources:
        why = pull(source, workshop.settings.pull_wait_s, dry=workshop.dry)
        if not why:
            return source, tried
        tried.append(f"pull {source}: {why}")
        console.say(f"no {source} from its registry: {why}")
    return "", tried


def found_or_pulled(workshop: Workshop, sources: Sequence[str]) -> tuple[str, list[str]]:
    """The same for an image that may be here already, by one of its names."""
    here = inspect_images(*sources)
    for source in sources:
        if source in here:
            return source, []
    return pulled(workshop, sources)


def _inspected(reference: str) -> Base:
    return described(reference, inspect_images(reference)[reference])


def suite_of(reference: str) -> str:
    """The Debian suite that an official Debian image is made of; empty for any other image."""
    match = re.fullmatch(r"(?:docker\.io/)?(?:library/)?debian:([a-z]+)(-slim)?", reference)
    return match.group(1) if match and match.group(1) in SUITES else ""


def pull(reference: str, wait_s: float, *, dry: bool = False) -> str:
    """Pull ``reference``; the reason when it cannot be had, empty when it can.

    A registry to which there is no route is given up after ``wait_s`` seconds: that long the client
    may take to print its first line. Once it has begun, a pull may take as long as it needs.
    """
    argv = [client(), "pull", reference]
    console.show_command(argv)
    if dry:
        return ""
    lines: list[str] = []
    begun = threading.Event()
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
    ) as process:

        def follow() -> None:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                # The client announces "Using default tag" before it has asked anybody.
                if not line.startswith("Using default tag"):
                    begun.set()
                    if ": Pulling from " in line or "complete" in line or line.startswith("Status"):
                        console.say(line.rstrip())

        reader = threading.Thread(target=follow, daemon=True)
        reader.start()
        try:
            deadline = time.monotonic() + wait_s
            while process.poll() is None and not begun.wait(0.05):
                if time.monotonic() > deadline:
                    process.kill()
                    return f"no answer within {wait_s:g} s"
            status = process.wait()
            reader.join()
        except BaseException:
            process.kill()
            raise
    if not status:
        return ""
    said = lines[-1] if lines else f"status {status}"
    refusal = failure(said, f"pull {reference}")
    if not re.match("(docker|podman) failed", refusal.what):
        raise refusal  # the engine itself does not answer: no mirror will help
    return said.removeprefix("Error response from daemon: ")


def bootstrap(workshop: Workshop, suite: str, tried: list[str]) -> Base:
    """A slim Debian made from a Debian archive with mmdebstrap, where no registry has one."""
    reference = workshop.settings.base
    if sys.platform != "linux" or not shutil.which("mmdebstrap"):
        raise SlipwayError(
            f"no base image '{reference}', and it cannot be made here: no mmdebstrap",
            cause="\n".join(tried),
            fix=["./go invoke setup (on Debian and Ubuntu it installs mmdebstrap)"],
        )
    tag = bootstrapped_tag(reference)
    argv = ["mmdebstrap", "--variant=minbase", '--aptopt=Acquire::Languages "none"']
    argv += [f"--dpkgopt={option}" for option in SLIM]
    # An image carries neither lists nor logs, and the files that would differ from run to run.
    argv.append('--customize-hook=rm -rf "$1"/var/log/* "$1"/var/cache/debconf/*-old')
    argv.append('--customize-hook=rm -f "$1"/etc/hostname "$1"/etc/resolv.conf')
    if suite == "bookworm" and MERGED_USR.is_dir():
        # Else apt satisfies init-system-helpers with usrmerge, which brings 50 MB of Perl.
        argv += [f"--hook-dir={MERGED_USR}", "--include=usr-is-merged"]
    argv += ["--quiet", suite, "BASE.tar"]
    if workshop.settings.mirrors.apt:
        argv.append(workshop.settings.mirrors.apt)
    console.say(f"making {tag} from the Debian archive ({suite}, about 20 s)")
    console.show_command(argv)
    if workshop.dry:
        return Base(tag, "")
    import tempfile  # 5 ms that a build of nothing need not pay

    work = outputs.make(workshop.out / ".run", workshop.out)
    with tempfile.TemporaryDirectory(dir=work, prefix="base-") as directory:
        tar = Path(directory) / "base.tar"
        argv[argv.index("BASE.tar")] = str(tar)
        status = processes.call(argv)
        if status:
            raise SlipwayError(
                f"mmdebstrap made no {suite}: status {status}",
                cause="its words are above; usually the Debian archive cannot be reached",
                fix=["set mirrors.apt in invoke.yaml to a Debian archive that can be reached"],
                code=status,
            )
        size = tar.stat().st_size
        if size > workshop.settings.budgets.base_mb * 1e6:
            raise SlipwayError(
                f"the base has {console.megabytes(size)}, more than budgets.base_mb = "
                f"{workshop.settings.budgets.base_mb}",
                fix=["raise budgets.base_mb in invoke.yaml"],
                code=BAD_DATA,
            )
        identity = f"{suite}-{package_hash(tar)}"
        # One a line: podman takes the first of several.
        labels = (f"{IDENTITY}={identity}", "slipway.kind=base", f"{LABEL}={workshop.checkout}")
        changes = [f"LABEL {label}" for label in labels]
        changes += [
            'CMD ["bash"]',
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ]
        load = [client(), "import", *(x for c in changes for x in ("--change", c)), str(tar), tag]
        console.show_command(load)
        if processes.call(load):
            raise SlipwayError(
                f"import of {tag} failed",
                cause="its words are above",
                fix=["./go invoke doctor"],
                code=74,
            )
    return Base(tag, identity)


def package_hash(tar: Path) -> str:
    """Hash of the sorted package list in an archive of a Debian system: equal on any machine."""
    status = subprocess.run(
        ["tar", "-xOf", str(tar), "./var/lib/dpkg/status"], check=True, capture_output=True
    ).stdout.decode()
    packages = []
    for stanza in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in stanza.splitlines() if re.match(r"[A-Z][a-z-]+: ", line)
        )
        if fields:
            packages.append(f"{fields['Package']}:{fields['Architecture']}={fields['Version']}")
    if not packages:
        raise SlipwayError(
            "the bootstrapped base has no packages", fix=["./go invoke doctor"], code=BAD_DATA
        )
    return hashlib.sha256("\n".join(sorted(packages)).encode()).hexdigest()[:12]
