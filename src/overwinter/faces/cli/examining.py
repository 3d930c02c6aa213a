"""`overwinter doctor`: everything a home needs, tried for real, each with what to do if it is missing."""

import importlib.util
import platform
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import apsw

from overwinter.adapters.home import Home, config_path, holder, open_home, socket_path
from overwinter.adapters.models.prices import PRICES_NAME, read_prices
from overwinter.adapters.monty import JailSettings, open_interpreter
from overwinter.adapters.openapi.document import parse
from overwinter.adapters.openapi.operations import operations
from overwinter.adapters.python_tools import load_python_tools
from overwinter.adapters.sqlite import open_store
from overwinter.adapters.sqlite.schema import SQLITE_MIN, is_library_safe
from overwinter.app.credentials import missing
from overwinter.app.parts import rules_now
from overwinter.clock import SystemClock
from overwinter.config import Config, Service, load
from overwinter.errors import OverwinterError
from overwinter.faces.cli.door import is_served, served_socket
from overwinter.faces.client import Client
from overwinter.ids import Ids
from overwinter.interpreter import Limits

__all__ = ["examine"]

DISK_MB_MIN = 500
FILESYSTEMS_REMOTE = ("nfs", "cifs", "smb", "fuse.sshfs", "9p")


def examine(home: Path) -> list[dict[str, str]]:
    """Return findings: `state` is well, gap or wrong; `what` was looked at; what was `found`."""
    findings: list[dict[str, str]] = []
    said: dict[str, str] = {}
    """What is wrong, by its words: a file that cannot be read keeps much else from being looked at."""
    for what, look in _looks(home):
        try:
            state, found = look()
        except (OverwinterError, OSError) as error:
            first = said.setdefault(str(error), what)
            state, found = ("wrong", str(error)) if first == what else ("gap", f"not looked at: see {first}")
        findings.append({"state": state, "what": what, "found": found})
    return findings


Look = Callable[[], tuple[str, str]]


def _looks(home: Path) -> Iterator[tuple[str, Look]]:
    yield "python", _python
    yield "sqlite", _sqlite
    yield "configuration", lambda: _configuration(home)
    yield "jail", lambda: _jail(_config(home))
    yield "disk", lambda: _disk(home)
    yield "home", lambda: _home(home)
    yield "store", lambda: _store(home)
    yield "policies", lambda: _policies(home)
    yield "tools", lambda: _tools(home)
    yield "models", lambda: _models(home)
    yield "webhooks", lambda: _webhooks(home)
    yield "server", lambda: _server(home)


def _config(home: Path) -> Config:
    return load(config_path(home))


def _python() -> tuple[str, str]:
    return "well" if sys.version_info >= (
        3,
        11,
    ) else "wrong", f"Python {platform.python_version()}, 3.11 or newer is needed"


def _sqlite() -> tuple[str, str]:
    version = apsw.sqlite_lib_version()
    return "well" if is_library_safe(
        version
    ) else "wrong", f"SQLite {version}, {'.'.join(map(str, SQLITE_MIN))} is the oldest safe one"


def _configuration(home: Path) -> tuple[str, str]:
    place = config_path(home)
    config = load(place)
    text = f"{len(config.agents)} agents, {len(config.services)} services"
    return "well", f"{place}: {text}" if place.exists() else f"no {place.name}: defaults, no tools"


def _jail(config: Config) -> tuple[str, str]:
    if config.jail.off:
        return (
            "gap",
            "[jail] off = true: programs run in the interpreter's own sandbox alone; only for programs you trust",
        )
    missing = frozenset(config.jail.allow_missing)

    async def start() -> None:
        async with open_interpreter(limits=Limits(), workers=1, jail=JailSettings(allow_missing=missing)):
            pass

    anyio.run(start)
    if missing:
        return "gap", f"a worker starts; accepted as missing: {', '.join(sorted(missing))}"
    return "well", "a worker starts: own namespaces, landlock, system call filter, no capabilities"


def _disk(home: Path) -> tuple[str, str]:
    place = next(path for path in (home.absolute(), *home.absolute().parents) if path.exists())
    free_mb = shutil.disk_usage(place).free >> 20
    kind = _filesystem(place)
    if kind in FILESYSTEMS_REMOTE:
        return "wrong", f"{place} is on {kind}: SQLite needs a local disk"
    return "well" if free_mb >= DISK_MB_MIN else "wrong", f"{free_mb} MB free on {place} ({kind})"


def _filesystem(place: Path) -> str:
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, found, *_ = line.split(" ")
        mount = mount.replace("\\040", " ")  # as fstab(5) writes a blank
        if place.is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, found
    return kind


def _home(home: Path) -> tuple[str, str]:
    if not home.exists():
        return "well", f"{home} does not exist yet: the first command makes it"
    socket_path(home)
    size_mb = sum(each.stat().st_size for each in home.rglob("*") if each.is_file()) / (1 << 20)
    return "well", f"{home}: {size_mb:.1f} MB"


