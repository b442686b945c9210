"""How a mail is written: a step's templates put into words, those into a letter's layout, and that into bytes.

A letter has two parts that say the same, each with a way out at its end, and loads nothing but the picture that tells
of its opening. It names neither `Precedence`, which no standard knows, nor itself auto-generated: `List-Unsubscribe`
is what keeps out-of-office notes away (RFC 5230, 4.6).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy
from html import escape
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import css_inline

from .markup import Links, cleaned, html_part, is_html, problems_of, text_of, text_part
from .outcomes import one_line
from .templates import Problem, TemplateBroken, check, render

LONGEST_SUBJECT: Final = 500
LONGEST_URL: Final = 900
"""So that no line of a header exceeds the 998 characters of RFC 5322."""
_URL: Final = re.compile(r"[!#-;=?-~]+")  # printable ASCII without quotes and angle brackets


@dataclass(frozen=True, slots=True)
class Words:
    """A mail's subject and body, filled in for one lead."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail to one lead; `text` and `html` are the body alone, `html` clean as `compose` leaves it."""

    recipient: str
    subject: str
    text: str
    html: str
    message_id: str
    unsubscribe_url: str
    unsubscribe_mailto: str | None = None
    open_url: str | None = None


def problems(subject: str, body: str) -> tuple[Problem, ...]:
    """Return all that is wrong with a mail's templates; lines count within the one that is wrong."""
    found = (*check(subject), *check(body))
    return found or (problems_of(body) if is_html(body) else ())


def compose(subject: str, body: str, values: Mapping[str, Any]) -> Words:
    """Fill in a mail's templates; raises TemplateBroken.

    A body that begins with `<` is HTML, and its text is made from it. Any other is text, and its HTML is made from it.
    """
    title = one_line(render(subject, values))
    if not title:
        raise TemplateBroken.of("the subject comes out empty")
    if len(title) > LONGEST_SUBJECT:
        raise TemplateBroken.of(f"the subject comes out longer than {LONGEST_SUBJECT} characters")
    if is_html(body):
        html = cleaned(render(body, values, html=True))
        text = text_of(html)
    else:
        links, rendered = Links(body, values), render(body, values)
        html, text = html_part(rendered, links), text_part(rendered, links)
    if not text:
        raise TemplateBroken.of("the body comes out empty")
    return Words(title, text, html)


# --- layout -----------------------------------------------------------------------------------------------------

