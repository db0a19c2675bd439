"""``invoke lint``: clang-format, clang-tidy and ruff on a source tree, as the tree's own files say.

What a tree has no settings for is left out: to format somebody's code by our taste would be wrong.
The tools never write. They say what they would, and ``--fix`` writes it, in place, from here: the
tree is read-only for them in any case, and a file keeps its owner and its mode. ``scripts/lint``
runs them, side by side.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec.structs import replace

from slipway import builds, console, engine, images, outputs, receipts, versions
from slipway.builds import Site
from slipway.editors import DATABASE, NOT_FOR_CLANG, words_of
from slipway.engine import Mount
from slipway.errors import BAD_CONFIG, BAD_DATA, CANNOT_CREATE, UNAVAILABLE, USAGE, SlipwayError
from slipway.project import LOADER, Tree
from slipway.records import Record
from slipway.settings import Workshop

FOUND = 1  # exit status: there are findings
HEADERS = (".h", ".hh", ".hpp", ".hxx")
CXX = (".c", ".cc", ".cpp", ".cxx", *HEADERS)
# Whose branch point says what has changed; the first that is there. A branch's own upstream comes
# late: once it is pushed, that is no earlier than the branch itself.
BASES = ("origin/HEAD", "origin/main", "origin/master", "@{upstream}", "main", "master")
BATCH = 200  # files in one command, whose words have an end
APT = ("clang-format", "clang-tidy", "libomp-dev")

# What GCC knows and clang need not.
FOR_CLANG = ("-Wno-unknown-warning-option", "-Wno-ignored-optimization-argument")
TIDY_FINDING = re.compile(
    r"^(?P<file>.+?):(?P<line>\d+):(?P<column>\d+): (?:warning|error): (?P<words>.* \[[^\]]+\])$",
    re.MULTILINE,
)


class Tool(Record, frozen=True):
    """One of the tools: which files are for it, and what its settings are called."""

    name: str
    suffixes: tuple[str, ...]
    settings: tuple[str, ...]


FORMAT = Tool("clang-format", CXX, (".clang-format", "_clang-format"))
TIDY = Tool("clang-tidy", CXX, (".clang-tidy",))
RUFF = Tool("ruff", (".py", ".pyi"), (".ruff.toml", "ruff.toml", "pyproject.toml"))
TOOLS = (FORMAT, TIDY, RUFF)


class Finding(Record, frozen=True, order=True):
    """One thing that is not as the tree's settings want it."""

    file: Path
    line: int
    column: int
    """From 1; 0: the whole line."""
    words: str
    tool: str
    more: str = ""
    """Lines that explain it."""
    mendable: bool = False
    """Whether ``--fix`` mends it; of clang-tidy's, see ``Edit``."""

    @property
    def text(self) -> str:
        """As compilers say it, so that an editor opens it."""
        place = f"{self.file}:{self.line}:{f'{self.column}:' if self.column else ''}"
        return f"{place} {self.words}\n{self.more}".rstrip()


class Edit(Record, frozen=True, order=True):
    """Bytes of a file that clang-tidy would replace."""

    file: Path
    offset: int
    length: int
    text: str


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


class Step(Record, frozen=True):
    """One command of ``scripts/lint``."""

    name: str
    argv: Sequence[str]
    stdin: str = ""


class Said(Record, frozen=True):
    """What it said."""

    status: int
    out: str
    err: str


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
        built = "a copy of it is built" if how.system == "cmake" else f"built by {how.system}"
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


# -- deciding: clang-tidy's units


def deps_of(text: str, build: str) -> list[list[str]]:
    """What ``ninja -t deps`` lists: for each object the files that it is made of, as full paths.

    :param build: the directory that relative ones begin in.
    """
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith(" ") and found:
            found[-1].append(posixpath.normpath(posixpath.join(build, line.strip())))
        elif ": #deps " in line:
            found.append([])
    return found


def units_of(
    sources: Collection[str], deps: Iterable[Sequence[str]], wanted: Iterable[str]
) -> dict[str, set[str]]:
    """What clang-tidy is run on, each with the files whose findings count there.

    A source that is compiled stands for itself, a header for the first that includes it. What
    nobody compiles is not looked at.

    :param sources: what the compilation database names.
    :param deps: see ``deps_of``.
    """
    units: dict[str, set[str]] = {}
    asked = set(wanted)
    for file in sorted(asked & set(sources)):
        units[file] = {file}
    headers = {f for f in asked - set(sources) if f.lower().endswith(HEADERS)}
    for files in deps:
        unit = next((file for file in files if file in sources), "")
        here = headers & set(files) if unit else set()
        if here:
            units.setdefault(unit, set()).update(here)
            headers -= here
    return units


# -- deciding: what the tools are told, and what they answer


