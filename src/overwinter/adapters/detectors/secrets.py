"""Secrets: the rules of gitleaks as they are published, and formats that a repository has rarely but a prompt often.

`gitleaks.toml` is the file of gitleaks 8.30.1 unchanged (MIT, gitleaks.LICENSE). Two things are changed when it is read. A rule
may end at any punctuation, not only at a quote, space or `;`: files end a token so, sentences do not. And the lazy run of up to 50
letters that rules begin with is left out: it finds where a name begins, not whether there is a secret, and costs states.
Conditions on paths do not count, a text has none.
"""

import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from overwinter.adapters.detectors.automata import Regex, Span, escaped
from overwinter.adapters.detectors.patterns import Pattern
from overwinter.gateway.redaction import Found

__all__ = ["OWN", "patterns"]

RULES = Path(__file__).with_name("gitleaks.toml")
KIND = "secret"
_END = r"""(?:[\x60'"\s;]|\\[nr]|$)"""
_END_IN_PROSE = r"""(?:[\x60'"\s;,.:!?()<>&|{}\[\]\\]|$)"""
_LONG = re.compile(r"\{(\d+),(?:[1-9]\d\d|\d{4})\}(?!\?)")
_BEGIN = r"[\w.-]{0,50}?"
_ASSIGNED = r"(?i)(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|credentials?|api[_-]?key)(?:[_-]?(?:key|value|base))?['\"\x60]?\s{0,3}(?:=|:{1,2}=|:|=>)\s{0,3}"
_ASSIGNED_NEEDLE = _ASSIGNED + r"(?:\"[^\"\t\n\f\r ]{8}|'[^'\t\n\f\r ]{8}|[\x60]?[A-Za-z0-9+/]{24})"
_ASSIGNMENT_NEEDLE = (
    r"(?i)(?:access|auth|api|credential|creds|key|passw(?:or)?d|secret|token)[ \t\w.-]{0,20}[\s'\"]{0,3}(?:[=>:,]|\|\||\?=)"
    r"[\x60'\"\s=>:]{0,8}[\w.=+/-]{10}"
)
"""Each is in every match of its rule: the name, the sign, and the first 8, 10 or 24 letters of the value."""
NEAR_ASSIGNMENT = (64, 260)
"""Bytes before and after the end of these: no name is longer, and a longer value is a file."""

