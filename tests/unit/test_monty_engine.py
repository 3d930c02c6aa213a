"""The interpreter's contract: turns, answers in any order, determinism, limits in words."""

import itertools
from collections.abc import AsyncIterator, Mapping

import pytest

from jails import jail_here
from overwinter.adapters.monty import MontyInterpreter, open_interpreter
from overwinter.adapters.monty.engine import DUMP_FORMAT
from overwinter.adapters.monty.outcomes import unpacked
from overwinter.adapters.monty.turn import Fed, Turn
from overwinter.errors import WorkerCrashed
from overwinter.events import Answer, Raised, Returned
from overwinter.interpreter import Blocked, Failed, Finished, Limits, Outcome, Program
from overwinter.values import Value

LIMITS = Limits(turn_cpu_s=0.5, run_cpu_s=1.0, snapshot_bytes=1 << 20, calls_per_turn=50, output_bytes=1_000)
NOW_US = 1_700_000_000_123_457
MODULES: Mapping[str, tuple[str, ...]] = {"svc": ("f", "g"), "tools": ("ask", "receive")}


@pytest.fixture
async def interpreter() -> AsyncIterator[MontyInterpreter]:
    async with open_interpreter(limits=LIMITS, workers=2, jail=jail_here()) as opened:
        yield opened


def program(source: str, inputs: Mapping[str, Value] | None = None, run_id: str = "run-1") -> Program:
    return Program(run_id=run_id, source=source, inputs=inputs or {}, modules=MODULES)


async def start(interpreter: MontyInterpreter, source: str, **inputs: Value) -> Outcome:
    return await interpreter.start(program(source, inputs), now_us=NOW_US)


async def blocked(interpreter: MontyInterpreter, source: str) -> Blocked:
    outcome = await start(interpreter, source)
    assert isinstance(outcome, Blocked), outcome
    return outcome


async def failed(interpreter: MontyInterpreter, source: str) -> Failed:
    outcome = await start(interpreter, source)
    assert isinstance(outcome, Failed), outcome
    return outcome


async def resume(
    interpreter: MontyInterpreter, source: str, at: Outcome, answers: Mapping[int, Answer], now_us: int = NOW_US
) -> Outcome:
    assert isinstance(at, Blocked)
    return await interpreter.resume(program(source), at.snapshot, answers, now_us=now_us)


async def given(interpreter: MontyInterpreter, source: str, answer: Answer) -> Outcome:
    """Run a program of one call to its end."""
    first = await blocked(interpreter, source)
    return await resume(interpreter, source, first, dict.fromkeys(first.pending, answer))


# --- Turns and answers -----------------------------------------------------------------------------------------------


async def test_a_program_without_calls_is_one_turn(interpreter: MontyInterpreter) -> None:
    outcome = await start(interpreter, "print('hi')\nn + 1", n=41)
    assert outcome == Finished(value=42, output="hi\n")


async def test_a_call_is_reported_with_its_place(interpreter: MontyInterpreter) -> None:
    outcome = await blocked(interpreter, "import svc\né = 'ü'; x = 1\nawait svc.f(é, b=[1, {'c': None}])")
    (request,) = outcome.requests
    assert (request.function, request.args, request.kwargs, request.line) == (
        "svc.f",
        ("ü",),
        {"b": [1, {"c": None}]},
        3,
    )
    assert outcome.pending == {request.ticket}
    assert outcome.first is None


async def test_a_result_reaches_the_program(interpreter: MontyInterpreter) -> None:
    source = "import svc\nx = await svc.f()\nx['name']"
    assert await given(interpreter, source, Returned(value={"name": "Ada"})) == Finished(value="Ada", output="")


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.claim("D3.answers.any_order")
async def test_answers_come_in_any_order_and_to_other_interpreters(
    interpreter: MontyInterpreter, order: tuple[int, ...]
) -> None:
    source = "import svc, asyncio\nawait asyncio.gather(svc.f(1), svc.f(2), svc.g(3))"
    outcome: Outcome = await blocked(interpreter, source)
    assert isinstance(outcome, Blocked)
    tickets = [request.ticket for request in outcome.requests]
    async with open_interpreter(limits=LIMITS, workers=1, jail=jail_here()) as other:
        for place, among in zip(order, itertools.cycle([interpreter, other]), strict=False):
            outcome = await resume(among, source, outcome, {tickets[place]: Returned(value=place)})
    assert outcome == Finished(value=[0, 1, 2], output="")


