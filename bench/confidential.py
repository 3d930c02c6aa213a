"""Made-up confidential values in the sentences, settings and logs that they are met in: what redaction is measured with.

Nothing here is shared with the detectors: the check digits are computed here from their definitions, the formats of secrets are
those that their owners document. All is made of a seed, so that a figure can be made again.
"""

import base64
import json
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

ALNUM = string.ascii_letters + string.digits
LOWER = string.ascii_lowercase + string.digits
UPPER = string.ascii_uppercase + string.digits
HEX = "0123456789abcdef"
B64 = ALNUM + "+/"
URL = ALNUM + "-_"


@dataclass(frozen=True, slots=True)
class Sample:
    """A text with one value in it."""

    kind: str
    """The class that it should be found as."""
    form: str
    value: str
    text: str


def samples(seed: int, each: int) -> Iterator[Sample]:
    """Yield `each` texts of every form."""
    chance = random.Random(seed)
    for kinds, forms, around in (
        (dict.fromkeys(_TOKENS, "secret"), _TOKENS, AROUND_TOKEN),
        (dict.fromkeys(_ASSIGNED, "secret"), _ASSIGNED, AROUND_ASSIGNED),
        ({form: kind for kind, of_kind in _PERSONAL.items() for form in of_kind}, _all(_PERSONAL), AROUND_PERSONAL),
    ):
        for form, make in forms.items():
            for _ in range(each):
                made = make(chance)
                value, contexts = made if isinstance(made, tuple) else (made, around)
                yield Sample(kinds[form], form, value, chance.choice(contexts).replace("@@", value))


def _all(by_kind: "dict[str, dict[str, Make]]") -> "dict[str, Make]":
    return {form: make for forms in by_kind.values() for form, make in forms.items()}


Make = Callable[[random.Random], "str | tuple[str, tuple[str, ...]]"]
"""Makes a value, or one with the texts that it stands in."""
AROUND_TOKEN = (
    "@@",
    "The key is @@.",
    "Please use @@, it is valid until Friday",
    'curl -H "X-Api: @@" https://api.example.test/v1',
    '{"value": "@@", "n": 1}',
    "export THING=@@\n",
    "thing: '@@'\nother: 2\n",
    "I pasted `@@` in the console (twice)",
    "2026-11-25T10:01:02Z WARN refused @@ from client 17",
    "see (@@) for that",
    "a=@@;b=2",
    "<token>@@</token>",
)
AROUND_ASSIGNED = (
    'password = "@@"',
    "DB_PASSWORD=@@\n",
    '{"api_key": "@@", "n": 2}',
    "client_secret: @@\n",
    "  auth_token => '@@',",
    'const accessToken = "@@";',
    "SECRET_KEY='@@'",
)
AROUND_PERSONAL = (
    "@@",
    "It is @@.",
    "Customer gave @@, please check",
    '{"value": "@@"}',
    "name;value\nDoe;@@\n",
    "- @@ (confirmed)",
    "<td>@@</td>",
    "call 12: @@ / ok",
)


def _pick(chance: random.Random, letters: str, size: int) -> str:
    return "".join(chance.choices(letters, k=size))


def _token(begin: str, letters: str, size: int, end: str = "") -> Callable[[random.Random], str]:
    return lambda chance: begin + _pick(chance, letters, size) + end


def _b64(chance: random.Random, value: object) -> str:
    del chance
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _jwt(chance: random.Random) -> str:
    head = _b64(chance, {"alg": "HS256", "typ": "JWT"})
    return f"{head}.{_b64(chance, {'sub': str(chance.randrange(10**10)), 'iat': chance.randrange(10**9)})}.{_pick(chance, URL, 43)}"


def _pem(kind: str) -> Callable[[random.Random], str]:
    def make(chance: random.Random) -> str:
        lines = "\n".join(_pick(chance, B64, 64) for _ in range(chance.randint(3, 25)))
        return f"-----BEGIN {kind}-----\n{lines}\n{_pick(chance, B64, 22)}==\n-----END {kind}-----"

    return make


