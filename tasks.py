"""Slipway's tasks, one flat list: what a contributor, a writer or a release engineer types.

A task takes its flags and hands them on; what it does stands in ``slipway/``, one subject a module.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable

from invoke.collection import Collection
from invoke.exceptions import Exit
from invoke.tasks import Task
from invoke.tasks import task as invoke_task

# Invoke asks for no compiled modules, as if each start were the first: half of what ours take.
sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))

for _package in ("msgspec", "yaml", "packaging", "requests", "docker", "iced_x86"):
    if importlib.util.find_spec(_package) is None:
        raise Exit(
            f"this invoke lacks Slipway's packages ({_package} is missing): "
            "type './go invoke ...', which brings them",
            code=78,
        )

from slipway.settings import (  # noqa: E402
    CONTAINER,
    DEFAULTS,
    ROOT,
    Workshop,
    check_environment,
    check_file,
    files_on,
)
from slipway.verb import arguments_after_dashes, verb  # noqa: E402

check_environment(os.environ)
for _file in (ROOT / "invoke.yaml", *files_on(sys.argv)):
    check_file(_file)

PROJECT = {
    "project": "directory with a project.yaml, or such a file (default: the setting 'project')"
}
TREE = {
    **PROJECT,
    "source": "source tree (default: the directory of project.yaml, or what its source: names)",
}
PLACE = {"engine": "docker, podman, or host: this machine itself (default: the setting 'engine')"}
GPU = {"gpu": "auto, on or off: whether there is a GPU for it (default: the setting 'gpu')"}
VARIANT = {"variant": "one of the table's, several with commas, or 'all' (default: cpu)"}
TYPE = "release, or debug: not optimised, with this machine's paths, beside it and never packaged"
BUILD_TYPE = {"build-type": f"{TYPE} (default: release)"}
YES = {"yes": "go on without asking"}
STOP = {"stop": "end what an earlier call has started"}
ONE_VARIANT = {"variant": "one of the table's (default: cpu)"}
APP = {"dir": "folder of the application: train.py, and what its image needs beside it"}


def task(
    *helps: dict[str, str],
) -> Callable[[Callable[..., None]], Task[Callable[..., None]]]:
    """invoke's task with our grammar: flags have long names only."""

    def make(function: Callable[..., None]) -> Task[Callable[..., None]]:
        texts = {key: text for help_texts in helps for key, text in help_texts.items()}
        decorate = invoke_task(auto_shortflags=False, help=texts)
        made: Task[Callable[..., None]] = decorate(verb(function))
        return made

    return make


@task(PLACE, YES)
def setup(workshop: Workshop, engine: str = "", yes: bool = False) -> None:
    """Find or install what the tasks need."""
    from slipway import setup as subject

    subject.setup(workshop, wanted=engine, yes=yes)


@task()
def doctor(workshop: Workshop) -> None:
    """Look at this machine; name a fix for each problem."""
    from slipway import doctor as subject

    subject.doctor(workshop)


@task(
    {
        "source": "source tree (default: none; a wheel's or an sdist's file will do too)",
        "name": "of the Debian package and of the file (default: what the tree calls itself)",
        "adopt": "put a copy of Slipway into the tree, as the directory slipway/",
        "force": "replace a file that is there and says something else",
        "schema": "print the JSON Schema of project.yaml instead",
        "devcontainer": "write .devcontainer/ from the settings instead, for editors",
        "app": "make this folder instead: an application to begin with, which trains",
    }
)
def init(
    workshop: Workshop,
    source: str = "",
    name: str = "",
    adopt: bool = False,
    force: bool = False,
    schema: bool = False,
    devcontainer: bool = False,
    app: str = "",
) -> None:
    """Look at a source tree and write its project.yaml."""
    from slipway import devcontainer as editor
    from slipway import init as subject

    if devcontainer:
        editor.write(workshop, force=force)
    else:
        subject.init(workshop, source, name, adopt=adopt, force=force, schema=schema, app=app)


@task({"tag": "give it this name too, such as slipway-dev:mine"})
def dev(workshop: Workshop, tag: str = "") -> None:
    """Make the development image, unless it is up to date."""
    from slipway import images

    images.dev(workshop, also=tag)


@task(
    VARIANT,
    TREE,
    PLACE,
    BUILD_TYPE,
    {
        "jobs": "compile this many files at once (default: Ninja's choice)",
        "why": "say what caused it: image, configuration, compiler or source file",
        "ide": "write what an editor on this machine needs to out/ide/, and say what to set",
    },
)
def build(
    workshop: Workshop,
    variant: str = "",
    project: str = "",
    source: str = "",
    engine: str = "",
    build_type: str = "",
    jobs: int = 0,
    why: bool = False,
    ide: bool = False,
) -> None:
    """Compile what changed in a source tree, offline."""
    from slipway import builds, editors

    for site in builds.sites(workshop, variant, project, source, engine, build_type=build_type):
        with site.locked("build"):
            builds.build(site, jobs=jobs, why=why)
            if ide:
                editors.export(site)


