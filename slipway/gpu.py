"""Whether jobs have an NVIDIA GPU that works, and how a container is given it.

What the machine's files and ``docker info`` say only names the ways to try: CDI, then the nvidia
runtime. What counts is a probe, a container in which the driver answers through libcuda. Its answer
is remembered until something changes that it may depend on.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import msgspec
from msgspec.structs import replace

from slipway import console, engine, images, processes, receipts
from slipway.engine import Job, Place
from slipway.errors import UNAVAILABLE, USAGE, SlipwayError, nearest
from slipway.images import fingerprint
from slipway.records import Record
from slipway.settings import GPU, Workshop
from slipway.variants import Variant

DRIVER = Path("/proc/driver/nvidia/version")
WSL = Path("/usr/lib/wsl/lib/libcuda.so.1")  # Windows' driver has no /proc/driver
BOOT = Path("/proc/sys/kernel/random/boot_id")
PCI = Path("/sys/bus/pci/devices")
NVIDIA = "0x10de"  # vendor number on the PCI bus
CDI_KIND = "nvidia.com/gpu"
PROBE_S = 60  # a container's start, and a driver that loads its firmware

FIX_MACHINE = "the same command on a machine with an NVIDIA GPU"
FIX_DRIVER = "sudo apt-get install nvidia-driver, reboot, then nvidia-smi lists the GPU"
FIX_TOOLKIT = "sudo apt-get install nvidia-container-toolkit (from NVIDIA's archive)"
FIX_CDI = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
FIX_ENGINE = "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
FIX_PROBE = "nvidia-smi, and the same in a container: docker run --rm --gpus all IMAGE nvidia-smi"


class Way(Record, frozen=True):
    """How a job is given the GPUs: a name for people, and arguments of ``docker run``."""

    name: str
    arguments: tuple[str, ...] = ()


CDI = Way("CDI", ("--device", f"{CDI_KIND}=all"))
RUNTIME = Way(
    "the nvidia runtime",
    # Else an image without NVIDIA's own variables gets the device files and no libcuda.
    ("--gpus", "all", "--env", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"),
)
IN_PLACE = Way("libcuda on this machine")


class Device(Record, frozen=True):
    """A GPU that works."""

    name: str
    capability: int
    """Compute capability times ten: 90 is sm_90."""


class Lack(Record, frozen=True):
    """What is missing: ``driver``, ``toolkit`` or ``engine support``, and how it is mended."""

    part: str
    why: str
    fix: tuple[str, ...]


class Facts(Record, frozen=True):
    """What can be seen without starting anything."""

    contained: bool
    """Jobs run in containers."""
    remote: bool = False
    """The engine may be another machine's, of which our files say nothing."""
    driver: str = ""
    """The loaded driver's version line; empty: none."""
    card: bool = False
    """An NVIDIA device is on the PCI bus."""
    toolkit: bool = False
    """A program of nvidia-container-toolkit is on PATH."""
    hook: bool = False
    """The one is that ``--gpus`` needs."""
    spec: bool = False
    """A CDI specification here names NVIDIA's GPUs."""
    info: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """``docker info``."""

    @property
    def cdi_enabled(self) -> bool:
        """Whether the engine reads CDI specifications: 25 and later, where it is switched on."""
        return bool(self.info.get("CDISpecDirs"))

    @property
    def cdi_found(self) -> bool:
        """Whether a specification is there; from 28.3 on the engine itself says what it read."""
        seen = self.info.get("DiscoveredDevices") or ()
        return self.spec or any(str(d.get("ID")).startswith(f"{CDI_KIND}=") for d in seen)

    @property
    def has_runtime(self) -> bool:
        """Whether the engine has the nvidia runtime, or finds the hook for ``--gpus``."""
        return "nvidia" in (self.info.get("Runtimes") or ()) or self.hook


