"""The protocol as a model, every interleaving of it: two holders, one run, and as many faults as the histories allow.

The rules are those of `store.py`. Each is a switch here; with all of them on no history breaks a promise, and with any
one off some history does. So the model says what each rule is for, and the suite says that the store keeps them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import pytest

FAULTS_MAX = 2
"""Crashes, takeovers, lost answers and repeated sends in one history. Three and four give the same verdicts."""

S = TypeVar("S")


def explore(
    first: S, steps: Callable[[S], Iterator[S]], flaws: Callable[[S], Iterator[str]], settled: Callable[[S], bool]
) -> set[str]:
    """Return the flaws of every state that can be reached; `stuck` if one of them can reach no settled state."""
    seen, frontier, found = {first}, [first], set[str]()
    before: dict[S, list[S]] = {}
    while frontier:
        state = frontier.pop()
        found |= set(flaws(state))
        for after in steps(state):
            before.setdefault(after, []).append(state)
            if after not in seen:
                seen.add(after)
                frontier.append(after)
    hopeful = {state for state in seen if settled(state)}
    unread = list(hopeful)
    while unread:
        for state in before.get(unread.pop(), ()):
            if state not in hopeful:
                hopeful.add(state)
                unread.append(state)
    return found | ({"stuck"} if hopeful != seen else set())


# --- One run, two holders, two messages --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    fence: Literal["none", "read earlier", "in the commit"] = "in the commit"
    has_seq: bool = True
    delete: Literal["exact", "up to the highest read"] = "exact"
    is_remembered: bool = True
    """A repeat is recognised after the first copy was consumed."""


@dataclass(frozen=True, slots=True)
class Holder:
    epoch: int | None = None
    """What it believes to hold under; None: nothing."""
    turn: tuple[int, frozenset[int]] | None = None
    """`seq` and mail that its turn was loaded with."""
    has_checked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    epoch: int = 0
    seq: int = 0
    mail: frozenset[int] = frozenset({2})
    unsent: frozenset[int] = frozenset({1})
    """Its sender drew its id early and commits late: it may appear after a higher one was read."""
    seen: frozenset[int] = frozenset({2})
    journal: tuple[tuple[int, int], ...] = ()
    """Message and epoch, in the order committed."""
    holders: tuple[Holder, Holder] = (Holder(), Holder())
    late: Holder | None = None
    """A commit whose answer was lost: it may still be applied at any time."""
    faults: int = FAULTS_MAX


def home_steps(rules: Rules, home: Home) -> Iterator[Home]:
    for message in home.unsent:
        yield replace(home, unsent=home.unsent - {message}, mail=home.mail | {message}, seen=home.seen | {message})
    for message in home.seen if home.faults and not rules.is_remembered else ():
        yield replace(home, mail=home.mail | {message}, faults=home.faults - 1)
    if home.late is not None:
        yield replace(home, late=None)
        if applies(rules, home, home.late):
            yield replace(applied(rules, home, home.late), late=None)
    for place in (0, 1):
        yield from holder_steps(rules, home, place)


def holder_steps(rules: Rules, home: Home, place: int) -> Iterator[Home]:
    holder = home.holders[place]
    is_held = any(each.epoch == home.epoch for each in home.holders) and home.epoch > 0
    if (holder.epoch != home.epoch or home.epoch == 0) and (not is_held or home.faults):
        taken = put(home, place, Holder(home.epoch + 1))
        yield replace(taken, epoch=home.epoch + 1, faults=home.faults - is_held)
    if holder.epoch is None:
        return
    if home.faults:
        yield replace(put(home, place, Holder()), faults=home.faults - 1)
    if holder.turn is None:
        if home.mail:
            yield put(home, place, replace(holder, turn=(home.seq, home.mail)))
        return
    if rules.fence == "read earlier" and not holder.has_checked:
        is_owner = holder.epoch == home.epoch
        yield put(home, place, replace(holder, has_checked=True) if is_owner else Holder())
        return
    if not applies(rules, home, holder):
        yield put(home, place, Holder() if holder.epoch != home.epoch else Holder(holder.epoch))
        return
    yield put(applied(rules, home, holder), place, Holder(holder.epoch))
    if home.faults and home.late is None:
        yield replace(put(home, place, Holder(holder.epoch)), late=holder, faults=home.faults - 1)


def applies(rules: Rules, home: Home, holder: Holder) -> bool:
    assert holder.turn is not None
    is_owner = holder.epoch == home.epoch or rules.fence != "in the commit"
    return is_owner and (holder.turn[0] == home.seq or not rules.has_seq)


def applied(rules: Rules, home: Home, holder: Holder) -> Home:
    assert holder.turn is not None
    assert holder.epoch is not None
    read = holder.turn[1]
    gone = read if rules.delete == "exact" else {each for each in home.mail if each <= max(read)}
    written = tuple((message, holder.epoch) for message in sorted(read))
    return replace(home, seq=home.seq + 1, mail=home.mail - gone, journal=home.journal + written)


def put(home: Home, place: int, holder: Holder) -> Home:
    return replace(home, holders=(holder, home.holders[1]) if place == 0 else (home.holders[0], holder))


def home_flaws(home: Home) -> Iterator[str]:
    messages, epochs = [message for message, _ in home.journal], [epoch for _, epoch in home.journal]
    if len(set(messages)) < len(messages):
        yield "twice"
    if home.seen - home.mail - set(messages):
        yield "lost"
    if epochs != sorted(epochs):
        yield "stale holder wrote"


# --- One call with an effect outside -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectRules:
    is_marked: bool = True
    is_start_fenced: bool = True
    does_start_ask: bool = True
    """A start is refused for a run that has ended."""
    when_unknown: Literal["ask", "repeat"] = "ask"
    is_key_honoured: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    epoch: int = 1
    call: Literal["intended", "started", "done", "unknown"] = "intended"
    views: tuple[int | None, int | None] = (1, None)
    hands: tuple[str, str] = ("", "")
    """Per holder: nothing, `holding` a request about to leave, or `answered`."""
    times: int = 0
    has_ended: bool = False
    broke: frozenset[str] = frozenset()
    faults: int = FAULTS_MAX


def effect_steps(rules: EffectRules, effect: Effect) -> Iterator[Effect]:
    if not effect.has_ended:
        yield replace(effect, has_ended=True)
    for place in (0, 1):
        is_held = effect.epoch in effect.views
        if effect.views[place] != effect.epoch and (effect.faults or not is_held):
            taken = hand(effect, place, effect.epoch + 1, "")
            yield replace(taken, epoch=effect.epoch + 1, faults=effect.faults - is_held)
        if effect.views[place] is not None and effect.faults:
            yield replace(hand(effect, place, None, ""), faults=effect.faults - 1)
        if effect.views[place] is not None:
            yield from call_steps(rules, effect, place)


def call_steps(rules: EffectRules, effect: Effect, place: int) -> Iterator[Effect]:
    view, held = effect.views[place], effect.hands[place]
    is_owner = view == effect.epoch
    if held == "holding":
        times = 1 if rules.is_key_honoured else effect.times + 1
        yield replace(hand(effect, place, view, "answered"), times=times)
    elif held == "answered":
        yield replace(hand(effect, place, view, ""), call="done")
    elif effect.call == "started" and is_owner:
        yield replace(effect, call="unknown") if rules.when_unknown == "ask" else hand(effect, place, view, "holding")
    elif effect.call == "intended" and (is_owner or not rules.is_start_fenced):
        if rules.does_start_ask and effect.has_ended:
            return
        broke = effect.broke | ({"stale holder started"} if not is_owner else set())
        broke |= {"started after the end"} if effect.has_ended else set()
        begun = hand(effect, place, view, "holding")
        yield replace(begun, call="started" if rules.is_marked else "intended", broke=frozenset(broke))


def hand(effect: Effect, place: int, view: int | None, held: str) -> Effect:
    views, hands = list(effect.views), list(effect.hands)
    views[place], hands[place] = view, held
    return replace(effect, views=(views[0], views[1]), hands=(hands[0], hands[1]))


def effect_flaws(effect: Effect) -> Iterator[str]:
    yield from effect.broke
    if effect.times > 1:
        yield "twice"


# --- The verdicts ------------------------------------------------------------------------------------------------------

HOMES = {
    "as designed": (Rules(), set()),
    "no fence and no seq": (Rules(fence="none", has_seq=False), {"twice", "stale holder wrote"}),
    "epoch read before the commit, no seq": (
        Rules(fence="read earlier", has_seq=False),
        {"twice", "stale holder wrote"},
    ),
    "no seq": (Rules(has_seq=False), {"twice"}),
    "no fence": (Rules(fence="none"), {"stale holder wrote"}),
    "mail deleted up to the highest id": (Rules(delete="up to the highest read"), {"lost"}),
    "repeats known only while pending": (Rules(is_remembered=False), {"twice"}),
}
EFFECTS = {
    "as designed": (EffectRules(), set()),
    "not marked before it leaves": (EffectRules(is_marked=False), {"twice"}),
    "silently repeated": (EffectRules(when_unknown="repeat"), {"twice"}),
    "repeated, and the target honours the key": (EffectRules(when_unknown="repeat", is_key_honoured=True), set()),
    "start not fenced": (EffectRules(is_start_fenced=False), {"stale holder started"}),
    "start does not ask": (EffectRules(does_start_ask=False), {"started after the end"}),
}


@pytest.mark.claim("T2.model")
@pytest.mark.parametrize("name", HOMES)
def test_each_rule_of_the_store_is_needed_and_all_of_them_suffice(name):
    rules, flaws = HOMES[name]
    found = explore(Home(), lambda home: home_steps(rules, home), home_flaws, lambda home: not home.mail | home.unsent)
    assert found == flaws if not flaws else flaws <= found


@pytest.mark.claim("T2.model")
@pytest.mark.parametrize("name", EFFECTS)
def test_each_rule_of_effects_is_needed_and_all_of_them_suffice(name):
    rules, flaws = EFFECTS[name]
    found = explore(
        Effect(),
        lambda effect: effect_steps(rules, effect),
        effect_flaws,
        lambda effect: effect.call in ("done", "unknown") or effect.has_ended,
    )
    assert found == flaws if not flaws else flaws <= found
