"""Testing: where a tree was built, and in its production image as it ships."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from slipway import builds, console, engine, packages, production
from slipway.builds import Site, disk_full
from slipway.engine import Job, Mount
from slipway.errors import BAD_DATA, NO_INPUT, USAGE, SlipwayError, nearest
from slipway.production import Image
from slipway.project import Tree
from slipway.records import Record
from slipway.settings import Workshop

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

# The reason of a skipped test that lacks a GPU; that "this machine has a GPU" is another matter.
NO_GPU = re.compile(
    r"\b(no|without|needs?|requires?|lacks)( an?)?( usable| NVIDIA| CUDA| CUDA-capable)*"
    r" (GPUs?|CUDA devices?)\b"
    r"|\b(GPUs?|CUDA)( is| are)? (not |un)available\b",
    re.IGNORECASE,
)


SANITIZERS = ("address", "leak", "undefined")


class Asked(Record, frozen=True):
    """How the tests are run where a tree was built."""

    sanitize: tuple[str, ...] = ()
    repeat: int = 1
    """So many times, or until they fail."""
    failed: bool = False
    """Only those that failed last time."""
    coverage: bool = False
    """With a report of the lines that ran."""

    def on(self, s: Site) -> Site:
        """A site with what has to be compiled in."""
        s = replace(s, sanitize=self.sanitize) if self.sanitize else s
        if self.coverage:
            from slipway import coverage

            return coverage.prepared(s)
        return s


def asked(
    sanitize: str,
    repeat: int,
    *,
    failed: bool,
    coverage: bool = False,
    elsewhere: str = "",
    filtered: bool = False,
) -> Asked:
    """What ``--sanitize``, ``--repeat`` and ``--failed`` mean, or why they cannot be.

    :param elsewhere: the flag by which the tests run in the production image, if one does.
    :param filtered: whether the tests are chosen in another way, too.
    """
    names = tuple(dict.fromkeys(n.strip() for n in sanitize.split(",") if n.strip()))
    for name in names:
        if name not in SANITIZERS:
            raise SlipwayError(
                f"no sanitizer '{name}'",
                cause=nearest(name, SANITIZERS),
                fix=["invoke test --sanitize address,undefined"],
                code=USAGE,
            )
    if repeat < 1:
        raise SlipwayError(
            f"--repeat {repeat} would run no test", fix=["invoke test --repeat 10"], code=USAGE
        )
    flags = {"--sanitize": bool(names), "--repeat": repeat > 1, "--failed": failed}
    flags["--coverage"] = coverage
    wanted = [flag for flag, is_set in flags.items() if is_set]
    if elsewhere and wanted:
        raise SlipwayError(
            f"{wanted[0]} and {elsewhere} do not go together",
            cause=f"{wanted[0]} is for where the tree was built, {elsewhere} for the image",
            fix=[f"the same command without {elsewhere}"],
            code=USAGE,
        )
    if failed and filtered:
        raise SlipwayError(
            "--failed and another choice of tests do not go together",
            cause="it runs those that failed last time, and no others",
            fix=["invoke test --failed"],
            code=USAGE,
        )
    return Asked(sorted_as(SANITIZERS, names), repeat, failed, coverage)


def sorted_as(order: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """``names`` in a fixed order, so that one choice has one directory."""
    return tuple(name for name in order if name in names)


class Tested(Record, frozen=True):
    """What a test run executed, read from its JUnit XML."""

    executed: int
    failed: int
    not_run: tuple[str, ...]
    parts: str
    """``CTest 30, pytest 60``."""
    without_gpu: tuple[str, ...] = ()
    """Those of ``not_run`` that were skipped, by their own words, for want of a GPU."""

    @property
    def summary(self) -> str:
        """``90 tests executed (CTest 30, pytest 60)``, and what was not for want of a GPU."""
        gpu = f", {len(self.without_gpu)} GPU tests not run" if self.without_gpu else ""
        return f"{self.executed} tests executed ({self.parts}){gpu}"


def skip_reason(case: Element) -> str:
    """Why a test was skipped: pytest's message, or GoogleTest's words in what CTest kept of it."""
    skipped = case.find("skipped")
    message = (skipped.get("message") or "") if skipped is not None else ""
    said = case.findtext("system-out") or ""
    if not message.startswith("SKIP_"):  # CTest's name for the rule by which it knew
        return message
    words = re.search(r"Skipped\n(.*?)\n\s*\[  SKIPPED ]", said, re.DOTALL)
    return words[1].strip() if words else said.strip()


def read_reports(files: dict[str, Path]) -> Tested:
    """Count what JUnit XML files say; a test that was skipped was not executed."""
    from xml.etree import ElementTree  # 8 ms that a build need not pay

    executed = failed = 0
    skipped, parts, without_gpu = [], [], []
    for name, file in files.items():
        if not file.is_file():
            continue
        try:
            root = ElementTree.parse(file).getroot()  # noqa: S314  # our own job wrote it
        except ElementTree.ParseError as error:
            raise SlipwayError(
                f"{file} was not written to its end: {error}",
                cause=disk_full(file.parent) or "what runs the tests was killed",
                fix=["run the tests again"],
                code=BAD_DATA,
            ) from error
        cases = list(root.iter("testcase"))
        ran = [c for c in cases if c.find("skipped") is None and c.get("status") != "disabled"]
        for case in (c for c in cases if c not in ran):
            skipped.append(f"{case.get('classname')}.{case.get('name')}")
            if NO_GPU.search(skip_reason(case)):
                without_gpu.append(skipped[-1])
        failed += sum(c.find("failure") is not None or c.find("error") is not None for c in ran)
        executed += len(ran)
        parts.append(f"{name} {len(ran)}")
    return Tested(executed, failed, tuple(skipped), ", ".join(parts), tuple(without_gpu))


def has_ctest(tree: Tree) -> bool:
    """Whether there are tests of CTest's where the tree is built."""
    wanted, is_cmake = tree.project.test, tree.project.build.system == "cmake"
    return bool(wanted.ctest if wanted.ctest is not None else is_cmake) and not tree.wheel


