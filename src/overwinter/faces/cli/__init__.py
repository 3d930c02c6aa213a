"""The command line. Every command takes `--json`; exit codes are listed in docs/errors.md."""

import gc as collector
import io
import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

from overwinter import __version__
from overwinter.errors import UsageError
from overwinter.faces.cli.commands import Commands
from overwinter.faces.cli.door import home_path, open_door
from overwinter.faces.cli.guard import After, Home, Json, Limit, Person, guarded, me, more, once, seconds
from overwinter.faces.cli.render import TAIL, event_line, print_json, show, table
from overwinter.faces.cli.running import follow, home_option, json_or_text, strict_json

__all__ = ["cli"]

EVENTS_SHOWN = 50
"""Read back by `show`, of which it tells the last that people care about."""

cli = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Durable, type-checked Python programs that cost nothing while they sleep and survive kill -9.\n\n"
    "Exit codes: 0 done, 2 wrong usage, 3 program refused, 4 not found, 5 conflict, 6 agent revoked, 7 not permitted, 10-16 the home or its server, 17 the audit log is wrong, "
    "20 run failed, 21 cancelled, 22 quarantined, 23 detached while it goes on, 24 a goal ended without an answer.",
)
Run = Annotated[str, typer.Argument(help="A run's id, or the last letters of it", show_default=False)]

P = ParamSpec("P")


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Register a command."""
    called = guarded(function)
    cli.command(function.__name__.removesuffix("_run"))(called)
    return called


@cli.callback(invoke_without_command=True)
def root(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit")] = False,
    home: Home = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", help="Ask the home there, over TCP: https://host:port; $OVERWINTER_URL", show_default=False
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token", help="The API token for it: env:NAME or file:PATH; $OVERWINTER_TOKEN", show_default=False
        ),
    ] = None,
) -> None:
    """Handle what stands before a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character gets its number
    if home is not None:
        os.environ["OVERWINTER_HOME"] = str(home)
    if token is not None and not token.startswith(("env:", "file:")):
        raise typer.BadParameter(
            "a token on the command line is seen by every user of this machine: env:NAME or file:PATH"
        )
    for name, given in (("OVERWINTER_URL", url), ("OVERWINTER_TOKEN", token)):
        if given is not None:
            os.environ[name] = given
    if version:
        typer.echo(f"overwinter {__version__}")
        raise typer.Exit


@command
def init(
    directory: Annotated[Path, typer.Argument(help="Where to put the example")] = Path(),
    *,
    is_json: Json = False,
) -> None:
    """Start a project: a configuration, a module of tools and a program that work."""
    try:
        written = _write_templates(directory)
    except OSError as error:
        raise UsageError(f"nothing can be written to {directory}: {error.strerror or error}") from error
    if is_json:
        print_json({"written": written})
        return
    typer.echo("\n".join(f"wrote {place}" for place in written) or "everything is there already")
    here = "" if directory == Path() else f"cd {shlex.quote(str(directory))} && "
    typer.echo(f"next:\n  {here}overwinter run remind.py --input invoice_id=17\n  {here}overwinter serve")


def _write_templates(directory: Path) -> list[str]:
    """Write what is not there yet, and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    written: list[str] = []
    for source in sorted((Path(__file__).parent / "templates").iterdir()):
        place = directory / source.name.removesuffix(".txt")
        if not place.exists():
            place.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
            written.append(str(place))
    return written


@command
def ps(  # noqa: PLR0913 - a command's options
    *,
    is_all: Annotated[bool, typer.Option("--all", "-a", help="Ended runs too")] = False,
    status: Annotated[
        str | None, typer.Option("--status", help="live, finished, failed, cancelled, quarantined")
    ] = None,
    limit: Limit = 50,
    after: After = None,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """List runs and why they wait, the newest first."""
    wanted = status or (None if is_all else "live,quarantined")
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("runs", status=wanted, limit=limit, after=after)
    if is_json:
        print_json(found)
        return
    rows = [{**each, "run": each["id"][-TAIL:], "why": each["reason"]} for each in found["runs"]]
    if rows:
        typer.echo(table(rows, ("run", "name", "agent", "status", "turns", "why")))
    counts = ", ".join(f"{count} {name}" for name, count in found["counts"].items()) or "no runs yet"
    typer.echo(f"{len(rows)} shown; in all: {counts}")
    more(found)


@command
def show_run(run: Run, *, home: Home = None, is_json: Json = False) -> None:
    """Say in one sentence why a run waits, and what it has open."""
    place = home_path(home)
    with open_door(place, is_json=is_json) as client:
        found = client.get("runs", run)
        if is_json:
            print_json(found)
            return
        events = client.get("runs", found["id"], "events", since=max(0, found["events"] - EVENTS_SHOWN))["events"]
    typer.echo(show(found, events, home_option(place)))


@command
def logs(
    run: Run,
    *,
    is_following: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends")] = False,
    since: Annotated[int, typer.Option("--since", help="From this journal position on", min=0)] = 0,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Print a run's journal, one line an event."""
    with open_door(home_path(home), is_worker=is_following, is_json=is_json) as client:
        if is_following:
            follow(client, client.get("runs", run)["id"], is_json=is_json, since=since)
            return
        names: dict[int, str] = {}
        while events := client.get("runs", run, "events", since=since)["events"]:
            for event in events:
                line = json.dumps(event) if is_json else event_line(event, names)
                if line is not None:
                    typer.echo(line)
            since = events[-1]["position"] + 1