async def test_all_answers_at_once_are_as_good_as_one_by_one(interpreter: MontyInterpreter) -> None:
    source = "import svc, asyncio\nawait asyncio.gather(svc.f(1), svc.f(2), svc.g(3))"
    first = await blocked(interpreter, source)
    answers = {request.ticket: Returned(value=request.args[0]) for request in first.requests}
    assert await resume(interpreter, source, first, answers) == Finished(value=[1, 2, 3], output="")


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("PermissionError", "PermissionError"), ("TimeoutError", "TimeoutError"), ("LookupError", "LookupError"),
        ("ConnectionError", "OSError"), ("ConnectionResetError", "OSError"), ("BufferError", "Exception"),
        ("UnicodeTranslateError", "ValueError"), ("NoSuchError", "RuntimeError"), ("KeyboardInterrupt", "KeyboardInterrupt"),
        ("print", "RuntimeError"), ("GeneratorExit", "RuntimeError"),
    ],
)  # fmt: skip
async def test_an_error_is_raised_as_the_nearest_builtin(interpreter: MontyInterpreter, kind: str, seen: str) -> None:
    source = (
        "import svc\ntry:\n    r = await svc.f()\nexcept BaseException as e:\n    r = [type(e).__name__, str(e)]\nr"
    )
    assert await given(interpreter, source, Raised(kind=kind, message="no \ud800")) == Finished(
        value=[seen, "no ?"], output=""
    )


@pytest.mark.parametrize(
    ("value", "kind"),
    [("x" * (2 << 20), "ValueError"), (object(), "TypeError"), ("\ud800", "ValueError"), (10**5_000, "ValueError")],
    ids=["large", "object", "surrogate", "integer"],
)
async def test_a_result_that_cannot_enter_is_raised_at_the_call(
    interpreter: MontyInterpreter, value: Value, kind: str
) -> None:
    source = "import svc\ntry:\n    await svc.f()\nexcept (TypeError, ValueError) as e:\n    r = type(e).__name__\nr"
    assert await given(interpreter, source, Returned(value=value)) == Finished(value=kind, output="")


async def test_backslashes_and_whole_pairs_are_ordinary_text(interpreter: MontyInterpreter) -> None:
    text = "\\ud800 \\\\ud800 \U0001f600"
    assert await given(interpreter, "await svc.f()", Returned(value=text)) == Finished(value=text, output="")


async def test_a_key_error_keeps_its_parts(interpreter: MontyInterpreter) -> None:
    source = "try:\n    await svc.f()\nexcept KeyError as e:\n    r = await tools.error(e)\n[r['status'], r['message']]"
    answer = Raised(kind="KeyError", message="404 gone: no 'such' [call 0, not retryable]")
    assert await given(interpreter, source, answer) == Finished(value=[404, "no 'such'"], output="")


async def test_time_sleep_holds_the_whole_program(interpreter: MontyInterpreter) -> None:
    source = "import svc, time\nx = svc.f()\ntime.sleep(60)\nawait x"
    first = await blocked(interpreter, source)
    call, sleep = first.requests
    assert (sleep.function, sleep.args, first.first) == ("time.sleep", (60.0,), sleep.ticket)
    assert first.pending == {call.ticket, sleep.ticket}
    with pytest.raises(AssertionError, match="must be answered first"):
        await resume(interpreter, source, first, {call.ticket: Returned(value=1)})
    second = await resume(interpreter, source, first, {sleep.ticket: Returned(value=None)})
    assert isinstance(second, Blocked)
    assert (second.pending, second.first) == ({call.ticket}, None)
    assert await resume(interpreter, source, second, {call.ticket: Returned(value=7)}) == Finished(value=7, output="")


async def test_an_answer_nobody_waits_for_is_our_mistake(interpreter: MontyInterpreter) -> None:
    first = await blocked(interpreter, "import svc\nawait svc.f()")
    with pytest.raises(AssertionError, match="do not wait"):
        await resume(interpreter, "import svc\nawait svc.f()", first, {99: Returned(value=1)})


