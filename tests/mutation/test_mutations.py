"""Mutation proof: with one rule removed from a copy of the sources, the suite goes red. A suite that stays green proves nothing."""

import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

ROOT = Path(__file__).parents[2]
STORE = "src/overwinter/adapters/sqlite/store.py"
ROWS = "src/overwinter/adapters/sqlite/rows.py"
CONFORMANCE = ["tests/conformance/test_store.py"]
STARTS = "src/overwinter/adapters/sqlite/starts.py"
DRAFTS = ["tests/conformance/test_drafts.py"]
ATTACKED = ["tests/unit/test_approvals_attacked.py"]
TURNS = ["tests/unit/test_turns.py"]
MATRIX = ["tests/crash"]
EGRESS = ["tests/unit/test_egress.py"]
MASKS = ["tests/unit/test_masks.py"]
BY_HAND = ["tests/unit/test_by_hand.py"]
GATEWAY = "src/overwinter/gateway/__init__.py"
MODELS = ["tests/unit/test_gateway.py"]

MUTATIONS = {
    "the epoch is not compared": (ROWS, "return self.epoch == epoch", "return True", CONFORMANCE),
    "seq is not compared": (ROWS, "if row.seq == turn.seq else", "if True else", CONFORMANCE),
    "all mail goes, not the mail named": (
        ROWS,
        'db.executemany("delete from mail where n = ? and id = ?", [(row.n, to_bytes(each)) for each in turn.consumed])',
        'db.execute("delete from mail where n = ?", (row.n,))',
        CONFORMANCE,
    ),
    "a repeat is known only while it is pending": (
        ROWS,
        'return dedup is not None and bool(list(db.execute("select 1 from seen where n = ? and dedup = ?", (n, dedup))))',
        "return False",
        CONFORMANCE,
    ),
    "a write is not marked before it leaves": (
        STORE,
        '"update call set state = 1, attempt',
        '"update call set state = 0, attempt',
        CONFORMANCE,
    ),
    "a start does not ask whether the run has ended": (
        STORE,
        """if row is None or row.status is not Status.LIVE or not row.is_held(lease.epoch) or not row.is_active:
                return Wrote(result=False)
            marked""",
        "if row is None:\n                return Wrote(result=False)\n            marked",
        CONFORMANCE,
    ),
    "a revoked agent's turn is committed": (ROWS, "if not row.is_active:\n        return Verdict.REVOKED", "if False:\n        return Verdict.REVOKED", CONFORMANCE),
    "a run is made in another epoch of its agent": (STARTS, "agents.epoch(db, start.run.agent) == turn.draft.loaded.agent_epoch", "True", DRAFTS),
    "a fenced process makes a run": (STARTS, "if rows.epoch_held(db) != turn.lease.epoch:", "if False:", DRAFTS),
    "a run is made whatever forbids it": (STARTS, "if is_known and refused(db, start.run, now) is None else", "if is_known else", DRAFTS),
    "a run that has begun is told to be revoked": (STARTS, "if run.origin is not None and (earlier := family.child(db, run.origin)) is not None:", "if False:", [*DRAFTS, "tests/unit/test_beginnings.py"]),
    "what is ended with others computes on": ("src/overwinter/worker.py", "group.start_soon(self._hear_ends)", "pass", ["tests/unit/test_beginnings.py"]),
    "a gate is passed twice": ("src/overwinter/adapters/sqlite/gates.py", "and used is null and state = 0", "", CONFORMANCE),
    "a yes to another digest counts": ("src/overwinter/adapters/sqlite/gates.py", "if row[0] != digest:", "if False:", CONFORMANCE),
    "a gated call is performed": ("src/overwinter/worker.py", "and intent.gate is None and", "and", ["tests/unit/test_approvals.py"]),
    "a gated write is started": (STORE, "and not {gates.IS_CLOSED} returning", "returning", ATTACKED),
    "a yes to other rules counts at the start": ("src/overwinter/turn.py", "if standing and (standing.expires_us is not None) == has_end and standing.digest == bound(standing.expires_us):", "if standing:", ATTACKED),
    "one person is enough for all": ("src/overwinter/adapters/sqlite/gates.py", "if left(_needs(row[1], row[2]), yes):", "if not yes:", ["tests/unit/test_quorum.py"]),
    "the end of a question is counted anew at each look": ("src/overwinter/turn.py", "standing.digest == bound(standing.expires_us)", "standing.digest == bound(None)", ["tests/unit/test_quorum.py"]),
    "a function's author is not heard": ("src/overwinter/turn.py", "if function.is_gated and isinstance(decision, Allow):", "if False:", ["tests/unit/test_python_offers.py"]),
    "an approved call ends with its question": ("src/overwinter/adapters/sqlite/gates.py", "not_before = 0, due = null where", "not_before = 0 where", ["tests/unit/test_quorum.py"]),
    "a repeat needs no new yes": (STORE, "gates.spend(db, row.n, call.index)", "pass", ATTACKED),
    "an approval is not decided": ("src/overwinter/app/governance.py", "if is_yes and not isinstance(decision := approvable(call, by.person, self._means), Allow):", "if False:", ATTACKED),
    "what was approved is not decided again": ("src/overwinter/app/governance.py", "if is_yes and isinstance(asked, Raised):", "if False:", ["tests/unit/test_approvals.py"]),
    "a wake is not decided": ("src/overwinter/turn.py", "    may_go_on(run, means)\n", "", ["tests/unit/test_approvals.py"]),
    "the start of an effect is not decided": (
        "src/overwinter/effects.py",
        "if attempt.rules != self._means.policy.version",
        "if False",
        ["tests/unit/test_approvals.py", "tests/unit/test_approvals_attacked.py"],
    ),
    "a search shows what no rule lets be called": (
        "src/overwinter/adapters/sources.py",
        "if self._sight(agent, each)",
        "if True",
        ["tests/unit/test_openapi.py"],
    ),
    "a program is checked against what its agent may not see": (
        "src/overwinter/app/checks.py",
        "if function is not None and not self._sight(agent, function):",
        "if False:",
        TURNS,
    ),
    "an answer is taken twice": (ROWS, "and state <> 2 returning function", "returning function", CONFORMANCE),
    "a name at the socket is believed": ("src/overwinter/faces/callers.py", ", is_claimed=True)", ")", ["tests/unit/test_callers.py"]),
    "what is sent is not the file that was approved": (
        "src/overwinter/handles.py",
        "if expected is not None and expected !=",
        "if expected is None and expected !=",
        ["tests/unit/test_handles.py"],
    ),
    "a file without its hash is approved": ("src/overwinter/turn.py", "if (handle := unbound(call.arguments.values())) is not None:", "if False:", ["tests/unit/test_handles.py"]),
    "a webhook follows a redirect": ("src/overwinter/adapters/webhooks.py", "allow_redirects=False", "allow_redirects=True", ["tests/unit/test_webhooks.py"]),
    "an intent is acted on before it is committed": (
        "src/overwinter/turn.py",
        "    verdict = await store.commit(commit, can_wait=can_wait)",
        """    for intent in commit.calls:
        if intent.call.effect != 'wait' and hasattr(store, 'acts'):
            await store.acts(intent.call)
    verdict = await store.commit(commit)""",
        MATRIX,
    ),
    "the answer of a write goes by hand": (
        "src/overwinter/effects.py",
        'if call.effect == "write" or not isinstance(answer, Returned | Raised)',
        "if isinstance(answer, Unknown)",
        BY_HAND,
    ),
    "answers in hand are dropped with a turn that fails": (
        "src/overwinter/effects.py",
        "self._tasks.create_task(self._put_down(each))",
        "pass",
        BY_HAND,
    ),
    "a started write is silently repeated": (
        "src/overwinter/effects.py",
        "if attempt.state is CallState.STARTED:",
        "if False:",
        MATRIX,
    ),
    "the key is made anew for each attempt": (
        "src/overwinter/adapters/python_tools.py",
        "Key(call.key)",
        'Key(f"{call.key}:{id(object())}{len(str(call))}:{__import__(\'time\').monotonic_ns()}")',
        MATRIX,
    ),
    "a snapshot is not authenticated": (
        "src/overwinter/snapshot.py",
        "if not hmac.compare_digest(mac, _mac(key, run_id, seq, header, body)):",
        "if False:",
        ["tests/unit/test_snapshot.py"],
    ),
    "a call is not decided": (
        "src/overwinter/turn.py",
        'return Raised(kind="PermissionError", message=reason, status=403, code="denied")',
        "return Allow()",
        TURNS,
    ),
    "an address that is not public is asked": (
        "src/overwinter/adapters/egress.py",
        "if not is_named and not all(_is_public(each) for each in faces):",
        "if False:",
        EGRESS,
    ),
    "one good address among several opens a name": (
        "src/overwinter/adapters/egress.py",
        "    for each in found:\n        _judge(",
        "    for each in found[:1]:\n        _judge(",
        EGRESS,
    ),
    "what is inside an address of IPv6 is not looked at": (
        "src/overwinter/adapters/egress.py",
        "if any(address in each for each in IN_THE_LAST_BITS):",
        "if False:",
        EGRESS,
    ),
    "a step upwards in a path is not seen": ("src/overwinter/adapters/egress.py", "if climbs(other.path):", "if False:", EGRESS),
    "a redirect of an MCP server is followed with its headers": (
        "src/overwinter/adapters/egress.py",
        "if not self._bound.covers(there):",
        "if False:",
        EGRESS,
    ),
    "a body is read before it is masked": (
        "src/overwinter/adapters/openapi/client.py",
        "        raw = mask.raw(raw)\n",
        "",
        MASKS,
    ),
    "a file that others can read is taken": ("src/overwinter/adapters/vault.py", "if mode & 0o077:", "if False:", ["tests/unit/test_vault.py"]),
    "an error in a rule is skipped": (
        "src/overwinter/adapters/cedar/deciding.py",
        "allowed=decision is cedarpy.Decision.Allow and not errors",
        "allowed=decision is cedarpy.Decision.Allow",
        ["tests/unit/test_cedar.py"],
    ),
    "only the last agent of a chain is asked for": (
        "src/overwinter/adapters/cedar/deciding.py",
        "for who in asked_for(act):",
        "for who in asked_for(act)[-1:]:",
        ["tests/unit/test_policy_chain.py"],
    ),
    "an argument that cannot be told is left out": (
        "src/overwinter/adapters/cedar/arguments.py",
        "if value is not None and (names is None or name in names)",
        "if value is not None and (names is None or name in names) and not isinstance(kinds.get(name), Opaque)",
        ["tests/unit/test_cedar.py::test_no_argument_makes_a_decision_raise_or_slips_past_a_forbid"],
    ),
    "a model call is not decided": (GATEWAY, "decision = self._decided(caller, *first)", "decision = Allow()", MODELS),
    "a revoked agent asks models": (GATEWAY, "if not all(map(self._may_act, caller.principal.chain)):", "if False:", MODELS),
    "a kept answer is given before the rules are asked": (
        GATEWAY,
        "        targets = self._permitted(call, call.asked)\n",
        """        key = self._key(call, self.routes.of(call.asked.model).targets)
        if key is not None and (early := await self._answers.find(key)) is not None:
            await self._give(call, early, Cleaned(asked=call.asked), "hit")
            return
        targets = self._permitted(call, call.asked)
""",
        MODELS,
    ),
    "a budget that has no room is passed": (
        "src/overwinter/gateway/money.py",
        "raise ModelRefused(_spent(budget, nusd, self._clock.now_us()))",
        "return held",
        MODELS,
    ),
    "a model call is not settled": (
        "src/overwinter/gateway/money.py",
        "        await self._ledger.settle(settled)\n",
        "",
        MODELS,
    ),
    "a model call is not told to the audit log": (
        "src/overwinter/adapters/models/file.py",
        "    _tell(db, call)\n    return True",
        "    return True",
        ["tests/unit/test_model_audit.py"],
    ),
    "what a child spends is not its parent's": (
        "src/overwinter/app/models.py",
        'subjects += [("agent", each) for each in chain]',
        'subjects += [("agent", each) for each in chain[-1:]]',
        ["tests/unit/test_model_agents.py", "-k", "its_parent_spends"],
    ),
    "a program is not checked": (
        "src/overwinter/app/starting.py",
        "if any(finding.is_certain for finding in findings):",
        "if False:",
        TURNS,
    ),
}  # fmt: skip


