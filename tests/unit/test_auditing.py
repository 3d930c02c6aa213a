"""The audit log as its readers have it: found, shown, proved, checked, witnessed, and bodies that go in time."""

import json
import socket
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import apsw
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from kit import opened
from overwinter.adapters import proof_files
from overwinter.adapters.notes import NoteRefused, Signer, open_note, sign
from overwinter.adapters.sqlite import log_rows, open_log
from overwinter.adapters.witness import Witness, WitnessDisagrees, web
from overwinter.app.auditing import Wanted, exported, verified
from overwinter.audit import Entry
from overwinter.clock import DAY_US
from overwinter.config import Agent, Audit, Config, Worker
from overwinter.errors import HomeDamaged, NotFound
from overwinter.testing import ManualClock, idle
from overwinter.verify_export import verify

pytestmark = pytest.mark.anyio
OWNER = "owner@example.com"
AGENTS = {"default": Agent(owner=OWNER, tools=("shop.*",)), "other": Agent(owner="b@example.com", tools=("shop.d*",))}
TWO = "await shop.double(number=1)\nawait shop.pay(cents=3)"


def auditing(project, **options):
    return opened(project, config=Config(agents=AGENTS, worker=Worker(interpreters=2)), **options)


def store(project: Path) -> Path:
    return project / ".overwinter" / "store.db"


async def done(app, source=TWO, agent="default") -> str:
    run_id = await app.start(source, agent=agent)
    await app.result(run_id)
    return run_id


async def listed(app, *, limit=50, **filters):
    wanted = {name: filters.pop(name) for name in ("agent", "run", "function", "person", "kind") if name in filters}
    found = await app.auditing.entries(Wanted(**wanted), limit=limit, **filters)
    return [seq for seq, _ in found.entries], found.following


async def test_entries_are_found_by_each_filter_and_order(project, ledger):
    clock = ManualClock()
    async with auditing(project, clock=clock) as app:
        first = await done(app)
        clock.advance(60.0)
        between_ms = clock.now_us() // 1_000
        clock.advance(60.0)
        await done(app, "await shop.double(number=2)", agent="other")
        await app.governance.revoke("other", by="anna")
        assert await listed(app) == ([6, 5, 4, 3, 2, 1, 0], None)
        assert await listed(app, is_oldest_first=True, limit=3) == ([0, 1, 2], 3)
        assert await listed(app, is_oldest_first=True, begin=3) == ([3, 4, 5, 6], None)
        assert await listed(app, limit=3) == ([6, 5, 4], 3)
        assert await listed(app, begin=3) == ([3, 2, 1, 0], None)
        assert await listed(app, agent="other") == ([6, 5, 4], None)
        assert await listed(app, run=first[-8:]) == ([3, 2, 1, 0], None)
        assert await listed(app, function="shop.d*") == ([5, 4, 1, 0], None)
        assert await listed(app, function="shop.pay") == ([3, 2], None)
        assert await listed(app, person="anna") == ([6], None)
        assert await listed(app, kind="call.intent", is_oldest_first=True) == ([0, 2, 4], None)
        assert await listed(app, since_ms=between_ms) == ([6, 5, 4], None)
        assert await listed(app, until_ms=between_ms, limit=1) == ([3], 2)
        assert await listed(app, agent="nobody") == ([], None)
        assert await listed(app, until_ms=0) == ([], None)


REFUSED = """try:
    await tools.call("shop.double", {"nonsense": 1})
except TypeError:
    pass
await shop.pay(cents=3)
await shop.double(number=1)"""


async def test_every_outcome_names_its_function(project, ledger):
    """Refused at once; by mail; by hand at the end of the run."""
    async with auditing(project) as app:
        await done(app, REFUSED)
        entries = (await app.auditing.entries(Wanted(kind="call.result"), limit=9, is_oldest_first=True)).entries
        assert [fields.get("tool") for _, fields in entries] == ["shop.double", "shop.pay", "shop.double"]


async def test_an_entry_is_shown_with_its_decision_and_its_body(project, ledger):
    async with auditing(project) as app:
        await done(app)
        fields, bodies = await app.auditing.entry(2)
        assert (fields["kind"], fields["tool"], fields["decision"]) == ("call.intent", "shop.pay", "allow")
        assert fields["policy_ids"] == ["agents.default.tools: shop.*"]
        assert bodies["args"].value["arguments"] == {"cents": 3}
        _, bodies = await app.auditing.entry(3)
        assert bodies["result"].value["value"] == "paid 3"
        with pytest.raises(NotFound, match="the log has 4"):
            await app.auditing.entry(4)


