"""The key of the audit log is changed: one trusted key leads to all others, and the one before is worth nothing any more."""

import json
from contextlib import closing
from pathlib import Path
from shutil import copytree

import apsw
import pytest
from bench.tampering import ATTACKS, GROUP, SIZE, START_MS, STEP_MS, Log, act, attack, opened, witnessed

from kit import asked
from kit import opened as opened_app
from overwinter.adapters.notes import Signer
from overwinter.adapters.proof_files import file_of
from overwinter.adapters.sqlite import Accepted, accept_older, begin_anew, log_rows, open_log
from overwinter.adapters.sqlite.audited import keyed
from overwinter.app.auditing import verified
from overwinter.audit import Entry
from overwinter.config import Agent, Config, Worker
from overwinter.errors import Conflict, HomeDamaged
from overwinter.store import Page
from overwinter.testing import ManualClock, idle
from overwinter.verify_export import Report, verify

ORIGIN = "runtime.example/audit"
OLD, NEW, OTHER = (Signer.of(bytes([seed]) * 32, ORIGIN, 1) for seed in (1, 5, 6))
TURN = SIZE // 2
"""Where the key is changed: in the middle, before what the attacks change, or after it."""
ROTATION = keyed(str(OLD.public), str(NEW.public), "lead", "a year is over")


def grown(log: Log, end: log_rows.Tail, count: int, *signers: Signer, entry: Entry | None = None) -> log_rows.Tail:
    with log.db:
        for _ in range(count):
            seq = end.edge.size
            end = log_rows.append(log.db, end, [entry or act(seq)], START_MS + STEP_MS * seq)
        log_rows.write_head(log.db, end, *signers)
    return end


def write_rotated(place: Path) -> None:
    """Write a log that changes its key in the middle; a witness signs each tree head."""
    clock_s = [0]
    log = opened(place, lambda: clock_s[0])
    log.db.execute(log_rows.FORMAT_3)
    end = log_rows.tail(log.db)
    while end.edge.size < SIZE:
        if end.edge.size == TURN:
            end = grown(log, end, 1, OLD, NEW, entry=ROTATION)
            clock_s[0] = end.ts_ms // 1_000 + 1
            assert witnessed(log) == 200
            proof = file_of(next(log_rows.entries(log.db, TURN))[1], log_rows.prove(log.db, TURN, TURN + 1))
            assert log.witness.add_key(proof.encode()).status == 200
            log = Log(db=log.db, log=NEW, witness=log.witness)
        end = grown(log, end, GROUP - end.edge.size % GROUP, log.log)
        clock_s[0] = end.ts_ms // 1_000 + 1
        assert witnessed(log) == 200
    log.db.close()


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("rotated")
    write_rotated(place)
    return place


@pytest.fixture
def log(truth: Path, tmp_path: Path):
    log = opened(copytree(truth, tmp_path / "log"))
    yield Log(db=log.db, log=NEW, witness=log.witness)
    log.db.close()


def judged(log: Log, *keys: Signer, with_witness: bool = False, apart: int = 1) -> Report:
    texts = [str(key.public) for key in keys]
    lines = log_rows.export(log.db, heads_apart=apart)
    if not with_witness:
        return verify(lines, texts)
    seen = log.witness.seen(ORIGIN)
    return verify(lines, texts, [str(log.witness.signer.public)], [seen] if seen else [])


@pytest.mark.claim("G4.key.rotated")
@pytest.mark.parametrize("apart", [1, 2 * SIZE])
def test_one_trusted_key_is_enough_whichever_it_was(log: Log, apart: int) -> None:
    for keys in ((OLD,), (NEW,), (OLD, NEW)):
        for with_witness in (False, True):
            report = judged(log, *keys, with_witness=with_witness, apart=apart)
            assert report.faults == []
            assert report.keys == [f"entry {TURN}: lead changed the log's key, from here on it is {NEW.public}"]
            assert report.entries == SIZE
    assert "was never its key" in judged(log, OTHER).faults[-1]
    assert judged(log, OLD, OTHER).faults


