"""`overwinter schedule`: programs and goals that begin by the calendar."""

from pathlib import Path
from typing import Annotated, Any

import typer

from overwinter.errors import UsageError
from overwinter.faces.cli.door import home_path, open_door
from overwinter.faces.cli.guard import Home, Json, guarded, me, seconds
from overwinter.faces.cli.render import print_json, safe, safe_lines, table
from overwinter.faces.cli.running import inputs_of, source_of

__all__ = ["schedule_cli"]

schedule_cli = typer.Typer(
    help="Programs and goals that begin by the calendar. Times are started by whoever serves the home."
)
Name = Annotated[str, typer.Argument(help="A schedule: its id, the end of it, or its name", show_default=False)]


@schedule_cli.callback(invoke_without_command=True)
@guarded
def list_schedules(context: typer.Context, *, home: Home = None, is_json: Json = False) -> None:
    """List schedules, those first that start first."""
    if context.invoked_subcommand is not None:
        return
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("schedules")
    if is_json:
        print_json(found)
        return
    rows = [
        {**each, "when": each["cron"] or "once", "next": (each["paused"] and "paused") or each["next"] or "never"}
        for each in found["schedules"]
    ]
    columns = ("id", "name", "agent", "when", "zone", "next", "started", "missed", "skipped", "paused")
    typer.echo(table(rows, columns) if rows else "no schedules: `overwinter schedule add FILE.py --cron ...` makes one")


@schedule_cli.command("add")
@guarded
def add(  # noqa: PLR0913 - all that a schedule is made of
    file: Annotated[Path | None, typer.Argument(help="The program", show_default=False)] = None,
    *,
    cron: Annotated[
        str | None, typer.Option("--cron", help="minute hour day-of-month month day-of-week", show_default=False)
    ] = None,
    at: Annotated[str | None, typer.Option("--at", help="Once: 2026-12-01T09:00", show_default=False)] = None,
    zone: Annotated[str, typer.Option("--zone", help="In which they are read")] = "UTC",
    misfire: Annotated[
        str, typer.Option("--misfire", help="When nobody was up: skip, or once for the last of them")
    ] = "skip",
    overlap: Annotated[str, typer.Option("--overlap", help="When the run before is live: skip, or allow")] = "skip",
    goal: Annotated[str | None, typer.Option("--goal", "-p", help="Instead of a program", show_default=False)] = None,
    model: Annotated[str | None, typer.Option("--model", help="Of a goal", show_default=False)] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Of a goal", show_default=False)] = None,
    usd: Annotated[
        float | None, typer.Option("--usd", help="Of a goal: what each run may cost", show_default=False)
    ] = None,
    duration: Annotated[str | None, typer.Option("--for", help="Of a goal: 90s, 2h, 3d", show_default=False)] = None,
    inputs: Annotated[list[str] | None, typer.Option("--input", "-i", help="NAME=VALUE", show_default=False)] = None,
    agent: Annotated[str, typer.Option("--agent", help="Under whose identity it acts")] = "default",
    name: Annotated[str | None, typer.Option("--name", help="For people", show_default=False)] = None,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Make a schedule; the program is checked now, and again whenever it starts."""
    if (file is None) == (goal is None):
        raise UsageError('give a program, `overwinter schedule add FILE.py --cron ...`, or a goal with -p "..."')
    what: dict[str, Any] = {
        "goal": goal,
        "model": model,
        "steps": steps,
        "usd": usd,
        "seconds": duration and seconds(duration),
    }
    if file is not None:
        what = {"source": source_of(file), "inputs": inputs_of(inputs or [])}
    times = {"cron": cron, "at": at, "zone": zone, "misfire": misfire, "overlap": overlap}
    with open_door(home_path(home), is_json=is_json) as client:
        made = client.post(
            "schedules", **what, **times, agent=agent, name=name or (file.stem if file else None), by=me()
        )
    print_json(made) if is_json else typer.echo(f"{made['id']} starts at {made['next']}")


@schedule_cli.command("show")
@guarded
def show(name: Name, *, home: Home = None, is_json: Json = False) -> None:
    """Show a schedule and what it starts."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("schedules", name)
    if is_json:
        print_json(found)
        return
    start: dict[str, Any] = found.pop("start")
    inputs: dict[str, Any] = start.get("inputs") or {}
    typer.echo("\n".join(f"{key:9} {safe(value)}" for key, value in found.items() if value not in (None, "")))
    for key, value in inputs.items():
        typer.echo(f"input     {safe(key)}={safe(value)}")
    typer.echo(f"\n{safe_lines(str(start.get('goal') or start.get('source')))}")


def _act(verb: str, name: str, home: Path | None, *, is_json: bool, reason: str = "") -> dict[str, Any]:
    with open_door(home_path(home), is_json=is_json) as client:
        done = client.post("schedules", name, verb, by=me(), reason=reason)
    if is_json:
        print_json(done)
    return done


@schedule_cli.command("pause")
@guarded
def pause(
    name: Name, *, reason: Annotated[str, typer.Option("--reason")] = "", home: Home = None, is_json: Json = False
) -> None:
    """Start nothing until it is resumed."""
    done = _act("pause", name, home, is_json=is_json, reason=reason)
    if not is_json:
        typer.echo(f"{done['id']} is paused")


@schedule_cli.command("resume")
@guarded
def resume(name: Name, *, home: Home = None, is_json: Json = False) -> None:
    """Start again, from now on."""
    done = _act("resume", name, home, is_json=is_json)
    if not is_json:
        typer.echo(f"{done['id']} starts at {done['next']}")


@schedule_cli.command("remove")
@guarded
def remove(name: Name, *, home: Home = None, is_json: Json = False) -> None:
    """Remove a schedule; its runs go on."""
    done = _act("remove", name, home, is_json=is_json)
    if not is_json:
        typer.echo(f"{done['id']} is removed")


@schedule_cli.command("run")
@guarded
def run_now(name: Name, *, home: Home = None, is_json: Json = False) -> None:
    """Start what it starts now, beside its times."""
    done = _act("run", name, home, is_json=is_json)
    if not is_json:
        typer.echo(done["id"])
