"""project.yaml: what describes one source tree, typed, and never merged with another project's."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec
import yaml
from invoke.exceptions import Exit

from slipway import preflight
from slipway.errors import BAD_CONFIG, NO_INPUT, USAGE, SlipwayError, nearest
from slipway.records import Record
from slipway.settings import LOADER, Workshop, convert
from slipway.sources import Source, fetch, known_version
from slipway.variants import Variant, choose
from slipway.versions import Version, declared_version, version_of, version_of_file

# What is a requirement at sight; of all else packaging is asked, whose import takes 20 ms.
PLAIN_REQUIREMENT = re.compile(
    r"[A-Za-z0-9]+(?:[-_.][A-Za-z0-9]+)*(?: ?(?:==|>=|<) ?\d+(?:\.\d+)*)?"
)

EXAMPLE = "mend it; examples/oar/project.yaml shows one that is right"


class Part(Record, frozen=True, forbid_unknown_fields=True):
    """What each part of project.yaml has in common: unknown keys are refused."""


System = Literal["cmake", "pep517", "make", "script"]

# What each build system is told apart by, in the directory that is built.
MARKS: dict[str, tuple[str, ...]] = {
    "cmake": ("CMakeLists.txt",),
    "pep517": ("pyproject.toml", "setup.py"),
    "make": ("Makefile", "makefile", "GNUmakefile"),
    "script": (),
}


class Build(Part, frozen=True, kw_only=True):
    """How the tree is compiled."""

    system: System = "cmake"
    """cmake; pep517 (scikit-build-core, meson-python, setuptools); make; script: ``commands``."""
    directory: str = ""
    """Sub-directory of the source that is built; empty: its top."""
    options: dict[str, str] = msgspec.field(default_factory=dict)
    """cmake: ``-DKEY=VALUE``; pep517: config settings; make: its variables; script: environment.
    {version}, {commit}, {variant}, {isa}, {flags}, the variant's for compilers, {cuda}, its GPUs
    as CMake has them, and {refusal}, what to say on a CPU that lacks {isa}, are known."""
    targets: tuple[str, ...] = ()
    """make: what is made before ``make install``; empty: its default."""
    commands: tuple[str, ...] = ()
    """script: shell lines that compile and install into ``$DESTDIR``, with the prefix ``/usr``."""
    apt: tuple[str, ...] = ()
    """Debian packages that building needs, in a layer of its own on the dev image."""
    pip: tuple[str, ...] = ()
    """Python packages that building or testing needs, such as ``meson-python==0.18.0``."""
    network: bool = False
    """Whether configuring may use the network (with cmake; else the whole build may)."""
    writable: bool = False
    """Whether the build writes into its source: it gets a copy. All but cmake do always."""

    def __post_init__(self) -> None:
        """Refuse what goes with another build system."""
        if self.commands and self.system != "script":
            raise ValueError("commands goes with system: script")
        if self.system == "script" and not self.commands:
            raise ValueError("system: script needs commands")
        if self.targets and self.system != "make":
            raise ValueError("targets goes with system: make")
        if PurePosixPath(self.directory).is_absolute() or ".." in self.directory.split("/"):
            raise ValueError(f"directory: '{self.directory}' is not below the source")
        for name in self.apt:
            if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?(=[A-Za-z0-9.+:~-]+)?", name):
                raise ValueError(f"apt: '{name}' is no name of a Debian package")
        for text in self.pip:
            _check_requirement(text, "pip")

    @property
    def copied(self) -> bool:
        """Whether what is built is a copy of the source, which may be written to."""
        return self.writable or self.system != "cmake"


def _check_requirement(text: str, key: str) -> None:
    if PLAIN_REQUIREMENT.fullmatch(text):
        return
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise ValueError(f"{key}: '{text}' is no requirement: {error}") from None
    if requirement.url:
        raise ValueError(f"{key}: '{text}' names an address; a version of the index is wanted")


def debian_dependency(text: str) -> str:
    """Debian's spelling of a Python requirement: its name by Debian's rule, and its bounds.

    ``numpy>=1.24,<3`` is ``python3-numpy (>= 1.24), python3-numpy (<< 3)``. What has no like there
    (``!=``, ``~=``, ``==1.*``) is left to the wheel.
    """
    from packaging.requirements import Requirement  # 5 ms, hardly ever needed
    from packaging.utils import canonicalize_name

    requirement = Requirement(text)
    name = f"python3-{canonicalize_name(requirement.name)}"
    signs = {">=": ">=", ">": ">>", "<": "<<", "<=": "<="}
    bounds = sorted(
        (signs[s.operator], s.version) for s in requirement.specifier if s.operator in signs
    )
    return ", ".join(f"{name} ({sign} {version})" for sign, version in reversed(bounds)) or name


class Row(Part, frozen=True, kw_only=True):
    """What one variant adds to what all have."""

    options: dict[str, str] = msgspec.field(default_factory=dict)
    """Added to ``build.options``, or put in their place."""
    unsupported: str = ""
    """Why the project cannot have this variant, told to who asks for it."""


class Tests(Part, frozen=True, kw_only=True):
    """What ``invoke test`` runs."""

    ctest: bool | None = None
    """Whether CTest is run; not said: where CMake builds."""
    pytest: tuple[str, ...] = ()
    """Files or directories, relative to the source; empty: no Python tests."""
    pythonpath: tuple[str, ...] = ()
    """Directories put first on sys.path, relative to the build directory."""
    commands: tuple[str, ...] = ()
    """Shell lines run where the tree was built, such as ``make check``; each counts as one test.
    $TOP is that directory and $BUILD the build directory, by paths without blanks."""
    installed: tuple[str, ...] = ()
    """Files or directories beside project.yaml that pytest runs in the production image; empty:
    those of ``pytest``."""
    scripts: tuple[str, ...] = ()
    """Python scripts beside project.yaml with their arguments, such as ``../demo/train.py --epochs
    5``, run in the production image with the directory they stand in; each counts as one test."""

    def __post_init__(self) -> None:
        """Refuse a line that names no script."""
        for line in self.scripts:
            try:
                words = shlex.split(line)
            except ValueError as error:
                raise ValueError(f"scripts: '{line}' is no command line: {error}") from None
            if not words or not words[0].endswith(".py"):
                raise ValueError(f"scripts: '{line}' does not begin with a Python script's path")


class Package(Part, frozen=True, kw_only=True):
    """What the .deb holds, and says beside what is derived."""

    section: str = "libs"
    """Debian's section: libs, python, math, utils, ..."""
    components: tuple[str, ...] = ()
    """CMake install components that are packaged; empty: all."""
    python: tuple[str, ...] = ()
    """Python modules of the source, packages or files, that the install rules leave out."""
    commands: dict[str, str] = msgspec.field(default_factory=dict)
    """Command-line tools that are made: name to ``module:function``."""
    files: tuple[str, ...] = ()
    """Patterns of what the run-time package holds, such as ``usr/lib/**``; empty: all that
    ``dev`` does not take."""
    dev: bool | tuple[str, ...] = False
    """Whether a second package, NAME-dev, takes what compiling against the library needs; or the
    patterns of what it takes."""
    exclude: tuple[str, ...] = ()
    """Patterns of what is installed and goes into no package."""
    depends: tuple[str, ...] = ()
    """Run-time dependencies beyond those that dpkg-shlibdeps and the extension modules tell."""
    requires: tuple[str, ...] = ()
    """Python packages that the modules need, such as ``numpy>=1.24``: the wheel requires them, and
    the .deb depends on Debian's (``python3-numpy (>= 1.24)``)."""
    conflicts: tuple[str, ...] = ()
    """Packages that hold the same files, such as Debian's own of the library."""
    requirements: str = ""
    """With a prebuilt wheel: file beside project.yaml that locks the Python packages it needs,
    with hashes."""
    strip: bool = True
    """Whether debug symbols are split off. Of a prebuilt wheel nothing ever is."""
    lintian: dict[str, str] = msgspec.field(default_factory=dict)
    """Findings that are overridden: tag to the reason."""
    wheel_mb: int = 0
    """Largest size of the wheel in MB; 0: the settings' ``budgets.wheel_mb``."""

    def __post_init__(self) -> None:
        """Refuse what no wheel could require."""
        for text in self.requires:
            _check_requirement(text, "requires")

    @property
    def all_depends(self) -> tuple[str, ...]:
        """Debian packages that running needs, beyond what is found in the files."""
        return (*map(debian_dependency, self.requires), *self.depends)


