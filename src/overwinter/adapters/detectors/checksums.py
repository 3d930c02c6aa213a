"""Check digits of numbers that people have: which digits are one, and which only look so."""

import re
from collections.abc import Callable, Mapping
from datetime import date

__all__ = ["CARD_DIGITS", "IBAN_LENGTHS", "NUMBERS", "TEXTS", "is_card", "is_iban"]

CARD_DIGITS = range(13, 20)
_CARDS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|"
    r"3(?:0[0-5]|[689]\d)\d{13}|6(?:011|5\d\d|4[4-9]\d)\d{12,15}|35(?:2[89]|[3-8]\d)\d{12,15}|62\d{14,17}|(?:5[06-9]|6\d)\d{10,17}|"
    r"220[0-4]\d{12,15}|9792\d{12}"
)
"""Ranges of Visa, Mastercard, American Express, Diners, Discover, JCB, UnionPay, Maestro, Mir, Troy (ISO/IEC 7812)."""
IBAN_LENGTHS: Mapping[str, int] = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20,
    "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18,
    "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31,
    "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29,
    "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}  # fmt: skip
"""By country (SWIFT's IBAN registry)."""


def is_card(digits: str) -> bool:
    """Return whether digits are the number of a payment card."""
    return _CARDS.fullmatch(digits) is not None and _luhn(digits) and len(set(digits)) > 1


def is_iban(text: str) -> bool:
    """Return whether letters and digits without spaces, in capitals, are an IBAN (ISO 13616)."""
    if IBAN_LENGTHS.get(text[:2]) != len(text):
        return False
    return int("".join(str(int(each, 36)) for each in text[4:] + text[:4])) % 97 == 1


def _luhn(digits: str) -> bool:
    return (sum(map(int, digits[-1::-2])) + sum(_DOUBLED[int(each)] for each in digits[-2::-2])) % 10 == 0


_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def _weighed(digits: str, weights: str) -> int:
    return sum(int(each) * int(weight, 36) for each, weight in zip(digits, weights, strict=False))


def _is_day(year: int, month: str, day: str) -> bool:
    try:
        date(year, int(month), int(day))
    except ValueError:
        return False
    return True


def _is_day_of_a_century(year: str, month: str, day: str) -> bool:
    return _is_day(1900 + int(year), month, day) or _is_day(2000 + int(year), month, day)


def is_us_ssn(digits: str) -> bool:
    """United States: no check digit; what is never given is known."""
    return digits[:3] not in ("000", "666") and digits[0] != "9" and digits[3:5] != "00" and digits[5:] != "0000"


def _de_tax(digits: str) -> bool:
    """ISO 7064 MOD 11,10; and one digit of the first ten is there twice or three times."""
    if digits[0] == "0" or len(set(digits[:10])) not in (8, 9):
        return False
    product = 10
    for each in digits[:10]:
        total = (int(each) + product) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10 == int(digits[10])


def _nl_bsn(digits: str) -> bool:
    return digits != "000000000" and (_weighed(digits, "98765432") - int(digits[8])) % 11 == 0


def _be_rrn(digits: str) -> bool:
    number, check = int(digits[:9]), int(digits[9:])
    is_one = check in (97 - number % 97, 97 - (2_000_000_000 + number) % 97)
    return is_one and int(digits[2:4]) <= 12 and int(digits[4:6]) <= 31


def _fr_nir(digits: str) -> bool:
    is_person = digits[0] in "12" and (1 <= int(digits[3:5]) <= 12 or 20 <= int(digits[3:5]) <= 42)
    return is_person and 97 - int(digits[:13]) % 97 == int(digits[13:])


def _pl_pesel(digits: str) -> bool:
    month = int(digits[2:4]) % 20
    return 1 <= month <= 12 and 1 <= int(digits[4:6]) <= 31 and _weighed(digits, "13791379131") % 10 == 0


def _se_number(digits: str) -> bool:
    day = int(digits[4:6])
    return _luhn(digits) and _is_day_of_a_century(digits[:2], digits[2:4], f"{day - 60 if day > 60 else day:02d}")


def _dk_cpr(digits: str) -> bool:
    return _is_day_of_a_century(digits[4:6], digits[2:4], digits[:2])


def _no_number(digits: str) -> bool:
    day = int(digits[:2])
    is_born = _is_day_of_a_century(digits[4:6], digits[2:4], f"{day - 40 if day > 40 else day:02d}")
    return is_born and _weighed(digits, "3761894521") % 11 == 0 and _weighed(digits, "54327654321") % 11 == 0


def _uk_nhs(digits: str) -> bool:
    return (11 - _weighed(digits, "a98765432") % 11) % 11 == int(digits[9])


def _br_cpf(digits: str) -> bool:
    first = _weighed(digits, "a98765432") * 10 % 11 % 10
    second = _weighed(digits, "ba98765432") * 10 % 11 % 10
    return digits[9:] == f"{first}{second}" and len(set(digits)) > 1


def _pt_nif(digits: str) -> bool:
    left = _weighed(digits, "98765432") % 11
    return digits[0] in "123568" and int(digits[8]) == (0 if left < 2 else 11 - left)


def _ch_ahv(digits: str) -> bool:
    return digits.startswith("756") and (10 - _weighed(digits, "131313131313") % 10) % 10 == int(digits[12])


def _au_tfn(digits: str) -> bool:
    return _weighed(digits, "14375869a") % 11 == 0


def _ca_sin(digits: str) -> bool:
    return digits[0] not in "08" and _luhn(digits)


_VERHOEFF = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_TURNS = (
    "0123456789",
    "1576283094",
    "5803796142",
    "8916043527",
    "9453126870",
    "4286573901",
    "2793806415",
    "7046913258",
)


