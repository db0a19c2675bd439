"""Tests on an emulated CPU, in the production image: that a variant runs where its label says.

``scripts/emulate`` hands each program to qemu-user, which emulates up to exec and no further. What
is run, and what cannot be, is decided here.
"""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from slipway import builds, console, engine, packages, processes, production, receipts, testing
from slipway.builds import Site
from slipway.engine import Job, Mount, mount_argument
from slipway.errors import BAD_DATA, NO_INPUT, UNAVAILABLE, USAGE, SlipwayError
from slipway.images import file_hash, fingerprint
from slipway.production import Image
from slipway.project import Tree
from slipway.records import Record
from slipway.testing import Tested
from slipway.variants import LEVEL_FLAGS, Variant

INSIDE = "/run/slipway"  # where the kit stands in a production image
KIT = ("emulation-kit", "canary.c", "watch.c")
SCRIPTS = ("emulate", *KIT)  # what decides, with the image, how tests are emulated

# Properties of CTest's tests. What is in neither list could change a verdict, and is not run.
HONOURED = (
    *("WORKING_DIRECTORY", "ENVIRONMENT", "TIMEOUT", "WILL_FAIL", "DISABLED"),
    *("PASS_REGULAR_EXPRESSION", "FAIL_REGULAR_EXPRESSION", "SKIP_REGULAR_EXPRESSION"),
    *("SKIP_RETURN_CODE", "RUN_SERIAL", "RESOURCE_LOCK"),
)
NO_MATTER = (
    *("LABELS", "COST", "PROCESSORS", "MEASUREMENT", "ATTACHED_FILES", "ATTACHED_FILES_ON_FAIL"),
    *("PROCESSOR_AFFINITY", "TIMEOUT_SIGNAL_NAME", "TIMEOUT_SIGNAL_GRACE_PERIOD"),
    "DEF_SOURCE_LINE",
)


class Kit(Record, frozen=True):
    """What emulating needs, taken out of the dev image."""

    directory: Path

    @property
    def mounts(self) -> list[Mount]:
        """qemu, the canary and the watch, where ``scripts/emulate`` finds them."""
        return [
            Mount(self.directory / name, target=f"{INSIDE}/{name}", readonly=True)
            for name in ("qemu-x86_64", "canary", "watch")
        ]


def known_cpus(text: str) -> list[str]:
    """The CPUs that ``qemu-x86_64 -cpu help`` lists."""
    names = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if not words:
            break  # the flags follow
        names.append(words[1] if words[0] == "x86" and len(words) > 1 else words[0])
    return names


def check_name(cpu: str, known: Sequence[str]) -> None:
    """Refuse a CPU that qemu does not know; what follows a comma is qemu's own to check."""
    name = cpu.partition(",")[0]
    if name in known:
        return
    lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), lower, n=4, cutoff=0.5)
    near = [lower[k] for k in close]
    raise SlipwayError(
        f"no CPU '{cpu}' that qemu knows",
        cause=f"did you mean {' or '.join(near)}?" if near else f"it knows {len(known)} others",
        fix=[
            f"invoke test --cpu {near[0] if near else 'Nehalem'}",
            "invoke shell -- qemu-x86_64 -cpu help, for all of them",
        ],
        code=USAGE,
    )


def check_level(cpu: str, level: str, variant: str, rows: Mapping[str, Variant]) -> None:
    """Refuse a CPU that lacks what the variant was compiled for, and name a variant that it runs.

    :param level: psABI level that CPUID tells on the emulated CPU.
    """
    order = list(LEVEL_FLAGS)
    row = rows[variant]
    if order.index(level) >= order.index(row.isa):
        return
    able = [n for n, r in rows.items() if order.index(r.isa) <= order.index(level)]
    alike = [n for n in able if bool(rows[n].cuda) == bool(row.cuda)] or able
    best = max(alike, key=lambda n: order.index(rows[n].isa), default="")
    raise SlipwayError(
        f"{cpu} is {level} as qemu emulates it, and the variant {variant} is for {row.isa}",
        cause="it would die of its first instruction that this CPU lacks",
        fix=[
            f"invoke test --variant {best} --cpu {cpu}"
            if best
            else f"invoke test --variant {variant} --cpu "
            + ("Nehalem" if row.isa == "x86-64-v2" else "Haswell")
        ],
        code=USAGE,
    )


