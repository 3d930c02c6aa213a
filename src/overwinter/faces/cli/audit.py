"""`overwinter audit`: what was done in a home, and the proof of it. docs/audit.md says what it proves and what not."""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, cast

import typer

from overwinter.errors import OverwinterError, UsageError
from overwinter.faces.cli.accepting import accept
from overwinter.faces.cli.door import home_path, open_door
from overwinter.faces.cli.guard import Home, Json, guarded
from overwinter.faces.cli.log_keys import keys_cli
from overwinter.faces.cli.render import TAIL, print_json, safe, table

if TYPE_CHECKING:
    from overwinter.adapters.notes import PublicKey
    from overwinter.adapters.sqlite import AuditLog
    from overwinter.verify_export import Report

__all__ = ["audit_cli"]

WRONG = 17
"""Exit code: the log, or a proof, is not what it should be."""
PROOF_BYTES_MAX = 1 << 18
PAGES_MAX = 1_000
"""Requests for one list: each looks at some ten thousand entries."""
TOLD_AFTER_S = 1.0
PORT = 8_620

audit_cli = typer.Typer(
    no_args_is_help=True, help="What was done in this home: entries that nobody can rewrite unseen, and their proofs."
)
witness_cli = typer.Typer(
    no_args_is_help=True, help="A second signature for the log's tree heads, from where its owner cannot write."
)
audit_cli.add_typer(witness_cli, name="witness")
audit_cli.add_typer(keys_cli, name="key")
Number = Annotated[int, typer.Argument(help="An entry's number, as `audit log` prints it", min=0, show_default=False)]
LogKey = Annotated[
    str | None,
    typer.Option(
        "--key",
        help="The log's public key, kept elsewhere, the newest you have; the home's own if not given",
        show_default=False,
    ),
]
WitnessKeys = Annotated[
    list[str] | None,
    typer.Option("--witness-key", help="A witness's key; may be repeated; that of \\[audit] if not given"),
]

P = ParamSpec("P")


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Register a command of this group."""
    called = guarded(function)
    audit_cli.command(function.__name__)(called)
    return called


command(accept)

# --- Looking ---------------------------------------------------------------------------------------------------------


@command
def log(  # noqa: PLR0913 - a command's options
    *,
    agent: Annotated[str | None, typer.Option("--agent", help="Of this agent")] = None,
    run: Annotated[str | None, typer.Option("--run", help="Of this run: its id, or the last letters of it")] = None,
    function: Annotated[
        str | None, typer.Option("--function", help="Of this function, or pattern of functions: 'billing.*'")
    ] = None,
    person: Annotated[str | None, typer.Option("--person", help="On behalf of this person")] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="call.intent, call.result, model.call, deny, approve, revoke, ...")
    ] = None,
    since: Annotated[str | None, typer.Option("--since", help="2h, 30m, 7d, or an instant as ISO 8601")] = None,
    until: Annotated[str | None, typer.Option("--until", help="The same")] = None,
    is_oldest_first: Annotated[bool, typer.Option("--oldest", help="Oldest first")] = False,
    begin: Annotated[
        int | None, typer.Option("--from", help="Go on at this entry: a page says where the next begins", min=0)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many", min=1, max=1_000)] = 50,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """List what was done, newest first."""
    asked = {
        "agent": agent, "run": run, "function": function, "person": person, "kind": kind,
        "since_ms": _instant_ms(since), "until_ms": _instant_ms(until), "order": "oldest" if is_oldest_first else "newest",
    }  # fmt: skip
    found: list[dict[str, Any]] = []
    with open_door(home_path(home), is_json=is_json) as client:
        for _ in range(PAGES_MAX):
            page = client.get("audit", **asked, begin=begin, limit=limit - len(found))
            found += page["entries"]
            begin = page["following"]
            if begin is None or len(found) >= limit:
                break
    if is_json:
        print_json({"entries": found, "following": begin})
        return
    rows = [_row(each) for each in found]
    columns = ("seq", "at", "kind", "agent", "on_behalf_of", "run", "decision", "function")
    typer.echo(table(rows, columns) if rows else "no such entries")
    if begin is not None:
        typer.echo(f"there is more: --from {begin}")


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    run = (
        f"{entry['run'][-TAIL:]}{'' if entry.get('call') is None else ':' + str(entry['call'])}"
        if "run" in entry
        else "-"
    )
    return {
        **entry,
        "on_behalf_of": " > ".join(entry.get("act", ())),
        "run": run,
        "function": entry.get("tool", "-"),
        "decision": entry.get("decision", "-"),
    }


@command
def show(seq: Number, *, home: Home = None, is_json: Json = False) -> None:
    """Show one entry: the decision and its policies, and the arguments or result if they are kept."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("audit", str(seq))
    if is_json:
        print_json(found)
        return
    bodies = found.pop("bodies")
    for name, value in found.items():
        text = ", ".join(map(str, cast("list[object]", value))) if isinstance(value, list) else value
        typer.echo(f"{name:>18}  {safe(text)}")
    for part, body in bodies.items():
        words = (
            json.dumps(body["value"], ensure_ascii=False) if body["is_kept"] else "deleted: [retention] audit_body_days"
        )
        typer.echo(f"{part:>18}  {safe(words)}")


