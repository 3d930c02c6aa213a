"""`overwinter tools`: what programs can call, where it comes from, and whether it is still what it was."""

import json
import re
from ast import literal_eval
from collections.abc import Callable
from contextlib import suppress
from keyword import iskeyword
from typing import TYPE_CHECKING, Annotated, Any, Never, ParamSpec

import typer

from overwinter.errors import CheckFailed, NotFound, UsageError
from overwinter.faces.cli.door import home_path, open_door
from overwinter.faces.cli.guard import Home, Json, guarded, once
from overwinter.faces.cli.importing import import_servers
from overwinter.faces.cli.logins import login, logout
from overwinter.faces.cli.progress import progress
from overwinter.faces.cli.render import TAIL, print_json, safe, safe_lines, table

if TYPE_CHECKING:
    from overwinter.faces.client import Client

__all__ = ["tools_cli"]

FAULTS_SHOWN = 5
DIFFERENT_SHOWN = 20
_AS_TEXT = re.compile(r"Expected `[^`]*\b(?:datetime|date|timedelta|Decimal)\b")
"""What JSON has no form of: whoever is called reads it from a text."""
WRITTEN_MAX = 100_000
"""Characters of a call with its arguments: a longer text is no program to be checked, it is data."""

tools_cli = typer.Typer(
    no_args_is_help=True, help="What programs can call: services, functions, and whether they changed."
)
Agent = Annotated[str, typer.Option("--agent", help="Whose view: only what it may call is shown")]
Limit = Annotated[int, typer.Option("--limit", "-n", help="How many", min=1, max=100)]

P = ParamSpec("P")


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Register a command of this group."""
    called = guarded(function)
    tools_cli.command(function.__name__.removesuffix("_function").removesuffix("_services"))(called)
    return called


@command
def list_services(
    prefix: Annotated[str | None, typer.Argument(help="Functions whose names begin so; services if left out")] = None,
    *,
    agent: Agent = "default",
    limit: Limit = 100,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """List services with what is wrong in their descriptions, or functions."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("tools", prefix=prefix, agent=agent, limit=limit)
    if is_json:
        print_json(found)
    elif prefix:
        _print_hits(found["functions"])
    elif found["services"]:
        rows = [{**each, "wrong": len(each["faults"]) or ""} for each in found["services"]]
        typer.echo(table(rows, ("service", "functions", "imported", "wrong")))
        for each in found["services"]:
            for fault in each["faults"][:FAULTS_SHOWN]:
                typer.echo(f"{each['service']}: {safe(fault['place'])}: {safe(fault['what'])}", err=True)
    else:
        typer.echo("no services: declare one in overwinter.toml, [services.NAME]")