def planned(listing: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The tests of ``ctest --show-only=json-v1`` for ``scripts/emulate``; then those not run."""
    tests, not_run = [], []
    for test in listing["tests"]:
        values = {p["name"]: p["value"] for p in test.get("properties", [])}
        strange = sorted(set(values) - {*HONOURED, *NO_MATTER})
        strange = [name for name in strange if not name.startswith("_")]
        why = ""
        if values.get("DISABLED"):
            why = "DISABLED is set"
        elif not test.get("command"):
            why = "it has not been built"
        elif strange:
            why = f"emulation does not honour {', '.join(strange)}"
        if why:
            not_run.append({"name": test["name"], "why": why})
            continue
        tests.append(
            {
                "name": test["name"],
                "command": test["command"],
                "directory": values.get("WORKING_DIRECTORY", "/tmp"),
                "environment": _variables(_list(values.get("ENVIRONMENT"))),
                "timeout": float(values.get("TIMEOUT", 0)),
                "will_fail": bool(values.get("WILL_FAIL", False)),
                "skip_code": values.get("SKIP_RETURN_CODE"),
                "pass": _list(values.get("PASS_REGULAR_EXPRESSION")),
                "fail": _list(values.get("FAIL_REGULAR_EXPRESSION")),
                "skip": _list(values.get("SKIP_REGULAR_EXPRESSION")),
                "alone": bool(values.get("RUN_SERIAL") or values.get("RESOURCE_LOCK")),
            }
        )
    return tests, not_run


def _list(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]


def _variables(lines: Iterable[str]) -> dict[str, str]:
    parts = (line.partition("=") for line in lines)
    return {name: value for name, _, value in parts}


class Kinds(Record, frozen=True):
    """Which kinds of tests are run: a filter for one of them runs that one alone."""

    ctest: bool
    pytest: bool
    scripts: bool
    commands: tuple[str, ...]
    """Shell lines of the project's, which cannot be emulated."""


def kinds(tree: Tree, ctest_filter: str, pytest_arguments: Sequence[str]) -> Kinds:
    """What there is to run of a project, and is asked for."""
    wanted = tree.project.test
    everything = not ctest_filter and not pytest_arguments
    found = Kinds(
        ctest=testing.has_ctest(tree) and bool(everything or ctest_filter),
        pytest=bool(wanted.installed or wanted.pytest) and bool(everything or pytest_arguments),
        scripts=bool(wanted.scripts) and everything,
        commands=wanted.commands if everything else (),
    )
    if not (found.ctest or found.pytest or found.scripts):
        raise SlipwayError(
            f"{tree.file} names no tests that could be emulated",
            cause="CTest, test.pytest, test.installed and test.scripts are what they could be",
            fix=["name them under test in project.yaml"],
            code=BAD_DATA,
        )
    return found


def ensure_kit(s: Site) -> Kit:
    """qemu, canary and the list of CPUs, out of the dev image; kept by what they are made from."""
    scripts = s.workshop.scripts
    rules = [file_hash(scripts / name) for name in KIT]
    home = s.workshop.out / ".run" / "emulation"
    kit = Kit(home / fingerprint(s.image, rules)[:12])
    if kit.directory.is_dir():
        return kit
    if not s.workshop.dry:
        home.mkdir(parents=True, exist_ok=True)
    job = replace(
        s.job("emulation-kit", [s.place.inside(kit.directory)], {}),
        mounts=[Mount(scripts, readonly=True), Mount(home)],
        workdir="/tmp",
    )
    status = s.place.run(job, s.image)
    if status:
        raise SlipwayError(
            f"what emulating needs was not made: status {status}",
            cause=builds.disk_full(s.out) or "the words of the dev image's tools are above",
            fix=["./go invoke doctor"],
            code=UNAVAILABLE,
        )
    return kit


def ask_level(s: Site, kit: Kit, cpu: str) -> str:
    """What CPUID says on the emulated CPU: ``x86-64-v2 no-avx``."""
    argv = [engine.client(), "run", "--rm", "--network", "none"]
    argv += ["--label", f"{engine.LABEL}={s.workshop.checkout}"]
    for mount in kit.mounts:
        argv += ["--mount", mount_argument(str(mount.source), mount.target, True)]
    argv += [s.image, f"{INSIDE}/qemu-x86_64", "-cpu", cpu, f"{INSIDE}/canary", "--level"]
    answer = processes.look(argv)
    if answer.returncode == engine.DOCKER_FAILED:
        raise engine.failure(answer.stderr, "ask the emulated CPU what it is")
    if answer.returncode:
        raise SlipwayError(
            f"qemu does not emulate '{cpu}'",
            cause=answer.stderr.strip() or f"status {answer.returncode}",
            fix=["invoke test --cpu Nehalem"],
            code=USAGE,
        )
    return answer.stdout.strip()


def without_doubles(mounts: Iterable[Mount]) -> list[Mount]:
    """Mounts of which no two have one place, which docker refuses: the first counts."""
    seen: dict[str, Mount] = {}
    for mount in mounts:
        seen.setdefault(mount.target or str(mount.instead_of or mount.source), mount)
    return list(seen.values())


def run(s: Site, image: Image, kit: Kit, plan: dict[str, Any], mounts: Sequence[Mount]) -> int:
    """Run a plan in the production image; the status of ``scripts/emulate``."""
    file = s.out / "emulation" / "plan.json"
    if not s.workshop.dry:
        receipts.write_whole(file, json.dumps(plan, indent=1) + "\n")
    inside = engine.Docker(s.workshop).inside
    script = f"{INSIDE}/plugin/slipway_emulate.py"
    source = Mount(s.copy, readonly=True, instead_of=s.tree.source) if s.copied else None
    job = Job(
        name=f"emulate-{s.tree.project.name}-{s.variant}",
        command=["/usr/bin/python3", script, inside(file)],
        mounts=without_doubles(
            [
                *([source] if source else []),
                *([] if s.tree.wheel else [Mount(s.tree.source, readonly=True)]),
                *(Mount(path, readonly=True) for path in s.links),
                *mounts,
                Mount(s.out, readonly=True),
                Mount(s.reports),
                Mount(s.workshop.scripts / "emulate", target=script, readonly=True),
                *kit.mounts,
            ]
        ),
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        workdir="/tmp",
        shm_size=s.workshop.settings.shm_size,
    )
    return engine.Docker(s.workshop).run(job, image.tag)


def test(s: Site, cpu: str, ctest_filter: str, pytest_arguments: Sequence[str]) -> Tested:
    """Build a site and its production image, and run the tests there on an emulated CPU."""
    wanted = kinds(s.tree, ctest_filter, pytest_arguments)
    installed = None
    if wanted.pytest or wanted.scripts:
        installed = testing.installed(s.tree)
    kit = ensure_kit(s)
    level = "x86-64-v2 no-avx"  # for --dry, which has asked nobody
    if not s.workshop.dry:
        check_name(cpu, known_cpus((kit.directory / "cpus").read_text()))
        level = ask_level(s, kit, cpu)
        check_level(cpu, level.split()[0], s.variant, s.tree.variants)
    builds.build(s)
    image = production.prod(s, packages.deb(s))
    start = time.monotonic()
    ctests, not_run = planned(testing.list_ctest(s, ctest_filter)) if wanted.ctest else ([], [])
    lines = [line.strip().partition("\n")[0] for line in wanted.commands]
    not_run += [{"name": line, "why": "a shell starts it natively"} for line in lines]
    inside = engine.Docker(s.workshop).inside
    private = [f"/usr/lib/{packages.package_name(s.tree, s.variant)}"] if s.tree.wheel else []
    scripts = installed.scripts if installed and wanted.scripts else ()
    options = installed and testing.pytest_options(s, installed, pytest_arguments)
    plan = {
        "cpu": cpu,
        "level": level,
        "qemu": f"{INSIDE}/qemu-x86_64",
        "canary": f"{INSIDE}/canary",
        "watch": f"{INSIDE}/watch",
        "reports": inside(s.reports),
        "ctest": ctests,
        "not_run": not_run,
        "pytest": options if wanted.pytest else [],
        "scripts": [[inside(path), *arguments] for path, arguments in scripts],
        "python_path": private,
        "pytest_path": [f"{INSIDE}/pytest", f"{INSIDE}/plugin"],
    }
    names = {"C++": "ctest", "pytest": "pytest", "scripts": "scripts"}
    files = {kind: s.reports / f"emulated-{name}.xml" for kind, name in names.items()}
    facts = s.reports / "emulated.json"
    if not s.workshop.dry:
        for file in (*files.values(), facts):
            file.unlink(missing_ok=True)
    mounts = [*(installed.mounts if installed else []), *testing.pytest_mounts()]
    status = run(s, image, kit, plan, mounts)
    if s.workshop.dry:
        return Tested(0, 0, (), "")
    what = f"{image.alias} on an emulated {cpu}"
    told = read_facts(facts, what, status)
    if told["wrong"]:
        raise SlipwayError(
            "the emulation is not what it says, and nothing was tested",
            cause=told["wrong"],
            fix=["./go invoke doctor", "invoke clean --everything, which makes the dev image anew"],
            code=BAD_DATA,
        )
    started = told["started"]
    if started:
        count = f"{len(started)} tests" if len(started) > 1 else "1 test"
        console.say(
            f"{count} started programs of their own, which ran on this machine's CPU: "
            f"{', '.join(started)}"
        )
    if told["unwatched"]:
        console.say("whether tests started programs of their own could not be seen: no ptrace here")
    result = testing.read_reports(files)
    if told["sigill"]:
        raise SlipwayError(
            f"tests of {what} died of an illegal instruction: {', '.join(told['sigill'])}",
            cause=f"Illegal instruction, SIGILL: something in them is compiled for more than {cpu}",
            fix=[f"invoke audit --variant {s.variant}, which names the function"],
            code=BAD_DATA,
        )
    testing.judge(s, what, result, status)
    console.say(
        f"{console.bold('tested')} image {image.alias} on an emulated {cpu} ({level.split()[0]}): "
        f"{result.executed} tests executed ({result.parts}), "
        f"{console.seconds(time.monotonic() - start)}, {s.shown(s.reports)}"
    )
    return result


def read_facts(file: Path, what: str, status: int) -> dict[str, Any]:
    """What ``scripts/emulate`` has left to be known."""
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        raise SlipwayError(
            f"the tests of {what} did not end well: status {status}",
            cause=builds.disk_full(file.parent) or "what runs them was killed; its words are above",
            fix=["the same command again"],
            code=status or NO_INPUT,
        ) from None