@task(
    VARIANT,
    TREE,
    PLACE,
    GPU,
    BUILD_TYPE,
    {
        "ctest-filter": "run only the C++ tests whose names match this regular expression",
        "image": "prod: make the production image, and run the tests of what is installed in it",
        "cpu": "such as Nehalem: in the production image, all tests on that CPU, by emulation",
        "sanitize": "address, undefined or leak, with commas: compiled in, in a directory beside",
        "repeat": "run the tests so many times, or until one fails (default: 1)",
        "failed": "run only the tests that failed last time",
        "coverage": "count the lines that run, in a directory beside, and make an HTML report",
    },
)
def test(
    workshop: Workshop,
    variant: str = "",
    project: str = "",
    source: str = "",
    engine: str = "",
    ctest_filter: str = "",
    image: str = "",
    cpu: str = "",
    gpu: str = "",
    build_type: str = "",
    sanitize: str = "",
    repeat: int = 1,
    failed: bool = False,
    coverage: bool = False,
) -> None:
    """Build, then run the tests, offline; -- ARGS for pytest."""
    from slipway import builds, testing

    words = arguments_after_dashes()
    how = testing.check_flags(
        *(workshop, engine, image, cpu, build_type, sanitize, repeat),
        failed=failed,
        coverage=coverage,
        chosen=ctest_filter or words,
    )
    for site in map(
        how.on, builds.sites(workshop, variant, project, source, engine, gpu, build_type)
    ):
        with site.locked("test"):
            testing.test(site, image, cpu, ctest_filter, words, how)


@task(
    {"target": "program, name of a C++ test, or Python script x.py"},
    ONE_VARIANT,
    TREE,
    PLACE,
    GPU,
    {
        "build-type": f"{TYPE} (default: debug)",
        "core": "open this core file instead, with the program that it is of",
        "server": "gdbserver instead of gdb, at 127.0.0.1, for a debugger on this machine",
        "port": "of gdbserver (default: a free one)",
    },
)
def debug(
    workshop: Workshop,
    target: str = "",
    variant: str = "",
    project: str = "",
    source: str = "",
    engine: str = "",
    gpu: str = "",
    build_type: str = "",
    core: str = "",
    server: bool = False,
    port: int = 0,
) -> None:
    """Build for debugging, then run gdb: debug --target x -- ARGS."""
    from slipway import debugging
    from slipway.debugging import Wish

    where = (variant, project, source, engine, gpu, build_type)
    wish = Wish(target, core, server, port, tuple(arguments_after_dashes()))
    debugging.debug(workshop, wish, *where)


@task(
    ONE_VARIANT,
    TREE,
    PLACE,
    {
        "fix": "write what the tools can mend; the one task that changes your source",
        "all": "clang-tidy looks at every file, not only at what differs from the default branch",
    },
)
def lint(
    workshop: Workshop,
    variant: str = "",
    project: str = "",
    source: str = "",
    engine: str = "",
    fix: bool = False,
    all_: bool = False,
) -> None:
    """Check the source with clang-format, clang-tidy and ruff."""
    from slipway import linting

    linting.lint(workshop, variant, project, source, engine, fix=fix, everything=all_)


@task(VARIANT, TREE, PLACE)
def deb(
    workshop: Workshop, variant: str = "", project: str = "", source: str = "", engine: str = ""
) -> None:
    """Build, then make a Debian package in dist/."""
    from slipway import builds, packages

    for site in builds.sites(workshop, variant, project, source, engine):
        with site.locked("deb"):
            builds.build(site)
            packages.deb(site)


@task(
    VARIANT,
    TREE,
    {"base": "Debian suite or image to build on, several with commas, or 'all' (default: ours)"},
)
def wheel(
    workshop: Workshop, variant: str = "", project: str = "", source: str = "", base: str = ""
) -> None:
    """Build, then make a wheel in dist/, tested in a bare image."""
    from slipway import builds, wheels

    for reference in wheels.bases(workshop, base):
        shop = wheels.with_base(workshop, reference)
        for site in builds.sites(shop, variant, project, source, CONTAINER):
            with site.locked("wheel"):
                wheels.made(site)


@task(
    PROJECT,
    {"chapter": "execute only these, by number or name, with commas, and make no image"},
)
def book(workshop: Workshop, chapter: str = "", project: str = "") -> None:
    """Execute the book's chapters, then make pages and image."""
    from slipway import book as subject

    subject.book(workshop, chapter, project)


