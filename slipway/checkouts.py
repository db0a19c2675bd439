"""Source trees out of git: a bare mirror for each repository, a checkout for each commit.

A checkout is a clone of the mirror whose objects are hard links, so it costs the disk its files
only, has its own tags (its version is that of a plain clone), needs nothing outside its directory
when it is mounted into a container, and goes away whole when it is removed. A ``git worktree``
would need the mirror for all of that, and bookkeeping in it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway import console
from slipway.errors import NO_INPUT, UNAVAILABLE, SlipwayError
from slipway.fetched import alone, close_to, make_whole, without_credentials
from slipway.settings import Workshop
from slipway.versions import REPOSITORY_VARIABLES

HEX = r"[0-9a-f]{7,64}"
REFSPECS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")

# What a person's own git may do to a repository that is not theirs.
PLAIN = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "gc.auto=0"),  # no daemon that outlives us, and no commit that goes away
    *("-c", "maintenance.auto=false"),
    *("-c", "advice.detachedHead=false"),
    *("-c", "http.lowSpeedLimit=1"),  # a minute without a byte is the end
    *("-c", "http.lowSpeedTime=60"),
)


@dataclass(frozen=True)
class Remote:
    """A repository somewhere."""

    url: str
    """As it was given, a path made absolute; may hold credentials."""
    is_local: bool

    @property
    def shown(self) -> str:
        """Its address as it may be printed and stored."""
        return without_credentials(self.url)

    @property
    def name(self) -> str:
        """The last part of its address, as part of a directory's name."""
        last = re.split(r"[/:]", self.shown.rstrip("/").removesuffix("/.git"))[-1]
        return re.sub(r"[^A-Za-z0-9+._-]+", "-", last.removesuffix(".git")).strip(".-") or "source"

    @property
    def mirror_name(self) -> str:
        """The name of its mirror: two repositories of one name have two."""
        return f"{self.name}-{hashlib.sha256(self.shown.encode()).hexdigest()[:8]}.git"


@dataclass(frozen=True)
class Found:
    """The commit that a ref means."""

    commit: str
    """Empty: an abbreviated or unadvertised commit, which only a fetch can tell."""
    moves: bool
    """Whether it is a branch."""


def remote_of(address: str, base: Path) -> Remote:
    """The repository that ``git:`` names.

    :param base: where a relative path starts.
    """
    if "://" in address:
        return Remote(address, address.startswith("file://"))
    if re.match(r"[^/\\]{2,}:", address):  # git's own short form, user@host:path
        return Remote(address, is_local=False)
    path = (base / Path(address).expanduser()).resolve()
    if not path.is_dir():
        raise SlipwayError(
            f"no git repository {path}",
            cause=f"project.yaml says source.git: {address}",
            fix=["mend source.git in project.yaml: a path starts at its directory"],
            code=NO_INPUT,
        )
    return Remote(str(path), is_local=True)


def parse_refs(text: str) -> dict[str, str]:
    """What ``git ls-remote`` and ``git show-ref -d`` list: each ref's commit, tags peeled."""
    refs: dict[str, str] = {}
    for line in text.splitlines():
        commit, name = line.split()[:2]
        if name.endswith("^{}"):
            refs[name.removesuffix("^{}")] = commit
        else:
            refs.setdefault(name, commit)
    return refs


def choose(ref: str, refs: Mapping[str, str]) -> Found | None:
    """What ``ref`` means among ``refs``: a tag, else a branch, else perhaps a commit."""
    if tagged := refs.get(f"refs/tags/{ref}"):
        return Found(tagged, moves=False)
    if head := refs.get(f"refs/heads/{ref}"):
        return Found(head, moves=True)
    if re.fullmatch(HEX, ref):
        return Found(ref if len(ref) in (40, 64) else "", moves=False)
    return None


