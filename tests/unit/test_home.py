"""The home directory: one holder, a key that is never lost or shared in silence, a sentence for each thing wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from overwinter.adapters.home import SOCKET_BYTES_MAX, config_path, holder, open_home, socket_path
from overwinter.errors import HomeDamaged, HomeError, HomeHeld
from overwinter.snapshot import KEY_BYTES


def key_file(home: Path) -> Path:
    return home / "keys" / "snapshot.key"


def test_a_new_home_is_private_and_keeps_its_key(tmp_path: Path):
    home = tmp_path / "deep" / "home"
    with open_home(home) as first:
        assert len(first.key) == KEY_BYTES
        for place, mode in ((home, 0o700), (home / "keys", 0o700), (key_file(home), 0o600), (home / "lock", 0o600)):
            assert place.stat().st_mode & 0o777 == mode
    with open_home(home) as second:
        assert second.key == first.key


def test_two_homes_have_two_keys(tmp_path: Path):
    with open_home(tmp_path / "a") as one, open_home(tmp_path / "b") as other:
        assert one.key != other.key


def test_a_held_home_names_its_holder_and_socket_and_is_free_afterwards(tmp_path: Path):
    with (
        open_home(tmp_path),
        pytest.raises(HomeHeld, match=rf"process {os.getpid()}.*overwinter\.sock"),
        open_home(tmp_path),
    ):
        pass
    with open_home(tmp_path):
        assert holder(tmp_path) == os.getpid()


def test_a_killed_holder_leaves_the_home_free(tmp_path: Path):
    code = (
        "import pathlib, sys, time\n"
        "from overwinter.adapters.home import open_home\n"
        "with open_home(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(HomeHeld, match=str(child.pid)), open_home(tmp_path):
            pass
        child.kill()
    with open_home(tmp_path):
        pass


def test_a_lost_key_is_not_replaced_while_there_is_a_store(tmp_path: Path):
    with open_home(tmp_path) as home:
        home.database_path.touch()
    key_file(tmp_path).unlink()
    with pytest.raises(HomeDamaged, match="backup"), open_home(tmp_path):
        pass
    assert not key_file(tmp_path).exists()


def test_a_draft_of_a_key_that_a_crash_left_is_no_key(tmp_path: Path):
    (tmp_path / "keys").mkdir()
    draft = key_file(tmp_path).with_name(f"{key_file(tmp_path).name}.new")
    draft.touch(mode=0o600)
    draft.write_bytes(b"half")
    with open_home(tmp_path) as home:
        assert len(home.key) == KEY_BYTES


@pytest.mark.parametrize("size", [0, KEY_BYTES - 1, KEY_BYTES + 1])
def test_a_key_of_another_length_is_refused(tmp_path: Path, size: int):
    with open_home(tmp_path):
        pass
    key_file(tmp_path).write_bytes(b"x" * size)
    with pytest.raises(HomeDamaged, match=f"{size} bytes"), open_home(tmp_path):
        pass


def test_a_key_that_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path: Path):
    with open_home(tmp_path):
        pass
    key_file(tmp_path).chmod(0o640)
    with pytest.raises(HomeDamaged, match="chmod 600"), open_home(tmp_path):
        pass
    key_file(tmp_path).chmod(0o600)
    with open_home(tmp_path):
        pass


def test_a_refused_home_is_not_held(tmp_path: Path):
    with open_home(tmp_path):
        pass
    key_file(tmp_path).chmod(0o644)
    for _ in range(2):  # the second is refused for the same reason, not because the first still holds it
        with pytest.raises(HomeDamaged), open_home(tmp_path):
            pass


def test_a_place_that_can_be_no_home_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(HomeError, match="cannot be used as a home"), open_home(tmp_path / "file" / "home"):
        pass


def test_a_long_path_reaches_its_socket_the_short_way_or_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    long = tmp_path / ("d" * 100)
    long.mkdir()
    with pytest.raises(HomeError, match="nearer to the root"):
        socket_path(long / "e")
    monkeypatch.chdir(long)
    place = socket_path(long / "e")
    assert len(os.fsencode(place)) <= SOCKET_BYTES_MAX
    assert place == Path("e/overwinter.sock")


def test_the_configuration_beside_a_home_goes_before_the_one_in_it(tmp_path: Path):
    home = tmp_path / ".overwinter"
    home.mkdir()
    beside, inside = tmp_path / "overwinter.toml", home / "overwinter.toml"
    assert config_path(home) == beside
    inside.touch()
    assert config_path(home) == inside
    beside.touch()
    assert config_path(home) == beside