@task(TREE, {"open": "open it in a browser"})
def docs(workshop: Workshop, project: str = "", source: str = "", open_: bool = False) -> None:
    """Make the documentation; a broken reference is an error."""
    from slipway import documentation

    documentation.docs(workshop, project, source, open_it=open_)


@task(
    VARIANT,
    TREE,
    APP,
    {"show-dockerfile": "print its Dockerfile, or the one that is derived, and nothing else"},
)
def app(
    workshop: Workshop,
    dir_: str = "",
    variant: str = "",
    project: str = "",
    source: str = "",
    show_dockerfile: bool = False,
) -> None:
    """Make an image of an application's folder."""
    from slipway import applications

    applications.app(workshop, dir_, variant, project, source, show=show_dockerfile)


@task(
    ONE_VARIANT,
    TREE,
    APP,
    {
        "nodes": "so many of them (default: 2)",
        "procs": "processes of each node (default: 1)",
        "restarts": "start all nodes again so often when one fails (default: 0)",
        "memory": "that a node may take, such as 2GB (default: an equal share of what is free)",
    },
)
def train(
    workshop: Workshop,
    dir_: str = "",
    nodes: int = 2,
    procs: int = 1,
    restarts: int = 0,
    memory: str = "",
    variant: str = "",
    project: str = "",
    source: str = "",
) -> None:
    """Run an application on N nodes, here: train -- ARGS."""
    from slipway import training
    from slipway.training import Wanted

    arguments = tuple(arguments_after_dashes())
    where = (variant, project, source)
    wanted = Wanted(dir_, nodes, procs, restarts, memory, *where, arguments)
    training.train(workshop, wanted)


@task(
    ONE_VARIANT,
    TREE,
    APP,
    {
        "nodes": "so many of them (default: 2)",
        "procs": "processes of each node (default: 1, or as many as GPUs)",
        "gpus": "GPUs of each node (default: none)",
        "dry-run": "print its YAML and nothing else; no image is made for it",
        "apply": "hand it to the cluster that KUBECONFIG names, follow it, and end as it does",
    },
)
def deploy(
    workshop: Workshop,
    dir_: str = "",
    nodes: int = 2,
    procs: int = 0,
    gpus: int = 0,
    variant: str = "",
    project: str = "",
    source: str = "",
    dry_run: bool = False,
    apply: bool = False,
) -> None:
    """Write an application's job for Kubernetes: -- ARGS for it."""
    from slipway import cluster

    where, counts = (variant, project, source), (nodes, procs, gpus)
    words = arguments_after_dashes()
    cluster.deploy(workshop, dir_, counts, where, words, dry_run=dry_run, apply=apply)


@task(VARIANT, TREE)
def prod(workshop: Workshop, variant: str = "", project: str = "", source: str = "") -> None:
    """Make a production image with the Debian package in it."""
    from slipway import builds, packages, production

    for site in builds.sites(workshop, variant, project, source, CONTAINER):
        with site.locked("prod"):
            builds.build(site)
            production.prod(site, packages.deb(site))


@task(
    VARIANT,
    TREE,
    {
        "path": "audit this file or directory instead: ELF, .a, .deb, .whl",
        "image": "audit the image of this tag instead",
    },
)
def audit(
    workshop: Workshop,
    variant: str = "",
    project: str = "",
    source: str = "",
    path: str = "",
    image: str = "",
) -> None:
    """Show which instructions need which CPU, by function."""
    from slipway import audit as subject

    subject.audit(workshop, variant, project, source, path, image)


@task(
    {"script": "Python script in or below the current directory"},
    {"variant": "one of those made (default: the best for this machine's CPU and GPU)"},
    TREE,
    GPU,
)
def run(
    workshop: Workshop,
    script: str,
    variant: str = "",
    project: str = "",
    source: str = "",
    gpu: str = "",
) -> None:
    """Run a script in a production image: run x.py -- --flag."""
    from slipway import production

    arguments = arguments_after_dashes()
    production.run_script(workshop, script, variant, project, source, gpu, arguments)


@task(ONE_VARIANT, TREE, GPU, {"network": "give the container a network"})
def shell(
    workshop: Workshop,
    variant: str = "",
    project: str = "",
    source: str = "",
    network: bool = False,
    gpu: str = "",
) -> None:
    """Open a shell in the development image, as yourself."""
    from slipway import builds

    builds.shell(workshop, variant, project, source, network, gpu, arguments_after_dashes())


@task(
    ONE_VARIANT,
    TREE,
    GPU,
    STOP,
    {
        "edit": "let the source tree be written to there; else it is read-only, as in a shell",
        "write-config": "put the Host entry into ~/.ssh too, and keep it up to date",
    },
)
def ssh(
    workshop: Workshop,
    variant: str = "",
    project: str = "",
    source: str = "",
    gpu: str = "",
    edit: bool = False,
    write_config: bool = False,
    stop: bool = False,
) -> None:
    """Keep a development container to log in to by ssh."""
    from slipway import logins

    wanted = logins.Wanted(variant, project, source, gpu, edit, write_config)
    logins.ssh(workshop, wanted, stop_it=stop)


