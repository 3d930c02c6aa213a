"""`overwinter agents`: the agents of a home, and what one shows of itself elsewhere."""

from typing import Annotated

import typer

from overwinter.faces.cli.door import home_path, open_door
from overwinter.faces.cli.governing import agents
from overwinter.faces.cli.guard import After, Home, Json, Limit, Person, guarded, me
from overwinter.faces.cli.render import print_json, safe

__all__ = ["agents_cli"]

agents_cli = typer.Typer(help="The agents of this home: who answers for each, and whether it may act.")

key_cli = typer.Typer(no_args_is_help=True, help="The key that signs identities.")
agents_cli.add_typer(key_cli, name="key")


@key_cli.command("rotate")
@guarded
def rotate_key(
    *,
    reason: Annotated[str, typer.Option("--reason", help="For the audit log")] = "",
    person: Person = None,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Sign identities with a new key from now on. What the one before signed counts for an hour more, and then no longer."""
    with open_door(home_path(home), is_json=is_json) as client:
        done = client.post("issuer", "rotate", by=person or me(), reason=reason)
    if is_json:
        print_json(done)
        return
    typer.echo(f"key {done['keys'][0]['kid']} signs identities now")
    typer.echo(
        f"what key {done['keys'][1]['kid']} signed counts until {done['counts_until']}; have documents made again until then"
    )


@agents_cli.callback(invoke_without_command=True)
def list_agents(
    context: typer.Context, *, limit: Limit = 1_000, after: After = None, home: Home = None, is_json: Json = False
) -> None:
    """List the agents of this home: who answers for each, and whether it may act."""
    if context.invoked_subcommand is None:
        guarded(agents)(limit=limit, after=after, home=home, is_json=is_json)


@agents_cli.command("show")
@guarded
def show_agent(
    name: Annotated[str, typer.Argument(help="An agent", show_default=False)],
    *,
    is_document: Annotated[
        bool, typer.Option("--document", help="The document that it shows elsewhere, as JSON; `jwt` is the signed form")
    ] = False,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Show one agent, or its identity document, signed by the home's issuer key."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("agents", name, *(("document",) if is_document else ()))
    if is_json or is_document:
        print_json(found)
        return
    for key, value in found.items():
        typer.echo(f"{key:<8} {'-' if value in (None, '') else safe(str(value))}")
