"""What the owner of the database can do to the audit log is found: with a witness all of it, also if the key is stolen."""

from pathlib import Path
from shutil import copytree

import pytest
from bench.tampering import ATTACKS, GROUP, SIZE, Log, act, attack, judged, opened, witnessed, write_honest

from overwinter.adapters.sqlite import log_rows

MISSED = {("truncate at an old head", False), *((name, True) for name in ATTACKS if name != "delete")}
"""By whoever trusts the log's key alone: a log cut at an older tree head, and with the key whatever is renumbered."""


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("honest")
    write_honest(place)
    return place


@pytest.fixture
def log(truth: Path, tmp_path: Path):
    log = opened(copytree(truth, tmp_path / "log"))
    yield log
    log.db.close()


def test_an_honest_log_has_no_fault(log: Log) -> None:
    for with_witness in (False, True):
        report = judged(log, with_witness=with_witness)
        assert (report.faults, report.entries, report.heads) == ([], SIZE, SIZE // GROUP)
    assert judged(log, with_witness=True).witnessed == SIZE


@pytest.mark.parametrize("has_log_key", [False, True], ids=["owner", "key stolen"])
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.claim("G4.tampering")
def test_with_a_witness_every_rewriting_is_found(log: Log, name: str, has_log_key) -> None:
    attack(log, ATTACKS[name], has_log_key=has_log_key)
    assert judged(log, with_witness=True).faults
    assert bool(judged(log, with_witness=False).faults) == ((name, has_log_key) not in MISSED)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in ("delete", "backdate at the end")])
def test_a_witness_does_not_sign_what_was_rewritten(log: Log, name: str) -> None:
    attack(log, ATTACKS[name], has_log_key=True)
    if len(list(log_rows.entries(log.db))) < SIZE:  # a shorter log is not even taken to it: it has no proof to show
        return
    assert witnessed(log) in (409, 422)


def test_what_no_witness_has_signed_rests_on_the_logs_key_alone(log: Log) -> None:
    """The limit of the scheme, stated: so the witness is asked at once after an approval or a revocation."""
    with log.db:
        end = log_rows.tail(log.db)
        end = log_rows.append(log.db, end, [act(SIZE)], end.ts_ms + 2 * 86_400_000)
        log_rows.write_head(log.db, end, log.log)
    attack(log, lambda rows: [*rows[:SIZE], {**rows[SIZE], "tool": "other"}], has_log_key=True)
    report = judged(log, with_witness=True)
    assert not report.faults
    assert report.entries - report.witnessed == 1


def test_a_fault_says_between_which_tree_heads_it_is(log: Log) -> None:
    attack(log, ATTACKS["edit"], has_log_key=False)
    assert judged(log, with_witness=False).faults == [
        "tree head 300: among entries 250 to 299 are others than it was signed over"
    ]