class Answer(Record, frozen=True):
    """What came of it: GPUs and the way to them, or why there is none."""

    arguments: tuple[str, ...] = ()
    """For ``docker run``."""
    way: str = ""
    devices: tuple[Device, ...] = ()
    why: str = ""
    """Why there is none; empty too where nobody asked."""
    lacks: tuple[Lack, ...] = ()
    demanded: bool = False
    """``on`` was said: a test that finds no GPU is a failure then."""
    hidden: bool = False
    """``off`` was said: jobs in place must not see one either."""

    @property
    def sentence(self) -> str:
        """``GPU: NVIDIA H100 (sm_90) by CDI``, or ``no GPU: no NVIDIA driver on this machine``."""
        if not self.devices:
            return f"no GPU: {self.why}"
        names = [f"{device.name} (sm_{device.capability})" for device in self.devices]
        counted = [
            f"{names.count(name)} x {name}" if names.count(name) > 1 else name
            for name in dict.fromkeys(names)
        ]
        return f"GPU: {', '.join(counted)} by {self.way}"


NOT_ASKED = Answer()


# -- what is decided, without looking


def wanted(workshop: Workshop, flag: str) -> str:
    """``auto``, ``on`` or ``off``: what ``--gpu`` says, else the setting."""
    if flag and flag not in GPU:
        raise SlipwayError(
            f"no GPU mode '{flag}'",
            cause=nearest(flag, GPU),
            fix=["invoke test --gpu auto"],
            code=USAGE,
        )
    return flag or workshop.settings.gpu


def ways(facts: Facts) -> tuple[Way, ...]:
    """The ways worth trying, best first; none where it can be seen that none would work."""
    if not facts.contained:
        return (IN_PLACE,)
    if facts.remote:
        return (CDI, RUNTIME) if facts.cdi_enabled else (RUNTIME,)
    if not facts.driver:
        return ()
    cdi = (CDI,) if facts.cdi_enabled and facts.cdi_found else ()
    return (*cdi, RUNTIME) if facts.has_runtime else cdi


def lacking(facts: Facts) -> tuple[Lack, ...]:
    """All that is missing, by the machine's files and the engine's own words."""
    found = []
    if not facts.driver:
        why = "no NVIDIA driver on this machine"
        found.append(
            Lack("driver", why, (FIX_DRIVER,))
            if facts.card
            else Lack("driver", f"{why}, and no NVIDIA device", (FIX_MACHINE, FIX_DRIVER))
        )
    if not facts.contained:
        return tuple(found)
    if not (facts.toolkit or facts.has_runtime or facts.cdi_found):
        why = "no nvidia-container-toolkit, which gives containers the driver"
        found.append(Lack("toolkit", why, (FIX_TOOLKIT, FIX_ENGINE)))
    elif not ways(replace(facts, driver="any")):
        version = facts.info.get("ServerVersion", "")
        if facts.cdi_enabled:
            why = f"engine {version} reads CDI, and no specification names {CDI_KIND}"
            found.append(Lack("engine support", why, (FIX_CDI,)))
        else:
            why = f"engine {version} has neither CDI nor the nvidia runtime"
            found.append(Lack("engine support", why, (FIX_ENGINE,)))
    return tuple(found)


# What docker, the toolkit and the driver say when a container does not get a GPU.
REFUSALS = (
    # Engines without CDI look for it as they do for a driver.
    ('could not select device driver "cdi"', "engine support", "the engine has no CDI", FIX_ENGINE),
    (
        "could not select device driver",
        "toolkit",
        "the engine finds no nvidia-container-runtime-hook",
        FIX_TOOLKIT,
    ),
    (
        "unknown or invalid runtime name",
        "engine support",
        "the engine has no nvidia runtime",
        FIX_ENGINE,
    ),
    ("unresolvable CDI devices", "engine support", f"no CDI specification of {CDI_KIND}", FIX_CDI),
    ("driver not loaded", "driver", "the NVIDIA driver is not loaded", FIX_DRIVER),
    ("libnvidia-ml.so", "driver", "the toolkit finds no NVIDIA driver", FIX_DRIVER),
    ("driver/library version mismatch", "driver", "the driver was updated: reboot", "sudo reboot"),
)