class Image(Part, frozen=True, kw_only=True):
    """What the production image does and how large it may be."""

    about: tuple[str, ...] = ("python3", "--version")
    """Command that ``docker run IMAGE`` without arguments runs."""
    budget_mb: int = 0
    """Largest size in MB; 0: the settings' ``budgets.image_mb``."""


class Documented(Part, frozen=True, kw_only=True):
    """What ``invoke docs`` documents of the tree."""

    headers: tuple[str, ...] = ()
    """Directories of C++ headers, relative to the source; their comments are the documentation."""
    macros: tuple[str, ...] = ()
    """Macros in the declarations that are no part of the API, such as ``OAR_API``."""
    modules: tuple[str, ...] = ()
    """Python modules, as they are imported where the tree was built; their docstrings are."""

    def __post_init__(self) -> None:
        """Refuse what lies elsewhere."""
        for name in self.headers:
            if PurePosixPath(name).is_absolute() or ".." in name.split("/"):
                raise ValueError(f"headers: '{name}' is not below the source")


class Audit(Part, frozen=True, kw_only=True):
    """What the proof of the instruction set lets pass."""

    allow: dict[str, str] = msgspec.field(default_factory=dict)
    """Files that ask the CPU before they use more than the variant's row: pattern of the path, or
    ``PATH:FUNCTION``, to the reason."""

    def __post_init__(self) -> None:
        """Refuse what nobody could account for."""
        for pattern, reason in self.allow.items():
            if not reason.strip():
                raise ValueError(f"allow: '{pattern}' has no reason")