def failed_before(files: dict[str, Path]) -> dict[str, list[str]]:
    """The tests that failed last time, by the kind of the report that says so.

    Those of pytest as it takes them on its command line, relative to the source.
    """
    from xml.etree import ElementTree

    found: dict[str, list[str]] = {}
    for kind, file in files.items():
        try:
            cases = list(ElementTree.parse(file).getroot().iter("testcase"))  # noqa: S314  # ours
        except (OSError, ElementTree.ParseError):
            continue
        names = [
            node_id(case) if kind == "pytest" else str(case.get("name"))
            for case in cases
            if case.find("failure") is not None or case.find("error") is not None
        ]
        if names:
            found[kind] = [] if "" in names else names
    return found


def node_id(case: Element) -> str:
    """``tests/test_a.py::TestB::test_c[1]``; empty where the report does not say, as of a file that
    could not be imported.
    """
    file, name = case.get("file"), case.get("name")
    if not file or not name:
        return ""
    module = file.removesuffix(".py").replace("/", ".")
    classes = (case.get("classname") or "").removeprefix(module).strip(".")
    return "::".join([file, *(classes.split(".") if classes else []), name])


def has_tests(tree: Tree) -> bool:
    """Whether anything is tested where the tree is built, or is said to be."""
    wanted = tree.project.test
    return bool(has_ctest(tree) or wanted.pytest or wanted.commands)


def python_paths(s: Site) -> list[Path]:
    """Directories that Python imports what was built from, without installing it."""
    paths = [s.build / path for path in s.tree.project.test.pythonpath]
    return [*paths, s.build / "site"] if s.tree.project.build.system == "pep517" else paths