def _url(chance: random.Random) -> tuple[str, tuple[str, ...]]:
    scheme = chance.choice(["postgres", "postgresql+asyncpg", "mysql", "redis", "amqp", "mongodb+srv", "https"])
    context = f"{scheme}://{_pick(chance, LOWER, 6)}:@@@db-{chance.randrange(9)}.internal:5432/app"
    return _pick(chance, ALNUM + "!.*_-", chance.randint(8, 24)), (
        context,
        f'url = "{context}"',
        f"dial {context} failed",
    )


def _bearer(chance: random.Random) -> tuple[str, tuple[str, ...]]:
    return _pick(chance, ALNUM + "-._~", 40), (
        "Authorization: Bearer @@",
        '"authorization": "Bearer @@"',
        "curl -H 'Authorization: Bearer @@' x",
    )


def _named(name: str, letters: str, size: int) -> Callable[[random.Random], tuple[str, tuple[str, ...]]]:
    contexts = (f"{name}_API_KEY=@@\n", f'{name.lower()}_token: "@@"', f'"{name.lower()}ApiKey": "@@"')
    return lambda chance: (_pick(chance, letters, size), contexts)


_TOKENS: dict[str, Make] = {
        "aws-id": _token("AKIA", string.ascii_uppercase + "234567", 16),
        "aws-session-id": _token("ASIA", string.ascii_uppercase + "234567", 16),
        "aws-secret": lambda c: (_pick(c, B64, 40), ("aws_secret_access_key = @@\n", "AWS_SECRET_ACCESS_KEY=@@\n", '"awsSecretKey": "@@"')),
        "gcp-api": _token("AIza", URL, 35),
        "google-oauth": _token("GOCSPX-", URL, 28),
        "google-token": _token("ya29.a0", URL, 120),
        "azure-client": lambda c: f"{_pick(c, ALNUM, 3)}8Q~{_pick(c, ALNUM + '_.-', 34)}",
        "azure-storage": lambda c: (_pick(c, B64, 86) + "==", ("DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=@@;EndpointSuffix=core", "AccountKey=@@")),
        "github-pat": _token("ghp_", ALNUM, 36),
        "github-oauth": _token("gho_", ALNUM, 36),
        "github-app": _token("ghs_", ALNUM, 36),
        "github-fine": lambda c: f"github_pat_{_pick(c, ALNUM, 22)}_{_pick(c, ALNUM, 59)}",
        "gitlab-pat": _token("glpat-", URL, 20),
        "gitlab-deploy": _token("gldt-", URL, 20),
        "slack-bot": lambda c: f"xoxb-{_pick(c, string.digits, 12)}-{_pick(c, string.digits, 12)}-{_pick(c, ALNUM, 24)}",
        "slack-webhook": lambda c: f"https://hooks.slack.com/services/T{_pick(c, UPPER, 8)}/B{_pick(c, UPPER, 10)}/{_pick(c, ALNUM, 24)}",
        "stripe-live": _token("sk_live_", ALNUM, 24),
        "stripe-restricted": _token("rk_live_", ALNUM, 98),
        "stripe-webhook": _token("whsec_", ALNUM, 32),
        "openai-project": lambda c: f"sk-proj-{_pick(c, URL, 74)}T3BlbkFJ{_pick(c, URL, 74)}",
        "openai-old": lambda c: f"sk-{_pick(c, ALNUM, 20)}T3BlbkFJ{_pick(c, ALNUM, 20)}",
        "anthropic": lambda c: f"sk-ant-api03-{_pick(c, URL, 93)}AA",
        "npm": _token("npm_", ALNUM, 36),
        "pypi": _token("pypi-AgEIcHlwaS5vcmc", URL, 160),
        "twilio": _token("SK", HEX, 32),
        "sendgrid": lambda c: f"SG.{_pick(c, URL, 22)}.{_pick(c, URL, 43)}",
        "rsa-key": _pem("RSA PRIVATE KEY"),
        "pkcs8-key": _pem("PRIVATE KEY"),
        "openssh-key": _pem("OPENSSH PRIVATE KEY"),
        "jwt": _jwt,
        "huggingface": _token("hf_", string.ascii_letters, 34),
        "docker": _token("dckr_pat_", URL, 27),
        "digitalocean": _token("dop_v1_", HEX, 64),
        "shopify": _token("shpat_", HEX, 32),
        "databricks": _token("dapi", HEX, 32),
        "vault": _token("hvs.", URL, 95),
        "linear": _token("lin_api_", ALNUM, 40),
        "notion": lambda c: f"ntn_{_pick(c, string.digits, 11)}{_pick(c, ALNUM, 35)}",
        "telegram": lambda c: f"{c.randrange(10**9, 10**10)}:AA{_pick(c, URL, 33)}",
        "discord": lambda c: f"M{_pick(c, ALNUM, 25)}.{_pick(c, URL, 6)}.{_pick(c, URL, 38)}".rstrip("-"),
        "postman": lambda c: f"PMAK-{_pick(c, HEX, 24)}-{_pick(c, HEX, 34)}",
        "age": _token("AGE-SECRET-KEY-1", "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58),
        "url-password": _url,
        "bearer": _bearer,
        "datadog": _named("DATADOG", HEX, 40),
        "cloudflare": _named("CLOUDFLARE", URL, 40),
        "heroku": lambda c: (f"{_pick(c, HEX, 8)}-{_pick(c, HEX, 4)}-{_pick(c, HEX, 4)}-{_pick(c, HEX, 4)}-{_pick(c, HEX, 12)}", ("HEROKU_API_KEY=@@\n", 'heroku_key: "@@"')),
}  # fmt: skip
_ASSIGNED: dict[str, Make] = {
    "hex-32": lambda c: _pick(c, HEX, 32),
    "alnum-24": lambda c: _pick(c, ALNUM, 24),
    "base64-44": lambda c: _pick(c, B64, 43) + "=",
    "url-safe-43": lambda c: _pick(c, ALNUM + "_", 43),
}


def _luhn_digit(digits: str) -> str:
    total = 0
    for at, each in enumerate(reversed(digits)):
        number = int(each) * (2 if at % 2 == 0 else 1)
        total += number - 9 if number > 9 else number
    return str(-total % 10)


def _card(begins: tuple[str, ...], size: int) -> Callable[[random.Random], str]:
    def make(chance: random.Random) -> str:
        digits = chance.choice(begins)
        digits += _pick(chance, string.digits, size - 1 - len(digits))
        digits += _luhn_digit(digits)
        by = chance.choice(["", "", " ", "-"])
        if size == 15:
            return by.join((digits[:4], digits[4:10], digits[10:]))
        return by.join(digits[at : at + 4] for at in range(0, size, 4))

    return make


def _iban(country: str, bban: Callable[[random.Random], str]) -> Callable[[random.Random], str]:
    def make(chance: random.Random) -> str:
        own = bban(chance)
        number = "".join(
            str(string.digits.find(each) if each.isdigit() else ord(each) - 55) for each in own + country + "00"
        )
        written = f"{country}{98 - int(number) % 97:02d}{own}"
        return written if chance.random() < 0.5 else " ".join(written[at : at + 4] for at in range(0, len(written), 4))

    return make


def _day(chance: random.Random, form: str) -> str:
    return form.format(d=chance.randint(1, 28), m=chance.randint(1, 12), y=chance.randint(0, 99))


def _after(*words: str) -> tuple[str, ...]:
    return tuple(f"{word}@@{end}" for word in words for end in ("", ".", ", thanks", "\n"))


def _digits(chance: random.Random, size: int) -> str:
    return str(chance.randint(1, 9)) + _pick(chance, string.digits, size - 1)


def _retry(make: Callable[[random.Random], str | None]) -> Callable[[random.Random], str]:
    def made(chance: random.Random) -> str:
        while True:
            value = make(chance)
            if value is not None:
                return value

    return made


def _bsn(chance: random.Random) -> str | None:
    digits = _digits(chance, 8)
    check = sum(int(each) * weight for each, weight in zip(digits, range(9, 1, -1), strict=True)) % 11
    return f"{digits}{check}" if check < 10 else None


def _cpf(chance: random.Random) -> str:
    digits = _pick(chance, string.digits, 9)
    for size in (10, 11):
        digits += str(
            sum(int(each) * weight for each, weight in zip(digits, range(size, 1, -1), strict=True)) * 10 % 11 % 10
        )
    return f"{digits[:3]}.{digits[3:6]}.{digits[6:9]}-{digits[9:]}"


def _pesel(chance: random.Random) -> str:
    digits = _day(chance, "{y:02d}{m:02d}{d:02d}") + _pick(chance, string.digits, 4)
    return digits + str(
        -sum(int(each) * weight for each, weight in zip(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3), strict=True)) % 10
    )