def no_ref(remote: Remote, ref: str, refs: Mapping[str, str]) -> SlipwayError:
    """The error for a ref that the repository does not have."""
    tags = [r.removeprefix("refs/tags/") for r in refs if r.startswith("refs/tags/")]
    heads = [r.removeprefix("refs/heads/") for r in refs if r.startswith("refs/heads/")]
    near = close_to(ref, [*heads, *tags])
    return SlipwayError(
        f"{remote.shown} has no tag, branch or commit '{ref}'",
        cause=f"near it: {', '.join(near)}" if near else "the repository is empty",
        fix=[
            "mend source.ref in project.yaml",
            shlex.join(["git", "ls-remote", "--heads", "--tags", remote.shown]),
        ],
        code=NO_INPUT,
    )


def fetch_checkout(
    workshop: Workshop, address: str, ref: str, *, base: Path, submodules: bool = True
) -> Path:
    """The directory with ``ref`` checked out, fetched where it is not here yet.

    A tag or commit that is here is not asked for again; a branch is, and offline stays what it was.
    Submodules come along, or it is an error: half a tree fails later and with odder words.
    """
    remote = remote_of(address, base)
    home = workshop.out / "sources"
    mirror = home / "git" / remote.mirror_name
    here = _known(workshop, mirror, ref)
    if here is None or here.moves:
        here = _refreshed(workshop, remote, mirror, ref, here)
    final = home / f"{remote.name}-{(here.commit or ref)[:12]}"
    if final.is_dir():
        return final
    if workshop.dry:
        console.say(f"source: {remote.name} at {ref} would be checked out in {final}")
        return final

    def fill(partial: Path) -> Path:
        tree = _cloned(workshop, mirror, here.commit, partial, remote)
        if submodules and (tree / ".gitmodules").is_file():
            _add_submodules(workshop, tree, remote, ref)
        return tree

    if make_whole(final, fill):
        where = console.shown(final, workshop.root)
        console.say(f"source: {remote.name} at {ref} ({here.commit[:12]}), checked out in {where}")
    return final


def clone_at(workshop: Workshop, repository: Path, commit: str, final: Path) -> bool:
    """Make ``final`` a clone of a repository on this disk, at a commit, with its submodules.

    What else stands there goes, so that nothing is in it but what was committed.

    :return: whether it was made; else it was there, at that commit, and untouched.
    """
    if (final / ".git").is_dir():
        head = _git(workshop, ["rev-parse", "HEAD"], final).stdout.strip()
        strange = _git(workshop, ["status", "--porcelain", "--ignored"], final)
        if head == commit and not strange.returncode and not strange.stdout:
            return False
    shutil.rmtree(final, ignore_errors=True)
    remote = Remote(str(repository), is_local=True)

    def fill(partial: Path) -> Path:
        tree = _cloned(workshop, repository, commit, partial, remote)
        if (tree / ".gitmodules").is_file():
            _add_submodules(workshop, tree, remote, commit)
        return tree

    return make_whole(final, fill)


def _cloned(workshop: Workshop, near: Path, commit: str, partial: Path, remote: Remote) -> Path:
    """A clone of what is on this disk, with hard links where they can be, and one commit out."""
    tree = partial / "tree"
    argv = ["clone", "--quiet", "--template=", "--no-checkout"]
    _run(workshop, [*argv, "--", str(near), str(tree)], workshop.root, remote)
    _run(workshop, ["remote", "set-url", "origin", remote.shown], tree, remote)
    _run(workshop, ["checkout", "--quiet", "--detach", commit], tree, remote)
    return tree


def _known(workshop: Workshop, mirror: Path, ref: str) -> Found | None:
    """What the mirror knows of a ref; None: nothing."""
    if not (mirror / "HEAD").is_file():
        return None
    listed = _git(workshop, ["show-ref", "--dereference"], mirror)
    found = choose(ref, parse_refs(listed.stdout))
    if found is None or found.moves:
        return found
    named = found.commit or ref
    done = _git(workshop, ["rev-parse", "--verify", "--quiet", named + "^{commit}"], mirror)
    return Found(done.stdout.strip(), moves=False) if done.returncode == 0 else None


