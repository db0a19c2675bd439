"""``invoke lint``: clang-format, clang-tidy and ruff on a source tree, as the tree's own files say.

What a tree has no settings for is left out: to format somebody's code by our taste would be wrong.
The tools never write. They say what they would, and ``--fix`` writes it, in place, from here: the
tree is read-only for them in any case, and a file keeps its owner and its mode. ``scripts/lint``
runs them, side by side.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from slipway import builds, console, engine, images, outputs, receipts, versions
from slipway.builds import Site
from slipway.editors import DATABASE
from slipway.engine import Mount
from slipway.errors import BAD_DATA, CANNOT_CREATE, UNAVAILABLE, USAGE, SlipwayError
from slipway.findings import (
    FORMAT,
    RUFF,
    TIDY,
    TOOLS,
    Edit,
    Finding,
    Said,
    Step,
    Tool,
    deps_of,
    edited,
    failure,
    for_clang,
    formatting,
    misformatted,
    raw,
    remedies_of,
    ruff_checks,
    ruff_findings,
    ruff_fix,
    tidy_findings,
    tidying,
    units_of,
    unraw,
)
from slipway.project import Tree
from slipway.records import Record
from slipway.settings import Workshop

FOUND = 1  # exit status: there are findings
# Whose branch point says what has changed; the first that is there. A branch's own upstream comes
# late: once it is pushed, that is no earlier than the branch itself.
BASES = ("origin/HEAD", "origin/main", "origin/master", "@{upstream}", "main", "master")
APT = ("clang-format", "clang-tidy", "libomp-dev")


class Scope(Record, frozen=True):
    """What is looked at, by the name of the tool."""

    files: Mapping[str, Sequence[Path]]
    """Of each tool that takes part."""
    since: str
    """What clang-tidy's files differ from: a branch; empty: they are all."""
    settings: Sequence[Path]
    """Files above the source that say how."""
    left_out: Sequence[str]
    """Tools that take no part, and why."""


class Checked(Record, frozen=True):
    """What the tools have found, and clang-tidy's remedies, each of which is made whole or not."""

    findings: Sequence[Finding]
    remedies: Sequence[Sequence[Edit]] = ()
    units: int = 0
    """Files that clang-tidy has looked at."""

    @property
    def mendable(self) -> set[Path]:
        """The files that ``--fix`` would write to."""
        edited = {edit.file for remedy in self.remedies for edit in remedy}
        return edited | {finding.file for finding in self.findings if finding.mendable}


NOTHING = Checked(())


# -- deciding: which files


def has_settings(tool: Tool, directory: Path) -> Path | None:
    """The file in a directory that says how a tool works; pyproject.toml only where it does."""
    for name in tool.settings:
        file = directory / name
        if file.is_file() and (
            name != "pyproject.toml"
            or re.search(r"^\[tool\.ruff\b", file.read_text(errors="replace"), re.MULTILINE)
        ):
            return file
    return None


def governed(tool: Tool, files: Iterable[Path], top: Path) -> tuple[list[Path], list[Path]]:
    """The files of a tool's kind that have settings beside or above them, and those settings.

    :param top: the directory above which nothing counts.
    """
    known: dict[Path, Path | None] = {}

    def settings(directory: Path) -> Path | None:
        if directory not in known:
            here = has_settings(tool, directory)
            go_on = here is None and directory != top and directory.is_relative_to(top)
            known[directory] = settings(directory.parent) if go_on else here
        return known[directory]

    chosen = [f for f in files if f.suffix.lower() in tool.suffixes and settings(f.parent)]
    return chosen, sorted({file for file in known.values() if file})


def why_not(tool: Tool, s: Site, files: Sequence[Path], chosen: Sequence[Path]) -> str:
    """Why a tool takes no part, as a sentence; empty where it does, or has nothing to look at."""
    how = s.tree.project.build
    if not any(file.suffix.lower() in tool.suffixes for file in files):
        return ""
    if not chosen:
        return f"{tool.name} is left out: {s.tree.source} has no {' or '.join(tool.settings)}"
    if tool is TIDY and (how.system != "cmake" or s.copied):
        tree = "a copy of this tree" if how.system == "cmake" else "this tree"
        built = f"{tree} is built by {how.system}"
        return f"{tool.name} is left out: it needs CMake's compile commands, and {built}"
    return ""