def list_ctest(s: Site, ctest_filter: str = "") -> dict[str, Any]:
    """What CTest would run of a built tree, as it says itself, where the tree was built."""
    file = s.reports / "ctest.json"
    if not s.workshop.dry:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
    command = ["ctest", "--test-dir", s.place.inside(s.build), "--show-only=json-v1"]
    command += ["--tests-regex", ctest_filter] if ctest_filter else []
    shell = ["bash", "-c", 'exec "${@:2}" >"$1"', "bash", s.place.inside(file)]
    status = s.place.run(replace(s.job("test", [], {}), command=[*shell, *command]), s.image)
    if s.workshop.dry:
        return {"tests": []}
    if status:
        raise SlipwayError(
            f"CTest cannot list the tests of {s.title}: status {status}",
            cause="its words are above",
            fix=[f"invoke test {s.flags}, which runs them where the tree was built"],
            code=status,
        )
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


REPORTS = {"CTest": "ctest", "commands": "commands", "pytest": "pytest"}


def test_built(
    s: Site,
    *,
    ctest_filter: str = "",
    pytest_arguments: Sequence[str] = (),
    failed: Mapping[str, Sequence[str]] | None = None,
) -> Tested:
    """Run the tree's tests, offline, and fail when one fails or none ran.

    A filter for one of the two kinds runs that kind alone.

    :param failed: what ``failed_before`` found, and all that is run; None: everything. Of a kind
        that names none, all are.
    """
    wanted = s.tree.project.test
    narrowed = bool(ctest_filter) != bool(pytest_arguments)
    command = [s.place.inside(s.build), s.place.inside(s.reports), s.top_inside]
    if not has_tests(s.tree):
        raise SlipwayError(
            f"{s.tree.file} names no tests that run where {s.tree.project.name} is built",
            cause="CTest, test.pytest and test.commands are what they could be",
            fix=["invoke test --image prod, for the tests of what is installed"]
            if wanted.installed
            else ["name them under test in project.yaml"],
            code=BAD_DATA,
        )
    kinds = set(REPORTS if failed is None else failed)
    if has_ctest(s.tree) and "CTest" in kinds and not (narrowed and pytest_arguments):
        rule = ctest_filter if failed is None else "--rerun-failed"
        command += ["--ctest", *([rule] if rule else [])]
    if not narrowed:
        lines = wanted.commands if failed is None else failed.get("commands", ())
        command += [word for line in lines for word in ("--command", line)]
    if wanted.pytest and "pytest" in kinds and not (narrowed and ctest_filter):
        command += ["--pytest", f"--rootdir={s.source_inside}"]
        paths = [s.place.inside(path) for path in python_paths(s)]
        if s.tree.project.build.system == "pep517":
            # Behind them, or the source itself, which is not compiled, would be imported.
            command += ["--import-mode=append"]
        if paths:
            command += ["--override-ini", f"pythonpath={shlex.join(paths)}"]
        named = any(
            not a.startswith("-") and (s.tree.source / a.partition("::")[0]).exists()
            for a in pytest_arguments
        )
        command += [_in_source(s, a) for a in pytest_arguments]
        chosen = (failed or {}).get("pytest") or wanted.pytest
        command += [] if named else [f"{s.source_inside}/{p}" for p in chosen]
    for report in REPORTS.values():
        if not s.workshop.dry:
            (s.reports / f"{report}.xml").unlink(missing_ok=True)
    start = time.monotonic()
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    if s.sanitize:
        env["SLIPWAY_SANITIZE"] = " ".join(s.sanitize)
    if s.coverage:
        from slipway import coverage  # which few need

        python = [s.place.inside(s.build / path) for path in wanted.pythonpath]
        env["SLIPWAY_COVERAGE"] = s.place.inside(coverage.watch(s, python or [s.top_inside]))
    job = s.given_gpu(s.job("test", command, env))
    status = s.place.run(job, s.image)
    if s.workshop.dry:
        return Tested(0, 0, (), "")
    result = read_reports(reports_of(s))
    judge(s, s.title, result, status, fix=cores_of(s) if status else ())
    console.say(
        f"{console.bold('tested')} {s.title}: {result.summary}, "
        f"{console.seconds(time.monotonic() - start)}, {s.shown(s.reports)}"
    )
    return result


