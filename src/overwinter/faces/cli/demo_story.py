"""What the demo tells around its invoices: a model that writes the program, and the end of it all by one command."""

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
WRITTEN_S_MAX = 30.0
AFTER_S = 1.0
"""How long the ledger is watched after the revocation."""

Say = Callable[[str], None]


def declare(project: Path, url: str) -> None:
    """Add the scripted model to the project's configuration, at the price that the model it stands for has."""
    config = project / "overwinter.toml"
    text = config.read_text(encoding="utf-8").replace("[agents.default]\n", f'[agents.default]\nmodels = ["{MODEL}"]\n')
    config.write_text(
        f'{text}\n[providers.scripted]\nurl = "{url}"\ndialects = ["messages"]\nprices = "anthropic"\n\n'
        f'[models."{MODEL}"]\nprovider = "scripted"\n\n[gateway]\nmodel = "{MODEL}"\n',
        encoding="utf-8",
    )


def written(project: Path, invoice: int, say: Say) -> None:
    """Have the model work at an invoice until its program sleeps."""
    client = Client(served_socket(project / ".overwinter"))
    goal = f"Collect invoice {invoice}: sleep until it is due, ask owner@example.com above 3,800 EUR, try a declined card again."
    run = client.post("runs", goal=goal, usd=0.50)["id"]
    deadline = time.monotonic() + WRITTEN_S_MAX
    while not (child := _child(client, run)) or child["turns"] == 0:
        if time.monotonic() > deadline:
            raise OverwinterError(f"the model did not come to a program that runs: {client.get('runs', run)['reason']}")
        time.sleep(0.05)
    replies = [
        event["body"]["value"]
        for event in client.get("runs", run, "events")["events"]
        if event["kind"] == "answered" and "prompt" in (event["body"].get("value") or {})
    ]
    refusal = replies[-1]["prompt"].split("\n")
    say(f"model: a scripted recording at the price of {MODEL}; it is asked through the gateway, within 0.50 USD")
    say(f"it wrote a program, and nothing of it ran: {refusal[1][:110]}")
    say(f"it mended that; its program is run {child['id'][-4:]} and sleeps until invoice {invoice} is due")


def _child(client: Client, run: str) -> dict[str, Any] | None:
    found = client.get("runs", limit=20)["runs"]
    return next((each for each in found if each["parent"] == run), None)


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
        f"the model's {calls} calls would have cost {cost_nusd / 1e9:.4f} USD; {sum(each['saved_nusd'] for each in usage) / 1e9:.4f} were saved by kept answers"
    )
    return {
        "revoked": told["runs"],
        "revoke_ms": round(took_ms, 1),
        "effects_after_revoke": after,
        "audit_verified": is_verified,
        "model": "scripted",
        "cost_usd": round(cost_nusd / 1e9, 6),
    }