OWN: Mapping[str, tuple[str, str]] = {
    "url-password": (r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/?#@'\"<>]*:([^\s:/?#@'\"<>${}]{3,200})@[\w.\[-]", r"~://[^\t\n\f\r /?#@'\"<>]*@"),
    "bearer": (r"(?i)\bauthorization['\"]?\s*[:=]\s*['\"]?(?:bearer|token|basic)\s+([\w.~+/=-]{16,})", "authorization"),
    "azure-client-secret": (r"(?:^|[^\w~.-])([a-zA-Z0-9_~.]{3}\dQ~[a-zA-Z0-9_~.-]{31,34})", "q~"),
    "azure-account-key": (r"(?i)(?:AccountKey|SharedAccessKey|SharedSecretValue)=([A-Za-z0-9+/]{40,88}={0,2})", "accountkey= sharedaccesskey= sharedsecretvalue="),
    "azure-sas": (r"[?&]sig=([A-Za-z0-9%]{43,100}(?:%3D|=))", "?sig= &sig="),
    "google-oauth-secret": (r"\b(GOCSPX-[\w-]{28})", "gocspx-"),
    "google-oauth-token": (r"\b(ya29\.[\w-]{30,})", "ya29."),
    "google-refresh-token": (r"\b(1//0[\w-]{40,})", "1//0"),
    "aws-secret-key": (r"(?i)\baws.{0,24}?(?:secret|key).{0,20}?['\"\s=:]([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|$)", "aws"),
    "aws-session-token": (r"\b((?:FwoGZXIvYXdzE|IQoJb3JpZ2lu)[A-Za-z0-9/+=]{100,})", "fwogzxivyxdze iqojb3jpz2lu"),
    "anthropic": (r"\b(sk-ant-[a-z0-9]{2,10}-[\w-]{40,})", "sk-ant-"),
    "openai": (r"\b(sk-(?:proj-|svcacct-|admin-|None-)?[A-Za-z0-9_-]{40,})", r"~\bsk-[A-Za-z0-9_-]{12}"),
    "openrouter": (r"\b(sk-or-v1-[a-f0-9]{64})", "sk-or-v1-"),
    "groq": (r"\b(gsk_[A-Za-z0-9]{52})", "gsk_"),
    "xai": (r"\b(xai-[A-Za-z0-9]{70,90})", "xai-"),
    "replicate": (r"\b(r8_[A-Za-z0-9]{37})", "r8_"),
    "stripe-webhook": (r"\b(whsec_[A-Za-z0-9+/=]{32,})", "whsec_"),
    "github-any": (r"\b(gh[opusr]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9_]{82})", "gho_ ghp_ ghu_ ghs_ ghr_ github_pat_"),
    "gitlab-any": (r"\b(gl(?:pat|ptt|dt|rt|soat|ft|imt|agent|cbt|oas)-[\w.-]{20,64})", "glpat- glptt- gldt- glrt- glsoat- glft- glimt- glagent- glcbt- gloas-"),
    "slack-any": (r"\b(xox[abeoprs]-[A-Za-z0-9-]{20,}|xapp-\d-[A-Za-z0-9-]{20,})", "xoxa- xoxb- xoxe- xoxo- xoxp- xoxr- xoxs- xapp-"),
    "slack-webhook": (r"(hooks\.slack\.com/(?:services|workflows|triggers)/T?[A-Za-z0-9]{8,}/[A-Za-z0-9]{8,}/[A-Za-z0-9]{20,})", "hooks.slack.com/"),
    "discord-webhook": (r"(discord(?:app)?\.com/api/webhooks/\d{17,20}/[\w-]{60,80})", "/api/webhooks/"),
    "discord-bot": (r"\b([MNO][A-Za-z\d_-]{23,27}\.[\w-]{6}\.[\w-]{27,38})\b", r"~\.[\w-]{6}\.[\w-]{27}"),
    "telegram-bot": (r"\b(\d{8,10}:AA[A-Za-z0-9_-]{33})", ":aa"),
    "sendgrid": (r"\b(SG\.[\w-]{22}\.[\w-]{43})", r"~\bSG\.[\w-]{8}"),
    "twilio": (r"\b((?:SK|AC)[0-9a-f]{32})\b", r"~\b(?:SK|AC)[0-9a-f]{8}"),
    "npm-any": (r"\b(npm_[A-Za-z0-9]{36})", "npm_"),
    "pypi-any": (r"\b(pypi-[A-Za-z0-9_-]{85,})", "pypi-"),
    "docker": (r"\b(dckr_(?:pat|oat)_[\w-]{27,})", "dckr_"),
    "terraform": (r"\b([A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{60,70})", ".atlasv1."),
    "vault-token": (r"\b(hv[sbr]\.[A-Za-z0-9_-]{24,300})", "hvs. hvb. hvr."),
    "jwt": (r"\b(ey[A-Za-z0-9_-]{15,}\.ey[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]{10,})", r"~\bey[A-Za-z0-9_-]{15}"),
    "age": (r"(?i)(AGE-SECRET-KEY-1[0-9A-Z]{58})", "age-secret-key-1"),
    "private-key": (r"(-----BEGIN[ A-Z0-9]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[A-Za-z0-9+/=:,.\s\\-]{40,})?)", "-----begin"),
    "putty-key": (r"(PuTTY-User-Key-File-[\s\S]*?Private-MAC: [0-9a-f]{40,64})", "putty-user-key-file-"),
    "assigned": (
        _ASSIGNED + r"(?:\"([^\"\s$<{][^\"\s]{7,})\"|'([^'\s$<{][^'\s]{7,})'|"
        r"['\"\x60]?([a-f0-9]{24,}|[A-F0-9]{24,})(?:[^\w.-]|$)|['\"\x60]?([A-Za-z0-9+/]{30,}={0,2})(?:[^\w.(\[+/=-]|$))",
        "~" + _ASSIGNED_NEEDLE,
    ),
    "overwinter": (r"\b(ow_[A-Za-z0-9]{49})", r"~\bow_[A-Za-z0-9]{12}"),
}  # fmt: skip
"""Formats from their owners' documentation: the pattern, and words of which one is in each (or `~` and a pattern that is)."""
_NEEDLES: Mapping[str, str] = {
    "authress-service-client-access-key": r"(?i)\.acc[_-]",
    "generic-api-key": _ASSIGNMENT_NEEDLE,
    "jwt": r"\bey[A-Za-z0-9]{17}",
    "kubernetes-secret-yaml": r"(?i)kind:[ \t]*[\"']?secret",
    "sendgrid-api-token": r"\bSG\.[A-Za-z0-9=_.-]{8}",
    "twilio-api-key": r"SK[0-9a-fA-F]{8}",
    "vault-service-token": r"\b(?:hvs|s)\.[\w-]{20}",
}
"""Of published rules whose own keywords are in every text: `s.`, `sk`, `ey`."""
_ENTROPY_MIN: Mapping[str, float] = {
    "assigned-quoted": 2.8,
    "assigned-hex": 2.8,
    "assigned-base64": 3.8,
    "openai": 3.5,
    "twilio": 3.0,
    "url-password": 1.5,
}
_PLACEHOLDERS = Regex(
    r"(?i)^(?:<.*>|\[.*\]|\*+|x+|\.+|%s|your[_-].*|(?:change|replace)[_-]?me.*|example.*|dummy.*|pass(?:word|wd)?|secret|token|none|null|true|false|env:.*|file:.*|vault:.*|keyring:.*)$"
)
"""What stands where a secret would."""
_WORDS = Regex(r"^[A-Za-z_. :/()-]+$")


def patterns() -> Sequence[Pattern]:
    """Return a pattern for each rule."""
    with RULES.open("rb") as file:
        settings = tomllib.load(file)
    everywhere = settings["allowlist"]
    rules = [
        Pattern(
            regex=_widened(rule),
            look=partial(
                _in_hcl if rule["id"] == "hashicorp-tf-password" else _published,
                _Allowed(everywhere, rule),
                rule.get("entropy", 0.0),
            ),
            words=() if rule["id"] in _NEEDLES else tuple(rule["keywords"]),
            needle=_NEEDLES.get(rule["id"], ""),
            near=NEAR_ASSIGNMENT if rule["id"] == "generic-api-key" else None,
        )
        for rule in settings["rules"]
        if "regex" in rule
    ]
    return [*rules, *(_own(name, regex, sought) for name, (regex, sought) in OWN.items())]


def _widened(rule: Mapping[str, Any]) -> str:
    # An upper bound of a hundred is as many copies of the automaton, each with states to be made for each text: without them
    # assignments take a fifth of the time. What is longer is found too.
    regex = _LONG.sub(r"{\1,}", rule["regex"].replace(_BEGIN, ""))
    return regex if rule["id"] == "generic-api-key" else regex.replace(_END, _END_IN_PROSE)


class _Allowed:
    """What is no secret though it has a rule's form, as the rules themselves say."""

    def __init__(self, everywhere: Mapping[str, Any], rule: Mapping[str, Any]) -> None:
        lists = [everywhere, *rule.get("allowlists", [])]
        # A list that must also match a path never does here.
        lists = [each for each in lists if each.get("condition") != "AND" or "paths" not in each]
        # A rule that is sought by its own keywords is asked about no text without one of them.
        self._keywords: Sequence[str] = rule["keywords"] if rule["id"] in _NEEDLES else ()
        self._secret = _any(lists, "secret")
        self._match = _any(lists, "match")
        self._line = _any(lists, "line")
        stopwords = [word for each in lists for word in each.get("stopwords", [])]
        self._stopwords = Regex("|".join(escaped(word) for word in stopwords))

    def has(self, text: str, whole: Span, secret: str) -> bool:
        """Return whether it is no secret."""
        if self._secret and self._secret.has(secret):
            return True
        # In the match first: that is where nearly all have theirs, and the text may be long, and full of matches.
        here = text[whole[0] : whole[1]]
        if self._keywords and not _has_word(here, self._keywords) and not _has_word(text, self._keywords):
            return True
        begin, end = text.rfind("\n", 0, whole[0]) + 1, text.find("\n", whole[1])
        return (
            bool(self._stopwords.has(secret.lower()))
            or bool(self._match and self._match.has(here))
            or bool(self._line and self._line.has(text[begin : end if end >= 0 else len(text)]))
        )


def _any(lists: Iterable[Mapping[str, Any]], target: str) -> Regex | None:
    regexes = [
        regex for each in lists if each.get("regexTarget", "secret") == target for regex in each.get("regexes", [])
    ]
    return Regex("|".join(f"(?:{regex})" for regex in regexes)) if regexes else None


def _has_word(text: str, words: Sequence[str]) -> bool:
    lowered = text.lower()
    return any(word in lowered for word in words)


def _in_hcl(allowed: _Allowed, entropy: float, text: str, whole: Span, inner: Span) -> Iterable[Found]:
    """Return what a rule for Terraform's files finds: they assign by `=`; a list of quoted names is none, though it fits."""
    return _published(allowed, entropy, text, whole, inner) if "=" in text[whole[0] : inner[0]] else ()


def _published(allowed: _Allowed, entropy: float, text: str, whole: Span, inner: Span) -> Iterable[Found]:
    secret = text[inner[0] : inner[1]]
    if (entropy and entropy_bits(secret) <= entropy) or allowed.has(text, whole, secret):
        return ()
    return (Found(inner[0], inner[1], KIND),)


def _own(name: str, regex: str, sought: str) -> Pattern:
    entropy = _ENTROPY_MIN.get(name, 0.0)

    def look(text: str, _: Span, inner: Span) -> Iterable[Found]:
        secret = text[inner[0] : inner[1]]
        is_word = name == "assigned" and _WORDS.has(secret)
        if is_word or _PLACEHOLDERS.has(secret) or (entropy and entropy_bits(secret) <= entropy):
            return ()
        return (Found(inner[0], inner[1], KIND),)

    if sought.startswith("~"):
        return Pattern(regex=regex, look=look, needle=sought[1:], near=NEAR_ASSIGNMENT if name == "assigned" else None)
    return Pattern(regex=regex, look=look, words=tuple(sought.split()))


def entropy_bits(text: str) -> float:
    """Return Shannon's entropy of a text's letters, in bits a letter."""
    size = len(text)
    # The sum of -p log p, with the size taken out of it: a letter that is there once adds nothing, and most are.
    return math.log2(size) - sum([n * math.log2(n) for n in Counter(text).values() if n > 1]) / size if size else 0.0
