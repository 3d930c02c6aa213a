"""What an installation would change: an entry in each client's file, its servers behind us, an agent for each."""

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from overwinter.adapters.client_backups import Change
from overwinter.adapters.client_configs import Imported, files_of, found_in, is_ours, is_that, named, quoted, table_of
from overwinter.adapters.client_edits import NAME, at, entry_of, home_of, maps_of, parsed, with_entry, without_server
from overwinter.errors import ConfigInvalid
from overwinter.frozen import frozen, replace

__all__ = ["Machine", "Plan", "planned"]

SECRETS = "secrets"


@frozen
class Machine:
    """Where things are."""

    place: Path
    """The project: where `overwinter.toml` is."""
    configured: Path
    """`overwinter.toml` itself, which need not be there."""
    home: Path
    """Of overwinter, absolute."""
    user: Path
    """The user's directory."""
    environment: Mapping[str, str]
    command: Sequence[str]
    """What starts overwinter, without its arguments."""


@frozen
class Plan:
    """All of it, before any is done."""

    command: Sequence[str]
    """What starts overwinter."""

    changes: tuple[Change, ...]
    """The first is `overwinter.toml`, if it is one of them."""
    agents: Mapping[str, str]
    """Client to its agent."""
    moved: tuple[Mapping[str, str], ...]
    """Servers that are services now: `service`, `name`, `client`, `path`."""
    left: tuple[Mapping[str, str], ...]
    """Servers that stay where they are, and `why`."""
    absent: tuple[str, ...]
    """Clients that are not on this machine."""
    refused: tuple[Mapping[str, str], ...]
    """Files that are not edited, and `why`."""
    secrets: frozenset[str]
    """What stands in these files and is shown to nobody."""


@frozen
class _File:
    """One file of a client."""

    client: str
    path: Path
    before: str | None
    put: tuple[str, ...]
    """Where our entry goes; () if not into this file."""
    servers: Sequence[tuple[Imported, tuple[tuple[str, ...], ...]]]
    """Those that can move, each with where it is."""
    left: Sequence[Imported]
    """Those that cannot, and why."""

    def change(self, entry: Mapping[str, Any], moves: Callable[[Imported], bool]) -> Change:
        """Return what is to be written, when these servers move.

        Raises:
            ConfigInvalid: the file has not the form that is edited.
        """
        text, taken = self.before or "", list[tuple[str, ...]]()
        try:
            if self.put and at(parsed(self.path, text), self.put) != entry:
                text = with_entry(self.path, text, self.put, entry)
            for server, wheres in self.servers:
                if moves(server):
                    for where in wheres:
                        text = without_server(self.path, text, where)
                        taken.append(where)
        except ValueError as error:
            raise ConfigInvalid(f"{self.path}: {error}") from error
        return Change(path=self.path.resolve(), before=self.before, after=text, put=self.put, taken=tuple(taken))


def planned(machine: Machine, clients: Sequence[str]) -> Plan:
    """Return what an installation for some clients would change.

    Raises:
        ConfigInvalid: `overwinter.toml` cannot be read.
    """
    own = {client: home_of(client, machine.place, machine.user, machine.environment) for client in clients}
    files, refused = _files(machine, {client: path for client, path in own.items() if path is not None})
    services = _Services(machine)
    services.add([server for each in files for server, _ in each.servers])
    changes, moved, left = list[Change](), list[Mapping[str, str]](), list[Mapping[str, str]]()
    for each in files:
        changes.append(each.change(_entry(machine, each.client), lambda server: services.of(server) is not None))
        for server in (*(one for one, _ in each.servers), *each.left):
            row = {"name": server.name, "client": each.client, "path": str(each.path)}
            if not server.skipped and (service := services.of(server)) is not None:
                moved.append({**row, "service": service})
            else:
                left.append({**row, "why": server.skipped or "a service differs from it only in what is secret"})
    installed = [each.client for each in files if each.put]
    return Plan(
        command=machine.command, changes=tuple(each for each in (services.change(installed), *changes) if each.after != (each.before or "")),
        agents={client: client for client in installed}, moved=tuple(moved), left=tuple(left), refused=tuple(refused),
        absent=tuple(client for client in clients if own[client] is None),
        secrets=frozenset(
            secret for each in files for server in (*(one for one, _ in each.servers), *each.left) for secret in server.secrets.values()
        ),
    )  # fmt: skip


def _files(machine: Machine, own: Mapping[str, Path]) -> tuple[list[_File], list[Mapping[str, str]]]:
    files, refused = list[_File](), list[Mapping[str, str]]()
    for client, entry_path in own.items():
        known = files_of(client, machine.place, machine.user, machine.environment)
        for path in dict.fromkeys([*(each for each in known if each.exists()), entry_path]):
            try:
                made = _file(client, path, machine, is_own=path == entry_path)
                made.change(_entry(machine, client), lambda _: True)
                files.append(made)
            except ConfigInvalid as error:
                refused.append({"client": client, "path": str(path), "why": str(error)})
    return files, refused