def _in_aadhaar(digits: str) -> bool:
    check = 0
    for at, each in enumerate(reversed(digits)):
        check = int(_VERHOEFF[check][int(_TURNS[at % 8][int(each)])])
    return check == 0 and digits[0] not in "01"


def _cn_identity(text: str) -> bool:
    check = "10X98765432"[_weighed(text, "79a584216379a5842") % 11]
    return (
        text[17] == check
        and _is_day(int(text[6:10]) or 1, text[10:12], text[12:14])
        and text[6:8] in ("18", "19", "20")
    )


def _es_dni(text: str) -> bool:
    number = text[:-1].replace("X", "0", 1).replace("Y", "1", 1).replace("Z", "2", 1)
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == text[-1]


_ODD = dict(zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", (
    1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23
), strict=True))  # fmt: skip


def _it_code(text: str) -> bool:
    even = sum(int(each) if each.isdigit() else ord(each) - 65 for each in text[1:15:2])
    return chr((sum(_ODD[each] for each in text[:15:2]) + even) % 26 + 65) == text[15]


def _fi_hetu(text: str) -> bool:
    number = int(text[:6] + text[7:10])
    return "0123456789ABCDEFHJKLMNPRSTUVWXY"[number % 31] == text[10] and _is_day_of_a_century(
        text[4:6], text[2:4], text[:2]
    )


def _uk_nino(text: str) -> bool:
    return text[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def _in_pan(text: str) -> bool:
    return text[3] in "ABCFGHJLPT"


Number = tuple[str, str, Callable[[str], bool], str]
"""Class, form with its separators, check of the digits, words of which one must stand before it ("": the form is enough)."""

NUMBERS: Mapping[int, tuple[Number, ...]] = {
    9: (
        ("ssn", r"\d{3}-\d{2}-\d{4}", is_us_ssn, ""),
        ("ssn", r"\d{3}[ -]?\d{2}[ -]?\d{4}", is_us_ssn, r"\bssn\b|social[ -]security"),
        ("national-id", r"\d{4}\.?\d{2}\.?\d{3}", _nl_bsn, r"\bbsn\b|burgerservice|sofinummer"),
        ("national-id", r"\d{3}([ -]?)\d{3}\1\d{3}", _ca_sin, r"\bsin\b|social insurance"),
        ("national-id", r"\d{3} ?\d{3} ?\d{3}", _pt_nif, r"\bnif\b|contribuinte"),
        ("national-id", r"\d{3} ?\d{3} ?\d{3}", _au_tfn, r"\btfn\b|tax file"),
    ),
    10: (
        ("national-id", r"\d{6}-\d{4}", _se_number, ""),
        ("national-id", r"\d{10}", _se_number, r"personnummer"),
        ("national-id", r"\d{6}-?\d{4}", _dk_cpr, r"\bcpr\b|personnummer"),
        ("national-id", r"\d{3}([ -]?)\d{3}\1\d{4}", _uk_nhs, r"\bnhs\b"),
    ),
    11: (
        ("national-id", r"\d{3}\.\d{3}\.\d{3}-\d{2}", _br_cpf, ""),
        ("national-id", r"\d{11}", _br_cpf, r"\bcpf\b"),
        ("national-id", r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", _be_rrn, ""),
        ("national-id", r"\d{11}|\d{6} ?\d{3} ?\d{2}", _be_rrn, r"rijksregister|registre national|\bnrn\b|\brrn\b|\bnn\b"),
        ("national-id", r"\d{6} ?\d{5}", _no_number, ""),
        ("national-id", r"\d{11}", _pl_pesel, r"pesel"),
        ("national-id", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", _de_tax, r"steuer|\bidnr|\btin\b|tax[ -]?id"),
    ),
    12: (("national-id", r"\d{4}([ -]?)\d{4}\1\d{4}", _in_aadhaar, r"aadhaa?r|\buid(?:ai)?\b"),),
    13: (("national-id", r"756\.?\d{4}\.?\d{4}\.?\d{2}", _ch_ahv, ""),),
    15: (("national-id", r"\d ?\d{2} ?\d{2} ?\d{2} ?\d{3} ?\d{3} ?\d{2}", _fr_nir, ""),),
    18: (("national-id", r"\d{18}", _cn_identity, ""),),
}  # fmt: skip
"""By the number of digits."""

TEXTS: tuple[tuple[str, Callable[[str], bool], str, str], ...] = (
    (r"\b\d{8}[ -]?[A-HJ-NP-TV-Z]\b|\b[XYZ][ -]?\d{7}[ -]?[A-HJ-NP-TV-Z]\b", _es_dni, "", ""),
    (r"(?i)\b[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]\b", _it_code, "", r"[A-Za-z]\d{2}[A-Za-z]\d{2}"),
    (r"\b\d{6}[-+A]\d{3}[0-9A-FHJ-NPR-Y]\b", _fi_hetu, "", ""),
    (r"\b[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b", _uk_nino, "", ""),
    (r"\b\d{17}[Xx]\b", _cn_identity, "", ""),
    (r"\b[A-Z]{4}\d{6}[HMX][A-Z]{5}[0-9A-Z]\d\b", lambda _: True, "", ""),
    (r"\b[A-Z]{5}\d{4}[A-Z]\b", _in_pan, r"\bpan\b|income tax|permanent account", r"\d{4}[A-Z]"),
)
"""National identities with letters: form, check of it in capitals without separators, words of which one must stand before, and a
pattern that is in their line ("": six digits, between which there is nothing but spaces)."""
