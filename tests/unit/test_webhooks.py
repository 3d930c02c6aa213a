"""Webhooks: told once for each fact or again under the same id, signed, bounded, to judged addresses, none behind another."""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import anyio
import apsw
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from kit import asked, opened
from overwinter.clock import DAY_US
from overwinter.config import Agent, Config, Webhook, Worker, load
from overwinter.errors import ConfigInvalid
from overwinter.testing import ManualClock, idle
from overwinter.webhook import ATTEMPTS_MAX, PAUSE_S_MAX, TOPICS, Delivery, key_of, pause_s, signature

pytestmark = pytest.mark.anyio
OWNER = "owner@example.com"
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
PAYS = "await shop.pay(cents=31337)"


class Receiver:
    """What listens on this machine: answers `status`, holds requests while `gate` is shut, keeps what it took."""

    def __init__(self) -> None:
        self.url = ""
        self.status, self.headers = 204, dict[str, str]()
        self.got = list[tuple[dict[str, str], bytes]]()
        self.gate = anyio.Event()
        self.gate.set()
        self.came = anyio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        self.came.set()
        body = await request.read()
        self.got.append((dict(request.headers), body))
        await self.gate.wait()
        return web.Response(status=self.status, headers=self.headers)

    @property
    def told(self):
        return [json.loads(body) for _, body in self.got]

    @property
    def ids(self):
        return [headers["webhook-id"] for headers, _ in self.got]


@asynccontextmanager
async def receiving():
    receiver = Receiver()
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", receiver.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        receiver.gate.set()
        await runner.cleanup()


def hook(url, *events, **options):
    given: dict[str, Any] = {"secret": "env:HOOK_SECRET", "private": True, "events": events or ("approval.asked",)}
    return Webhook(url=url, **(given | options))


def telling(project, monkeypatch, *, clock=None, config=None, **hooks):
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    agents = {"default": Agent(owner=OWNER, reads=("*",), asks=("shop.*",))}
    config = config or Config(agents=agents, worker=Worker(interpreters=2), webhooks=hooks)
    return opened(project, config=config, clock=clock or ManualClock())


async def until(condition):
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - what arrives at a server has no event here
            await anyio.sleep(0.01)


async def settled(app, *webhooks):
    """Wait until nothing is on its way, to these webhooks or to all: what is left waits for its time or was set aside."""
    with anyio.fail_after(20):
        while any(  # noqa: ASYNC110 - the same
            app.webhooks._deliveries.due(name, app._clock.now_us(), 1) for name in webhooks or app.config.webhooks
        ):
            await anyio.sleep(0.01)


async def tally(app, name="ops"):
    (found,) = [each.tally for each in await app.webhooks.standing() if each.name == name]
    return found.waiting, found.set_aside, found.why


@pytest.mark.claim("W1.signed")
async def test_a_gated_call_is_told_signed_and_without_what_programs_wrote(project, ledger, monkeypatch):
    async with (
        receiving() as there,
        telling(project, monkeypatch, ops=hook(there.url, address="https://home.example")) as app,
    ):
        run_id = await app.start(PAYS, name="bill", by="ana@example.com")
        await until(lambda: there.got)
        ((headers, body),) = there.got
        (record,) = await app.questions(run_id)
        assert record.gate is not None
        message_id, at = headers["webhook-id"], headers["webhook-timestamp"]
        expected = hmac.digest(b"s" * 32, f"{message_id}.{at}.".encode() + body, hashlib.sha256)
        assert headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()
        told = json.loads(body)
        assert told["type"] == "approval.asked"
        assert told["data"] | {"position": 0} == {
            "event": "gated", "run": run_id, "run_name": "bill", "agent": "default", "position": 0,
            "question": f"{run_id}:0", "function": "shop.pay", "person": OWNER, "digest": record.gate.digest.hex(),
            "reason": record.gate.reason, "policies": list(record.gate.policies),
            "look": f"https://home.example/v1/questions/{run_id}:0",
        }  # fmt: skip
        assert b"31337" not in body
        status, _ = await asked(
            app,
            "POST",
            f"/v1/questions/{run_id}:0/approve",
            json.dumps({"by": OWNER, "digest": told["data"]["digest"]}).encode(),
        )
        assert status == 200
        assert (await app.result(run_id)).result == "paid 31337"
        await settled(app)
        assert (len(there.got), await tally(app)) == (1, (0, 0, ""))


