"""What was made goes to the registry and its mirrors: look, plan, ask, send, compare, then name.

Each image is sent by ``docker push`` under its version and compared by its digests afterwards. The
names that move from one version to the next come last, all of them, once everything is everywhere.
What is there already is not sent again, so a push that failed half way is typed again.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from packaging.version import Version as Pep440

from slipway import (
    applications,
    base,
    console,
    credentials,
    engine,
    images,
    manifest,
    processes,
    production,
    reading,
    receipts,
    registry,
    setup,
    versions,
)
from slipway.credentials import Credential
from slipway.engine import client as docker
from slipway.errors import (
    BAD_CONFIG,
    BAD_DATA,
    NO_INPUT,
    NO_PERMISSION,
    UNAVAILABLE,
    USAGE,
    SlipwayError,
    nearest,
)
from slipway.manifest import Manifest
from slipway.project import find, resolve
from slipway.project import read as read_project
from slipway.records import Record
from slipway.registry import Client, Stored
from slipway.settings import Workshop

THERE = "there already"
SENT = "pushed"
STAYS = "stays"  # a name that a higher version has


class Good(Record, frozen=True):
    """An image to be sent."""

    alias: str
    """What it is called there, below the registry's own name: ``oar:1.2.0-noavx``."""
    id: str
    """What the engine calls it: ``sha256:…``."""

    @property
    def name(self) -> str:
        """``oar``."""
        return self.alias.partition(":")[0]


class Load(Record, frozen=True):
    """All that one push sends."""

    title: str
    """``oar 1.2.0``."""
    goods: tuple[Good, ...]
    version: str = ""
    """By PEP 440, where names move to it: not for a development image."""


class Move(Record, frozen=True):
    """A name that another version has until now."""

    alias: str
    """``oar:latest-noavx``."""
    to: str
    """``oar:1.2.0-noavx``."""


class Outcome:
    """How it went at one registry."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.cells: dict[str, str] = {}
        """Alias to what became of it."""
        self.there: dict[str, Stored] = {}
        self.trouble: SlipwayError | None = None
        self.moves: tuple[Move, ...] = ()

    def failed(self, alias: str, error: SlipwayError) -> None:
        """Keep why; what follows is not tried here."""
        self.trouble = error
        self.cells[alias] = f"failed: {error.what}"

    def missing(self, goods: Iterable[Good]) -> list[Good]:
        """What is still to be sent."""
        return [good for good in goods if good.alias not in self.there]

    def is_done(self, goods: Sequence[Good]) -> bool:
        """Whether all of it is there."""
        return not self.trouble and not self.missing(goods)


# -- deciding: pure functions


def released(tags: Iterable[str]) -> list[Pep440]:
    """The final versions among an image's tags, whatever their variant."""
    found = (versions.parse_release(tag.partition("-")[0]) for tag in tags)
    return [version for version in found if version and not version.is_prerelease]


def moves_of(load: Load, tags: Iterable[str]) -> tuple[Move, ...]:
    """The names that move to a version: ``latest`` to the highest, ``1.2`` to the highest 1.2.x.

    None move to a development version, a dirty one, a rehearsal or a candidate.

    :param tags: all tags that the registry has of these images.
    """
    if not is_final(load.version):
        return ()
    version, known = Pep440(load.version), released(tags)
    series = version.release[:2]
    names = []
    if len(version.release) > 2 and all(v <= version for v in known if v.release[:2] == series):
        names.append(".".join(str(number) for number in series))
    if all(v <= version for v in known):
        names.append("latest")
    spelt = versions.tag_spelling(version)
    return tuple(
        Move(f"{good.name}:{name}{good.alias.partition(':')[2].removeprefix(spelt)}", good.alias)
        for name in names
        for good in load.goods
    )


def is_final(version: str) -> bool:
    """Whether a version is published once and then stays as it is."""
    if not version:
        return False
    known = Pep440(version)
    return not known.is_prerelease and not known.local