@command
def read(  # noqa: PLR0913 - a command's options
    handle: Annotated[
        str,
        typer.Argument(
            help="RUN: its result; RUN:out: what it printed; RUN:3: what call 3 was answered", show_default=False
        ),
    ],
    path: Annotated[str, typer.Argument(help="A part of it: items[20:40].name")] = "",
    *,
    characters: Annotated[
        int, typer.Option("--characters", "-n", help="Of JSON at most", min=400, max=1_000_000)
    ] = 16_000,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write it whole to a file: a file as it is, else JSON", show_default=False),
    ] = None,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Read a value by its handle, cut to a budget; what was cut says how the rest is read."""
    with open_door(home_path(home), is_json=is_json) as client:
        if output is None:
            print_json(client.get("values", handle, path=path, characters=characters)["value"])
            return
        whole = client.raw("values", handle, path=path, whole="1")
    try:
        output.write_bytes(whole)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from error
    typer.echo(f"{len(whole):,} bytes written to {output}", err=True)


@command
def send(  # noqa: PLR0913 - a command's options
    run: Run,
    message: Annotated[str, typer.Argument(help="JSON if it reads as JSON, else text", show_default=False)],
    *,
    is_strict: Annotated[bool, typer.Option("--json-message", help="Refuse a message that is not JSON")] = False,
    dedup: Annotated[str | None, typer.Option("--dedup", help="Send it once per key")] = None,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Send a message that the run's `tools.receive` returns."""
    value = strict_json(message, "the message") if is_strict else json_or_text(message)
    with open_door(home_path(home), is_json=is_json) as client:
        sent = client.post("runs", run, "messages", message=value, dedup=dedup or once())
    print_json(sent) if is_json else typer.echo("sent" if sent["is_new"] else "it was sent before: nothing done")


@command
def cancel(
    run: Run,
    *,
    reason: Annotated[str, typer.Option("--reason", help="For the journal")] = "",
    home: Home = None,
    is_json: Json = False,
) -> None:
    """End a run now; its program is stopped and its calls in flight are cancelled."""
    with open_door(home_path(home), is_json=is_json) as client:
        done = client.post("runs", run, "cancel", by=me(), reason=reason, dedup=once())
    print_json(done) if is_json else typer.echo("cancelled" if done["is_cancelled"] else "it had ended before")


@command
def release(run: Run, *, home: Home = None, is_json: Json = False) -> None:
    """Let a quarantined run go on."""
    with open_door(home_path(home), is_json=is_json) as client:
        done = client.post("runs", run, "release", by=me(), dedup=once())
    print_json(done) if is_json else typer.echo("released")


@command
def questions(*, limit: Limit = 100, after: After = None, home: Home = None, is_json: Json = False) -> None:
    """List what people are asked, the oldest first."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("questions", limit=limit, after=after)
    if is_json:
        print_json(found)
        return
    rows: list[dict[str, Any]] = []
    for each in found["questions"]:
        run_id, _, index = each["question"].rpartition(":")
        rows.append({**each, "question": f"{run_id[-TAIL:]}:{index}", "options": "|".join(each["options"] or ["TEXT"])})
    typer.echo(table(rows, ("question", "person", "since", "text", "options")) if rows else "nobody is asked anything")
    more(found)


@command
def answer(
    question: Annotated[str, typer.Argument(help="RUN:INDEX, as `questions` and `show` print it", show_default=False)],
    value: Annotated[
        str,
        typer.Argument(
            help="The answer; of an outcome that is unknown: done, `done VALUE` with the call's result as JSON, `failed WHY` or repeat",
            show_default=False,
        ),
    ],
    *,
    person: Person = None,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Answer a question of a run, or say what became of a call of unknown outcome."""
    with open_door(home_path(home), is_json=is_json) as client:
        done = client.post("questions", question, "answer", answer=value, by=person or me(), dedup=once())
    print_json(done) if is_json else typer.echo("answered")