async def test_arguments_are_told_to_whom_the_operator_says(project, ledger, monkeypatch):
    events = tuple(TOPICS)
    async with receiving() as there, telling(project, monkeypatch, ops=hook(there.url, *events, arguments=True)) as app:
        run_id = await app.start(PAYS)
        await until(lambda: len(there.got) == 2)
        assert [each["data"].get("arguments") for each in there.told if each["type"] == "approval.asked"] == [
            {"cents": 31337}
        ]
        (record,) = await app.questions(run_id)
        await app.governance.vote(record, is_yes=False, by=OWNER, reason="no")
        await until(lambda: len(there.got) == 4)
        await app.start("await tools.ask('me', 'Well?')")
        await until(lambda: len(there.got) == 6)
        told = {each["type"]: each["data"] for each in there.told}
        assert told["approval.answered"]["reason"] == "no"
        assert (told["run.ended"]["event"], "no" in told["run.ended"]["message"]) == ("failed", True)
        assert (told["question.asked"]["person"], told["question.asked"]["text"]) == ("me", "Well?")


@pytest.mark.claim("W1.durable")
async def test_what_happens_while_nobody_sends_is_told_later_once(project, ledger, monkeypatch):
    clock = ManualClock()
    async with receiving() as there:
        hooks = {"ops": hook(there.url, "approval.asked", "run.started")}
        agents = {"default": Agent(owner=OWNER, reads=("*",), asks=("shop.*",))}
        config = Config(agents=agents, worker=Worker(interpreters=2), webhooks=hooks)
        monkeypatch.setenv("HOOK_SECRET", SECRET)
        async with opened(project, config=config, clock=clock, is_worker=False) as app:
            runs = [await app.start(PAYS) for _ in range(3)]
        assert there.got == []
        async with opened(project, config=config, clock=clock) as app:
            await until(lambda: len(there.got) == 6)
            await settled(app)
        async with opened(project, config=config, clock=clock) as app:
            await idle(app)
            await settled(app)
            assert await tally(app) == (0, 0, "")
        assert len(set(there.ids)) == len(there.ids) == 6
        assert {each["data"]["run"] for each in there.told} == set(runs)


@pytest.mark.claim("W1.durable")
async def test_a_fact_and_its_delivery_are_one_commit(project, ledger, monkeypatch):
    async with receiving() as there:
        there.status = 500
        async with telling(project, monkeypatch, ops=hook(there.url, "run.started")) as app:
            for _ in range(5):
                await app.start("1")
            await idle(app)
        db = apsw.Connection(str(project / ".overwinter" / "store.db"), flags=apsw.SQLITE_OPEN_READONLY)
        facts = set(db.execute("select n, position from journal where kind = 'created'"))
        assert facts == set(db.execute("select n, position from delivery"))
        db.close()


@pytest.mark.claim("W1.retried")
async def test_a_failed_delivery_is_tried_again_under_its_id_and_set_aside_in_the_end(project, ledger, monkeypatch):
    clock = ManualClock()
    async with receiving() as there, telling(project, monkeypatch, clock=clock, ops=hook(there.url)) as app:
        there.status = 500
        await app.start(PAYS)
        for attempt in range(1, ATTEMPTS_MAX + 1):
            await until(lambda attempt=attempt: len(there.got) == attempt)
            await settled(app)
            clock.advance(PAUSE_S_MAX)
        assert len(set(there.ids)) == 1
        assert len({headers["webhook-timestamp"] for headers, _ in there.got}) == ATTEMPTS_MAX
        assert await tally(app) == (0, 1, "500: refused")
        clock.advance(PAUSE_S_MAX)
        there.status = 200
        assert await app.webhooks.retry("ops") == 1
        await until(lambda: len(there.got) == ATTEMPTS_MAX + 1)
        await settled(app)
        assert (len(set(there.ids)), await tally(app)) == (1, (0, 0, ""))


@pytest.mark.parametrize(("status", "aside"), [(410, 1), (301, 0), (400, 0), (429, 0)])
async def test_only_what_is_gone_is_given_up_at_once_and_no_redirect_is_followed(
    project, ledger, monkeypatch, status, aside
):
    clock = ManualClock()
    async with (
        receiving() as there,
        receiving() as other,
        telling(project, monkeypatch, clock=clock, ops=hook(there.url)) as app,
    ):
        there.status, there.headers = status, {"location": other.url, "retry-after": "1000"}
        await app.start(PAYS)
        await until(lambda: there.got)
        await settled(app)
        waiting, set_aside, why = await tally(app)
        assert (waiting, set_aside, why.startswith(str(status))) == (1 - aside, aside, True)
        clock.advance(999)
        await settled(app)
        assert (len(there.got), other.got) == (1, [])


@pytest.mark.claim("W1.apart")
async def test_a_receiver_that_does_not_answer_holds_up_neither_another_nor_the_home(project, ledger, monkeypatch):
    async with receiving() as slow, receiving() as quick:
        slow.gate = anyio.Event()
        hooks = {"slow": hook(slow.url, "run.started"), "quick": hook(quick.url, "run.started", "run.ended")}
        async with telling(project, monkeypatch, **hooks) as app:
            for number in range(12):
                assert (await app.result(await app.start(str(number)))).result == number
            await until(lambda: len(quick.got) == 24)
            assert len(slow.got) <= 4
            assert (await tally(app, "slow"))[0] == 12
            slow.gate.set()
            await until(lambda: len(slow.got) == 12)