def plan_of(load: Load, outcomes: Sequence[Outcome]) -> list[str]:
    """What is about to be done, a line for each registry."""
    lines = []
    for outcome in outcomes:
        place = outcome.client.target
        if outcome.trouble:
            lines.append(f"{place}: nothing, since {outcome.trouble.what}")
            continue
        missing = [good.alias for good in outcome.missing(load.goods)]
        there = len(load.goods) - len(missing)
        kept = f"{there} of {len(load.goods)} are there already" if there else ""
        words = [f"send {', '.join(missing)}" if missing else "", kept]
        lines.append(f"{place}: {'; '.join(word for word in words if word)}")
    moving = dict.fromkeys(move.alias for outcome in outcomes for move in outcome.moves)
    if moving:
        lines.append(f"then, if all of it is everywhere: {', '.join(moving)}")
    return lines


def rows_of(load: Load, outcomes: Sequence[Outcome]) -> list[list[str]]:
    """The closing table: what went where."""
    goods = [good.alias for good in load.goods]
    moving = dict.fromkeys(move.alias for outcome in outcomes for move in outcome.moves)

    def cell(outcome: Outcome, alias: str) -> str:
        here = [*goods, *(move.alias for move in outcome.moves)]
        stays = "not tried" if alias in here or outcome.trouble else STAYS
        return outcome.cells.get(alias, stays)

    head = ["IMAGE", *(str(outcome.client.target) for outcome in outcomes)]
    return [head, *([a, *(cell(o, a) for o in outcomes)] for a in [*goods, *moving])]


def explain(said: str, source: str, host: str) -> SlipwayError:
    """What it means when ``docker push`` fails.

    :param said: its words.
    """
    low = said.lower()
    last = next((line for line in reversed(said.strip().splitlines()) if line.strip()), "")
    refusals = ("denied", "unauthorized", "no basic auth credentials", "authentication required")
    if any(words in low for words in refusals):
        return SlipwayError(
            f"{host} does not let you write {source}",
            cause=last,
            fix=[f"docker login {host}", "or ask who runs it for leave to write there"],
            code=NO_PERMISSION,
        )
    if "server gave http response to https client" in low:
        return SlipwayError(
            f"{host} speaks HTTP, and the engine wants HTTPS",
            cause=last,
            fix=[f'"insecure-registries": ["{host}"] in the engine\'s /etc/docker/daemon.json'],
            code=BAD_CONFIG,
        )
    full = re.search(r"\b50[0-9]\b|unexpected http status|unknown: unknown|no space left", low)
    hint = "its disk may be full: its own log says" if full else "docker's words are above"
    return SlipwayError(
        f"{source} was not taken",
        cause=f"{last}\n{hint}",
        fix=["./go invoke push, once that is mended: what is there is not sent again"],
    )


def digest_in(said: str) -> str:
    """The digest that ``docker push`` ends with; empty when it told none."""
    found = re.findall(r"digest: (sha256:[0-9a-f]{64})", said)
    return found[-1] if found else ""


def from_manifest(released_as: Manifest) -> Load:
    """What a release sends.

    :raises SlipwayError: it has no images.
    """
    if not released_as.images:
        raise SlipwayError(
            f"the release {released_as.project} {released_as.version} has no images",
            fix=["invoke prod --variant all, to see why there are none"],
            code=NO_INPUT,
        )
    return Load(
        f"{released_as.project} {released_as.version}",
        tuple(Good(image.alias, image.id) for image in released_as.images),
        "" if released_as.is_rehearsal else released_as.version,
    )


def check_flags(
    *, tag: str, folder: str, dev: bool, user: str, password_stdin: bool, yes: bool
) -> None:
    """Refuse flags that do not go together."""
    why = ""
    if bool(tag) + bool(folder) + dev > 1:
        why = (
            "--tag sends a release, --dir an application, --dev the development image: one of them"
        )
    elif bool(user) != password_stdin:
        why = "--username and --password-stdin go together"
    elif password_stdin and not yes:
        why = "with --password-stdin nobody can be asked: --yes is needed too"
    if why:
        raise SlipwayError(why, fix=["invoke push --help"], code=USAGE)


# -- looking


def release_of(workshop: Workshop, project: str, tag: str) -> Manifest:
    """The manifest of the release in ``dist/`` that was made from a tag."""
    name = read_project(find(workshop, project)).name
    found = list(manifest.releases_in(workshop.dist, name).values())
    for one in found:
        if one.tag == tag and not one.is_rehearsal:
            return one
    known = [one.tag for one in found if one.tag]
    raise SlipwayError(
        f"no release of {name} in dist/ was made from the tag '{tag}'",
        cause=nearest(tag, known) if known else "there is none of any tag",
        fix=[f"invoke release --tag {known[-1] if known and not tag else tag}"],
        code=NO_INPUT,
    )