def _fodselsnummer(chance: random.Random) -> str | None:
    digits = _day(chance, "{d:02d}{m:02d}{y:02d}") + _pick(chance, string.digits, 3)
    for weights in ((3, 7, 6, 1, 8, 9, 4, 5, 2), (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)):
        check = -sum(int(each) * weight for each, weight in zip(digits, weights, strict=True)) % 11
        if check == 10:
            return None
        digits += str(check)
    return digits


def _steuer(chance: random.Random) -> str:
    nine = chance.sample(string.digits, 9)
    ten = [*nine, chance.choice(nine)]
    chance.shuffle(ten)
    while ten[0] == "0":
        chance.shuffle(ten)
    product = 10
    for each in ten:
        total = (int(each) + product) % 10 or 10
        product = 2 * total % 11
    return "".join(ten) + str((11 - product) % 10)


def _nir(chance: random.Random) -> str:
    number = f"{chance.choice('12')}{_day(chance, '{y:02d}{m:02d}')}{chance.randint(1, 95):02d}{_pick(chance, string.digits, 6)}"
    written = f"{number}{97 - int(number) % 97:02d}"
    cuts = (0, 1, 3, 5, 7, 10, 13, 15)
    return written if chance.random() < 0.5 else " ".join(written[a:b] for a, b in pairwise(cuts))


