"""Applications: a folder with a train.py becomes an image that starts FROM a production image.

Where the folder has no Dockerfile, one is derived from what is in it; ``--show-dockerfile`` prints
it, and in the folder it is the application's own. Either is built with the folder as its context.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from slipway import builds, console, engine, images, outputs, production, receipts
from slipway.base import Base
from slipway.builds import Site
from slipway.errors import BAD_DATA, CANNOT_CREATE, NO_INPUT, UNAVAILABLE, USAGE, SlipwayError
from slipway.images import Recipe, build_image
from slipway.production import Image
from slipway.project import Tree
from slipway.ranks import LAUNCH
from slipway.records import Record
from slipway.settings import CONTAINER, Workshop

PROGRAM, REQUIREMENTS, APT, DOCKERFILE = "train.py", "requirements.txt", "apt.txt", "Dockerfile"
PLACE = "/app"  # where its files are in its image; /work, where it starts, is for what it writes
# Of an image, and of what a cluster calls after it: an RFC 1035 label, with room for a number.
NAME = r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?"
RULE = "small letters, digits and -, at most 50 of them, the first a letter, the last no -"
UNREACHABLE = "NewConnectionError|ConnectTimeout|ProxyError|Temporary failure|Could not resolve"
TAKE = "write ARG BASE, and FROM ${BASE}, which `invoke app` makes the production image"


class Application(Record, frozen=True):
    """A folder that becomes an image."""

    name: str
    """Its image's, and that of what runs on a cluster: the folder's own."""
    directory: Path
    files: tuple[Path, ...]
    """All that is sent to the engine, in a fixed order."""

    @property
    def dockerfile(self) -> str:
        """The text of the folder's own Dockerfile, or of one derived from what is in it."""
        own = self.directory / DOCKERFILE
        if own in self.files:
            return own.read_text(encoding="utf-8")
        return derived([file.relative_to(self.directory).as_posix() for file in self.files])


# -- looking at a folder


def find(wanted: str) -> Application:
    """The application in the folder that ``--dir`` names."""
    if not wanted:
        raise SlipwayError(
            "no --dir: which application?",
            fix=["invoke app --dir examples/digits", "invoke init --app NAME, for a new one"],
            code=USAGE,
        )
    directory = Path(wanted).expanduser().resolve()
    if not (directory / PROGRAM).is_file():
        what = f"no {PROGRAM} in {directory}" if directory.is_dir() else f"no folder {directory}"
        raise SlipwayError(
            what,
            cause=f"an application is a folder with {PROGRAM}, and what that needs",
            fix=[shlex.join(["invoke", "init", "--app", wanted]), "mend --dir"],
            code=NO_INPUT,
        )
    check_name(directory.name, "rename the folder")
    found = Application(directory.name, directory, files_of(directory))
    check_start(found.dockerfile, str(directory / DOCKERFILE))
    check_requirements(found)
    return found


def check_requirements(application: Application) -> None:
    """Refuse requirements that name other files, which are not there where pip runs."""
    file = application.directory / REQUIREMENTS
    if file not in application.files or application.directory / DOCKERFILE in application.files:
        return
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if re.match(r"\s*(-r|-c|-e|--requirement|--constraint|--editable|\.{0,2}/)", line):
            raise SlipwayError(
                f"{file}:{number}: {line.strip()} is a file of its own",
                cause="the image is made from this list alone, so that an edit of any other file "
                "installs nothing anew",
                fix=["write here what it names", "or give the application a Dockerfile of its own"],
                code=BAD_DATA,
            )


def check_name(name: str, fix: str) -> None:
    """Refuse what is no name for an image, or for a service of a cluster."""
    if not re.fullmatch(NAME, name):
        near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")[:50].strip("-")
        raise SlipwayError(
            f"'{name}' is no name for an application's image",
            cause=RULE,
            fix=[f"{fix}{f', such as {near}' if near else ''}"],
            code=USAGE,
        )


