"""What people read: tables, sentences, one line per event. Text from programs and services is never printed raw."""

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

__all__ = [
    "doubts",
    "event_line",
    "outcome",
    "print_json",
    "reached",
    "safe",
    "safe_lines",
    "show",
    "spent",
    "standing",
    "table",
]

VALUE_LENGTH_MAX = 160
CELL_LENGTH_MAX = 100
SAID_LINES_MAX = 40
"""Of a step of a conversation; `overwinter read` gives the rest."""
EVENTS_SHOWN = 5
TAIL = 8
"""Letters of an id that tables show; any command takes them."""
UNSAFE = re.compile(
    "["
    "\\x00-\\x1f\\x7f-\\x9f"  # C0 and C1: moves, colours, titles, and new lines that would forge lines of ours
    "\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069"  # order of writing (Trojan Source, CVE-2021-42574)
    "\\u00ad\\u180e\\u200b-\\u200d\\u2060-\\u2065\\u206a-\\u206f\\U000e0000-\\U000e007f"  # unseen: words that a model reads and a person does not
    "\\u2028\\u2029\\ufeff"  # more new lines, and nothing that looks like nothing
    "\\ud800-\\udfff"  # half characters, which no encoding takes
    "]"
)


def safe(text: object) -> str:
    """Return a text on one line, without characters by which a program could deceive who looks at it."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


def safe_lines(text: str) -> str:
    """Return a text of several lines without such characters; tabs become spaces."""
    return "\n".join(safe(line) for line in text.expandtabs().split("\n"))


def print_json(value: object) -> None:
    """Print one JSON document on one line."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    """Return rows as aligned columns with a heading; only the last may be long."""
    texts = [[*(cell(row.get(column)) for column in columns[:-1]), safe(row.get(columns[-1]) or "")] for row in rows]
    widths = [max(len(column), *(len(text[place]) for text in texts)) for place, column in enumerate(columns)]
    lines = [list(map(str.upper, columns)), *texts]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def cell(value: object) -> str:
    """Return what a table shows of a value."""
    text = "" if value is None else safe(value)
    return text if len(text) <= CELL_LENGTH_MAX else f"{text[: CELL_LENGTH_MAX - 3]}..."


def show(run: Mapping[str, Any], events: Sequence[Mapping[str, Any]], home_option: str) -> str:
    """Return all that `show` says of a run.

    Args:
        run: as the API gives it, with its open calls.
        events: the last ones of its journal.
        home_option: what to put behind `overwinter` in a command to type; "" for the default home.
    """
    calls = run["open_calls"]
    lines = [
        f"{safe(run['name'])}  {run['id']}",
        f"  {run['status']}: {safe(run['reason'])}",
        f"  agent {safe(run['agent'])}, {run['turns']} turns, {run['calls']} calls, started {run['created']}{_by(run)}",
    ]
    for call in [each for each in calls if "question" in each]:
        lines += _question(call, home_option)
    for call in [each for each in calls if "question" not in each]:
        due = f", until {call['due']}" if call["due"] else ""
        arguments = short(call["arguments"])
        lines.append(f"  open: {safe(call['function'])}({arguments}) line {call['line']}, {call['state']}{due}")
    lines += _end(run)
    names: dict[int, str] = {}
    told = [line for event in events if (line := event_line(event, names)) is not None]
    lines += ["  last events:", *(f"    {part}" for line in told[-EVENTS_SHOWN:] for part in line.split("\n"))]
    return "\n".join(lines)


def reached(reach: Mapping[str, Any]) -> list[str]:
    """Return what a program may run into: whom it asks for which function, and what it may not call."""
    words = {"ask": "asks", "may ask": "may ask"}
    lines: list[str] = []
    for each in reach["gated"]:
        rules = f" ({', '.join(map(safe, each['policies']))})" if each["policies"] else ""
        if each["decision"] == "deny":
            lines.append(f"  {safe(each['function'])} is denied: {safe(each['reason'])}{rules}")
        else:
            lines.append(f"  {safe(each['function'])} {words[each['decision']]} {safe(each['approver'])}{rules}")
    return [*lines, "  it may call any function: it names one only when it runs"] if reach["is_open"] else lines


def standing(approval: Mapping[str, Any]) -> list[str]:
    """Return how an approval stands: who said yes, who must still, and until when."""
    votes = [f"{safe(vote['person'])} said yes" for vote in approval["votes"]]
    needed = sum(need["count"] for need in approval["needs"])
    lines = [f"{', '.join(votes) or 'nobody said yes yet'}; needed: {safe(approval['left'])}"] if needed > 1 else []
    return [*lines, f"until {approval['expires']}"] if approval["expires"] else lines


def _question(call: Mapping[str, Any], home_option: str) -> list[str]:
    """Return a question and the exact command that answers it; a question's text comes from a program."""
    run_id, _, index = call["question"].rpartition(":")
    if (approval := call.get("approval")) is not None and not approval["is_used"]:
        lines = [f"  to be approved by {safe(call['person'])}: {safe(call['text'])}"]
        lines += [f"    {each}" for each in standing(approval)]
        place = f"{run_id[-TAIL:]}:{index}"
        return [
            *lines,
            f"    overwinter{home_option} approve {place}    (or: reject {place}; `inbox` shows its arguments)",
        ]
    first, *others = [shlex.quote(safe(option)) for option in call["options"] or ["TEXT"]]
    alternative = f"    (or: {', '.join(others)})" if others else ""
    lines = [
        f"  question for {safe(call['person'])}: {safe(call['text'])}",
        f"    overwinter{home_option} answer {run_id[-TAIL:]}:{index} {first}{alternative}",
    ]
    if call["state"] == "unknown":
        lines.append(f"    its arguments: {short(call['arguments'])}")
        lines.append(
            "    `done` alone gives the program None: write 'done VALUE' with its result as JSON, if the program uses it"
        )
    return lines