def _ahv(chance: random.Random) -> str:
    digits = "756" + _pick(chance, string.digits, 9)
    check = -sum(int(each) * (3 if at % 2 else 1) for at, each in enumerate(digits)) % 10
    return f"{digits[:3]}.{digits[3:7]}.{digits[7:11]}.{digits[11:]}{check}"


def _dni(chance: random.Random) -> str:
    number = chance.randrange(10**7, 10**8)
    return f"{number}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}"


def _hetu(chance: random.Random) -> str:
    day, own = _day(chance, "{d:02d}{m:02d}{y:02d}"), f"{chance.randint(2, 899):03d}"
    return f"{day}{chance.choice('-A')}{own}{'0123456789ABCDEFHJKLMNPRSTUVWXY'[int(day + own) % 31]}"


def _resident(chance: random.Random) -> str:
    digits = f"{chance.randint(11, 65)}{_pick(chance, string.digits, 4)}19{_day(chance, '{y:02d}{m:02d}{d:02d}')}{_pick(chance, string.digits, 3)}"
    return digits + "10X98765432"[sum(int(each) * pow(2, 17 - at, 11) for at, each in enumerate(digits)) % 11]


def _nhs(chance: random.Random) -> str | None:
    digits = _digits(chance, 9)
    check = -sum(int(each) * weight for each, weight in zip(digits, range(10, 1, -1), strict=True)) % 11
    return f"{digits[:3]} {digits[3:6]} {digits[6:]}{check}" if check < 10 else None


def _sin(chance: random.Random) -> str:
    digits = chance.choice("1234567") + _pick(chance, string.digits, 7)
    digits += _luhn_digit(digits)
    return f"{digits[:3]} {digits[3:6]} {digits[6:]}"


def _personnummer(chance: random.Random) -> str:
    digits = _day(chance, "{y:02d}{m:02d}{d:02d}") + _pick(chance, string.digits, 3)
    return f"{digits[:6]}-{digits[6:]}{_luhn_digit(digits)}"


def _email(chance: random.Random) -> str:
    first, last = chance.choice(FIRST), chance.choice(LAST)
    local = chance.choice(
        [f"{first}.{last}", f"{first[0]}{last}{chance.randint(1, 99)}", f"{first}+lists", f"{first}_{last}"]
    )
    return f"{local}@{chance.choice(['mail', 'corp-mail', 'sub.domain', 'uni'])}{chance.randint(1, 99)}.{chance.choice(['com', 'org', 'de', 'co.uk', 'io', 'museum'])}"