@task(
    PROJECT,
    STOP,
    {
        "work": "folder for your notebooks (default: out/read/, by project)",
        "no-open": "print the URL, and open no browser",
        "lan": "let other machines of the network in, by a URL with the same token",
    },
)
def read(
    workshop: Workshop,
    project: str = "",
    work: str = "",
    no_open: bool = False,
    lan: bool = False,
    stop: bool = False,
) -> None:
    """Serve the book, and open it in a browser."""
    from slipway import reading

    reading.read(workshop, project, work, no_open=no_open, lan=lan, stop_it=stop)


@task(
    TREE,
    APP,
    {
        "tag": "git tag of a release in dist/ (default: what was made of the current version)",
        "dev": "the development image, by the hash of what it is made of, instead",
        "username": "of the registry (default: as `login` has kept it)",
        "password-stdin": "read the password from standard input",
    },
    YES,
)
def push(
    workshop: Workshop,
    tag: str = "",
    dir_: str = "",
    project: str = "",
    source: str = "",
    dev: bool = False,
    username: str = "",
    password_stdin: bool = False,
    yes: bool = False,
) -> None:
    """Send images to the registry and its mirrors, and compare."""
    from slipway import push as subject

    subject.push(
        *(workshop, project, source, tag),
        folder=dir_,
        dev=dev,
        user=username,
        password_stdin=password_stdin,
        yes=yes,
    )


@task()
def ps(workshop: Workshop) -> None:
    """Show what is ours: containers, images, disk."""
    from slipway import housekeeping

    housekeeping.ps(workshop)


@task()
def stop(workshop: Workshop) -> None:
    """Stop and remove this checkout's containers."""
    from slipway import housekeeping

    housekeeping.stop(workshop)


@task(
    PROJECT,
    {
        "images": "remove this checkout's production images too",
        "everything": "remove out/, dist/ and every image of this checkout",
        "caches": "remove compiler cache and downloads, which all your checkouts share",
        "keep": "remove what was used longest ago, down to a size such as 20GB",
    },
)
def clean(
    workshop: Workshop,
    project: str = "",
    images: bool = False,
    everything: bool = False,
    caches: bool = False,
    keep: str = "",
) -> None:
    """Remove build directories, and with flags more that is ours."""
    from slipway import housekeeping

    housekeeping.clean(
        workshop, project, images=images, everything=everything, caches=caches, keep=keep
    )


@task(
    {
        "tag": "annotated tag of git's to make the release of, such as v1.2.3",
        "rehearse": "everything from the current commit, marked as a rehearsal, and not published",
        "sign": "sign the checksums: path of an ssh key, or id of a gpg key",
        "bundle": "also one archive of it, for a site without a network",
        "apt-repo": "also an apt repository of all releases, signed by the gpg key of --sign",
        "verify": "make the packages and wheels of this release's directory again, and compare",
    },
    YES,
    TREE,
)
def release(
    workshop: Workshop,
    tag: str = "",
    rehearse: bool = False,
    sign: str = "",
    bundle: bool = False,
    apt_repo: bool = False,
    verify: str = "",
    yes: bool = False,
    project: str = "",
    source: str = "",
) -> None:
    """Make a release of a tag: every variant, or none."""
    from slipway import plan, verification
    from slipway import release as subject

    if verify:
        verification.verify(workshop, verify, project, source)
    else:
        where = (project, source)
        subject.release(workshop, plan.Wanted(tag, rehearse, yes, sign, *where, bundle, apt_repo))


@task(
    {"rows": "only these rows of the table, with commas", "runs": "runs of each side (default: 10)"}
)
def bench(workshop: Workshop, rows: str = "", runs: int = 10) -> None:
    """Measure Slipway beside what people would use instead."""
    from benchmarks import bench as subject

    subject.bench(workshop, rows, runs)


@task(VARIANT, TREE, PLACE, YES)
def all_(
    workshop: Workshop,
    variant: str = "",
    project: str = "",
    source: str = "",
    engine: str = "",
    yes: bool = False,
) -> None:
    """Do the whole main job: set up, build, test, pack, run."""
    from slipway import everything

    everything.everything(workshop, variant, project, source, engine, yes=yes)


namespace = Collection(
    *(setup, doctor, init, dev, build, test, debug, lint, deb, wheel, prod, audit, run),
    *(app, train, deploy),
    *(book, docs, read, release, push, shell, ssh, ps, stop, clean),
)
if (ROOT / "benchmarks").is_dir():  # not where a library has adopted Slipway
    namespace.add_task(bench)
namespace.add_task(all_, name="all")
namespace.configure(DEFAULTS)
