"""The Checker contract: compile in the interpreter, judge the subset, check the types. Nothing of a program runs.

Every text begins with an undefined name, so the checker always refuses it: nothing that is fed can execute, and nothing
adds up from one program to the next. The modules in this session hold no functions at all.
"""

import ast
import builtins
import hashlib
import re
import textwrap
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import anyio
import pydantic_monty as monty

from overwinter.adapters.monty.workers import Desk, JailSettings, Workers, open_workers
from overwinter.adapters.monty_checker.earlier import NOTHING, Earlier, earlier
from overwinter.adapters.monty_checker.judge import OPERATING, Judge
from overwinter.adapters.monty_checker.text import (
    OPENED,
    Checked,
    Report,
    called_as_seen,
    checked_text,
    opened,
    parsed,
    tool_names,
)
from overwinter.adapters.monty_checker.words import Words, explained
from overwinter.bindings import root
from overwinter.check import FIRST, UNSEEN, Finding, Transcript
from overwinter.errors import WorkerCrashed
from overwinter.frozen import frozen
from overwinter.stubs import TOOLS, unshadowed
from overwinter.subset import SOURCE_BYTES_MAX, lacks
from overwinter.values import Value

__all__ = ["MontyChecker", "open_checker"]

GUARD = "undefined_name_that_stops_execution"
PROBE = "undefined_name_that_proves_reachability"
REQUEST_TIMEOUT_S = 20.0
EXPLAINED_MAX = 50
"""Findings whose words are looked for; each goes through the whole program."""
CHECKS_PER_SESSION_MAX = 2_000
"""A session keeps about 1 KB of each check."""
REMEMBERED = 1_000
FINISHED = "this checkout has already been finished"
"""What the interpreter's client raises, as a plain RuntimeError, of a session whose worker was killed."""
LIMITS = monty.ResourceLimits(max_feed_duration_secs=5.0, max_turn_duration_secs=5.0, max_memory=256 << 20)
CALLING = frozenset({"unknown-argument", "missing-argument", "too-many-positional-arguments"})
"""Rules about what a function takes, whatever a value is."""
LIMIT = re.compile(r"MemoryError: memory limit exceeded|TimeoutError: .*time limit exceeded")

# Monty has these at run time; the checker it brings calls them undefined. tests/unit/test_checker.py tries every name.
BUILTINS = """
from typing import Any, Callable, Iterable, overload
class ImportError(Exception): ...
class ModuleNotFoundError(ImportError): ...
class FileExistsError(OSError): ...
class FileNotFoundError(OSError): ...
class IsADirectoryError(OSError): ...
class NotADirectoryError(OSError): ...
class PermissionError(OSError): ...
class UnboundLocalError(NameError): ...
class UnicodeDecodeError(ValueError): ...
class UnicodeEncodeError(ValueError): ...
def open(file: Any, mode: str = ..., *, encoding: str | None = ..., newline: str | None = ...) -> Any: ...
def hasattr(obj: object, name: str, /) -> bool: ...
def getattr(obj: object, name: str, default: Any = ..., /) -> Any: ...
def setattr(obj: object, name: str, value: Any, /) -> None: ...
def format(value: object, spec: str = ..., /) -> str: ...
def map[T](function: Callable[..., T], /, *rows: Iterable[Any]) -> Iterable[T]: ...
@overload
def filter[T](function: None, rows: Iterable[T | None], /) -> Iterable[T]: ...
@overload
def filter[T](function: Callable[[T], Any], rows: Iterable[T], /) -> Iterable[T]: ...
"""
SEEN = """from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypedDict
"""
INPUT_TYPES: Mapping[type, str] = {
    bool: "bool", int: "int", float: "float", str: "str", bytes: "bytes", datetime: "datetime", date: "date",
    timedelta: "timedelta", Decimal: "Decimal", type(None): "None",
}  # fmt: skip


@asynccontextmanager
async def open_checker(
    *, launcher: str, jail: JailSettings, is_eager: bool = True, is_proven: bool = True
) -> "AsyncGenerator[MontyChecker]":
    """Start the checker's worker, jailed like any other, until the block is left; see `open_workers`."""
    async with open_workers(launcher, jail, 1, REQUEST_TIMEOUT_S, is_eager=is_eager, is_proven=is_proven) as workers:
        checker = MontyChecker(workers)
        try:
            yield checker
        finally:
            await checker.close()


