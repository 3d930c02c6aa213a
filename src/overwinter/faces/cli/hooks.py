"""`overwinter hook`: where others tell a run something."""

from typing import Annotated

import typer

from overwinter.faces.cli.door import home_path, open_door
from overwinter.faces.cli.guard import Home, Json
from overwinter.faces.cli.render import print_json

__all__ = ["hook"]


def hook(
    run: Annotated[str, typer.Argument(help="A run's id, or the last letters of it", show_default=False)],
    *,
    signed_by: Annotated[
        str | None,
        typer.Option("--signed-by", help="Take only what is signed: github, stripe, standard", show_default=False),
    ] = None,
    secret: Annotated[str | None, typer.Option("--secret", help="With what: vault:NAME", show_default=False)] = None,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Show the path at which anybody may send a run a message, as long as it is live. Whoever has it needs no token: keep it secret."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("runs", run, "hook", signed_by=signed_by, secret=secret)
    print_json(found) if is_json else typer.echo(found["path"])