def scope_of(s: Site, *, everything: bool) -> Scope:
    """What there is to look at.

    :param everything: clang-tidy looks at more than what has changed.
    """
    source = s.tree.source
    files, changed, since = files_of(s)
    top = top_of(s.tree)
    chosen: dict[str, Sequence[Path]] = {}
    settings: list[Path] = []
    left_out: list[str] = []
    for tool in TOOLS:
        mine, found = governed(tool, files, top)
        reason = why_not(tool, s, files, mine)
        if reason:
            left_out.append(reason)
        elif mine:
            chosen[tool.name] = mine
            settings += [file for file in found if not file.is_relative_to(source)]
    if everything or not since:
        return Scope(chosen, "", settings, left_out)
    if TIDY.name in chosen:
        chosen[TIDY.name] = [file for file in chosen[TIDY.name] if file in changed]
    return Scope(chosen, since, settings, left_out)


def files_of(s: Site) -> tuple[list[Path], set[Path], str]:
    """The files of a tree, those of them that changed, and since which branch.

    In git: what is tracked or could be, with what differs from the commit at which the work left
    the default branch. Elsewhere, and where there is no such branch, that is empty.
    """
    source = s.tree.source
    places = builds.not_source(s.workshop, source)
    ours = [place for place in places if place.is_relative_to(source) and place != source]
    if s.tree.version.commit:
        untracked = ["ls-files", "-z", "--others", "--exclude-standard"]
        names = [*git(source, "ls-files", "-z"), *git(source, *untracked)]
        files = [source / name for name in sorted({*names})]
        since, commit = branch_point(source)
        compare = ["diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", "--relative"]
        different = [*git(source, *compare, commit), *git(source, *untracked)] if commit else []
        changed = {source / name for name in different}
    else:
        files, changed, since = [*receipts.files_below(source, ours)], set(), ""
    regular = (file for file in files if file.is_file() and not file.is_symlink())
    kept = [file for file in regular if not any(file.is_relative_to(place) for place in ours)]
    return kept, changed, since


def top_of(tree: Tree) -> Path:
    """The directory above which no settings count: the repository's, or the tree's own."""
    if tree.version.commit:
        top = Path(git(tree.source, "rev-parse", "--show-toplevel")[0])
        if tree.source.is_relative_to(top):  # not where a link leads into the repository
            return top
    return tree.source


def git(source: Path, *arguments: str) -> list[str]:
    """What git lists, by lines or, with ``-z``, by what is between zeros."""
    done = versions.run_git(source, *arguments)
    if "-z" not in arguments or done.returncode:
        return versions.lines_of(source, done)
    return [name for name in done.stdout.split("\0") if name]


def branch_point(source: Path) -> tuple[str, str]:
    """The branch that work is compared with, and the commit at which it left it; empty: none."""
    for name in BASES:
        done = versions.run_git(source, "merge-base", "HEAD", name)
        if done.returncode == 0:
            shown = versions.run_git(source, "rev-parse", "--abbrev-ref", name).stdout.strip()
            return shown or name, done.stdout.strip()
    return "", ""


def summary(s: Site, scope: Scope, checked: Checked, took: float) -> str:
    """The line at the end: what each tool has found, in how many files."""
    parts = []
    for name, files in scope.files.items():
        number = sum(finding.tool == name for finding in checked.findings)
        count = checked.units if name == TIDY.name else len(files)
        more = f" of those that differ from {scope.since}"
        since = more if name == TIDY.name and scope.since else ""
        parts.append(f"{name} {number} in {count} file{'s' * (count != 1)}{since}")
    words = "; ".join(parts)
    return f"{console.bold('linted')} {s.tree.project.name}: {words}; {console.seconds(took)}"


# -- acting