def read_probe(way: Way, status: int, out: str, err: str) -> tuple[tuple[Device, ...], Lack | None]:
    """What a probe found, or what is missing by its words.

    :param status: of ``docker run``, or of the probe itself in place.
    """
    try:
        said = json.loads(out.strip().splitlines()[-1])
        devices = tuple(Device(str(n), int(c)) for n, c in said.get("devices", ()))
    except (IndexError, *receipts.NOT_OURS):
        said, devices = {}, ()
    if devices and not status:
        return devices, None
    if said.get("why"):
        return (), Lack("driver", str(said["why"]), (FIX_PROBE,))
    for words, part, why, fix in REFUSALS:
        if words.lower() in err.lower():
            return (), Lack(part, why, (fix,))
    lines = [x for x in err.strip().splitlines() if x and not x.startswith("Run 'docker")]
    told = lines[-1].strip() if lines else "it said nothing"
    return (), Lack("engine support", f"{way.name}: status {status}: {told}", (FIX_PROBE,))


def missing_in_place(facts: Facts, lack: Lack) -> Lack:
    """What it means in place, without an engine, that libcuda is not found, refuses or hangs."""
    if not lack.why.startswith("no libcuda"):
        return replace(lack, part="driver")
    if facts.driver:
        why = "the driver is loaded, and its libcuda is not here: a container without a GPU?"
        return Lack("driver", why, (FIX_PROBE,))
    return lacking(facts)[0]


def refusal(lacks: Sequence[Lack]) -> SlipwayError:
    """The error of ``--gpu on`` without a GPU: each thing that is missing, with its fix."""
    parts = list(dict.fromkeys(lack.part for lack in lacks))
    return SlipwayError(
        f"no GPU, and --gpu on asks for one: what is missing is {' and '.join(parts)}",
        cause="\n".join(f"{lack.part}: {lack.why}" for lack in lacks),
        fix=[*dict.fromkeys(fix for lack in lacks for fix in lack.fix), "or --gpu auto"],
        code=UNAVAILABLE,
    )


def suits(answer: Answer, row: Variant) -> Answer:
    """The answer for a variant: GPUs that none of its code runs on are as good as none."""
    if not (answer.devices and row.cuda):
        return answer
    if any(row.runs_on(device.capability) for device in answer.devices):
        return answer
    name, number = answer.devices[0].name, answer.devices[0].capability
    why = f"{name} is sm_{number}, and the variant's code is for {', '.join(row.cuda)}"
    fix = f"add sm_{number} to the variant's cuda in invoke.yaml"
    return Answer(why=why, lacks=(Lack("code for this GPU", why, (fix,)),))


# -- looking


def look(place: Place) -> Facts:
    """What can be seen of this machine, and of the engine where jobs run in one."""
    driver = DRIVER.read_text().partition("\n")[0].strip() if DRIVER.is_file() else ""
    if not driver and WSL.exists():
        driver = "WSL"
    # PCI is not everywhere: a machine without such a bus has no NVIDIA device on it.
    vendors = PCI.glob("*/vendor")
    card = any(file.read_text().strip() == NVIDIA for file in vendors)
    if not isinstance(place, engine.Docker):
        return Facts(contained=False, driver=driver, card=card)
    info = engine.info()
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/usr/local/bin"
    tools = ("nvidia-container-runtime-hook", "nvidia-ctk", "nvidia-container-cli")
    here = [tool for tool in tools if shutil.which(tool, path=path)]
    return Facts(
        contained=True,
        remote=not engine.local_socket(),
        driver=driver,
        card=card,
        toolkit=bool(here),
        hook=tools[0] in here,
        spec=has_spec([Path(d) for d in info.get("CDISpecDirs") or ()]),
        info=info,
    )


def has_spec(directories: Sequence[Path]) -> bool:
    """Whether a CDI specification in one of them names NVIDIA's GPUs."""
    for directory in directories:
        for file in sorted(directory.glob("*")) if directory.is_dir() else ():
            try:
                if file.suffix in (".json", ".yaml") and CDI_KIND in file.read_text():
                    return True
            except OSError:  # not ours to read; the engine's own list may have it
                continue
    return False


