"""`overwinter run`: a program or a goal, from its start to its end, as people watch it."""

import json
import shlex
import signal
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from overwinter.errors import UsageError
from overwinter.faces.cli.door import home_path, is_attended, open_door
from overwinter.faces.cli.guard import Home, Json, once, seconds
from overwinter.faces.cli.render import TAIL, doubts, event_line, is_of_goal, outcome, print_json, reached, safe

__all__ = ["follow", "home_option", "inputs_of", "json_or_text", "run", "source_of", "strict_json"]

ENDS = {"finished": 0, "failed": 20, "cancelled": 21, "quarantined": 22}
DETACHED = 23
UNANSWERED = 24
SOURCE_BYTES_MAX = 3 << 20
"""Largest program; with its inputs it must fit the server's 4 MB."""


def run(  # noqa: PLR0913 - a command's options
    file: Annotated[Path | None, typer.Argument(help="The program", show_default=False)] = None,
    *,
    goal: Annotated[
        str | None,
        typer.Option(
            "--goal", "-p", help="Instead of a program: what a model is to reach, in words", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Of a goal; `model` under `gateway` in overwinter.toml if not given", show_default=False
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Of a goal: replies of the model at most, 50", show_default=False)
    ] = None,
    usd: Annotated[
        float | None, typer.Option("--usd", help="Of a goal: what its model calls may cost", show_default=False)
    ] = None,
    duration: Annotated[
        str | None, typer.Option("--for", help="Of a goal: how long it may take: 90s, 2h, 3d", show_default=False)
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            "--after",
            help="A run that ended: go on with its variables, or of a goal with what was said",
            show_default=False,
        ),
    ] = None,
    is_kept: Annotated[bool, typer.Option("--keep", help="Another run may go on with its variables: --after")] = False,
    agent: Annotated[str, typer.Option("--agent", help="Under whose identity it acts")] = "default",
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="NAME=VALUE; the value is JSON if it reads as JSON, else text"),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="For people; the file's name if not given")] = None,
    is_detached: Annotated[bool, typer.Option("--detach", "-d", help="Start it and return at once")] = False,
    inputs_json: Annotated[
        str | None, typer.Option("--input-json", help="All inputs as one JSON object; --input wins", show_default=False)
    ] = None,
    is_check_only: Annotated[bool, typer.Option("--check", "--check-only", help="Only check it; run nothing")] = False,
    dedup: Annotated[str | None, typer.Option("--dedup", help="Start it once per key")] = None,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Check a program, run it, and show its calls as they happen; or have a model work at a goal. Ctrl-C leaves it running or asleep."""
    place = home_path(home)
    limits = {"model": model, "steps": steps, "usd": usd, "seconds": duration and seconds(duration), "after": after}
    what = _what(file, goal, limits)
    given = {**_inputs_object(inputs_json), **inputs_of(inputs or [])}
    if goal is not None and (given or is_check_only):
        raise UsageError("a goal takes no inputs, and there is nothing to check before a model has written a program")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a supervisor that ends the command detaches it too
    is_waiting = not is_attended(place)
    with open_door(place, is_worker=not (is_detached or is_check_only), is_json=is_json, makes=True) as client:
        if is_check_only:
            _print_check(client.post("check", **what, agent=agent, inputs=given), is_json=is_json)
            return
        name = name or (file.stem if file is not None else None)
        body = {**what, "agent": agent, "inputs": given, "name": name, "keep": is_kept, "dedup": dedup or once()}
        run_id = client.post("runs", **body)["id"]
        if is_detached:
            _say_begun(run_id, place, is_waiting=is_waiting, is_json=is_json)
            return
        ended = _watched(client, run_id, place, is_json=is_json)
    has_no_answer = goal is not None and ended["status"] == "finished" and ended["result"]["end"] != "done"
    raise typer.Exit(UNANSWERED if has_no_answer else ENDS.get(ended["status"], DETACHED))


def _watched(client: Any, run_id: str, home: Path, *, is_json: bool) -> dict[str, Any]:  # noqa: ANN401 - a Client, imported late
    """Show a run's events until it ends; return it."""
    try:
        follow(client, run_id, is_json=is_json)
    except KeyboardInterrupt:
        _say_detached(run_id, home)
        raise typer.Exit(DETACHED) from None
    ended = client.get("runs", run_id)
    if is_json:
        print_json(ended)
        return ended
    for line in doubts(ended):
        typer.echo(line, err=True)
    if ended["status"] == "finished" and is_of_goal(ended["result"]):
        typer.echo(outcome(ended["result"], run_id))
    elif ended["status"] != "finished":
        typer.echo(f"overwinter{home_option(home)} show {run_id[-TAIL:]}    says more", err=True)
    return ended


