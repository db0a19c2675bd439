"""project.yaml: what describes one source tree, typed, and never merged with another project's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml
from invoke.exceptions import Exit

from slipway.errors import BAD_CONFIG, NO_INPUT, USAGE, SlipwayError, nearest
from slipway.records import Record
from slipway.settings import Workshop, convert
from slipway.sources import Source, fetch, known_version
from slipway.variants import Variant
from slipway.versions import Version, declared_version, version_of

# The same loader in C, where PyYAML was built with it: 0.5 ms for Oar's file instead of 3.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

EXAMPLE = "mend it; examples/oar/project.yaml shows one that is right"


class Part(Record, frozen=True, forbid_unknown_fields=True):
    """What each part of project.yaml has in common: unknown keys are refused."""


class Build(Part, frozen=True, kw_only=True):
    """How the tree is compiled."""

    system: Literal["cmake"] = "cmake"
    options: dict[str, str] = msgspec.field(default_factory=dict)
    """``-DKEY=VALUE``; {version}, {commit}, {variant} and {isa} are filled in."""


class Row(Part, frozen=True, kw_only=True):
    """What one variant adds to what all have."""

    options: dict[str, str] = msgspec.field(default_factory=dict)


class Tests(Part, frozen=True, kw_only=True):
    """What ``invoke test`` runs."""

    ctest: bool = True
    pytest: tuple[str, ...] = ()
    """Files or directories, relative to the source; empty: no Python tests."""
    pythonpath: tuple[str, ...] = ()
    """Directories put first on sys.path, relative to the build directory."""


class Package(Part, frozen=True, kw_only=True):
    """What the .deb says beside what is derived."""

    section: str = "libs"
    components: tuple[str, ...] = ()
    """CMake install components that are packaged; empty: all."""
    depends: tuple[str, ...] = ()
    """Run-time dependencies beyond those that dpkg-shlibdeps and the extension modules tell."""


class Image(Part, frozen=True, kw_only=True):
    """What the production image does and how large it may be."""

    about: tuple[str, ...] = ("python3", "--version")
    """Command that ``docker run IMAGE`` without arguments runs."""
    budget_mb: int = 0
    """Largest size in MB; 0: the settings' ``budgets.image_mb``."""


class Project(Part, frozen=True, kw_only=True):
    """A whole project.yaml."""

    name: str
    summary: str
    description: str = ""
    license: str
    homepage: str = ""
    maintainer: str
    source: Source = Source()
    """Where the tree comes from; empty: it is where project.yaml stands."""
    build: Build = Build()
    variants: dict[str, Row] = msgspec.field(default_factory=dict)
    """The rows of the variants' table that the project has; empty: all of them."""
    test: Tests = Tests()
    package: Package = Package()
    image: Image = Image()


class Tree(Record, frozen=True):
    """A source tree with its project.yaml, and its version as it stands now."""

    project: Project
    file: Path
    source: Path
    version: Version
    variants: Mapping[str, Variant]
    """The rows of the table that the project has, in the table's order."""

    def options(self, variant: str) -> dict[str, str]:
        """Build options of ``variant``, in common and its own, placeholders filled in."""
        row = self.project.variants.get(variant, Row())
        known = {
            "version": self.version.pep440,
            "commit": self.version.commit,
            "variant": variant,
            "isa": self.variants[variant].isa,
        }
        merged = {**self.project.build.options, **row.options}
        return {key: fill(value, known, f"{self.file}: {key}") for key, value in merged.items()}


