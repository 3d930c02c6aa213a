"""Values are followed however many questions there are, and no program takes the one checker for long."""

import ast

from overwinter.adapters.monty_checker.origins import Origins

QUESTIONS = 14_000


def followed(text: str) -> tuple[Origins, list[ast.expr]]:
    """Return the origins of a text, and the expressions of its last line."""
    tree = ast.parse(text)
    last = tree.body[-1]
    assert isinstance(last, ast.Expr)
    assert isinstance(last.value, ast.Tuple)
    return Origins(tree, {"svc"}, 1, lambda _: False), last.value.elts


def test_questions_have_a_budget_of_their_own():
    lists = ", ".join(["[]"] * 300)
    rows = "".join(f"y{number} = xs[0]\n" for number in range(1_000))
    origins, (row, item) = followed(f"xs = [{lists}]\nr = svc.row()\n{rows}r['k'], xs[0]\n")
    for _ in range(QUESTIONS):
        assert not origins.is_promised(item)
    assert origins.is_promised(row)


def test_a_program_in_which_everything_flows_into_everything_is_given_up_and_believed_in_nothing():
    rows = "".join(f"a += [[a]]\nx{number} = a[0][0]\n" for number in range(2_000))
    origins, (row,) = followed(f"a = []\nr = svc.row()\n{rows}r['k'],\n")
    assert not origins.is_promised(row)
    assert origins.is_replaced(row)
