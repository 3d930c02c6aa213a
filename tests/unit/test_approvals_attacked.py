"""Approvals under attack: what was said yes to is what happens, once, or it is asked again."""

import json
import sys

import pytest

from kit import opened
from overwinter.approval import digest
from overwinter.config import Agent, Config, Worker
from overwinter.errors import Denied
from overwinter.events import Call, Status
from overwinter.store import Voted
from overwinter.testing import ManualClock, idle

pytestmark = pytest.mark.anyio
OWNER, OTHER = "owner@example.com", "other@example.com"
CONFIG = Config(agents={"default": Agent(owner=OWNER, reads=("*",), asks=("shop.*",))}, worker=Worker(interpreters=2))
PAYS = "await shop.pay(cents=7)"
NOTES = '''
@write
async def note(*, text: str) -> str:
    """Note."""
    return text
'''


def asking(project, config=CONFIG, **options):
    return opened(project, config=config, **options)


async def gated(app, source=PAYS):
    run_id = await app.start(source)
    await idle(app)
    (record,) = await app.questions(run_id)
    return run_id, record


def paid(ledger):
    return [line for line in ledger.read_text().splitlines() if line.startswith("pay")]


async def approved_but_not_begun(project, clock):
    """Gate a call and have its yes written down; the process ends before the call starts."""
    async with asking(project, clock=clock) as app:
        run_id, record = await gated(app)
    async with asking(project, clock=clock, is_worker=False) as app:
        assert await app.governance.vote(record, is_yes=True, by=OWNER) is Voted.LET_THROUGH
    return run_id


@pytest.mark.claim("G7.bound")
async def test_a_yes_that_other_rules_asked_for_starts_nothing(project, ledger):
    """Between the yes and the start another person became the one who must be asked."""
    clock = ManualClock()
    run_id = await approved_but_not_begun(project, clock)
    other = Config(agents={"default": Agent(owner=OTHER, reads=("*",), asks=("shop.*",))}, worker=CONFIG.worker)
    async with asking(project, other, clock=clock) as app:
        await idle(app)
        assert paid(ledger) == []
        (record,) = await app.questions(run_id)
        assert record.person == OTHER
        assert await app.governance.vote(record, is_yes=True, by=OTHER) is Voted.LET_THROUGH
        assert (await app.result(run_id)).result == "paid 7"
    assert paid(ledger) == ["pay 7"]


@pytest.mark.claim("G7.bound")
async def test_a_yes_to_another_definition_starts_nothing(project, ledger):
    clock = ManualClock()
    run_id = await approved_but_not_begun(project, clock)
    module = project / f"{(project / 'module').read_text()}.py"
    old, new = "async def pay(*, cents: int)", "async def pay(*, cents: int, to: str = 'x')"
    module.write_text(module.read_text().replace(old, new))
    sys.modules.pop((project / "module").read_text())
    async with asking(project, clock=clock) as app:
        await idle(app)
        assert paid(ledger) == []
        assert len(await app.questions(run_id)) == 1


@pytest.mark.claim("G7.bound")
async def test_a_yes_of_before_a_revocation_starts_nothing_when_runs_are_restored(project, ledger):
    clock = ManualClock()
    run_id = await approved_but_not_begun(project, clock)
    async with asking(project, clock=clock, is_worker=False) as app:
        await app.governance.revoke("default", by="lead")
        await app.governance.restore("default", by="lead", has_runs=True)
    async with asking(project, clock=clock) as app:
        await idle(app)
        assert paid(ledger) == []
        assert len(await app.questions(run_id)) == 1
        assert (await app.run(run_id)).status is Status.LIVE


async def test_repeating_an_approved_call_of_unknown_outcome_needs_a_new_yes(project, ledger):
    async with asking(project) as app:
        run_id, record = await gated(app, "await shop.vanish(cents=7)")
        await app.governance.vote(record, is_yes=True, by=OWNER)
        await idle(app)
        assert paid(ledger) == ["pay 7"]
        await app.answer(record.call.key, "repeat", by="somebody")
        await idle(app)
        assert paid(ledger) == ["pay 7"]
        (again,) = await app.questions(run_id)
        assert again.gate is not None
        assert not again.gate.is_used
        await app.governance.vote(again, is_yes=True, by=OWNER)
        await idle(app)
    assert paid(ledger) == ["pay 7", "pay 7"]


async def test_who_ordered_a_repeat_is_in_the_audit_log(project, ledger):
    parts = []
    config = Config(agents={"default": Agent(owner=OWNER, tools=("*",))}, worker=CONFIG.worker)
    async with asking(project, config, wrap=lambda each: parts.append(each) or each) as app:
        run_id = await app.start("await shop.vanish(cents=7)")
        await idle(app)
        await app.answer(f"{run_id}:0", "repeat", by="somebody")
        await idle(app)
        entries = [json.loads(raw) for _, raw in await parts[0].audit.entries(0, 100)]
    assert paid(ledger) == ["pay 7", "pay 7"]
    assert [each["act"] for each in entries if each["kind"] == "approve"] == [["somebody"]]