FIRST = ("anna", "bert", "chloe", "dmitri", "elif", "farid", "greta", "hiro")
LAST = ("smith", "muller", "obrien", "garcia", "kowalski", "nguyen", "rossi", "svensson")


def _e164(chance: random.Random) -> str:
    country, size = chance.choice(
        [("1", 10), ("44", 10), ("49", 11), ("33", 9), ("91", 10), ("81", 10), ("46", 9), ("351", 9), ("972", 9)]
    )
    own = (
        _digits(chance, size)
        if country != "1"
        else f"{chance.randint(2, 9)}{chance.randint(0, 99):02d}{chance.randint(2, 9)}{_pick(chance, string.digits, 6)}"
    )
    return chance.choice(
        [f"+{country}{own}", f"+{country} {own[:3]} {own[3:6]} {own[6:]}", f"+{country}-{own[:3]}-{own[3:]}"]
    )


def _said(chance: random.Random) -> tuple[str, tuple[str, ...]]:
    own = f"0{_digits(chance, 9)}"
    written = chance.choice([own, f"{own[:4]} {own[4:7]} {own[7:]}", f"({own[:4]}) {own[4:]}", f"{own[:4]}/{own[4:]}"])
    return written, _after("Tel: ", "phone ", "Mobil: ", "Fax ", "please call ", "Handy: ", "telephone number: ")


def _us_phone(chance: random.Random) -> str:
    area, office, line = chance.randint(200, 989), chance.randint(200, 989), chance.randint(0, 9999)
    return chance.choice(
        [f"({area}) {office}-{line:04d}", f"{area}-{office}-{line:04d}", f"{area}.{office}.{line:04d}"]
    )


def _ssn(chance: random.Random) -> str:
    return f"{chance.choice([chance.randint(1, 665), chance.randint(667, 899)]):03d}-{chance.randint(1, 99):02d}-{chance.randint(1, 9999):04d}"


def _with(make: Callable[[random.Random], str], *words: str) -> Callable[[random.Random], tuple[str, tuple[str, ...]]]:
    return lambda chance: (make(chance), _after(*words))


_PERSONAL: dict[str, dict[str, Make]] = {
    "card": {
        "visa": _card(("4",), 16),
        "mastercard": _card(("51", "55", "2221", "2720"), 16),
        "amex": _card(("34", "37"), 15),
        "discover": _card(("6011", "65"), 16),
        "jcb": _card(("3528", "3589"), 16),
    },
    "iban": {
        "de": _iban("DE", lambda c: _pick(c, string.digits, 18)),
        "gb": _iban("GB", lambda c: _pick(c, string.ascii_uppercase, 4) + _pick(c, string.digits, 14)),
        "fr": _iban("FR", lambda c: _pick(c, string.digits, 10) + _pick(c, UPPER, 11) + _pick(c, string.digits, 2)),
        "nl": _iban("NL", lambda c: _pick(c, string.ascii_uppercase, 4) + _pick(c, string.digits, 10)),
        "no": _iban("NO", lambda c: _pick(c, string.digits, 11)),
    },
    "email": {"email": _email},
    "phone": {"e164": _e164, "local": _said, "us": _us_phone},
    "ssn": {"ssn": _ssn},
    "passport": {
        "passport": _with(lambda c: _pick(c, string.ascii_uppercase, 1) + _pick(c, string.digits, 8), "Passport number: ", "passport no. ", "Reisepass ")
    },
    "national-id": {
        "nl-bsn": _with(_retry(_bsn), "BSN: ", "burgerservicenummer "),
        "br-cpf": _cpf,
        "pl-pesel": _with(_pesel, "PESEL ", "pesel: "),
        "no-fnr": _retry(_fodselsnummer),
        "de-tax": _with(_steuer, "Steuer-ID: ", "IdNr. ", "steuerliche Identifikationsnummer "),
        "fr-nir": _nir,
        "ch-ahv": _ahv,
        "es-dni": _dni,
        "fi-hetu": _hetu,
        "cn-id": _resident,
        "uk-nhs": _with(_retry(_nhs), "NHS number: ", "NHS "),
        "ca-sin": _with(_sin, "SIN: ", "social insurance number "),
        "se-number": _personnummer,
    },
}  # fmt: skip