# --- Proving ---------------------------------------------------------------------------------------------------------


@command
def prove(  # noqa: PLR0913 - a command's options
    seq: Annotated[int | None, typer.Argument(help="An entry's number", min=0, show_default=False)] = None,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to; standard output if not given")
    ] = None,
    checked: Annotated[
        Path | None, typer.Option("--check", help="Check such a file instead, without any home", show_default=False)
    ] = None,
    log_key: LogKey = None,
    witness_keys: WitnessKeys = None,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Write an entry with the proof that it is in the log; or check such a file offline."""
    if (seq is None) is (checked is None):
        raise UsageError("`audit prove SEQ` writes a proof, `audit prove --check FILE --key KEY` checks one")
    if checked is not None:
        if log_key is None:
            raise UsageError("--key says whose log it should be: `audit key` prints it where the log is")
        _check_proof(checked, log_key, witness_keys or [], is_json=is_json)
        return
    with open_door(home_path(home), is_json=is_json) as client:
        proof = client.text("audit", str(seq), "proof")
    if output is None:
        sys.stdout.write(proof)
        return
    _write(output, [proof.encode()])
    print_json({"written": str(output)}) if is_json else typer.echo(f"written to {output}")


def _check_proof(place: Path, log_key: str, witness_keys: Sequence[str], *, is_json: bool) -> None:
    from overwinter.adapters.notes import NoteRefused, parse_key  # noqa: PLC0415 - other commands need no cryptography
    from overwinter.adapters.proof_files import check_file  # noqa: PLC0415 - the same

    try:
        with place.open("rb") as opened:
            text = opened.read(PROOF_BYTES_MAX).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{place} cannot be read: {error}") from error
    keys = [parse_key(each) for each in witness_keys]
    try:
        raw, proved = check_file(text, parse_key(log_key), keys)
        missing = {key.name for key in keys} - {each.name for each in proved.cosignatures}
        fault = f"its tree head is not cosigned by {', '.join(sorted(missing))}" if missing else None
    except NoteRefused as error:
        raw, proved, fault = b"", None, str(error)
    if proved is None or fault is not None:
        print_json({"is_proved": False, "fault": fault}) if is_json else typer.echo(f"WRONG {safe(fault)}")
        raise typer.Exit(WRONG)
    entry = json.loads(raw)
    if is_json:
        print_json({"is_proved": True, "entry": entry, "entries": proved.head.size, "log": proved.head.origin})
        return
    typer.echo(f"entry {proved.seq} is in the log {proved.head.origin} of {proved.head.size} entries:")
    typer.echo(safe(raw.decode()))
    for each in proved.cosignatures:
        typer.echo(f"cosigned by {safe(each.name)} at {datetime.fromtimestamp(each.time_s, UTC).isoformat()}")


@command
def export(
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to; standard output if not given")
    ] = None,
    has_bodies: Annotated[bool, typer.Option("--bodies", help="With arguments and results, as far as kept")] = False,
    log_key: LogKey = None,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Write the whole log for `python -m overwinter.verify_export`, which also works as one file without overwinter."""
    from overwinter.app.auditing import exported  # noqa: PLC0415 - it loads the store

    opened = _log(home, log_key)
    lines = exported(opened, with_bodies=has_bodies)
    if output is None:
        for line in lines:
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        return
    _write(output, lines)
    done = {"written": str(output), "key": str(opened.key)}
    print_json(done) if is_json else typer.echo(
        f"written to {output}; check it with\n  python -m overwinter.verify_export {output} --log-key {opened.key}"
    )


