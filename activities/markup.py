"""The two parts of a mail's body, made from what marketing wrote: plain text, or HTML where it begins with `<`.

A link in plain text becomes one only where marketing or Baton put it: what a lead typed into a form stays text.
HTML is counted before anything parses it: css-inline ends the process for what nests too deeply, and HTML's own rules
for tags that are left open multiply them.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from html import escape
from html.parser import HTMLParser
from typing import Any, Final

import css_inline
import nh3

from .templates import Problem, TemplateBroken

MAX_ELEMENTS: Final = 3_000
MAX_DEPTH: Final = 60
MAX_FORMATTING: Final = 8
"""Elements such as `<b>` that are open at once; HTML repeats them in every paragraph until they are closed."""
MAX_REPEATED: Final = 8_000_000
"""Characters of such open tags times elements."""
MAX_TAG: Final = 4_000
MAX_STYLING: Final = 2_000_000
"""Characters of style sheet times elements."""

_FORMATTING: Final = frozenset({"a", "b", "code", "em", "font", "i", "s", "small", "strong", "u"})
_VOID: Final = frozenset({"br", "col", "hr", "img", "link", "meta"})
_CLOSED_BY_OTHERS: Final = frozenset({"li", "p", "tbody", "td", "tfoot", "th", "thead", "tr"})
_FRAME: Final = frozenset({"body", "head", "html", "link", "meta"})  # taken away, with what they load
_KEPT: Final = _FORMATTING | _CLOSED_BY_OTHERS | {
    "abbr", "blockquote", "br", "caption", "center", "col", "colgroup", "div", "h1", "h2", "h3", "h4", "h5", "h6",
    "hr", "img", "ol", "pre", "span", "sub", "sup", "table", "ul",
}  # fmt: skip
_COMMENT: Final = re.compile(r"<!--.*?(?P<end>-->|\Z)|<[!?][^<>]*(?P<close>>?)", re.DOTALL)
_UNSEEN: Final = re.compile(r"<(style|title)\b[^<>]*>(.*?)(</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
_TAG: Final = re.compile(r"<(/?)([a-z][^\s/<>]*)([^<>]*)(>?)", re.IGNORECASE)
_QUOTED: Final = re.compile(r"\"[^\"]*\"|'[^']*'")
_COSTLY_CSS: Final = re.compile(r"\\|:(?:has|is|where|not|nth|host|slotted)\b", re.IGNORECASE)
_PROPERTY: Final = re.compile(
    r"(?!-)(?!.*image)[a-z-]+\s*:(?:[^()\\<>]|(?:rgba?|hsla?)\([\d\s.,%/]*\))*", re.IGNORECASE
)

_URL: Final = re.compile(r"https?://[^\s<>\"'\\^`{|}\[\]]+")
_LINK: Final = re.compile(rf"\[(?P<words>[^\[\]\n]{{1,200}})\]\((?P<to>https?://[^\s()<>\"]+)\)|{_URL.pattern}")
_ENDING: Final = ".,;:!?)"
"""What follows a URL more often than it ends one."""
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_BLANK_LINES: Final = re.compile(r"\n[ \t]*\n\s*")


def is_html(template: str) -> bool:
    """Tell whether marketing wrote HTML."""
    return template.lstrip().startswith("<")


# --- plain text -------------------------------------------------------------------------------------------------


class Links:
    """The links that marketing or Baton put into a mail: whole URLs, and beginnings that fix the host."""

    def __init__(self, template: str, values: Mapping[str, Any]) -> None:
        written = {url.rstrip(_ENDING) for url in _URL.findall(template)}
        self._starts = tuple(url for url in written if "/" in url.partition("://")[2])
        given = [*dict(values.get("link") or {}).values(), values.get("unsubscribe_url"), values.get("preferences_url")]
        self._whole = written | {str(url) for url in given if url}

    def of(self, found: str) -> str:
        """Return the link in what looks like a URL, without the end of the sentence; empty if it is a stranger's."""
        url = found if found in self._whole else found.rstrip(_ENDING)
        return url if url in self._whole or url.startswith(self._starts) else ""


