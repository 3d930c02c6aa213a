"""What a model is told of a program that failed: what it has done to the world by then, and what it may have done."""

import pytest

from overwinter.events import CARRIED_OUT, Call, Effect, Event, Raised, Returned
from overwinter.journal import Deeds, answered, called, under_way

MADE: tuple[tuple[str, Effect], ...] = (("pay", "write"), ("find", "read"), ("send", "write"))
CALLS = [
    Call(run_id="r", index=index, function=f"shop.{name}", arguments={}, effect=effect, line=index + 1)
    for index, (name, effect) in enumerate(MADE)
]
UNREADABLE = Raised(kind="ValueError", message=f"201 its answer is no JSON{CARRIED_OUT}")
REFUSED = Raised(kind="RuntimeError", message="402 no", status=402)


def told(*events: Event) -> list[str]:
    deeds = Deeds()
    for each in (*(called(each, due_us=None, person=None) for each in CALLS), *events):
        deeds.see(each)
    return list(deeds.told)


@pytest.mark.parametrize("answer", [Returned(value=1), UNREADABLE])
def test_a_write_that_was_carried_out_is_a_deed_whatever_its_answer(answer):
    assert told(answered(0, answer), answered(1, Returned(value=1))) == ["shop.pay (line 1)"]


def test_what_was_refused_or_never_left_is_none():
    assert told(answered(0, REFUSED), answered(1, Returned(value=1))) == []


def test_a_write_of_which_nobody_knows_is_one_perhaps_until_somebody_says():
    unknown = under_way(2, "shop.send")
    assert told(unknown) == ["shop.send (line 3): perhaps, no answer came: look before it is done again"]
    assert told(unknown, answered(2, Returned(value=1))) == ["shop.send (line 3)"]
    assert told(unknown, answered(2, REFUSED)) == []