def made_here(workshop: Workshop, project: str, source: str) -> Load:
    """The production images and the book of the current version, as their receipts tell."""
    tree = resolve(workshop, project, source)
    name, version = tree.project.name, tree.version.pep440
    places = {
        tree.alias(variant): production.receipt_of(workshop, name, variant)
        for variant in tree.variants
    }
    places[reading.alias_of(tree)] = reading.receipt_of(workshop, name)
    goods = received(places)
    if not goods:
        raise SlipwayError(
            f"no image of {name} {version} was made here",
            cause="what is pushed is what `prod` and `book` have made of this very version",
            fix=["invoke prod --variant all", "invoke book"],
            code=NO_INPUT,
        )
    return Load(f"{name} {version}", goods, version)


def app_here(workshop: Workshop, folder: str, project: str, source: str) -> Load:
    """An application's images for the current version of the library, as their receipts tell.

    No name moves to them, and one that is there gives way: an application is deployed by digest.
    """
    application = applications.find(folder)
    tree = resolve(workshop, project, source)
    goods = received(
        {
            applications.alias_of(application, tree, variant): applications.receipt_of(
                workshop, application, variant
            )
            for variant in tree.variants
        }
    )
    if not goods:
        raise SlipwayError(
            f"no image of {application.name} was made here",
            cause="what is pushed is what `app` has made, from this very version of "
            f"{tree.project.name}, {tree.version.pep440}",
            fix=[shlex.join(["invoke", "app", "--dir", folder])],
            code=NO_INPUT,
        )
    return Load(application.name, goods)


def received(places: Mapping[str, Path]) -> tuple[Good, ...]:
    """The images that were made last, where they have the name that is wanted and are here.

    :param places: alias to the receipt of who makes such images.
    """
    found = {alias: receipts.facts(file) for alias, file in places.items()}
    tags = {a: str(facts["tag"]) for a, facts in found.items() if facts.get("alias") == a}
    here = engine.inspect_images(*tags.values()) if tags else {}
    return tuple(Good(alias, str(here[tag]["Id"])) for alias, tag in tags.items() if tag in here)


def dev_here(workshop: Workshop) -> Load:
    """The development image, made if need be, and under it the base where it was made here."""
    tag = images.ensure_dev(workshop)
    value = base.ensure_base(workshop)
    here = engine.inspect_images(tag, value.reference)
    if len(here) < 2:
        raise SlipwayError(f"{tag} is not here, and --dry makes none", fix=["invoke dev"])
    goods = [Good(tag, str(here[tag]["Id"]))]
    if base.IDENTITY in (here[value.reference]["Config"].get("Labels") or {}):
        made = base.bootstrapped_tag(workshop.settings.base)
        goods.insert(0, Good(made, str(here[value.reference]["Id"])))
    return Load(f"development image {tag}", tuple(goods))


def check_ids(load: Load) -> None:
    """Refuse a release whose images are not on this machine any more."""
    here = engine.inspect_images(*(good.id for good in load.goods))
    gone = [good for good in load.goods if good.id not in here]
    if gone:
        raise SlipwayError(
            f"not every image of {load.title} is here any more",
            cause="\n".join(f"{good.alias} was {good.id}" for good in gone),
            fix=["invoke release --tag TAG, which makes what is missing"],
            code=NO_INPUT,
        )


def look(load: Load, client: Client) -> Outcome:
    """What a registry has of it already, and which names would move there."""
    outcome, tags = Outcome(client), list[str]()
    current = load.goods[0].alias
    try:
        client.check(load.goods[0].name)
        for good in load.goods:
            current = good.alias
            found = client.stored(good.alias)
            if found and found.is_image(good.id):
                outcome.there[good.alias], outcome.cells[good.alias] = found, THERE
            elif found and is_final(load.version):
                raise other_image(client.target.name(good.alias))
        if is_final(load.version):
            for name in dict.fromkeys(good.name for good in load.goods):
                tags += client.tags(name)
        outcome.moves = moves_of(load, tags)
    except processes.Interrupted:
        raise
    except SlipwayError as error:
        outcome.failed(current, error)
    return outcome