def program_of(s: Site, tool: Tool) -> str:
    """What a tool is called where it runs; in place, ruff is the one of the tasks' own lock."""
    if s.image:
        return tool.name
    beside = Path(sys.executable).with_name(tool.name)
    if tool is RUFF and beside.is_file():
        return str(beside)
    return shutil.which(tool.name, path=engine.path_in_place(s.workshop)) or ""


def programs_of(s: Site, tools: Iterable[Tool]) -> dict[str, str]:
    """The programs of tools, all of which must be there."""
    found = {tool.name: program_of(s, tool) for tool in tools}
    missing = [name for name, program in found.items() if not program]
    if missing:
        hints = ["sudo apt-get install " + " ".join(APT)] if missing != [RUFF.name] else []
        raise SlipwayError(
            f"missing on this machine: {', '.join(missing)}",
            cause="lint runs in place here, without a container",
            fix=[
                *hints,
                *(["./go invoke lint, which brings ruff"] if RUFF.name in missing else []),
            ],
            code=UNAVAILABLE,
        )
    return found


class Linter:
    """The tools at work on one tree."""

    def __init__(self, s: Site, scope: Scope, programs: Mapping[str, str], image: str) -> None:
        self.site, self.scope, self.programs, self.image = s, scope, programs, image
        self.work = s.out / "lint"
        self.texts: dict[Path, bytes] = {}  # as the tools have seen them

    def files(self, tool: Tool) -> Sequence[Path]:
        """Those that a tool looks at."""
        return self.scope.files.get(tool.name, ())

    def run(self, steps: Sequence[Step]) -> list[Said]:
        """Run commands, and come back with what they said, in paths of this machine."""
        s = self.site
        inside = s.place.inside
        asked, answered = self.work / "steps.json", self.work / "said.json"
        apart = (*self.scope.settings, *s.links)
        job = replace(
            s.job("lint", [inside(asked), inside(answered)], {}),
            mounts=[
                Mount(s.tree.source, readonly=True),  # the tree itself, where a copy is built
                *(Mount(path, readonly=True) for path in apart),
                Mount(s.workshop.scripts, readonly=True),
                Mount(s.out),
            ],
        )
        if s.workshop.dry:
            s.place.run(job, self.image)
        if s.workshop.dry or not steps:
            return []
        receipts.write_whole(asked, json.dumps(msgspec.to_builtins(steps)))
        status = s.place.run(job, self.image)
        if status:
            raise SlipwayError(
                f"the tools did not run: status {status}",
                cause=builds.disk_full(s.out) or "the words of scripts/lint are above",
                fix=["invoke lint"],
                code=status,
            )
        text = answered.read_text(encoding="utf-8")
        return msgspec.convert(json.loads(text), list[Said])

    def here(self, text: str) -> str:
        """What was said inside, in paths of this machine."""
        source = self.site.tree.source
        return text.replace(self.site.place.inside(source), str(source))

    def check(self) -> Checked:
        """What the tools find."""
        self.texts = {f: f.read_bytes() for files in self.scope.files.values() for f in files}
        s, looks = self.site, self.looks(self.texts)
        files = [s.place.inside(file) for file in self.files(RUFF)]
        rules = ruff_checks(self.programs.get(RUFF.name, ""), files)
        build = s.place.inside(s.build)
        deps = [Step("ninja", ["ninja", "-C", build, "-t", "deps"])] if self.files(TIDY) else []
        said = self.run([*rules, *self.formatting(looks), *deps])
        rest = said[len(rules) :]
        findings = self.broken_rules(said[: len(rules)])
        for tool, file, wanted in self.formatted(looks, rest[: len(looks)]):
            found = misformatted(tool, file, unraw(self.texts[file]), wanted)
            findings += [found] if found else []
        return self.tidied(findings, rest[-1].out) if deps else Checked(findings)

    def broken_rules(self, answers: Iterable[Said]) -> list[Finding]:
        """What ``ruff check`` has found."""
        found = []
        for said in answers:
            rows = ruff_findings(self.here(said.out)) if said.status in (0, 1) else []
            refuse(failure(RUFF, said, rows))
            found += rows
        return found

    def looks(self, files: Collection[Path]) -> list[tuple[Tool, Path]]:
        """Those of some files that a formatter looks at, each with it."""
        return [(tool, f) for tool in (FORMAT, RUFF) for f in self.files(tool) if f in files]

    def formatting(self, looks: Iterable[tuple[Tool, Path]]) -> list[Step]:
        """How the formatters are asked."""
        inside = self.site.place.inside
        return [formatting(tool, self.programs[tool.name], inside(file)) for tool, file in looks]

    def formatted(
        self, looks: Iterable[tuple[Tool, Path]], answers: Iterable[Said]
    ) -> Iterator[tuple[Tool, Path, str]]:
        """How they answer: what each file should be, empty where that is as it is."""
        for (tool, file), said in zip(looks, answers, strict=True):
            if tool is RUFF and said.status:
                continue  # it is no Python, which `ruff check` has told
            refuse(failure(tool, said))
            yield tool, file, said.out

    def tidied(self, findings: Sequence[Finding], deps: str) -> Checked:
        """What clang-tidy finds, beside ``findings`` of the others.

        :param deps: what ``ninja -t deps`` says.
        """
        s = self.site
        inside, build = s.place.inside, str(s.build)
        database = json.dumps(database_of(s), ensure_ascii=False)
        receipts.write_whole(self.work / DATABASE, database)
        sources = {entry["file"] for entry in json.loads(self.here(database))}
        units = units_of(sources, deps_of(self.here(deps), build), map(str, self.files(TIDY)))
        fixes = [self.work / f"fixes-{number}.yaml" for number in range(len(units))]
        for file in fixes:
            file.unlink(missing_ok=True)
        steps = [
            tidying(self.programs[TIDY.name], inside(self.work), inside(Path(unit)), inside(file))
            for unit, file in zip(units, fixes, strict=True)
        ]
        found, remedies = [*findings], []
        for counts, file, said in zip(units.values(), fixes, self.run(steps), strict=True):
            rows = tidy_findings(self.here(said.out), build, counts)
            refuse(failure(TIDY, said, rows))
            found += rows
            if file.is_file():
                remedies += remedies_of(self.here(file.read_text()), build, counts)
        return Checked(found, remedies, sum(map(len, units.values())))

    def mend(self, checked: Checked) -> list[Path]:
        """Write what the tools would: first what they mend, then how that should look.

        :returns: the files that were written to.
        """
        refuse(unwritable(checked.mendable))
        texts = edited(checked.remedies, self.texts.__getitem__)
        broken = sorted({f.file for f in checked.findings if f.mendable and f.tool == RUFF.name})
        inside = self.site.place.inside
        steps = [ruff_fix(self.programs[RUFF.name], inside(file)) for file in broken]
        for file, said in zip(broken, self.run(steps), strict=True):
            if said.status == 0:
                texts[file] = raw(said.out)
        written = self.write(texts)
        looks = self.looks(checked.mendable)
        wanted = self.formatted(looks, self.run(self.formatting(looks)))
        return sorted({*written, *self.write({f: raw(text) for _, f, text in wanted if text})})

    def write(self, texts: Mapping[Path, bytes]) -> list[Path]:
        """Write to the files that are to be others, in place: they stay whose they are."""
        written = []
        for file, text in texts.items():
            if text == self.texts[file]:
                continue
            with file.open("r+b") as stream:
                if stream.read() != self.texts[file]:
                    console.say(f"{file} has changed in the meantime, and is left alone")
                    continue
                stream.seek(0)
                stream.write(text)
                stream.truncate()
            self.texts[file] = text
            written.append(file)
        return written