async def test_a_service_needs_no_import(interpreter: MontyInterpreter) -> None:
    assert await given(interpreter, "await svc.f()", Returned(value=3)) == Finished(value=3, output="")


async def test_a_module_can_be_imported_late(interpreter: MontyInterpreter) -> None:
    source = "import svc as s\nx = await s.f()\nfrom svc import g as h\nawait h(x)"
    first = await blocked(interpreter, source)
    second = await resume(interpreter, source, first, dict.fromkeys(first.pending, Returned(value=5)))
    assert isinstance(second, Blocked)
    assert [(request.function, request.args) for request in second.requests] == [("svc.g", (5,))]


async def test_settle_gives_results_and_errors_in_order(interpreter: MontyInterpreter) -> None:
    source = (
        "import tools as t\nrows = await t.settle(svc.f(1), svc.g(2))\n"
        "[(await t.error(row))['status'] if isinstance(row, Exception) else row for row in rows]"
    )
    first = await blocked(interpreter, source)
    ok, bad = (request.ticket for request in first.requests)
    message = "402 declined: no [call 1, not retryable]"
    answers = {ok: Returned(value="a"), bad: Raised(kind="OSError", message=message)}
    assert [request.line for request in first.requests] == [2, 2]
    assert await resume(interpreter, source, first, answers) == Finished(value=["a", 402], output="")


async def test_calls_never_awaited_are_named(interpreter: MontyInterpreter) -> None:
    assert await start(interpreter, "svc.f()\n7") == Finished(value=7, output="", never_awaited=("svc.f",))
    outcome = await failed(interpreter, "svc.f()\nsvc.g()\n1 / 0")
    assert outcome.never_awaited == ("svc.f", "svc.g")


# --- The same again --------------------------------------------------------------------------------------------------

CLOCK = """
import time, random, datetime
from datetime import date, timezone, timedelta
[time.time(), datetime.datetime.now().isoformat(), datetime.datetime.now(timezone.utc).isoformat(),
 datetime.datetime.now(timezone(timedelta(hours=2))).isoformat(), date.today().isoformat(), random.random()]
"""


async def test_the_clock_stands_still_in_a_turn_and_random_is_the_runs(interpreter: MontyInterpreter) -> None:
    first, again = [await start(interpreter, CLOCK) for _ in range(2)]
    other = await interpreter.start(program(CLOCK, run_id="run-2"), now_us=NOW_US)
    assert isinstance(first, Finished)
    assert isinstance(other, Finished)
    assert first == again
    assert first.value[:5] == [
        1_700_000_000.123457, "2023-11-14T22:13:20.123457", "2023-11-14T22:13:20.123457+00:00",
        "2023-11-15T00:13:20.123457+02:00", "2023-11-14",
    ]  # fmt: skip
    assert other.value[:5] == first.value[:5]
    assert other.value[5] != first.value[5]


async def test_random_goes_on_after_a_sleep_as_without_one(interpreter: MontyInterpreter) -> None:
    source = "import random, asyncio\na = random.random()\nawait asyncio.sleep({})\n[a, random.random()]"
    straight = await start(interpreter, "import random\n[random.random(), random.random()]")
    slept = source.format(3600)
    first = await blocked(interpreter, slept)
    assert [(request.function, request.args) for request in first.requests] == [("asyncio.sleep", (3600.0,))]
    assert await resume(interpreter, slept, first, dict.fromkeys(first.pending, Returned(value=None))) == straight


async def test_the_clock_moves_between_turns(interpreter: MontyInterpreter) -> None:
    source = "import time, asyncio\na = time.time()\nawait asyncio.sleep(5)\ntime.time() - a"
    first = await blocked(interpreter, source)
    answers = dict.fromkeys(first.pending, Returned(value=None))
    outcome = await resume(interpreter, source, first, answers, now_us=NOW_US + 5_000_000)
    assert outcome == Finished(value=5.0, output="")


async def test_a_snapshot_may_be_resumed_again(interpreter: MontyInterpreter) -> None:
    source = "import svc\n[await svc.f(), 1]"
    first = await blocked(interpreter, source)
    answers = dict.fromkeys(first.pending, Returned(value="x"))
    assert [await resume(interpreter, source, first, answers) for _ in range(3)] == [
        Finished(value=["x", 1], output="")
    ] * 3


