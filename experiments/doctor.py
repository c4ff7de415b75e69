"""Is this installation whole? A check each for what runs depend on; none opens a connection beyond this machine."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

from packaging.requirements import Requirement

PYTHON = ((3, 11), (3, 13))
_PATIENCE = 10.0  # seconds for an answer of Docker's
_SHARED = 1 << 30  # bytes of /dev/shm below which Ray spills to disk
_SILENT = ("FLWR_TELEMETRY_ENABLED=0", "FLWR_DISABLE_UPDATE_CHECK=1", "RAY_USAGE_STATS_ENABLED=0")


@dataclass(frozen=True, slots=True)
class Check:
    """What was found, and what to do about it.

    ``note``: something optional is missing; ``broken``: runs will fail.
    """

    name: str
    state: Literal["ok", "note", "broken"]
    says: str
    do: str = ""


Examine: TypeAlias = Callable[[str, str | None], Check]


def python(name: str, data_dir: str | None) -> Check:
    del data_dir
    low, high = (".".join(map(str, bound)) for bound in PYTHON)
    says = f"Python {platform.python_version()}, {platform.platform()}"
    if PYTHON[0] <= sys.version_info[:2] <= PYTHON[1]:
        return Check(name, "ok", says)
    return Check(name, "broken", f"{says}; expected {low} to {high}", "make a virtual environment with such a Python")


def packages(name: str, data_dir: str | None) -> Check:
    """Every dependency, of a version that was asked for."""
    del data_dir
    try:
        needed = [Requirement(text) for text in requires("fl-sim") or ()]
    except PackageNotFoundError:
        return Check(name, "broken", "fl-sim is not installed", "pip install -c constraints.txt -e . in its folder")
    wanted = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    if wrong := [problem for one in wanted if (problem := _unmet(one))]:
        return Check(name, "broken", "; ".join(wrong), "pip install -c constraints.txt -e . in fl-sim's folder")
    shown = ("fl-sim", "flwr", "ray", "torch")
    return Check(name, "ok", f"{len(wanted)} as required: {', '.join(f'{one} {version(one)}' for one in shown)}, ...")


def _unmet(wanted: Requirement) -> str | None:
    try:
        there = version(wanted.name)
    except PackageNotFoundError:
        return f"{wanted.name} is missing"
    return None if wanted.specifier.contains(there, prereleases=True) else f"{wanted.name} is {there}, not {wanted}"


def gpu(name: str, data_dir: str | None) -> Check:
    del data_dir
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        says = f"{torch.cuda.device_count()} x {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        return Check(name, "ok", says, "runtime.gpus = 0.5 in a study gives each attack half of one")
    if shutil.which("nvidia-smi"):
        says = f"there is an NVIDIA driver, but torch {torch.__version__} sees no GPU"
        return Check(
            name, "note", says, "install a torch build for the driver's CUDA; until then attacks run on the CPU"
        )
    return Check(name, "note", "none: attacks run on the CPU", "leave runtime.gpus at 0")


def ray(name: str, data_dir: str | None) -> Check:
    """Starts it, on loopback, and lets it answer."""
    del data_dir
    shared = Path("/dev/shm")
    small = shared.exists() and shutil.disk_usage(shared).free < _SHARED
    try:
        from fl_sim.runtime.pool import RaySession

        with RaySession(cpus=1, address=None):
            import ray as ray_

            answer = ray_.get(ray_.remote(lambda: os.getpid()).options(num_cpus=0).remote(), timeout=60)  # noqa: PLW0108
    except Exception as error:  # whatever keeps it from starting is what is to be said
        return Check(name, "broken", f"does not start: {error}", "use --executor inline, which needs no Ray")
    says = f"starts on loopback and answers (worker {answer})"
    if small:
        return Check(
            name, "note", f"{says}; /dev/shm has less than 1 GiB free", "in Docker, set shm_size = 1gb or more"
        )
    return Check(name, "ok", says)


def docker(name: str, data_dir: str | None) -> Check:
    """Needed by deployments in containers only."""
    del data_dir
    if shutil.which("docker") is None:
        return Check(
            name, "note", "not installed", "install Docker Engine to deploy in containers; nothing else needs it"
        )
    command = ["docker", "info", "--format", "{{.ServerVersion}}"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name, "note", f"gives no answer: {error}", "start the engine to deploy in containers")
    if ended.returncode or not ended.stdout.strip():
        reason = (ended.stderr.strip() or "no answer").splitlines()[-1]
        return Check(name, "note", f"installed, but: {reason}", "start the engine, and join the group docker")
    return Check(name, "ok", f"engine {ended.stdout.strip()}")


def data(name: str, data_dir: str | None) -> Check:
    from fl_sim.data.datasets import DOWNLOADED, found

    places = {one: found(one, data_dir) for one in DOWNLOADED}
    here = ", ".join(["digits (bundled)", *(f"{one} ({place})" for one, place in places.items() if place)])
    if missing := [one for one, place in places.items() if not place]:
        folder = data_dir or os.environ.get("FL_SIM_DATA") or "FL_SIM_DATA, which is not set"
        do = f"they are downloaded at first use; without a network, put their files into {folder}"
        return Check(name, "note", f"here: {here}; not here: {', '.join(missing)}", do)
    return Check(name, "ok", here)


def weights(name: str, data_dir: str | None) -> Check:
    from fl_sim.metrics.perceptual import weights_found

    if place := weights_found(Path(data_dir) if data_dir else None):
        return Check(name, "ok", f"of LPIPS: {place}")
    do = "downloaded at first use, or set evaluation.lpips = false; no other weights are needed"
    return Check(name, "note", "of LPIPS: not here", do)


def network(name: str, data_dir: str | None) -> Check:
    """What would be sent without being asked for."""
    del data_dir
    talking = [text for text in _SILENT if os.environ.get(text.partition("=")[0]) != text.partition("=")[2]]
    if talking:
        return Check(
            name, "note", f"telemetry is on: set otherwise than {', '.join(talking)}", f"unset, or {talking[0]}"
        )
    return Check(name, "ok", "telemetry and update checks of Flower and Ray are off; only missing data is downloaded")


CHECKS: Mapping[str, Examine] = MappingProxyType(
    {
        "python": python,
        "packages": packages,
        "gpu": gpu,
        "ray": ray,
        "docker": docker,
        "data": data,
        "weights": weights,
        "network": network,
    }
)


def examine(data_dir: str | None) -> list[Check]:
    """Every check; what it raises is what it found."""
    found = []
    for name, check in CHECKS.items():
        try:
            found.append(check(name, data_dir))
        except Exception as error:  # a broken library may raise anything, and the other checks go on
            found.append(Check(name, "broken", f"{type(error).__name__}: {error}", "reinstall it, then run this again"))
    return found
