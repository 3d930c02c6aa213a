"""The agent loop: goal -> the model writes a program -> check -> run -> what came of it -> again, until the model has an answer.

The loop is itself a program, `LOOP`, of a run like any other. So `kill -9` at any point loses nothing of it, revoking stops it,
budgets and rules hold for it, and while a model thinks or a program of its waits it holds nothing but rows. It makes two calls:

    tools.reply      what the model says next. The host puts the conversation together from the answers of the calls before, and
                     writes down both what it told the model and what that said: the journal is the conversation.
    tools.attempt    the program in it, as a child run that goes on with the variables of the one before; how it ended.

Here is what is pure about it: the text of the loop, what a model is told, what its words mean.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from overwinter.excerpt import excerpt
from overwinter.frozen import frozen
from overwinter.readable import readable
from overwinter.values import Value

__all__ = [
    "LOOP", "LOOP_BEGINS", "REFUSALS_MAX", "RULES", "SIGNATURES_MAX", "STEPS_MAX", "WINDOW_CHARACTERS", "Exchange", "conversation", "failed", "finished", "goal_of",
    "heard", "instructions", "is_unclosed", "program_in",
]  # fmt: skip

STEPS_MAX = 50
"""Replies of the model, unless the start says another limit."""
SIGNATURES_MAX = 20
"""With no more functions in scope, their stubs are told at once; else they are looked up."""
WINDOW_CHARACTERS = 240_000
"""Of a conversation, where the model's own window is not known to be smaller: some 70,000 tokens."""
PRINTED_CHARACTERS_MAX = 8_000
DROPPED_MIN = 200
"""What is shorter stays: its handle would take as much room."""
DEEDS_MAX = 20
"""Calls that had happened, told of a program that failed."""
_BREAKS = "\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029"
"""What begins a line besides a line feed, to somebody."""
_BLANK = "[ \t\x1f\xa0\xad\u034f\u061c\u115f\u1680\u180e\u2000-\u200f\u202a-\u202f\u205f-\u206f\u3000\ufeff]"
"""What nobody sees: spaces of every width, and of none."""
_HEADINGS = (
    "A person says", "A webhook says", "Your goal", "Your next goal", "Value of", "Printed", "The program failed", "It had done",
    "Nothing was changed by it", "(left out", "Your reply ended", "You said nothing",
)  # fmt: skip
_HEADING = re.compile(
    rf"(^|[{_BREAKS}])(?={_BLANK}*+(?:"
    + "|".join(rf"{_BLANK}++".join(map(re.escape, each.split(" "))) for each in _HEADINGS)
    + "))",
    re.MULTILINE | re.IGNORECASE,
)
"""A line that begins as what the host says does."""
_FENCE = re.compile(r"([ \t]*+)```[ \t]*+([\w+#-]*+)(?:[ \t][^`]*+)?")
_PROGRAM = frozenset({"python", "python3", "py"})
_UNNAMED = frozenset({"", "tool_code"})
"""Fences behind which some models put their programs, and all of them other things."""
_AWAITS = re.compile(r"^[^#\n]*\bawait [A-Za-z_][\w.]*\(", re.MULTILINE)