def _end(run: Mapping[str, Any]) -> list[str]:
    result = run["result"]
    match run["status"]:
        case "finished":
            return [f"  value: {short(result)}"]
        case "failed" | "quarantined" if result:
            lines = [f"  error: {safe(result.get('kind'))}: {safe(result.get('message'))}"]
            lines += [f"    {safe(line)}" for line in (result.get("traceback") or "").split("\n") if line]
            return lines + doubts(run)
        case _:
            return []


def doubts(run: Mapping[str, Any]) -> list[str]:
    """Return what the check doubted in a program that failed, a line each; the text comes from the program and its tools."""
    return [f"  perhaps line {each['line']}: {safe(each['message'])}" for each in run.get("warnings", ())]


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


def is_of_goal(result: object) -> bool:
    """Whether a value is what a run with a goal ends with; a program may end with whatever it likes."""
    found = cast("dict[str, Any]", result) if isinstance(result, dict) else {}
    answer = str if found.get("end") == "done" else str | None
    kinds = {"end": str, "answer": answer, "why": str, "steps": int, "cost_usd": int | float}
    return all(key in found and isinstance(found[key], kind) for key, kind in kinds.items())


def outcome(result: Mapping[str, Any], run_id: str) -> str:
    """Return how a goal ended, for people."""
    after = f"--after {run_id[-TAIL:]}"
    cost = f"{result['steps']} steps, {result['cost_usd']:.4f} USD"
    if result["end"] == "done":
        return f"\n{safe_lines(result['answer'])}\n\n({cost})"
    why = {
        "steps": f"it came to its last step: raise --steps, and go on with {after}",
        "money": f"{result['why'] or 'its money is spent'} (raise --usd or the budget, and go on with {after})",
        "time": f"its time has passed: go on with {after}",
        "unavailable": f"{result['why']}: go on with {after} when it is back",
    }.get(result["end"], result["why"])
    return f"no answer ({cost}, run {run_id[-TAIL:]}): {safe(why)}"