class MontyChecker:
    """See `check.Checker`."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._session = _Session()
        self._stubs: Mapping[str, str] = {}
        self._stubs_digest = _stubs_digest({})
        self._known: OrderedDict[bytes, tuple[Finding, ...]] = OrderedDict()
        self._begun: dict[bytes, anyio.Event] = {}
        """Checks under way."""

    async def proven(self) -> None:
        """Wait until the worker has answered.

        Raises:
            JailUnavailable: the jail cannot be had, or the worker was found outside it.
        """
        await self._workers.proven()

    async def check(
        self,
        source: str,
        stubs: Mapping[str, str],
        inputs: Mapping[str, Value],
        *,
        transcript: Transcript = FIRST,
        seen: Mapping[str, str] = UNSEEN,
    ) -> Sequence[Finding]:
        """Return what is wrong, in order of line. The same program is checked once, also by two who ask at a time."""
        if stubs is not self._stubs:  # megabytes, as a rule the same object again
            self._stubs, self._stubs_digest = stubs, _stubs_digest(stubs)
        before = earlier(transcript, source) if len(source) <= SOURCE_BYTES_MAX else NOTHING
        key = _digest("\0".join([before.text, *seen.values(), source]), self._stubs_digest, inputs)
        while (begun := self._begun.get(key)) is not None:  # it may be cancelled there
            await begun.wait()
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        self._begun[key] = anyio.Event()
        try:
            findings = await self._checked(_Program(source=source, inputs=inputs, before=before, seen=seen), stubs)
            if not any(each.rule == "uncheckable" for each in findings):  # the next time it may be
                self._known[key] = findings
        finally:
            self._begun.pop(key).set()
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return findings

    async def close(self) -> None:
        """End the session that is open."""
        await self._workers.run(lambda _: self._session.close())

    async def _checked(self, program: "_Program", stubs: Mapping[str, str]) -> tuple[Finding, ...]:
        modules = {**stubs, "tools": TOOLS}
        if len(program.source.encode("utf-8", "surrogatepass")) > SOURCE_BYTES_MAX:
            return tuple(_lacking(program.source, modules, ""))
        for attempt in range(2):
            try:
                return await self._workers.run(lambda desk: self._session.check(desk, program, modules))
            except WorkerCrashed as error:
                self._session = _Session()
                if attempt:
                    message = f"it cannot be checked, and what is not checked does not run: {error}"
                    return (Finding(line=1, column=0, rule="uncheckable", message=message),)
        raise AssertionError("the loop returns")


def _stubs_digest(stubs: Mapping[str, str]) -> bytes:
    hashed = hashlib.sha256()
    for name, stub in sorted(stubs.items()):
        hashed.update(f"\0{name}\0{stub}".encode("utf-8", "surrogatepass"))
    return hashed.digest()


def _digest(source: str, stubs: bytes, inputs: Mapping[str, Value]) -> bytes:
    hashed = hashlib.sha256(stubs + source.encode("utf-8", "surrogatepass"))
    for name, value in sorted(inputs.items()):
        hashed.update(f"\0{name}\0{type(value).__name__}".encode())
    return hashed.digest()


def _lacking(source: str, modules: Mapping[str, str], earlier: str) -> list[Finding]:
    return [
        Finding(line=each.line, column=each.column, rule="unsupported", message=f"{each.what}: {each.advice}")
        for each in lacks(source, modules.keys(), earlier)
    ]


@frozen
class _Program:
    source: str
    inputs: Mapping[str, Value]
    before: Earlier
    seen: Mapping[str, str]


class _Exhausted(Exception):
    """The session has reached a limit."""


class _Session:
    """The checking session, used in the worker's thread alone. One set of stubs at a time."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._session: monty.MontySession | None = None
        self._modules: Mapping[str, str] = {}
        self._checks = 0

    def check(self, desk: Desk, program: _Program, modules: Mapping[str, str]) -> tuple[Finding, ...]:
        """Return what is wrong with a program.

        What a session keeps of each check counts against its limits; one that has reached them is opened anew, so that no
        program pays for those before it.
        """
        for is_last in (False, True):
            try:
                return self._judged(self._opened(desk, modules), program, modules)
            except _Exhausted as error:
                self.close()
                if is_last:
                    message = f"it cannot be checked, and what is not checked does not run: {error}"
                    return (Finding(line=1, column=0, rule="uncheckable", message=message),)
            except RuntimeError as error:
                # Whoever gave up the check before this one had the worker killed. A live checkout is never dropped: it would
                # keep the one worker that there is.
                if is_last or str(error) != FINISHED:
                    raise
                self._stack, self._session = ExitStack(), None
        raise AssertionError("the loop returns")

    def _judged(
        self, session: monty.MontySession, program: _Program, modules: Mapping[str, str]
    ) -> tuple[Finding, ...]:
        findings = _lacking(program.source, modules, program.before.text)
        # The interpreter's own words for what it cannot compile count only where ours say nothing.
        findings = findings or self._compiled(session, program.source)
        if not findings or all(finding.message.startswith("`") for finding in findings):
            findings += self._typed(session, program, modules)
        return tuple(sorted(dict.fromkeys(findings)))

    def close(self) -> None:
        """Let go of the worker."""
        self._stack.close()
        self._session = None

    def _opened(self, desk: Desk, modules: Mapping[str, str]) -> monty.MontySession:
        self._checks += 1
        if self._session is not None and modules == self._modules and self._checks < CHECKS_PER_SESSION_MAX:
            return self._session
        self.close()
        session = self._stack.enter_context(
            desk.pool.checkout(
                limits=LIMITS,
                type_check=True,
                type_check_format="concise",
                type_check_stubs=BUILTINS,
                external_modules={
                    name: monty.ExternalModule({}, stubs=unshadowed(stub)) for name, stub in modules.items()
                },
            )
        )
        desk.seen(session)
        # Else an import inside a function cannot be resolved.
        session.feed_run("".join(f"import {name}\n" for name in modules))
        self._session, self._modules, self._checks = session, dict(modules), 0
        return session

    @staticmethod
    def _compiled(session: monty.MontySession, source: str) -> list[Finding]:
        """Let the interpreter compile the program, in a function that is never called: it lacks `yield`, `del`, ..."""
        body = textwrap.indent(source, "    ", lambda _: True)
        try:
            session.feed_run(f"async def compiled():\n{body}\n    pass", skip_type_check=True)
        except (monty.MontySyntaxError, monty.MontyRuntimeError) as error:
            if LIMIT.match(str(error)):
                raise _Exhausted(str(error)) from error
            frames = error.traceback()
            line, column = (frames[-1].line - 1, frames[-1].column - 4) if frames else (1, 1)
            message = str(error).removeprefix("NotImplementedError: The monty syntax parser does not yet support ")
            message = message if message == str(error) else f"{message} is not available"
            return [Finding(line=max(1, line), column=max(1, column), rule="unsupported", message=message)]
        return []

    @staticmethod
    def _typed(session: monty.MontySession, program: _Program, modules: Mapping[str, str]) -> list[Finding]:
        for before in dict.fromkeys([program.before.text, program.before.loose]):
            head = f"{GUARD}\n{_declared(program.inputs)}{before}{PROBE}\n"
            checked = checked_text(head, program.source, modules.keys())
            reports = _reports(session, checked.text)
            if any(report.row == checked.first - 1 for report in reports):
                findings = _found(reports, checked, modules)
                findings += _hidden(session, checked, findings, modules)
                is_refused = any(finding.is_certain for finding in findings)
                return findings if is_refused else [*findings, *_unseen(session, checked, reports, program.seen)]
        message = "it cannot be checked: the checker did not reach it"
        return [Finding(line=1, column=0, rule="uncheckable", message=message)]


