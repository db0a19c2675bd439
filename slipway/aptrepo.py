"""A signed apt repository of all releases, for any web server: ``apt install oar`` in a company.

apt-ftparchive makes the index, in an image of its own; gpg signs it here, with a key of the caller.
"""

from __future__ import annotations

import email.utils
import shutil
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path

from slipway import console, engine, images, manifest, processes
from slipway.builds import disk_full
from slipway.engine import Job, Mount
from slipway.errors import BAD_DATA, IO_ERROR, NO_INPUT, UNAVAILABLE, USAGE, SlipwayError
from slipway.fetched import replace_whole, sha256
from slipway.manifest import Manifest
from slipway.records import Record
from slipway.settings import Workshop

SUITE = Path("dists") / "stable"
POOL = "pool"
EXAMPLE = "https://apt.example.org"


class Key(Record, frozen=True):
    """A key of the caller's that signs."""

    fingerprint: str
    owner: str


# -- deciding: pure functions


def keys_in(listing: str) -> list[Key]:
    """The keys of ``gpg --with-colons --list-secret-keys``: what follows ``sec``, each."""
    found, is_primary, fingerprint = [], False, ""
    for row in (line.split(":") for line in listing.splitlines()):
        if row[0] in ("sec", "ssb"):
            is_primary = row[0] == "sec"
        elif row[0] == "fpr" and is_primary:
            fingerprint = row[9]
        elif row[0] == "uid" and fingerprint:
            found.append(Key(fingerprint, row[9]))
            fingerprint = ""  # the first name is enough
    return found


def pool_of(releases: Mapping[Path, Manifest]) -> dict[str, tuple[Path, str]]:
    """Where each package goes in the repository, to its file and hash.

    :param releases: directory to what it holds.
    :raises SlipwayError: two releases have different packages of one name.
    """
    found: dict[str, tuple[Path, str]] = {}
    for directory, release in releases.items():
        for file in (f for f in release.files if f.kind == "deb"):
            name = f"{POOL}/{release.project}/{Path(file.name).name}"
            path, digest = found.get(name, (directory / file.name, file.sha256))
            if digest != file.sha256:
                raise SlipwayError(
                    f"{path} and {directory / file.name} differ, and have one name",
                    cause="a version is what its bytes are: apt would refuse the one or the other",
                    fix=["remove the release that was not published"],
                    code=BAD_DATA,
                )
            found[name] = (directory / file.name, file.sha256)
    return dict(sorted(found.items()))


def date_of(releases: Iterable[Manifest]) -> str:
    """The repository's date: the newest release's."""
    newest = max(release.epoch for release in releases)
    text = email.utils.format_datetime(datetime.fromtimestamp(newest, timezone.utc))
    return text.replace("+0000", "UTC")  # as apt-ftparchive writes it, and every apt reads it


def sources(name: str, uri: str) -> str:
    """The file that a machine needs in ``/etc/apt/sources.list.d``, in deb822 format."""
    return (
        f"Types: deb\nURIs: {uri}\nSuites: stable\nComponents: main\n"
        f"Signed-By: /etc/apt/keyrings/{name}.asc\n"
    )


def advice(name: str, uri: str) -> str:
    """What to type on a machine that uses the repository.

    :param uri: where a web server has it.
    """
    return (
        f"sudo install -d /etc/apt/keyrings\n"
        f"sudo curl -fsSLo /etc/apt/keyrings/{name}.asc {uri}/{name}.asc\n"
        f"sudo tee /etc/apt/sources.list.d/{name}.sources <<'END'\n{sources(name, uri)}END\n"
        f"sudo apt-get update && sudo apt-get install {name}"
    )


# -- looking


def releases_in(directory: Path, *, rehearsals: bool) -> dict[Path, Manifest]:
    """The releases below a directory, the oldest first; what has no manifest was not released.

    :param rehearsals: whether those count too.
    """
    every = manifest.releases_in(directory)
    found = {d: r for d, r in every.items() if rehearsals or not r.is_rehearsal}
    if not any(f.kind == "deb" for r in found.values() for f in r.files):
        raise SlipwayError(
            f"no release with a Debian package in {directory}",
            cause=f"only directories with a {manifest.NAME} count, which invoke release makes",
            fix=["invoke release --tag TAG"],
            code=NO_INPUT,
        )
    return found


def find_key(wanted: str) -> Key:
    """The caller's secret key that a fingerprint, a part of it or an address means.

    gpg looks in its own directory, or in that which ``GNUPGHOME`` names.
    """
    said = processes.look(["gpg", "--batch", "--with-colons", "--list-secret-keys"])
    if said.returncode == 127:
        raise SlipwayError(
            "no gpg on this machine, which signs the repository",
            fix=["sudo apt-get install gpg gpg-agent"],
            code=UNAVAILABLE,
        )
    every = keys_in(said.stdout)
    low = wanted.lower().removeprefix("0x")
    fits = [k for k in every if low in k.fingerprint.lower() or low in k.owner.lower()]
    if not wanted or len(fits) != 1:
        count = "no" if not fits else "more than one"
        raise SlipwayError(
            f"{count} secret gpg key that '{wanted}' means" if wanted else "no gpg key was named",
            cause="\n".join(f"{k.fingerprint} {k.owner}" for k in every)
            or said.stderr.strip()
            or "gpg knows none here; GNUPGHOME says where it looks",
            fix=["gpg --quick-generate-key 'NAME <ADDRESS>' ed25519 sign never, for a new one"],
            code=USAGE if every else NO_INPUT,
        )
    return fits[0]


