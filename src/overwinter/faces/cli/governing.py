"""`overwinter agents`, `inbox`, `approve`, `reject`, `revoke`, `restore`: who may act in a home, and what stops them."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from overwinter.faces.cli.door import home_path, open_door
from overwinter.faces.cli.guard import After, Home, Json, Limit, Person, me, more, once
from overwinter.faces.cli.render import TAIL, print_json, safe, spent, standing, table

__all__ = ["agents", "approve", "asked", "inbox", "reject", "restore", "revoke"]

ON_THE_WIRE_SHOWN = 20
Question = Annotated[str, typer.Argument(help="RUN:INDEX, as `inbox` and `show` print it", show_default=False)]
Reason = Annotated[str, typer.Option("--reason", help="For the record")]


def agents(*, limit: Limit = 1_000, after: After = None, home: Home = None, is_json: Json = False) -> None:
    """List the agents of this home: who answers for each, and whether it may act."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("agents", limit=limit, after=after)
    if is_json:
        print_json(found)
        return
    rows = [
        {
            **each,
            "parent": each["parent"] or "-",
            "expires": each["expires"] or "-",
            "models": ",".join(each["models"]) or "-",
            "budgets": "; ".join(map(spent, each["budgets"])) or "-",
        }
        for each in found["agents"]
    ]
    used = [name for name in ("models", "budgets") if any(row[name] != "-" for row in rows)]
    typer.echo(table(rows, ("name", "state", "epoch", "owner", "parent", "expires", *used, "purpose")))
    more(found)


def inbox(*, limit: Limit = 100, after: After = None, home: Home = None, is_json: Json = False) -> None:
    """Show what people are asked, the oldest first: calls to approve, with all their arguments, and questions."""
    with open_door(home_path(home), is_json=is_json) as client:
        found = client.get("questions", limit=limit, after=after)
    if is_json:
        print_json(found)
        return
    for each in found["questions"]:
        typer.echo("\n".join(asked(each)))
    if not found["questions"]:
        typer.echo("nobody is asked anything")
    more(found)


def asked(question: Mapping[str, Any]) -> list[str]:
    """Return the lines of one question, with the commands that answer it; its text comes from a program or a service."""
    run_id, _, index = question["question"].rpartition(":")
    place = f"{run_id[-TAIL:]}:{index}"
    who = f"{safe(question['person'])}, since {question['since']}, run {safe(question['run_name'])}"
    lines = [f"{place}  {who} of {safe(question['agent'])}", f"  {safe(question['text'])}"]
    approval = question.get("approval")
    if approval is None or approval["is_used"]:
        options = [shlex.quote(safe(option)) for option in question["options"] or ["TEXT"]]
        return [*lines, f"  overwinter answer {place} {' | '.join(options)}"]
    for name, value in question["arguments"].items():
        lines.append(f"    {safe(name)} = {safe(json.dumps(value, ensure_ascii=False))}")
    lines += [f"  {each}" for each in standing(approval)]
    return [*lines, f"  overwinter approve {place}  |  overwinter reject {place} --reason WHY"]


def approve(
    question: Question, *, person: Person = None, reason: Reason = "", home: Home = None, is_json: Json = False
) -> None:
    """Let a call through, once: exactly the call that `inbox` shows."""
    _vote(question, "approve", person, reason, home, is_json=is_json)


def reject(
    question: Question, *, person: Person = None, reason: Reason = "", home: Home = None, is_json: Json = False
) -> None:
    """Refuse a call; the program gets a PermissionError with your reason."""
    _vote(question, "reject", person, reason, home, is_json=is_json)


def _vote(question: str, verb: str, person: str | None, reason: str, home: Path | None, *, is_json: bool) -> None:  # noqa: PLR0913 - a command's options
    with open_door(home_path(home), is_json=is_json) as client:
        approval: Mapping[str, Any] | None = client.get("questions", question).get("approval")
        digest = None if approval is None else approval["digest"]
        done = client.post("questions", question, verb, by=person or me(), reason=reason, digest=digest, dedup=once())
    words = {
        "let_through": "approved: it is performed now",
        "counted": "counted: more people must say yes",
        "rejected": "rejected",
    }
    print_json(done) if is_json else typer.echo(words.get(done["became"], done["became"]))


def revoke(
    subject: Annotated[str, typer.Argument(help="An agent, a run, a token's id, or grant:N", show_default=False)],
    *,
    reason: Reason = "",
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Stop an agent and all below it, or a run, in mid-task: no effect starts after this, nothing wakes. Or a token, a grant."""
    with open_door(home_path(home), is_json=is_json) as client:
        done = client.post("revoke", subject=subject, by=me(), reason=reason)
    print_json(done) if is_json else _print(done)


def _print(done: Mapping[str, Any]) -> None:
    if "token" in done:
        typer.echo(f"revoked token {done['token']['id']} of {safe(done['token']['person'])}: it opens nothing any more")
        return
    if "grant" in done:
        gone = done["grant"]
        typer.echo(f"revoked {gone['id']}: {safe(gone['agent'])} may not call {safe(gone['pattern'])} by it any more")
        return
    for each in done["agents"]:
        typer.echo(f"revoked {safe(each['id'])}")
    if "agents" in done and not done["agents"] and not done["runs"]:
        typer.echo("it was revoked before, with all below it: nothing had to be stopped")
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
    agent: Annotated[
        str, typer.Argument(help="A revoked agent, or with --runs one whose runs are still stopped", show_default=False)
    ],
    *,
    has_runs: Annotated[
        bool, typer.Option("--runs", help="Let the runs go on that the revocation stopped; also later")
    ] = False,
    reason: Reason = "",
    home: Home = None,
    is_json: Json = False,
) -> None:
    """Let a revoked agent act again, in a new epoch. Its earlier runs stay stopped without --runs."""
    with open_door(home_path(home), is_json=is_json) as client:
        done = client.post("restore", agent=agent, by=me(), reason=reason, has_runs=has_runs)
    print_json(done) if is_json else typer.echo(f"{safe(done['id'])} is active")
