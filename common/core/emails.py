"""E-mail addresses: which are taken, and when two are the same."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Literal

from common.core.errors import BadEmail

# RFC 5321, 4.5.3.1.1 for the part before the @; RAGFlow's column for the whole; RFC 1035 for a label.
MAX_LOCAL_LENGTH = 64
MAX_LENGTH = 255

_HASH_LENGTH = 64

# A dot-atom's word (RFC 5322), with the letters and digits of every script (RFC 6531), as RAGFlow takes; without the
# slash, as addresses are parts of paths, and servers and proxies take even an encoded one for the end of a part.
_ATOM = re.compile(r"[\w!#$%&'*+=?^`{|}~-]+")
# RAGFlow takes an underscore in a label, and such addresses stand in its tables.
_LABEL = re.compile(r"\w(?:[\w-]{0,61}\w)?")


def parse_email(value: object, *, field: str = "email") -> str:
    """The address without surrounding white space, letters as written, composed (NFC); raises BadEmail.

    Taken is a dot-atom of at most 64 characters, one ``@``, and a dotted domain that ends in at least two
    letters or digits; quoted local parts and address literals are not.
    """
    if not isinstance(value, str):
        raise BadEmail("The e-mail address must be a string.", field=field)
    email = unicodedata.normalize("NFC", value.strip()) if len(value) <= 2 * MAX_LENGTH else value
    if len(email) > MAX_LENGTH:
        raise BadEmail(f"The e-mail address may have at most {MAX_LENGTH} characters.", field=field)
    local, at, domain = email.partition("@")
    if not at:
        raise BadEmail("The e-mail address must have the form name@example.org.", field=field)
    if len(local) > MAX_LOCAL_LENGTH or not all(_ATOM.fullmatch(word) for word in local.split(".")):
        raise BadEmail(
            f"The part before the @ of an e-mail address has 1 to {MAX_LOCAL_LENGTH} characters, "
            "no white space or slash, and no dot at either end or next to another.",
            field=field,
        )
    labels = domain.split(".")
    if len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels) or len(labels[-1]) < 2:
        raise BadEmail("The part after the @ of an e-mail address must be a domain such as example.org.", field=field)
    return email


def email_key(email: str) -> str:
    """The form in which addresses are compared: no surrounding white space, without case, composed, in one line.

    Case is Unicode's simple folding, which makes no other letter of any: ``ß`` is not ``ss``. The domain is compared
    as UTS 46 maps it, so that full-width letters are the usual ones; the part before the ``@`` is its host's own
    matter (RFC 5321, 2.3.11) and is composed only (RFC 6532, 3.1). That can lengthen an address; of one that would
    have more than MAX_LENGTH the rest stands as its SHA-256.
    """
    local, at, domain = email.strip().replace("\n", " ").rpartition("@")
    key = f"{_folded(local, 'NFC')}{at}{_folded(domain, 'NFKC' if at else 'NFC')}"
    if len(key) <= MAX_LENGTH:
        return key
    kept = MAX_LENGTH - _HASH_LENGTH
    return key[:kept] + hashlib.sha256(key[kept:].encode("utf-8", "surrogatepass")).hexdigest()


def _folded(text: str, form: Literal["NFC", "NFKC"]) -> str:
    if text.isascii():
        # The same, at a twentieth of the cost: every request for an account passes here.
        return text.lower()
    return unicodedata.normalize(form, "".join(map(_fold, unicodedata.normalize(form, text))))


def _fold(character: str) -> str:
    """The simple case folding of a character: the one that its full folding is, if that is one, else its small form."""
    full = character.casefold()
    return full if len(full) == 1 else character.lower() if len(character.lower()) == 1 else character