def copied(place: Path) -> Path:
    for name in ("src", "tests", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            copytree(source, place / name, ignore=ignore_patterns("__pycache__", "mutation"))
        else:
            (place / name).write_text(source.read_text())
    return place


def is_green(place: Path, tests: list[str]) -> tuple[bool, str]:
    # A mutation may hang a test where no exception reaches it: its process ends then.
    environment = {**os.environ, "PYTHONPATH": str(place / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "--timeout", "20", "--timeout-method", "thread", *tests],
        cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=240, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    assert "AttributeError" not in ran.stdout, f"the mutation broke the code instead of the rule\n{ran.stdout}"
    return ran.returncode == 0, ran.stdout


@pytest.mark.claim("T1.mutations")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", MUTATIONS)
def test_with_a_rule_removed_the_suite_goes_red(tmp_path, name):
    file, old, new, tests = MUTATIONS[name]
    place = copied(tmp_path / "copy")
    text = (place / file).read_text()
    assert text.count(old) == 1, f"{file} has {text.count(old)} places like {old!r}"
    (place / file).write_text(text.replace(old, new))
    if "store.acts" in new:  # nothing in the kernel could act so early: the mutation hands the turn the means to
        kit = place / "src/overwinter/testing.py"
        kit.write_text(kit.read_text().replace("self._store = store", "self._store, self.acts = store, points.acts"))
        tests_kit = place / "tests/kit.py"
        tests_kit.write_text(
            tests_kit.read_text().replace(
                "return lambda parts: replace(",
                "return lambda parts: setattr(points, 'acts', parts.tools.perform) or replace(",
            )
        )
    green, output = is_green(place, tests)
    assert not green, f"{name}: nobody noticed\n{output}"
