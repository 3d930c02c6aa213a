"""What `overwinter mcp install` changes in the configuration of another client: one entry put, servers taken, as text.

| client | the entry goes to | under | besides the command it says |
|---|---|---|---|
| claude-code | `~/.claude.json` | `mcpServers` | `alwaysLoad`: else the tools stay behind its tool search, where it finds them late or never |
| codex | `~/.codex/config.toml` | `mcp_servers` | `default_tools_approval_mode`: policy is asked here; time to start |
| copilot | `~/.copilot/mcp-config.json` | `mcpServers` | `tools` |
| opencode | `~/.config/opencode/opencode.jsonc` | `mcp` | `timeout` of listing tools: its own is 5 s |
| gemini | `~/.gemini/settings.json` | `mcpServers` | |
| vscode | `mcp.json` of the user profile | `servers` | |
| cursor | `~/.cursor/mcp.json` | `mcpServers` | |
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from overwinter.adapters.client_configs import files_of
from overwinter.adapters.jsonc import put, take
from overwinter.adapters.toml_tables import append, put_table, table_text, take_table

__all__ = [
    "INSTALLED", "NAME", "at", "entry_of", "home_of", "maps_of", "parsed", "with_entry", "with_server", "without_server",
]  # fmt: skip

NAME = "overwinter"
INSTALLED = ("claude-code", "codex", "copilot", "opencode", "gemini", "vscode", "cursor")
"""Clients whose form of an entry is known for sure."""
NO_PROJECT = "\0"
"""A directory that there is not: beside it stand the files that belong to no project, also where the user's own is one."""
LIST_MS = 30_000
START_S = 30


def home_of(client: str, place: Path, home: Path, environment: Mapping[str, str]) -> Path | None:
    """Return the file that gets a client's entry, None if the client is not on this machine.

    It is the user's own, if that or its directory is there; else the project's, if there is one.
    """
    nowhere = home / NO_PROJECT
    own = [path for path in files_of(client, nowhere, home, environment) if not path.is_relative_to(nowhere)]
    if existing := [path for path in own if path.exists()]:
        return existing[0]
    directory = home / ".claude" if client == "claude-code" else own[0].parent
    if directory.is_dir():
        return own[0]
    return next((path for path in files_of(client, place, home, environment) if path.exists()), None)


def entry_of(client: str, command: Sequence[str]) -> Mapping[str, Any]:
    """Return a client's entry for a server that this command starts."""
    first, *rest = command
    match client:
        case "opencode":
            return {"type": "local", "command": [first, *rest], "enabled": True, "timeout": LIST_MS}
        case "codex":
            return {
                "command": first, "args": rest,
                "startup_timeout_sec": START_S, "default_tools_approval_mode": "approve",
            }  # fmt: skip
        case "claude-code":
            return {"type": "stdio", "command": first, "args": rest, "alwaysLoad": True}
        case "copilot":
            return {"type": "local", "command": first, "args": rest, "tools": ["*"]}
        case "vscode":
            return {"type": "stdio", "command": first, "args": rest}
        case _:
            return {"command": first, "args": rest}


def maps_of(client: str, path: Path, document: Mapping[str, Any], place: Path) -> list[tuple[str, ...]]:
    """Return where in a client's file its servers are: the way to each table of them; the last gets a new entry."""
    key = {"codex": "mcp_servers", "vscode": "servers", "opencode": "mcp"}.get(client, "mcpServers")
    if (client, path.name) == ("opencode", "mcp.json"):
        return [()]
    if client == "opencode" and "servers" in at(document, (key,)):
        return [(key, "servers")]
    if (client, path.name) == ("claude-code", ".claude.json"):
        return [("projects", str(place), key), (key,)]
    if client == "claude-code" and document and key not in document:
        return [()]  # a bare map
    return [(key,)]


def parsed(path: Path, text: str) -> dict[str, Any]:
    """Return what a file says; a blank one says nothing.

    Raises:
        ValueError: it is not of its form.
    """
    text = text.removeprefix("\ufeff")
    if path.suffix == ".toml":
        return tomllib.loads(text)
    if not text.strip():
        return {}
    try:
        return json.loads(text)
    except ValueError:
        import json5  # noqa: PLC0415 - comments occur in all of these files, but not in most

        return json5.loads(text)


def with_entry(path: Path, text: str, where: Sequence[str], entry: Mapping[str, Any]) -> str:
    """Return the text of a file with a server at a place; one that is there is replaced.

    Raises:
        ValueError: the file is not of a form that is edited; the message has the line.
    """
    if path.suffix != ".toml":
        return put(text, where, entry)
    is_there = where[-1] in at(parsed(path, text), where[:-1])
    return put_table(take_table(text, where) if is_there else text, where, entry)


def without_server(path: Path, text: str, where: Sequence[str]) -> str:
    """Return the text of a file without the server at a place.

    Raises:
        ValueError: as `with_entry`.
    """
    return take_table(text, where) if path.suffix == ".toml" else take(text, where)


def with_server(path: Path, text: str, where: Sequence[str], earlier: str) -> str:
    """Return the text of a file with the server that an earlier text of it has at a place; one that is there stays.

    Raises:
        ValueError: as `with_entry`.
    """
    if where[-1] in at(parsed(path, text), where[:-1]):
        return text
    server = at(parsed(path, earlier), where)
    return (
        append(text, table_text(earlier, where), where, server) if path.suffix == ".toml" else put(text, where, server)
    )


def at(document: Mapping[str, Any], where: Sequence[str]) -> Mapping[str, Any]:
    """Return the table at a place; an empty one if there is none."""
    node: Any = document
    for key in where:
        node = cast("Mapping[str, Any]", node).get(key, {}) if isinstance(node, Mapping) else {}
    return cast("Mapping[str, Any]", node) if isinstance(node, Mapping) else {}