@pytest.mark.claim("G4.retention")
async def test_old_bodies_go_and_every_proof_stays(project, ledger):
    clock = ManualClock()
    async with auditing(project, clock=clock) as app:
        await done(app, "await shop.pay(cents=31337)")
        clock.advance(89 * 86_400.0)
        await done(app, "await shop.pay(cents=42)")
        await idle(app)
        assert (await app.auditing.entry(0))[1]["args"].is_kept
        proof = await app.auditing.prove(0)
        clock.advance(86_400.0 + 3_601)
        with anyio.fail_after(20):
            while (await app.auditing.entry(0))[1]["args"].is_kept:  # noqa: ASYNC110 - the retention has no event
                await anyio.sleep(0.01)
        fields, bodies = await app.auditing.entry(0)
        assert (bodies["args"].is_kept, "args_hmac" in fields) == (False, True)
        assert (await app.auditing.entry(2))[1]["args"].value["arguments"] == {"cents": 42}
        raw, _ = proof_files.check_file(proof, app.auditing.log.key)
        assert json.loads(raw) == fields
        report = verified(app.auditing.log)
        assert (report.faults, report.entries, report.bodies) == ([], 4, 2)
        await app.auditing.forget(clock.now_us() + DAY_US)
        assert verified(app.auditing.log).bodies == 0
        await app.auditing.thin(clock.now_us())
        assert verified(app.auditing.log).heads == 3  # one of the first day, those of the last


async def test_a_proof_file_stands_alone_and_no_byte_of_it_can_be_changed(project, ledger):
    async with auditing(project) as app:
        await done(app)
        proof, key = await app.auditing.prove(1), app.auditing.log.key
        with pytest.raises(NotFound):
            await app.auditing.prove(99)
    raw, proved = proof_files.check_file(proof, key)
    assert (proved.seq, json.loads(raw)["kind"]) == (1, "call.result")

    @given(st.integers(0, len(proof.encode()) - 1), st.integers(1, 127))
    def changed(at: int, change: int) -> None:
        damaged = bytearray(proof.encode())
        damaged[at] ^= change
        with pytest.raises(NoteRefused):
            proof_files.check_file(damaged.decode(errors="replace"), key)

    changed()


async def test_an_export_verifies_without_the_home(project, ledger):
    async with auditing(project) as app:
        await done(app)
    log = open_log(store(project))
    for with_bodies, bodies in ((True, 4), (False, 0)):
        report = verify(exported(log, with_bodies=with_bodies), str(log.key))
        assert (report.faults, report.entries, report.bodies) == ([], 4, bodies)


def changed_from_outside(project: Path, sql: str) -> None:
    with closing(apsw.Connection(str(store(project)))) as db:
        db.execute(sql)


@pytest.mark.claim("G4.closed_home")
async def test_a_log_is_checked_whose_home_does_not_open_any_more(project, ledger):
    async with auditing(project) as app:
        await done(app)
    changed_from_outside(project, "delete from audit_entry where seq = 3")
    with pytest.raises(HomeDamaged):
        async with auditing(project):
            pass
    assert any("stands after 3 entries" in fault for fault in verified(open_log(store(project))).faults)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("update audit_entry set entry = cast(replace(cast(entry as text), 'pay', 'pa_') as blob) where seq = 2", "tree head"),
        ("update audit_entry set nodes = zeroblob(length(nodes)) where seq = 1", "entry 1: the stored hashes"),
        ("update audit_body set content = x'00' where id = 0", "body args of entry 0"),
        ("update audit_head set note = replace(note, 'overwinter/', 'elsewhere/') where size = 1", "tree head after entry 0"),
    ],
    ids=["entry", "node", "body", "head"],
)  # fmt: skip
async def test_what_was_changed_in_the_file_is_named(project, ledger, sql, said):
    async with auditing(project) as app:
        await done(app)
    changed_from_outside(project, sql)
    assert any(said in fault for fault in verified(open_log(store(project))).faults)


def test_there_is_no_log_to_read_where_there_is_no_home(tmp_path):
    with pytest.raises(NotFound):
        open_log(tmp_path / "store.db")


async def test_without_the_homes_own_key_another_must_be_named(project, ledger):
    async with auditing(project) as app:
        await done(app)
    key = open_log(store(project)).key
    (project / ".overwinter" / "keys" / "audit.key").unlink()
    assert open_log(store(project)).key == key, "the anchor tells"
    (project / ".overwinter" / "audit.anchor").unlink()
    with pytest.raises(HomeDamaged, match="--key"):
        open_log(store(project))
    assert verified(open_log(store(project), key)).faults == []


# --- Witness ---------------------------------------------------------------------------------------------------------