@pytest.mark.claim("W1.egress")
async def test_a_private_address_is_told_nothing_unless_it_is_allowed(project, ledger, monkeypatch):
    clock = ManualClock()
    async with receiving() as there:
        port = there.url.rpartition(":")[2]
        hooks = {
            "plain": hook(there.url, private=False),
            "here": hook(f"https://127.0.0.1:{port}", private=False),
            "named": hook(f"https://localhost:{port}", private=False),
            "cloud": hook("http://169.254.169.254/latest", private=True),
        }
        async with telling(project, monkeypatch, clock=clock, **hooks) as app:
            await app.start(PAYS)
            for name in hooks:
                with anyio.fail_after(20):
                    while not (await tally(app, name))[2]:  # noqa: ASYNC110 - the same
                        await anyio.sleep(0.01)
                assert (await app.webhooks.test(name)).why
            whys = [(await tally(app, name))[2] for name in ("here", "named", "cloud")]
            assert all("not a public address" in each or "metadata" in each for each in whys), whys
        assert there.got == []


async def test_a_secret_that_is_missing_or_short_sends_nothing_and_is_said(project, ledger, monkeypatch):
    async with receiving() as there, telling(project, monkeypatch, ops=hook(there.url)) as app:
        for secret, said in (("", "HOOK_SECRET is not set"), ("short", "at least 24 bytes"), ("whsec_!", "no base64")):
            monkeypatch.setenv("HOOK_SECRET", secret)
            assert said in ((await app.webhooks.test("ops")).why or "")
        monkeypatch.setenv("HOOK_SECRET", SECRET)
        assert (await app.webhooks.test("ops")).why is None
        assert [each["type"] for each in there.told] == ["webhook.test"]


async def test_waiting_for_the_next_attempt_costs_nothing(project, ledger, monkeypatch):
    """One webhook's receiver hangs, another's is due later: neither loop spins."""
    clock = ManualClock()
    async with receiving() as slow, receiving() as failing:
        failing.status = 500
        hooks = {"slow": hook(slow.url, "run.started"), "failing": hook(failing.url, "run.started")}
        async with telling(project, monkeypatch, clock=clock, **hooks) as app:
            await app.result(await app.start("1"))
            await until(lambda: failing.got and slow.got)
            await settled(app)
            slow.gate = anyio.Event()
            await app.result(await app.start("2"))
            await until(lambda: len(failing.got) == 2)
            await settled(app, "failing")  # its next attempt has its time, which the clock then reaches
            clock.advance(30)
            await until(lambda: len(failing.got) == 4)
            looks, due = list[str](), app.webhooks._deliveries.due

            def counted(webhook: str, now_us: int, limit: int) -> Sequence[Delivery]:
                looks.append(webhook)
                return due(webhook, now_us, limit)

            monkeypatch.setattr(app.webhooks._deliveries, "due", counted)
            await anyio.sleep(0.2)
            assert len(looks) < 10


async def test_deliveries_go_with_their_runs(project, ledger, monkeypatch):
    clock = ManualClock()
    async with (
        receiving() as there,
        telling(project, monkeypatch, clock=clock, ops=hook(there.url, "run.ended")) as app,
    ):
        there.status = 500
        await app.result(await app.start("1"))
        await until(lambda: there.got)
        await settled(app)
        clock.advance(1)
        await app.collect(older_than_s=0)
        assert await app.webhooks._deliveries.tallies() == []


async def test_the_api_lists_webhooks_by_host_alone(project, ledger, monkeypatch):
    async with receiving() as there, telling(project, monkeypatch, ops=hook(f"{there.url}/T0KEN")) as app:
        _, found = await asked(app, "GET", "/v1/webhooks")
        assert found["webhooks"] == [
            {
                "name": "ops",
                "host": "127.0.0.1",
                "events": ["approval.asked"],
                "arguments": False,
                "waiting": 0,
                "set_aside": 0,
                "why": "",
            }
        ]
        assert await asked(app, "POST", "/v1/webhooks/ops/test") == (200, {"is_taken": True, "why": None})
        assert await asked(app, "POST", "/v1/webhooks/ops/retry") == (200, {"retried": 0})
        assert (await asked(app, "POST", "/v1/webhooks/none/retry"))[0] == 404


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('url = "http://x.example"', "private = true"), ('url = "x"', "https://"), ('secret = "open"', "reference"),
        ("events = []", "is empty"), ('events = ["run.odd"]', "'run.odd'"), ('address = "home"', "address"),
        ("timeout_s = 0", "above 0"), ("colour = 1", "unknown"),
    ],
)  # fmt: skip
def test_a_webhook_that_is_wrong_is_named_with_its_line(tmp_path, line, said):
    lines = {"url": 'url = "https://x.example"', "secret": 'secret = "env:X"', "events": 'events = ["run.ended"]'}
    lines[line.partition(" ")[0]] = line
    path = tmp_path / "overwinter.toml"
    path.write_text("[webhooks.ops]\n" + "\n".join(lines.values()))
    with pytest.raises(ConfigInvalid, match="line") as error:
        load(path)
    assert said in str(error.value)


