"""The line of runs: each once, both kinds in turn, and in what order."""

from itertools import pairwise

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter.line import Line

pytestmark = pytest.mark.anyio


async def taken(line, count):
    return [await line.next() for _ in range(count)]


async def test_runs_with_an_answer_and_the_others_take_turns():
    line = Line()
    for number in range(4):
        line.add(f"other {number}", is_answered=False)
    for number in range(2):
        line.add(f"answered {number}", is_answered=True)
    assert await taken(line, 6) == ["answered 0", "other 0", "answered 1", "other 1", "other 2", "other 3"]


async def test_a_run_is_in_line_once_and_may_line_up_again_when_it_was_taken():
    line = Line()
    line.add("a", is_answered=False)
    line.add("a", is_answered=True)
    assert (len(line), await line.next(), len(line)) == (1, "a", 0)
    line.add("a", is_answered=True)
    assert await line.next() == "a"


async def test_who_waits_is_given_the_next_run_and_who_gave_up_costs_none():
    line, got = Line(), list[str]()

    async def take():
        got.append(await line.next())

    async with anyio.create_task_group() as group:
        with anyio.move_on_after(0):
            await take()
        group.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        assert not got
        line.add("a", is_answered=False)
    assert got == ["a"]


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.booleans())))
def test_none_is_lost_none_overtaken_by_its_own_kind_and_none_waits_twice_for_the_other(steps):
    async def play():
        line, waiting = Line(), {True: list[str](), False: list[str]()}
        kinds = list[tuple[bool, bool]]()
        for number, is_answered, is_taken in steps:
            if f"{number}" not in waiting[True] + waiting[False]:
                waiting[is_answered].append(f"{number}")
            line.add(f"{number}", is_answered=is_answered)
            if is_taken and len(line):
                run_id = await line.next()
                kind = run_id in waiting[True]
                kinds.append((kind, bool(waiting[not kind])))
                assert run_id == waiting[kind].pop(0)
            assert len(line) == len(waiting[True]) + len(waiting[False])
        assert all(first != second for (first, _), (second, is_other_kept) in pairwise(kinds) if is_other_kept)

    anyio.run(play)