def _said(value: Mapping[str, Any]) -> str:
    """Return a step of a conversation: what a model was told, and what it said."""
    told, said = (safe_lines(value[key]).strip().split("\n") for key in ("prompt", "text"))
    return "\n".join(
        [*(f"  > {line}" for line in told[:SAID_LINES_MAX]), *(f"  < {line}" for line in said[:SAID_LINES_MAX])]
    )


def _words(  # noqa: C901, PLR0911, PLR0912 - a line per kind of event
    kind: str, body: Mapping[str, Any], names: dict[int, str]
) -> str | None:
    if kind in ("called", "denied"):
        names[body["index"]] = safe(body["function"])
    call = f"{body.get('index')} {names.get(body.get('index', -1), safe(body.get('function', 'call')))}"
    match kind:
        case "created":
            return f"created by agent {safe(body['agent'])}, inputs {short(body['inputs'])}{_by(body)}"
        case "called":
            due = f", until {_instant(body['due_us'])}" if "due_us" in body else ""
            return f"-> {call} {short(body['arguments'])}{due}"
        case "denied":
            return f"x  {call} denied: {safe(body['reason'])}"
        case "answered" if "error" in body:
            return f"<- {call} raised {safe(body['error']['kind'])}: {safe(body['error']['message'])}{_by(body)}"
        case "answered" if call.endswith(" tools.reply"):
            return _said(body["value"])
        case "answered":
            return f"<- {call} = {short(body['value'])}{_by(body)}"
        case "retried":
            error = body.get("error", {}).get("message", "")
            return f"~  {call} will be tried again, attempt {body.get('attempt', 0) + 1} {safe(error)}".rstrip()
        case "continued":
            return f"~  {call} goes on: {safe(body['why'])}"
        case "began":
            return f"~  {call} began run {safe(body['run'])}"
        case "asked":
            return f"?  {call} asks {safe(body['person'])}: {safe(body['question'])}"
        case "gated":
            return f"?  {call} waits for {safe(body['person'])} to approve it: {safe(body['reason'])}"
        case "approved":
            more = "" if body["is_enough"] else ", more must"
            return f"<- {call} approved by {safe(body['by'])}{more} {safe(body['reason'])}".rstrip()
        case "rejected":
            return f"<- {call} rejected by {safe(body['by'])} {safe(body['reason'])}".rstrip()
        case "unknown":
            return f"?  {call}: outcome unknown: {safe(body['why'])}"
        case "left":
            return f"?  {call}: under way when its run ended: what came of it is not known yet"
        case "message":
            return f"<- message {short(body['value'])}{_by(body)}"
        case "printed":
            return "\n".join(f"|  {safe(line)}" for line in body["text"].rstrip("\n").expandtabs().split("\n"))
        case "released":
            return f"released{_by(body)}"
        case "cancelled":
            return f"cancelled{_by(body)} {safe(body.get('reason', ''))}".rstrip()
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
    """Return who began a run: the call of another one, or a person; "" if nobody is known."""
    if body.get("parent"):
        place = f":{body['call']}" if "call" in body else ""
        return f" (begun by run {safe(body['parent'])[-TAIL:]}{place})"
    return f" (by {safe(body['by'])})" if "by" in body else ""


def _time(at: str) -> str:
    return at[11:23]


def _instant(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def spent(budget: Mapping[str, Any]) -> str:
    """Return in words how a budget stands: `tenant:default 0.0144 of 5 USD a day`."""
    what = "" if budget["limit_usd"] is None else f"{budget['spent_usd']:.4f} of {budget['limit_usd']:g} USD"
    calls = "" if budget["calls_max"] is None else f"{budget['calls']} of {budget['calls_max']} calls"
    span = "ever" if budget["window"] == "ever" else f"a {budget['window']}"
    return f"{safe(budget['of'])} {', '.join(each for each in (what, calls) if each)} {span}"