def formatting(tool: Tool, program: str, inside: str) -> Step:
    """How a file should look, on standard output."""
    if tool is FORMAT:
        argv = [program, "--style=file", "--fallback-style=none", inside]
        return Step(f"{tool.name} {inside}", argv)
    argv = [program, "format", "--no-cache", "--force-exclude", "--stdin-filename", inside, "-"]
    return Step(f"{tool.name} format {inside}", argv, stdin=inside)


def ruff_checks(program: str, inside: Sequence[str]) -> list[Step]:
    """What is wrong with files, as JSON."""
    argv = [program, "check", "--no-cache", "--force-exclude", "--output-format=json"]
    starts = range(0, len(inside), BATCH)
    return [Step("ruff check", [*argv, *inside[n : n + BATCH]]) for n in starts]


def ruff_fix(program: str, inside: str) -> Step:
    """How a file looks once all is mended that can be safely, on standard output."""
    argv = [program, "check", "--no-cache", "--force-exclude", "--fix", "--exit-zero"]
    return Step(f"ruff check {inside}", [*argv, "--stdin-filename", inside, "-"], stdin=inside)


def tidying(program: str, build: str, unit: str, fixes: str) -> Step:
    """What is wrong with a source and its headers, and in the file ``fixes`` the remedies."""
    argv = [program, "--quiet", f"-p={build}", "--header-filter=.*", f"--export-fixes={fixes}"]
    argv += [f"--extra-arg={word}" for word in FOR_CLANG]
    return Step(f"{program} {unit}", [*argv, unit])


