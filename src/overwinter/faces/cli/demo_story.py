"""What the demo tells around its invoices: a model that writes the program, and the end of it all by one command."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Any

from overwinter.errors import OverwinterError
from overwinter.faces.cli.door import served_socket
from overwinter.faces.client import Client

__all__ = ["declare", "revoked", "written"]

MODEL = "claude-sonnet-5"
"""Whose price the recording is charged at."""
WRITTEN_S_MAX = 30.0
WRITTEN_LIVE_S_MAX = 300.0
USD = 0.50
AFTER_S = 1.0
"""How long the ledger is watched after the revocation."""

Say = Callable[[str], None]


def declare(project: Path, *, erp: str, scripted: str, live: str | None) -> None:
    """Add the ERP and the model to the project's configuration.

    Args:
        project: its directory.
        erp: address of the ERP, which describes itself.
        scripted: address of the recording.
        live: a model of Anthropic to ask instead, with the key in `ANTHROPIC_API_KEY`.
    """
    model = live or MODEL
    url = os.environ.get("ANTHROPIC_BASE_URL", "https://api.anthropic.com") if live else scripted
    auth = 'auth = "env:ANTHROPIC_API_KEY"\n' if live else ""
    config = project / "overwinter.toml"
    text = config.read_text(encoding="utf-8").replace("[agents.default]\n", f'[agents.default]\nmodels = ["{model}"]\n')
    text = text.replace('tools = ["', 'tools = ["erp.*", "')
    config.write_text(
        f'{text}\n[services.erp]\nopenapi = "{erp}/openapi.json"\nbase_url = "{erp}"\n\n'
        f'[providers.asked]\nurl = "{url}"\n{auth}dialects = ["messages"]\nprices = "anthropic"\n\n'
        f'[models."{model}"]\nprovider = "asked"\n\n[gateway]\nmodel = "{model}"\n',
        encoding="utf-8",
    )


def written(project: Path, invoice: int, say: Say, live: str | None) -> dict[str, Any]:
    """Have the model work at an invoice until its program sleeps; return the figures.

    Raises:
        OverwinterError: the recording did not come to a program that sleeps. Of a live model it is told, and no error.
    """
    client = Client(served_socket(project / ".overwinter"))
    brief = client.get("tools", "brief")["text"]
    (functions,) = re.findall(r"\(imported; ([\d,]+) functions", brief)
    say(f"{functions} typed functions in scope; a model is told {len(brief):,} characters, and none of them")
    goal = (
        f"Collect invoice {invoice}: note in the CRM that collection has begun, sleep until it is due, ask owner@example.com above "
        "3,800 EUR, try a declined card again."
    )
    run = client.post("runs", goal=goal, usd=USD)["id"]
    deadline = time.monotonic() + (WRITTEN_LIVE_S_MAX if live else WRITTEN_S_MAX)
    while (sleeper := _sleeper(client, run)) is None:
        state = client.get("runs", run)
        if state["status"] != "live" or time.monotonic() > deadline:
            if live is None:
                raise OverwinterError(f"the model did not come to a program that sleeps: {state['reason']}")
            break
        time.sleep(0.05)
    prompts = [
        event["body"]["value"]["prompt"]
        for event in client.get("runs", run, "events")["events"]
        if event["kind"] == "answered" and "prompt" in (event["body"].get("value") or {})
    ]
    refusals = [prompt.split("\n")[1] for prompt in prompts if "the program was refused" in prompt]
    who = live or f"a scripted recording at the price of {MODEL}"
    say(f"model: {who}; it is asked through the gateway, within {USD:.2f} USD, {len(prompts)} times up to here")
    for each in refusals:
        say(f"it wrote a program that was refused, and nothing of it ran: {each[:110]}")
    if sleeper is None:
        say(f"the model has not come to a program that sleeps; its goal: {client.get('runs', run)['reason']}")
    else:
        say(f"its program is run {sleeper['id'][-4:]} and sleeps until invoice {invoice} is due")
    return {
        "model": live or "scripted",
        "functions": int(functions.replace(",", "")),
        "brief_characters": len(brief),
        "replies": len(prompts),
        "refused": len(refusals),
    }


def _sleeper(client: Client, run: str) -> dict[str, Any] | None:
    """Return the program of a goal that has slept in: alive, with no call under way but a timer."""
    found = client.get("runs", limit=20)["runs"]
    children = [each for each in found if each["parent"] == run and each["status"] == "live" and each["turns"]]
    return next((each for each in children if each["due"] is not None), None)


def revoked(project: Path, movements: Callable[[Path], Sized], say: Say) -> dict[str, Any]:
    """Revoke the agent, watch the ledger, verify the log; return the figures."""
    client = Client(served_socket(project / ".overwinter"))
    usage = client.get("gateway", "usage")["usage"]
    told = client.post("revoke", subject="default", by="owner@example.com", reason="the demo is over")
    before = len(movements(project))
    time.sleep(AFTER_S)
    after = len(movements(project)) - before
    took_ms = told["stopped_ms"]
    say(
        f"overwinter revoke default: {told['runs']:,} runs stopped in {took_ms:.0f} ms; {after} charges in the second after it"
    )
    words = [sys.executable, "-m", "overwinter", "audit", "verify", "--json"]
    verified = subprocess.run(words, cwd=project, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    is_verified = verified.returncode == 0
    say(f"overwinter audit verify: {'the log is whole' if is_verified else verified.stderr.strip()}")
    calls, cost_nusd = (sum(each[key] for each in usage) for key in ("calls", "cost_nusd"))
    say(
        f"the model's {calls} calls cost {cost_nusd / 1e9:.4f} USD; {sum(each['saved_nusd'] for each in usage) / 1e9:.4f} were saved by kept answers"
    )
    return {
        "revoked": told["runs"],
        "revoke_ms": round(took_ms, 1),
        "effects_after_revoke": after,
        "audit_verified": is_verified,
        "cost_usd": round(cost_nusd / 1e9, 6),
    }
