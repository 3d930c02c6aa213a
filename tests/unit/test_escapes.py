"""What stands behind a written escape is found as it would be behind the letter itself."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_kit import ask, chat, config_of, home_of
from overwinter.gateway.escapes import DEPTH_MAX, ESCAPES_MAX, views
from provider import Mock, Rule

pytestmark = pytest.mark.anyio

TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\n\t"\\/üß😀nu0'), max_size=40)
KEYS = {
    "aws": "AKIAZ7QFJ3XKLMN2PQ5T",
    "card": "4111 1111 1111 1111",
    "iban": "DE89370400440532013000",
    "phone": "+49 30 901820",
    "stripe": "sk_live_51Hx7fQAbCdEfGhIjKlMnOpQr",
    "word": "Zürich",
}
FORMS = {
    "in plain": lambda text: text,
    "a text of JSON": json.dumps,
    "JSON in prose": lambda text: "Result: " + json.dumps({"a": text}),
    "lines of JSON": lambda text: f"{json.dumps({'a': text})}\n{json.dumps({'b': 1})}",
    "a fence": lambda text: f"```json\n{json.dumps({'a': text})}\n```",
    "Python": repr,
    "JSON in JSON in prose": lambda text: "Result: " + json.dumps(json.dumps({"a": text})),
}


@given(TEXTS, TEXTS)
def test_a_view_is_what_the_escapes_mean_and_knows_where_each_letter_came_from(before, after):
    written = f"{before.replace(chr(92), '/')}{json.dumps(after)[1:-1]}\\nword"
    (view, *_) = views(written)
    assert view.text == f"{before.replace(chr(92), '/')}{after}\nword"
    for at in range(len(view.text) + 1):
        start = view.place(at)
        assert views(f"{written[:start]}\\nword")[0].text == f"{view.text[:at]}\nword"


@given(TEXTS, st.integers(1, DEPTH_MAX))
def test_escapes_of_escapes_are_undone_as_often_as_somebody_wrote_them(text, depth):
    meant = written = f"\nx{text}"
    for _ in range(depth):
        written = json.dumps(written)[1:-1]
    seen = views(written)
    assert seen[depth - 1].text == meant
    assert all(view.place(len(view.text)) == len(written) for view in seen)


def test_source_code_without_a_word_behind_an_escape_is_not_searched_twice():
    assert not views(r'print("a\n", "b\t", "\\")' + "\n" + r"re.compile('\d+\s*\w')")
    assert not views(r"half a one: \ud83d and \u12")


@pytest.mark.claim("M6.redact.no_leak")
@pytest.mark.parametrize("form", FORMS)
async def test_a_value_behind_an_escape_does_not_leave(project, provider: Mock, form: str):
    (project / "words.txt").write_text("Zürich\n")
    config = config_of(provider.url, redact={"otherwise": "replace"}, words="words.txt")
    async with home_of(project, config) as app:
        for name, value in KEYS.items():
            for letter in ("\n", "\t", " "):
                text = FORMS[form](f"x:{letter}{value}")
                client, line = await ask(app, chat(text))
                assert line.status == "answered"
                sent = json.loads(provider.provider.bodies[-1])["messages"][0]["content"]
                escaped = json.dumps(value)[1:-1]
                assert not {value, escaped, json.dumps(escaped)[1:-1]} & {sent, *sent.split('"')}, (name, sent)
                assert value not in sent, (name, sent)
                assert escaped not in sent, (name, sent)
                assert client.status == 200


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_a_value_behind_an_escape_of_a_tools_arguments_does_not_come_back(
    project, provider: Mock, *, is_stream: bool
):
    async with home_of(project, config_of(provider.url, redact_answers={"secret": "block", "card": "block"})) as app:
        for name in ("aws", "card", "stripe"):
            provider.script(Rule(tool="save", arguments=json.dumps({"text": f"x:\n{KEYS[name]}"})))
            tools = [{"type": "function", "function": {"name": "save"}}]
            client, line = await ask(app, chat("q", stream=is_stream, tools=tools))
            assert line.status != "answered", (name, client.body)
            assert KEYS[name].encode() not in client.body


@pytest.mark.claim("M6.redact.no_leak")
async def test_a_text_of_nothing_but_escapes_is_refused_before_it_takes_gigabytes(project, provider: Mock):
    async with home_of(project, config_of(provider.url, redact={"otherwise": "replace"})) as app:
        client, line = await ask(app, chat("\\nx" * (ESCAPES_MAX + 1)))
        assert (client.status, line.status) == (403, "confidential")
        assert "escapes" in client.json["error"]["message"]
        assert provider.calls == []


async def test_the_letter_of_an_escape_is_no_part_of_a_value(project, provider: Mock):
    async with home_of(project, config_of(provider.url, redact={"otherwise": "replace"})) as app:
        await ask(app, chat("x\\njoe@acme.com and joe@acme.com"))
        sent = json.loads(provider.provider.bodies[-1])["messages"][0]["content"]
        before, _, after = sent.partition(" and ")
        assert before == f"x\\n{after}"