def _store(home: Path) -> tuple[str, str]:
    """Open the store, as the next command would; who holds the home has done so."""
    if not home.exists():
        return "well", "none yet"
    if is_served(home):
        fault = Client(served_socket(home)).get("health")["log_fault"]
        return ("wrong", fault) if fault else ("well", "open: the server works with it")

    async def count(place: Home) -> tuple[int, str]:
        clock = SystemClock()
        async with open_store(place.database_path, clock, Ids(clock.now_us), key=place.key) as store:
            return sum((await store.counts()).values()), store.audit.fault

    with open_home(home) as place:
        runs, fault = anyio.run(count, place)
    return ("wrong", fault) if fault else ("well", f"opens: {runs} runs")


def _policies(home: Path) -> tuple[str, str]:
    config, directory = _config(home), config_path(home).parent
    found = f"{len(rules_now(config, directory).rules)} rules"
    health = Client(served_socket(home)).get("health") if is_served(home) else {}
    if health.get("log_fault"):
        return "wrong", f"{found}, and none counts: nothing is allowed while the audit log cannot be signed, see store"
    if fault := health.get("rules_fault"):
        return "wrong", f"{found}, but the server has not read them: `overwinter policy reload`; it says {fault}"
    return "well", found


def _tools(home: Path) -> tuple[str, str]:
    """Count functions, and read the credential of each service as its first call would; call nobody."""
    config, directory = _config(home), config_path(home).parent
    services = {name: service.python for name, service in config.services.items() if service.python}

    async def count() -> int:
        async with load_python_tools(services, directory=directory, threads_max=1) as tools:
            return sum(len(module.functions) for module in tools.catalog.modules.values())

    described = 0
    for service in config.services.values():
        if service.openapi and not service.openapi.startswith("http"):
            described += len(operations(parse(_read(directory / service.openapi), service.openapi))[0])
    asked = [each for each in config.services.values() if each.mcp or each.openapi.startswith("http")]
    found = f"{anyio.run(count) + described} functions of {len(config.services) - len(asked)} services"
    found += f"; `overwinter tools list` asks the other {len(asked)}" if asked else ""
    if absent := [why for name, each in config.services.items() if (why := _absent(name, each))]:
        return "wrong", f"{found}; {'; '.join(absent)}"
    return _credentials(home, "services", found)


def _absent(name: str, service: Service) -> str:
    """Return what an MCP server lacks to be started; "": nothing that can be seen without starting it."""
    if not service.mcp:
        return ""
    if importlib.util.find_spec("mcp") is None:
        return f"services.{name}: the MCP client is not installed: pip install 'overwinter[mcp]'"
    try:
        program = "" if "://" in service.mcp else next(iter(shlex.split(service.mcp)), "")
    except ValueError as error:
        return f"services.{name}.mcp: {error}"
    if "/" in program or "$" in program or "PATH" in service.env:  # looked for elsewhere than here
        return ""
    return f"services.{name}.mcp: there is no program {program!r}" if program and shutil.which(program) is None else ""


def _models(home: Path) -> tuple[str, str]:
    """Read prices and the credential of each provider, as the first call would, and call nobody."""
    config, directory = _config(home), config_path(home).parent
    read_prices(directory / PRICES_NAME)
    found = f"{len(config.models)} models of {len(config.providers)} providers, {len(config.budgets)} budgets"
    return _credentials(home, "providers", found)


def _webhooks(home: Path) -> tuple[str, str]:
    """Read the key of each webhook, as its first delivery would, and tell nobody."""
    return _credentials(home, "webhooks", f"{len(_config(home).webhooks)} webhooks")


def _credentials(home: Path, kind: str, found: str) -> tuple[str, str]:
    """Read the credentials of a kind. The server has an environment of its own, so one that is missing is a gap and no fault."""
    lacking = missing(_config(home), config_path(home).parent, home, (kind,))
    return ("gap", f"{found}; without their credentials here: {'; '.join(lacking)}") if lacking else ("well", found)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OverwinterError(f"{path} cannot be read: {error.strerror}") from error


def _server(home: Path) -> tuple[str, str]:
    if not is_served(home):
        pid = holder(home)
        return "well", f"nobody serves {home}: its runs sleep until `overwinter serve`" + (
            f" (last held by {pid})" if pid else ""
        )
    health = Client(served_socket(home)).get("health")
    if health.get("is_outdated"):
        return (
            "wrong",
            f"process {holder(home)} serves it by an older overwinter.toml: restart it, and what is written now holds",
        )
    runs = ", ".join(f"{count} {name}" for name, count in health["runs"].items())
    return (
        "well",
        f"process {holder(home)} serves it: {runs or 'no runs'}; {health['calls_in_flight']} calls in flight, {health['engine']}",
    )
