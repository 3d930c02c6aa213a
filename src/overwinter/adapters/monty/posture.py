"""The jail seen from outside: how workers are to be jailed, whether one is, and what this machine can offer."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

from overwinter.errors import JailUnavailable
from overwinter.frozen import frozen

__all__ = ["JailSettings", "Layer", "diagnose", "escapes", "posture_faults", "refusal"]

PROBES = Path(__file__).with_name("probes.py")
PROBE_S_MAX = 30.0
REMEDIES: Mapping[str, str] = {
    "namespaces": "allow user namespaces (user.max_user_namespaces, or the container's profile)",
    "landlock": "use a kernel with landlock (5.13 or newer, `lsm=` containing landlock)",
    "seccomp": "use an x86_64 machine whose kernel or container permits seccomp filters",
}


@frozen
class JailSettings:
    """How workers are jailed. `doctor` shows every gap that is accepted here."""

    is_off: bool = False
    """Start workers without any jail: only where the programs are trusted."""
    allow_missing: frozenset[str] = frozenset()
    """Layers (`namespaces`, `landlock`, `seccomp`) that may be missing; namespaces and seccomp not both."""


@frozen
class Layer:
    """One layer of the jail on this machine."""

    name: str
    reason: str
    """Why it cannot be had; "" if it can."""
    is_accepted: bool
    """The operator does without it if it is missing, or without any jail."""

    @property
    def is_available(self) -> bool:
        """Return whether the machine offers it."""
        return not self.reason


def diagnose(jail: JailSettings) -> tuple[Layer, ...]:
    """Return what this machine has of each layer, by trying each in a process of its own. Takes about 0.1 s.

    Raises:
        JailUnavailable: the attempt itself failed.
    """
    missing = cast("dict[str, str]", _probe("layers"))
    return tuple(
        Layer(name=name, reason=reason, is_accepted=jail.is_off or name in jail.allow_missing)
        for name, reason in missing.items()
    )


def escapes(worker: Path, jail: JailSettings) -> Mapping[str, bool]:
    """Return forbidden acts, tried from inside the jail of `worker`, each with whether it was denied.

    Raises:
        JailUnavailable: the jail cannot be entered.
    """
    return cast("dict[str, bool]", _probe("escape", *jail_words(jail), "--", str(worker)))


def jail_words(jail: JailSettings) -> list[str]:
    """Return the options of `jail.py` that stand for these settings."""
    return [word for layer in sorted(jail.allow_missing) for word in ("--allow-missing", layer)]


def _probe(*words: str) -> object:
    command = [sys.executable, "-IS", str(PROBES), *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S_MAX, check=False)  # noqa: S603 - our own program
    lines = ended.stdout.splitlines()
    if not lines:
        raise JailUnavailable(f"the jail cannot be tried: {ended.stderr.strip()[-500:]}")
    return json.loads(lines[-1])


def refusal(jail: JailSettings) -> JailUnavailable:
    """Return the error to raise after a worker refused to start: which layer is missing, why, and what to do."""
    try:
        lacking = [layer for layer in diagnose(jail) if layer.reason and not layer.is_accepted]
    except (JailUnavailable, OSError, subprocess.TimeoutExpired):
        lacking = []
    said = "; ".join(f"{layer.name}: {layer.reason} -> {REMEDIES[layer.name]}" for layer in lacking)
    return JailUnavailable(
        f"the interpreter's jail cannot be had on this machine ({said or 'the worker said why on standard error'}); or accept the "
        "gap by name in overwinter.toml ([jail] allow_missing), or run programs you trust without a jail ([jail] off = true)"
    )


def posture_faults(pid: int, jail: JailSettings) -> list[str]:
    """Return what is wrong with a worker's jail as the host sees it; empty if it is as it should be.

    What the kernel hides from an ordinary user, because the worker is in another user namespace, is not judged.

    Raises:
        OSError: the worker has ended.
    """
    place = Path(f"/proc/{pid}")
    lines = (place / "status").read_text(encoding="ascii").splitlines()
    fields = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    faults: list[str] = []
    if os.geteuid() == 0 and "0" in fields["Uid"].split():
        faults.append("it is root")
    if int(fields["CapEff"], 16):
        faults.append("it has capabilities")
    if fields["NoNewPrivs"] != "1":
        faults.append("it can gain privileges")
    if fields["Seccomp"] != "2" and "seccomp" not in jail.allow_missing:
        faults.append("it has no system call filter")
    with suppress(PermissionError):
        is_shared = (place / "ns" / "net").readlink() == Path("/proc/self/ns/net").readlink()
        if is_shared and "namespaces" not in jail.allow_missing:
            faults.append("it shares the network")
    with suppress(PermissionError):
        extra = sorted({each.name for each in (place / "fd").iterdir()} - {"0", "1", "2"})
        if extra:
            faults.append(f"it holds files {extra}")
    with suppress(PermissionError):
        if (place / "environ").read_bytes():
            faults.append("it has an environment")
    return faults
