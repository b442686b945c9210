"""A mail's words, layout and headers, and its HTML as marketing writes it: the good, the careless and the hostile."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.mail import Letter, compose, laid_out, problems, written
from activities.markup import cleaned
from activities.smtp import Mailer
from activities.templates import Problem, TemplateBroken
from tests.activities.confined import confined
from tests.outside import Mailbox

FROM = "Bäton <baton@acme.com>"
VALUES: dict[str, Any] = {
    "lead": {"first_name": "Jo", "company": "Acme & Sons", "note": "see https://evil.test/x [win](https://evil.test)"},
    "link": {"guide": "https://baton.acme.com/l/1?a=1&b=2"},
    "unsubscribe_url": "https://baton.acme.com/u/1",
}


def a_letter(**others: Any) -> Letter:
    known = {
        "recipient": "jo@acme.com",
        "subject": "Hello",
        "text": "Hello Jö",
        "html": "<p>Hello J\u00f6</p>",
        "message_id": "<7@baton>",
        "unsubscribe_url": "https://baton.acme.com/u/1",
    }
    return Letter(**{**known, **others})


def read(letter: Letter) -> EmailMessage:
    mail = message_from_bytes(written(letter, FROM), policy=default)
    assert not mail.defects
    return mail


def parts(letter: Letter) -> tuple[str, str]:
    text, html = read(letter).iter_parts()
    assert isinstance(text, EmailMessage) and isinstance(html, EmailMessage)
    assert (text.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    return text.get_content(), html.get_content()


def refused(body: str) -> str:
    with pytest.raises(TemplateBroken) as broken:
        compose("A subject", body, VALUES)
    return broken.value.problems[0].said


# --- words ------------------------------------------------------------------------------------------------------


def test_plain_text_becomes_paragraphs_and_links() -> None:
    body = "Hello {{ lead.first_name }},\n\n\nat {{ lead.company }} <3\nread {{ link.guide }}.\n"
    words = compose("Hello\n {{ lead.first_name }}", body, VALUES)
    assert words.subject == "Hello Jo"
    assert words.text == "Hello Jo,\n\nat Acme & Sons <3\nread https://baton.acme.com/l/1?a=1&b=2."
    url = "https://baton.acme.com/l/1?a=1&amp;b=2"
    assert words.html == (f'<p>Hello Jo,</p>\n<p>at Acme &amp; Sons &lt;3<br>\nread <a href="{url}">{url}</a>.</p>')


def test_words_in_brackets_link_in_html_and_are_followed_by_the_url_in_text() -> None:
    words = compose("s", "Read [the guide]({{ link.guide }}) or [ours](https://acme.com/x), please", VALUES)
    assert words.text == "Read the guide (https://baton.acme.com/l/1?a=1&b=2) or ours (https://acme.com/x), please"
    assert words.html == (
        '<p>Read <a href="https://baton.acme.com/l/1?a=1&amp;b=2">the guide</a>'
        ' or <a href="https://acme.com/x">ours</a>, please</p>'
    )


def test_what_a_lead_typed_becomes_no_link() -> None:
    words = compose("s", "You wrote: {{ lead.note | default: '' }}", VALUES)
    assert "<a" not in words.html and "https://evil.test/x" in words.html


@pytest.mark.parametrize(
    ("body", "linked"),
    [
        ("https://acme.com/{{ lead.first_name }}!", ["https://acme.com/Jo"]),
        ("https://acme.com{{ lead.first_name }}", []),
        ("https://{{ lead.first_name }}.acme.com/", []),
        ("(https://acme.com/a)", ["https://acme.com/a"]),
        ("https://acme.com/a, https://acme.com/b", ["https://acme.com/a", "https://acme.com/b"]),
        ("javascript:alert(1) [x](javascript:alert(1))", []),
        ("[a\nb](https://acme.com/a)", ["https://acme.com/a"]),
    ],
)
def test_a_link_is_what_marketing_fixed_the_host_of(body: str, linked: list[str]) -> None:
    assert re.findall('href="([^"]*)"', compose("s", body, VALUES).html) == linked


def test_html_is_cleaned_its_style_sheet_put_inline_and_its_text_read_aloud() -> None:
    body = """
    <!doctype html><html><head><title>T</title><style>p.x { color: red } @media print { p { color: blue } }</style>
    <!--[if mso]><b><![endif]--></head><body onload="x()">
    <h1>Hello {{ lead.first_name }}</h1><p class="x" style="margin: 0; background-image: url(https://t.test/)">at
    {{ lead.company }}</p><ul><li>one<li>two</ul><table width="600"><tr><td>a<td>b</table>
    <a href="{{ link.guide }}">guide</a> <img src="https://acme.com/a.png" alt="A tour" width="10"></body></html>"""
    words = compose("s", body, VALUES)
    assert '<p class="x" style="color: red; margin: 0">at' in words.html and "Acme &amp; Sons</p>" in words.html
    assert '<a href="https://baton.acme.com/l/1?a=1&amp;b=2">guide</a>' in words.html
    assert '<img src="https://acme.com/a.png" alt="A tour" width="10">' in words.html
    assert not re.search("<style|<title|<html|<body|onload|url|<!--|mso", words.html)
    assert words.text == (
        "Hello Jo\n\nat Acme & Sons\n\n- one\n- two\n\na b\n\nguide (https://baton.acme.com/l/1?a=1&b=2) A tour"
    )


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ('<p onclick="x()">a</p>', "<p>a</p>"),
        ('<a href="javascript:alert(1)">a</a>', "<a>a</a>"),
        ('<a href="data:text/html,x">a</a>', "<a>a</a>"),
        ('<a href="/x">a</a>', "<a>a</a>"),
        ('<a href="mailto:jo@acme.com">a</a>', '<a href="mailto:jo@acme.com">a</a>'),
        ('<img src="http://acme.com/a.png">', "<img>"),
        ('<img src="https://acme.com/a.png" onerror="x()" srcset="https://t.test/">', '<img src="https://acme.com/a.png">'),
        ('<td background="https://t.test/">a</td>', "a"),
        ('<p style="background: url(https://t.test/)">a</p>', "<p>a</p>"),
        (r'<p style="background: u\72l(https://t.test/); color: rgb(1, 2)">a</p>', '<p style="color: rgb(1, 2)">a</p>'),
        ('<p style="cursor: image-set(\'a\' 1x); font: 9px/1.5 Arial">a</p>', '<p style="font: 9px/1.5 Arial">a</p>'),
        ('<p style="width: expression(alert(1))">a</p>', "<p>a</p>"),
        ('<link rel="stylesheet" href="https://t.test/"><meta http-equiv="refresh" content="0"><p>a</p>', "<p>a</p>"),
        ("<style>p { background: url(https://t.test/) }</style><p>a</p>", "<p>a</p>"),
        ('<style>@import "https://t.test/";</style><p>a</p>', "<p>a</p>"),
        ("<p>a &lt;b&gt; &amp;amp;</p>", "<p>a &lt;b&gt; &amp;amp;</p>"),
        ("<p>unclosed <b>bold", "<p>unclosed <b>bold</b></p>"),
    ],
)  # fmt: skip
def test_html_shows_and_links_and_does_nothing_else(wrong: str, right: str) -> None:
    assert cleaned(wrong) == right


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<script>alert(1)</script>", "a mail holds no <script>"),
        ("<svg onload=x>", "a mail holds no <svg>"),
        ("<form><input></form>", "a mail holds no <form>"),
        ("<p>a<textarea></p>", "a mail holds no <textarea>"),
        ("<p title='a>b</p>", "a <p> is not closed by >"),
        ("<p", "a <p> is not closed by >"),
        ("<!-- a", "a comment is never closed"),
        ("<p><<!-- a -->!-- </b> -->", "a comment stands inside of what begins a tag"),
        ("<p><<title>a</title>!-- </b> -->", "a comment stands inside of what begins a tag"),
        ("<style>p {", "a <style> is never closed"),
        ("<div>" * 61, "elements nest at most 60 deep"),
        ("<b>" * 9, "8 of <b>, <a> and the like are open at most"),
        ("<p>a</p>" * 3_001, "a mail has at most 3,000 elements"),
        ("<style>" + "p { color: red }" * 900 + "</style>" + "<p>a</p>" * 900, "the style sheet is too large"),
        ("<style>p:has(b) { color: red }</style><p>a</p>", "selectors that a mail cannot"),
    ],
)
def test_html_that_a_mail_cannot_hold_is_refused_when_it_is_saved_and_when_it_is_sent(body: str, said: str) -> None:
    assert said in refused(body)
    (problem,) = problems("A subject", body)
    assert said in problem.said


def test_a_problem_of_html_is_named_with_its_line() -> None:
    body = "<p>\n<!-- a\n -->{{ lead.first_name\n}}{% comment %}\n{% endcomment %}<style>\n</style>\n  <form></p>"
    assert problems("A subject", body) == (Problem(7, 3, "a mail holds no <form>"),)


def test_templates_are_checked_together() -> None:
    assert problems("Hi {{ lead.first_name }}", "<p>{% if lead.company %}{{ lead.company }}{% endif %}</p>") == ()
    assert problems("{{ lead.frist_name }}", "\n{{ lead.compny }}") == (
        Problem(1, 4, "lead.frist_name is not known, did you mean first_name?"),
        Problem(2, 4, "lead.compny is not known, did you mean company?"),
    )


@pytest.mark.parametrize(
    ("subject", "body", "said"),
    [
        (" {{ '' }} ", "a", "the subject comes out empty"),
        ("a" * 501, "a", "the subject comes out longer than 500 characters"),
        ("a", " \n{{ ' ' }}\n", "the body comes out empty"),
        ("a", "<p> </p>", "the body comes out empty"),
        ("{{ lead.industry }}", "a", "lead.industry has no value"),
    ],
)
def test_a_mail_with_nothing_in_it_does_not_go_out(subject: str, body: str, said: str) -> None:
    with pytest.raises(TemplateBroken, match=said):
        compose(subject, body, VALUES)


class Tags(HTMLParser):
    """The tags of a document, and what they load or link to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.loads, self.handlers = list[str](), list[str](), list[str]()
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [
            value or "" for name, value in attrs if name in ("src", "srcset", "background", "action", "data")
        ]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


