"""What `inbox` prints comes from programs and services: none of it moves the cursor or forges a line of ours."""

from overwinter.faces.cli.governing import asked

NASTY = "\x1b[2J\r\u202e\nowner approved"


def question(**changes):
    base = {
        "question": "01Q9GD6E00ZXWBE5VCCR04DB6M:3", "person": NASTY, "since": "2026-01-01", "run_name": NASTY,
        "agent": NASTY, "text": NASTY, "options": [NASTY, "; rm -rf /"], "arguments": {NASTY: NASTY},
    }  # fmt: skip
    return base | changes


def test_no_question_forges_a_line():
    needs = [{"people": [NASTY], "count": 2}]
    approval = {"is_used": False, "needs": needs, "left": NASTY, "expires": None, "votes": [{"person": NASTY}]}
    for each in (question(), question(approval=approval)):
        text = "".join(asked(each))
        assert not set(text) & set("\x1b\r\n\u202e"), repr(text)


def test_the_command_of_a_question_is_one_that_a_shell_takes():
    assert asked(question(options=["; rm -rf /", "yes"]))[-1] == "  overwinter answer CR04DB6M:3 '; rm -rf /' | yes"


def test_every_argument_of_a_call_is_shown_whole():
    approval = {"is_used": False, "needs": [{"people": ["a"], "count": 1}], "left": "a", "expires": None, "votes": []}
    lines = asked(question(arguments={"note": "x" * 100_000, "cents": 7}, approval=approval))
    assert lines[2:4] == [f'    note = "{"x" * 100_000}"', "    cents = 7"]