def reports_of(s: Site) -> dict[str, Path]:
    """Where the reports of a site's tests are, by kind."""
    return {name: s.reports / f"{file}.xml" for name, file in REPORTS.items()}


def cores_of(s: Site) -> Sequence[str]:
    """Keep a core of each C++ test that died; the commands that open them."""
    from slipway import cores  # which needs this module, and only a failure needs

    return cores.keep_cores(s)


def judge(s: Site, what: str, result: Tested, status: int, *, fix: Sequence[str] = ()) -> None:
    """Fail when a test failed, none was executed, or ``--gpu on`` and a GPU test was not.

    Which test needs a GPU, only its own reason for being skipped says: see ``NO_GPU``.

    :param what: what was tested, for the message.
    :param status: that of the program that ran them.
    :param fix: what to type when one failed, before what always helps.
    """
    for name in result.not_run:
        console.say(f"not run: {name}")
    if result.without_gpu:
        console.say(gpu_tests_not_run(s, result))
    if not result.executed:
        raise SlipwayError(
            f"no test of {what} was executed",
            cause=disk_full(s.out) or "a filter that fits none, or a project without tests",
            fix=["invoke test --ctest-filter REGEX", "invoke test -- -k EXPRESSION"],
            code=BAD_DATA,
        )
    if status:
        raise SlipwayError(
            f"{result.failed} of {result.executed} tests of {what} failed"
            if result.failed
            else f"the tests of {what} did not end well: status {status}",
            cause=disk_full(s.out) or f"their words are above, and in {s.shown(s.reports)}",
            fix=[*fix, f"invoke shell --variant {s.variant}"],
            code=status,
        )
    if s.gpu.demanded and result.without_gpu:
        raise SlipwayError(
            f"--gpu on asked for a GPU, and {len(result.without_gpu)} GPU tests were not run",
            cause=f"{s.gpu.sentence}, and they were skipped for want of one; each is named above",
            fix=[f"invoke shell --variant {s.variant} --gpu on", f"look in {s.shown(s.reports)}"],
            code=BAD_DATA,
        )


def gpu_tests_not_run(s: Site, result: Tested) -> str:
    """One line: how many, and why; a test that was not run is never counted as passed."""
    number = f"{len(result.without_gpu)} GPU tests not run"
    if s.gpu.devices:
        return f"{number}: they found no GPU, though one was given ({s.gpu.sentence})"
    return f"{number}: no GPU here ({s.gpu.why or 'nobody asked for one'})"


def _in_source(s: Site, argument: str) -> str:
    """A test named relative to the source, by its absolute path; other arguments as they are."""
    file, colons, rest = argument.partition("::")
    if argument.startswith("-") or not (s.tree.source / file).exists():
        return argument
    return f"{s.source_inside}/{file}{colons}{rest}"


PYTEST = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")


def pytest_mounts() -> list[Mount]:
    """pytest as it stands beside the tasks: the image is tested as it ships, without one."""
    from importlib.metadata import PackageNotFoundError, distribution

    mounts = []
    try:
        for name in PYTEST:
            files = distribution(name).files or []
            tops = {file.parts[0] for file in files} - {"..", "__pycache__"}
            for top in sorted(tops):
                home = Path(str(distribution(name).locate_file(top)))
                mounts.append(Mount(home, target=f"/run/slipway/pytest/{top}", readonly=True))
    except PackageNotFoundError as error:
        raise SlipwayError(
            f"no {error.name} beside the tasks", fix=["./go invoke test --image prod"]
        ) from error
    return mounts


PYTEST_ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "/run/slipway/pytest"}