PIECES = st.one_of(
    st.sampled_from(["<", ">", "</", "/>", '"', "'", "=", " ", "<!--", "-->", "&lt;", "&", "\\", "\x00", "\n"]),
    st.sampled_from(["b", "p", "a", "img", "script", "svg", "style", "table", "td", "math", "body", "title", "div"]),
    st.sampled_from(
        [' src="x"', " onerror=x", ' href="javascript:x"', ' style="color:red;background:url(x)"', "{x:y}"]
    ),
    st.text(max_size=3),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=25))
def test_whatever_is_written_comes_out_harmless(pieces: list[str]) -> None:
    try:
        html = cleaned("<p>" + "".join(pieces))
    except TemplateBroken:
        return
    seen = Tags(html)
    assert not {"script", "svg", "style", "math", "title", "body"} & set(seen.tags)
    assert not seen.handlers and all(url.startswith("https://") for url in seen.loads)
    assert not re.search(r"<[^>]*(?:javascript:|url\()", html)
    assert cleaned(html) == html


MARKUP_BOMBS = {
    "deep": "<div>{% for i in (1..9000) %}<div>{% endfor %}",
    "deep behind tables": "<p>{% for i in (1..2900) %}<div><table></div>{% endfor %}",
    "open formatting in paragraphs": "<p>" + "".join(f'<b title="{i}">' for i in range(2_000)) + "<p>x" * 3_000,
    "long open formatting": "<p>" + "".join(f'<b title="{i}{"y" * 3_900}">' for i in range(8)) + "<p>x" * 5_800,
    "formatting closed in a comment": "<p>" + "".join(f'<b title="{i}"><!--</b>-->' for i in range(900)) + "<p>x" * 900,
    "formatting closed in a value": "<p>" + "".join(f"<b title='{i}></b>'>" for i in range(900)) + "<p>x" * 900,
    "a large style sheet": "<style>" + "*{color:red}" * 3_000 + "</style>" + "<p>x" * 2_000,
    "costly selectors": "<style>" + "* * * * * * p * * * b{color:red}" * 20 + "</style>" + "<div>" * 55 + "<p>x" * 900,
    "open styles": "<p>" + "<style>" * 9_000,
    "open titles": "<p>" + "<title>" * 9_000,
    "open comments": "<p>" + "<!--" * 16_000,
    "odd comments": "<p>" + "<!" * 30_000 + "<?" * 1_000,
    "open tags": "<p>" + "<a " * 20_000,
    "brackets": "<p>{% for i in (1..9000) %}<<<<<<<<<<<<<<<<<<<<<<<{% endfor %}",
    "ampersands": "<p>{% for i in (1..9000) %}&&&&&&&&&&&&&&&&&&&&&&{% endfor %}",
    "cells": "<table>" * 55 + "<td>x" * 5_000,
    "links in links": "<a href=x><p></a>" * 2_900,
    "text of brackets": "{% for i in (1..9000) %}[[[[[[[[[](((((((((({% endfor %}",
    "text of links": "{% for i in (1..6000) %}[a](https://acme.com/a){% endfor %}",
    "text of lines": "{% for i in (1..9000) %} \n \n \n \n \n \n \n \n{% endfor %}x",
}  # fmt: skip


