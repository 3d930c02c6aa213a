"""`overwinter mcp install`: one entry in each client's configuration, and its MCP servers behind us."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overwinter.errors import ConfigInvalid, UsageError
from overwinter.faces.cli.door import home_path, is_served
from overwinter.faces.cli.guard import Home, Json, guarded
from overwinter.faces.cli.render import print_json, safe, table

if TYPE_CHECKING:
    from overwinter.adapters.client_backups import Change, Undone
    from overwinter.adapters.client_plan import Plan

__all__ = ["install", "mcp_cli"]

LINE_CHARACTERS_MAX = 200
CONTEXT_LINES = 2

mcp_cli = typer.Typer(help="This home as an MCP server, in front of all others.")


def install(  # noqa: PLR0913 - a command's options
    *,
    client: Annotated[
        list[str] | None, typer.Option("--client", "-c", help="Only this one; may be repeated", show_default="all")
    ] = None,
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing")] = False,
    is_undo: Annotated[bool, typer.Option("--undo", help="Take back what was installed from this home")] = False,
    is_agreed: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False,
    does_count: Annotated[
        bool, typer.Option("--count/--no-count", help="Start the servers once, to count their tools")
    ] = True,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Put overwinter into Claude Code, Codex, Copilot CLI, opencode, Gemini CLI, VS Code and Cursor, in front of their servers.

    The MCP servers in their files become services of overwinter.toml; each client gets one entry, and an agent of its own.
    The difference is shown first; the files are kept as they were, and --undo brings them back.
    """
    kept = home_path(home).absolute()
    if is_undo:
        _undo(kept, is_dry=is_dry, is_json=is_json)
        return
    plan = _planned(client, kept)
    if not is_json:
        _show(plan)
    is_done = False
    if plan.changes and not is_dry:
        _agree(is_agreed=is_agreed, is_json=is_json)
        _apply(plan, kept)
        is_done = True
    counts = _counts(plan, kept) if is_done and does_count and plan.moved else None
    if is_json:
        print_json(_told(plan, counts, kept, is_done=is_done))
    else:
        _say(plan, counts, is_done=is_done, is_dry=is_dry)
        if is_done and is_served(kept):
            typer.echo(
                "the home is served by a process that has read its configuration before: start that anew too", err=True
            )
    if plan.refused:
        raise typer.Exit(ConfigInvalid.exit_code)


mcp_cli.command("install")(guarded(install))


@mcp_cli.callback(invoke_without_command=True)
def mcp(
    context: typer.Context,
    *,
    agent: Annotated[str, typer.Option("--agent", help="Under whose identity its clients act")] = "default",
    home: Home = None,
) -> None:
    """This home as an MCP server over stdin and stdout: what a client starts. `serve` answers at /mcp too."""
    if context.invoked_subcommand is None:
        from overwinter.faces.cli.bridge import stdio  # noqa: PLC0415 - `install` needs no HTTP

        guarded(stdio)(home_path(home), agent)


def _planned(client: Sequence[str] | None, home: Path) -> "Plan":
    from overwinter.adapters.client_edits import INSTALLED  # noqa: PLC0415 - `--help` needs nothing of it
    from overwinter.adapters.client_plan import Machine, planned  # noqa: PLC0415 - as above
    from overwinter.adapters.home import config_path  # noqa: PLC0415 - as above

    for each in client or ():
        if each not in INSTALLED:
            raise UsageError(f"nothing is installed into {each!r}; clients are {', '.join(INSTALLED)}")
    configured = config_path(home)
    script = Path(sys.executable).with_name("overwinter")
    found = str(script) if script.exists() else shutil.which("overwinter")
    machine = Machine(
        place=configured.parent, configured=configured, home=home, user=Path.home(), environment=os.environ,
        command=[found] if found else [sys.executable, "-m", "overwinter"],
    )  # fmt: skip
    return planned(machine, list(dict.fromkeys(client or INSTALLED)))


def _agree(*, is_agreed: bool, is_json: bool) -> None:
    """Have a person say yes.

    Raises:
        UsageError: nobody is there to be asked.
    """
    if is_agreed:
        return
    if is_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("nothing was changed: say --yes to change these files, or --dry-run to see it only")
    if not typer.confirm("Change these files?"):
        raise typer.Abort


def _apply(plan: "Plan", home: Path) -> None:
    """Write all of it, after overwinter.toml as it will be was read as one."""
    from overwinter.adapters.client_backups import apply, write  # noqa: PLC0415 - `--help` needs nothing of it
    from overwinter.config import load  # noqa: PLC0415 - as above

    for each in plan.changes:
        if each.path.name == "overwinter.toml":
            draft = each.path.with_name(f".{each.path.name}.{os.getpid()}.draft")
            try:
                write(draft, each.after, mode=0o600)
                load(draft)
            except OSError as error:
                raise ConfigInvalid(f"{each.path} cannot be written: {error.strerror}") from error
            finally:
                draft.unlink(missing_ok=True)
    apply(home, plan.changes)