def refuse(error: SlipwayError | None) -> None:
    """Raise an error, if there is one."""
    if error:
        raise error


def unwritable(files: Iterable[Path]) -> SlipwayError | None:
    """The error for files that would have to be written to and cannot."""
    closed = sorted(file for file in files if not os.access(file, os.W_OK))
    if not closed:
        return None
    return SlipwayError(
        f"--fix cannot write {closed[0]}{f' and {len(closed) - 1} more' if closed[1:] else ''}",
        cause="the file or its file system is read-only for you; nothing was changed",
        fix=[shlex.join(["ls", "-l", str(closed[0])]), "invoke lint, without --fix"],
        code=CANNOT_CREATE,
    )


def database_of(s: Site) -> list[dict[str, Any]]:
    """The build's compilation database, for clang."""
    file = s.build / DATABASE
    entries = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    made = for_clang(entries)
    source = s.place.inside(s.tree.source)
    if any(entry["file"].startswith(f"{source}/") for entry in made):  # else another tree's is left
        return made
    raise SlipwayError(
        f"the build of {s.tree.project.name} has left no {DATABASE} for clang-tidy",
        cause="its CMake files set CMAKE_EXPORT_COMPILE_COMMANDS to OFF, or compile nothing",
        fix=[f"mend {s.tree.top / 'CMakeLists.txt'}, or remove .clang-tidy"],
        code=BAD_DATA,
    )


