"""The development image for editors that open a checkout in a container: ``init --devcontainer``.

What VS Code and the Dev Containers CLI read is made from the settings; nobody edits it.
"""

from __future__ import annotations

import json

from slipway import console
from slipway.errors import CANNOT_CREATE, SlipwayError
from slipway.receipts import write_whole
from slipway.settings import Settings, Workshop

TAG = "slipway-dev:devcontainer"
USER = "dev"
HEAD = "Made by `./go invoke init --devcontainer` from the settings: change these, not this file."


def files(settings: Settings) -> dict[str, str]:
    """The files of ``.devcontainer/``, by name.

    The checkout stands at its own path, as for every job. The image has no user but root: the
    second file adds one, whose uid the editor makes the caller's.
    """
    place = "${localWorkspaceFolder}"
    described = {
        "name": "Slipway",
        "initializeCommand": ["./go", "invoke", "dev", "--tag", TAG],
        "build": {"dockerfile": "Dockerfile"},
        "workspaceFolder": place,
        "workspaceMount": f"type=bind,source={place},target={place}",
        "remoteUser": USER,
        "updateRemoteUserUID": True,
        "init": True,
        "runArgs": ["--shm-size", settings.shm_size],
        "containerEnv": {"CCACHE_MAXSIZE": settings.ccache_size},
        "customizations": {
            "vscode": {"extensions": ["ms-vscode.cpptools", "ms-python.python"]},
        },
    }
    dockerfile = f"""\
# {HEAD}
FROM {TAG}
RUN useradd --create-home --shell /bin/bash {USER}
"""
    return {
        "devcontainer.json": f"// {HEAD}\n{json.dumps(described, indent=2)}\n",
        "Dockerfile": dockerfile,
    }


def write(workshop: Workshop, *, force: bool) -> None:
    """Write ``.devcontainer/``, unless what is there was made by somebody else.

    :param force: replace that too.
    """
    directory = workshop.root / ".devcontainer"
    wanted = files(workshop.settings)
    for name in wanted:
        file = directory / name
        if file.is_file() and HEAD not in file.read_text(encoding="utf-8") and not force:
            raise SlipwayError(
                f"{console.shown(file, workshop.root)} is there already, and is not ours",
                cause="it was not made by init --devcontainer; nothing was written",
                fix=["./go invoke init --devcontainer --force, which replaces it"],
                code=CANNOT_CREATE,
            )
    for name, text in wanted.items():
        file = directory / name
        if not workshop.dry:
            write_whole(file, text)
        would = "would be written" if workshop.dry else "written"
        console.say(f"{console.shown(file, workshop.root)} {would}")
