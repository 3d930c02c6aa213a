"""A project in a directory, and the command in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shells import Shell


@pytest.fixture
def shell(project: Path) -> Iterator[Shell]:
    name = (project / "module").read_text()
    (project / "overwinter.toml").write_text(
        f'[agents.default]\nowner = "owner@example.com"\ntools = ["shop.*"]\n[services.shop]\npython = "{name}"\n'
    )
    shell = Shell(project)
    yield shell
    shell.close()
