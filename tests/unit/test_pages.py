"""Lists in pages: joined they are the list, whatever is answered meanwhile, and a page costs what is on it."""

import apsw
import pytest

from kit import asked, opened
from overwinter.adapters.sqlite import rows
from overwinter.config import Agent, Config, Worker
from overwinter.errors import UsageError
from overwinter.faces.pages import PAGE_MAX, after_of, limit_of, place_of
from overwinter.store import After, Page
from overwinter.testing import ManualClock, idle

pytestmark = pytest.mark.anyio
ASKS = "import asyncio\nawait asyncio.gather(*[tools.ask('me', f'Question {i}?') for i in range(9)])"


@pytest.mark.claim("U3.pages")
async def test_pages_of_questions_join_without_a_gap_whatever_is_answered_meanwhile(project):
    clock = ManualClock()
    async with opened(project, clock=clock) as app:
        for _ in range(3):
            await app.start(ASKS)
            await idle(app)
            clock.advance(1)
        whole = [each.call.key for each in await app.questions()]
        assert len(whole) == 27
        seen, after, gone = [], None, whole[13]
        while True:
            page, after = await app.inbox.page(after=after, limit=7)
            seen += [each.call.key for each in page]
            if after is None:
                break
            await app.answer(page[-1].call.key, "yes", by="me")  # the very one that the next page begins behind
            if len(seen) == 7:
                await app.answer(gone, "yes", by="me")
        assert seen == [each for each in whole if each != gone]


@pytest.mark.claim("U3.pages")
async def test_every_list_of_the_api_is_had_in_pages(project):
    agents = {f"agent{n}": Agent() for n in range(5)} | {"default": Agent(tools=("*",))}
    config = Config(agents=agents, worker=Worker(interpreters=2))
    async with opened(project, config=config, clock=ManualClock()) as app:
        for _ in range(5):
            await app.start(ASKS)
        await idle(app)
        for path, key, name in (
            ("runs", "runs", "id"),
            ("questions", "questions", "question"),
            ("agents", "agents", "name"),
        ):
            _, whole = await asked(app, "GET", f"/v1/{path}", b"", b"limit=1000")
            assert whole["following"] is None
            seen, after = [], ""
            while True:
                _, page = await asked(app, "GET", f"/v1/{path}", b"", f"limit=2&after={after}".encode())
                assert len(page[key]) <= 2
                seen += [each[name] for each in page[key]]
                after = page["following"]
                if after is None:
                    break
            assert seen == [each[name] for each in whole[key]], path
        for limit in (b"0", b"1001", b"-1", b"many", b"9" * 5_000):
            for path in ("runs", "questions", "agents"):
                status, answer = await asked(app, "GET", f"/v1/{path}", b"", b"limit=" + limit)
                assert (status, str(PAGE_MAX) in answer["error"]["message"]) == (400, True)


async def test_a_page_of_questions_is_read_by_its_index_alone(project):
    """However many are open: no scan of the calls, no sorting."""
    async with opened(project, clock=ManualClock()) as app:
        await app.start(ASKS)
        await idle(app)
        (first, *_) = await app.questions()
        behind = After(made_us=first.made_us, run_id=first.call.run_id, index=first.call.index)
        db = apsw.Connection(str(project / ".overwinter" / "store.db"), flags=apsw.SQLITE_OPEN_READONLY)
        for after in (None, behind):
            sql, bound = rows.asked(None, after, 100)
            plan = [row[3] for row in db.execute(f"explain query plan {sql}", bound)]
            assert any("call USING INDEX call_asked" in step for step in plan)
            assert not any("TEMP B-TREE" in step for step in plan)
        db.close()


async def test_a_list_of_runs_says_of_each_what_its_page_says(project):
    async with opened(project, clock=ManualClock()) as app:
        await app.start(f"{ASKS}\n")
        await app.start("import asyncio\nawait asyncio.gather(asyncio.sleep(60), asyncio.sleep(5), tools.receive())")
        await app.start("1")
        await idle(app)
        runs = await app.runs(Page())
        reasons = await app.reasons(runs)
        assert reasons == {run.run_id: app.reason(run, await app.calls(run.run_id)) for run in runs}
        assert any("; and 8 more" in each for each in reasons.values())


@pytest.mark.parametrize("text", ["x", "1-", "1-2:3", f"{'9' * 30}-{'0' * 26}:1", f"1-{'0' * 26}:x", f"1-{'!' * 26}:1"])
def test_a_place_that_no_page_named_is_refused(text):
    with pytest.raises(UsageError):
        after_of(text)


def test_a_place_is_read_back():
    place = After(made_us=5, run_id="0" * 26, index=3)
    assert after_of(place_of(place)) == place
    assert after_of(place_of(None)) is None
    assert limit_of({}) == 100