WITNESS = Signer.of(b"\2" * 32, "witness.example/w", 4)
GATED = Config(agents={"default": Agent(owner=OWNER, asks=("shop.*",))}, worker=Worker(interpreters=2))


@contextmanager
def served(witness: Witness) -> Generator[str]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(web(witness), log_level="critical", lifespan="off"))
    thread = threading.Thread(target=lambda: server.run([listening]))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


async def signed(app, size: int) -> None:
    """Return once the witness has signed so many entries."""
    with anyio.fail_after(20):
        while not (note := await app.auditing.log.head()) or (  # noqa: ASYNC110 - nothing else tells that it was kept
            open_note(note, app.auditing.log.key).size < size or WITNESS.public.name not in note
        ):
            await anyio.sleep(0.01)


@pytest.mark.claim("G4.witness")
async def test_a_witness_signs_after_an_approval_and_a_revocation(project, ledger, tmp_path):
    async with opened(project, config=GATED) as app:
        key = app.auditing.log.key
    witness = Witness(place=tmp_path / "w.json", signer=WITNESS, logs=[key], now_s=lambda: 0)
    with served(witness) as url:
        settings = Audit(witness=url, witness_key=str(WITNESS.public))
        config = Config(agents=GATED.agents, worker=GATED.worker, audit=settings)
        async with opened(project, config=config) as app:
            run_id = await app.start("await shop.pay(cents=7)")
            await idle(app)
            (record,) = await app.questions(run_id)
            await app.governance.vote(record, is_yes=True, by=OWNER)
            await app.result(run_id)
            await app.governance.revoke("default", by="lead")
            await signed(app, 4)
            assert app.auditing.fault is None
            assert witness.seen(key.name) is not None


@pytest.mark.claim("G4.witness")
async def test_a_witness_that_does_not_answer_delays_nothing_and_is_said(project, ledger):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        settings = Audit(witness=f"http://127.0.0.1:{silent.getsockname()[1]}", witness_key=str(WITNESS.public))
        config = Config(agents=AGENTS, worker=Worker(interpreters=2), audit=settings)
        async with opened(project, config=config, drain_s=0) as app:
            await done(app)
            with anyio.fail_after(5):  # a witness is waited for twice as long
                await app.governance.revoke("default", by="lead")
                await app.governance.restore("default", by="lead")


async def test_a_witness_that_saw_another_history_refuses_and_is_believed(project, ledger, tmp_path):
    async with auditing(project) as app:
        await done(app)
        log = app.auditing.log
        signer = Signer.of((project / ".overwinter/keys/audit.key").read_bytes(), log.key.name, 1)
        witness = Witness(place=tmp_path / "w.json", signer=WITNESS, logs=[log.key], now_s=lambda: 0)
        other = apsw.Connection(":memory:")
        other.execute(log_rows.FORMAT_3)
        entry = Entry(kind="deny", tenant="t", agent="a", epoch=1)
        end = log_rows.append(other, log_rows.tail(other), [entry] * 9, 1)
        note = sign(open_note(log_rows.write_head(other, end, signer), log.key), signer)
        assert witness.add_tree_head(f"old 0\n\n{note}".encode()).status == 200
        with served(witness) as url, pytest.raises(WitnessDisagrees):
            await app.auditing.witnessed(url, WITNESS.public)
        report = verified(log, seen=[note])
        assert any("was seen with 9 entries" in fault for fault in report.faults)


@pytest.mark.claim("G4.key.rotated")
async def test_a_witness_follows_the_log_to_its_next_keys_and_takes_the_ones_before_no_more(project, tmp_path):
    clock = ManualClock()
    async with opened(project, clock=clock) as app:
        await app.start("1", by="lead")
        first = app.auditing.log.key
        witness = Witness(
            place=tmp_path / "w.json", signer=WITNESS, logs=[first], now_s=lambda: clock.now_us() // 1_000_000
        )
        with served(witness) as url:
            for count in (0, 2, 1):
                for _ in range(count):
                    await app.auditing.rotate(by="lead", reason="")
                    await app.start("2", by="lead")
                done = await app.auditing.witnessed(url, WITNESS.public)
                assert done is not None
                assert done.head.size == await app.auditing.log.size()
                assert witness.keys(first.name) == [app.auditing.log.key]
            await app.auditing.rotate(by="lead", reason="")
            done = await app.auditing.witnessed(url, WITNESS.public)
            assert done is not None
            assert witness.keys(first.name) == [app.auditing.log.key], "the key before counts on at the witness"
            seen = witness.seen(first.name) or ""
            report = verified(app.auditing.log, witnesses=[WITNESS.public], seen=[seen])
            assert (report.faults, len(report.keys), report.witnessed) == ([], 4, done.head.size)