class Project(Part, frozen=True, kw_only=True):
    """A whole project.yaml."""

    name: str
    """Of the Debian package, so in small letters."""
    summary: str
    """One line."""
    description: str = ""
    """Paragraphs for the package."""
    license: str
    """SPDX expression."""
    homepage: str = ""
    """Address of the project's page."""
    maintainer: str
    """``Name <mail>`` of who makes the packages."""
    source: Source = Source()
    """Where the tree comes from; empty: it is where project.yaml stands."""
    build: Build = Build()
    """How it is compiled."""
    variants: dict[str, Row] = msgspec.field(default_factory=dict)
    """The rows of the variants' table that the project has; empty: all without CUDA."""
    test: Tests = Tests()
    """What shows that it works."""
    package: Package = Package()
    """What is in the .deb."""
    image: Image = Image()
    """What is in the production image."""
    docs: Documented = Documented()
    """Whose API is documented."""
    audit: Audit = Audit()
    """What may go beyond the variant's instruction set, and why."""

    def __post_init__(self) -> None:
        """Refuse what goes with another kind of source."""
        if self.package.requirements and self.source.kind != "wheel":
            raise ValueError("package.requirements goes with source: {wheel: NAME}")


class Tree(Record, frozen=True):
    """A source tree with its project.yaml, and its version as it stands now."""

    project: Project
    file: Path
    source: Path
    """With a prebuilt wheel, which has no tree: project.yaml's directory."""
    version: Version
    variants: Mapping[str, Variant]
    """The rows of the table that the project has, in the table's order."""
    wheel: Path | None = None
    """The prebuilt wheel, where the project is one."""

    @property
    def top(self) -> Path:
        """The directory that is built."""
        return self.source / self.project.build.directory

    def package_name(self, variant: str) -> str:
        """Name of the Debian package: ``oar-noavx``."""
        return self.project.name + self.variants[variant].suffix

    def alias(self, variant: str) -> str:
        """What people call the production image: ``oar:1.2.0-noavx``."""
        return f"{self.project.name}:{self.version.tag}{self.variants[variant].suffix}"

    def choose(self, wanted: str, default: Sequence[str]) -> list[str]:
        """The variants that ``--variant`` means; one that the project cannot have says why."""
        rows = self.project.variants
        refused = {name: row.unsupported for name, row in rows.items() if row.unsupported}
        return choose(self.variants, wanted, default, refused)

    def options(self, variant: str) -> dict[str, str]:
        """Build options of ``variant``, in common and its own, placeholders filled in."""
        row = self.project.variants.get(variant, Row())
        known = {
            "version": self.version.pep440,
            "commit": self.version.commit,
            "variant": variant,
            "isa": self.variants[variant].isa,
            "flags": self.variants[variant].compiler_flags,
            "cuda": self.variants[variant].cuda_architectures,
            "refusal": preflight.refusal(self, variant),
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
    known = {f"examples/{p.parent.name}": p for p in workshop.root.glob("examples/*/project.yaml")}
    known |= {f"projects/{p.stem}": p for p in workshop.root.glob("projects/*.yaml")}
    named = {name.partition("/")[2]: file for name, file in known.items()}
    if text in named:
        return named[text]
    raise SlipwayError(
        f"no project '{text}': no such file, and no directory with a project.yaml",
        cause=nearest(text, known),
        fix=["invoke build --project examples/oar", "invoke init --source DIR, for a new one"],
        code=USAGE,
    )


def fetched(workshop: Workshop, origin: Source, file: Path) -> Path:
    """What ``source:`` in project.yaml names, fetched if it is not here: a tree, or a wheel."""
    from slipway import builds  # which needs this module

    def run(command: list[str], directories: Sequence[Path]) -> None:
        builds.fetch_in_dev(workshop, command, directories)

    tag = builds.python_tag(workshop) if origin.kind == "wheel" else ""
    return fetch(workshop, origin, base=file.parent, python_tag=tag, run=run)


def resolve(workshop: Workshop, project: str = "", source: str = "") -> Tree:
    """The tree that ``--project`` and ``--source`` name, ready to be built.

    :param source: directory of the source tree; empty: where project.yaml stands.
    """
    file = find(workshop, project)
    described = read(file)
    rows = rows_of(workshop, described, file)
    origin = Source() if source else described.source
    here = Path(source).expanduser().resolve() if source else fetched(workshop, origin, file)
    if workshop.dry and not here.exists() and not source:
        raise Exit(code=0)  # what would be fetched has been said; more is not known of it
    wheel = here if origin.kind == "wheel" else None
    tree = file.parent if wheel else here
    if not wheel:
        check_tree(tree, described, file)
    if wheel:
        version = version_of_file(wheel, origin.version)
    else:
        declared = declared_version(tree / described.build.directory) or declared_version(tree)
        version = version_of(tree, known_version(origin, tree) or declared)
    found = Tree(
        project=described, file=file, source=tree, version=version, variants=rows, wheel=wheel
    )
    for name in rows:
        found.options(name)  # a wrong placeholder is told before anything is made
    return found


def rows_of(workshop: Workshop, described: Project, file: Path) -> dict[str, Variant]:
    """The rows of the variants' table that a project has.

    One with CUDA only where it is named: a tree that compiles nothing for GPUs would be packaged as
    if it did.
    """
    table = workshop.settings.variants
    for name in described.variants:
        if name not in table:
            raise SlipwayError(
                f"{file} is not valid",
                fix=[EXAMPLE],
                cause=f"variants.{name}: no such variant; {nearest(name, table)}",
                code=BAD_CONFIG,
            )
    wanted = [n for n, row in described.variants.items() if not row.unsupported]
    refused = set(described.variants) - set(wanted)
    return {
        name: row
        for name, row in table.items()
        if name not in refused and (name in wanted if wanted else not row.cuda)
    }


def check_tree(tree: Path, described: Project, file: Path) -> None:
    """Refuse a source that is not there, or has not what its build system starts from."""
    if not tree.is_dir():
        raise SlipwayError(
            f"no source directory {tree}",
            fix=["invoke build --source DIR, with a directory that exists"],
            code=NO_INPUT,
        )
    top, system = tree / described.build.directory, described.build.system
    marks = MARKS[system]
    if not marks or any((top / mark).is_file() for mark in marks):
        return
    others = [s for s, names in MARKS.items() if any((top / n).is_file() for n in names)]
    raise SlipwayError(
        f"{top} has no {' and no '.join(marks)}",
        cause=f"{file} says that it is built by {system}",
        fix=[
            f"write build: {{system: {others[0]}}} into it: the tree looks like that"
            if others
            else "write build: {directory: DIR} into it, with the sub-directory that has one",
            "invoke build --source DIR, with the directory that holds it",
        ],
        code=NO_INPUT,
    )
