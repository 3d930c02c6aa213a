"""Questions of programs, put to the person at a client that offers to: the call is answered `input_required`, and comes again.

What the client brings back is not believed: a MAC binds it to who asked, the agent, the call and a day. A client's decline is none of
the person's: the question stays open, for `overwinter inbox` and whoever is asked. Calls to approve are never put here, for then
a client would approve what it asked for itself.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from overwinter.actor import Actor
from overwinter.app import App
from overwinter.approval import named
from overwinter.clock import DAY_US
from overwinter.errors import Conflict, UsageError
from overwinter.events import CallState
from overwinter.faces.callers import actor_of
from overwinter.faces.mcp.protocol import Asked, Fault
from overwinter.faces.scopes import CALLER
from overwinter.frozen import frozen, replace
from overwinter.store import CallRecord
from overwinter.tokens import Token

__all__ = ["State", "begun", "is_offered", "questions", "requests", "seal", "taken", "unseal"]

LASTS_US = DAY_US
"""Afterwards `wait` asks anew."""
SCOPE = "approve"
_MAC_BYTES = 32
_NONE = "requestState is none that this home gave for this call, or it is too old: wait(run) asks anew"


@frozen
class State:
    """What a call that comes again goes on from."""

    run_id: str
    until_us: int
    call: str
    """Digest of who called what, with what."""
    left: tuple[int, ...] = ()
    """Questions that the client declined: they are not put to it twice."""


def is_offered(asked: Asked) -> bool:
    """Return whether the client of this very request shows forms."""
    offered = asked.abilities.get("elicitation")
    return isinstance(offered, dict) and (not offered or "form" in offered)


def begun(asked: Asked, run_id: str, *, agent: str, by: str, now_us: int) -> State:
    """Return what a call that began or waited for a run goes on from."""
    return State(run_id=run_id, until_us=now_us + LASTS_US, call=_digest(asked, agent, by))


def questions(open_calls: Sequence[CallRecord], scope: Mapping[str, Any], *, has_claims: bool) -> list[CallRecord]:
    """Return those that whoever put this request may answer: asked of them by a program, and nothing to approve."""
    return [
        each
        for each in open_calls
        if each.call.function == "tools.ask"
        and each.state is CallState.INTENDED
        and (each.gate is None or each.gate.is_used)
        and _answerer(each.person or "", scope, has_claims=has_claims) is not None
    ]


def requests(asked_of: Sequence[CallRecord]) -> dict[str, Any]:
    """Return the forms for questions, by their keys."""
    return {_key(each): {"method": "elicitation/create", "params": _form(each)} for each in asked_of}


def seal(state: State, key: bytes) -> str:
    """Return a state as its client keeps it."""
    body = json.dumps([state.run_id, state.until_us, state.call, state.left]).encode()
    return base64.urlsafe_b64encode(hmac.digest(key, body, "sha256") + body).decode()


def unseal(asked: Asked, key: bytes, *, agent: str, by: str, now_us: int) -> State | None:
    """Return what a call goes on from; None: it is a new one.

    Raises:
        Fault: it was altered, is another's or another call's, or is too old.
    """
    text = asked.params.get("requestState")
    if text is None and "inputResponses" not in asked.params:
        return None
    try:
        raw = base64.b64decode(text if isinstance(text, str) else "", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise Fault(-32602, _NONE) from error
    mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if not hmac.compare_digest(mac, hmac.digest(key, body, "sha256")):
        raise Fault(-32602, _NONE)
    run_id, until_us, call, left = json.loads(body)
    if now_us > until_us or not hmac.compare_digest(call, _digest(asked, agent, by)):
        raise Fault(-32602, _NONE)
    return State(run_id=run_id, until_us=until_us, call=call, left=tuple(left))


async def taken(app: App, state: State, responses: object, scope: Mapping[str, Any]) -> State:
    """Give a run the answers that its client brings, and return what the call goes on from. A question is answered once.

    Raises:
        Fault: they are no answers.
    """
    if responses is not None and not isinstance(responses, dict):
        raise Fault(-32602, "inputResponses is an object, a response by each key")
    found = cast("dict[str, Any]", responses or {})
    open_calls = await app.calls(state.run_id)
    for each in questions(open_calls, scope, has_claims=app.config.approvals.claims):
        response = found.get(_key(each))
        if response is None:
            continue
        answer = _answer(response)
        if answer is None:
            state = replace(state, left=(*state.left, each.call.index))
            continue
        person = _answerer(each.person or "", scope, has_claims=app.config.approvals.claims)
        try:
            await app.answer(each.call.key, answer, by=str(person))
        except Conflict:  # somebody was quicker: their word stands
            continue
        except UsageError as error:
            raise Fault(-32602, str(error)) from error
    return state


def _answer(response: object) -> str | None:
    """Return what a person wrote into the form; None: nobody did."""
    if not isinstance(response, dict):
        raise Fault(-32602, "a response is an object with an action")
    row = cast("dict[str, Any]", response)
    if row.get("action") in ("decline", "cancel"):
        return None
    content = row.get("content")
    answer = cast("dict[str, Any]", content).get("answer") if isinstance(content, dict) else None
    if row.get("action") != "accept" or not isinstance(answer, str):
        raise Fault(-32602, "a response has the action accept, with content.answer, or decline, or cancel")
    return answer


def _answerer(asked: str, scope: Mapping[str, Any], *, has_claims: bool) -> Actor | None:
    """Return as whom a request may answer what people are asked; None: it may not."""
    people, token = named(asked), scope.get(CALLER)
    if isinstance(token, Token):
        return Actor(person=token.person) if SCOPE in token.scopes and token.person in people else None
    actor = actor_of(scope, "")
    if actor.person in people or not people:
        return actor if people else None
    try:
        return actor_of(scope, people[0]) if has_claims else None
    except UsageError:  # a program may ask whom it likes; nobody has such a name
        return None


def _form(record: CallRecord) -> dict[str, Any]:
    given = record.call.arguments
    options = given.get("options")
    field: dict[str, Any] = {"type": "string", "title": "Answer"}
    if options:
        field["enum"] = list(cast("Sequence[str]", options))
    return {
        "mode": "form",
        "message": f"{given.get('question')}\n\n({record.person} is asked by run {record.call.run_id}, agent {record.agent})",
        "requestedSchema": {"type": "object", "properties": {"answer": field}, "required": ["answer"]},
    }


def _key(record: CallRecord) -> str:
    return f"question-{record.call.index}"


def _digest(asked: Asked, agent: str, by: str) -> str:
    said = json.dumps([agent, by, asked.params.get("name"), asked.params.get("arguments", {})], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()