def _declared(inputs: Mapping[str, Value]) -> str:
    """Declare the inputs by what a function returns: a plain assignment would narrow them to their first value."""
    rows = ["from datetime import date, datetime, timedelta", "from decimal import Decimal", "from typing import Any"]
    for number, (name, value) in enumerate(inputs.items()):
        kind = INPUT_TYPES.get(type(value), "Any")
        rows += [f"def input_{number}_of_this_program() -> {kind}: ...", f"{name} = input_{number}_of_this_program()"]
    return "".join(f"{row}\n" for row in rows) if inputs else ""


def _reports(session: Any, text: str) -> list[Report]:
    """Return what the checker says. Never in the format `json`: it can crash the worker."""
    try:
        session.feed_run(text)
    except monty.MontyRuntimeError as error:
        raise _Exhausted(str(error)) from error
    except monty.MontyTypingError as error:
        found = re.findall(r"^main\.py:(\d+):(\d+): \w+\[([\w-]+)\] (.*)$", error.display(), re.MULTILINE)
        return [
            Report(row=int(row), column=int(column), rule=rule, message=message) for row, column, rule, message in found
        ]
    raise AssertionError("the guard did not stop the program")


def _hidden(session: Any, checked: Checked, known: list[Finding], modules: Mapping[str, str]) -> list[Finding]:
    """Return what is wrong with calls of tools where the checker believed that the program never comes.

    Nothing that a test may have said of a value counts there: not its type, only what the function takes.
    """
    text = opened(checked)
    if text is None:
        return []
    tree = parsed(text.text)
    tools = tool_names(tree, modules.keys())
    calls = [each for each in ast.walk(tree) if isinstance(each, ast.Call)]
    plain = [each for each in calls if root(each.func) in tools and _is_written_out(each)]
    rows = _rows(plain) - _rows(each for each in calls if each not in plain and _may_vary(each))
    if not rows:
        return []
    reports = [each for each in _reports(session, text.text) if each.row in rows and _is_of_a_call(each)]
    said = {(each.line, each.rule) for each in known}
    return [each for each in _found(reports, text, modules) if each.is_certain and (each.line, each.rule) not in said]