def other_image(source: str) -> SlipwayError:
    """The error for a version that was published before, of other content."""
    return SlipwayError(
        f"{source} is there already, and is another image",
        cause="a version is published once: whoever has pulled it would have another one",
        fix=["release what has changed as another version", f"docker pull {source}, to compare"],
        code=BAD_DATA,
    )


# -- acting


def push(
    workshop: Workshop,
    project: str,
    source: str,
    tag: str,
    *,
    folder: str = "",
    dev: bool = False,
    user: str = "",
    password_stdin: bool = False,
    yes: bool = False,
) -> None:
    """Send a release, what was made of the current version, an application, or the dev image.

    :param tag: git's, of a release in ``dist/``; empty: the current version.
    :param folder: an application's.
    :param user: of the registry; its password comes from standard input. Mirrors have Docker's own.
    """
    check_flags(tag=tag, folder=folder, dev=dev, user=user, password_stdin=password_stdin, yes=yes)
    check_settings(workshop)
    given = None
    if password_stdin:
        given = Credential(user, credentials.first_line(sys.stdin.read()))
    if dev:
        load = dev_here(workshop)
    elif tag:
        load = from_manifest(release_of(workshop, project, tag))
    elif folder:
        load = app_here(workshop, folder, project, source)
    else:
        load = made_here(workshop, project, source)
    named_by = {"--tag": tag, "--dir": folder}
    flags = [word for pair in named_by.items() if pair[1] for word in pair]
    flags += ["--dev"] if dev else []
    send(workshop, load, given, "" if yes else shlex.join(["invoke", "push", *flags]))


def push_release(workshop: Workshop, released_as: Manifest, again: str = "") -> None:
    """Send a release that lies in ``dist/``.

    :param again: the command that was typed, where its maker has not agreed to this yet.
    """
    if released_as.is_rehearsal:
        raise SlipwayError(
            f"{released_as.version} is a rehearsal, which nobody else is to have",
            fix=["invoke release --tag TAG"],
            code=USAGE,
        )
    check_settings(workshop)
    send(workshop, from_manifest(released_as), again=again)


def check_settings(workshop: Workshop) -> None:
    """Refuse to push where the settings name no registry."""
    if not workshop.settings.registry:
        raise SlipwayError(
            "the settings name no registry to push to",
            fix=["set registry in invoke.yaml, such as registry.example.org/team"],
            code=BAD_CONFIG,
        )


def send(workshop: Workshop, load: Load, given: Credential | None = None, again: str = "") -> None:
    """Send it to every registry that takes it, and say what went where.

    :param given: credentials for the setting ``registry``, in place of Docker's own.
    :param again: the command that was typed, where a person is to be asked first.
    :raises SlipwayError: something is not everywhere; no name has moved then.
    """
    if load.version:
        check_ids(load)
    wanted = registry.targets(workshop)
    host = wanted[0].host
    with (
        registry.clients(workshop, wanted, {host: given} if given else {}) as clients,
        credentials.private_config(host, given) as variables,
    ):
        outcomes = [look(load, client) for client in clients]
        refuse_hopeless(load, outcomes)
        if is_unchanged(load, outcomes):
            console.say(f"{load.title} is unchanged in {', '.join(str(t) for t in wanted)}")
            return
        console.say(f"pushing {load.title}:")
        for line in plan_of(load, outcomes):
            console.say(f"  - {line}")
        if again and not workshop.dry and not setup.is_agreed(f"{again} --yes"):
            raise SlipwayError("nothing was pushed", fix=[f"{again}, when you are ready"])
        for outcome in outcomes:
            send_to(workshop, load, outcome, variables)
        if not workshop.dry:
            conclude(load, outcomes)


def refuse_hopeless(load: Load, outcomes: Sequence[Outcome]) -> None:
    """End here, before anybody is asked, where no registry takes anything."""
    troubles = [outcome.trouble for outcome in outcomes if outcome.trouble]
    if len(troubles) < len(outcomes):
        return
    first = troubles[0]
    others = [f"{error.what}: {error.cause}" for error in troubles[1:]]
    raise SlipwayError(
        f"{load.title} was not pushed: {first.what}",
        cause="\n".join([first.cause, *others]),
        fix=first.fix,
        code=int(first.code or UNAVAILABLE),
    )