def misformatted(tool: Tool, file: Path, text: str, wanted: str) -> Finding | None:
    """A file that does not look as it should, at the first line that differs.

    :param wanted: empty where the tool leaves it alone, as a .clang-format-ignore may say.
    """
    if not wanted or wanted == text:
        return None
    old, new = text.splitlines(), wanted.splitlines()
    same = next(
        (n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(old[: len(new)])
    )
    line = max(1, min(same + 1, len(old)))
    return Finding(file, line, 0, f"not as {tool.name} has it", tool.name, mendable=True)


def ruff_findings(out: str) -> list[Finding]:
    """What ``ruff check`` answers."""
    found = []
    for row in json.loads(out or "[]"):
        place = row["location"]
        mendable = (row.get("fix") or {}).get("applicability") == "safe"
        words = f"{row['message']} [{row.get('code') or 'invalid-syntax'}]"
        file = Path(row["filename"])
        found.append(
            Finding(file, place["row"], place["column"], words, RUFF.name, mendable=mendable)
        )
    return found


def tidy_findings(out: str, build: str, counts: Collection[str]) -> list[Finding]:
    """What clang-tidy says of the files that count, each finding with the lines below it.

    :param build: the directory that relative paths begin in.
    """
    matches = [*TIDY_FINDING.finditer(out)]
    ends = [*(match.start() for match in matches[1:]), len(out)]
    found = []
    for match, end in zip(matches, ends, strict=True):
        file = posixpath.normpath(posixpath.join(build, match["file"]))
        if file in counts:
            place = int(match["line"]), int(match["column"])
            more = out[match.end() : end].strip("\n")
            found.append(Finding(Path(file), *place, match["words"], TIDY.name, more))
    return [*dict.fromkeys(found)]  # what is compiled twice is told twice


def remedies_of(text: str, build: str, counts: Collection[str]) -> list[list[Edit]]:
    """What clang-tidy's ``--export-fixes`` holds for warnings, where only files that count change.

    A file that does not compile has none: what the compiler has guessed must not be written.
    """
    rows: Any = yaml.load(text, Loader=LOADER) or {}  # noqa: S506  # safe
    rows = rows.get("Diagnostics") or []
    if any(row.get("Level") == "Error" for row in rows):
        return []
    found = []
    for row in rows:
        edits = [
            Edit(
                Path(posixpath.normpath(posixpath.join(build, part["FilePath"]))),
                *(part["Offset"], part["Length"], part["ReplacementText"]),
            )
            for part in row["DiagnosticMessage"].get("Replacements") or []
        ]
        if edits and all(edit.file.as_posix() in counts for edit in edits):
            found.append(edits)
    return found


def edited(remedies: Iterable[Sequence[Edit]], read: Callable[[Path], bytes]) -> dict[Path, bytes]:
    """Files with what is to be replaced in them replaced.

    Of two remedies that touch the same bytes the second is left for another time.
    """
    accepted: set[Edit] = set()

    def clashes(edit: Edit) -> bool:
        return any(
            edit.file == other.file
            and edit != other
            and edit.offset <= other.offset + other.length
            and other.offset <= edit.offset + edit.length
            for other in accepted
        )

    for remedy in remedies:
        if not any(clashes(edit) for edit in remedy):
            accepted.update(remedy)
    texts: dict[Path, bytes] = {}
    for edit in sorted(accepted, reverse=True):  # from the end, so that offsets stay true
        text = texts.setdefault(edit.file, read(edit.file))
        after = text[edit.offset + edit.length :]
        texts[edit.file] = text[: edit.offset] + raw(edit.text) + after
    return texts


def failure(tool: Tool, said: Said, found: Collection[Finding] = ()) -> SlipwayError | None:
    """What it means when a tool itself has failed, rather than found something."""
    if re.search(r"^(?:Error (?:parsing|reading) |ruff failed$)", said.err, re.MULTILINE):
        return SlipwayError(
            f"{tool.name} cannot read its settings",
            cause="\n".join(dict.fromkeys(said.err.strip().splitlines())),
            fix=["invoke lint, once that file is mended"],
            code=BAD_CONFIG,
        )
    if said.status == 0 or (said.status == 1 and found):
        return None
    words = f"{said.out if tool is TIDY else ''}{said.err}".strip().splitlines()
    return SlipwayError(
        f"{tool.name} failed: status {said.status}",
        cause="\n".join(words[-10:]),
        fix=["invoke lint, once that is mended"],
        code=BAD_DATA,
    )


def sources_of(entries: Iterable[Mapping[str, Any]]) -> set[str]:
    """The files that a compilation database says how to compile, nvcc's left out."""
    found = set()
    for entry in entries:
        words = words_of(entry)
        if words and posixpath.basename(words[0]) not in NOT_FOR_CLANG:
            path = posixpath.join(entry.get("directory", ""), entry["file"])
            found.add(posixpath.normpath(path))
    return found


def unraw(data: bytes) -> str:
    """The text of a file, whatever its encoding."""
    return data.decode(errors="surrogateescape")


def raw(text: str) -> bytes:
    """The bytes that were a file's, whatever its encoding."""
    return text.encode(errors="surrogateescape")


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

    def __init__(self, s: Site, scope: Scope) -> None:
        self.site, self.scope = s, scope
        self.work = s.out / "lint"
        self.texts: dict[Path, bytes] = {}  # as the tools have seen them
        at_work = [tool for tool in TOOLS if scope.files.get(tool.name)]
        self.programs = programs_of(s, at_work)
        if TIDY in at_work:
            builds.build(s)
        # The tree is built without the tools: its image is part of what it is configured with.
        self.image = images.ensure_lint(s.workshop, s.image) if s.image else ""

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
        sources = sources_of(json.loads(self.here(database_of(s))))
        units = units_of(sources, deps_of(self.here(deps), build), map(str, self.files(TIDY)))
        fixes = [self.work / f"fixes-{number}.yaml" for number in range(len(units))]
        for file in fixes:
            file.unlink(missing_ok=True)
        steps = [
            tidying(self.programs[TIDY.name], inside(s.build), inside(Path(unit)), inside(file))
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


def database_of(s: Site) -> str:
    """The text of the build's compilation database."""
    file = s.build / DATABASE
    if file.is_file():
        return file.read_text(encoding="utf-8")
    raise SlipwayError(
        f"the build of {s.tree.project.name} has left no {DATABASE} for clang-tidy",
        cause="its CMake files set CMAKE_EXPORT_COMPILE_COMMANDS to OFF",
        fix=[f"take that out of {s.tree.top / 'CMakeLists.txt'}, or remove .clang-tidy"],
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
    if s.tree.wheel:
        raise SlipwayError(
            f"{s.tree.wheel.name} is a wheel, as its makers built it: there is no source",
            fix=["invoke lint --project DIR, with a source tree"],
            code=USAGE,
        )
    if fix and s.tree.source.is_relative_to(workshop.out):
        raise SlipwayError(
            f"--fix would change {s.tree.source}, which was fetched",
            cause="what is fetched stays as it came, and is fetched again where it is not there",
            fix=["invoke lint --source DIR --fix, with a tree of yours"],
            code=USAGE,
        )
    with s.locked("lint"):
        scope = scope_of(s, everything=everything)
        for reason in scope.left_out:
            console.say(reason)
        if not any(scope.files.values()):
            console.say(f"nothing of {s.tree.project.name} to look at")
            return
        start = time.monotonic()
        linter = Linter(s, scope)
        if workshop.dry:
            linter.run([])
            return
        outputs.make(linter.work, workshop.out)
        checked = linter.check()
        if fix and checked.mendable:
            for file in linter.mend(checked):
                console.say(f"mended {file}")
            checked = linter.check()
        tell(s, scope, checked, time.monotonic() - start, fix=fix)


def tell(s: Site, scope: Scope, checked: Checked, took: float, *, fix: bool) -> None:
    """Say what was found, and fail if that is anything."""
    for finding in sorted(checked.findings):
        console.say(finding.text)
    console.say(summary(s, scope, checked, took))
    number = len(checked.findings)
    if number:
        mends = checked.mendable and not fix
        raise SlipwayError(
            f"{number} finding{'s' * (number != 1)} in {s.tree.project.name}",
            fix=["invoke lint --fix" if mends else "invoke lint, once that is mended"],
            code=FOUND,
        )