@command
def serve(  # noqa: PLR0913 - a command's options
    *,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", help="Also on TCP, for API tokens; 0: any free port", min=0, max=65_535, show_default=False
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; needs --port")] = "127.0.0.1",
    names: Annotated[
        list[str] | None, typer.Option("--name", help="Host name by which clients call it", show_default=False)
    ] = None,
    certificate: Annotated[Path | None, typer.Option("--tls-cert", help="PEM file", show_default=False)] = None,
    key: Annotated[Path | None, typer.Option("--tls-key", help="PEM file", show_default=False)] = None,
    is_insecure: Annotated[bool, typer.Option("--insecure", help="Other machines may come without TLS")] = False,
    log: Annotated[
        str | None,
        typer.Option("--log", help="json: a line on standard error for each model call", show_default=False),
    ] = None,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Run the home: its programs, its calls, and its API on the home's socket, until SIGTERM or Ctrl-C."""
    if port is None and (host != "127.0.0.1" or names or certificate or key or is_insecure):
        raise UsageError("--host, --name, --tls-cert, --tls-key and --insecure are about a port: give --port too")
    if log not in (None, "json"):
        raise UsageError(f"--log is json, not {log!r}")
    collector.disable()  # 400,000 values of modules, none of them lost, until the home is open: see spare_collections
    try:
        from overwinter.faces.cli.serving import serve_home  # noqa: PLC0415 - it loads the event loop and the interpreter
        from overwinter.faces.tcp import Port  # noqa: PLC0415 - the same

        tcp = Port(
            number=port or 0,
            host=host,
            names=tuple(names or ()),
            certificate=certificate,
            key=key,
            is_insecure=is_insecure,
        )
        serve_home(home_path(home), None if port is None else tcp, is_json=is_json, has_log=log is not None)
    finally:
        collector.enable()  # also for a process that goes on after a home that did not open


@command
def doctor(*, home: Home = None, is_json: Json = False) -> None:
    """Say what is right and what is wrong with this machine and this home."""
    from overwinter.faces.cli.examining import examine  # noqa: PLC0415 - it loads the interpreter

    findings = examine(home_path(home))
    if is_json:
        print_json({"findings": findings, "is_well": all(each["state"] != "wrong" for each in findings)})
    else:
        typer.echo(table(findings, ("state", "what", "found")))
    raise typer.Exit(int(any(each["state"] == "wrong" for each in findings)))


@command
def gc(
    *,
    older_than: Annotated[
        str | None, typer.Option("--older-than", help="30d, 12h, 5m, 10s; \\[retention] if not given")
    ] = None,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Delete runs that ended long ago, with their journals."""
    from overwinter.adapters.home import config_path  # noqa: PLC0415 - not needed by other commands
    from overwinter.config import load  # noqa: PLC0415 - the same

    place = home_path(home)
    age_s = seconds(older_than) if older_than else load(config_path(place)).retention.ended_days * 86_400
    with open_door(place, is_json=is_json) as client:
        done = client.post("collect", older_than_s=age_s)
    print_json(done) if is_json else typer.echo(
        f"deleted {done['runs']} runs, {done['events']} events, {done['programs']} programs"
    )


@command
def bench(
    name: Annotated[str, typer.Argument(help="Which figure, or all")] = "all",
    *,
    is_small: Annotated[bool, typer.Option("--small", help="To try it, not to quote it")] = False,
) -> None:
    """Measure the figures of the README on this machine."""
    import subprocess  # noqa: PLC0415 - not needed by other commands

    if not Path("bench/__main__.py").exists():
        raise UsageError("benches are in the source checkout, not in the package: run this where bench/ lies")
    words = [sys.executable, "-m", "bench", name, *(["--small"] if is_small else [])]
    raise typer.Exit(subprocess.run(words, check=False).returncode)  # noqa: S603 - this interpreter, our own module


@command
def demo(
    *,
    is_small: Annotated[bool, typer.Option("--small", help="500 runs instead of 10,000")] = False,
    is_kept: Annotated[bool, typer.Option("--keep", help="Leave the demo's home where it is, and say where")] = False,
    live: Annotated[
        str | None,
        typer.Option(
            "--live",
            metavar="MODEL",
            help="Ask this model of Anthropic instead of the recording; needs ANTHROPIC_API_KEY",
        ),
    ] = None,
    headless: Annotated[
        bool,
        typer.Option("--headless", help="Open no browser and ask nobody: as it always is, for scripts that say so"),
    ] = False,
    is_json: Json = False,
) -> None:
    """Charge overdue invoices with a real billing service, kill -9 the server in the middle, and count."""
    from overwinter.faces.cli.demo import run_demo  # noqa: PLC0415 - not needed by other commands

    del headless

    raise typer.Exit(run_demo(is_small=is_small, is_kept=is_kept, is_json=is_json, live=live))