def is_unchanged(load: Load, outcomes: Sequence[Outcome]) -> bool:
    """Whether all of it is everywhere, and every name that moves is where it should be."""
    return all(
        outcome.is_done(load.goods) and not pending(outcome, outcome.moves) for outcome in outcomes
    )


def pending(outcome: Outcome, moves: Iterable[Move]) -> list[Move]:
    """The names that do not stand for the image yet that they are to move to."""
    client, there = outcome.client, outcome.there
    return [move for move in moves if client.digest(move.alias) != there[move.to].digest]


def send_to(workshop: Workshop, load: Load, outcome: Outcome, variables: Mapping[str, str]) -> None:
    """Send what is missing to one registry; the first failure ends it there."""
    if outcome.trouble:
        return
    for good in outcome.missing(load.goods):
        try:
            stored = send_one(workshop, good, outcome.client, variables)
        except processes.Interrupted:
            raise
        except SlipwayError as error:
            outcome.failed(good.alias, error)
            return
        if stored:
            outcome.there[good.alias], outcome.cells[good.alias] = stored, SENT


def send_one(
    workshop: Workshop, good: Good, client: Client, variables: Mapping[str, str]
) -> Stored | None:
    """Send one image, and compare what the registry then has with what is here."""
    full = client.target.name(good.alias)
    argv = [docker(), "push", full]
    with named(workshop, good, full):
        console.show_command(argv)
        if workshop.dry:
            return None
        heard = processes.Heard()
        if processes.call(argv, env=variables, heard=heard):
            raise explain(heard.text, full, client.target.host)
    stored, told = client.stored(good.alias), digest_in(heard.text)
    if not stored or not stored.is_image(good.id) or told not in ("", stored.digest):
        raise registry.not_whole(
            full,
            f"docker has sent {told or good.id}, the registry has "
            f"{stored.digest if stored else 'nothing'}",
        )
    return stored


@contextlib.contextmanager
def named(workshop: Workshop, good: Good, full: str) -> Iterator[None]:
    """Let an image have a registry's name while it is sent.

    A name that was there before is a person's, and stays; so does an image's only one, with which
    it would go.
    """
    argv = [docker(), "tag", good.id, full]
    console.show_command(argv)
    here = engine.inspect_images(full, good.id)
    stays = full in here or not here[good.id].get("RepoTags")

    def tidy() -> None:
        if not stays and not workshop.dry:
            images.remove(full)

    with processes.at_the_end(tidy):
        if not workshop.dry:
            engine.ask(argv[1:], f"tag {full}")
        yield


def conclude(load: Load, outcomes: Sequence[Outcome]) -> None:
    """Move the names if all of it is everywhere; show what went where; fail if it is not whole."""
    if all(outcome.is_done(load.goods) for outcome in outcomes):
        for outcome in outcomes:
            move_names(outcome)
    console.table(rows_of(load, outcomes))
    troubles = [outcome.trouble for outcome in outcomes if outcome.trouble]
    if troubles:
        words = [
            f"{error.what}: {error.cause}" if error.cause else error.what for error in troubles
        ]
        raise SlipwayError(
            f"{load.title} is not everywhere it should be",
            cause="\n".join([*words, "names such as latest move once all of it is everywhere"]),
            fix=[*dict.fromkeys(word for error in troubles for word in error.fix)],
        )
    sizes = f"{len(load.goods)} image{'s' * (len(load.goods) != 1)}"
    console.say(f"{console.bold('pushed')} {load.title}: {sizes}, compared by digest")


def move_names(outcome: Outcome) -> None:
    """Give the names that move to what was sent; no content is sent for that."""
    client = outcome.client
    for move in outcome.moves:
        try:
            stored = outcome.there[move.to]
            if client.digest(move.alias) == stored.digest:
                outcome.cells[move.alias] = THERE
                continue
            client.put(move.alias, stored)
            if client.digest(move.alias) != stored.digest:
                raise registry.not_whole(client.target.name(move.alias), "it has not moved")
            outcome.cells[move.alias] = "moved"
        except processes.Interrupted:
            raise
        except SlipwayError as error:
            outcome.failed(move.alias, error)
            return
