"""What docs/models.md and the template of `init` say can be used as it stands."""

import re
from pathlib import Path

import pytest

from overwinter.config import load
from overwinter.faces.models import OURS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
TEMPLATE = ROOT / "src/overwinter/faces/cli/templates/overwinter.toml.txt"


def test_the_first_configuration_of_the_page_is_one(tmp_path):
    block = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]
    place = tmp_path / "overwinter.toml"
    place.write_text(block)
    config = load(place)
    assert set(config.providers) == {"anthropic", "openai"}
    assert config.budgets["each-day"].usd == 5.0


def test_the_template_is_a_configuration_also_with_its_models_taken_in(tmp_path):
    text, place = TEMPLATE.read_text(encoding="utf-8"), tmp_path / "overwinter.toml"
    place.write_text(text)
    assert load(place).providers == {}
    place.write_text(re.sub(r"^# (?=\[|[a-z]+ = )", "", text, flags=re.MULTILINE))
    config = load(place)
    assert config.agents["default"].models == ("claude-*",)
    assert set(config.providers) == {"anthropic"}
    assert config.budgets["each-day"].usd == 5.0


@pytest.mark.parametrize("name", ["agent", "cache", "data", "log", "on-disconnect"])
def test_the_headers_of_the_page_are_those_that_the_door_reads(name):
    door = (ROOT / "src/overwinter/faces/models.py").read_text(encoding="utf-8")
    assert f"`{OURS}{name}:" in PAGE
    assert f"{{OURS}}{name}" in door