def text_part(rendered: str, links: Links) -> str:
    """Return plain text as it is mailed; `[words](URL)` becomes `words (URL)`."""
    pieces = (f"{words} ({url})" if url and words != url else words for words, url in _pieces(rendered, links))
    return _tidy("".join(pieces))


def html_part(rendered: str, links: Links) -> str:
    """Return plain text as HTML: a paragraph between blank lines, a link where there is one."""

    def inside(paragraph: str) -> Iterator[str]:
        for words, url in _pieces(paragraph, links):
            shown = escape(words).replace("\n", "<br>\n")
            yield f'<a href="{escape(url)}">{shown}</a>' if url else shown

    paragraphs = _BLANK_LINES.split(_tidy(rendered))
    return "\n".join(f"<p>{''.join(inside(paragraph))}</p>" for paragraph in paragraphs if paragraph)


def _pieces(text: str, links: Links) -> Iterator[tuple[str, str]]:
    """Yield the text in pieces, with the URL that a piece leads to, if any."""
    at = 0
    for found in _LINK.finditer(text):
        url = links.of(found["to"] or found[0])
        if not url or (found["to"] and url != found["to"]):
            continue
        yield text[at : found.start()], ""
        yield found["words"] or url, url
        at = found.end() if found["to"] else found.start() + len(url)
    yield text[at:], ""


def _tidy(text: str) -> str:
    lines = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).split("\n")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines)).strip("\n")


# --- HTML -------------------------------------------------------------------------------------------------------


def cleaned(html: str) -> str:
    """Return HTML that shows and links and does nothing else, with its style sheets in `style=`.

    Raises TemplateBroken for what a mail cannot hold.
    """
    css: list[str] = []

    def comment(found: re.Match[str]) -> str:
        _refuse(not (found["end"] or found["close"]), "a comment is never closed", html, found.start())
        return _lines(found)

    def unseen(found: re.Match[str]) -> str:
        _refuse(not found[3], f"a <{found[1].lower()}> is never closed", html, found.start())
        css.extend([found[2]] if found[1].lower() == "style" else [])
        return _lines(found)

    html = _CONTROL.sub("", html)
    html = _COMMENT.sub(comment, html)
    html = _UNSEEN.sub(unseen, html)
    _refuse_tangled(html)
    clean = _CLEANER.clean(html)
    if styles := "\n".join(css):
        elements = clean.count("<")
        _refuse(len(styles) * elements > MAX_STYLING, f"the style sheet is too large for {elements:,} elements")
        _refuse(bool(_COSTLY_CSS.search(styles)), "the style sheet holds selectors that a mail cannot")
        clean = _CLEANER.clean(css_inline.inline_fragment(clean, styles, load_remote_stylesheets=False))
    return clean


def problems_of(template: str) -> tuple[Problem, ...]:
    """Return what is wrong with a template's HTML; what it will be filled with is left out of account."""
    try:
        cleaned(_TAGS.sub(_lines, _VALUES.sub(lambda found: "x" + _lines(found), template)))
    except TemplateBroken as broken:
        return broken.problems
    return ()


_VALUES: Final = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_TAGS: Final = re.compile(r"\{%.*?%\}", re.DOTALL)


def _lines(found: re.Match[str]) -> str:
    """Keep the ends of lines, by which a problem is found again."""
    return "\n" * found[0].count("\n")