@pytest.mark.claim("G4.key.rotated")
@pytest.mark.parametrize("name", ATTACKS)
def test_whoever_has_the_old_key_can_do_nothing_unseen_after_it_was_changed(log: Log, name: str) -> None:
    """The attacker signs each tree head of the rewritten log with the key before."""
    thief = Log(db=log.db, log=OLD, witness=log.witness)
    attack(thief, ATTACKS[name], has_log_key=True)
    assert judged(log, NEW).faults
    assert judged(log, OLD, with_witness=True).faults
    assert log.witness.add_tree_head(f"old {SIZE}\n\n{log_rows.last_note(log.db)}".encode()).status in (400, 403)


@pytest.mark.claim("G4.key.rotated")
def test_whoever_has_the_old_key_cannot_hand_the_log_over_to_another(log: Log) -> None:
    """They cut the log before the change, and sign another one."""
    thief = Log(db=log.db, log=OLD, witness=log.witness)
    attack(thief, lambda rows: rows[:TURN], has_log_key=True)
    end = grown(
        thief, log_rows.tail(log.db), 1, OLD, OTHER, entry=keyed(str(OLD.public), str(OTHER.public), "lead", "")
    )
    grown(thief, end, SIZE, OTHER)
    assert judged(log, NEW).faults
    assert judged(log, OLD, with_witness=True).faults
    assert judged(log, OLD).faults == [], (
        "the limit: whoever knows only the key before, and nothing else, believes the thief"
    )
    proof = file_of(next(log_rows.entries(log.db, TURN))[1], log_rows.prove(log.db, TURN, TURN + 1))
    assert log.witness.add_key(proof.encode()).status == 403


def test_a_new_key_without_the_signature_of_the_one_before_is_found(tmp_path: Path) -> None:
    for number, (first, entry, second) in enumerate(
        (
            ((NEW,), ROTATION, NEW),
            ((OLD,), ROTATION, NEW),
            ((OLD, NEW), ROTATION, OLD),
            ((OLD, NEW), ROTATION, OTHER),
            ((OLD, OTHER), keyed(str(OTHER.public), str(NEW.public), "lead", ""), NEW),
        )
    ):
        (tmp_path / str(number)).mkdir()
        log = opened(tmp_path / str(number))
        log.db.execute(log_rows.FORMAT_3)
        end = grown(log, log_rows.tail(log.db), 3, OLD)
        end = grown(log, end, 1, *first, entry=entry)
        grown(log, end, 3, second)
        assert judged(log, OLD).faults, number
        assert judged(log, OLD, NEW).faults, number
        log.db.close()


def test_tree_heads_at_which_the_key_changed_are_never_deleted(log: Log) -> None:
    with log.db:
        log.db.execute("delete from audit_cosignature")
    spare = log_rows.spare_heads(log.db, SIZE, SIZE)
    assert spare
    assert TURN + 1 not in spare
    with log.db:
        log_rows.delete_heads(log.db, spare)
    assert judged(log, OLD).faults == []


@pytest.mark.anyio
@pytest.mark.claim("G4.key.rotated")
async def test_a_home_changes_its_key_and_goes_on_with_the_new_one(project) -> None:
    keys = project / ".overwinter" / "keys"
    async with opened_app(project) as app:
        first = app.auditing.log.key
        await app.start("1", by="lead")
        status, done = await asked(app, "POST", "/v1/audit/key/rotate", b'{"by": "lead", "reason": "a year is over"}')
        assert (status, done["key"], done["witness_fault"]) == (200, str(app.auditing.log.key), None)
        fields, bodies = await app.auditing.entry(done["entry"])
        assert (fields["kind"], str(fields["act"])[2:6], fields["log_key"], fields["log_key_before"]) == (
            "key", "lead", done["key"], str(first),
        )  # fmt: skip
        assert bodies["args"].value["reason"] == "a year is over"
        await app.start("2", by="lead")
        assert sorted(each.name for each in keys.glob("audit*")) == ["audit.key"]
    async with opened_app(project) as app:
        await app.start("3", by="lead")
        again = await app.auditing.rotate(by="lead", reason="")
        assert str(app.auditing.log.key) == str(again[1])
        log = app._parts.audit
        for key in (first, again[1]):
            report = verify(log.export(with_bodies=True, heads_apart=1), str(key))
            assert (report.faults, len(report.keys)) == ([], 2)
        assert verified(app.auditing.log).faults == []


