"""The ledger says what the provider bills, with real processes, one of which is killed in the middle."""

import anyio
from bench.bill import billed


def test_the_ledger_equals_the_bill_of_the_provider_over_mixed_calls_clients_that_leave_and_a_kill():
    found = anyio.run(lambda: billed(calls=300, kills=1))
    assert found["difference_nusd"] == 0
    assert found["budget_less_lines_nusd"] == 0
    assert (found["leaked_holds"], found["unbooked"], found["beyond_hold"], found["kills"]) == (0, 0, 0, 1)
    assert found["stated"] > 200
    assert found["estimated"] > 0