def _counts(plan: "Plan", home: Path) -> Mapping[str, Any]:
    """Return what the servers offer that moved, and what is offered in their place, each under its name; ours under ""."""
    import shlex  # noqa: PLC0415 - `--help` needs nothing of it

    import anyio  # noqa: PLC0415 - as above

    from overwinter.adapters.home import config_path  # noqa: PLC0415 - as above
    from overwinter.adapters.mcp_servers.counting import counted  # noqa: PLC0415 - as above
    from overwinter.adapters.vault import Vault  # noqa: PLC0415 - as above
    from overwinter.config import Service, load  # noqa: PLC0415 - as above

    configured = config_path(home)
    services = load(configured).services
    wanted = {row["service"]: services[row["service"]] for row in plan.moved}
    ours = shlex.join([*plan.command, "mcp", "--home", str(home), "--agent", next(iter(plan.agents.values()))])
    return anyio.run(counted, {**wanted, "": Service(mcp=ours)}, configured.parent, Vault(home))


# --- What is said ------------------------------------------------------------------------------------------------------


def _show(plan: "Plan") -> None:
    for row in plan.refused:
        typer.echo(f"{row['client']}: not changed: {safe(row['why'])}", err=True)
    for row in plan.left:
        typer.echo(f"stays in {safe(row['path'])}: {safe(row['name'])}: {safe(row['why'])}", err=True)
    for each in plan.changes:
        typer.echo("\n".join(safe(line) for line in _difference(each, plan.secrets)))
    if plan.absent:
        typer.echo(f"not on this machine: {', '.join(plan.absent)}", err=True)


def _difference(change: "Change", secrets: frozenset[str]) -> Iterator[str]:
    """Yield the lines that change, with some around them and without secrets."""
    import difflib  # noqa: PLC0415 - `--help` needs nothing of it
    import json  # noqa: PLC0415 - as above

    before, after = (change.before or "").splitlines(), change.after.splitlines()
    alike = next(
        (n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )
    start = max(0, alike - CONTEXT_LINES)
    hidden = {each for secret in secrets for each in (secret, json.dumps(secret)[1:-1])}
    yield f"--- {change.path}" if change.before is not None else f"+++ {change.path} (new)"
    # A client may keep megabytes in this file: what is alike before the first difference is not compared.
    for line in islice(difflib.unified_diff(before[start:], after[start:], n=CONTEXT_LINES, lineterm=""), 2, None):
        text = line
        for secret in sorted(hidden, key=len, reverse=True):
            text = text.replace(secret, "[secret]")
        yield text if len(text) <= LINE_CHARACTERS_MAX else f"{text[:LINE_CHARACTERS_MAX]}..."


def _say(plan: "Plan", counts: Mapping[str, Any] | None, *, is_done: bool, is_dry: bool) -> None:
    if not plan.changes:
        typer.echo("nothing is to be changed" if plan.agents else "no client was found on this machine")
        return
    if is_dry:
        typer.echo("nothing was changed; without --dry-run this")
        return
    if plan.moved:
        typer.echo(table(plan.moved, ("service", "client", "path")))
    if counts is not None:
        typer.echo(_weighed(counts))
    if is_done:
        typer.echo(
            f"installed for {', '.join(plan.agents)}: start them anew. Take it back: overwinter mcp install --undo"
        )


def _weighed(counts: Mapping[str, Any]) -> str:
    """Return the sentence of the count: what was listed, and what could not be."""
    theirs = {name: each for name, each in counts.items() if name}
    listed, ours = [each for each in theirs.values() if not each.why], counts[""]
    size = sum(each.size_bytes for each in listed)
    lines = [f"{len(listed)} servers, {sum(each.tools for each in listed)} tools, {size:,} bytes in every request"]
    if ours.why:
        lines[0] += f"; what is there in their place could not be counted: {safe(ours.why)}"
    else:
        lines[0] += f" -> {ours.tools} tools, {ours.size_bytes:,} bytes"
    lines += [f"{name} is not counted: {safe(each.why)}" for name, each in theirs.items() if each.why]
    return "\n".join(lines)


def _told(plan: "Plan", counts: Mapping[str, Any] | None, home: Path, *, is_done: bool) -> Mapping[str, Any]:
    return {
        "changed": [str(each.path) for each in plan.changes] if is_done else [],
        "differences": {str(each.path): list(_difference(each, plan.secrets)) for each in plan.changes},
        "agents": dict(plan.agents), "moved": list(plan.moved), "left": list(plan.left), "absent": list(plan.absent),
        "refused": list(plan.refused), "home": str(home),
        "counts": None if counts is None else {
            name or "overwinter": {"tools": each.tools, "bytes": each.size_bytes, "why": each.why or None}
            for name, each in counts.items()
        },
    }  # fmt: skip


def _undo(home: Path, *, is_dry: bool, is_json: bool) -> None:
    from overwinter.adapters.client_backups import undo  # noqa: PLC0415 - `--help` needs nothing of it

    done = undo(home, is_dry=is_dry)
    if is_json:
        print_json({"undone": [{"path": each.path, "how": each.how, "why": each.why or None} for each in done]})
    else:
        typer.echo("\n".join(_undone(each) for each in done) or "nothing was installed from this home")
        if is_dry and done:
            typer.echo("nothing was changed; without --dry-run this")
    if any(each.how == "left" for each in done):
        raise typer.Exit(ConfigInvalid.exit_code)


def _undone(each: "Undone") -> str:
    said = {
        "restored": "as it was, byte for byte",
        "removed": "removed: it was not there before",
        "edited": "it changed since: our entry is out, its servers are back, the rest is left as it is now",
        "untouched": "nothing to take back",
        "left": f"left as it is: {each.why}",
    }[each.how]
    return f"{safe(each.path)}: {safe(said)}"
