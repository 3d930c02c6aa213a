"""`overwinter webhooks`: whom the home tells of what happens in it, and what did not get through."""

from typing import Annotated

import typer

from overwinter.faces.cli.door import home_path, open_door
from overwinter.faces.cli.guard import Home, Json, guarded
from overwinter.faces.cli.render import print_json, safe, table

__all__ = ["webhooks_cli"]

FAILED = 1
webhooks_cli = typer.Typer(help="Whom this home tells of what happens in it, and what did not get through.")
Name = Annotated[str, typer.Argument(help="A webhook of overwinter.toml", show_default=False)]


@webhooks_cli.callback(invoke_without_command=True)
@guarded
def list_webhooks(context: typer.Context, *, home: Home = None, is_json: Json = False) -> None:
    """List webhooks: what waits to be sent, what was set aside after the last attempt, and why."""
    if context.invoked_subcommand is not None:
        return
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("webhooks")
    if is_json:
        print_json(found)
        return
    rows = [
        {**each, "host": each["host"] or "not in overwinter.toml", "events": ", ".join(each["events"])}
        for each in found["webhooks"]
    ]
    columns = ("name", "host", "events", "waiting", "set_aside", "why")
    typer.echo(table(rows, columns) if rows else "no webhooks: [webhooks.NAME] in overwinter.toml names one")


@webhooks_cli.command("retry")
@guarded
def retry_webhook(name: Name, *, home: Home = None, is_json: Json = False) -> None:
    """Have what waits for its next attempt, and what was set aside, sent at once by whoever serves the home."""
    with open_door(home_path(home), is_json=is_json) as client:
        done = client.post("webhooks", name, "retry")
    print_json(done) if is_json else typer.echo(f"{done['retried']} are sent again")


@webhooks_cli.command("test")
@guarded
def try_webhook(name: Name, *, home: Home = None, is_json: Json = False) -> None:
    """Send a signed message that tells nothing, and say what came of it."""
    with open_door(home_path(home), is_json=is_json) as client:
        done = client.post("webhooks", name, "test")
    print_json(done) if is_json else typer.echo("taken" if done["is_taken"] else f"not taken: {safe(done['why'])}")
    raise typer.Exit(0 if done["is_taken"] else FAILED)