class Installed(Record, frozen=True):
    """What tests the production image: paths of this machine."""

    home: Path
    """Directory that the tests are in, and that pytest starts from."""
    tests: tuple[Path, ...]
    scripts: tuple[tuple[Path, tuple[str, ...]], ...]
    """Each with its arguments."""

    @property
    def mounts(self) -> list[Mount]:
        """The directories that they stand in."""
        homes = [*([self.home] if self.tests else []), *(path.parent for path, _ in self.scripts)]
        return [Mount(home, readonly=True) for home in dict.fromkeys(homes)]


def installed(tree: Tree) -> Installed:
    """The tests of what is installed, all of which are there."""
    wanted = tree.project.test
    beside = tree.file.parent
    home = beside if wanted.installed else tree.source
    tests = tuple(home / path for path in wanted.installed or wanted.pytest)
    lines = [shlex.split(line) for line in wanted.scripts]
    scripts = tuple(((beside / words[0]).resolve(), tuple(words[1:])) for words in lines)
    gone = [path for path in (*tests, *(path for path, _ in scripts)) if not path.exists()]
    if gone or not (tests or scripts):
        raise SlipwayError(
            f"no tests at {gone[0]}" if gone else f"{tree.file} names no tests for the image",
            fix=["name them under test.installed or test.scripts in project.yaml: paths beside it"],
            code=NO_INPUT,
        )
    return Installed(home, tests, scripts)


def pytest_options(s: Site, wanted: Installed, arguments: Sequence[str]) -> list[str]:
    """What pytest is told in a production image."""
    inside = engine.Docker(s.workshop).inside
    options = ["-p", "no:cacheprovider", f"--rootdir={inside(wanted.home)}"]
    return [*options, *arguments, *(inside(path) for path in wanted.tests)]


def run_scripts(s: Site, image: str, wanted: Installed, report: Path) -> int:
    """Run the project's scripts in a production image, write a report, return the first failure."""
    from xml.sax.saxutils import quoteattr  # 8 ms, as above

    docker = engine.Docker(s.workshop)
    cases, first = [], 0
    for path, arguments in wanted.scripts:
        job = Job(
            name=f"test-image-{s.tree.project.name}-{s.variant}",
            command=["python", docker.inside(path), *arguments],
            mounts=[Mount(path.parent, readonly=True)],
            env={"PYTHONDONTWRITEBYTECODE": "1"},
            workdir="/tmp",
            shm_size=s.workshop.settings.shm_size,
        )
        status = docker.run(s.given_gpu(job), image)
        first = first or status
        name = quoteattr(" ".join([path.name, *arguments]))
        failed = f'<failure message="status {status}"/>' if status else ""
        cases.append(f'<testcase classname="scripts" name={name}>{failed}</testcase>')
    if not s.workshop.dry:
        text = "\n".join(["<testsuite name='scripts'>", *cases, "</testsuite>", ""])
        report.write_text(text, encoding="utf-8")
    return first


def test_image(s: Site, image: Image, pytest_arguments: Sequence[str] = ()) -> Tested:
    """Run the tests of what is installed, in the production image as it ships, offline.

    Nothing but the tests and pytest is added: what they import is what users import. Arguments for
    pytest run pytest alone.
    """
    wanted = installed(s.tree)
    reports = {"pytest": s.reports / "image.xml", "scripts": s.reports / "image-scripts.xml"}
    if not s.workshop.dry:
        for report in reports.values():
            report.unlink(missing_ok=True)
    inside = engine.Docker(s.workshop).inside
    command = ["python", "-m", "pytest", f"--junit-xml={inside(reports['pytest'])}"]
    job = Job(
        name=f"test-image-{s.tree.project.name}-{s.variant}",
        command=[*command, *pytest_options(s, wanted, pytest_arguments)],
        mounts=[Mount(wanted.home, readonly=True), Mount(s.reports), *pytest_mounts()],
        env=PYTEST_ENVIRONMENT,
        workdir="/tmp",
        shm_size=s.workshop.settings.shm_size,
    )
    start = time.monotonic()
    status = 0
    if wanted.tests:
        status = engine.Docker(s.workshop).run(s.given_gpu(job), image.tag)
    if wanted.scripts and not pytest_arguments:
        status = run_scripts(s, image.tag, wanted, reports["scripts"]) or status
    if s.workshop.dry:
        return Tested(0, 0, (), "")
    result = read_reports(reports)
    judge(s, f"{image.alias}", result, status)
    console.say(
        f"{console.bold('tested')} image {image.alias}: {result.executed} tests executed in it "
        f"({result.parts}), {console.seconds(time.monotonic() - start)}, {s.shown(s.reports)}"
    )
    return result