# --- Checking --------------------------------------------------------------------------------------------------------


@command
def verify(
    *,
    log_key: LogKey = None,
    witness_keys: WitnessKeys = None,
    seen: Annotated[
        list[Path] | None, typer.Option("--seen", help="A file with a tree head kept elsewhere; may be repeated")
    ] = None,
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Check the whole log; exit code 17 if something is wrong. It also works on a home that does not open any more."""
    from overwinter.app.auditing import verified  # noqa: PLC0415 - it loads the store

    opened = _log(home, log_key)
    notes, warnings = _kept(seen or []), list[str]()
    keys = _witnesses(home, opened, witness_keys, notes, warnings)
    try:
        report = verified(opened, witnesses=keys, seen=notes, told=_told(is_quiet=is_json))
    except ValueError as error:
        raise UsageError(str(error)) from error
    _say(report, warnings, has_seen=bool(notes), is_json=is_json)
    raise typer.Exit(WRONG if report.faults else 0)


def _kept(places: Sequence[Path]) -> list[str]:
    try:
        return [place.read_text(encoding="utf-8") for place in places]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"a tree head cannot be read: {error}") from error


def _witnesses(
    home: Path | None, log: "AuditLog", given: Sequence[str] | None, notes: list[str], warnings: list[str]
) -> "list[PublicKey]":
    """Return whose cosignatures count; add what the witness of the configuration has seen to `notes`."""
    import anyio  # noqa: PLC0415 - other commands reach a server

    from overwinter.adapters.home import config_path  # noqa: PLC0415 - the same
    from overwinter.adapters.notes import parse_key  # noqa: PLC0415 - the same
    from overwinter.adapters.witness import last_seen  # noqa: PLC0415 - the same
    from overwinter.config import load  # noqa: PLC0415 - the same

    settings = load(config_path(home_path(home))).audit
    if settings.witness:
        try:
            note = anyio.run(last_seen, settings.witness, log.key.name)
            notes += [] if note is None else [note]
        except OverwinterError as error:
            warnings.append(f"{error}; without it a log cut at an older tree head does not show")
    configured = [settings.witness_key] if settings.witness else []
    return [parse_key(each) for each in (configured if given is None else given)]


def _say(report: "Report", warnings: Sequence[str], *, has_seen: bool, is_json: bool) -> None:
    if not has_seen and not warnings:
        warnings = ["no tree head kept elsewhere was given: a log cut at an older tree head would not show"]
    if is_json:
        print_json({
            "is_well": not report.faults, "faults": report.faults, "more_faults": report.more_faults,
            "entries": report.entries, "tree_heads": report.heads, "bodies": report.bodies,
            "witnessed": report.witnessed, "keys": report.keys, "breaks": report.breaks, "warnings": list(warnings),
        })  # fmt: skip
        return
    for each in report.keys:
        typer.echo(f"KEY {safe(each)}")
    for each in report.breaks:
        typer.echo(f"BREAK {safe(each)}")
    for fault in report.faults:
        typer.echo(f"WRONG {safe(fault)}")
    if report.more_faults:
        typer.echo(f"WRONG and {report.more_faults} more")
    for warning in warnings:
        typer.echo(safe(warning), err=True)
    typer.echo(
        f"{report.entries} entries, {report.heads} tree heads, {report.bodies} bodies; {report.witnessed} entries are under "
        f"a witness's signature, {report.entries - report.witnessed} rest on the log's key alone"
    )
    if not report.faults:
        typer.echo("nothing else is wrong" if report.breaks else "nothing is wrong")


def _told(*, is_quiet: bool) -> Callable[[int, int], None]:
    """Return what shows progress on a terminal once it takes over a second."""
    began_s = time.monotonic()

    def told(looked: int, size: int) -> None:
        took_s = time.monotonic() - began_s
        if not is_quiet and took_s > TOLD_AFTER_S and sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[Kchecking entry {looked:,} of {size:,} ({took_s:.0f} s)")
            if looked + 1_000 > size:
                sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    return told


# --- Witness ---------------------------------------------------------------------------------------------------------


def serve(  # noqa: PLR0913 - a command's options
    *,
    place: Annotated[
        Path,
        typer.Option(
            "--file", help="Its memory: one tree head of each log; its key lies beside it", show_default=False
        ),
    ],
    log_keys: Annotated[
        list[str], typer.Option("--key", help="Of a log for which it signs; may be repeated", show_default=False)
    ],
    name: Annotated[str, typer.Option("--name", help="Of the witness, in its key")] = "overwinter-witness",
    host: Annotated[str, typer.Option("--host", help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0: any", min=0, max=65_535)] = PORT,
    certificate: Annotated[Path | None, typer.Option("--tls-cert", help="PEM file", show_default=False)] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="PEM file", show_default=False)] = None,
    is_json: Json = False,
) -> None:
    """Run a witness until Ctrl-C: where whoever owns the log's home cannot write."""
    from overwinter.faces.witness_server import serve_witness  # noqa: PLC0415 - it loads the web server

    def started(url: str, key: str) -> None:
        if is_json:
            print_json({"url": url, "key": key, "pid": os.getpid()})
            return
        typer.echo(f'in the overwinter.toml of the log:\n[audit]\nwitness = "{url}"\nwitness_key = "{key}"')

    serve_witness(place, name, log_keys, host, port, started, certificate=certificate, key=tls_key)


def ask(
    url: Annotated[str, typer.Argument(help="Where the witness answers", show_default=False)],
    *,
    witness_key: Annotated[str, typer.Option("--key", help="As it printed it", show_default=False)],
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Ask a witness now to sign the last tree head, and keep its word in the log."""
    with open_door(home_path(home), is_json=is_json) as client:
        done = client.post("audit", "witness", url=url, key=witness_key)
    if is_json:
        print_json(done)
    elif done["name"] is None:
        typer.echo("nothing was logged yet")
    else:
        typer.echo(f"{safe(done['name'])} signed {done['entries']} entries at {done['at']}")


witness_cli.command()(guarded(serve))
witness_cli.command()(guarded(ask))


# --- Shared ----------------------------------------------------------------------------------------------------------


def _log(home: Path | None, log_key: str | None) -> "AuditLog":
    from overwinter.adapters.notes import parse_key  # noqa: PLC0415 - other commands reach a server
    from overwinter.adapters.sqlite import open_log  # noqa: PLC0415 - the same

    return open_log(home_path(home) / "store.db", None if log_key is None else parse_key(log_key))


def _write(place: Path, parts: "Sequence[bytes] | Iterator[bytes]") -> None:
    """Write a file that its owner alone can read: it may hold arguments."""
    try:
        with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as out:
            for part in parts:
                out.write(part)
    except OSError as error:
        raise UsageError(f"{place} cannot be written: {error.strerror}") from error


def _instant_ms(text: str | None) -> int | None:
    if text is None:
        return None
    if (found := re.fullmatch(r"(\d{1,9})([smhd])", text)) is not None:
        unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[found[2]]
        ago_s = timedelta(**{unit: int(found[1])}).total_seconds()
        return max(0, round(1e3 * (time.time() - ago_s)))
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no instant: write 2h, 30m, 7d, or 2027-01-31T12:00Z") from error
    if instant.tzinfo is None:
        instant = instant.astimezone()
    return max(0, round(1e3 * instant.timestamp()))
