"""Content-addressed builds: an image's identity is the hash of what goes into it.

The hash of Dockerfile, target, arguments, staged files and base is the image's tag and label, so an
up-to-date image costs one ``docker image inspect`` and two machines agree on what it is called.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from slipway import base, console, outputs, podman, processes
from slipway.base import Base
from slipway.engine import (
    LABEL,
    PROXIES,
    ask,
    build_client,
    caller,
    client,
    failure,
    inspect_images,
)
from slipway.errors import BAD_CONFIG, BAD_DATA, SlipwayError
from slipway.records import Record
from slipway.settings import Workshop

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

KEY = "slipway.key"
KIND = "slipway.kind"
ALIAS = "slipway.alias"  # the name that people type for a production image
DOCTOR = "./go invoke doctor"
SECRET_LIMIT = 500_000  # BuildKit refuses a larger secret


class Recipe(Record, frozen=True):
    """All that decides what an image holds."""

    kind: str
    """What it is for: ``dev``, ``prod``; part of its name."""
    dockerfile: Path | str
    """A file, or its text."""
    base: Base
    target: str = ""
    arguments: Mapping[str, str] = msgspec.field(default_factory=dict)
    files: Mapping[str, Path | str] = msgspec.field(default_factory=dict)
    """The build context: name in it to a file on disk, or to a text."""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    repository: str = ""
    """Name before the tag; empty: ``slipway-KIND``."""
    is_folder: bool = False
    """The context is a person's folder: nothing of ours stands beside its files."""

    @property
    def text(self) -> bytes:
        """What the Dockerfile says."""
        own = self.dockerfile
        return own.encode() if isinstance(own, str) else own.read_bytes()

    @property
    def key(self) -> str:
        """The first twelve hex digits of the hash of everything that goes in."""
        return fingerprint(
            self.text,
            self.base.identity,
            self.target,
            dict(self.arguments),
            dict(self.labels),
            {n: c if isinstance(c, str) else file_hash(c) for n, c in self.files.items()},
        )[:12]

    @property
    def tag(self) -> str:
        """``slipway-dev:0123456789ab``."""
        return f"{self.repository or 'slipway-' + self.kind}:{self.key}"


