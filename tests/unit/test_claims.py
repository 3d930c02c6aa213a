"""Every promise has a test, every marked test a promise."""

import pytest

from claims import CLAIMS

WHOLE = ((), ("-q",), ("-n", "auto", "--dist", "worksteal"))
"""Ways to ask for every test."""


def test_whatever_a_test_claims_is_listed_and_whatever_is_listed_has_a_test(request: pytest.FixtureRequest):
    items = request.session.items
    claimed = {mark.args[0] for item in items for mark in item.iter_markers("claim")}
    assert claimed <= CLAIMS.keys()
    if request.config.invocation_params.args in WHOLE:
        assert CLAIMS.keys() <= claimed
