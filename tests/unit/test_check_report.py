"""What a model is told of a program that was refused: where, what, what instead, in at most 600 tokens."""

import json
import lzma
from pathlib import Path

import pytest
from bench.tokens import tokens

from jails import jail_here
from overwinter.adapters.monty.launcher import open_launcher
from overwinter.adapters.monty_checker import open_checker
from overwinter.adapters.openapi.document import parse
from overwinter.adapters.openapi.operations import operations
from overwinter.catalog.modules import built
from overwinter.check import render, report

pytestmark = pytest.mark.anyio
DATA = Path(__file__).parents[2] / "bench" / "data"


@pytest.fixture(scope="module")
def stubs():
    made = {}
    for name in ("github", "stripe"):
        document = parse(lzma.decompress((DATA / f"{name}.json.xz").read_bytes()), name)
        made[name] = built(name, operations(document)[0], document.resolve).stub
    return made


async def refused(stubs, source):
    with open_launcher(jail_here()) as launcher:
        async with open_checker(launcher=launcher, jail=jail_here()) as checker:
            return await checker.check(source, stubs, {})


@pytest.mark.claim("P1.checked_before")
@pytest.mark.parametrize(("source", "error"), [
    ("await github.pulls_list(owner='o', repo='r', stat='open')",
     {"line": 1, "kind": "unknown_argument", "at": "github.pulls_list", "got": "stat", "did_you_mean": ["state"]}),
    ("await github.pulls_list(owner='o', repo='r', state='opne')",
     {"line": 1, "kind": "invalid_argument_type", "at": "github.pulls_list", "got": "opne", "did_you_mean": ["open"]}),
    ("x = 1\nawait github.pulls_list(\n    owner='o',\n    repo='r',\n    stat='open',\n)",
     {"line": 5, "kind": "unknown_argument", "at": "github.pulls_list", "got": "stat", "did_you_mean": ["state"]}),
    ("await github.pulls_lst(owner='o', repo='r')",
     {"line": 1, "kind": "unresolved_attribute", "at": "github.pulls_lst", "got": "pulls_lst", "did_you_mean": ["pulls_list", "pulls_get", "pulls_list_page"]}),
    ("await githb.pulls_list(owner='o', repo='r')",
     {"line": 1, "kind": "unresolved_reference", "got": "githb", "did_you_mean": ["github"]}),
    ("await github.pulls_list(owner='o')", {"line": 1, "kind": "missing_argument", "at": "github.pulls_list"}),
])  # fmt: skip
async def test_a_report_says_where_what_and_what_instead(stubs, source, error):
    said = report(await refused(stubs, source))
    assert (said["status"], said["ran"]) == ("check_failed", False)
    (first, *_) = said["errors"]
    assert error.items() <= first.items(), first
    if error["kind"] in ("unknown_argument", "missing_argument", "invalid_argument_type"):
        assert said["stubs"].startswith("github: async def pulls_list(*, owner: str, ")
        assert "state: Literal['open', 'closed', 'all']" in said["stubs"]


@pytest.mark.parametrize("names", [
    ["customers_create", "charges_create", "invoices_create", "subscriptions_create", "payment_intents_create"],
    ["customers_create"],
])  # fmt: skip
async def test_a_report_has_at_most_600_tokens_and_still_says_how_many_there_are(stubs, names):
    wanted = [name for name in names if f"async def {name}(" in stubs["stripe"]]
    wanted = wanted or ["post_customers", "post_charges", "post_invoices", "post_subscriptions", "post_payment_intents"]
    source = "\n".join(
        f"await stripe.{name}(descripton='x', wrong_{n}={{}}, other_{n}=[1])" for n in range(8) for name in wanted
    )
    findings = await refused(stubs, source)
    said = report(findings)
    assert said["errors"]
    assert len(said["errors"]) + said["more"] == len([each for each in findings if each.is_certain])
    assert tokens([json.dumps(said)])[0] <= 600


async def test_people_read_each_signature_once(stubs):
    source = "await github.pulls_list(owner='o', repo='r', stat='a')\nawait github.pulls_list(owner='o', rep='r')"
    text = render(await refused(stubs, source), source)
    assert text.count("github.pulls_list(*, ") == 1
    assert "did you mean `state`?" in text
