"""Production images, and programs run in them."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timezone
from pathlib import Path

from invoke.exceptions import Exit
from msgspec.structs import replace

from slipway import base, console, engine, gpu, images, podman, preflight, processes, receipts
from slipway.builds import Site
from slipway.engine import Job, Mount
from slipway.errors import NO_INPUT, UNAVAILABLE, SlipwayError
from slipway.images import Recipe, fingerprint
from slipway.packages import Deb, package_name
from slipway.project import Tree, resolve
from slipway.records import Record
from slipway.settings import Workshop
from slipway.variants import CUDA_KNOWN, best_for_host

WORKDIR = "/work"


class Image(Record, frozen=True):
    """A production image that is here."""

    tag: str
    alias: str
    size: int
    made_at: float
    fresh: bool
    """Made by this very call, not found unchanged."""


def alias_of(tree: Tree, variant: str) -> str:
    """``oar:1.2.0-noavx``: what people type. Slipway itself never reads it back."""
    return tree.alias(variant)


def names_of(depends: Sequence[str]) -> list[str]:
    """The packages that dependencies name, the first of alternatives, without their bounds."""
    parts = [part.split("|")[0].split() for text in depends for part in text.split(",")]
    return list(dict.fromkeys(part[0] for part in parts if part))


def shared(workshop: Workshop, tree: Tree, value: base.Base) -> Recipe:
    """What the images of all variants start with: Python and what the package depends on."""
    return Recipe(
        kind="runtime",
        dockerfile=workshop.root / "Dockerfile.prod",
        target="python",
        base=value,
        arguments={"DEPENDS": " ".join(names_of(tree.project.package.all_depends))},
        files={"tools/apt-install": workshop.scripts / "apt-install"},
    )


def recipe(s: Site, deb: Deb, value: base.Base) -> Recipe:
    """What the production image of a site is made of: its package, on the base, and Python."""
    tree, version = s.tree, s.tree.version
    command = shlex.join(tree.project.image.about)
    about = f'#!/bin/sh\n# What `docker run IMAGE` does without arguments.\nexec {command} "$@"\n'
    created = datetime.fromtimestamp(version.epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    start = shared(s.workshop, tree, value)
    return replace(
        start,
        kind="prod",
        target="prod",
        arguments={
            **start.arguments,
            "LAUNCHER": f"/usr/bin/{package_name(tree, s.variant)}-python" if tree.wheel else "",
            "DEV": images.dev_recipe(s.workshop, value).tag,  # whose compiler makes the preflight
        },
        repository=f"slipway-{s.workshop.checkout}-{package_name(tree, s.variant)}",
        files={
            **start.files,
            "package.deb": deb.file if deb.file.is_file() else "",  # not made yet with --dry
            "entrypoint": s.workshop.scripts / "entrypoint",
            "about": about,
            "preflight/preflight.c": s.workshop.scripts / "preflight.c",
            "preflight/levels.h": preflight.header(preflight.sentences(tree, s.variant)),
        },
        labels={
            images.ALIAS: alias_of(tree, s.variant),
            "slipway.project": tree.project.name,
            "slipway.variant": s.variant,
            "slipway.isa": tree.variants[s.variant].isa,
            "org.opencontainers.image.title": package_name(tree, s.variant),
            "org.opencontainers.image.description": tree.project.summary,
            "org.opencontainers.image.version": version.pep440,
            "org.opencontainers.image.revision": version.commit,
            "org.opencontainers.image.created": created,
            "org.opencontainers.image.licenses": tree.project.license,
        },
    )


def prod(s: Site, deb: Deb) -> Image:
    """The production image of a site, built unless it is here already and nothing changed."""
    start = time.monotonic()
    value = base.ensure_base(s.workshop)
    made = recipe(s, deb, value)
    alias = alias_of(s.tree, s.variant)
    budget = s.tree.project.image.budget_mb or s.workshop.settings.budgets.image_mb
    setting = f"image.budget_mb in {s.tree.file}"
    receipt_file = s.out / "receipts" / "prod.json"
    here = engine.inspect_images(made.tag)
    # A receipt says that the image has passed the audit, by these rules.
    rules = receipts.code_of("isa", "audit")
    inputs = fingerprint(made.tag, rules, s.tree.project.audit.allow)
    known = receipts.read(receipt_file, inputs)
    if made.tag in here and known:
        size = int(here[made.tag]["Size"])
        if not podman.is_over(size, budget):
            name(s.workshop, made.tag, alias)
            console.say(f"{alias} is unchanged since {console.moment(known.made_at)}")
            return Image(made.tag, alias, size, known.made_at, fresh=False)
    if not s.workshop.dry:
        images.ensure_dev_on(s.workshop, value)
    images.build_image(s.workshop, made)
    if s.workshop.dry:
        return Image(made.tag, alias, 0, 0, fresh=True)
    size = images.check_budget(s.workshop, made.tag, budget, setting)
    from slipway import audit  # 10 ms that an unchanged image need not pay

    try:
        audit.check_image(s, made.tag)
    except SlipwayError:
        images.remove(made.tag)  # as one over its budget: nothing unproven is kept
        raise
    name(s.workshop, made.tag, alias)
    before = receipts.facts(receipt_file)
    receipt = receipts.write(receipt_file, inputs, {"tag": made.tag, "alias": alias})
    if before.get("alias") == alias and before["tag"] != made.tag:
        images.remove(str(before["tag"]))  # nothing is called by this version's name any more
    console.say(
        f"{console.bold('made')} image {alias}, {console.megabytes(size)} of {budget} MB, "
        f"{console.seconds(time.monotonic() - start)}"
    )
    return Image(made.tag, alias, size, receipt.made_at, fresh=True)


def name(workshop: Workshop, tag: str, alias: str) -> None:
    """Give an image the name that people type."""
    if workshop.dry:
        return
    answer = processes.look([engine.client(), "tag", tag, alias])
    if answer.returncode:
        raise engine.failure(answer.stderr, f"tag {alias}")


def warm_up(
    workshop: Workshop, tree: Tree, variants: Sequence[str]
) -> AbstractContextManager[object]:
    """Build what all production images share, meanwhile, unless they are here.

    Installing Python and its packages takes the network and one core for some 20 s, for which the
    first ``all`` on a machine would otherwise wait.
    """
    if workshop.dry or set(variants) <= set(made_images(workshop, tree)):
        return nullcontext()
    return images.Background(workshop, shared(workshop, tree, base.ensure_base(workshop)))


def about(workshop: Workshop, tag: str) -> int:
    """Start an image as its users do, without arguments, as a uid that no passwd file knows."""
    argv = [engine.client(), "run", "--rm", "--network", "none", "--user", "12345:12345"]
    argv += ["--label", f"{engine.LABEL}={workshop.checkout}", tag]
    console.show_command(argv)
    return 0 if workshop.dry else processes.call(argv)


def receipt_of(workshop: Workshop, name: str, variant: str) -> Path:
    """What says which production image of project ``name`` was made last."""
    return workshop.out / name / variant / "receipts" / "prod.json"


def made_images(workshop: Workshop, tree: Tree) -> dict[str, str]:
    """Variant to tag of the production images of this project that this checkout made last."""
    tags = {}
    for variant in tree.variants:
        facts = receipts.facts(receipt_of(workshop, tree.project.name, variant))
        if facts:
            tags[variant] = str(facts["tag"])
    here = engine.inspect_images(*tags.values()) if tags else {}
    return {variant: tag for variant, tag in tags.items() if tag in here}


def candidates(tree: Tree, wanted: str, mode: str, made: Mapping[str, str]) -> list[str]:
    """Variants of which one may be run: those made, and with ``--gpu on`` only such with CUDA.

    :param wanted: what ``--variant`` says; its own word counts, whatever the GPU.
    :param mode: what ``--gpu`` says.
    :param made: variants of which a production image is here.
    """
    with_cuda = [name for name, row in tree.variants.items() if row.cuda]
    asked = [wanted] if wanted else with_cuda if mode == "on" and with_cuda else list(tree.variants)
    able = [name for name in asked if name in made]
    if not able:
        which = f"the variant '{wanted}' of {tree.project.name}" if wanted else tree.project.name
        only = asked != list(tree.variants) and not wanted
        raise SlipwayError(
            f"no production image of {which}{' with CUDA' if only else ''} has been made",
            fix=[f"invoke prod --variant {','.join(asked) if only else wanted or 'all'}"],
            code=UNAVAILABLE,
        )
    return able


def fetched(workshop: Workshop, tree: Tree, wanted: str, mode: str) -> dict[str, str]:
    """Variant to name of a production image that somebody has pushed; none where nobody has.

    Where ``--variant`` says nothing it is the best one for this machine's CPU, of those without
    CUDA unless ``--gpu on`` wants it.
    """
    if not base.registries(workshop):
        return {}
    rows = tree.variants
    variant = wanted
    if not wanted:
        able = [name for name, row in rows.items() if bool(row.cuda) == (mode == "on")]
        variant, _ = best_for_host(rows, able or list(rows), has_gpu=mode == "on")
    alias = alias_of(tree, variant)
    _tell(f"{alias} was not made here: looking for it in the registry")
    source, _ = base.found_or_pulled(workshop, base.our_places(workshop, alias))
    return {variant: source} if source else {}


def choose_image(
    workshop: Workshop, tree: Tree, wanted: str, mode: str
) -> tuple[str, str, gpu.Answer]:
    """The production image to run, why that one, and the GPU that it gets.

    :param mode: what ``--gpu`` says.
    """
    place = engine.Docker(workshop)
    gpu.demand(workshop, mode, place)
    made, rows = made_images(workshop, tree), tree.variants
    if not made or (wanted and wanted not in made):
        made |= fetched(workshop, tree, wanted, mode)
    able = candidates(tree, wanted, mode, made)
    with_cuda = [name for name in able if rows[name].cuda]
    asked = rows[(with_cuda or able)[0]]
    if with_cuda:  # a GPU counts that one of them has code for
        every = dict.fromkeys(arch for name in with_cuda for arch in rows[name].cuda)
        asked = replace(asked, cuda=tuple(sorted(every, key=CUDA_KNOWN.index)))
    image = made[(with_cuda or able)[0]]
    answer = gpu.decide(workshop, mode, place, image, asked, say=_tell)
    if wanted:
        return made[wanted], f"{wanted}: as asked", answer
    able = [name for name in able if gpu.suits(answer, rows[name]) == answer]
    best, why = best_for_host(rows, able, has_gpu=bool(answer.devices))
    return made[best], f"{best}: {why}", answer


def _tell(text: str) -> None:
    """Our own words beside a program's output go to standard error."""
    print(text, file=sys.stderr)


