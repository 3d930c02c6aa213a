"""A witness signs what grew from what it signed before, and nothing else, whoever asks and however often."""

import socket
from collections.abc import Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread

import anyio
import pytest
import uvicorn

from overwinter.adapters.notes import Cosignature, Signer, TreeHead, base64_text, cosignatures, open_note, sign
from overwinter.adapters.witness import (
    REQUEST_BYTES_MAX,
    Witness,
    WitnessDisagrees,
    WitnessUnreachable,
    ask,
    last_seen,
    web,
)
from overwinter.errors import HomeDamaged
from overwinter.merkle import Frontier, consistency_proof, leaf_hash, node_hash

pytestmark = pytest.mark.anyio
LOG = Signer.of(b"\1" * 32, "runtime.example/audit", 1)
SIGNER = Signer.of(b"\2" * 32, "witness.example/w", 4)
TIME_S = 1_900_000_000
TRUE, OTHER = ([leaf_hash(b"%s %d" % (name, i)) for i in range(40)] for name in (b"true", b"other"))


def proof(old: int, size: int, leaves: list[bytes]) -> list[bytes]:
    def node(level: int, index: int) -> bytes:
        if level == 0:
            return leaves[index]
        return node_hash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))

    return consistency_proof(old, size, node)


def head(size: int, leaves: list[bytes] = TRUE) -> TreeHead:
    return TreeHead(origin=LOG.public.name, size=size, root=Frontier().appended(leaves[:size])[0].root())


def request(old: int, size: int, leaves: list[bytes] = TRUE, signer: Signer = LOG) -> bytes:
    lines = "".join(f"{base64_text(each)}\n" for each in (proof(old, size, leaves) if old <= size else []))
    note = sign(replace(head(size, leaves), origin=signer.public.name), signer)
    return f"old {old}\n{lines}\n{note}".encode()


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(place=tmp_path / "witness.json", signer=SIGNER, logs=[LOG.public], now_s=lambda: TIME_S)


def test_a_log_that_grows_is_signed_and_remembered(witness: Witness) -> None:
    for old, size in ((0, 3), (3, 3), (3, 17), (17, 40)):
        answer = witness.add_tree_head(request(old, size))
        assert answer.status == 200
        note = sign(head(size), LOG) + answer.text
        assert cosignatures(note, head(size), [SIGNER.public]) == [Cosignature(name="witness.example/w", time_s=TIME_S)]
        assert witness.seen(LOG.public.name) == note
    assert witness.place.stat().st_mode & 0o777 == 0o600


def test_the_empty_log_can_be_signed_and_grow(witness: Witness) -> None:
    assert [witness.add_tree_head(request(0, size)).status for size in (0, 0, 5)] == [200, 200, 200]


@pytest.mark.parametrize(
    ("sent", "status", "text"),
    [
        (request(0, 20), 409, "10\n"),
        (request(9, 20), 409, "10\n"),
        (request(11, 20), 409, "10\n"),
        (request(8, 9), 409, "10\n"),
        (request(10, 10, OTHER), 409, "10\n"),
        (request(10, 20, OTHER), 422, "does not lead"),
        (request(10, 20).replace(b"\n\n", b"\n" + base64_text(bytes(32)).encode() + b"\n\n", 1), 422, "does not lead"),
        (b"old 10\n\n" + sign(head(20), LOG).encode(), 422, "does not lead"),
        (request(10, 9), 400, "above the new one"),
        (request(10, 20, signer=Signer.of(b"\3" * 32, "other.example", 1)), 404, "no log"),
        (request(10, 20, signer=Signer.of(b"\3" * 32, LOG.public.name, 1)), 403, "no key"),
        (request(10, 20).replace(b"old 10", b"old 010"), 400, "not a request"),
        (request(10, 20).replace(b"old 10", b"old -1"), 400, "not a request"),
        (request(10, 20).replace(b"old 10\n", b"old 10\nno base 64\n"), 400, "not a request"),
        (b"old 10\n" + b"A" * 43 + b"=\n" + b"", 400, "not a request"),
        (
            b"old 10\n" + (base64_text(bytes(32)).encode() + b"\n") * 64 + b"\n" + sign(head(20), LOG).encode(),
            400,
            "63",
        ),
        (b"", 400, "not a request"),
        (b"\xff", 400, "utf-8"),
    ],
)
def test_anything_else_is_refused_as_c2sp_has_it_and_changes_nothing(witness: Witness, sent, status, text) -> None:
    assert witness.add_tree_head(request(0, 10)).status == 200
    before = witness.place.read_bytes()
    answer = witness.add_tree_head(sent)
    assert (answer.status, text in answer.text) == (status, True), answer
    assert answer.media_type == ("text/x.tlog.size" if status == 409 else "text/plain")
    assert witness.place.read_bytes() == before