def _what(file: Path | None, goal: str | None, limits: dict[str, Any]) -> dict[str, Any]:
    """Return what a run begins with, as the API takes it."""
    if (file is None) == (goal is None):
        raise UsageError('give a program, `overwinter run FILE.py`, or a goal, `overwinter run -p "..."`')
    given = {key: value for key, value in limits.items() if value is not None}
    if file is not None and set(given) - {"after"}:
        raise UsageError(f"--{next(iter(given))} is of a goal: give one with -p, and no program")
    return {"source": source_of(file), **given} if file is not None else {"goal": goal, **given}


def _print_check(checked: dict[str, Any], *, is_json: bool) -> None:
    if is_json:
        print_json(checked)
    elif checked["is_accepted"]:
        typer.echo("\n".join(["the program is accepted", *reached(checked["reach"])]))
    else:
        for finding in checked["findings"]:
            typer.echo(f"line {finding['line']}: {safe(finding['message'])}", err=True)
    raise typer.Exit(0 if checked["is_accepted"] else 3)


def follow(client: Any, run_id: str, *, is_json: bool, since: int = 0) -> None:  # noqa: ANN401 - a Client, imported late
    """Print a run's events as they happen, until it ends."""
    names: dict[int, str] = {}
    for event in client.follow("runs", run_id, "events", since=since):
        if is_json:
            print_json(event)
        elif (line := event_line(event, names)) is not None:
            typer.echo(line)


def _say_begun(run_id: str, home: Path, *, is_waiting: bool, is_json: bool) -> None:
    print_json({"id": run_id}) if is_json else typer.echo(run_id)
    if is_waiting:
        typer.echo(f"nobody serves this home yet: it waits for `overwinter{home_option(home)} serve`", err=True)


def _say_detached(run_id: str, home: Path) -> None:
    option, tail = home_option(home), run_id[-TAIL:]
    typer.echo(
        f"\ndetached: run {run_id} is safe and goes on when a worker is up.\n"
        f"  overwinter{option} logs {tail} -f    come back to it\n"
        f"  overwinter{option} serve             keep a worker up, if none is",
        err=True,
    )


def home_option(home: Path) -> str:
    """Return what a command that is shown needs to mean the same home."""
    return "" if home == home_path(None) else f" --home {shlex.quote(str(home))}"


def source_of(file: Path) -> str:
    """Return the program in a file.

    Raises:
        UsageError: it cannot be read, or is none.
    """
    try:
        with file.open("rb") as opened:
            raw = opened.read(SOURCE_BYTES_MAX + 1)
        if len(raw) > SOURCE_BYTES_MAX:
            raise UsageError(f"{file} is no program: it has more than {SOURCE_BYTES_MAX >> 20} MB")
        return raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read as a program: {error}") from error


def inputs_of(words: list[str]) -> dict[str, Any]:
    """Return inputs by name.

    Raises:
        UsageError: a word is none.
    """
    given: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"{word!r} is no input: write --input NAME=VALUE")
        given[name] = json_or_text(text)
    return given


def _inputs_object(text: str | None) -> dict[str, Any]:
    given: object = {} if text is None else strict_json(text, "--input-json")
    if not isinstance(given, dict):
        raise UsageError("--input-json takes a JSON object: '{\"name\": value}'")
    return cast("dict[str, Any]", given)


def json_or_text(text: str) -> Any:  # noqa: ANN401 - whatever the JSON says
    """Return a word of the command line as what it says in JSON, or as the text that it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def strict_json(text: str, what: str) -> Any:  # noqa: ANN401 - whatever the JSON says
    """Return what a text says in JSON.

    Raises:
        UsageError: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what} is not JSON: {error}") from error
