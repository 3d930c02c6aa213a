"""`overwinter tools login`: a person logs in at an MCP server, and the home keeps what it gives."""

from typing import Annotated

import typer

from overwinter.faces.cli.door import home_path
from overwinter.faces.cli.guard import Home, Json
from overwinter.faces.cli.render import print_json, safe

__all__ = ["login"]


def login(
    service: Annotated[str, typer.Argument(help="Its name in overwinter.toml", show_default=False)],
    *,
    is_pasted: Annotated[
        bool, typer.Option("--paste", help="The browser is on another machine: paste where it was sent to")
    ] = False,
    port: Annotated[
        int, typer.Option("--port", help="Of the redirect, where the client has one registered; 0: any")
    ] = 0,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Log in at an MCP server with auth = "oauth": open the printed address, and come back.

    A server that runs takes the login at its next call.
    """
    import asyncio  # noqa: PLC0415 - one command in many needs it

    from overwinter.faces.cli.login_flow import log_in  # noqa: PLC0415 - the same

    issuer = asyncio.run(log_in(home_path(home), service, port, is_pasted=is_pasted))
    print_json({"service": service, "issuer": issuer}) if is_json else typer.echo(
        f"{service}: logged in at {safe(issuer)}"
    )