# -- acting


def index(workshop: Workshop, directory: Path, *arguments: str) -> None:
    """Run ``scripts/apt-index`` on a directory, to which it writes.

    :param arguments: the repository's name and date; none where it is flat.
    """
    place = engine.place(workshop)
    job = Job(
        name="apt-index",
        command=[
            place.inside(workshop.scripts / "apt-index"),
            place.inside(directory),
            *arguments,
        ],
        mounts=[Mount(workshop.scripts, readonly=True), Mount(directory)],
        alone=False,
    )
    contained = isinstance(place, engine.Docker)
    status = place.run(job, images.ensure_archive(workshop) if contained else "")
    if status:
        full = disk_full(directory)
        raise SlipwayError(
            f"no index of the packages was made: status {status}",
            cause=full or "the words of scripts/apt-index are above",
            fix=[f"df -h {directory.parent}"],
            code=IO_ERROR if full else status,
        )


def sign(release: Path, key: Key) -> None:
    """Sign a ``Release`` file as ``InRelease`` beside it."""
    argv = ["gpg", "--batch", "--yes", "--local-user", key.fingerprint, "--digest-algo", "SHA512"]
    argv += ["--output", str(release.with_name("InRelease")), "--clearsign", str(release)]
    console.show_command(argv)
    status = processes.call(argv, stdin=None)
    if status:
        raise SlipwayError(
            f"gpg did not sign with {key.owner}",
            cause="its words are above; a key with a passphrase asks for it on a terminal",
            fix=[f"gpg --local-user {key.fingerprint} --clearsign, to see whether it can"],
            code=status,
        )


def public_half(key: Key) -> str:
    """The public half of a key, as apt reads it."""
    return processes.look(["gpg", "--batch", "--armor", "--export", key.fingerprint]).stdout


def is_unchanged(
    target: Path, pool: Mapping[str, tuple[Path, str]], key: tuple[str, str], date: str
) -> bool:
    """Whether a repository that is there has these packages and this date, signed by this key.

    :param pool: as ``pool_of`` has it.
    :param key: name and content of the file with the public half.
    """
    try:
        signed = (target / SUITE / "InRelease").read_text(encoding="utf-8")
        public = (target / key[0]).read_text(encoding="ascii")
    except OSError:
        return False
    there = {p.relative_to(target).as_posix(): sha256(p) for p in target.glob(f"{POOL}/*/*.deb")}
    same = there == {name: digest for name, (_, digest) in pool.items()}
    return same and public == key[1] and f"\nDate: {date}\n" in signed


def make(
    workshop: Workshop, directory: Path, target: Path, sign_with: str, *, rehearsals: bool = False
) -> Path:
    """Make the apt repository of all releases in ``dist/``.

    :param directory: ``dist/``, whose directories with a manifest are the releases.
    :param target: the repository's directory; one of before is there until the new one is whole.
    :param sign_with: fingerprint or address of a secret gpg key of the caller.
    :param rehearsals: whether they count too.
    :raises SlipwayError: there is no release or no key, or a file is not what its manifest says.
    """
    releases = releases_in(directory, rehearsals=rehearsals)
    key = find_key(sign_with)
    for place in releases:
        manifest.check_whole(place)
    pool, date = pool_of(releases), date_of(releases.values())
    name = list(releases.values())[-1].project
    public = f"{name}.asc", public_half(key)
    shown = console.shown(target, workshop.root)
    if is_unchanged(target, pool, public, date):
        console.say(f"apt repository {shown} is unchanged: {len(pool)} packages")
        return target
    if workshop.dry:
        console.say(f"would make the apt repository {shown} of {len(pool)} packages")
        return target

    def fill(work: Path) -> Path:
        made = work / "repository"
        for path, (file, _) in pool.items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, made / path)
        index(workshop, made, name, date)
        sign(made / SUITE / "Release", key)
        (made / public[0]).write_text(public[1], encoding="ascii")
        return made

    target.parent.mkdir(parents=True, exist_ok=True)
    replace_whole(target, fill)
    versions = ", ".join(dict.fromkeys(r.version for r in releases.values()))
    console.say(
        f"{console.bold('made')} the apt repository {shown}: {len(pool)} packages of {name} "
        f"{versions}, signed by {key.owner}"
    )
    console.say(f"Where a web server has that directory at {EXAMPLE}, type on other machines:")
    console.say(advice(name, EXAMPLE))
    return target