def check_flags(
    workshop: Workshop,
    wanted: str,
    image: str,
    cpu: str,
    build_type: str = "",
    sanitize: str = "",
    repeat: int = 1,
    *,
    failed: bool = False,
    coverage: bool = False,
    chosen: Sequence[str] = (),
) -> Asked:
    """Refuse what cannot be tested, before anything is done; how it is where it was built.

    :param wanted: what ``--engine`` says.
    :param build_type: what ``--build-type`` says.
    :param chosen: a filter, or arguments for pytest.
    """
    if (image or cpu) and build_type == builds.DEBUG:
        raise SlipwayError(
            "the build type debug is never packaged, so no image has it",
            fix=["invoke test --build-type debug", "the same command without --build-type"],
            code=USAGE,
        )
    if image and image != "prod":
        raise SlipwayError(
            f"no image '{image}' to test in",
            cause=nearest(image, ["prod"]),
            fix=["invoke test --image prod"],
            code=USAGE,
        )
    if cpu and not isinstance(engine.place(workshop, wanted), engine.Docker):
        raise SlipwayError(
            "--cpu needs a container engine: the tests run in the production image",
            cause="jobs run in place here, without a container",
            fix=["the same command without --engine host, where docker is"],
            code=USAGE,
        )
    if coverage and not isinstance(engine.place(workshop, wanted), engine.Docker):
        raise SlipwayError(
            "--coverage needs a container engine: gcovr and coverage.py are in an image",
            cause="jobs run in place here, without a container",
            fix=["the same command without --engine host, where docker is"],
            code=USAGE,
        )
    return asked(
        sanitize,
        repeat,
        failed=failed,
        coverage=coverage,
        elsewhere="--cpu" if cpu else "--image" if image else "",
        filtered=bool(chosen),
    )


def test(
    s: Site,
    image: str,
    cpu: str,
    ctest_filter: str,
    pytest_arguments: Sequence[str],
    how: Asked = Asked(),  # noqa: B008  # frozen
) -> Tested:
    """Build a site and run its tests where it was built, or in its production image.

    :param image: what ``--image`` says; empty: where it was built.
    :param cpu: what ``--cpu`` says: a CPU that is emulated in the production image.
    :param how: what goes only with the tests where it was built.
    """
    if cpu:
        from slipway import emulation  # which needs this module

        return emulation.test(s, cpu, ctest_filter, pytest_arguments)
    builds.build(s)
    if image:
        return test_image(s, production.prod(s, packages.deb(s)), pytest_arguments)
    failed = failed_before(reports_of(s)) if how.failed else None
    if failed is not None and not failed and not s.workshop.dry:
        raise SlipwayError(
            f"no test of {s.title} failed last time",
            cause=f"so say the reports in {s.shown(s.reports)}",
            fix=[f"invoke test --variant {s.variant}, for all of them"],
            code=BAD_DATA,
        )
    for number in range(1, how.repeat + 1):
        if how.repeat > 1:
            console.say(console.bold(f"run {number} of {how.repeat}"))
        result = test_built(
            s, ctest_filter=ctest_filter, pytest_arguments=pytest_arguments, failed=failed
        )
    if how.coverage:
        from slipway import coverage

        coverage.report(s)
    return result