LOOP = """\
# The agent loop. It is a program like any other: saved at each await, decided, budgeted and logged like any other.
import time

began, step, cost_nusd = time.time(), 0, 0
attempted, heard, refused, silent = None, [], 0, 0
answer, why = None, ""
while True:
    if step >= steps:
        end = "steps"
        break
    left = None if seconds is None else began + seconds - time.time()
    if left is not None and left <= 0:
        end = "time"
        break
    step += 1
    try:
        said = await tools.reply(attempted=attempted, heard=heard, timeout=left)
    except Exception as error:
        detail = await tools.error(error)
        end, why = "unavailable" if detail["retryable"] else "refused", detail["message"]
        if detail["code"] in ("budget", "insufficient_quota", "billing_error"):
            end = "money"
        elif detail["type"] == "TimeoutError" and detail["status"] is None:  # a provider's has one
            end, why = "time", ""
        break
    cost_nusd += said["cost_nusd"]
    program, text, is_cut = said["program"], said["text"], said["is_cut"]
    said = None  # it is in the journal, and would be in each state
    attempted, heard, waiting = None, [], True
    if program:
        silent, text = 0, None
        try:
            attempted, program = await tools.attempt(program, after=last, timeout=left), None
            refused = refused + 1 if attempted["status"] == "refused" else 0
            waiting = attempted["messages"]
            last = attempted["run"] if attempted["is_kept"] else last
        except TimeoutError:
            end = "time"
            break
        if refused >= refusals:
            end, why = "refused", "programs were refused by the check " + str(refused) + " times in a row"
            break
    elif is_cut:
        attempted = {"status": "cut"}
    elif text.strip():
        end, answer = "done", text
    else:
        silent += 1
        attempted = {"status": "silent"}
        if silent >= 2:
            end, why = "silent", "the model said nothing, twice"
            break
    try:
        while waiting:
            heard.append(await tools.receive(timeout=0))
    except TimeoutError:
        pass
    if answer is not None:
        if not heard:
            break
        answer = None  # somebody said more while it was answering
{"end": end, "answer": answer, "why": why, "steps": step, "cost_usd": cost_nusd / 1_000_000_000, "last": last}
"""
"""Inputs: `steps`, `seconds` or None, `refusals`, `last` or None; beside them `goal`, `model` and `usd` or None, which the host reads.

Its value: how it ended (`done`, `steps`, `money`, `time`, `refused`, `unavailable`, `silent`), the answer if it is done, why if it is not, what the model's
own calls cost, and the last run whose variables are kept, with which a later goal goes on.
"""
LOOP_BEGINS = LOOP.partition("\n")[0]
"""The first line of every version of the loop: by it a goal is known that began under an earlier one."""
REFUSALS_MAX = 8
"""Programs in a row that the check may refuse."""

RULES = """
Work in steps. A reply is either one program, in a block that begins with ```python, or your answer. Of a program you get what it
printed and the value of its last expression, or what was wrong. Variables and functions of earlier programs stay. To end, reply
without a block.
"""


Turn = tuple[Literal["user", "assistant"], str]
"""Who says something, and what."""


@frozen
class Exchange:
    """One step of a conversation: what the model was told, and what it said."""

    handle: str
    """By which a program reads it again, `RUN:INDEX`."""
    prompt: str
    text: str


def instructions(brief: str, signatures: str) -> str:
    """Return what the model is told before the goal; the same bytes at each step.

    Args:
        brief: how to work here, see `brief`.
        signatures: stubs of all functions, "" where they are too many.
    """
    return brief + RULES + (f"\nAll of the functions:\n{signatures}\n" if signatures else "")


def goal_of(goal: str, *, is_first: bool) -> str:
    """Return the goal as the model is told it."""
    return f"Your goal: {goal}" if is_first else f"Your next goal: {goal}"


def conversation(exchanges: Sequence[Exchange], prompt: str, *, characters_max: int) -> list[Turn]:
    """Return what was said, in turns, as `(user, text)` and `(assistant, text)`, the new prompt last.

    The oldest of what came of programs is dropped for its handle when the window is full, down to half of it: so what stands there
    is the same from step to step but for one time in many, and providers can keep it. A goal is never dropped.
    """
    dropped, size = 0, 0
    for reach, each in enumerate(exchanges, 1):
        size += len(each.prompt) + len(each.text)
        if size > characters_max:
            while dropped < reach - 1 and size > characters_max // 2:
                gone, dropped = exchanges[dropped], dropped + 1
                size -= len(gone.prompt) + len(gone.text) - sum(map(len, _shown(gone)))
    turns: list[Turn] = []
    for place, each in enumerate(exchanges):
        told, said = _shown(each) if place < dropped else (each.prompt, each.text)
        turns.append(("user", told))
        turns.append(("assistant", said))
    return [*turns, ("user", prompt)]


def _shown(exchange: Exchange) -> tuple[str, str]:
    """Return an exchange without what is read again by its handle."""
    prompt, text = exchange.prompt, exchange.text
    if not prompt.startswith("Your ") and len(prompt) > DROPPED_MIN:
        prompt = f"(left out: {len(prompt):,} characters; await tools.read({exchange.handle!r}, 'prompt') gives them)"
    if len(text) > DROPPED_MIN:
        text = (
            f"(left out: a reply of {len(text):,} characters; await tools.read({exchange.handle!r}, 'text') gives it)"
        )
    return prompt, text


