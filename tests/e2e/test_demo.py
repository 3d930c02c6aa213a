"""`overwinter demo`, as the README says to type it: the figures that must be what they are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "invoices"
pytestmark = pytest.mark.timeout(280)


def demo(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**{key: value for key, value in os.environ.items() if not key.startswith("ANTHROPIC_")}, **settings}
    command = [sys.executable, "-m", "overwinter", "demo", "--small", "--json", *words]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize("model", ["scripted", "claude-haiku-4-5"])
def test_the_demo_loses_nothing_doubles_nothing_and_stops_at_once(model: str):
    if model == "scripted":
        ran = demo("--headless")
    else:  # what would be asked of Anthropic is asked of the address that its SDKs take from the same name
        served = subprocess.Popen([sys.executable, EXAMPLES / "scripted_model.py"], stdout=subprocess.PIPE, text=True)
        try:
            assert served.stdout is not None
            url = json.loads(served.stdout.readline())["url"]
            ran = demo("--live", model, ANTHROPIC_API_KEY="sk-1", ANTHROPIC_BASE_URL=url)
        finally:
            served.kill()
            served.communicate()
    assert ran.returncode == 0, ran.stderr
    figures = json.loads(ran.stdout)
    assert (figures["model"], figures["refused"], figures["kills"]) == (model, 1, 2)
    assert figures["functions"] > 300
    assert figures["brief_characters"] < 2_500
    assert (figures["lost"], figures["double_charges"], figures["effects_after_revoke"]) == (0, 0, 0)
    assert (figures["asleep"], figures["audit_verified"]) == (402, True)


def test_a_live_model_without_a_key_is_refused_before_anything_starts():
    ran = demo("--live", "claude-haiku-4-5")
    assert ran.returncode == 2
    assert "ANTHROPIC_API_KEY" in ran.stdout + ran.stderr