@command
def search(  # noqa: PLR0913 - a command's options
    query: Annotated[str, typer.Argument(help="Words, in any order", show_default=False)],
    *,
    service: Annotated[str | None, typer.Option("--service", help="Only of this one")] = None,
    agent: Agent = "default",
    limit: Limit = 8,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Find functions: name(required arguments), result, summary, and whether it reads or writes."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("tools", "search", query=query, service=service, agent=agent, limit=limit)
    print_json(found) if is_json else _print_hits(found["functions"])


@command
def describe(
    names: Annotated[list[str], typer.Argument(help="github.pulls_list, or a type: stripe.Charge", show_default=False)],
    *,
    agent: Agent = "default",
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Print the stub of functions with their types, or of types, as a program gets it."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("tools", "describe", name=names, agent=agent)
    print_json(found) if is_json else typer.echo(safe_lines(found["text"]))
    if all(line.startswith("# there is no ") for line in found["text"].splitlines()):
        raise typer.Exit(NotFound.exit_code)


@command
def brief(*, agent: Agent = "default", home: Home = None, is_json: Json = False) -> None:
    """Print what a model is told before its first program: the same few hundred tokens for any number of functions."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("tools", "brief", agent=agent)
    print_json(found) if is_json else typer.echo(safe_lines(found["text"]))


@command
def call_function(
    name: Annotated[str, typer.Argument(help="github.pulls_list", show_default=False)],
    arguments: Annotated[list[str] | None, typer.Argument(help="NAME=VALUE; JSON if it reads as JSON")] = None,
    *,
    agent: Agent = "default",
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Call one function, as a run like any other: checked, decided, journaled, retried."""
    given = dict(_argument(word) for word in arguments or [])
    about = {"agent": agent, "name": f"call {name}"}
    with open_door(home_path(home), is_worker=True, is_json=is_json) as client:
        try:
            run_id = client.post("runs", **_program(name, given), **about, dedup=once())["id"]
        except CheckFailed as error:
            service = name.partition(".")[0]
            if any(f"`{service}` is not defined" in each.message for each in error.findings):
                raise NotFound(
                    f"there is no service {service}: `overwinter tools list` shows which there are"
                ) from error
            if _AS_TEXT.search(str(error)) is None:
                raise
            run_id = client.post("runs", **_as_data(name, given), **about, dedup=once())["id"]
        ended = client.get("runs", run_id, "result", wait_s=60)
    if is_json:
        print_json(ended)
    elif ended["status"] == "finished":
        typer.echo(safe_lines(json.dumps(ended["result"], indent=2, ensure_ascii=False)))
    else:
        typer.echo(_why(ended), err=True)
    raise typer.Exit({"finished": 0, "live": 23}.get(ended["status"], 20))


@command
def refresh(
    service: Annotated[str | None, typer.Argument(help="Only this one")] = None,
    *,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Read descriptions anew; what changed is not called until it is accepted. Exit code 1 if one cannot be read."""
    with open_door(home_path(home), is_json=is_json) as client:
        done = _refreshed(client, service, is_json=is_json)
    print_json(done) if is_json else _print_refreshed(done)
    if done["failed"]:
        raise typer.Exit(1)


def _print_refreshed(done: dict[str, Any]) -> None:
    for name, why in done["failed"].items():
        typer.echo(f"overwinter: services.{name} stays as it was: {safe(why)}", err=True)
    if done["imported"] or not done["failed"]:
        typer.echo(f"imported {', '.join(done['imported']) or 'nothing: no service has a description'}")
    for each in done["different"][:DIFFERENT_SHOWN]:
        typer.echo(f"  {each['state']}: {safe(each['name'])}")
    if len(done["different"]) > DIFFERENT_SHOWN:
        typer.echo(f"  and {len(done['different']) - DIFFERENT_SHOWN} more: overwinter tools pins")
    if done["different"]:
        typer.echo("what changed is not called until it is accepted: overwinter tools accept NAME ...")


tools_cli.command("import")(guarded(import_servers))
tools_cli.command("login")(guarded(login))
tools_cli.command("logout")(guarded(logout))


@command
def pins(
    *,
    is_all: Annotated[bool, typer.Option("--all", "-a", help="Those that are unchanged too")] = False,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """List functions whose definition changed since it was accepted, or that are gone."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("tools", "pins", all="1" if is_all else None)
    if is_json:
        print_json(found)
    elif found["pins"]:
        typer.echo(table(found["pins"], ("name", "state", "accepted", "origin")))
    else:
        typer.echo("every function is the one that was accepted")


@command
def accept(
    names: Annotated[list[str], typer.Argument(help="Full names or patterns: 'github.*'", show_default=False)],
    *,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Accept the present definitions of functions, and forget those that are gone."""
    with open_door(home_path(home), is_json=is_json) as client:
        done = client.post("tools", "accept", names=names)
    if is_json:
        print_json(done)
    elif done["accepted"]:
        typer.echo("\n".join(f"accepted {safe(name)}" for name in done["accepted"]))
    else:
        raise UsageError(f"nothing that {', '.join(names)} names has changed or gone: see overwinter tools pins")


def _program(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return a program that makes one call: with its arguments written out, so that they are checked, if they can be."""
    written = f"await {name}({', '.join(f'{key}={value!r}' for key, value in given.items())})"
    service, _, function = name.partition(".")
    is_plain = all(each.isidentifier() and not iskeyword(each) for each in (service, function, *given))
    with suppress(
        ValueError, SyntaxError, RecursionError, MemoryError
    ):  # what is infinite, or nested too deeply, is no program
        if is_plain and len(written) <= WRITTEN_MAX and literal_eval(repr(given)) == given:
            return {"source": written}
    return _as_data(name, given)


def _as_data(name: str, given: dict[str, Any]) -> dict[str, Any]:
    return {"source": f"await tools.call({name!r}, arguments)", "inputs": {"arguments": given}}


def _argument(word: str) -> tuple[str, Any]:
    name, equals, text = word.partition("=")
    if not equals or not name.isidentifier():
        raise UsageError(f"{word!r} is no argument: write NAME=VALUE")
    try:
        return name, json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return name, text


def _refused(constant: str) -> Never:
    raise ValueError(f"{constant} is no JSON")


def _refreshed(client: "Client", service: str | None, *, is_json: bool) -> dict[str, Any]:
    """Refresh one service after the other, so that a person sees which one takes its time."""
    if is_json:
        return client.post("tools", "refresh", service=service)
    services = [service] if service else [each["service"] for each in client.get("tools")["services"]]
    imported, different, failed = list[str](), list[dict[str, Any]](), dict[str, str]()
    with progress() as importing:
        for each in services:
            importing(each)
            done = client.post("tools", "refresh", service=each)
            imported, different = [*imported, *done["imported"]], done["different"]
            failed |= done["failed"]
    return {"imported": imported, "failed": failed, "different": different}


def _why(ended: dict[str, Any]) -> str:
    if ended["status"] == "live":
        return f"the run goes on: overwinter show {ended['id'][-TAIL:]}"
    result: dict[str, Any] = ended["result"] or {}
    return safe(result.get("message") or ended["status"])


def _print_hits(hits: list[dict[str, Any]]) -> None:
    typer.echo("\n".join(safe(hit["line"]) for hit in hits) or "nothing fits")