def files_of(directory: Path) -> tuple[Path, ...]:
    """The files of an application: hidden ones, byte code and virtual environments aside."""
    found = list(receipts.files_below(directory))
    environments = [path.parent for path in found if path.name == "pyvenv.cfg"]
    if directory in environments:
        raise SlipwayError(
            f"{directory} is a virtual environment itself",
            cause="those are no part of an application, and nothing would be left of it",
            fix=[f"python3 -m venv {shlex.quote(str(directory / 'env'))}, and remove this one's"],
            code=NO_INPUT,
        )
    kept = []
    for path in found:
        is_hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if is_hidden or any(path.is_relative_to(environment) for environment in environments):
            continue
        if not path.is_file():
            raise SlipwayError(
                f"the link {path} leads to {'a folder' if path.is_dir() else 'nothing'}",
                cause="only files go into an image, and links to them as what they lead to",
                fix=["put a copy in its place, or remove it"],
                code=NO_INPUT,
            )
        kept.append(path)
    return tuple(kept)


# -- a new one


def begin(workshop: Workshop, wanted: str) -> None:
    """What ``invoke init --app`` does: make a folder with a program that trains, and runs.

    :param wanted: the folder; its name becomes the application's.
    """
    directory = Path(wanted).expanduser().resolve()
    check_name(directory.name, "choose another")
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise SlipwayError(
            f"{directory} is there already; nothing was written",
            fix=["invoke init --app NAME, with another name", f"invoke app --dir {wanted}"],
            code=CANNOT_CREATE,
        )
    starter = workshop.scripts / "starter"
    files = [file for file in sorted(starter.iterdir()) if file.is_file()]
    names = ", ".join(file.name for file in files)
    if workshop.dry:
        console.say(f"{directory} would be made, with {names}")
        return
    for file in files:
        receipts.write_whole(directory / file.name, file.read_text(encoding="utf-8"))
    console.say(f"{console.bold('made')} {directory}, with {names}")
    console.say(f"next: {shlex.join(['./go', 'invoke', 'train', '--dir', wanted])}")


# -- its Dockerfile

CERTIFICATES = "ca-certificates.crt"
HEAD = """\
# An application: the production image, what its folder asks for, and the folder's files.
# Derived by `invoke app`, which hands in BASE, the production image, and TOOLS, pip and a launcher.
ARG BASE=prod
ARG TOOLS=tools

FROM ${TOOLS} AS tools

"""
ENVIRONMENT = f"""\
# Apart, so that what installs is not in the image. The wheels that are fetched outlive the build.
FROM ${{BASE}} AS environment
RUN --mount=type=cache,id=slipway-wheels,target=/wheelhouse \\
    --mount=type=bind,from=tools,target=/run/slipway \\
    --mount=type=bind,from=tools,source=/{CERTIFICATES},target=/etc/ssl/certs/{CERTIFICATES} \\
    --mount=type=bind,source={REQUIREMENTS},target=/run/{REQUIREMENTS} \\
    --mount=type=secret,id=ca \\
    --mount=type=secret,id=pip \\
    /run/slipway/app-install /run/{REQUIREMENTS}

"""
PACKAGES = f"""\
RUN --mount=type=cache,id=slipway-apt-app,target=/var/cache/apt,sharing=locked \\
    --mount=type=cache,id=slipway-lists-app,target=/var/lib/apt/lists,sharing=locked \\
    --mount=type=bind,from=tools,target=/run/tools \\
    --mount=type=bind,source={APT},target=/run/{APT} \\
    --mount=type=secret,id=apt,target=/run/slipway/apt/mirror \\
    /run/tools/apt-install @/run/{APT}
"""
INSTALLED = """\
COPY --from=environment /opt/app /opt/app
ENV PATH=/opt/app/bin:${PATH}
"""
LAUNCHER = f"COPY --from=tools /launch {LAUNCH}\n"


def derived(names: Sequence[str]) -> str:
    """A Dockerfile for a folder with these files, what changes most often last.

    :param names: relative to the folder.
    """
    folders = sorted({name.partition("/")[0] for name in names if "/" in name})
    plain = [n for n in names if "/" not in n and n not in (REQUIREMENTS, APT, DOCKERFILE)]
    has_environment, has_packages = REQUIREMENTS in names, APT in names
    return "".join(
        [
            HEAD,
            ENVIRONMENT if has_environment else "",
            "FROM ${BASE}\n",
            PACKAGES if has_packages else "",
            INSTALLED if has_environment else "",
            LAUNCHER,
            *(copy([folder], f"{PLACE}/{folder}") for folder in folders),
            copy(plain, f"{PLACE}/"),
            f'CMD ["python", "{PLACE}/{PROGRAM}"]\n',
        ]
    )