@pytest.fixture(scope="module")
def composed() -> dict[str, tuple[int, str]]:
    return confined("compose", MARKUP_BOMBS)


@pytest.mark.parametrize("name", MARKUP_BOMBS)
def test_html_that_would_grow_is_cut_off_within_a_second_and_64_mb(
    name: str, composed: dict[str, tuple[int, str]]
) -> None:
    status, outcome = composed[name]
    assert status == 0, "it was killed"
    assert outcome


# --- layout -----------------------------------------------------------------------------------------------------


def test_both_parts_say_the_same_and_end_with_a_way_out() -> None:
    text, html = parts(a_letter())
    assert text.splitlines() == ["Hello Jö", "", "-- ", "Unsubscribe: https://baton.acme.com/u/1"]
    assert "<p>Hello Jö</p>" in html and ">Unsubscribe</a>" in html
    assert html.index("Hello Jö</p>") < html.index('href="https://baton.acme.com/u/1"')


def test_a_letter_loads_nothing_but_the_picture_that_tells_of_its_opening() -> None:
    _, html = laid_out(a_letter())
    assert Tags(html).loads == [] and not re.search(r"url\(|@import|<link|http://", html)
    _, html = laid_out(a_letter(open_url="https://baton.acme.com/o/1?a=1&b=2"))
    assert Tags(html).loads == ["https://baton.acme.com/o/1?a=1&b=2"] and html.count("<img") == 1