def test_a_log_may_change_its_key(witness: Witness) -> None:
    new = Signer.of(b"\4" * 32, LOG.public.name, 1)
    both = replace(witness, logs=[LOG.public, new.public])
    assert both.add_tree_head(request(0, 10)).status == 200
    assert both.add_tree_head(request(10, 20, signer=new)).status == 200


def test_of_two_histories_asked_for_at_once_one_is_signed(witness: Witness) -> None:
    assert witness.add_tree_head(request(0, 1)).status == 200
    forks = [[TRUE[0], *(leaf_hash(b"%d %d" % (n, i)) for i in range(20))] for n in range(8)]
    barrier, statuses = Barrier(len(forks)), list[int]()

    def one(leaves: list[bytes]) -> None:
        sent = request(1, 15, leaves)
        barrier.wait()
        statuses.append(replace(witness).add_tree_head(sent).status)  # another holder of the same file

    threads = [Thread(target=one, args=(leaves,)) for leaves in forks]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(statuses) == [200] + [409] * 7


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"a": 1}', b'{"a": "x"}', b'{"a": "x\\ny\\nz\\n"}'])
def test_a_witness_with_a_damaged_memory_signs_nothing(witness: Witness, raw: bytes) -> None:
    witness.place.write_bytes(raw)
    with pytest.raises(HomeDamaged, match="new key"):
        witness.add_tree_head(request(0, 10))


class Quiet(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@asynccontextmanager
async def served(application):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = Quiet(uvicorn.Config(application, log_level="critical", lifespan="off"))
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, [listening])
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            server.should_exit = True


async def asked(url: str, size: int, leaves: list[bytes] = TRUE) -> str:
    note = sign(head(size, leaves), LOG)
    return await ask(url, SIGNER.public, note, head(size, leaves), lambda old: proof(old, size, leaves))


async def test_over_http_a_log_gets_its_cosignatures_and_learns_what_was_seen(witness: Witness) -> None:
    async with served(web(witness)) as url:
        assert await last_seen(url, LOG.public.name) is None
        for size in (0, 7, 7, 33):
            line = await asked(url + "/", size)
            assert cosignatures(sign(head(size), LOG) + line, head(size), [SIGNER.public])
        seen = await last_seen(url, LOG.public.name)
        assert seen is not None
        assert open_note(seen, LOG.public) == head(33)


async def test_over_http_a_log_that_was_cut_or_rewritten_is_told_so(witness: Witness) -> None:
    async with served(web(witness)) as url:
        await asked(url, 33)
        with pytest.raises(WitnessDisagrees, match=r"has signed 33 entries .* this log has 20: its end was cut off"):
            await asked(url, 20)
        with pytest.raises(WitnessDisagrees, match="a fork"):
            await asked(url, 33, OTHER)
        with pytest.raises(WitnessDisagrees, match="does not continue"):
            await asked(url, 40, OTHER)


async def test_a_witness_that_does_not_answer_well_is_named(witness: Witness) -> None:
    with pytest.raises(WitnessUnreachable, match="no witness answers"):
        await asked("http://127.0.0.1:1", 1)
    stranger = replace(witness, signer=Signer.of(b"\5" * 32, "other.example", 4))
    async with served(web(stranger)) as url:
        with pytest.raises(WitnessUnreachable, match="without a cosignature"):
            await asked(url, 5)
    unknowing = replace(witness, logs=[])
    async with served(web(unknowing)) as url:
        with pytest.raises(WitnessUnreachable, match="404"):
            await asked(url, 5)
        with pytest.raises(WitnessUnreachable, match="413"):
            await ask(url, SIGNER.public, "x" * REQUEST_BYTES_MAX, head(1), lambda _: [])