def program_in(text: str) -> str | None:
    """Return the program in what a model said; of several blocks all, one after another. None: there is none.

    A block that does not say its language is one if it awaits a call. A reply that ends inside a block has none: what stands there
    may be half of what was meant.
    """
    blocks, is_open = _blocks(text)
    program = "\n".join(block.rstrip("\n") for block in blocks) + "\n"
    return program if program.strip() and not is_open else None


def is_unclosed(text: str) -> bool:
    """Return whether what a model said ends inside a block."""
    return _blocks(text)[1]


def _blocks(text: str) -> tuple[list[str], bool]:
    """Return the blocks of a reply that are programs, and whether it ends inside one.

    Line by line: an expression that looks for the end from each beginning takes minutes for a megabyte of beginnings.
    """
    blocks, block, tag, indent = list[str](), None, "", ""
    for line in text.replace("\r\n", "\n").split("\n"):
        fence = None if tag in _PROGRAM and block is not None else _FENCE.fullmatch(line)
        if block is not None and line.removeprefix(indent).rstrip(" \t") == "```":
            blocks += _program(block, tag)
            block = None
        elif fence is not None and (block is None or fence[2].lower() in _PROGRAM):
            block, tag, indent = list[str](), fence[2].lower(), fence[1]
        elif block is not None:
            block.append(line.removeprefix(indent))
    return blocks, block is not None and (tag in _PROGRAM or bool(_program(block, tag)))


def _program(block: Sequence[str], tag: str) -> list[str]:
    """Return the program in a block, if it is one."""
    program = "\n".join(block)
    is_program = tag in _PROGRAM or (tag in _UNNAMED and _AWAITS.search(program) is not None)
    return [program] if is_program else []


def finished(run_id: str, value: Value, printed: str) -> str:
    """Return what came of a program that reached its end, cut to what may stand in a conversation."""
    shown = _on_one_line(excerpt(value, handle=run_id)) if value is not None else "None"
    return _printed(run_id, printed) + f"Value of {run_id}: {shown}"


def failed(run_id: str, error: Mapping[str, Value], printed: str, deeds: Sequence[str]) -> str:
    """Return what came of a program that did not reach its end.

    Args:
        run_id: its run.
        error: `kind`, `message`, `line`, or of a run that was cancelled `by` and `reason`.
        printed: by it before.
        deeds: what it had done to the world by then, a line each.
    """
    if "kind" in error:
        what = f"{error['kind']}: {error.get('message', '')}" + (
            f" (line {error['line']})" if error.get("line") else ""
        )
        what = _quoted(what)
    else:
        what = f"it was cancelled by {error.get('by')}" + (f": {error['reason']}" if error.get("reason") else "")
    done = (
        "\n".join(["", "It had done before:", *deeds[:DEEDS_MAX]]) if deeds else "\nNothing was changed by it before."
    )
    more = f"\nand {len(deeds) - DEEDS_MAX} calls more" if len(deeds) > DEEDS_MAX else ""
    return _printed(run_id, printed) + f"The program failed: {what}{done}{more}"


def heard(messages: Sequence[Value]) -> str:
    """Return messages, as the model is told them: what a webhook brought is no word of a person."""
    texts = list[str]()
    for each in messages:
        is_hook = isinstance(each, dict) and each.keys() == {"body", "headers"}
        text = each if isinstance(each, str) else _on_one_line(readable(each))
        texts.append(f"A {'webhook' if is_hook else 'person'} says: {text}")
    return "\n".join(texts)


def _on_one_line(value: Value) -> str:
    """Return a value as JSON in which nothing begins a line."""
    return re.sub(f"[{_BREAKS}]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def _quoted(text: str) -> str:
    """Return what a program printed or raised, so that no line of it reads as the host's word: it may hold anybody's text."""
    return _HEADING.sub(r"\1> ", text)


def _printed(run_id: str, text: str) -> str:
    if not text:
        return ""
    if len(text) > PRINTED_CHARACTERS_MAX:
        half = PRINTED_CHARACTERS_MAX // 2
        cut = len(text) - 2 * half
        text = f"{text[:half]}\n[{cut:,} characters: await tools.read('{run_id}:out', '[{half}:{half + 4_000}]')]\n{text[-half:]}"
    return f"Printed:\n{_quoted(text.rstrip())}\n"