def test_the_layout_is_inline_and_knows_the_dark() -> None:
    _, html = laid_out(a_letter(subject="A <b> & c"))
    assert re.search(r'class="baton-body" style="[^"]*max-width: 600px', html)
    assert "@media (prefers-color-scheme: dark)" in html and 'content="light dark"' in html
    assert "<title>A &lt;b&gt; &amp; c</title>" in html
    assert "%(" not in html and "stands-here" not in html


def test_a_letter_can_hold_the_layouts_own_marks() -> None:
    _, html = laid_out(a_letter(subject="%(out)s", html="<p>%(title)s baton-body-stands-here \\1</p>"))
    assert "<title>%(out)s</title>" in html and "<p>%(title)s baton-body-stands-here \\1</p>" in html


# --- on the wire ------------------------------------------------------------------------------------------------


async def test_a_letter_arrives_with_exactly_these_headers(open_door: Callable[..., str]) -> None:
    mailbox = Mailbox()
    letter = a_letter(subject="Grüße  an\r\nBcc: all@acme.com", unsubscribe_mailto="out@acme.com")
    async with Mailer(open_door(mailbox), FROM) as mailer:
        await mailer.send_letter(letter)
    mail, (envelope,) = mailbox.mail(), mailbox.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("baton@acme.com", ["jo@acme.com"])
    assert mail.keys() == [
        "From", "To", "Subject", "Date", "Message-ID", "List-Unsubscribe", "List-Unsubscribe-Post",
        "MIME-Version", "Content-Type",
    ]  # fmt: skip
    assert (mail["From"], mail["To"]) == (FROM, "jo@acme.com")
    assert mail["Subject"] == "Grüße an Bcc: all@acme.com" and mail["Bcc"] is None
    assert abs(mail["Date"].datetime - datetime.now(UTC)) < timedelta(minutes=1)
    assert mail["Message-ID"] == "<7@baton>"
    assert mail["List-Unsubscribe"] == "<https://baton.acme.com/u/1>, <mailto:out@acme.com>"
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert mail.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    assert [part.get_content_charset() for part in mail.iter_parts()] == ["utf-8", "utf-8"]


