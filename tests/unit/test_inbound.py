"""What others tell a run at an address of its own."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import client_of, opened
from overwinter.adapters.vault import Vault
from overwinter.app import App, Parts
from overwinter.app.hooks import BURST_MAX, PACE_S, Hooks
from overwinter.faces.inbound import BODY_BYTES_MAX, InboundDoor
from overwinter.store import MAIL_PENDING_MAX
from overwinter.testing import finish, idle
from overwinter.webhook import SCHEMES, Scheme, is_signed

pytestmark = pytest.mark.anyio


NONE = dict[str, str]()
"""A vault with nothing in it."""
GITHUB = "It's a Secret to Everybody"
"""Of GitHub's own example, with the signature of `Hello, World!`."""
GITHUB_SIGNED = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""Of the tests of the Standard Webhooks libraries, with what stands for its message."""
STANDARD_HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
STANDARD_BODY = b'{"test": 2432232314}'


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("it is the door's")


async def told(
    app: App, path: str, body: bytes, headers: Mapping[str, str] | None = None, method: str = "POST"
) -> tuple[int, Any]:
    status, _, raw = await answered(app, path, body, headers, method)
    return status, json.loads(raw)


async def answered(
    app: App, path: str, body: bytes, headers: Mapping[str, str] | None = None, method: str = "POST"
) -> tuple[int, dict[str, str], bytes]:
    sent: list[Any] = []
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    rows = [(key.encode(), value.encode()) for key, value in (headers or {}).items()]
    await InboundDoor(nothing, app)({"type": "http", "method": method, "path": path, "headers": rows}, receive, send)
    given = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    return sent[0]["status"], given, sent[1]["body"]


class Watched:
    """A store that notes what it is asked for."""

    def __init__(self, store: Any) -> None:
        self._store, self.asked = store, list[str]()

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        return getattr(self._store, name)


@pytest.mark.claim("W1.inbound")
async def test_a_run_waits_for_what_others_tell_it_and_takes_each_delivery_once(project):
    async with opened(project) as app:
        run_id = await app.start("a = await tools.receive()\nb = await tools.receive()\n[a, b]")
        await idle(app)
        path = app.hook(run_id)
        headers = {
            "content-type": "application/json",
            "x-github-event": "push",
            "x-github-delivery": "1",
            "authorization": "x",
        }
        assert await told(app, path, b'{"n": 1}', headers) == (202, {"is_new": True})
        assert await told(app, path, b'{"n": 1}', headers) == (202, {"is_new": False})
        assert (await told(app, path, "grüße".encode()))[0] == 202
        run = await finish(app, run_id)
        assert run.result[0]["body"] == {"n": 1}
        assert run.result[0]["headers"]["x-github-event"] == "push"
        assert "authorization" not in run.result[0]["headers"]
        assert run.result[1]["body"] == "grüße"
        assert (await told(app, path, b"more"))[0] == 410


@pytest.mark.claim("W1.inbound")
async def test_no_other_address_leads_to_a_run(project):
    async with opened(project) as app:
        one, other = [await app.start("await tools.receive()") for _ in range(2)]
        await idle(app)
        code = app.hook(one).partition(".")[2]
        for path in (
            f"/in/{other}.{code}",
            f"/in/{one}.{code[:-1]}",
            f"/in/{one}",
            "/in/",
            f"/in/{one}.{'0' * 40}",
            "/in/ü.ü",
        ):
            assert (await told(app, path, b"x"))[0] == 404
        assert (await told(app, app.hook(one), b"x", method="GET"))[0] == 405
        assert (await told(app, app.hook(one), b"x" * 600_000))[0] == 413
        assert [event.kind async for event in app.events(one)] == ["created", "turn", "called"]


@pytest.mark.claim("W1.inbound.closed")
async def test_whatever_leads_to_no_run_is_answered_alike_and_looked_up_nowhere(project):
    watched: list[Watched] = []

    def wrap(parts: Parts) -> Parts:
        watched.append(Watched(parts.store))
        store: Any = watched[0]
        return replace(parts, store=store)

    async with opened(project, wrap=wrap, is_worker=False) as app:
        live = await app.start("await tools.receive()")
        code = app.hook(live).partition(".")[2]
        watched[0].asked.clear()
        wrong = [f"/in/{live}.{'0' * 40}", f"/in/{live}.{code[:-1]}", f"/in/{live}", "/in/"]
        nowhere = [f"/in/{'0' * 26}.{code}", f"/in/{'0' * 26}.{'0' * 40}", "/in/ü.ü"]
        answers = [
            await answered(app, path, b"x", method=method) for path in wrong + nowhere for method in ("POST", "GET")
        ]
        assert answers == [answers[0]] * len(answers)
        assert (answers[0][0], answers[0][1]["content-type"]) == (404, "application/problem+json")
        assert watched[0].asked == []
        deleted = await answered(app, app.hooks.path("0" * 26), b"x")
        assert deleted == answers[0]


async def test_what_no_mailbox_can_take_is_refused_for_good(project):
    async with opened(project, is_worker=False) as app:
        path = app.hook(await app.start("await tools.receive()"))
        deep = b"[" * 200 + b"]" * 200
        status, headers, _ = await answered(app, path, deep, {"content-type": "application/json"})
    assert (status, "retry-after" in headers) == (400, False)


async def test_two_deliveries_whose_long_names_begin_alike_are_two(project):
    async with opened(project, is_worker=False) as app:
        path = app.hook(await app.start("await tools.receive()"))
        sent = [await told(app, path, b"x", {"webhook-id": "m" * 300 + each}) for each in "aba"]
    assert [said["is_new"] for _, said in sent] == [True, True, False]


@pytest.mark.claim("W1.inbound.closed")
async def test_an_address_is_limited_in_rate_by_itself_and_says_when_to_come_again(project):
    async with opened(project, is_worker=False) as app:
        now_s = 0.0
        app.hooks = Hooks(app.key_for("hooks"), NONE.__getitem__, lambda: now_s)
        one, other = [app.hooks.path(await app.start("await tools.receive()")) for _ in range(2)]
        statuses = [(await told(app, one, b"x"))[0] for _ in range(BURST_MAX + 2)]
        assert statuses == [202] * BURST_MAX + [429] * 2
        status, headers, raw = await answered(app, one, b"x")
        assert (status, headers["retry-after"], json.loads(raw)["status"]) == (429, "1", 429)
        assert (await told(app, other, b"x"))[0] == 202
        now_s += PACE_S
        assert [(await told(app, one, b"x"))[0] for _ in range(2)] == [202, 429]


@given(pauses=st.lists(st.floats(0, 2), max_size=300))
def test_no_pauses_let_more_through_than_the_burst_and_the_pace(pauses: list[float]):
    now_s, came = 0.0, list[float]()
    hooks = Hooks(b"k", NONE.__getitem__, lambda: now_s)
    for pause in pauses:
        now_s += pause / 10
        if not hooks.wait_s("run"):
            came.append(now_s)
    for at, first in enumerate(came):
        for count, last in enumerate(came[at:], 1):
            assert count <= BURST_MAX + (last - first) / PACE_S + 1e-6


async def test_a_body_that_is_too_large_and_another_method_are_problems_with_a_type(project):
    async with opened(project, is_worker=False) as app:
        path = app.hook(await app.start("await tools.receive()"))
        status, _, raw = await answered(app, path, b"x" * (BODY_BYTES_MAX + 1))
        assert (status, json.loads(raw)["error"]["type"]) == (413, "HTTPError")
        assert (await told(app, path, b"x" * BODY_BYTES_MAX))[0] == 202
        status, headers, _ = await answered(app, path, b"x", method="PUT")
        assert (status, headers["allow"]) == (405, "POST")


async def test_a_sender_to_a_full_mailbox_is_told_when_to_come_again(project):
    async with opened(project, is_worker=False) as app:
        run_id = await app.start("await tools.receive()")
        async with anyio.create_task_group() as group:
            for number in range(MAIL_PENDING_MAX):
                group.start_soon(app.send, run_id, number)
        status, headers, _ = await answered(app, app.hook(run_id), b"x")
        assert (status, headers["retry-after"]) == (429, "60")


# --- Signed by their senders -----------------------------------------------------------------------------------------


def striped(secret: str, at: str, body: bytes) -> str:
    return hmac.new(secret.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()


def test_the_examples_of_those_who_sign_are_taken_and_nothing_near_them():
    assert is_signed("github", GITHUB, {"x-hub-signature-256": GITHUB_SIGNED}, b"Hello, World!", 0)
    assert not is_signed("github", GITHUB, {"x-hub-signature-256": GITHUB_SIGNED}, b"Hello, World?", 0)
    assert not is_signed("github", GITHUB + "!", {"x-hub-signature-256": GITHUB_SIGNED}, b"Hello, World!", 0)
    at = 1_614_265_330
    for now_s, is_taken in ((at, True), (at + 300, True), (at - 300, True), (at + 301, False), (at - 301, False)):
        assert is_signed("standard", STANDARD, STANDARD_HEADERS, STANDARD_BODY, now_s) is is_taken
    several = {**STANDARD_HEADERS, "webhook-signature": f"v1,AAAA {STANDARD_HEADERS['webhook-signature']} v2,x"}
    assert is_signed("standard", STANDARD, several, STANDARD_BODY, at)
    given = {"stripe-signature": f"t={at},v1={'0' * 64},v1={striped('whsec_test', str(at), b'{}')},v0=x"}
    assert is_signed("stripe", "whsec_test", given, b"{}", at)
    assert not is_signed("stripe", "whsec_test", given, b"{}", at + 301)
    assert not is_signed("stripe", "whsec_test", given, b"{ }", at)


@given(
    scheme=st.sampled_from(SCHEMES),
    header=st.text(st.characters(max_codepoint=255), max_size=80)
    | st.from_regex(r"t=[0-9]{0,14},v1=[0-9a-f]{64}", fullmatch=True),
    at=st.text(max_size=16) | st.integers(0, 2_000_000_000).map(str),
)
def test_no_header_without_the_secret_is_a_signature(scheme: Scheme, header: str, at: str):
    headers = dict.fromkeys(("x-hub-signature-256", "stripe-signature", "webhook-signature", "webhook-id"), header)
    assert not is_signed(scheme, STANDARD, {**headers, "webhook-timestamp": at}, b"x", 1_000_000_000)
    assert not is_signed(scheme, STANDARD, {}, b"x", 1_000_000_000)


@pytest.mark.claim("W1.inbound.signed")
async def test_an_address_for_a_sender_that_signs_takes_nothing_else(project):
    Vault(project / ".overwinter").put("github_hook", GITHUB)
    async with opened(project, is_worker=False) as app, client_of(app) as client:
        run_id = await app.start("await tools.receive()")
        place = f"/v1/runs/{run_id}/hook"
        path = (await client.get(place, params={"signed_by": "github", "secret": "vault:github_hook"})).json()["path"]
        headers = {"x-hub-signature-256": GITHUB_SIGNED, "signed-by": "me"}
        assert await told(app, path, b"Hello, World!", headers) == (202, {"is_new": True})
        for body, given_headers in (
            (b"Hello, World?", headers),
            (b"Hello, World!", {}),
            (b"Hello, World!", {"signed-by": "github"}),
        ):
            assert (await told(app, path, body, given_headers))[0] == 401
        for wrong in (path[:-1], path.replace("github.", "stripe."), path.replace(".github.github_hook", ""),
                      path.replace(".github.", "%00github.").replace("%00", chr(0)), f"{app.hook(run_id)}.github.github_hook"):  # fmt: skip
            assert (await told(app, wrong, b"Hello, World!", headers))[0] == 404
        Vault(project / ".overwinter").remove("github_hook")
        assert (await told(app, path, b"Hello, World!", headers))[0] == 503


@pytest.mark.claim("W1.inbound.signed")
async def test_an_address_is_not_given_for_what_is_no_scheme_or_no_secret_or_one_to_guess(project):
    vault = Vault(project / ".overwinter")
    vault.put("short", "fifteen bytes..")
    async with opened(project, is_worker=False) as app, client_of(app) as client:
        place = f"/v1/runs/{await app.start('await tools.receive()')}/hook"
        for query, words in (
            ({"signed_by": "github"}, "given together"),
            ({"secret": "vault:short"}, "given together"),
            ({"signed_by": "gitlab", "secret": "vault:short"}, "there are github, stripe, standard"),
            ({"signed_by": "github", "secret": "env:HOME"}, "secrets set"),
            ({"signed_by": "github", "secret": "vault:none"}, "has no secret"),
            ({"signed_by": "github", "secret": "vault:short"}, "can guess"),
            ({"signed_by": "standard", "secret": "vault:short"}, "at least 24 bytes"),
        ):
            answer = await client.get(place, params=query)
            assert (answer.status_code, words in answer.text) == (400, True), answer.text