def fingerprint(*parts: Any) -> str:
    """SHA-256 of JSON-able values and bytes, in order."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content and of whether it is executable."""
    digest = hashlib.sha256(b"x" if os.access(path, os.X_OK) else b"-")
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def remembered_base(workshop: Workshop) -> Base | None:
    """The base as it was last seen, if it is still one that the settings mean."""
    try:
        seen = Base(**json.loads((workshop.out / ".run" / f"base{workshop.mark}.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return seen if seen.reference in base.candidates(workshop) else None


def remember_base(workshop: Workshop, value: Base) -> None:
    """Keep what the base is, so that the next look can ask for base and dev image at once."""
    if workshop.dry:
        return
    memory = workshop.out / ".run" / f"base{workshop.mark}.json"
    outputs.make(memory.parent, workshop.out)
    memory.write_text(json.dumps({"reference": value.reference, "identity": value.identity}))


def build_arguments(
    workshop: Workshop, recipe: Recipe, directory: Path
) -> tuple[list[str], dict[str, str]]:
    """Stage the context in ``directory``; the command that builds it, and its variables."""
    command, variables = build_client()
    context = directory / "context"
    dockerfile = recipe.dockerfile
    if isinstance(dockerfile, str):
        dockerfile = directory / "Dockerfile"
        dockerfile.write_bytes(recipe.text)
    argv = [*command, "--file", str(dockerfile)]
    argv += ["--build-arg", f"BASE={recipe.base.reference}"]
    if recipe.target:
        argv += ["--target", recipe.target]
    for key, value in recipe.arguments.items():
        argv += ["--build-arg", f"{key}={value}"]
    argv += ["--tag", recipe.tag]
    own = {KIND: recipe.kind, KEY: recipe.key, LABEL: workshop.checkout}
    for key, value in {**own, **recipe.labels}.items():
        argv += ["--label", f"{key}={value}"]
    # Proxies are BuildKit's predefined arguments: by name only, and in no layer.
    argv += [x for n in PROXIES if n in os.environ for x in ("--build-arg", n)]
    stage(recipe, context)
    argv += secrets(workshop, directory, None if recipe.is_folder else context)
    if podman.is_builder(command) and not recipe.is_folder:
        marked = directory / "Dockerfile.podman"
        marked.write_text(podman.one_lock_each(podman.by_content(recipe.text.decode(), context)))
        argv[argv.index("--file") + 1] = podman.one_of_a_list(str(marked))
    return [*argv, str(context)], variables


def context_directory(workshop: Workshop) -> TemporaryDirectory[str]:
    """A directory for a build's context: in out/, where it may be large; with --dry, elsewhere."""
    import tempfile  # 5 ms that a build of nothing need not pay

    if workshop.dry:
        return tempfile.TemporaryDirectory(prefix="slipway-")
    work = outputs.make(workshop.out / ".run", workshop.out)
    return tempfile.TemporaryDirectory(dir=work, prefix="context-")


def build_image(
    workshop: Workshop,
    recipe: Recipe,
    *,
    fix: str = DOCTOR,
    explain: Callable[[str], SlipwayError | None] | None = None,
) -> str:
    """Build ``recipe`` with BuildKit and return its tag.

    :param fix: what to do when it cannot be built.
    :param explain: what a failed build's own words mean, where more is known than that it failed.
    """
    heard = processes.Heard() if explain or podman.is_client() else None
    with context_directory(workshop) as directory:
        argv, variables = build_arguments(workshop, recipe, Path(directory))
        console.show_command(argv, variables)
        if workshop.dry:
            return recipe.tag
        status = processes.call(argv, env=variables, heard=heard)
    if status:
        ask(["version", "--format", "{{.Server.Version}}"], "build an image")  # is it the engine?
        known = podman.explain(heard.text, caller().name) if heard else None
        known = known or (explain(heard.text) if explain and heard else None)
        own = recipe.dockerfile
        name = "Dockerfile" if isinstance(own, str) else own.name
        raise known or SlipwayError(
            f"the {recipe.kind} image was not built",
            cause=f"{name} failed; {podman.name()}'s words are above",
            fix=[fix],
            code=status,
        )
    return recipe.tag


class Background:
    """A build that goes on beside other work, and is ended with it if it still runs.

    Whoever needs its result builds it in the foreground, where BuildKit's cache has what is done.
    """

    def __init__(self, workshop: Workshop, recipe: Recipe) -> None:
        self.directory = context_directory(workshop)
        argv, variables = build_arguments(workshop, recipe, Path(self.directory.name))
        self.log = (workshop.out / ".run" / "background.log").open("wb")
        console.say(f"in the background, said in {self.log.name}:")
        console.show_command(argv, variables)
        self.process = subprocess.Popen(
            argv,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
        self.log.close()
        self.directory.cleanup()


def stage(recipe: Recipe, context: Path) -> None:
    """Copy the recipe's files, and nothing else, into the directory that is sent to the engine.

    Any uid may read them, whatever the umask that they were written under.
    """
    context.mkdir()
    for name, content in recipe.files.items():
        target = context / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            target.write_text(content)
        else:
            shutil.copy(content, target)
        target.chmod(0o755 if os.access(target, os.X_OK) else 0o644)
    if not recipe.is_folder:
        for always in ("apt", "ca"):  # bind mounts of our Dockerfiles: there, if empty
            (context / always).mkdir(exist_ok=True)
    for folder in (path for path in context.rglob("*") if path.is_dir()):
        folder.chmod(0o755)


def secrets(workshop: Workshop, directory: Path, context: Path | None) -> list[str]:
    """Arguments that hand CA bundle, pip's index and apt's mirror to a build and to no layer.

    :param directory: for files that live as long as the build.
    :param context: where what cannot be a secret is mounted from; None: all has to be one.
    """
    argv: list[str] = []
    bundle = workshop.ca_bundle
    if bundle and bundle.stat().st_size <= SECRET_LIMIT:
        argv += ["--secret", f"id=ca,src={bundle}"]
    elif bundle and context:
        shutil.copy(bundle, context / "ca" / "ca.pem")
    elif bundle:
        raise SlipwayError(
            f"{bundle} has {console.megabytes(bundle.stat().st_size)}, too much for a secret",
            cause=f"BuildKit takes {console.megabytes(SECRET_LIMIT)} at most, and an application's "
            "folder is not to hold it",
            fix=["set ca_bundle in invoke.yaml to a PEM file with fewer certificates"],
            code=BAD_CONFIG,
        )
    mirrors = workshop.settings.mirrors
    if mirrors.pip:
        conf = directory / "pip.conf"
        conf.touch(0o600)
        conf.write_text(pip_configuration(workshop))
        argv += ["--secret", f"id=pip,src={conf}"]
    if mirrors.apt:
        mirror = (context / "apt" if context else directory) / "mirror"
        mirror.write_text(f"{mirrors.apt}\n")
        argv += [] if context else ["--secret", f"id=apt,src={mirror}"]
    return argv


def pip_configuration(workshop: Workshop) -> str:
    """pip's configuration file for the index that the settings name; may hold credentials."""
    return f"[global]\nindex-url = {workshop.settings.mirrors.pip}\n"


def check_budget(workshop: Workshop, tag: str, budget_mb: int, setting: str) -> int:
    """The image's size in bytes; over budget, its largest packages are named and it goes."""
    size = int(inspect_images(tag)[tag]["Size"])
    if not podman.is_over(size, budget_mb):
        return size
    names = [f"{mb:7.1f} MB  {name}" for name, mb in largest(workshop, tag, 10)]
    listing = "\n".join(names)
    remove(tag)
    raise SlipwayError(
        f"{tag} has {console.megabytes(size)}, more than its budget of {budget_mb} MB",
        cause=f"the ten largest packages in it:\n{listing}",
        fix=[f"leave some out, or raise {setting}"],
        code=BAD_DATA,
    )


def remove(tag: str) -> None:
    """Take a tag away, and with the last one the image; a container that uses it may keep it."""
    answer = processes.look([client(), "rmi", tag])
    refusals = ("no such image", "image not known", "is using", "in use")
    if answer.returncode and not any(words in answer.stderr.lower() for words in refusals):
        raise failure(answer.stderr, f"remove {tag}")


def largest(workshop: Workshop, tag: str, number: int) -> list[tuple[str, float]]:
    """The packages that take most in an image, Debian's and the book's: name and MB installed."""
    debian = "dpkg-query -Wf '${Installed-Size}\\t${Package}\\n'"
    wheels = "du -sk /opt/book/lib/python3*/site-packages/* 2>/dev/null"
    script = f"{{ {debian}; {wheels}; }} | sort -rn | head -n {number}"
    run = ["run", "--rm", "--network", "none", "--label", f"{LABEL}={workshop.checkout}"]
    answer = ask([*run, "--entrypoint", "sh", tag, "-c", script], "list what is in the image")
    rows = [line.split("\t") for line in answer.splitlines()]
    return [(name, int(kib) * 1.024e-3) for kib, name in rows]


def dev_recipe(workshop: Workshop, value: Base) -> Recipe:
    """What the development image is made of."""
    root = workshop.root
    return Recipe(
        kind="dev",
        dockerfile=root / "Dockerfile.dev",
        target="dev",
        base=value,
        files={
            "tools/apt-install": workshop.scripts / "apt-install",
            "tools/pip-install": workshop.scripts / "pip-install",
            "tools/packages-dev.txt": workshop.scripts / "packages-dev.txt",
            "requirements-image.txt": root / "requirements-image.txt",
        },
    )


def on_top(
    workshop: Workshop,
    image: str,
    target: str,
    scripts: Sequence[str] = ("apt-install",),
    *,
    more: Mapping[str, Path | str] | None = None,
    arguments: Mapping[str, str] | None = None,
    repository: str = "",
) -> Recipe:
    """A later stage of Dockerfile.dev on an image that is here.

    :param image: its tag, which is its hash.
    :param scripts: those that the stage runs.
    :param more: further files of the context.
    :param repository: name of the result; empty: ``slipway-dev-TARGET``.
    """
    return Recipe(
        kind="dev",
        dockerfile=workshop.root / "Dockerfile.dev",
        target=target,
        base=Base(image, image),
        arguments={"DEV": image, **(arguments or {})},
        files={**{f"tools/{n}": workshop.scripts / n for n in scripts}, **(more or {})},
        repository=repository or f"slipway-dev-{target}",
    )


def ensure(workshop: Workshop, recipe: Recipe, doing: str, *, fix: str = DOCTOR) -> str:
    """The tag of what a recipe makes, made when it is first wanted.

    :param doing: what is said then.
    """
    if recipe.tag in inspect_images(recipe.tag):
        return recipe.tag
    console.say(doing)
    return build_image(workshop, recipe, fix=fix)


def gpu_recipe(workshop: Workshop, dev: str) -> Recipe:
    """The dev image with CUDA's compiler."""
    lock = {"requirements-cuda.txt": workshop.root / "requirements-cuda.txt"}
    named = "slipway-dev-gpu"
    return on_top(workshop, dev, "dev-gpu", ["cuda-install"], more=lock, repository=named)


def ensure_gpu(workshop: Workshop, dev: str) -> str:
    """The tag of the dev image that compiles for GPUs, made when a variant first wants it."""
    doing = "adding CUDA's compiler to the dev image (once; 101 MB are fetched)"
    return ensure(workshop, gpu_recipe(workshop, dev), doing)


def docs_recipe(workshop: Workshop, dev: str) -> Recipe:
    """The dev image with what makes the documentation."""
    lock = {"requirements-docs.txt": workshop.root / "requirements-docs.txt"}
    return on_top(workshop, dev, "docs", ["apt-install", "pip-install"], more=lock)


def ensure_docs(workshop: Workshop, dev: str) -> str:
    """The tag of the image that documentation is made in, made when it is first wanted."""
    doing = "adding Doxygen and Sphinx to the dev image (once; about 1 minute)"
    return ensure(workshop, docs_recipe(workshop, dev), doing)


def ensure_coverage(workshop: Workshop, image: str) -> str:
    """The tag of an image that trees are built in, with what shows which lines the tests reach."""
    doing = "adding gcovr and coverage.py to the dev image (once)"
    return ensure(workshop, on_top(workshop, image, "coverage"), doing)


def locked(lock: str, name: str) -> str:
    """The lines of one package in a lock with hashes."""
    found = re.search(rf"^{re.escape(name)}==.*(?:\n +--hash=.*)*", lock, re.MULTILINE)
    if not found:
        raise SlipwayError(
            f"requirements.txt locks no {name}",
            fix=["the head of requirements.in says how to lock again"],
            code=BAD_DATA,
        )
    return f"{found[0]}\n"


def lint_recipe(workshop: Workshop, image: str) -> Recipe:
    """An image that a variant is built in, with what `invoke lint` runs; ruff is the tasks' own."""
    lock = (workshop.root / "requirements.txt").read_text(encoding="utf-8")
    more = {"requirements-lint.txt": locked(lock, "ruff")}
    return on_top(workshop, image, "lint", ["apt-install", "pip-install"], more=more)


def ensure_lint(workshop: Workshop, image: str) -> str:
    """The tag of that image, made when it is first wanted."""
    doing = "adding clang-format, clang-tidy and ruff to the dev image (once; about 1 minute)"
    return ensure(workshop, lint_recipe(workshop, image), doing)


def on_base(workshop: Workshop, target: str) -> Recipe:
    """A stage of Dockerfile.dev that starts from the base itself, without the tools."""
    return Recipe(
        kind="dev",
        dockerfile=workshop.root / "Dockerfile.dev",
        target=target,
        base=base.ensure_base(workshop),
        files={"tools/apt-install": workshop.scripts / "apt-install"},
        repository=f"slipway-{target}",
    )


def ensure_bare(workshop: Workshop) -> str:
    """The tag of what a user of wheels has, and no more: the base, Python and pip."""
    doing = f"making a bare {workshop.settings.base} with Python and pip (once)"
    return ensure(workshop, on_base(workshop, "bare"), doing)


def ensure_archive(workshop: Workshop) -> str:
    """The tag of the base with apt-ftparchive, which makes the index of an apt repository."""
    return ensure(
        workshop, on_base(workshop, "archive"), "making an image with apt-ftparchive (once)"
    )


def ensure_project(
    workshop: Workshop, dev: str, name: str, apt: Sequence[str], pip: Sequence[str]
) -> str:
    """The tag of the image that a project is built in: the dev image, where it needs no more."""
    if not (apt or pip):
        return dev
    recipe = on_top(
        workshop,
        dev,
        "project",
        ["apt-install", "pip-install"],
        more={"project.txt": "".join(f"{requirement}\n" for requirement in pip)},
        arguments={"APT": " ".join(apt)},
        repository=f"slipway-dev-{name}",
    )
    needs = ", ".join([*apt, *pip])
    doing = f"adding what {name} is built with to the dev image: {needs}"
    return ensure(
        workshop, recipe, doing, fix=f"check build.apt and build.pip in project.yaml: {needs}"
    )


def ssh_recipe(workshop: Workshop, image: str) -> Recipe:
    """An image that a variant is built in, with sshd."""
    profile = {"profile.sh": workshop.scripts / "ssh-profile"}
    return on_top(workshop, image, "ssh", more=profile)


def ensure_ssh(workshop: Workshop, image: str) -> str:
    """The tag of the image that takes logins, made when first wanted."""
    return ensure(workshop, ssh_recipe(workshop, image), "adding sshd to the dev image (once)")


def look_for_dev(workshop: Workshop) -> str:
    """The development image's tag if it is here and up to date, by one look-up; else empty."""
    seen = remembered_base(workshop)
    if not seen:
        return ""
    wanted = dev_recipe(workshop, seen).tag
    images = inspect_images(seen.reference, wanted)
    if wanted not in images or seen.reference not in images:
        return ""
    return wanted if base.described(seen.reference, images[seen.reference]) == seen else ""


def ensure_dev(workshop: Workshop, known: str = "") -> str:
    """The development image's tag, made if needed.

    :param known: what ``look_for_dev`` has found.
    """
    known = known or look_for_dev(workshop)
    if known:
        return known
    value = base.ensure_base(workshop)
    remember_base(workshop, value)
    return ensure_dev_on(workshop, value)


def ensure_dev_on(workshop: Workshop, value: Base) -> str:
    """The same, on a base that is known."""
    recipe = dev_recipe(workshop, value)
    if recipe.tag in inspect_images(recipe.tag):
        return recipe.tag
    if pull_by_hash(workshop, recipe):
        return recipe.tag
    console.say("making the dev image (once; about 2 minutes, most of it fetching and unpacking)")
    build_image(workshop, recipe)
    if not workshop.dry:
        check_budget(workshop, recipe.tag, workshop.settings.budgets.dev_mb, "budgets.dev_mb")
    return recipe.tag


def pull_by_hash(workshop: Workshop, recipe: Recipe) -> bool:
    """Whether an image was pulled, from the registry of the settings or one of its mirrors.

    Whoever has it is asked for its manifest first, so that one that lacks it costs milliseconds.
    """
    if not base.registries(workshop):
        return False
    from slipway import registry  # 60 ms that only this pays

    with registry.clients(workshop, registry.targets(workshop)) as clients:
        for client in clients:
            source = client.target.name(recipe.tag)
            try:
                why = "" if client.digest(recipe.tag) else "it is not there"
            except processes.Interrupted:
                raise
            except SlipwayError as error:
                why = error.what
            why = why or base.pull(source, workshop.settings.pull_wait_s, dry=workshop.dry)
            why = why or ("" if workshop.dry else adopt(workshop, recipe, source))
            if not why:
                return True
            console.say(f"no {source}: {why}")
    return False


def adopt(workshop: Workshop, recipe: Recipe, source: str) -> str:
    """Make a pulled image the one of ``recipe``; the reason when it is another, which then goes.

    It gets this checkout's label, so that ``clean`` finds it; its layers stay the same ones.

    :param source: what it was pulled as, a name that is gone afterwards.
    """
    labels = (inspect_images(source)[source]["Config"] or {}).get("Labels") or {}
    wanted = {KIND: recipe.kind, KEY: recipe.key}
    found = {key: labels.get(key, "none") for key in wanted}
    if found != wanted:
        remove(source)
        said = ", ".join(f"{key}={value}" for key, value in found.items())
        return f"refused: its labels say {said}, so it is not what its name says"
    import tempfile

    command, variables = build_client()
    with tempfile.TemporaryFile() as dockerfile:
        dockerfile.write(f"FROM {source}\n".encode())
        dockerfile.seek(0)
        label = f"{LABEL}={workshop.checkout}"
        argv = [*command, "--quiet", "--label", label, "--tag", recipe.tag, "-"]
        console.show_command(argv, variables)
        status = processes.call(argv, env=variables, stdin=dockerfile)
    remove(source)
    return f"it could not be named {recipe.tag}: status {status}" if status else ""


def dev(workshop: Workshop, *, also: str = "") -> None:
    """Make the dev image, and say what it is called and how large it is.

    :param also: another name for it, which moves along when it is made again.
    """
    tag = ensure_dev(workshop)
    if also:
        argv = [client(), "tag", tag, also]
        console.show_command(argv)
        if not workshop.dry:
            ask(argv[1:], f"call the dev image {also}")
    if not workshop.dry:
        size = int(inspect_images(tag)[tag]["Size"])
        console.say(f"dev image {tag}, {console.megabytes(size)}")