def _file(client: str, path: Path, machine: Machine, *, is_own: bool) -> _File:
    try:
        before = path.read_bytes().decode() if path.exists() else None
        document = parsed(path, before or "")
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigInvalid(f"{path}: {' '.join(str(error).split())[:300]}") from error
    has_any = before is not None and bool(before.strip())
    servers = found_in(client, path, machine.place, machine.user) if has_any else []
    maps = maps_of(client, path, document, machine.place)
    put = (*maps[-1], NAME) if is_own else ()
    if put and (there := at(document, put)) and not _is_ours(there):
        raise ConfigInvalid(f"{path}: another server is called {NAME!r} there: give it another name")
    can, cannot = list[tuple[Imported, tuple[tuple[str, ...], ...]]](), list[Imported]()
    for server in servers:
        wheres = tuple((*each, server.name) for each in maps if server.name in at(document, each))
        why = server.skipped or _why_left(server, [at(document, where) for where in wheres])
        if not why:
            can.append((server, wheres))
        elif not is_ours(server.words):
            cannot.append(replace(server, skipped=why))
    return _File(client=client, path=path, before=before, put=put, servers=can, left=cannot)


def _why_left(server: Imported, texts: Sequence[Mapping[str, Any]]) -> str:
    """Return why a server that could be imported is not moved: it would not be there what it is here."""
    if any(each != texts[0] for each in texts):
        return "two servers of this name are in the file"
    return "; ".join(server.notes)


def _entry(machine: Machine, client: str) -> Mapping[str, Any]:
    return entry_of(client, [*machine.command, "mcp", "--home", str(machine.home), "--agent", client])


def _is_ours(server: Mapping[str, Any]) -> bool:
    command = server.get("command")
    words = cast("list[Any]", command) if isinstance(command, list) else [command, *(server.get("args") or [])]
    return is_ours([str(each) for each in words])


class _Services:
    """The services of `overwinter.toml`, and those that come to them."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        try:
            self._before = machine.configured.read_bytes().decode() if machine.configured.exists() else None
            self._document = tomllib.loads((self._before or "").removeprefix("\ufeff"))
        except (OSError, ValueError) as error:
            raise ConfigInvalid(f"{machine.configured}: {error}") from error
        self._tables: dict[str, Any] = dict(self._document.get("services") or {})
        self._texts = list[str]()
        self._secrets: dict[str, str] = {}

    def add(self, servers: Sequence[Imported]) -> None:
        """Make services of servers that are none yet."""
        inside = os.path.relpath(self._machine.home / SECRETS, self._machine.configured.parent)
        for name, server in named(servers, self._tables):
            text, secrets = table_of(name, server, lambda secret: f"{inside}/{secret}")
            if secrets and re.search(r"[\s'\"\\}]", inside):
                raise ConfigInvalid(
                    f"{inside!r} holds blanks or quotes: secrets cannot be referred to there; choose another --home"
                )
            self._texts.append(text)
            self._secrets |= secrets
            self._tables[name] = tomllib.loads(text)["services"][name]

    def of(self, server: Imported) -> str | None:
        """Return the service that is this very server, secrets and all; None if there is none."""
        return next((name for name, table in self._tables.items() if is_that(server, table, self._secret)), None)

    def change(self, agents: Sequence[str]) -> Change:
        """Return the file with the new services, and an agent for each client."""
        known: Mapping[str, Any] = self._document.get("agents") or {}
        wanted = [*([] if known else ["default"]), *agents] if agents else []
        owner = known.get("default", {}).get("owner")
        texts = [*self._texts, *(_agent(name, owner) for name in wanted if name not in known)]
        before = self._before or ""
        after = before.rstrip("\n") + ("\n\n" if before.strip() else "") + "\n".join(texts) if texts else before
        parent = self._machine.configured.parent
        return Change(
            path=self._machine.configured.resolve(), before=self._before, after=after,
            files={str((parent / path).absolute()): secret for path, secret in self._secrets.items()},
        )  # fmt: skip

    def _secret(self, path: str) -> str | None:
        if path in self._secrets:
            return self._secrets[path]
        place = self._machine.configured.parent / path
        if not place.absolute().is_relative_to(self._machine.home / SECRETS):
            return None
        try:
            return place.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None


def _agent(name: str, owner: str | None) -> str:
    """Return the table of an agent that may do what the one of a home without a configuration may: read, and ask for all else.

    It asks whom the default agent asks: the people of a home are asked under their names, not under a word for them.
    """
    asked = "" if owner is None else f"owner = {quoted(owner)}\n"
    return f'[agents.{name}]\n{asked}reads = ["*"]\nasks = ["*"]\nmodels = ["*"]\n'