def memory(workshop: Workshop, facts: Facts) -> tuple[Path, str]:
    """Where the answer is remembered, and the fingerprint of what may change it."""
    boot = BOOT.read_text().strip() if BOOT.is_file() else ""
    names = ("ID", "ServerVersion")
    inputs = fingerprint(
        [facts.info.get(name) for name in names],
        [os.environ.get(name) for name in ("DOCKER_HOST", "DOCKER_CONTEXT")],
        [facts.driver, boot, engine.caller().uid],
        [list(way.arguments) for way in ways(facts)],
        receipts.code_of("gpu"),
        (workshop.scripts / "gpu-probe").read_bytes(),
    )
    name = "gpu.json" if facts.contained else "gpu-host.json"
    return workshop.out / ".run" / name, inputs


def remembered(workshop: Workshop, facts: Facts) -> Answer | None:
    """The answer of an earlier probe, if nothing has changed since."""
    known = receipts.read(*memory(workshop, facts))
    try:
        return msgspec.convert(known.facts, Answer) if known else None
    except msgspec.ValidationError:
        return None


def probe(workshop: Workshop, place: Place, image: str, facts: Facts) -> Answer:
    """Try each way until a GPU works, and remember what came of it.

    :param image: one that is here and has Python; empty in place.
    """
    if not ways(facts):
        found = lacking(facts)
        return Answer(why=found[0].why, lacks=found)
    text = (workshop.scripts / "gpu-probe").read_text()
    lacks: list[Lack] = []
    answer = Answer()
    for way in ways(facts):
        done = _start(place, image, way, ["-c", text])
        devices, lack = read_probe(way, done.returncode, done.stdout, done.stderr)
        if lack is None:
            answer = Answer(way.arguments, way.name, devices)
            break
        lacks.append(lack if facts.contained else missing_in_place(facts, lack))
    if not answer.devices:
        answer = Answer(why=lacks[0].why, lacks=tuple(lacks))
    file, inputs = memory(workshop, facts)
    receipts.write(file, inputs, msgspec.to_builtins(answer))
    return answer


def _start(place: Place, image: str, way: Way, arguments: Sequence[str]) -> CompletedProcess[str]:
    """Run Python with these arguments where jobs run, the GPU given in this way."""
    if isinstance(place, engine.Docker):
        command = ["python3", *arguments]
        job = Job(name="gpu-probe", command=command, gpu=way.arguments, alone=False)
        return place.look(job, image, timeout=PROBE_S)
    # A child, since a broken driver may hang; and with the environment that jobs have.
    clean = ["env", "--ignore-environment", "PATH=/usr/local/bin:/usr/bin:/bin"]
    return processes.look([*clean, sys.executable, *arguments], timeout=PROBE_S)


def demand(workshop: Workshop, mode: str, place: Place) -> None:
    """Refuse ``on`` at once where it can be seen, before anything is made, that there is no GPU."""
    if mode != "on" or workshop.dry:
        return
    facts = look(place)
    if not ways(facts):
        raise refusal(lacking(facts))
    image = images.look_for_dev(workshop) if facts.contained else ""
    if facts.contained and not image:
        return  # it has to be made first; ``decide`` tries it then
    answer = remembered(workshop, facts)
    answer = answer if answer and answer.devices else probe(workshop, place, image, facts)
    if not answer.devices:
        raise refusal(answer.lacks)


def decide(
    workshop: Workshop,
    mode: str,
    place: Place,
    image: str,
    row: Variant,
    say: Callable[[str], None] = console.say,
) -> Answer:
    """What the jobs of a variant get, with the reason said where somebody might want to know.

    :param mode: what ``wanted`` has found.
    :param image: one that is here and has Python; empty in place.
    :param row: the variant's; without CUDA nobody asks, unless the mode is ``on``.
    """
    if mode == "off":
        return Answer(why="--gpu off", hidden=True)
    if mode == "auto" and not row.cuda:
        return NOT_ASKED
    facts = look(place)
    if workshop.dry:
        first = ways(facts)[:1]
        return Answer(first[0].arguments if first else (), why="not asked, with --dry")
    answer = remembered(workshop, facts)
    if answer is None or (mode == "on" and not answer.devices):  # who insists may have mended it
        answer = probe(workshop, place, image, facts)
    answer = suits(answer, row)
    if mode == "on" and not answer.devices:
        raise refusal(answer.lacks)
    say(answer.sentence)
    return replace(answer, demanded=mode == "on")
