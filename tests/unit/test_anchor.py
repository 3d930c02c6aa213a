"""An older database that is put back does not undo a revocation unseen."""

import json
import shutil
from contextlib import closing

import apsw
import pytest

from kit import opened
from overwinter.adapters.sqlite import Accepted, accept_older
from overwinter.adapters.sqlite.anchor import SLOT_BYTES, Anchor, AnchorFile, read
from overwinter.config import Agent, Config, Worker
from overwinter.errors import HomeDamaged, NotFound, UsageError

pytestmark = pytest.mark.anyio
FREE = Agent(owner="owner@example.com", tools=("*",))
CONFIG = Config(agents={"default": FREE, "clerk": FREE}, worker=Worker(interpreters=1))


def agents(project, **options):
    return opened(project, config=CONFIG, **options)


async def put_back(project):
    """Revoke an agent, and put the copy of the database back that was made before."""
    home = project / ".overwinter"
    async with agents(project) as app:
        await app.governance.revoke("default", by="lead")
        await app.governance.restore("default", by="lead")
    shutil.copy(home / "store.db", project / "copy.db")
    async with agents(project) as app:
        await app.governance.revoke("clerk", by="lead")
    for name in ("store.db-wal", "store.db-shm"):
        (home / name).unlink(missing_ok=True)
    shutil.copy(project / "copy.db", home / "store.db")


@pytest.mark.claim("G5.anchor")
async def test_an_older_database_is_not_opened_until_a_person_says_so_and_the_log_says_who(project):
    await put_back(project)
    place = project / ".overwinter" / "audit.anchor"
    assert place.stat().st_mode & 0o777 == 0o600
    for _ in range(2):
        with pytest.raises(HomeDamaged, match="audit accept"):
            async with agents(project):
                pass
    accept_older(place, Accepted(by="lead", reason="the disk died"))
    for _ in range(2):
        async with agents(project) as app:
            assert not (await app.governance.identity("clerk")).is_revoked
            size = await app._parts.audit.size()
            ((_, raw),) = await app._parts.audit.entries(size - 1, size)
            entry = json.loads(raw)
            assert (entry["kind"], entry["act"]) == ("restore", ["lead"])


async def test_a_lost_database_is_not_made_anew_until_a_person_says_so_and_the_log_says_who(project):
    async with agents(project) as app:
        await app.governance.revoke("clerk", by="lead")
    home = project / ".overwinter"
    for each in home.glob("store.db*"):
        each.unlink()
    for _ in range(2):
        with pytest.raises(HomeDamaged, match=r"store\.db is missing.*audit accept"):
            async with agents(project):
                pass
    assert not list(home.glob("store.db*"))
    accept_older(home / "audit.anchor", Accepted(by="lead", reason="the disk died"))
    for _ in range(2):
        async with agents(project) as app:
            assert not (await app.governance.identity("clerk")).is_revoked
            entries = await app._parts.audit.entries(0, await app._parts.audit.size())
            assert [json.loads(raw)["act"] for _, raw in entries if json.loads(raw)["kind"] == "restore"] == [["lead"]]


@pytest.mark.claim("G5.anchor")
async def test_epochs_that_fell_in_an_untouched_log_are_noticed(project):
    async with agents(project) as app:
        await app.governance.revoke("clerk", by="lead")
    home = project / ".overwinter"
    with closing(apsw.Connection(str(home / "store.db"))) as db:
        db.execute("update agent set state = 0, epoch = 1 where name = 'clerk'")
    with pytest.raises(HomeDamaged, match="never fall"):
        async with agents(project):
            pass


async def test_a_home_that_goes_on_as_it_was_is_opened_and_nothing_is_to_be_accepted(project):
    with pytest.raises(NotFound):
        accept_older(project / "audit.anchor", Accepted(by="lead", reason=""))
    async with agents(project) as app:
        await app.governance.revoke("clerk", by="lead")
    before = (project / ".overwinter" / "audit.anchor").read_bytes()
    async with agents(project) as app:
        assert (await app.governance.identity("clerk")).is_revoked
    assert (project / ".overwinter" / "audit.anchor").read_bytes() == before
    (project / ".overwinter" / "audit.anchor").write_text("{}")
    with pytest.raises(HomeDamaged, match=r"audit\.anchor"):
        async with agents(project):
            pass


def anchor(size):
    return Anchor(origin="overwinter/x", size=size, root=bytes([size % 256]) * 32, epochs=size)


def test_a_torn_or_lost_write_of_an_anchor_leaves_the_one_before(tmp_path):
    place = tmp_path / "audit.anchor"
    with closing(AnchorFile(place)) as file:
        file.keep(anchor(0))
    for size in range(1, 6):
        before = place.read_bytes()
        with closing(AnchorFile(place)) as file:
            assert file.known == anchor(size - 1)
            file.keep(anchor(size))
        after = place.read_bytes()
        assert read(place) == anchor(size)
        changed = [at for at, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
        assert changed[0] // SLOT_BYTES == changed[-1] // SLOT_BYTES, "the slot of the one before was touched"
        for end in range(changed[0], changed[-1] + 1, 5):
            place.write_bytes(after[:end] + before[end:])
            assert read(place) == anchor(size - 1)
        place.write_bytes(after)


def test_an_anchor_of_an_older_version_is_read_and_written_anew_in_slots(tmp_path):
    place = tmp_path / "audit.anchor"
    old = {"origin": "overwinter/x", "size": 3, "root": "03" * 32, "epochs": 3, "accepted": None}
    place.write_text(json.dumps(old))
    with closing(AnchorFile(place)) as file:
        assert file.known == anchor(3)
        file.keep(anchor(4))
        place.unlink()  # of somebody who puts the directory back under a running server
        file.keep(anchor(5))
    assert (read(place), place.stat().st_size, place.stat().st_mode & 0o777) == (anchor(5), 2 * SLOT_BYTES, 0o600)


def test_a_reason_that_does_not_fit_is_refused_and_changes_nothing(tmp_path):
    place = tmp_path / "audit.anchor"
    with closing(AnchorFile(place)) as file:
        file.keep(anchor(1))
    with pytest.raises(UsageError, match="shorter"):
        accept_older(place, Accepted(by="lead", reason="x" * SLOT_BYTES))
    assert read(place) == anchor(1)
