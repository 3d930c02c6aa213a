"""What sequences come to, remembered by their beginning."""

from hypothesis import given
from hypothesis import strategies as st

from overwinter.prefixes import Prefixes


def _joined(text: str, item: str) -> str:
    return f"{text}/{item}"


@given(asked=st.lists(st.lists(st.sampled_from("ab"), max_size=6).map(tuple), max_size=30))
def test_remembering_changes_no_answer(asked: list[tuple[str, ...]]) -> None:
    known = Prefixes[str, str]("", _joined, remembered_max=3)
    for items in asked:
        assert known.of(items) == "".join(f"/{item}" for item in items)


def test_a_sequence_that_has_grown_by_an_item_costs_that_item() -> None:
    taken = list[int]()

    def following(total: int, item: int) -> int:
        taken.append(item)
        return total + item

    known = Prefixes[int, int](0, following, remembered_max=2)
    for length in range(1, 301):
        assert known.of(tuple(range(length))) == sum(range(length))
        assert known.of(tuple(range(length))) == sum(range(length))
    assert taken == list(range(300))


def test_what_is_forgotten_is_made_anew() -> None:
    known = Prefixes[str, str]("", _joined, remembered_max=1)
    assert known.of(("a", "b")) == "/a/b"
    known.clear()
    assert known.of(("a", "b", "c")) == "/a/b/c"
