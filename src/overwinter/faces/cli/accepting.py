"""`overwinter audit accept`: a person's word that a home goes on with an older log."""

from typing import Annotated

import typer

from overwinter.errors import NotFound
from overwinter.faces.cli.door import home_path
from overwinter.faces.cli.guard import Home, Json, me
from overwinter.faces.cli.render import print_json

__all__ = ["accept"]


def accept(
    *,
    reason: Annotated[str, typer.Option("--reason", help="For the log: where the copy came from", show_default=False)],
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Let the home go on with an older log than it had: what was revoked since is undone, and the log will say who said so."""
    from overwinter.adapters.home import open_home  # noqa: PLC0415 - other commands reach a server
    from overwinter.adapters.sqlite import ANCHOR_NAME, Accepted, accept_older  # noqa: PLC0415 - the same

    place = home_path(home)
    if not place.exists():
        raise NotFound(f"there is no home {place}: --home names it")
    with open_home(place):
        known = accept_older(place / ANCHOR_NAME, Accepted(by=me(), reason=reason))
    if is_json:
        print_json({"origin": known.origin, "size": known.size, "epochs": known.epochs})
        return
    typer.echo(
        f"the next command opens the home with the log as it is; known of it were {known.size} entries. Compare "
        "`overwinter agents` with what you know, and revoke again whoever was"
    )