@pytest.mark.anyio
@pytest.mark.parametrize("has_committed", [True, False])
async def test_a_crash_while_the_key_changes_leaves_the_home_with_the_key_that_has_signed(
    project, has_committed
) -> None:
    home = project / ".overwinter"
    async with opened_app(project) as app:
        await app.start("1", by="lead")
    before = (home / "keys" / "audit.key").read_bytes()
    if has_committed:
        async with opened_app(project) as app:
            await app.auditing.rotate(by="lead", reason="")
        (home / "keys" / "audit.key").rename(home / "keys" / "audit.key.next")
        (home / "keys" / "audit.key").write_bytes(before)
    else:
        (home / "keys" / "audit.key.next").write_bytes(b"n" * 32)
    for each in (home / "keys").iterdir():
        each.chmod(0o600)
    async with opened_app(project) as app:
        await app.start("2", by="lead")
        assert ((home / "keys" / "audit.key").read_bytes() == before) is not has_committed
        assert not (home / "keys" / "audit.key.next").exists()
        assert verified(app.auditing.log).faults == []


CONFIG = Config(
    agents={name: Agent(owner="owner@example.com", tools=("*",)) for name in ("default", "clerk")},
    worker=Worker(interpreters=1),
)
SLEEPS = "import asyncio\nawait asyncio.sleep(60)\nawait shop.charge(cents=1)"


@pytest.mark.anyio
@pytest.mark.claim("G4.key.lost")
@pytest.mark.parametrize("how", ["gone", "another", "short"])
async def test_a_home_without_its_log_key_opens_far_enough_to_revoke_and_a_person_begins_anew(
    project, ledger, how
) -> None:
    home, clock = project / ".overwinter", ManualClock()
    key = home / "keys" / "audit.key"
    async with opened_app(project, config=CONFIG, clock=clock) as app:
        first = app.auditing.log.key
        asleep = await app.start(SLEEPS, by="lead")
        await app.start(SLEEPS, agent="clerk", by="lead")
        await app.governance.revoke("default", by="lead")
        await app.governance.restore("default", by="lead", has_runs=True)
        await idle(app)
    key.unlink()
    if how != "gone":
        key.write_bytes(b"x" * (32 if how == "another" else 5))
        key.chmod(0o600)
    for revoked in (1, 0):
        async with opened_app(project, config=CONFIG, clock=clock) as app:
            clock.advance(120)
            await idle(app)
            assert len(await app.runs(Page())) == 2
            with pytest.raises(HomeDamaged, match="key replace --lost"):
                await app.start("1", by="lead")
            with pytest.raises(HomeDamaged, match="key replace --lost"):
                await app.send(asleep, "hello", by="lead")
            with pytest.raises(HomeDamaged, match="key replace --lost"):
                await app.rulebook.reload(by="lead")
            with pytest.raises(HomeDamaged, match="key replace --lost"):
                await app.auditing.rotate(by="lead", reason="")
            assert len((await app.governance.revoke("clerk", by="lead")).identities) == revoked
            assert (await app.governance.identity("clerk")).is_revoked
            with pytest.raises(HomeDamaged, match="key replace --lost"):
                await app.governance.restore("clerk", by="lead")
    assert verified(open_log(home / "store.db", first)).faults == [
        f"the last tree head covers {TAIL} of {TAIL + 1} entries"
    ]
    entry, after = begin_anew(home / "store.db", clock, snapshot_key(home), by="lead", reason="the disk died")
    assert entry == TAIL + 1
    with pytest.raises(Conflict, match="rotate"):
        begin_anew(home / "store.db", clock, snapshot_key(home), by="lead", reason="")
    async with opened_app(project, config=CONFIG, clock=clock) as app:
        assert app.auditing.log.key == after
        await app.start("1", by="lead")
        await idle(app)
        assert (await app.governance.identity("clerk")).is_revoked
        told = [
            f"entry {entry}: lead accepted that the key before was lost, and began anew with {after}: the disk died"
        ]
        for keys in ([str(after)], [str(first), str(after)]):
            report = verify(app.auditing.log.export(with_bodies=True, heads_apart=1), keys)
            assert (report.faults, report.breaks) == ([], told)
        report = verify(app.auditing.log.export(with_bodies=True, heads_apart=1), str(first))
        assert "did not sign for" in report.faults[-1]
    assert ledger.read_text().count("charge ") == 1


