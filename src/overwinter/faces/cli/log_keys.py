"""`overwinter audit key`: the key that signs the audit log, and how another one takes its place."""

from typing import Annotated

import typer

from overwinter.faces.cli.door import home_path, open_door
from overwinter.faces.cli.guard import Home, Json, Person, guarded, me
from overwinter.faces.cli.render import print_json, safe

__all__ = ["keys_cli"]

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