def copy(names: Sequence[str], target: str) -> str:
    """A line that copies files, or one folder; names with blanks need the longer form."""
    words = [*names, target]
    if all(re.fullmatch(r"[\w./+@:,=-]+", word) for word in words):
        return f"COPY {' '.join(words)}\n"
    # Names are patterns there; a dollar begins a variable, unless what follows is no name.
    words = [*(re.sub(r"[*?$\[]", r"[\g<0>]", name) for name in names), target]
    return f"COPY {json.dumps(words, ensure_ascii=False)}\n"


def starts(text: str) -> tuple[int, str]:
    """Line and image that a Dockerfile's last stage starts from, through stages before it; 0 and
    nothing where it has no FROM.
    """
    stages: dict[str, tuple[int, str]] = {}
    last = (0, "")
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r"\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?\s*$", line, re.I)
        if match:
            last = stages.get(match[1].lower(), (number, match[1]))
            stages[(match[2] or "").lower()] = last
    return last


def check_start(text: str, file: str) -> None:
    """Refuse a Dockerfile that does not start from the production image.

    :param file: its name, for the error.
    """
    line, image = starts(text)
    if image in ("${BASE}", "$BASE"):
        return
    raise SlipwayError(
        f"{file}:{line}: starts from {image}" if image else f"{file} has no FROM",
        cause="an application's image starts FROM the production image that `invoke app` chooses",
        fix=[TAKE, "or remove it: invoke app derives one, and --show-dockerfile prints that"],
        code=BAD_DATA,
    )


def command(arguments: Sequence[str]) -> list[str]:
    """What each node of a job runs, after the image's entry point."""
    return [LAUNCH, "python", f"{PLACE}/{PROGRAM}", *arguments]


# -- images: what they are made of


def tools_recipe(workshop: Workshop, dev: str) -> Recipe:
    """What an application's build is handed beside the production image.

    :param dev: tag of the dev image, which is its hash.
    """
    scripts = workshop.scripts
    return Recipe(
        kind="dev",
        dockerfile=workshop.root / "Dockerfile.app",
        target="tools",
        base=Base(dev, dev),
        arguments={"DEV": dev},
        files={
            "tools/app-install": scripts / "app-install",
            "tools/apt-install": scripts / "apt-install",
            "launch": scripts / "launch",
        },
        repository="slipway-tools",
    )


def recipe(
    workshop: Workshop, tree: Tree, variant: str, application: Application, prod: str, tools: str
) -> Recipe:
    """What the image of an application is made of.

    :param prod: tag of the production image that it starts from, which is its hash.
    :param tools: tag of the image of ``tools_recipe``.
    """
    directory = application.directory
    return Recipe(
        kind="app",
        dockerfile=application.dockerfile,
        base=Base(prod, prod),
        arguments={"TOOLS": tools},
        files={file.relative_to(directory).as_posix(): file for file in application.files},
        labels={
            images.ALIAS: alias_of(application, tree, variant),
            "slipway.project": tree.project.name,
            "slipway.variant": variant,
            "org.opencontainers.image.title": application.name,
            "org.opencontainers.image.version": tree.version.pep440,
            "org.opencontainers.image.revision": tree.version.commit,
        },
        repository=f"slipway-{workshop.checkout}-{application.name}-app",
        is_folder=True,
    )


def alias_of(application: Application, tree: Tree, variant: str) -> str:
    """``digits:1.2.0-noavx``: what people call the image."""
    return f"{application.name}:{tree.version.tag}{tree.variants[variant].suffix}"


def receipt_of(workshop: Workshop, application: Application, variant: str) -> Path:
    """What says which image ``invoke app`` made last."""
    return workshop.out / "apps" / application.name / f"{variant}.json"