def _refreshed(
    workshop: Workshop, remote: Remote, mirror: Path, ref: str, here: Found | None
) -> Found:
    """What the ref means over there, its commit being in the mirror afterwards."""
    argv = ["ls-remote", "--quiet", "--heads", "--tags", "--", remote.shown]
    listed = _git(workshop, argv, workshop.root, remote)
    if listed.returncode:
        if here is None:
            raise unreachable(remote, listed.stderr)
        console.say(f"source: {remote.shown} does not answer; '{ref}' is as it was fetched last")
        return here
    refs = parse_refs(listed.stdout)
    there = choose(ref, refs)
    if there is None:
        raise no_ref(remote, ref, refs)
    if workshop.dry or there == here:
        return there
    with alone(mirror):
        for left in mirror.glob("objects/pack/tmp_*"):  # of a fetch that was killed
            left.unlink()
        console.say(f"source: fetching {remote.shown} for '{ref}'")
        _run(workshop, ["init", "--quiet", "--bare", "--template=", "."], mirror, remote)
        fetch = ["fetch", "--quiet", "--no-tags", "--prune", "--", remote.shown]
        _run(workshop, [*fetch, *REFSPECS], mirror, remote)
        if there.commit == ref and _known(workshop, mirror, ref) is None:
            # In no branch and no tag, a pull request's for example; not every server gives it.
            _git(workshop, [*fetch, ref], mirror, remote)
    now = _known(workshop, mirror, ref)
    if now is None:
        raise no_ref(remote, ref, refs)
    return now


def _add_submodules(workshop: Workshop, tree: Path, remote: Remote, ref: str) -> None:
    # A repository on this disk may name others on it; one from elsewhere may not (git's own rule).
    allow = ["-c", "protocol.file.allow=always"] if remote.is_local else []
    argv = [*allow, "submodule", "--quiet", "update", "--init", "--recursive"]
    done = _git(workshop, argv, tree, remote)
    if done.returncode:
        raise SlipwayError(
            f"a submodule of {remote.shown} at '{ref}' cannot be fetched",
            cause=_words(done.stderr),
            fix=["set source.submodules: false in project.yaml, if the build does without"],
        )


def unreachable(remote: Remote, words: str) -> SlipwayError:
    """The error for a repository that does not answer."""
    return SlipwayError(
        f"git cannot read {remote.shown}",
        cause=_words(words) + "\n(offline, a mistyped address, or no right to read it)",
        fix=[shlex.join(["git", "ls-remote", remote.shown])],
        code=UNAVAILABLE,
    )


def _words(words: str) -> str:
    return "\n".join(without_credentials(words).strip().splitlines()[-4:])


def _run(workshop: Workshop, argv: Sequence[str], where: Path, remote: Remote) -> None:
    """Run git where it must succeed."""
    done = _git(workshop, argv, where, remote)
    if done.returncode:
        raise SlipwayError(
            f"git {argv[0]} of {remote.shown} failed", cause=_words(done.stderr), code=UNAVAILABLE
        )


def _git(
    workshop: Workshop, argv: Sequence[str], where: Path, remote: Remote | None = None
) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in REPOSITORY_VARIABLES}
    env["LC_ALL"] = "C"
    env.setdefault("GIT_TERMINAL_PROMPT", "0")  # a mistyped address is a question for a password
    if workshop.settings.ca_bundle:
        env["GIT_SSL_CAINFO"] = str(workshop.ca_bundle)
    env.update(_credentials(remote, env) if remote else {})
    if shutil.which("git") is None:
        raise SlipwayError("no program 'git' on this machine", fix=["sudo apt install git"])
    return subprocess.run(
        ["git", *PLAIN, *argv],
        cwd=where,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )


def _credentials(remote: Remote, env: Mapping[str, str]) -> dict[str, str]:
    """Variables by which git puts a URL's credentials back in.

    So they stand on no command line of ours and in no config file of the mirror or the checkout.
    """
    if remote.url == remote.shown:
        return {}
    given, shown = (re.sub(r"(://[^/]*/?).*", r"\1", url) for url in (remote.url, remote.shown))
    count = int(env.get("GIT_CONFIG_COUNT") or 0)
    return {
        "GIT_CONFIG_COUNT": str(count + 1),
        f"GIT_CONFIG_KEY_{count}": f"url.{given}.insteadOf",
        f"GIT_CONFIG_VALUE_{count}": shown,
    }