@pytest.mark.parametrize(
    ("url", "mailto", "header", "one_click"),
    [
        ("https://b.com/u", None, "<https://b.com/u>", True),
        ("https://b.com/u", "mailto:out@b.com?subject=out", "<https://b.com/u>, <mailto:out@b.com?subject=out>", True),
        ("http://127.0.0.1:8000/u", None, "<http://127.0.0.1:8000/u>", True),
        ("http://localhost/u", None, "<http://localhost/u>", True),
        ("http://[::1]/u", None, "<http://[::1]/u>", True),
        ("http://b.com/u", None, None, False),
        ("http://b.com/u", "out@b.com", "<mailto:out@b.com>", False),
        ("http://127.0.0.1.b.com/u", None, None, False),
        ("ftp://b.com/u", None, None, False),
        ("/u", None, None, False),
    ],
)
def test_one_click_is_offered_only_where_a_mail_service_may_post(
    url: str, mailto: str | None, header: str | None, one_click: bool
) -> None:
    mail = read(a_letter(unsubscribe_url=url, unsubscribe_mailto=mailto))
    assert mail["List-Unsubscribe"] == header
    assert mail["List-Unsubscribe-Post"] == ("List-Unsubscribe=One-Click" if one_click else None)


def test_a_long_url_stays_whole() -> None:
    url = "https://baton.acme.com/u/" + "a" * 800
    data = written(a_letter(unsubscribe_url=url, unsubscribe_mailto="out@acme.com"), FROM)
    assert f"List-Unsubscribe: <{url}>,\r\n <mailto:out@acme.com>\r\n".encode() in data
    assert max(map(len, data.split(b"\r\n"))) <= 998 and url in parts(a_letter(unsubscribe_url=url))[0]
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", data) and data.isascii()


@pytest.mark.parametrize(
    "wrong",
    [
        {"recipient": "jo@acme.com\r\nBcc: all@acme.com"},
        {"recipient": "Jo <jo@acme.com>"},
        {"message_id": "<7@baton>\r\nBcc: all@acme.com"},
        {"message_id": "<7@baton>\nBcc: all@acme.com"},
        {"unsubscribe_url": "https://b.com/u\r\nBcc: all@acme.com"},
        {"unsubscribe_url": "https://b.com/u>, <https://evil.test/"},
        {"unsubscribe_url": 'https://b.com/u"onclick="x'},
        {"unsubscribe_url": "https://b.com/ü"},
        {"unsubscribe_url": "https://b.com/" + "a" * 900},
        {"unsubscribe_url": ""},
        {"unsubscribe_mailto": "out@b.com>\r\nBcc: all@acme.com"},
        {"open_url": "https://b.com/o\r\n"},
    ],
)
def test_no_second_header_can_be_smuggled_in(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"."):
        written(a_letter(**wrong), FROM)


@settings(max_examples=200, deadline=None)
@given(st.text(), st.text(), st.text())
def test_whatever_is_said_stays_where_it_belongs(subject: str, text: str, html: str) -> None:
    letter = a_letter(subject=subject, text=text, html=html.replace("<", "&lt;"))
    data = written(letter, FROM)
    head = data.partition(b"\r\n\r\n")[0]
    names = [line.partition(b":")[0] for line in head.split(b"\r\n") if not line.startswith((b" ", b"\t"))]
    assert names == [
        b"From", b"To", b"Subject", b"Date", b"Message-ID", b"List-Unsubscribe", b"List-Unsubscribe-Post",
        b"MIME-Version", b"Content-Type",
    ]  # fmt: skip
    assert data.isascii() and not re.search(rb"(?<!\r)\n|\r(?!\n)", data)
