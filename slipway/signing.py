"""Signatures of a file, by the caller's own ssh or gpg key: made, checked, and how others check."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from pathlib import Path

from slipway import processes
from slipway.errors import NO_INPUT, UNAVAILABLE, SlipwayError
from slipway.records import Record

NAMESPACE = "file"  # what a signature by an ssh key is for: ssh-keygen's own word for files
WHO = "release"  # an ssh key has no name of its own; who checks gives it this one


class Key(Record, frozen=True):
    """What ``--sign`` names."""

    name: str
    """Path of an ssh key, private or public (then an agent has the private one); or gpg's id."""
    is_ssh: bool

    @property
    def suffix(self) -> str:
        """What the signature's name has behind that of the file."""
        return ".sig" if self.is_ssh else ".asc"

    @property
    def public(self) -> Path:
        """The public half of an ssh key, where ``ssh-keygen`` has put it."""
        return Path(f"{self.name.removesuffix('.pub')}.pub")


# -- deciding: pure functions


def key_of(text: str) -> Key:
    """An ssh key where there is such a file, else gpg's id or mail address.

    :raises SlipwayError: it is the path of no file.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return Key(str(path.resolve()), is_ssh=True)
    if "/" in text:
        raise SlipwayError(
            f"no ssh key {text}",
            cause="what has a slash in it is taken for the path of one",
            fix=["ls ~/.ssh", "gpg --list-secret-keys, for the id of a gpg key"],
            code=NO_INPUT,
        )
    return Key(text, is_ssh=False)


def sign_arguments(key: Key) -> list[str]:
    """The command that signs its standard input."""
    if key.is_ssh:
        return ["ssh-keygen", "-Y", "sign", "-f", key.name, "-n", NAMESPACE]
    return ["gpg", "--detach-sign", "--armor", "--local-user", key.name, "--output", "-"]


def check_command(name: str, key: Key) -> str:
    """What others type to check a signature, as bash takes it.

    :param name: of the file that is signed.
    """
    if not key.is_ssh:
        return shlex.join(["gpg", "--verify", f"{name}.asc", name])
    signers = f"<(echo {WHO} $(cat {shlex.quote(key.public.name)}))"
    return (
        f"ssh-keygen -Y verify -f {signers} -I {WHO} -n {NAMESPACE} -s {name}{key.suffix} <{name}"
    )


def fingerprints(listing: str) -> set[str]:
    """The fingerprints in what ``gpg --with-colons`` lists."""
    rows = (line.split(":") for line in listing.splitlines() if line.startswith("fpr:"))
    return {row[9] for row in rows}


# -- acting


def ready(text: str) -> Key:
    """What ``--sign`` names, with the program and the key there: told before minutes of work."""
    key = key_of(text)
    program = sign_arguments(key)[0]
    if not shutil.which(program):
        package = "openssh-client" if key.is_ssh else "gnupg"
        raise SlipwayError(
            f"no program '{program}' on this machine, which signs", fix=[f"apt install {package}"]
        )
    if key.is_ssh:
        look = processes.look(["ssh-keygen", "-l", "-f", key.name])
    else:
        look = processes.look(["gpg", "--list-secret-keys", key.name])
    if look.returncode:
        raise SlipwayError(
            f"'{text}' is no key that signs",
            cause=look.stderr or look.stdout,
            fix=[
                "ls ~/.ssh, for the path of an ssh key",
                "gpg --list-secret-keys, for the id of a gpg key",
            ],
            code=NO_INPUT,
        )
    if key.is_ssh and not key.public.is_file():
        raise SlipwayError(
            f"no {key.public}, by which others check what {text} has signed",
            fix=[f"ssh-keygen -y -f {shlex.quote(key.name)} >{shlex.quote(str(key.public))}"],
            code=NO_INPUT,
        )
    return key


def sign(file: Path, key: Key) -> Path:
    """Sign a file; the signature stands beside it, whole or not at all."""
    target = file.with_name(file.name + key.suffix)
    beside = file.with_name(f".{target.name}")

    def undo() -> None:
        beside.unlink(missing_ok=True)

    with processes.undone(undo), file.open("rb") as content, beside.open("wb") as made:
        status = processes.call(sign_arguments(key), stdin=content, stdout=made)
        if status:
            raise SlipwayError(
                f"{file.name} was not signed: status {status}",
                cause=f"the words of {sign_arguments(key)[0]} are above",
                fix=["the same command again, with a key that is not locked"],
                code=UNAVAILABLE,
            )
    beside.replace(target)
    return target


def is_signed(file: Path, key: Key) -> bool:
    """Whether a signature by this very key stands beside a file, and fits it."""
    signature = file.with_name(file.name + key.suffix)
    if not signature.is_file():
        return False
    if not key.is_ssh:
        told = processes.look(["gpg", "--status-fd", "1", "--verify", str(signature), str(file)])
        listed = processes.look(["gpg", "--list-secret-keys", "--with-colons", key.name])
        valid = [line.split() for line in told.stdout.splitlines() if " VALIDSIG " in line]
        known = fingerprints(listed.stdout)
        return told.returncode == 0 and any(known & set(words) for words in valid)
    with tempfile.NamedTemporaryFile("w") as signers, file.open("rb") as content:
        signers.write(f"{WHO} {key.public.read_text(encoding='utf-8')}")
        signers.flush()
        argv = ["ssh-keygen", "-Y", "verify", "-f", signers.name, "-I", WHO, "-n", NAMESPACE]
        with Path("/dev/null").open("wb") as nowhere:
            status = processes.call([*argv, "-s", str(signature)], stdin=content, stdout=nowhere)
    return status == 0