async def test_the_engine_names_the_format_that_it_writes(interpreter: MontyInterpreter) -> None:
    _, body = unpacked((await blocked(interpreter, "await svc.f()")).snapshot)
    assert body[:6] == b"MONTY\0"
    assert int.from_bytes(body[6:8], "little") == DUMP_FORMAT
    assert interpreter.engine.startswith(f"monty-1.4.0/{DUMP_FORMAT}/")
    assert len(interpreter.engine.rsplit("/", 1)[1]) == 16


# --- Limits, in words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "kind", "setting"),
    [
        ("while True: pass", "CpuLimit", "limits.turn_cpu_s"),
        ("rows = []\nwhile True: rows.append('x' * 100_000)", "MemoryLimit", "limits.memory_mb"),
        ("import time\nwhile True: time.time()", "SuspensionLimit", "asyncio.sleep"),
        ("def f(): return f()\nf()", "RecursionError", "recursion"),
        ("'x' * (2 << 20)", "ValueLimit", "limits.value_kb"),
    ],
)
async def test_a_broken_limit_names_its_setting(
    interpreter: MontyInterpreter, source: str, kind: str, setting: str
) -> None:
    outcome = await failed(interpreter, source)
    assert outcome.kind == kind
    assert setting in outcome.message


async def test_computing_time_adds_up_over_turns(interpreter: MontyInterpreter) -> None:
    source = "import svc\nwhile True:\n    for _ in range(1_000_000): pass\n    await svc.f()"
    outcome: Outcome = await blocked(interpreter, source)
    for _ in range(200):
        if not isinstance(outcome, Blocked):
            break
        outcome = await resume(interpreter, source, outcome, dict.fromkeys(outcome.pending, Returned(value=1)))
    assert isinstance(outcome, Failed)
    assert outcome.kind == "CpuLimit"
    assert "limits.run_cpu_s" in outcome.message


@pytest.mark.parametrize(
    "error", ["TimeoutError('turn time limit')", "MemoryError('memory limit')", "RuntimeError('suspension limit')"]
)
async def test_a_programs_own_error_is_not_taken_for_a_limit(interpreter: MontyInterpreter, error: str) -> None:
    outcome = await failed(interpreter, f"raise {error}")
    assert outcome.kind == error.split("(", maxsplit=1)[0]


async def test_too_much_state_names_the_variable(interpreter: MontyInterpreter) -> None:
    outcome = await failed(
        interpreter, "small = 1\nbig = ['x' * 1_000] * 3\nbig = [str(n) * 300 for n in range(2_000)]\nawait svc.f()"
    )
    assert (outcome.kind, outcome.line) == ("SnapshotLimit", 4)
    assert "big (" in outcome.message
    assert "small" not in outcome.message
    assert "limits.snapshot_mb" in outcome.message


async def test_too_much_state_in_a_function_names_the_function(interpreter: MontyInterpreter) -> None:
    source = "async def gather_rows():\n    big = [str(n) * 300 for n in range(2_000)]\n    await svc.f()\n    return big\nawait gather_rows()"
    outcome = await failed(interpreter, source)
    assert outcome.kind == "SnapshotLimit"
    assert "gather_rows()" in outcome.message


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        ("svc.f(a='x' * (2 << 20))", "ValueError", "arguments of svc.f"),
        ("svc.f(1, {'k': Box()})", "TypeError", "argument 2 of svc.f"),
        ("svc.f(box=Box())", "TypeError", "argument 'box' of svc.f cannot cross: it is an object of class Box"),
        ("svc.f(n=10 ** 5_000)", "ValueError", "argument 'n' of svc.f"),
        (
            "svc.f(to=svc.g())",
            "TypeError",
            "argument 'to' of svc.f cannot cross: there is a coroutine in it: `await` the call",
        ),
        ("svc.f(to=['a', svc.g()])", "TypeError", "there is a coroutine in it"),
        ("svc.f(to={'a': own()})", "TypeError", "there is a coroutine in it"),
        ("svc.f(to=[own])", "TypeError", "there is a function in it"),
        ("svc.f(to=[lambda: 1])", "TypeError", "there is a function in it"),
        ("svc.f(to=re.search('a', 'a'))", "TypeError", "there is a re.Match in it: send plain data"),
    ],
)
async def test_an_argument_that_cannot_leave_is_named_at_the_call(
    interpreter: MontyInterpreter, call: str, kind: str, words: str
) -> None:
    head = "import re\nclass Box:\n    pass\nasync def own():\n    pass\n"
    outcome = await failed(interpreter, f"{head}await {call}")
    assert (outcome.kind, outcome.line) == (kind, 6)
    assert words in outcome.message
    caught = await start(interpreter, f"{head}try:\n    await {call}\nexcept {kind}:\n    r = 'caught'\nr")
    assert isinstance(caught, Finished)
    assert (caught.value, caught.output) == ("caught", "")


