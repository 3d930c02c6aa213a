"""MCP servers in the configuration files of other clients, as services of ours.

| client | files | servers under | variables |
|---|---|---|---|
| claude-code | `.mcp.json`, `~/.claude.json` (user, and project by path) | `mcpServers`, or a bare map | `${VAR}`, `${VAR:-default}` |
| claude-desktop | `claude_desktop_config.json` in its directory | `mcpServers` | none |
| cursor | `.cursor/mcp.json`, `~/.cursor/mcp.json` | `mcpServers` | `${env:X}`, `${userHome}`, `${workspaceFolder}` |
| vscode | `.vscode/mcp.json`, `mcp.json` of the user profile | `servers` | as Cursor, and `${input:id}` |
| codex | `.codex/config.toml`, `~/.codex/config.toml` | `mcp_servers` | none; names of variables |
| opencode | `opencode.json[c]` here and in `~/.config/opencode`, `.agents/mcp.json` | `mcp` | `{env:X}`, `{file:path}` |
| gemini | `.gemini/settings.json`, `~/.gemini/settings.json` | `mcpServers` | `$VAR`, `${VAR}` |
| copilot | `~/.copilot/mcp-config.json` | `mcpServers` | none |

A secret that stands in such a file goes to a file of its own, readable by its owner alone, and a reference to it into ours.
"""

import json
import keyword
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, cast

from overwinter.config import is_secret
from overwinter.errors import ConfigInvalid
from overwinter.frozen import frozen, replace

__all__ = ["CLIENTS", "Imported", "files_of", "found_in", "is_ours", "is_that", "named", "quoted", "table_of"]

FILE_BYTES_MAX = 64 << 20
"""Claude Code keeps its history beside its servers."""
COMMENTED_BYTES_MAX = 1 << 20
TIMEOUT_S_MAX = 86_400
TAKEN = "tools"
_TOKEN = re.compile(r"^(gh[pousr]_|github_pat_|sk-|xox[abprs]-|glpat-|AKIA|eyJ)[\w.-]{12,}$")
_INPUT = re.compile(r"\$\{input:([^}]+)\}")
_IN_URL = re.compile(r"(?i)(?<=://)[^/\s@]+:[^/\s@]+(?=@)|(?<=[?&])(?:\w*(?:key|token|secret)\w*)=([^&\s#]+)")