def _refuse_tangled(html: str) -> None:
    """Refuse HTML of which a parser would make far more than was written, in one pass over its tags.

    What could hide a tag from this count, such as a comment or an open quote, is refused with the rest.
    """
    _refuse(bool(re.search(r"<[!?]", html)), "a comment stands inside of what begins a tag")
    open_: dict[str, int] = {}
    count = most = longest = 0
    for tag in _TAG.finditer(html):
        name, attributes, at = tag[2].lower(), tag[3], tag.start()
        quotes = bool(re.search("[\"']", _QUOTED.sub("", attributes)))
        count += 1
        _refuse(name not in _KEPT | _FRAME, f"a mail holds no <{name[:40]}>", html, at)
        _refuse(not tag[4] or quotes, f"a <{name}> is not closed by >", html, at)
        _refuse(len(attributes) > MAX_TAG, f"a <{name}> has more than {MAX_TAG:,} characters", html, at)
        _refuse(count > 2 * MAX_ELEMENTS, f"a mail has at most {MAX_ELEMENTS:,} elements", html, at)
        if tag[1]:
            open_[name] = max(open_.get(name, 0) - 1, 0)
        elif name not in _VOID | _CLOSED_BY_OTHERS:
            open_[name] = open_.get(name, 0) + 1
            _refuse(sum(open_.values()) > MAX_DEPTH, f"elements nest at most {MAX_DEPTH} deep", html, at)
        if name in _FORMATTING and not tag[1]:
            formatting = sum(open_.get(one, 0) for one in _FORMATTING)
            _refuse(
                formatting > MAX_FORMATTING, f"{MAX_FORMATTING} of <b>, <a> and the like are open at most", html, at
            )
            most, longest = max(most, formatting), max(longest, len(attributes))
    _refuse(most * longest * count > MAX_REPEATED, "<b>, <a> and the like are too long for so many elements")


def _refuse(wrong: bool, said: str, text: str = "", at: int = 0) -> None:
    if wrong:
        raise TemplateBroken([Problem(text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at), said)])


def _attribute(element: str, name: str, value: str) -> str | None:
    """Let through what loads nothing but images by https."""
    if name == "style":
        kept = [one.strip() for one in value.split(";") if _PROPERTY.fullmatch(one.strip())]
        return "; ".join(kept) or None
    if (element, name) == ("img", "src"):
        return value if value.lower().startswith("https://") else None
    return value


_CELL: Final[Collection[str]] = ("align", "bgcolor", "colspan", "height", "rowspan", "valign", "width")
_CLEANER: Final = nh3.Cleaner(
    tags=_KEPT,
    attributes={
        "*": {"align", "class", "dir", "lang", "role", "style", "title"},
        "a": {"href"},
        "col": {"span", "width"},
        "font": {"color", "face", "size"},
        "img": {"alt", "border", "height", "src", "width"},
        "ol": {"start"},
        "table": {"bgcolor", "border", "cellpadding", "cellspacing", "width"},
        "td": set(_CELL),
        "th": set(_CELL),
        "tr": {"bgcolor", "valign"},
    },
    attribute_filter=_attribute,
    url_schemes={"http", "https", "mailto", "tel"},
    url_relative="deny",
    link_rel=None,
)


class _Reader(HTMLParser):
    """Reads cleaned HTML aloud."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self._links: list[tuple[str, int]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "a":
            self._links.append((values.get("href", ""), len(self.said)))
        elif tag == "img":
            self.said.append(f" {values.get('alt', '')} ")
        else:
            self.said.append(_BEFORE.get(tag, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._links:
            url, since = self._links.pop()
            words = "".join(self.said[since:]).strip()
            if url and url != words:
                self.said.append(f" ({url})" if words else url)
        elif tag in _AFTER:
            self.said.append(_AFTER[tag])

    def handle_data(self, data: str) -> None:
        self.said.append(re.sub(r"\s+", " ", data))


_PARAGRAPHS: Final = ("p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "blockquote", "pre", "table", "hr")
_BEFORE: Final = {**dict.fromkeys(_PARAGRAPHS, "\n\n"), "br": "\n", "div": "\n", "tr": "\n", "li": "\n- "}
_AFTER: Final = {**dict.fromkeys(_PARAGRAPHS, "\n\n"), "div": "\n", "td": " ", "th": " "}


def text_of(html: str) -> str:
    """Return cleaned HTML as text: words, the URLs behind them, and lines where the blocks were."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    lines = "".join(reader.said).replace("\xa0", " ").split("\n")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(re.sub(r" {2,}", " ", line).strip() for line in lines)).strip()