def _rows(calls: Iterable[ast.Call]) -> set[int]:
    return {row for each in calls for row in range(each.lineno, (each.end_lineno or each.lineno) + 1)}


def _is_written_out(call: ast.Call) -> bool:
    return all(word.arg is not None for word in call.keywords) and not any(
        isinstance(each, ast.Starred) for each in call.args
    )


def _may_vary(call: ast.Call) -> bool:
    """Whether a test may have said what is called, as of a function that is defined in both branches."""
    return not (isinstance(call.func, ast.Name) and (call.func.id == OPENED or hasattr(builtins, call.func.id)))


def _is_of_a_call(report: Report) -> bool:
    """Whether a report hangs on no value: it is about what a function takes, or that a module has none of its name."""
    return report.rule in CALLING or (report.rule == "unresolved-attribute" and report.message.startswith("Module `"))


def _unseen(session: Any, checked: Checked, known: list[Report], seen: Mapping[str, str]) -> list[Finding]:
    """Return what else would be wrong if all answers were like those that were seen."""
    seen = {name: stub for name, stub in seen.items() if name.replace(".", "_") not in checked.text}
    if not seen:
        return []
    head = SEEN + unshadowed("".join(seen.values()))
    first, _, rest = called_as_seen(checked.text, seen).partition("\n")
    shift = head.count("\n")
    said = {(report.row, report.column, report.rule) for report in known}
    return [
        Finding(
            line=report.row - shift - checked.first + 1,
            column=0 if report.row - shift in checked.touched else report.column,
            rule=report.rule,
            message=f"{report.message} (by what was answered before: seen, not promised)",
            is_certain=False,
        )
        for report in _reports(session, f"{first}\n{head}{rest}")
        if report.rule in OPERATING or report.rule == "invalid-key"
        if report.row - shift >= checked.first and (report.row - shift, report.column, report.rule) not in said
    ]


def _found(reports: list[Report], checked: Checked, modules: Mapping[str, str]) -> list[Finding]:
    tree = parsed(checked.text)
    judge = Judge(checked, tree, modules.keys(), reports)
    findings: list[Finding] = []
    for report in reports:
        if report.row < checked.first:
            continue
        said = explained(report, tree, modules) if len(findings) < EXPLAINED_MAX else Words(message=report.message)
        findings.append(
            Finding(
                line=report.row - checked.first + 1,
                column=0 if report.row in checked.touched else report.column,
                rule=report.rule,
                message=said.message,
                is_certain=judge.is_certain(report),
                at=said.at,
                got=said.got,
                did_you_mean=said.did_you_mean,
                stub=said.stub,
            )
        )
    return findings
