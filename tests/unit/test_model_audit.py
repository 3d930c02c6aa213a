"""Model calls in the audit log: each once, whatever dies in between; refused ones too."""

import json

import anyio
import pytest

from models_kit import ask, chat, config_of, home_of
from overwinter.app.auditing import Wanted
from overwinter.declared import DeclaredBudget
from provider import Mock

pytestmark = pytest.mark.anyio


async def entries(app, **wanted):
    found = await app.auditing.entries(Wanted(kind="model.call", **wanted), is_oldest_first=True)
    return [fields for _, fields in found.entries]


async def calls(app):
    found = await app.auditing.entries(Wanted(kind="model.call"), is_oldest_first=True)
    return [(await app.auditing.entry(seq))[1]["result"].value["call"] for seq, _ in found.entries]


async def logged(app, count):
    with anyio.fail_after(10):
        while len(found := await entries(app)) < count:
            pass
    return found


@pytest.mark.claim("G3.model_calls")
async def test_each_model_call_is_an_entry_soon_after_its_end(project, provider: Mock):
    async with home_of(project, config_of(provider.url)) as app:
        _, line = await ask(app, chat())
        (entry,) = await logged(app, 1)
        assert (entry["tool"], entry["agent"], entry["decision"]) == ("models.cheap", "default", "allow")
        assert entry["policy_ids"]
        assert entry["policy_set_sha256"]
        assert await entries(app, function="models.ch*") == [entry]
        _, bodies = await app.auditing.entry(entry["seq"])
        assert bodies["result"].value["sha256"] == line.digest
        assert len(line.digest) == 64
        ended = bodies["result"].value
        assert (ended["status"], ended["provider"], ended["cost_nusd"]) == ("answered", "mock", line.cost_nusd)


@pytest.mark.claim("G3.model_calls")
async def test_what_was_refused_is_in_the_log_and_in_the_ledger_and_in_no_sum(project, provider: Mock):
    budgets = {"day": DeclaredBudget(of="agent:default", usd=0.000_001)}
    async with home_of(project, config_of(provider.url, budgets=budgets)) as app:
        await ask(app, chat(), agent="none")
        await ask(app, chat())
        found = await logged(app, 2)
        assert [each["decision"] for each in found] == ["deny", "deny"]
        statuses = [(await app.auditing.entry(each["seq"]))[1]["result"].value["status"] for each in found]
        assert statuses == ["denied", "budget"]
        assert [(each.state, each.status) for each in app.models.lines()] == [
            ("refused", "budget"),
            ("refused", "denied"),
        ]
        assert app.models.totals(["agent"], since_us=0) == []
        assert provider.calls == []


async def test_a_call_that_was_refused_may_be_asked_again_under_its_name(project, provider: Mock):
    async with home_of(project, config_of(provider.url)) as app:
        await ask(app, chat(), agent="none", call="run:1", is_named=True)
        client, line = await ask(app, chat(), call="run:1", is_named=True)
        again, _ = await ask(app, chat(), call="run:1", is_named=True)
        assert (client.status, line.status, again.json) == (200, "answered", client.json)
        found = await logged(app, 3)
        told = [(await app.auditing.entry(each["seq"]))[1]["result"].value["status"] for each in found]
        assert told == ["denied", "answered", "repeated"]


@pytest.mark.claim("G3.model_calls")
@pytest.mark.parametrize("is_written", [False, True])
async def test_what_a_crash_left_between_ledger_and_log_is_written_once(project, provider: Mock, is_written):
    async with home_of(project, config_of(provider.url)) as app:
        app.models.rung = lambda: None
        for number in range(5):
            await ask(app, chat(str(number)), call=f"call:{number}")
        if is_written:  # the log has some of them, and the ledger was not told so
            await app._parts.audit_keeping.add_model_calls(app.models.file.told(0, 3), {})
            assert len(app.models.file.told(0, 10)) == 5
        app._outbox._upto = 1 << 60  # this process does no more
    async with home_of(project, config_of(provider.url)) as app:
        assert await calls(app) == [f"call:{number}" for number in range(5)]
        assert app.models.file.told(0, 10) == []
    async with home_of(project, config_of(provider.url)) as app:
        await ask(app, chat(), call="call:5")
        await logged(app, 6)
        assert await calls(app) == [f"call:{number}" for number in range(6)]


async def test_a_ledger_that_is_behind_the_log_after_a_power_cut_goes_on_behind_it(project, provider: Mock):
    async with home_of(project, config_of(provider.url)) as app:
        for number in range(3):
            await ask(app, chat(str(number)), call=f"call:{number}")
        await logged(app, 3)
    for each in (project / ".overwinter").glob("models.db*"):
        each.unlink()
    async with home_of(project, config_of(provider.url)) as app:
        await ask(app, chat(), call="call:3")
        await logged(app, 4)
        assert await calls(app) == [f"call:{number}" for number in range(4)]


async def test_what_a_person_says_that_a_call_cost_is_an_entry_too(project, provider: Mock):
    async with home_of(project, config_of(provider.url)) as app:
        _, line = await ask(app, chat(), call="lost:1")
        with app.models.file._transaction() as db:
            db.execute("update line set state = 'unknown' where call = 'lost:1'")
        await app.models.correct("lost:1", 7, by="ada@example.com")
        found = await logged(app, 2)
        _, bodies = await app.auditing.entry(found[-1]["seq"])
        assert bodies["result"].value["status"] == "corrected by ada@example.com"
        assert json.dumps(bodies["result"].value["cost_nusd"]) == "7"
        assert line.cost_nusd != 7
