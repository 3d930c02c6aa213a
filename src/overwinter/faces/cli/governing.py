"""`overwinter agents`, `revoke`, `restore`: who may act in a home, and what stops them."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from overwinter.faces.cli.door import home_path, open_door
from overwinter.faces.cli.guard import Home, Json, me
from overwinter.faces.cli.render import print_json, safe, table

__all__ = ["agents", "restore", "revoke"]

ON_THE_WIRE_SHOWN = 20
Reason = Annotated[str, typer.Option("--reason", help="For the record")]


def agents(*, home: Home = None, is_json: Json = False) -> None:
    """List the agents of this home: who answers for each, and whether it may act."""
    with open_door(home_path(home)) as client:
        found = client.get("agents")
    if is_json:
        print_json(found)
        return
    rows = [{**each, "parent": each["parent"] or "-", "expires": each["expires"] or "-"} for each in found["agents"]]
    typer.echo(table(rows, ("name", "state", "epoch", "owner", "parent", "expires", "purpose")))


def revoke(
    subject: Annotated[str, typer.Argument(help="An agent, or a run", show_default=False)],
    *,
    reason: Reason = "",
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Stop an agent and all below it, or one run, in mid-task: no effect starts after this, and nothing wakes."""
    with open_door(home_path(home)) as client:
        done = client.post("revoke", subject=subject, by=me(), reason=reason)
    print_json(done) if is_json else _print(done)


def _print(done: Mapping[str, Any]) -> None:
    for each in done["agents"]:
        typer.echo(f"revoked {safe(each['id'])}")
    typer.echo(
        f"{done['runs']} runs stopped: {done['turns']} were computing, {done['calls']} calls were in flight; "
        f"no effect starts since {done['fenced_ms']:.1f} ms after the request, all had stopped after {done['stopped_ms']:.1f} ms"
    )
    wire = done["on_the_wire"]
    if wire:
        typer.echo("may have left before, and cannot be called back:")
        typer.echo(table(wire[:ON_THE_WIRE_SHOWN], ("key", "function", "effect")))
    if len(wire) > ON_THE_WIRE_SHOWN:
        typer.echo(f"and {len(wire) - ON_THE_WIRE_SHOWN} more: --json lists all")


def restore(
    agent: Annotated[str, typer.Argument(help="A revoked agent", show_default=False)],
    *,
    has_runs: Annotated[bool, typer.Option("--runs", help="Let the runs go on that the revocation stopped")] = False,
    reason: Reason = "",
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Let a revoked agent act again, in a new epoch. Its earlier runs stay stopped without --runs."""
    with open_door(home_path(home)) as client:
        done = client.post("restore", agent=agent, by=me(), reason=reason, has_runs=has_runs)
    print_json(done) if is_json else typer.echo(f"{safe(done['id'])} is active")
