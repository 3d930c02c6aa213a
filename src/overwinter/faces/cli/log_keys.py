"""`overwinter audit key`: the key that signs the audit log, and how another one takes its place."""

from typing import Annotated

import typer

from overwinter.errors import NotFound, UsageError
from overwinter.faces.cli.door import home_path, open_door
from overwinter.faces.cli.guard import Home, Json, Person, guarded, me
from overwinter.faces.cli.render import print_json, safe

__all__ = ["keys_cli"]

REASON_LENGTH_MAX = 1_000
keys_cli = typer.Typer(help="The log's public key: keep it elsewhere, for `verify`, `prove --check` and witnesses.")


@keys_cli.callback(invoke_without_command=True)
@guarded
def print_key(context: typer.Context, *, home: Home = None, is_json: Json = False) -> None:
    """Print the log's public key: keep it elsewhere, for `verify`, `prove --check` and witnesses."""
    if context.invoked_subcommand is not None:
        return
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("audit", "key")
    if is_json:
        print_json(found)
        return
    typer.echo(found["key"])
    if found["witness_fault"]:
        typer.echo(f"the witness did not sign: {safe(found['witness_fault'])}", err=True)


@keys_cli.command("rotate")
@guarded
def rotate(
    *,
    reason: Annotated[str, typer.Option("--reason", help="For the log")] = "",
    person: Person = None,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Have a new key sign the log from now on. The present one signs the entry that names it, and is deleted."""
    with open_door(home_path(home), is_json=is_json) as client:
        done = client.post("audit", "key", "rotate", by=person or me(), reason=reason)
    if is_json:
        print_json(done)
        return
    typer.echo(
        f"{done['key']}\nkeep it elsewhere beside the one before: entry {done['entry']} names it, signed by both",
        err=False,
    )
    if done["witness_fault"]:
        typer.echo(f"the witness does not know of it yet: {safe(done['witness_fault'])}", err=True)


@keys_cli.command("replace")
@guarded
def replace(
    *,
    reason: Annotated[str, typer.Option("--reason", help="For the log, for ever: how it was lost", show_default=False)],
    is_lost: Annotated[bool, typer.Option("--lost", help="Nobody has the present key any more")] = False,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Begin anew with another key if the present one is lost: whoever verifies the log is told of it for ever, and by whom."""
    from overwinter.adapters.home import open_home  # noqa: PLC0415 - other commands reach a server
    from overwinter.adapters.sqlite import begin_anew  # noqa: PLC0415 - the same
    from overwinter.clock import SystemClock  # noqa: PLC0415 - the same

    if not is_lost:
        raise UsageError(
            "--lost says that nobody has the present key any more; `overwinter audit key rotate` changes one that is there"
        )
    if len(reason) > REASON_LENGTH_MAX:
        raise UsageError(
            f"a reason has at most {REASON_LENGTH_MAX} characters, not {len(reason)}: it stays in the entry"
        )
    place = home_path(home)
    if not (place / "store.db").exists():
        raise NotFound(f"there is no home {place}: --home names it")
    with open_home(place) as held:
        entry, key = begin_anew(held.database_path, SystemClock(), held.key, by=me(), reason=reason)
    if is_json:
        print_json({"entry": entry, "key": str(key)})
        return
    typer.echo(
        f"{key}\nkeep it elsewhere: entry {entry} says that the log begins anew with it, and `overwinter audit verify` will say so "
        "each time. A witness must be started anew with `--key` of it"
    )