def run_script(
    workshop: Workshop,
    script: str,
    variant: str,
    project: str,
    source: str,
    gpu_wanted: str,
    arguments: Sequence[str],
) -> None:
    """Run a Python script in a production image.

    The current directory is the working directory inside, and writable. The program's exit status
    is ours.
    """
    mode = gpu.wanted(workshop, gpu_wanted)
    tree = resolve(workshop, project, source)
    if variant:
        tree.choose(variant, [])
    here = Path.cwd()
    path = Path(script)
    if not path.is_file():
        raise SlipwayError(
            f"no script {script} in {here}",
            fix=["invoke run train.py -- --epochs 3, where train.py is"],
            code=NO_INPUT,
        )
    if not path.resolve().is_relative_to(here):
        raise SlipwayError(
            f"{script} lies outside the current directory, all that the container sees",
            fix=[f"cd {shlex.quote(str(path.resolve().parent))}, then invoke run {path.name}"],
            code=NO_INPUT,
        )
    inside = path.resolve().relative_to(here).as_posix()
    tag, why, answer = choose_image(workshop, tree, variant, mode)
    _tell(f"running {why}")
    job = Job(
        name="run",
        command=["python3", inside, *arguments],
        mounts=[Mount(here, target=WORKDIR)],
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        workdir=WORKDIR,
        network=True,
        shm_size=workshop.settings.shm_size,
        interactive=True,
        alone=False,
        inherit=[name for name in engine.PROXIES if name in os.environ],
        gpu=answer.arguments,
    )
    status = engine.Docker(workshop).run(job, tag)
    if status:
        raise Exit(code=status)
