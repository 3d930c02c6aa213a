"""The audit log held against the request log of a service of its own, with kill -9 at random moments."""

import pytest
from bench.truth import Told, judged, truth


@pytest.mark.claim("G4.truth")
@pytest.mark.timeout(180)
def test_the_audit_log_and_a_services_own_log_tell_the_same_story_across_kills():
    figures = truth(500, per_kill=125)
    assert (figures["missing"], figures["extra"], figures["faults"]) == (0, 0, 0), figures
    assert (figures["kills"], figures["denied"], figures["without_outcome"]) == (5, figures["runs"], 0)
    assert figures["requests"] >= 500


def test_the_comparison_finds_what_it_looks_for():
    told = Told()
    for kind, ts, index in (("call.intent", 5, 0), ("call.result", 6, 0), ("deny", 7, 1)):
        told.take({"kind": kind, "ts": ts, "run": "R", "call": index})
    assert judged(told, [(5, "R:0")])["missing"] == 0
    assert judged(told, [(4, "R:0")])["missing"] == 1
    assert judged(told, [(5, "R:0"), (9, "R:7")])["missing"] == 1
    assert judged(told, [])["extra"] == 1
    assert judged(told, [(5, "R:0"), (9, "R:1")])["extra"] == 1
