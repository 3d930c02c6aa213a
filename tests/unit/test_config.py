"""overwinter.toml: what a correct one means, and that each mistake is named with its place and its remedy."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter.config import Agent, Audit, Config, Retention, Service, load
from overwinter.errors import ConfigInvalid


def loaded(tmp_path, text, encoding="utf-8"):
    place = tmp_path / "overwinter.toml"
    place.write_bytes(text.encode(encoding))
    return load(place)


def test_without_a_file_one_agent_may_read_and_asks_its_owner_for_all_else(tmp_path):
    assert load(tmp_path / "overwinter.toml").agents == {"default": Agent(reads=("*",), asks=("*",), models=("*",))}


def test_an_empty_file_means_the_same_as_none(tmp_path):
    assert loaded(tmp_path, "") == Config()


def test_every_table_is_read(tmp_path):
    config = loaded(tmp_path, """
[limits]
turn_cpu_s = 1
memory_mb = 32
[worker]
threads = 4
[jail]
allow_missing = ["landlock"]
[retention]
ended_days = 0.5
audit_body_days = 7
[audit]
witness = "https://w.example"
witness_key = "w.example+0123abcd+BAAA"
[agents.billing-bot]
owner = "ada@example.com"
tools = ["billing.*", "crm*", "*"]
purpose = "invoices"
[services.billing]
python = "shop.billing"
""")  # fmt: skip
    assert (config.limits.turn_cpu_s, config.limits.memory_mb, config.worker.threads) == (1.0, 32, 4)
    assert config.jail.allow_missing == ("landlock",)
    assert config.retention == Retention(ended_days=0.5, audit_body_days=7.0)
    assert config.audit == Audit(witness="https://w.example", witness_key="w.example+0123abcd+BAAA")
    assert config.agents == {
        "billing-bot": Agent(owner="ada@example.com", tools=("billing.*", "crm*", "*"), purpose="invoices")
    }
    assert config.services == {"billing": Service(python="shop.billing")}


def test_each_kind_of_service_is_read(tmp_path):
    config = loaded(tmp_path, """
