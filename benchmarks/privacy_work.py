"""What benchmarks/privacy.py runs in the peers' environments: `python privacy_work.py FUNCTION ARGUMENTS`."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

KINDS = {
    "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "IP_ADDRESS": "ip", "CREDIT_CARD": "card", "IBAN_CODE": "iban",
    "US_SSN": "national_id",
}  # fmt: skip
"""Presidio's and dolma's names -> ours."""
SLOT = re.compile(r"\{\{(\w+)\}\}")


def fill_templates(path: str, repeats: str) -> dict:
    """Replace a file of templates by the sentences as JSON: text, and spans (start, end, kind)."""
    from faker import Faker

    lines = Path(path).read_text("utf-8", "replace").splitlines()
    templates = [line.replace("\\n", "\n") for line in lines if line.strip()]
    Faker.seed(1)
    fakers = [Faker(name) for name in ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "nl_NL")]
    sentences = []
    for number in range(int(repeats) * len(templates)):
        sentences.append(_filled(templates[number % len(templates)], fakers[number % len(fakers)], fakers[0]))
    Path(path).write_text(json.dumps(sentences))
    return {"sentences": len(sentences), "spans": sum(len(s["spans"]) for s in sentences), "cpu_s": 0.0}


def _filled(template: str, local, american) -> dict:
    """One template with values; numbers of a country are written with its code where the country is not the US."""
    makers = {
        "email": ("email", local.ascii_company_email), "ip_address": ("ip", american.ipv4_public),
        "credit_card_number": ("card", american.credit_card_number), "iban": ("iban", local.iban),
        "ssn": ("national_id", american.ssn), "phone_number": ("phone", lambda: _phone(local)),
    }  # fmt: skip
    text, spans, at = "", [], 0
    for slot in SLOT.finditer(template):
        text += template[at : slot.start()]
        kind, make = makers.get(slot[1], ("", lambda slot=slot: _other(slot[1], local)))
        value = str(make())
        if kind:
            spans.append([len(text), len(text) + len(value), kind])
        text += value
        at = slot.end()
    return {"text": text + template[at:], "spans": spans}


def _phone(faker) -> str:
    """A number that its country's plan has: Faker's, drawn again until it is one."""
    import phonenumbers

    country = faker.current_country_code()
    while True:
        value = faker.phone_number()
        try:
            number = phonenumbers.parse(value, country)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(number):
            return value


def _other(slot: str, faker) -> str:
    names = {
        "person": "name", "organization": "company", "zipcode": "postcode", "age": "random_int",
        "nationality": "country", "nation_woman": "country", "nation_plural": "country", "state_abbr": "city",
        "us_driver_license": "bothify", "date_of_birth": "date",
    }  # fmt: skip
    return str(getattr(faker, names.get(slot, slot), faker.word)())


def own(path: str) -> dict:
    """Ours, with numbers without country code read as the US's, the default."""
    from headwater_data.clean.privacy import find_private
    from headwater_data.config.clean import Steps

    steps = Steps()
    return _timed(path, lambda text: [(a, b, kind) for a, b, kind, _ in find_private(text, steps, "US")])


def presidio(path: str) -> dict:
    """Presidio's pattern recognizers."""
    from presidio_analyzer.predefined_recognizers import (
        CreditCardRecognizer,
        EmailRecognizer,
        IbanRecognizer,
        IpRecognizer,
        PhoneRecognizer,
        UsSsnRecognizer,
    )

    kinds = (EmailRecognizer, PhoneRecognizer, IpRecognizer, CreditCardRecognizer, IbanRecognizer, UsSsnRecognizer)
    recognizers = [kind() for kind in kinds]

    def find(text: str) -> list[tuple[int, int, str]]:
        found = [r for one in recognizers for r in one.analyze(text, one.supported_entities, None)]
        return [(r.start, r.end, KINDS[r.entity_type]) for r in found if r.score >= 0.3]

    return _timed(path, find)


def dolma(path: str) -> dict:
    """dolma's tagger: e-mail, phone, IP."""
    import dolma.taggers  # noqa: F401  registers them
    from dolma.core.data_types import Document
    from dolma.core.registry import TaggerRegistry

    tagger = TaggerRegistry.get("pii_regex_with_counts_fast_v2")()

    def find(text: str) -> list[tuple[int, int, str]]:
        spans = tagger.predict(Document("b", "", text)).spans
        return [(s.start, s.end, KINDS[s.type]) for s in spans if s.type in KINDS]

    return _timed(path, find)


def _timed(path: str, find) -> dict:
    texts = [s["text"] for s in json.loads(Path(path).read_text())]
    for text in texts[:20]:
        find(text)
    start = time.process_time()
    spans = [find(text) for text in texts]
    return {"cpu_s": time.process_time() - start, "spans": spans}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