async def test_whom_a_rule_forbids_to_approve_can_say_no_and_not_yes(project, ledger):
    (project / "policies").mkdir()
    (project / "policies" / "people.cedar").write_text(
        '@id("not-alone") @reason("ask two") forbid(principal, action == Action::"approve", resource) '
        "when { context.args has cents && context.args.cents > 5 && context.approver == principal.name };"
    )
    async with asking(project) as app:
        _, large = await gated(app)
        with pytest.raises(Denied, match="ask two"):
            await app.governance.vote(large, is_yes=True, by=OWNER)
        await idle(app)
        assert paid(ledger) == []
        assert await app.governance.vote(large, is_yes=False, by=OWNER) is Voted.REJECTED
        _, small = await gated(app, "await shop.pay(cents=1)")
        assert await app.governance.vote(small, is_yes=True, by=OWNER) is Voted.LET_THROUGH


def test_arguments_that_differ_have_different_digests():
    """A mapping written as a list of pairs is another argument."""

    def bound(value):
        call = Call(run_id="R", index=0, function="a.b", arguments={"x": value}, effect="write", line=1, agent="a")
        return digest(call, agent_epoch=1, pin="", rules="", needs=(), expires_us=None)

    shapes = [
        {"a": 1}, [["a", 1]], [("a", 1)], (("a", 1),), {"": [["a", 1]]}, {1: "a"}, {"1": "a"}, {True: "a"}, {None: 1},
    ]  # fmt: skip
    assert len({bound(shape) for shape in shapes}) == len(shapes)
    assert bound({"a": 1, "b": {"c": 2, "d": 3}}) == bound({"b": {"d": 3, "c": 2}, "a": 1})
    assert bound({1: "a", "1": "b"}) == bound({"1": "b", 1: "a"})


async def test_a_function_by_an_endless_name_is_an_error_to_the_program_and_an_entry_of_the_log(project, ledger):
    async with asking(project) as app:
        source = "try:\n    await tools.call('shop.' + 'x' * 200_000, {})\nexcept AttributeError as error:\n    seen = str(error)\nlen(seen)"
        run = await app.result(await app.start(source))
        assert run.status is Status.FINISHED


async def test_a_call_that_thousands_of_rules_permit_is_performed(project, ledger):
    (project / "policies").mkdir()
    permits = [f'@id("{"r" * 60}{n}") permit(principal, action == Action::"call", resource);' for n in range(1_100)]
    (project / "policies" / "many.cedar").write_text("\n".join(permits))
    async with asking(project) as app:
        run_id = await app.start(PAYS)
        assert (await app.result(run_id, 10.0)).result == "paid 7"


async def test_a_flood_of_calls_to_approve_leaves_each_of_them_to_be_approved(project, ledger):
    clock = ManualClock()
    async with asking(project, clock=clock) as app:
        source = (
            "import asyncio\nasync def wave(after):\n    await asyncio.sleep(after)\n"
            "    await asyncio.gather(*[shop.pay(cents=i) for i in range(600)])\nawait asyncio.gather(wave(0), wave(9))"
        )
        run_id = await app.start(source)
        await idle(app)
        clock.advance(10)
        await idle(app)
        calls = await app.calls(run_id)
        assert len(calls) > 1_100
        last = calls[-1]
        assert await app.governance.vote(await app.question(last.call.key), is_yes=True, by=OWNER) is Voted.LET_THROUGH
        await idle(app)
    assert paid(ledger) == ["pay 599"]


@pytest.mark.claim("G7.gate")
async def test_the_store_starts_no_call_that_waits_for_its_yes(project):
    """Whatever a worker believes: the commit that starts a write is refused."""
    parts = []
    async with asking(project, wrap=lambda each: parts.append(each) or each) as app:
        _, record = await gated(app)
        store = parts[0].store
        (lease, *_) = await store.claim()
        assert not await store.start(record.call, lease)
        (same,) = await app.questions()
        assert same.state is record.state


async def test_a_flood_of_large_arguments_does_not_fill_the_inbox_beyond_bounds(project, ledger):
    module = project / f"{(project / 'module').read_text()}.py"
    module.write_text(module.read_text() + NOTES)
    async with asking(project) as app:
        source = "import asyncio\nt = 'x' * 800_000\nawait asyncio.gather(*[shop.note(text=t) for i in range(30)])"
        run_id = await app.start(source)
        await idle(app)
        shown = await app.questions()
        assert 1 < len(shown) < len(await app.calls(run_id)) == 30
        assert sum(len(each.call.arguments["text"]) for each in shown) <= 16 << 20
