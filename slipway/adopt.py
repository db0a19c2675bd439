"""``invoke init --adopt``: Slipway in a library's own repository, as one folder beside it.

It is a copy: the library's repository then depends on nothing else, and changes to it are its own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from pathlib import Path

from slipway import console
from slipway.errors import CANNOT_CREATE, SlipwayError
from slipway.settings import Workshop

FOLDER = "slipway"

# All that is in the folder: three files are made for it (see adopt), the others are copied.
CONTENTS = (
    ".gitignore",
    "Dockerfile.app",
    "Dockerfile.book",
    "Dockerfile.dev",
    "Dockerfile.prod",
    "LICENSE",
    "README.md",
    "go",
    "invoke.yaml",
    "project.yaml",
    "requirements-book.in",
    "requirements-book.txt",
    "requirements-cluster.in",
    "requirements-cluster.txt",
    "requirements-cuda.in",
    "requirements-cuda.txt",
    "requirements-docs.in",
    "requirements-docs.txt",
    "requirements-image.in",
    "requirements-image.txt",
    "requirements.in",
    "requirements.txt",
    "scripts",
    "slipway",
    "tasks.py",
)

LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*")

README = """\
# Slipway, for the library in the directory above

This folder builds, tests and packages the library, in containers. It is a copy of Slipway; Python
3.10 or later and git are all that it needs, and `./go` and `setup` bring the rest.

```sh
cd slipway
./go invoke all      # set up, build, test, package, make images, run them
./go invoke --list   # one task alone: build, test, deb, shell, ...
```

How the library is built stands in `project.yaml`, what the machine is like in `invoke.yaml`. What
is made goes to `out/` and `dist/` in this folder, which git ignores; nothing else of the repository
is written to. The licence of what is in this folder is that of its `LICENSE`, not the library's.

To be rid of it, delete the folder.
"""


def adopt(workshop: Workshop, tree: Path, project: str) -> None:
    """Put Slipway's files into ``tree/slipway``, whole or not at all.

    :param project: the text of project.yaml.
    """
    final = tree / FOLDER
    check_free(final)
    made = {
        "README.md": README,
        "invoke.yaml": settings((workshop.root / "invoke.yaml").read_text(encoding="utf-8")),
        "project.yaml": project,
    }
    if workshop.dry:
        console.say(project.rstrip())
        console.say(f"{final} would be made, with {', '.join(CONTENTS)}")
        return
    beside = Path(tempfile.mkdtemp(prefix=f".{FOLDER}-", dir=tree))
    try:
        fill(workshop.root, beside, made)
        beside.chmod(0o755)  # mkdtemp's is for its maker alone
        beside.replace(final)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    console.say(f"{final} made; it is yours to commit")


def check_free(final: Path) -> None:
    """Refuse a place where something is."""
    if final.is_dir() and not final.is_symlink():
        there = sorted(path.name for path in final.iterdir())
        if not there:
            return
        cause = f"in it: {', '.join(there[:5])}{', ...' if there[5:] else ''}"
    elif os.path.lexists(final):
        cause = "it is no directory"
    else:
        return
    name = shlex.quote(str(final))
    raise SlipwayError(
        f"{final} is in the way",
        cause=f"{cause}; nothing was written, and --force replaces only a project.yaml",
        fix=[f"mv {name} {name}.old, or remove it, then the same command again"],
        code=CANNOT_CREATE,
    )


def fill(root: Path, directory: Path, made: dict[str, str]) -> None:
    """Copy what is copied, write what is made; links become what they lead to."""
    for name in CONTENTS:
        source, target = root / name, directory / name
        if name in made:
            target.write_text(made[name], encoding="utf-8")
        elif source.is_dir():
            shutil.copytree(source, target, ignore=LEFT_OUT)
        else:
            shutil.copy2(source, target)


def settings(text: str) -> str:
    """invoke.yaml with the one project that the folder has."""
    line = "\nproject: project.yaml\n"
    changed = text.replace("\n#project: examples/oar\n", line)
    return changed if line in changed else f"{text.rstrip()}\n{line}"