def test_a_signature_is_that_of_the_specification():
    """The example of github.com/standard-webhooks/standard-webhooks, spec, "Signature scheme"."""
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert (
        signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@given(st.integers(0, ATTEMPTS_MAX), st.none() | st.floats(0, 1e9), st.integers())
def test_a_pause_is_bounded_and_at_least_what_was_asked(attempt, asked_s, seed):
    pause = pause_s(attempt, asked_s, Random(seed))
    assert min(PAUSE_S_MAX, asked_s or 0) <= pause <= PAUSE_S_MAX
    assert pause >= min(PAUSE_S_MAX, 5 * 3**attempt) / 2
    assert ATTEMPTS_MAX * PAUSE_S_MAX < 3 * DAY_US / 1e6


# --- Schedules -------------------------------------------------------------------------------------------------------


async def paused_itself(app, clock: ManualClock, *ids: str) -> None:
    """Let minutes pass until schedules have paused themselves."""
    with anyio.fail_after(20):
        while not all([(await app.schedules.schedule(each)).paused for each in ids]):
            clock.advance(60)
            await anyio.sleep(0.01)
            await idle(app)


@pytest.mark.claim("C1.told")
async def test_a_schedule_that_pauses_itself_is_told_once_each_time_and_a_persons_pause_is_not(
    project, ledger, monkeypatch
):
    clock = ManualClock()
    async with (
        receiving() as there,
        telling(project, monkeypatch, clock=clock, ops=hook(there.url, "schedule.paused", address="https://home.example"),
                chat=hook(there.url, "run.quarantined")) as app,
    ):  # fmt: skip
        start = {"source": "1 / 0", "inputs": {}}
        one, other = [(await app.schedules.add(start, by="me", cron="* * * * *", name=name)).id for name in "ab"]
        await app.schedules.pause(other, by="me")
        await app.schedules.resume(other, by="me")
        assert there.got == []
        await paused_itself(app, clock, one, other)
        await until(lambda: len(there.got) == 2)
        await settled(app)
        assert {each["data"]["schedule"] for each in there.told} == {one, other}
        told = next(each for each in there.told if each["data"]["schedule"] == one)
        assert told["type"] == "schedule.paused"
        last = (await app.schedules.schedule(one)).last_run
        assert told["data"] | {"position": 0} == {
            "event": "paused", "schedule": one, "schedule_name": "a", "agent": "default", "failures": 5, "last_run": last,
            "position": 0, "look": f"https://home.example/v1/schedules/{one}",
        }  # fmt: skip
        await app.schedules.resume(one, by="me")
        await paused_itself(app, clock, one)
        await until(lambda: len(there.got) == 3)
        await settled(app)
        assert len(set(there.ids)) == len(there.ids) == 3
        assert await tally(app) == (0, 0, "")


@pytest.mark.claim("C1.told")
async def test_a_pause_that_nobody_took_waits_over_a_restart_and_goes_with_its_schedule(project, ledger, monkeypatch):
    clock = ManualClock()
    async with receiving() as there:
        there.status = 503
        wanted = hook(there.url, "schedule.paused", arguments=True)
        async with telling(project, monkeypatch, clock=clock, ops=wanted) as app:
            ids = [(await app.schedules.add({"source": "1"}, by="me", cron="* * * * *")).id for _ in range(2)]
            await app.governance.revoke("default", by="lead")
            await paused_itself(app, clock, *ids)
            await until(lambda: len(there.got) >= 2)
            await settled(app)
            assert "revoked" in there.told[0]["data"]["why"]
            await app.schedules.remove(ids[0], by="me")
            assert (await tally(app))[0] == 1
        there.status, before = 204, len(there.got)
        async with telling(project, monkeypatch, clock=clock, ops=wanted) as app:
            assert await app.webhooks.retry("ops") == 1
            await until(lambda: len(there.got) > before)
            await settled(app)
            assert there.told[-1]["data"]["schedule"] == ids[1]
            assert there.ids[-1] in there.ids[:before]
            assert await tally(app) == (0, 0, "")
