"""The offline check: one file that runs alone, and finds any one byte that is changed."""

import json
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from shutil import copyfile

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import overwinter.verify_export
from overwinter.adapters.notes import Signer, cosign, open_note, sign
from overwinter.adapters.sqlite import log_rows
from overwinter.audit import Entry, canonical, hidden
from overwinter.verify_export import FAULTS_MAX, main, verify

LOG = Signer.of(b"\1" * 32, "runtime.example/audit", 1)
WITNESS = Signer.of(b"\2" * 32, "witness.example/w", 4)
NOW_MS = 1_900_000_000_000
KEY, WITNESS_KEY = str(LOG.public), str(WITNESS.public)


def export(*groups: int) -> list[bytes]:
    """Return a log with bodies, of which the last tree head is cosigned."""
    db = apsw.Connection(":memory:")
    db.execute(log_rows.FORMAT_3)
    end = log_rows.tail(db)
    for size in groups:
        batch = [
            Entry(kind="call.result", tenant="t", agent="ä", epoch=1, args=hidden(b"args"), result=hidden(b"\0result"))
            for _ in range(size)
        ]
        end = log_rows.append(db, end, batch, NOW_MS + end.edge.size)
        log_rows.write_head(db, end, LOG)
    head = open_note(log_rows.note(db, end.edge.size), LOG.public)
    log_rows.add_cosignature(db, head.size, WITNESS.public.name, cosign(head, WITNESS, NOW_MS // 1_000 + 1))
    return list(log_rows.export(db, with_bodies=True))


LINES = export(2, 1)
WHOLE = b"".join(LINES)


def test_a_whole_log_has_no_fault() -> None:
    report = verify(LINES, KEY, [WITNESS_KEY])
    assert (report.faults, report.entries, report.heads, report.bodies, report.witnessed) == ([], 3, 2, 6, 3)
    assert verify([line.rstrip(b"\n") for line in LINES], KEY).faults == []
    assert verify([], KEY).faults == []


def lines_of(whole: bytes) -> list[bytes]:
    """Return its lines as a file has them: a carriage return ends none."""
    return list(BytesIO(whole))


@settings(deadline=None, max_examples=60)  # each example tries many bytes
@given(st.integers(1, 255), st.integers(0, 60))
def test_any_one_byte_that_is_changed_is_found(change: int, offset: int) -> None:
    for at in range(offset, len(WHOLE) - 1, 61):  # the last byte is the end of a line
        damaged = bytes([*WHOLE[:at], WHOLE[at] ^ change, *WHOLE[at + 1 :]])
        assert verify(lines_of(damaged), KEY, [WITNESS_KEY]).faults, (at, damaged[at - 20 : at + 20])


def test_a_spelling_of_base_64_that_means_the_same_bytes_is_a_change() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    text, seen = WHOLE.decode(), 0
    for found in re.finditer(r"[A-Za-z0-9+/](?==)", text):
        at, bits = found.start(), 4 if text[found.end() : found.end() + 2] == "==" else 2
        place = alphabet.index(text[at])
        assert place % 2**bits == 0
        for spare in range(1, 2**bits):
            damaged = text[:at] + alphabet[place + spare] + text[at + 1 :]
            assert verify(lines_of(damaged.encode()), KEY, [WITNESS_KEY]).faults, (at, damaged[at - 60 : at + 3])
            seen += 1
    assert seen > 50


@pytest.mark.parametrize("at", range(len(LINES)))
def test_a_line_that_is_missing_is_found_unless_it_was_a_body_or_an_older_tree_head(at: int) -> None:
    report = verify([*LINES[:at], *LINES[at + 1 :]], KEY, [WITNESS_KEY])
    is_needed = LINES[at].startswith(b"{") or at == len(LINES) - 1
    assert bool(report.faults) == is_needed


def test_what_an_entry_must_not_be_is_said() -> None:
    def said(**fields) -> str:
        raw = canonical({"seq": 0, "ts": 5, "v": 1, **fields})
        return "\n".join(verify([raw], KEY).faults)

    assert "number 7 where 0 is due" in said(seq=7)
    assert "of version 2" in said(v=2)
    assert "has no time" in said(ts=None)
    assert "has no time" in said(ts=True)
    assert "number None" in "\n".join(verify([b'{"ts":5,"v":1}'], KEY).faults)
    assert "spelt otherwise" in "\n".join(verify([b'{"v":1,"seq":0,"ts":5}'], KEY).faults)
    assert "spelt otherwise" in "\n".join(verify([b'{"a":{"b":1},"seq":0,"ts":5,"v":1}'], KEY).faults)
    later = canonical({"seq": 1, "ts": 4, "v": 1})
    assert "before its predecessor's" in "\n".join(verify([canonical({"seq": 0, "ts": 5, "v": 1}), later], KEY).faults)


def test_an_entry_later_than_its_cosignature_or_older_than_one_before_it_is_found() -> None:
    db = apsw.Connection(":memory:")
    db.execute(log_rows.FORMAT_3)
    entry = Entry(kind="deny", tenant="t", agent="a", epoch=1)
    end = log_rows.append(db, log_rows.tail(db), [entry], NOW_MS)
    head = open_note(log_rows.write_head(db, end, LOG), LOG.public)
    log_rows.write_head(db, log_rows.append(db, end, [entry], NOW_MS + 10_000), LOG)
    for time_s, fault in ((-400, "postdated"), (-200, None), (+300, None), (+311, "backdated")):
        log_rows.add_cosignature(db, 1, WITNESS.public.name, cosign(head, WITNESS, NOW_MS // 1_000 + time_s))
        faults = verify(log_rows.export(db), KEY, [WITNESS_KEY]).faults
        assert len(faults) == bool(fault)
        assert fault is None or fault in faults[0]


def test_faults_beyond_the_limit_are_counted() -> None:
    report = verify([b"?"] * 100, KEY)
    assert (len(report.faults), report.more_faults) == (FAULTS_MAX, 80)


@pytest.mark.parametrize(
    "line", [b"1", b"null", b"[]", b'["a"]', b"[" * 100_000, b"\xff", b'[0,"other","",""]', b'"no note"']
)
def test_a_line_that_is_nothing_is_said(line: bytes) -> None:
    assert verify([line], KEY).faults


def test_the_check_does_not_take_keys_from_others() -> None:
    other = Signer.of(b"\3" * 32, LOG.public.name, 1)
    assert "are not signed by the key of" in verify(LINES, str(other.public)).faults[0]
    stranger = Signer.of(b"\3" * 32, "other.example/w", 4)
    assert verify(LINES, KEY, [str(stranger.public)]).faults == ["no tree head of it is cosigned by other.example/w"]
    for wrong in ("", WITNESS_KEY, KEY[:-2], KEY.replace("audit", "other")):
        with pytest.raises(ValueError, match="no key of a log"):
            verify(LINES, wrong)


def test_it_runs_as_a_plain_file_without_the_package(tmp_path: Path) -> None:
    script, log, seen = tmp_path / "check.py", tmp_path / "log.jsonl", tmp_path / "seen"
    copyfile(overwinter.verify_export.__file__, script)
    log.write_bytes(WHOLE)
    seen.write_text(json.loads(LINES[-1]), encoding="utf-8")
    keys = ["--log-key", KEY, "--witness-key", WITNESS_KEY, "--seen", str(seen)]

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(script), str(log), *keys]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    whole = run()
    assert (whole.returncode, whole.stderr) == (0, "")
    assert whole.stdout.startswith(
        "3 entries, 2 tree heads, 6 bodies; 3 entries are under a witness's signature, 0 rest"
    )
    log.write_bytes(b"".join(LINES[:7]))  # cut exactly at the older tree head
    cut = run()
    assert cut.returncode == 1
    assert "WRONG the log was seen with 3 entries and has 2: its end was cut off" in cut.stdout
    log.unlink()
    assert run().returncode == 2
    imported = [
        line for line in script.read_text(encoding="utf-8").splitlines() if line.startswith(("import ", "from "))
    ]
    assert not [line for line in imported if "overwinter" in line]


def test_without_a_kept_tree_head_it_says_what_it_cannot_see(tmp_path: Path, capsys) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(WHOLE)
    assert main([str(log), "--log-key", KEY]) == 0
    assert "cut at an older tree head would not show" in capsys.readouterr().out
    log.write_bytes(b"?\n" * 30)
    assert main([str(log), "--log-key", KEY]) == 1
    assert "and 10 more" in capsys.readouterr().out
    assert main([str(log), "--log-key", "no key"]) == 2


def test_both_readers_of_notes_agree() -> None:
    """The script has its own; what one of them takes for a tree head of the log the other does as well."""
    note = sign(open_note(json.loads(LINES[-1]), LOG.public), LOG)
    parsed, key = overwinter.verify_export._parsed(note, LOG.public.name), overwinter.verify_export._key(KEY, 1)
    assert (parsed.size, parsed.has_of(key)) == (3, True)