_LAYOUT: Final = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><meta name="supported-color-schemes" content="light dark">
<title>%(title)s</title><style>
.baton-page { margin: 0; padding: 0; background-color: #ffffff; color: #1f2328; }
.baton-body { max-width: 600px; padding: 24px; font-family: Arial, Helvetica, sans-serif; font-size: 16px;
  line-height: 1.5; text-align: left; }
.baton-end { padding: 16px 24px; font-family: Arial, Helvetica, sans-serif; font-size: 13px; color: #59636e; }
.baton-out { color: #59636e; }
@media (prefers-color-scheme: dark) {
  .baton-page { background-color: #0d1117 !important; color: #e6edf3 !important; }
  .baton-body a { color: #79b8ff !important; }
  .baton-end, .baton-out { color: #9198a1 !important; }
}
</style></head><body class="baton-page"><table role="presentation" class="baton-page" width="100%%" cellpadding="0"
cellspacing="0" border="0"><tr><td align="center"><table role="presentation" width="100%%" cellpadding="0"
cellspacing="0" border="0" style="max-width: 600px"><tr><td class="baton-body">%(body)s</td></tr>
<tr><td class="baton-end"><a class="baton-out" href="%(out)s">Unsubscribe</a>%(seen)s</td></tr></table>
</td></tr></table></body></html>
"""
_BODY: Final = "baton-body-stands-here"
_FRAME: Final = css_inline.inline(
    _LAYOUT.replace("%(body)s", _BODY).replace("%%", "%"), keep_at_rules=True, load_remote_stylesheets=False
)
"""Inlined once, without a body: what marketing wrote never meets this style sheet."""


def laid_out(letter: Letter) -> tuple[str, str]:
    """Return the two parts of a letter, text and HTML, as they are mailed."""
    text = f"{letter.text.rstrip()}\n\n-- \nUnsubscribe: {_checked(letter.unsubscribe_url)}\n"
    seen = f'<img src="{escape(_checked(letter.open_url))}" width="1" height="1" alt="">' if letter.open_url else ""
    words = {
        "%(title)s": escape(letter.subject),
        "%(out)s": escape(letter.unsubscribe_url),
        "%(seen)s": seen,
        _BODY: letter.html,
    }
    return text, re.sub("|".join(map(re.escape, words)), lambda found: words[found[0]], _FRAME)


# --- on the wire ------------------------------------------------------------------------------------------------


class _Wire(EmailPolicy):
    """How mail is written; Python 3.11's own folding loses spaces of a long subject with letters beyond ASCII.

    It would also write a long URL in encoded words, which nobody unsubscribes by.
    """

    def fold_binary(self, name: str, value: str) -> bytes:
        """Return one header with its line ends."""
        if name == "List-Unsubscribe":
            return f"{name}: {value}".replace(", ", f",{self.linesep} ").encode("ascii") + self.linesep.encode()
        if name != "Subject":
            return super().fold_binary(name, value)
        subject = Header(str(value), header_name=name, maxlinelen=76).encode(linesep=self.linesep)
        return f"{name}: {subject}{self.linesep}".encode("ascii")


WIRE: Final = _Wire(linesep="\r\n")


def written(letter: Letter, mail_from: str) -> bytes:
    """Return a letter as it crosses the wire; raises ValueError for what cannot be written as mail."""
    text, html = laid_out(letter)
    mail = _begun(mail_from, letter.recipient, letter.subject, letter.message_id)
    ways = [f"<{letter.unsubscribe_url}>"] if _takes_one_click(letter.unsubscribe_url) else []
    if letter.unsubscribe_mailto:
        ways.append(f"<mailto:{_checked(letter.unsubscribe_mailto.removeprefix('mailto:'))}>")
    if ways:
        mail["List-Unsubscribe"] = ", ".join(ways)
    if _takes_one_click(letter.unsubscribe_url):
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"  # RFC 8058
    mail.set_content(text, cte="quoted-printable")  # every server takes it, whatever it says of 8BITMIME
    mail.add_alternative(html, subtype="html", cte="quoted-printable")
    return mail.as_bytes()


def note(mail_from: str, recipient: str, subject: str, text: str, message_id: str) -> bytes:
    """Return a plain alert as it crosses the wire; raises ValueError for what cannot be written as mail."""
    mail = _begun(mail_from, recipient, subject, message_id)
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office note comes back
    mail.set_content(text, cte="quoted-printable")
    return mail.as_bytes()


def _begun(mail_from: str, recipient: str, subject: str, message_id: str) -> EmailMessage:
    mail = EmailMessage(policy=WIRE)  # which raises ValueError for a header of two lines
    mail["From"], mail["To"], mail["Subject"] = mail_from, address(recipient), one_line(subject)
    mail["Date"], mail["Message-ID"] = datetime.now(UTC), message_id
    return mail


def address(text: str) -> Address:
    """Read a bare address; raises ValueError for one that needs quotes or SMTPUTF8, and puts its domain in ASCII."""
    local, _, domain = text.strip().rpartition("@")
    domain = domain.rstrip(".").encode("idna").decode()
    if not re.fullmatch(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}", local, re.ASCII) or not re.fullmatch(r"[\w.-]+", domain):
        raise ValueError("no address")
    return Address(username=local, domain=domain)


def _checked(url: str) -> str:
    if not _URL.fullmatch(url) or len(url) > LONGEST_URL:
        raise ValueError("no URL that a header can hold")
    return url


def _takes_one_click(url: str) -> bool:
    """Tell whether a mail service may post there: by https (RFC 8058, 3.1), and on this machine for tests."""
    parts = urlsplit(url)
    try:
        is_here = parts.hostname == "localhost" or ip_address(parts.hostname or "").is_loopback
    except ValueError:
        is_here = False
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and is_here))
