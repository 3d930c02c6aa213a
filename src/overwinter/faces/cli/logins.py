"""`overwinter tools login` and `logout`: a person logs in at an MCP server, and the home keeps what it gives."""

from pathlib import Path
from typing import Annotated

import typer

from overwinter.errors import OverwinterError
from overwinter.faces.cli.door import home_path, open_door
from overwinter.faces.cli.guard import Home, Json, me
from overwinter.faces.cli.render import print_json, safe

__all__ = ["login", "logout"]

Service = Annotated[str, typer.Argument(help="Its name in overwinter.toml", show_default=False)]
Account = Annotated[
    str, typer.Option("--account", help="Which of several logins: what `oauth:ACCOUNT` of an agent means")
]


def login(  # noqa: PLR0913 - a command's options
    service: Service,
    *,
    account: Account = "",
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

    The functions of the service are looked at then, and calls that waited for the login go on.
    """
    import asyncio  # noqa: PLC0415 - one command in many needs it

    from overwinter.faces.cli.login_flow import log_in  # noqa: PLC0415 - the same

    issuer = asyncio.run(log_in(home_path(home), service, port, account=account, is_pasted=is_pasted))
    if not is_json:
        typer.echo(f"{service}: logged in at {safe(issuer)}")
    failed, woken = _go_on(home_path(home), service, is_json=is_json)
    if is_json:
        print_json({"service": service, "account": account, "issuer": issuer, "failed": failed, "woken": woken})
        return
    if woken:
        typer.echo(f"{woken} calls that waited for it go on")
    if failed:
        typer.echo(f"its functions are not known yet: {safe(failed)}: overwinter tools refresh {service}", err=True)


def logout(service: Service, *, account: Account = "", home: Home = None, is_json: Json = False) -> None:
    """Forget a login, and have its server take it back."""
    import asyncio  # noqa: PLC0415 - one command in many needs it

    from overwinter.faces.cli.login_flow import log_out  # noqa: PLC0415 - the same

    issuer, why = asyncio.run(log_out(home_path(home), service, account=account))
    if is_json:
        print_json({"service": service, "account": account, "issuer": issuer, "kept_there": why})
        return
    typer.echo(f"{service}: the login at {safe(issuer)} is forgotten here")
    if why:
        typer.echo(f"and may still be good there: {safe(why)}", err=True)


def _go_on(home: Path, service: str, *, is_json: bool) -> tuple[str, int]:
    """Look at the functions of a service, and tell the calls that wait for its login.

    Returns:
        Why its functions are not known, and how many calls go on.
    """
    from overwinter.adapters.mcp_servers.services import DONE  # noqa: PLC0415 - as above

    woken = 0
    try:
        with open_door(home, is_json=is_json) as client:
            failed: dict[str, str] = client.post("tools", "refresh", service=service)["failed"]
            for each in client.get("questions")["questions"]:
                is_waiting = DONE in (each["options"] or ()) and each["function"].startswith(f"{service}.")
                if is_waiting:
                    client.post("questions", each["question"], "answer", answer=DONE, by=me())
                    woken += 1
    except OverwinterError as error:  # the login is kept, whatever else is wrong
        return str(error), woken
    return failed.get(service, ""), woken