@frozen
class Imported:
    """One server, as the table of a service would have it."""

    name: str
    """As its client calls it; `named` makes a module's name of it."""
    client: str
    path: Path
    """Of the file it was found in."""
    address: str = ""
    words: tuple[str, ...] = ()
    """The command that starts it, if it has no address."""
    mcp: str = ""
    """The one or the other as `services.NAME.mcp` has it."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    cwd: str = ""
    timeout_s: float = 0.0
    """0: not said."""
    secrets: Mapping[str, str] = field(default_factory=dict[str, str])
    """Placeholder in the texts above to the secret that stood there; see `named`."""
    notes: tuple[str, ...] = ()
    """What is not taken over, and what is to be done, for people."""
    skipped: str = ""
    """Why it is not taken over at all; "" if it is."""


Server = Mapping[str, Any]


def files_of(client: str, place: Path, home: Path, environment: Mapping[str, str]) -> list[Path]:
    """Return where a client keeps its servers, nearest first, whether or not the files are there.

    Args:
        client: one of `CLIENTS`.
        place: the project.
        home: of the user.
        environment: where some clients are told their directory.
    """
    applications = home / "Library" / "Application Support" if sys.platform == "darwin" else home / ".config"
    files: Mapping[str, list[Path]] = {
        "claude-code": [place / ".mcp.json", home / ".claude.json"],
        "claude-desktop": [applications / "Claude" / "claude_desktop_config.json"],
        "cursor": [place / ".cursor" / "mcp.json", home / ".cursor" / "mcp.json"],
        "vscode": [place / ".vscode" / "mcp.json", applications / "Code" / "User" / "mcp.json"],
        "codex": [
            place / ".codex" / "config.toml",
            Path(environment.get("CODEX_HOME") or home / ".codex") / "config.toml",
        ],
        "opencode": [
            *(place / name for name in ("opencode.json", "opencode.jsonc", ".agents/mcp.json")),
            *(home / ".config" / "opencode" / name for name in ("opencode.jsonc", "opencode.json")),
        ],
        "gemini": [place / ".gemini" / "settings.json", home / ".gemini" / "settings.json"],
        "copilot": [Path(environment.get("COPILOT_HOME") or home / ".copilot") / "mcp-config.json"],
    }
    return files[client]


def found_in(client: str, path: Path, place: Path, home: Path) -> list[Imported]:
    """Return the servers in a client's file.

    Args:
        client: whose form the file has.
        path: the file.
        place: the project, for what is kept by project and for variables.
        home: of the user.

    Raises:
        ConfigInvalid: the file cannot be read, or has no known shape; the message names the place.
    """
    document = _read(path)
    servers = {**_servers(client, document, path, place)}
    made = [_entry(client, str(name), server, path) for name, server in servers.items()]
    return [_normal(each, place, home) for each in made]


def named(entries: Sequence[Imported], taken: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Imported]]:
    """Yield entries that are new, each with the name of its service; the same server in two clients is one.

    Args:
        entries: in order of precedence.
        taken: the services there are, name to table: a server that is one of them is left out.
    """
    known = [(_shape(str(table.get("mcp"))), dict(table.get("env") or {}).keys()) for table in taken.values()]
    names = set(taken)
    for entry in entries:
        shape = (_shape(entry.mcp), dict(entry.env).keys())
        if entry.skipped or shape in known:
            continue
        known.append(shape)
        name = _identifier(entry.name)
        for tail in ("", f"_{_identifier(entry.client)}", *(f"_{'abcdefgh'[n]}" for n in range(8))):
            if name + tail not in names:
                name += tail
                break
        names.add(name)
        yield name, entry


def table_of(name: str, entry: Imported, secret_path: Callable[[str], str]) -> tuple[str, Mapping[str, str]]:
    """Return the table of a service as TOML, and the secrets that are to be written: path to text.

    Args:
        name: of the service.
        entry: the server.
        secret_path: path for the secret of a name, as the configuration has it.
    """
    written = {placeholder: secret_path(f"{name}.{number}") for number, placeholder in enumerate(entry.secrets, 1)}

    def text(value: str) -> str:
        if value in written:
            return quoted(f"file:{written[value]}")
        for placeholder, path in written.items():
            value = value.replace(placeholder, f"${{file:{path}}}")
        return quoted(value)

    lines = [f"[services.{name}]  # from {entry.client}", f"mcp = {text(_in_words(entry.mcp, written))}"]
    for group, table in (("env", entry.env), ("headers", entry.headers)):
        if table:
            rows = ", ".join(f"{_key(key)} = {text(value)}" for key, value in table.items())
            lines.append(f"{group} = {{ {rows} }}")
    if entry.cwd:
        lines.append(f"cwd = {text(entry.cwd)}")
    if entry.timeout_s:
        lines.append(f"timeout_s = {entry.timeout_s:g}")
    return "\n".join(lines) + "\n", {written[key]: secret for key, secret in entry.secrets.items()}


def is_that(entry: Imported, table: Mapping[str, Any], secret: Callable[[str], str | None]) -> bool:
    """Return whether the table of a service is this very server, with the same secrets.

    Args:
        entry: the server.
        table: of `services.NAME`.
        secret: text of a file of secrets, by its path as the configuration has it; None if it is none of ours.
    """

    def there(text: object) -> str:
        whole = str(text)
        if whole.startswith("file:") and (found := secret(whole.removeprefix("file:"))) is not None:
            return found
        return re.sub(
            r"\$\{file:([^}]+)\}", lambda found: found[0] if (one := secret(found[1])) is None else one, whole
        )

    def here(text: str) -> str:
        return re.sub(r"\0\d+\0", lambda found: entry.secrets[found[0]], text)

    tables = [_texts(table.get(key)) for key in ("env", "headers")]
    return (
        there(table.get("mcp") or "") == here(entry.mcp)
        and str(table.get("cwd") or "") == here(entry.cwd)
        and [{key: there(value) for key, value in each.items()} for each in tables]
        == [{key: here(value) for key, value in each.items()} for each in (entry.env, entry.headers)]
    )


# --- Files -------------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ConfigInvalid(f"{path} has more than {FILE_BYTES_MAX >> 20} MB")
        text = path.read_text(encoding="utf-8-sig")
        document = tomllib.loads(text) if path.suffix == ".toml" else _json(text)
    except OSError as error:
        raise ConfigInvalid(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # also those of tomllib, json and json5
        raise ConfigInvalid(f"{path}: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(document, dict):
        raise ConfigInvalid(f"{path}: it is no table of settings")
    return cast("Mapping[str, Any]", document)


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        if len(text) > COMMENTED_BYTES_MAX:
            raise
    import json5  # noqa: PLC0415 - comments and trailing commas occur in all of these files, but not in most

    return json5.loads(text)


def _servers(client: str, document: Mapping[str, Any], path: Path, place: Path) -> Mapping[str, Server]:
    found: dict[str, Any] = {}
    match client:
        case "codex":
            found = _table(document.get("mcp_servers"))
        case "vscode":
            found = _table(document.get("servers"))
        case "opencode":
            inner = _table(document.get("mcp"))
            found = _table(inner.get("servers")) or inner
            if path.name == "mcp.json":
                found = dict(document)
        case "claude-code" if path.name == ".mcp.json":
            found = _table(document.get("mcpServers")) or {
                key: each for key, each in document.items() if key != "mcpServers"
            }
        case "claude-code":
            project = _table(_table(document.get("projects")).get(str(place)))
            found = {**_table(document.get("mcpServers")), **_table(project.get("mcpServers"))}
        case _:
            found = _table(document.get("mcpServers"))
    for name, server in found.items():
        if not isinstance(server, dict):
            raise ConfigInvalid(f"{path}: {name} is no server: a table with a command or an address was expected")
    return found


def _entry(client: str, name: str, server: Server, path: Path) -> Imported:
    command = server.get("command")
    words = [str(each) for each in cast("list[Any]", command)] if isinstance(command, list) else [str(command or "")]
    words += [str(each) for each in cast("list[Any]", server.get("args") or [])]
    address = str(server.get("url") or server.get("httpUrl") or "")
    kind = str(server.get("type") or "")
    is_sse = kind == "sse" or (client == "gemini" and "url" in server and kind != "http")
    headers = {**_texts(server.get("headers")), **_texts(server.get("http_headers"))}
    headers |= {key: f"${{{variable}}}" for key, variable in _texts(server.get("env_http_headers")).items()}
    if variable := server.get("bearer_token_env_var"):
        headers["Authorization"] = f"Bearer ${{{variable}}}"
    env = {**_texts(server.get("env")), **_texts(server.get("environment"))}
    env |= {str(each): f"${{{each}}}" for each in cast("list[Any]", server.get("env_vars") or [])}
    notes = [
        f"`{key}` is not taken over"
        for key in ("oauth", "headersHelper", "http_headers_helper", "envFile", "sandboxEnabled")
        if server.get(key)
    ]
    if any(server.get(key) for key in ("enabled_tools", "disabled_tools", "includeTools", "excludeTools")):
        notes.append("its choice of tools is not taken over: grant functions to agents instead")
    entry = Imported(
        name=name, client=client, path=path, env=env, headers=headers, cwd=str(server.get("cwd") or ""),
        address=f"{'sse+' if is_sse else ''}{address}" if address else "", words=() if address else tuple(filter(None, words)),
        timeout_s=_timeout_s(client, server), notes=tuple(notes),
    )  # fmt: skip
    return replace(entry, skipped=_why_skipped(entry, server, kind))


def _why_skipped(entry: Imported, server: Server, kind: str) -> str:
    if server.get("enabled") is False or server.get("disabled") is True:
        return "it is switched off there"
    if not entry.address and not entry.words:
        return "it has neither a command nor an address"
    if entry.address and (kind == "ws" or not re.fullmatch(r"(sse\+)?https?://[^\s\0]+", entry.address)):
        return "its transport is not spoken here"
    if any("\0" in text for text in (*entry.words, *entry.env.values(), *entry.headers.values(), entry.cwd)):
        return "it holds a zero byte"
    if is_ours(entry.words):
        return "it is overwinter itself"
    return ""


def is_ours(words: Sequence[str]) -> bool:
    """Return whether a command starts overwinter."""
    return bool(words) and (Path(words[0]).name == "overwinter" or tuple(words[1:3]) == ("-m", "overwinter"))


def _timeout_s(client: str, server: Server) -> float:
    seconds = server.get("tool_timeout_sec") if client == "codex" else None
    if client == "gemini" and isinstance(server.get("timeout"), int | float):
        seconds = server["timeout"] / 1_000
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds <= TIMEOUT_S_MAX:
        return float(seconds)
    return 0.0


# --- Texts -------------------------------------------------------------------------------------------------------------


def _normal(entry: Imported, place: Path, home: Path) -> Imported:
    """Write variables in our own form, and put secrets out of the texts."""
    asked = set[str]()

    def ours(text: str) -> str:
        return _variables(entry.client, text, place, home, asked)

    hiding = _Hiding()
    if entry.address:
        mcp = hiding.word(ours(entry.address), "")
    else:
        words = [ours(each) for each in entry.words]
        mcp = " ".join(_worded(hiding.word(each, before)) for before, each in zip(["", *words], words, strict=False))
    made = replace(
        entry, mcp=mcp, cwd=ours(entry.cwd),
        env={key: hiding.setting(key, ours(value)) for key, value in entry.env.items()},
        headers={key: hiding.setting(key, ours(value)) for key, value in entry.headers.items()},
    )  # fmt: skip
    notes = [f"set {name} where overwinter starts: VS Code asks for it" for name in sorted(asked)]
    return replace(made, secrets=hiding.secrets, notes=(*made.notes, *notes))


def _variables(client: str, text: str, place: Path, home: Path, asked: set[str]) -> str:
    """Return a text with its client's variables in our form; the names that the client asks a person for go to `asked`."""
    match client:
        case "cursor" | "vscode":
            text = text.replace("${workspaceFolder}", str(place)).replace("${userHome}", str(home))
            asked.update(_variable(each) for each in _INPUT.findall(text))
            text = _INPUT.sub(lambda found: f"${{{_variable(found[1])}}}", text)
            return re.sub(r"\$\{env:(\w+)\}", r"${\1}", text)
        case "opencode":
            text = re.sub(r"\{env:(\w+)\}", r"${\1}", text)
            return re.sub(r"\{file:([^}]+)\}", lambda found: f"${{file:{Path(found[1]).expanduser()}}}", text)
        case "gemini":
            return re.sub(r"\$(\w+)", r"${\1}", text)
        case _:
            return text


