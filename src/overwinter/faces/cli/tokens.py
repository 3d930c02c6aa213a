"""`overwinter token`: API tokens, with which people ask a home from elsewhere."""

from typing import Annotated

import typer

from overwinter.faces.cli.door import home_path, open_door
from overwinter.faces.cli.guard import Home, Json, guarded, me, seconds
from overwinter.faces.cli.render import print_json, safe, table

__all__ = ["token_cli"]

token_cli = typer.Typer(no_args_is_help=True, help="API tokens: who may ask this home over TCP, and for what.")


@token_cli.command("create")
@guarded
def create_token(  # noqa: PLR0913 - a command's options
    person: Annotated[str, typer.Argument(help="Who acts with it: an address or a name", show_default=False)],
    *,
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", help="read, act, approve, admin, models; several times", show_default="read"),
    ] = None,
    agents: Annotated[str, typer.Option("--agents", help="Pattern of the agents that it is for")] = "*",
    expires: Annotated[str, typer.Option("--expires", help="30d, 12h, 5m")] = "30d",
    name: Annotated[str, typer.Option("--name", help="For people: where it is used")] = "",
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Make a token and print it, this once: the home keeps only its digest."""
    given = {"person": person, "scopes": scopes or ["read"], "agents": agents, "name": name}
    with open_door(home_path(home), is_json=is_json) as client:
        made = client.post("tokens", **given, expires_s=seconds(expires), by=me())
    if is_json:
        print_json(made)
        return
    typer.echo(
        f"{made['id']} of {safe(made['person'])}: {', '.join(made['scopes'])}, until {made['expires']}", err=True
    )
    typer.echo(made["token"])


@token_cli.command("list")
@guarded
def list_tokens(
    *,
    is_all: Annotated[bool, typer.Option("--all", "-a", help="Expired and revoked ones too")] = False,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """List tokens: whose they are, what they open, when they were last used."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = [each for each in client.get("tokens")["tokens"] if is_all or each["state"] == "active"]
    if is_json:
        print_json({"tokens": found})
        return
    rows = [{**each, "scopes": ",".join(each["scopes"]), "used": each["used"] or "never"} for each in found]
    columns = ("id", "person", "name", "scopes", "agents", "state", "expires", "used")
    typer.echo(table(rows, columns) if rows else "there are no tokens")