def explain(said: str) -> SlipwayError | None:
    """What a failed build's words mean, where pip or apt could not do what the folder asks for."""
    lines = [re.sub(r"^(#\d+ )?(\d+\.\d+ )?", "", line.strip()) for line in said.splitlines()]
    failed = [x for x in lines if re.search("did not complete successfully|executor failed", x)]
    for script, file, mark, index, setting in (
        ("app-install", REQUIREMENTS, r"ERROR: (?!process|executor|failed to)", "package", "pip"),
        ("apt-install", APT, "E: ", "Debian", "apt"),
    ):
        if not any(script in line for line in failed):
            continue
        words = "\n".join(dict.fromkeys(line for line in lines if re.match(mark, line)))
        if not words:
            return None
        if re.search(UNREACHABLE, said):
            return SlipwayError(
                f"no {index} index can be reached, and not all that {file} names is here",
                cause=words,
                fix=["./go invoke doctor", f"set mirrors.{setting} in invoke.yaml"],
                code=UNAVAILABLE,
            )
        return SlipwayError(
            f"what {file} names cannot be installed",
            cause=words,
            fix=[f"mend {file}, then the same command again"],
            code=NO_INPUT,
        )
    return None


# -- acting


def ensure_tools(workshop: Workshop) -> str:
    """The tag of the image with what applications are built with, made when it is first wanted."""
    made = tools_recipe(workshop, images.ensure_dev(workshop))
    return images.ensure(workshop, made, "making what applications are built with (once)")


def make(s: Site, prod: Image, application: Application) -> Image:
    """The image of an application, built unless it is here already and nothing changed.

    :param prod: the production image of the site.
    """
    start = time.monotonic()
    workshop, tree, variant = s.workshop, s.tree, s.variant
    made = recipe(workshop, tree, variant, application, prod.tag, ensure_tools(workshop))
    alias, file = alias_of(application, tree, variant), receipt_of(workshop, application, variant)
    here, known = engine.inspect_images(made.tag, prod.tag), receipts.read(file, made.tag)
    if made.tag in here and known:
        production.name(workshop, made.tag, alias)
        console.say(f"{alias} is unchanged since {console.moment(known.made_at)}")
        return Image(made.tag, alias, int(here[made.tag]["Size"]), known.made_at, fresh=False)
    own = application.directory / DOCKERFILE
    mend = f"mend {own}" if own in application.files else "./go invoke doctor"
    build_image(workshop, made, fix=mend, explain=explain)
    if workshop.dry:
        return Image(made.tag, alias, 0, 0, fresh=True)
    production.name(workshop, made.tag, alias)
    before = receipts.facts(file).get("tag", made.tag)
    outputs.make(file.parent, workshop.out)
    receipt = receipts.write(file, made.tag, {"tag": made.tag, "alias": alias})
    if before != made.tag:
        images.remove(str(before))  # else each edit would leave one
    size = int(engine.inspect_images(made.tag)[made.tag]["Size"])
    added = size - int(here[prod.tag]["Size"])
    console.say(
        f"{console.bold('made')} image {alias}, {console.megabytes(size)}, "
        f"{console.megabytes(added)} of them the application's, "
        f"{console.seconds(time.monotonic() - start)}"
    )
    return Image(made.tag, alias, size, receipt.made_at, fresh=True)


def ensure(s: Site, application: Application) -> Image:
    """The image of an application for one variant.

    The library, its package and its production image are made first, where something has changed.
    """
    from slipway import packages

    check_free(application, s.tree)
    with s.locked("app"):
        builds.build(s)
        return make(s, production.prod(s, packages.deb(s)), application)


def ensure_app(
    workshop: Workshop, application: Application, variant: str, project: str, source: str
) -> Image:
    """The image that ``train`` and ``deploy`` start, for the one variant that their flags mean."""
    return ensure(
        next(iter(builds.sites(workshop, variant, project, source, CONTAINER))), application
    )


def check_free(application: Application, tree: Tree) -> None:
    """Refuse the name of an image that we make otherwise."""
    if application.name in (tree.project.name, f"{tree.project.name}-book"):
        raise SlipwayError(
            f"{application.name} is what the images of {tree.project.name} itself are called",
            fix=[f"rename the folder {application.directory}"],
            code=USAGE,
        )


def app(
    workshop: Workshop, wanted: str, variant: str, project: str, source: str, *, show: bool
) -> None:
    """What ``invoke app`` does.

    :param wanted: the folder.
    :param show: print the Dockerfile instead, and nothing else.
    """
    application = find(wanted)
    if show:
        console.say(application.dockerfile.rstrip())
        return
    for site in builds.sites(workshop, variant, project, source, CONTAINER):
        ensure(site, application)