class _Hiding:
    """Takes secrets out of texts, and remembers which placeholder stands for which."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}

    def setting(self, name: str, value: str) -> str:
        """Return the value of a variable or a header."""
        if whole := re.fullmatch(r"\$\{(\w+)\}", value):
            return f"env:{whole[1]}"
        if "${" in value:
            return value
        return (
            self._hidden(value) if is_secret(name) or _TOKEN.match(value) else self._without_those_of_addresses(value)
        )

    def word(self, text: str, before: str) -> str:
        """Return a word of a command; `before` is the one before it."""
        if "${" in text:
            return text
        flag, equals, value = text.partition("=")
        if equals and flag.startswith("-") and is_secret(flag):
            return f"{flag}={self._hidden(value)}"
        if _TOKEN.match(text) or (before.startswith("-") and is_secret(before) and not text.startswith("-")):
            return self._hidden(text)
        return self._without_those_of_addresses(text)

    def _without_those_of_addresses(self, text: str) -> str:
        def hidden(found: re.Match[str]) -> str:
            kept = "" if found[1] is None else found[0].removesuffix(found[1])
            return kept + self._hidden(found[1] or found[0])

        return _IN_URL.sub(hidden, text)

    def _hidden(self, secret: str) -> str:
        placeholder = f"\0{len(self.secrets)}\0"
        self.secrets[placeholder] = secret
        return placeholder


def _worded(text: str) -> str:
    """Quote a word of a command; variables in it stay what they are, for they are filled in after it is split."""
    return shlex.quote(text) if re.search(r"[^\w@%+=:,./${}\0-]", text) or not text else text


def _in_words(mcp: str, written: Mapping[str, str]) -> str:
    for placeholder, path in written.items():
        mcp = mcp.replace(placeholder, f"${{file:{path}}}")
    return mcp


def _shape(mcp: str) -> str:
    """Return a command or an address without its secrets, to tell whether two are the same."""
    return re.sub(r"\$\{file:[^}]+\}|\0\d+\0", "\0", mcp)


def _table(value: object) -> dict[str, Any]:
    return dict(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else {}


def _texts(value: object) -> dict[str, str]:
    return {str(key): str(each) for key, each in _table(value).items()}


def _identifier(name: str) -> str:
    word = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower() or "server"
    word = f"_{word}" if word[0].isdigit() else word
    is_taken = word == TAKEN or keyword.iskeyword(word) or word in sys.stdlib_module_names
    return f"{word}_mcp" if is_taken else word


def _variable(name: str) -> str:
    return re.sub(r"\W+", "_", name).upper()


def quoted(text: str) -> str:
    """Return a basic string of TOML 1.0: JSON's are, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else quoted(name)


CLIENTS = ("claude-code", "claude-desktop", "cursor", "vscode", "codex", "opencode", "gemini", "copilot")
