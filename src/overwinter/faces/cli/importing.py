"""`overwinter tools import`: the MCP servers of other clients become services of this home."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from overwinter.errors import ConfigInvalid, UsageError
from overwinter.faces.cli.door import home_path
from overwinter.faces.cli.guard import Home, Json
from overwinter.faces.cli.render import print_json, safe, table

__all__ = ["import_servers"]

SECRETS = "secrets"


def import_servers(
    *,
    client: Annotated[
        list[str] | None, typer.Option("--client", "-c", help="Only this client's; may be repeated", show_default="all")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--from", help="This file, of the one --client", show_default=False)
    ] = None,
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Show what would be written, and write nothing")] = False,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Take over the MCP servers of Claude Code, Claude Desktop, Cursor, VS Code, Codex, opencode, Gemini CLI, Copilot CLI.

    Secrets that stand in their files go to files of their own in the home, readable by you alone; overwinter.toml refers
    to them. Nothing is changed in the other clients.
    """
    from overwinter.adapters.home import config_path  # noqa: PLC0415 - `--help` needs nothing of it

    kept = home_path(home)
    configured = config_path(kept)
    found, unreadable = _found(_chosen(client, file), file, configured.parent.absolute())
    text, secrets, imported = _tables(found, configured, kept)
    skipped = [{"name": each.name, "client": each.client, "why": each.skipped} for each in found if each.skipped]
    if imported and not is_dry:
        _write(configured, text, secrets)
    done = {
        "imported": imported,
        "skipped": skipped,
        "unreadable": unreadable,
        "written": str(configured) if imported and not is_dry else None,
        "text": text,
    }
    print_json(done) if is_json else _print(done, len(secrets), is_dry=is_dry)
    if unreadable and not found:
        raise typer.Exit(ConfigInvalid.exit_code)


def _chosen(client: Sequence[str] | None, file: Path | None) -> Sequence[str]:
    from overwinter.adapters.client_configs import CLIENTS  # noqa: PLC0415 - as above

    for each in client or ():
        if each not in CLIENTS:
            raise UsageError(f"there is no client {each!r}; there are {', '.join(CLIENTS)}")
    if file is not None and len(client or ()) != 1:
        raise UsageError("--from needs one --client: the form of the file depends on it")
    return client or CLIENTS


def _found(clients: Sequence[str], file: Path | None, place: Path) -> tuple[list[Any], list[dict[str, str]]]:
    from overwinter.adapters.client_configs import files_of, found_in  # noqa: PLC0415 - as above

    found: list[Any] = []
    unreadable: list[dict[str, str]] = []
    for client in clients:
        paths = [file] if file is not None else [
            path for path in files_of(client, place, Path.home(), os.environ) if path.exists()
        ]  # fmt: skip
        for path in paths:
            try:
                found += found_in(client, path, place, Path.home())
            except ConfigInvalid as error:
                unreadable.append({"client": client, "path": str(path), "why": str(error)})
    return found, unreadable


def _tables(found: Sequence[Any], configured: Path, home: Path) -> tuple[str, Mapping[str, str], list[dict[str, Any]]]:
    import tomllib  # noqa: PLC0415 - as above

    from overwinter.adapters.client_configs import named, table_of  # noqa: PLC0415 - as above

    try:
        document: dict[str, Any] = tomllib.loads(configured.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        document = {}
    except (OSError, ValueError) as error:
        raise ConfigInvalid(f"{configured}: {error}") from error
    inside = os.path.relpath(home.absolute() / SECRETS, configured.parent.absolute())
    texts: list[str] = []
    secrets: dict[str, str] = {}
    imported: list[dict[str, Any]] = []
    for name, entry in named(found, document.get("services", {})):
        text, hidden = table_of(name, entry, lambda secret: f"{inside}/{secret}")
        if hidden and re.search(r"[\s'\"\\}]", inside):
            raise UsageError(
                f"{inside!r} holds blanks or quotes: secrets cannot be referred to there; choose another --home"
            )
        texts.append(text)
        secrets |= hidden
        source = {"client": entry.client, "path": str(entry.path)}
        imported.append({"service": name, **source, "secrets": len(hidden), "notes": list(entry.notes)})
    return "\n".join(texts), secrets, imported


def _write(configured: Path, text: str, secrets: Mapping[str, str]) -> None:
    """Add the tables to the file, whole or not at all; what they refer to is there before."""
    from overwinter.config import load  # noqa: PLC0415 - as above

    before = configured.read_text(encoding="utf-8-sig") if configured.exists() else ""
    draft = configured.with_name(f".{configured.name}.new")
    try:
        for path, secret in secrets.items():
            place = configured.parent / path
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.touch(mode=0o600)
            place.chmod(0o600)
            place.write_text(secret, encoding="utf-8")
        draft.write_text(before.rstrip("\n") + ("\n\n" if before.strip() else "") + text, encoding="utf-8")
        load(draft)
        draft.replace(configured)
    except OSError as error:
        raise ConfigInvalid(f"{configured} cannot be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


def _print(done: Mapping[str, Any], secrets: int, *, is_dry: bool) -> None:
    for each in done["unreadable"]:
        typer.echo(f"{each['client']}: {safe(each['why'])}", err=True)
    for each in done["skipped"]:
        typer.echo(f"left out: {safe(each['name'])} of {each['client']}: {safe(each['why'])}", err=True)
    if not done["imported"]:
        typer.echo("nothing new was found")
        return
    typer.echo(done["text"] if is_dry else table(done["imported"], ("service", "client", "secrets", "path")))
    for each in done["imported"]:
        for note in each["notes"]:
            typer.echo(f"{each['service']}: {safe(note)}", err=True)
    if is_dry:
        typer.echo(f"nothing was written; without --dry-run this, and {secrets} files with secrets")
        return
    typer.echo(f"added to {done['written']}; a server that runs sees it when it starts again")
    typer.echo('grant them to an agent (tools = ["NAME.*"]) if it may not call everything; then: overwinter tools list')
