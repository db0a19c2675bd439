"""Which of git's tags may be released: annotated, of a release, on a commit, the highest yet."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from packaging.version import Version as Pep440

from slipway.errors import BAD_DATA, NO_INPUT, USAGE, SlipwayError, nearest
from slipway.records import Record
from slipway.versions import parse_release

# What `git for-each-ref` is asked for.
FORMAT = "--format=%(refname:strip=2) %(objecttype) %(objectname) %(*objecttype) %(*objectname)"


class Tag(Record, frozen=True):
    """A tag that names a release."""

    name: str
    version: Pep440
    commit: str
    """Empty: it is on something else than a commit."""
    is_annotated: bool


def parse_tags(lines: Iterable[str]) -> list[Tag]:
    """The tags that name releases, of what ``git for-each-ref`` with ``FORMAT`` lists."""
    found = []
    for name, kind, first, *peeled in (line.split() for line in lines):
        version = parse_release(name)
        what, commit = peeled or (kind, first)
        if version:
            is_commit = what == "commit"
            found.append(Tag(name, version, commit if is_commit else "", bool(peeled)))
    return found


def chosen(wanted: str, tags: Sequence[Tag]) -> Tag:
    """The tag that ``--tag`` names, which has to be an annotated one, of a release, on a commit."""
    make = shlex.join(["git", "tag", "--annotate", wanted, "--message", wanted])
    if not parse_release(wanted):
        raise SlipwayError(
            f"'{wanted}' names no release",
            cause="v1.2.3, 1.2 or v1.2.3rc1 do: two numbers or more, by PEP 440",
            fix=["git tag --annotate v1.2.3 --message v1.2.3, then invoke release --tag v1.2.3"],
            code=USAGE,
        )
    tag = next((tag for tag in tags if tag.name == wanted), None)
    if tag is None:
        names = [tag.name for tag in tags]
        raise SlipwayError(
            f"no tag '{wanted}'",
            cause=nearest(wanted, names) if names else "the repository has no release's tag yet",
            fix=[make, f"git fetch --tags, then invoke release --tag {wanted}"],
            code=NO_INPUT,
        )
    if not tag.commit:
        raise SlipwayError(
            f"the tag '{wanted}' is not on a commit",
            fix=[f"git cat-file -p {shlex.quote(wanted)}"],
            code=NO_INPUT,
        )
    if not tag.is_annotated:
        raise SlipwayError(
            f"the tag '{wanted}' is a lightweight one",
            cause="it says neither who made it nor when, and git describe passes it over",
            fix=[f"{make} --force {tag.commit[:12]}"],
            code=BAD_DATA,
        )
    return tag


def before(tag: Tag, contained: Sequence[Tag]) -> str:
    """The release before a tag's, of those that its commit contains; none may be as high.

    A branch that is maintained beside a higher release has only its own.
    """
    others = [other for other in contained if other.name != tag.name]
    last = max(others, key=lambda other: other.version, default=None)
    if last is None:
        return ""
    again = last.version == tag.version and last.commit == tag.commit  # v1.2 beside 1.2.0
    if last.version >= tag.version and not again:
        raise SlipwayError(
            f"{tag.name} is not higher than {last.name}, the last release before it",
            cause=f"the commit of {tag.name} contains that of {last.name}",
            fix=[
                f"a higher version: git tag --annotate v{_higher(last.version)} {tag.commit[:12]}",
                f"git tag --delete {tag.name}, if nobody has it yet",
            ],
            code=BAD_DATA,
        )
    return last.name


def _higher(version: Pep440) -> str:
    *start, end = version.release
    return ".".join(map(str, (*start, end + 1)))