[services.api]
openapi = "api.yaml"
base_url = "http://10.0.0.7"
auth = "env:KEY"
timeout_s = 5
headers = { X-Tenant = "t" }
effects = { search = "read" }
[services.git]
mcp = "mcp-server-git --verbose"
env = { TOKEN = "env:TOKEN" }
""")  # fmt: skip
    assert config.services == {
        "api": Service(
            openapi="api.yaml", base_url="http://10.0.0.7", auth="env:KEY", timeout_s=5.0, headers={"X-Tenant": "t"},
            effects={"search": "read"},
        ),
        "git": Service(mcp="mcp-server-git --verbose", env={"TOKEN": "env:TOKEN"}),
    }  # fmt: skip


def test_a_date_is_one_with_and_without_quotes(tmp_path):
    texts = ['"2027-01-31"', "2027-01-31", "2027-01-31T00:00:00Z"]
    instants = {
        loaded(tmp_path, f"[agents.my-agent]\nowner = 'o'\nexpires = {each}").agents["my-agent"].expires_us
        for each in texts
    }
    assert len(instants) == 1


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    assert loaded(tmp_path, "[worker]\nthreads = 3\n", "utf-8-sig").worker.threads == 3


MODELS = "[providers.o]\nurl = 'https://x'\ndialects = ['chat']\n[models.'gpt-*']\nprovider = 'o'\n[gateway]\n"


def test_the_model_that_is_asked_unless_another_is_named_may_be_one_of_a_pattern(tmp_path):
    assert loaded(tmp_path, MODELS + "model = 'gpt-6'").gateway.model == "gpt-6"


WRONG = {
    "toml": ("[worker]\nthreads = = 3", "line 2"),
    "twice": ("[worker]\nthreads = 3\nthreads = 4\n", "line 3"),
    "witness": ('[audit]\nwitness = "w.example"', "line 2: audit.witness begins with http"),
    "witness key": ('[audit]\nwitness = "https://w.example"', "audit.witness_key is the key that the witness prints"),
    "unknown table": ("[limit]\n", "line 1: limit is unknown; did you mean 'limits'?"),
    "unknown key": ("\n[worker]\nthread = 3", "line 3: worker.thread is unknown; did you mean 'threads'?"),
    "nothing near": ("[worker]\nzzz = 3", "known: interpreters, threads, calls_in_flight"),
    "dotted key": ("worker.thread = 3", "line 1: worker.thread is unknown"),
    "inline table": ("agents.default = { tool = [] }", "line 1: agents.default.tool is unknown; did you mean 'tools'?"),
    "quoted key": ('[agents."default"]\nowner = 3', "line 2: agents.default.owner is a text in quotes, not 3"),
    "array of tables": ("\n[[agents]]\n", "line 2: agents is a table of tables: [agents.NAME]"),
    "text for number": ("[worker]\nthreads = 'many'", "line 2: worker.threads is a whole number, not 'many'"),
    "truth for number": ("[worker]\nthreads = true", "worker.threads is a whole number, not True"),
    "number for truth": ("[jail]\noff = 1", "jail.off is true or false, not 1"),
    "list of numbers": ("[agents.a]\ntools = [1]", "agents.a.tools is a list of texts"),
    "nought": ("[worker]\nthreads = 0", "worker.threads is above 0 and at most 4,096, not 0"),
    "negative": ("[limits]\nturn_cpu_s = -1.0", "is above 0"),
    "infinite": ("[limits]\nturn_cpu_s = inf", "at most 86,400, not inf"),
    "no number": ("[limits]\nturn_cpu_s = nan", "at most 86,400, not nan"),
    "wrong unit": ("[limits]\nmemory_mb = 67108864", "at most 65,536"),
    "no agents": ("[agents]", "needs at least one agent"),
    "agent no table": ("[agents]\na = 3", "line 2: agents.a is a table: [agents.a]"),
    "agent name": ("[agents.'a b']", "is no name"),
    "service name": ("[services.1a]\npython = 'a'", "is no name"),
    "service keyword": ("[services.class]\npython = 'a'", "is taken by Python or by overwinter"),
    "service of Python": ("[services.json]\npython = 'a'", "is taken by Python or by overwinter"),
    "service tools": ("[services.tools]\npython = 'a'", "is taken by Python or by overwinter"),
    "service without module": ("[services.crm]", "needs one source"),
    "two sources": ("[services.crm]\npython = 'a'\nopenapi = 'b'", "needs one source"),
    "secret": ("[services.crm]\nopenapi = 'a'\nauth = 'hunter2'", "the secret itself stays out of here"),
    "secret in env": ("[services.crm]\nmcp = 'a'\nenv = { A_TOKEN = 'hunter2' }", "itself it stays out of here"),
    "secret in headers": ("[services.crm]\nmcp = 'https://x'\nheaders = { Authorization = 'Bearer x' }", "itself it stays out of here"),
    "address": ("[services.crm]\nopenapi = 'a'\nbase_url = 'ftp://x'", "begins with http:// or https://"),
    "effect": ("[services.crm]\nopenapi = 'a'\neffects = { f = 'reads' }", "knows read, idempotent and write, not 'reads' for f"),
    "table": ("[services.crm]\nopenapi = 'a'\nheaders = 'x'", "is a table of texts"),
    "service with file": ("[services.crm]\npython = 'shop/crm.py'", "is a module's name such as 'shop.billing'"),
    "asked without function": ("[agents.a]\nasks = ['billing']", "line 2: agents.a.asks has 'billing', which names no function"),
    "tool without function": ("[agents.a]\ntools = ['billing']", "line 2: agents.a.tools has 'billing', which names no function: write 'billing.*'"),
    "model by pattern": (MODELS + "model = 'gpt-*'", "gateway.model is a pattern: 'gpt-*' stands for many"),
    "model that fits none": (MODELS + "model = 'claude-5'", "gateway.model names no model of this file: 'claude-5'"),
    "layer": ("[jail]\nallow_missing = ['walls']", "knows no layer 'walls'; there are namespaces, landlock, seccomp"),
    "open network": ("[jail]\nallow_missing = ['namespaces', 'seccomp']", "the network would be open"),
}  # fmt: skip


@pytest.mark.claim("U3.errors")
@pytest.mark.parametrize("name", WRONG)
def test_each_mistake_is_named_with_its_place_and_its_remedy(tmp_path, name):
    text, words = WRONG[name]
    with pytest.raises(ConfigInvalid) as caught:
        loaded(tmp_path, text)
    assert words in str(caught.value)
    assert str(tmp_path / "overwinter.toml") in str(caught.value)


@pytest.mark.claim("U3.errors")
def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        load(tmp_path)
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        loaded(tmp_path, "x = 'é'", "latin-1")


KEYS = st.sampled_from(
    ["limits", "worker", "agents", "services", "jail", "default", "tools", "threads", "off", "a b", ""]
)
VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text('aé[.\n"', max_size=5)),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


def toml(value):
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{toml(key)} = {toml(each)}" for key, each in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case str():
            return '"' + "".join(letter if letter.isalnum() else f"\\U{ord(letter):08x}" for letter in value) + '"'
        case _:
            return repr(value)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_whatever_is_valid_toml_is_a_configuration_or_a_named_mistake(tmp_path_factory, document):
    text = "\n".join(f"{toml(key)} = {toml(value)}" for key, value in document.items())
    tomllib.loads(text)
    place = tmp_path_factory.getbasetemp() / "overwinter.toml"
    place.write_text(text, encoding="utf-8")
    try:
        load(place)
    except ConfigInvalid as error:
        mistake = str(error)
    else:
        mistake = str(place)
    assert str(place) in mistake


@pytest.mark.parametrize(
    ("of", "is_taken"),
    [("team:ops", True), ("team:o*", True), ("agent:*", True), ("team:x*", False), ("agent:defalt", False)],
)
def test_a_budget_of_somebody_in_the_file_is_taken_by_name_or_pattern_and_one_of_nobody_is_not(tmp_path, of, is_taken):
    place = tmp_path / "overwinter.toml"
    place.write_text(f'[agents.default]\nteam = "ops"\n[budgets.some]\nof = "{of}"\nusd = 1.0\n')
    if is_taken:
        assert load(place).budgets["some"].of == of
    else:
        with pytest.raises(ConfigInvalid, match="of this file"):
            load(place)
