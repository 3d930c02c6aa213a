"""`overwinter models` as a person types it, beside a provider that answers."""

import json
import subprocess
from functools import partial

import anyio.to_thread

from provider import Mock
from shells import Shell

CONFIG = """
[agents.default]
owner = "owner@example.com"
models = ["*"]
[providers.mock]
url = "{url}"
dialects = ["chat"]
prices = "anthropic"
auth = "env:KEY_OF_MOCK"
[models.cheap]
provider = "mock"
model = "claude-sonnet-5"
[models.new]
provider = "mock"
model = "nobody-priced-it-yet"
"""
BUDGET = '[budgets.day]\nof = "tenant"\nusd = 1.0\n'


async def test_a_model_that_cannot_be_called_is_not_ready_and_the_list_says_why(shell: Shell, provider: Mock):
    async def command(*words: str) -> subprocess.CompletedProcess[str]:
        return await anyio.to_thread.run_sync(partial(shell, "models", *words))

    place = shell.place / "overwinter.toml"
    place.write_text(CONFIG.format(url=provider.url))
    listed = (await command("list")).stdout
    assert listed.count("not ready") == 2, listed
    assert "cheap, new: providers.mock.auth" in listed, listed
    assert (await command("test", "cheap")).returncode == 1

    shell.environment["KEY_OF_MOCK"] = "k"
    assert "not ready" not in (await command("list")).stdout
    place.write_text(CONFIG.format(url=provider.url) + BUDGET)
    said = json.loads((await command("list", "--json")).stdout)["models"]
    assert [(each["name"], bool(each["fault"])) for each in said] == [("cheap", False), ("new", True)], said
    assert "prices.toml" in said[1]["fault"]
    assert (await command("test", "cheap")).returncode == 0
    nobody = await command("test", "cheap", "--agent", "nobody")
    assert (nobody.returncode, "there is no agent 'nobody'" in nobody.stderr) == (4, True), nobody.stderr
    place.write_text(
        CONFIG.format(url=provider.url)
        .replace("[models.new]", '[models."new-*"]')
        .replace('model = "nobody', '# model = "nobody')
    )
    many = await command("test", "new-*")
    assert (many.returncode, "'new-*' is a pattern" in many.stdout) == (1, True), many.stdout
    used = json.loads((await command("usage", "--json")).stdout)
    assert used, used
