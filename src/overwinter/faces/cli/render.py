"""What people read: tables, sentences, one line per event. Text from programs and services is never printed raw."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

__all__ = ["event_line", "print_json", "safe", "show", "table"]

VALUE_LENGTH_MAX = 160
TAIL = 8
"""Letters of an id that tables show; any command takes them."""
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def safe(text: object) -> str:
    """Return a text without control characters: a program must not move the cursor of who looks at it."""
    return CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", str(text))


def print_json(value: object) -> None:
    """Print one JSON document on one line."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    """Return rows as aligned columns with a heading."""
    texts = [[safe(row.get(column) if row.get(column) is not None else "") for column in columns] for row in rows]
    widths = [max(len(column), *(len(text[place]) for text in texts)) for place, column in enumerate(columns)]
    lines = [list(map(str.upper, columns)), *texts]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def show(run: Mapping[str, Any], questions: Sequence[Mapping[str, Any]], home_option: str) -> str:
    """Return all that `show` says of a run."""
    lines = [
        f"{run['name']}  {run['id']}",
        f"  {run['status']}: {safe(run['reason'])}",
        f"  agent {run['agent']}, {run['turns']} turns, {run['calls']} calls, started {run['created']}",
    ]
    for question in questions:
        tail = question["question"].rpartition(":")
        options = question["options"] or ["TEXT"]
        lines += [
            f"  question for {safe(question['person'])}: {safe(question['text'])}",
            f"    overwinter{home_option} answer {tail[0][-TAIL:]}:{tail[2]} {'|'.join(map(safe, options))}",
        ]
        if question["state"] == "unknown":
            lines.append(f"    its arguments: {short(question['arguments'])}")
    for call in run.get("open_calls", ()):
        if "question" not in call:
            due = f", until {call['due']}" if call["due"] else ""
            lines.append(
                f"  open: {call['function']}({short(call['arguments'])}) line {call['line']}, {call['state']}{due}"
            )
    match run["status"]:
        case "finished":
            lines.append(f"  value: {short(run['result'])}")
        case "failed" | "quarantined" if run["result"]:
            lines.append(f"  error: {safe(run['result'].get('kind'))}: {safe(run['result'].get('message'))}")
            lines += [f"    {safe(line)}" for line in (run["result"].get("traceback") or "").split("\n") if line]
        case _:
            pass
    return "\n".join(lines)


def short(value: object) -> str:
    """Return a value on one line, cut if it is long."""
    text = safe(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= VALUE_LENGTH_MAX else f"{text[:VALUE_LENGTH_MAX]}... ({len(text)} characters)"


def event_line(event: Mapping[str, Any], names: dict[int, str]) -> str | None:
    """Return an event as one line; None for what only a machine cares about.

    Args:
        event: as the API gives it.
        names: call index to function, filled and read from line to line.
    """
    body = event["body"]
    words = _words(event["kind"], body, names)
    return None if words is None else f"{_time(event['at'])} {words}"


def _words(  # noqa: C901, PLR0911, PLR0912 - a line per kind of event
    kind: str, body: Mapping[str, Any], names: dict[int, str]
) -> str | None:
    if kind in ("called", "denied"):
        names[body["index"]] = body["function"]
    call = f"{body.get('index')} {names.get(body.get('index', -1), body.get('function', 'call'))}"
    match kind:
        case "created":
            return f"created by agent {body['agent']}, inputs {short(body['inputs'])}"
        case "called":
            due = f", until {_instant(body['due_us'])}" if "due_us" in body else ""
            return f"-> {call} {short(body['arguments'])}{due}"
        case "denied":
            return f"x  {call} denied: {safe(body['reason'])}"
        case "answered" if "error" in body:
            return f"<- {call} raised {body['error']['kind']}: {safe(body['error']['message'])}{_by(body)}"
        case "answered":
            return f"<- {call} = {short(body['value'])}{_by(body)}"
        case "retried":
            error = body.get("error", {}).get("message", "")
            return f"~  {call} will be tried again, attempt {body.get('attempt', 0) + 1} {safe(error)}".rstrip()
        case "unknown":
            return f"?  {call}: outcome unknown: {safe(body['why'])}"
        case "message":
            return f"<- message {short(body['value'])}"
        case "printed":
            return "\n".join(f"|  {safe(line)}" for line in body["text"].rstrip("\n").split("\n"))
        case "turn" | "started":
            return None
        case "finished":
            return f"finished: {short(body['value'])}"
        case "failed" | "quarantined" | "stumbled":
            line = f" (line {body['line']})" if body.get("line") else ""
            return f"{kind}{line}: {safe(body['kind'])}: {safe(body['message'])}"
        case _:
            return f"{kind} {short(body)}"


def _by(body: Mapping[str, Any]) -> str:
    return f" (by {safe(body['by'])})" if "by" in body else ""


def _time(at: str) -> str:
    return at[11:23]


def _instant(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