def fill(text: str, known: Mapping[str, str], where: str) -> str:
    """``text`` with each ``{name}`` replaced; an unknown name is an error."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in known:
            raise SlipwayError(
                f"{where}: no placeholder '{{{name}}}'",
                cause=nearest(name, known),
                fix=[EXAMPLE],
                code=BAD_CONFIG,
            )
        return known[name]

    return re.sub(r"\{([a-z_]+)\}", value, text)


def read(file: Path) -> Project:
    """The project.yaml at ``file``, validated."""
    try:
        data: Any = yaml.load(file.read_text(encoding="utf-8"), Loader=LOADER)  # noqa: S506  # safe
    except yaml.YAMLError as error:
        raise SlipwayError(
            f"{file} is not YAML", cause=str(error), fix=[EXAMPLE], code=BAD_CONFIG
        ) from error
    project = convert(data, Project, str(file), fix=EXAMPLE)
    if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", project.name):
        raise SlipwayError(
            f"{file} is not valid",
            fix=[EXAMPLE],
            cause=f"name: '{project.name}' is no Debian package name "
            "(lower case letters, digits, + - . and at least two characters)",
            code=BAD_CONFIG,
        )
    return project


def find(workshop: Workshop, wanted: str) -> Path:
    """The project.yaml that ``--project`` means: a file, a directory that holds one, or a name.

    A relative path is looked for from the current directory, then from the checkout.
    """
    text = wanted or workshop.settings.project
    for start in (Path.cwd(), workshop.root):
        path = (start / Path(text).expanduser()).resolve()
        if path.is_dir() and (path / "project.yaml").is_file():
            return path / "project.yaml"
        if path.is_file():
            return path
    examples = {p.parent.name: p for p in workshop.root.glob("examples/*/project.yaml")}
    if text in examples:
        return examples[text]
    raise SlipwayError(
        f"no project '{text}': no such file, and no directory with a project.yaml",
        cause=nearest(text, [f"examples/{name}" for name in examples]),
        fix=["invoke build --project examples/oar"],
        code=USAGE,
    )


def fetched(workshop: Workshop, origin: Source, file: Path) -> Path:
    """The tree that ``source:`` in project.yaml names, fetched if it is not here."""

    def run(command: list[str], directories: Sequence[Path]) -> None:
        from slipway import builds  # which needs this module

        builds.fetch_in_dev(workshop, command, directories)

    return fetch(workshop, origin, base=file.parent, run=run)


def resolve(workshop: Workshop, project: str = "", source: str = "") -> Tree:
    """The tree that ``--project`` and ``--source`` name, ready to be built.

    :param source: directory of the source tree; empty: where project.yaml stands.
    """
    file = find(workshop, project)
    described = read(file)
    origin = Source() if source else described.source
    if origin.kind == "wheel":
        raise SlipwayError(
            f"{file}: {origin.wheel} is a prebuilt wheel",
            cause="there is nothing to compile; only trees that are compiled are packaged so far",
            fix=["name an sdist or a git repository under source, or --source DIR"],
            code=BAD_CONFIG,
        )
    tree = Path(source).expanduser().resolve() if source else fetched(workshop, origin, file)
    if workshop.dry and not tree.exists() and not source:
        raise Exit(code=0)  # what would be fetched has been said; more is not known of it
    if not tree.is_dir():
        raise SlipwayError(
            f"no source directory {tree}",
            fix=["invoke build --source DIR, with a directory that exists"],
            code=NO_INPUT,
        )
    if not (tree / "CMakeLists.txt").is_file():
        raise SlipwayError(
            f"{tree} has no CMakeLists.txt",
            cause=f"{file} says that it is built by cmake",
            fix=["invoke build --source DIR, with the directory that holds it"],
            code=NO_INPUT,
        )
    table = workshop.settings.variants
    for name in described.variants:
        if name not in table:
            raise SlipwayError(
                f"{file} is not valid",
                fix=[EXAMPLE],
                cause=f"variants.{name}: no such variant; {nearest(name, table)}",
                code=BAD_CONFIG,
            )
    rows = {n: v for n, v in table.items() if not described.variants or n in described.variants}
    version = version_of(tree, known_version(origin, tree) or declared_version(tree))
    found = Tree(project=described, file=file, source=tree, version=version, variants=rows)
    for name in rows:
        found.options(name)  # a wrong placeholder is told before anything is made
    return found