def lint(
    workshop: Workshop,
    variant: str,
    project: str,
    source: str,
    wanted: str,
    *,
    fix: bool,
    everything: bool,
) -> None:
    """What ``invoke lint`` does: look, mend where that is asked for, and say what is left.

    :param wanted: what ``--engine`` says.
    :param everything: clang-tidy looks at more than what has changed.
    """
    s = next(iter(builds.sites(workshop, variant, project, source, wanted)))
    refuse(not_lintable(s, fix=fix))
    with s.locked("lint"):
        scope = scope_of(s, everything=everything)
        for reason in scope.left_out:
            console.say(reason)
        if any(scope.files.values()):
            tell(s, scope, *looked(s, scope, fix=fix))
        elif scope.files:
            tell(s, scope)
        else:
            console.say(f"nothing of {s.tree.project.name} to look at")


def not_lintable(s: Site, *, fix: bool) -> SlipwayError | None:
    """Why a tree has no source to look at, or none to be changed."""
    if s.tree.wheel:
        return SlipwayError(
            f"{s.tree.wheel.name} is a wheel, as its makers built it: there is no source",
            fix=["invoke lint --project DIR, with a source tree"],
            code=USAGE,
        )
    if fix and s.tree.source.is_relative_to(s.workshop.out):
        return SlipwayError(
            f"--fix would change {s.tree.source}, which was fetched",
            cause="what is fetched stays as it came, and is fetched again where it is not there",
            fix=["invoke lint --source DIR --fix, with a tree of yours"],
            code=USAGE,
        )
    return None


def looked(s: Site, scope: Scope, *, fix: bool) -> tuple[Checked, float]:
    """What the tools find, once what can be is mended where that is asked for; and the seconds."""
    start = time.monotonic()
    programs = programs_of(s, [tool for tool in TOOLS if scope.files.get(tool.name)])
    if scope.files.get(TIDY.name):
        builds.build(s)
    # The tree is built without the tools: its image is part of what it is configured with.
    image = images.ensure_lint(s.workshop, s.image) if s.image else ""
    linter = Linter(s, scope, programs, image)
    if s.workshop.dry:
        linter.run([])
        return NOTHING, 0
    outputs.make(linter.work, s.workshop.out)
    checked = linter.check()
    if fix and checked.mendable:
        for file in linter.mend(checked):
            console.say(f"mended {file}")
        checked = linter.check()
    return checked, time.monotonic() - start


def tell(s: Site, scope: Scope, checked: Checked = NOTHING, took: float = 0) -> None:
    """Say what was found, and fail if that is anything."""
    if s.workshop.dry:
        return
    for finding in sorted(checked.findings):
        console.say(finding.text)
    console.say(summary(s, scope, checked, took))
    number = len(checked.findings)
    if number:
        raise SlipwayError(
            f"{number} finding{'s' * (number != 1)} in {s.tree.project.name}",
            fix=["invoke lint --fix" if checked.mendable else "invoke lint, once that is mended"],
            code=FOUND,
        )