TAIL = 4
"""Entries of the home before its key is lost: two starts, a revocation, a restoring."""


def snapshot_key(home: Path) -> bytes:
    return (home / "keys" / "snapshot.key").read_bytes()


@pytest.mark.anyio
async def test_a_key_that_is_found_again_signs_what_was_written_without_it_once_a_person_says_so(project) -> None:
    home = project / ".overwinter"
    key = home / "keys" / "audit.key"
    async with opened_app(project, config=CONFIG) as app:
        await app.governance.revoke("default", by="lead")
    key.rename(home / "found")
    async with opened_app(project, config=CONFIG) as app:
        await app.governance.revoke("clerk", by="lead")
    (home / "found").rename(key)
    async with opened_app(project, config=CONFIG) as app:
        with pytest.raises(HomeDamaged, match="audit accept"):
            await app.governance.restore("clerk", by="lead")
    with pytest.raises(Conflict, match="audit accept"):
        begin_anew(home / "store.db", ManualClock(), snapshot_key(home), by="lead", reason="")
    accept_older(home / "audit.anchor", Accepted(by="lead", reason="the key was found"))
    async with opened_app(project, config=CONFIG) as app:
        await app.governance.restore("clerk", by="lead")
        assert verified(app.auditing.log).faults == []
        ((_, raw),) = await app.auditing.log.entries(2, 3)
        assert json.loads(raw)["act"] == ["lead"]


@pytest.mark.anyio
async def test_nothing_but_revocations_may_stand_unsigned(project) -> None:
    async with opened_app(project, config=CONFIG) as app:
        await app.governance.revoke("default", by="lead")
        await app.governance.restore("default", by="lead")
    with closing(apsw.Connection(str(project / ".overwinter" / "store.db"))) as db:
        db.execute("delete from audit_head where size = 2")
    (project / ".overwinter" / "keys" / "audit.key").unlink()
    with pytest.raises(HomeDamaged, match="changed from outside"):
        async with opened_app(project, config=CONFIG):
            pass


def test_without_a_key_of_after_the_break_nothing_after_it_is_believed(tmp_path: Path) -> None:
    """Whoever has no key cuts the log, and says that the key was lost."""
    log = opened(tmp_path)
    log.db.execute(log_rows.FORMAT_3)
    end = grown(log, log_rows.tail(log.db), 3, OLD)
    lost = keyed(str(OLD.public), str(NEW.public), "lead", "the disk died", is_lost=True)
    end = grown(log, end, 1, NEW, entry=lost)
    grown(log, end, 3, NEW)
    assert judged(log, OLD).faults
    assert judged(log, OLD).breaks
    for keys in ((NEW,), (OLD, NEW)):
        assert (judged(log, *keys).faults, len(judged(log, *keys).breaks)) == ([], 1)
    assert judged(log, OTHER, NEW).faults
    log.db.close()