async def test_more_calls_than_a_turn_may_hold_are_refused(interpreter: MontyInterpreter) -> None:
    outcome = await failed(interpreter, "import asyncio\nawait asyncio.gather(*[svc.f(n) for n in range(51)])")
    assert "limits.calls_per_turn" in outcome.message
    assert (
        len(
            (
                await blocked(interpreter, "import asyncio\nawait asyncio.gather(*[svc.f(n) for n in range(50)])")
            ).requests
        )
        == 50
    )


async def test_output_is_cut_and_counted(interpreter: MontyInterpreter) -> None:
    outcome = await start(interpreter, "print('é' * 5_000_000)")
    assert outcome.output.startswith("é" * 500)
    assert outcome.output.endswith(
        "[9999001 bytes more were printed and dropped: a turn keeps 1000 (limits.output_kb); print less, or return the value]\n"
    )


async def test_output_of_a_turn_is_that_turns(interpreter: MontyInterpreter) -> None:
    source = "print('one')\nawait svc.f()\nprint('two')"
    first = await blocked(interpreter, source)
    second = await resume(interpreter, source, first, dict.fromkeys(first.pending, Returned(value=1)))
    assert (first.output, second.output) == ("one\n", "two\n")


def test_a_turn_that_costs_the_host_too_long_is_dropped() -> None:
    now = [0.0]
    turn = Turn(program=program(""), fed=Fed(source="", prelude=""), limits=LIMITS, now_us=0, clock=lambda: now[0])
    turn.check_deadline()
    now[0] = 100.0
    with pytest.raises(WorkerCrashed) as caught:
        turn.check_deadline()
    assert caught.value.has_timed_out


# --- Errors ----------------------------------------------------------------------------------------------------------


async def test_an_error_says_where_it_happened(interpreter: MontyInterpreter) -> None:
    outcome = await failed(interpreter, "import tools\ntools.settle\ndef f():\n    return 1 / 0\nf()")
    assert (outcome.kind, outcome.message, outcome.line) == ("ZeroDivisionError", "division by zero", 4)
    assert outcome.traceback == "line 5, in <module>: f()\nline 4, in f: return 1 / 0"


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ("def (", "SyntaxError", "identifier"),
        ("x = '\ud800'", "SyntaxError", "UTF-8"),
        ("missing", "NameError", "missing"),
        ("missing()", "NameError", "missing"),
        ("import nothing", "ModuleNotFoundError", "nothing"),
        ("await svc.secret()", "AttributeError", "secret"),
        ("open('/etc/passwd')", "PermissionError", "/etc/passwd"),
    ],
)
async def test_what_a_program_has_not_fails_in_words(
    interpreter: MontyInterpreter, source: str, kind: str, words: str
) -> None:
    outcome = await failed(interpreter, source)
    assert outcome.kind == kind
    assert words in outcome.message


async def test_an_input_that_cannot_enter_fails_the_program(interpreter: MontyInterpreter) -> None:
    outcome = await start(interpreter, "x", x=object())
    assert isinstance(outcome, Failed)
    assert outcome.kind == "TypeError"


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("class A:\n    def __init__(self): self.x = [1]\n[A(), (A(),)]", [{"x": [1]}, ({"x": [1]},)]),
        ("{'e': ValueError('no')}", {"e": "ValueError: no"}),
        ("None", None),
        ("x = 5", None),
        ("{1, 2}", {1, 2}),
    ],
)
async def test_the_value_of_a_program_is_plain_data(interpreter: MontyInterpreter, source: str, value: Value) -> None:
    assert await start(interpreter, source) == Finished(value=value, output="")
