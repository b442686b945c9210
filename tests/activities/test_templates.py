"""Templates as marketing writes them: right ones filled in, wrong ones named by their line, bombs cut off."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.bounded import FILTERS, MARKUP, PLAIN
from activities.templates import NAMES, Problem, TemplateBroken, check, lead_values, names, render
from tests.activities.confined import confined

VALUES = {
    "lead": lead_values({"name": "Jo Doe", "company": "Acme & Sons", "employees": 800, "industry": None, "role": " "}),
    "link": {"guide": "https://baton.test/l/1", "tour": "https://baton.test/l/2"},
    "moment": {"topic": "pricing"},
    "track": {"name": "Welcome"},
    "owner": {"name": "Ada", "email": "ada@acme.test"},
    "unsubscribe_url": "https://baton.test/u/1",
}


def said(text: str) -> list[str]:
    return [str(problem) for problem in check(text)]


def broken(text: str, values: dict[str, Any] = VALUES) -> str:
    with pytest.raises(TemplateBroken) as refused:
        render(text, values)
    return str(refused.value)


# --- filled in --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("Hello {{ lead.first_name }},\n\nsee {{ link.guide }}", "Hello Jo,\n\nsee https://baton.test/l/1"),
        ("More on {{ moment.topic | default: 'this' }}", "More on pricing"),
        ("A read for {{ lead.role | default: 'your team' }}", "A read for your team"),
        ("{{ lead.favourite_colour | default: 'blue' }}", "blue"),
        ("{{ lead['company'] }} has {{ lead.employees }}", "Acme & Sons has 800"),
        ("{% if lead.industry %}in {{ lead.industry }}{% else %}anywhere{% endif %}", "anywhere"),
        ("{% if lead.employees > 500 and lead.industry == blank %}a{% else %}b{% endif %}", "b"),
        ("{% unless lead.industry == 'logistics' %}other{% endunless %}", "other"),
        ("{% case lead.industry %}{% when 'logistics' %}trucks{% else %}things{% endcase %}", "things"),
        ("{% assign nick = lead.nick | default: '' %}{% if nick != '' %}{{ nick }}{% endif %}!", "!"),
        ("{% for i in (1..3) %}{{ i }}{% unless forloop.last %}, {% endunless %}{% endfor %}", "1, 2, 3"),
        ("{% for i in (1..9) reversed limit: 2 %}{% cycle 'a', 'b' %}{{ i }}{% endfor %}", "a2b1"),
        ("{% capture x %}{{ lead.name | upcase }}{% endcapture %}{{ x | append: '!' }}", "JO DOE!"),
        ("a {%- comment %} {{ nothing }} {% unclosed {% endcomment -%} b {%# said %}c", "ab c"),
        ("{% raw %}{{ lead.name }}{% endraw %} {{- ' x ' -}} y", "{{ lead.name }} x y"),
        ("{{ 'a,b,c' | split: ',' | reverse | join: '-' }} {{ 'äö' | size }} {{ 7 | times: 6 }}", "c-b-a 2 42"),
        ("{{ '2026-05-01' | date: '%d.%m.' }}", "01.05."),
        ("{{ owner.name }} {{ owner.email }} {{ track.name }} {{ unsubscribe_url }}",
         "Ada ada@acme.test Welcome https://baton.test/u/1"),
        ("no template at all { } % 100 %", "no template at all { } % 100 %"),
    ],
)  # fmt: skip
def test_a_right_template_has_no_problem_and_is_filled_in(text: str, rendered: str) -> None:
    assert said(text) == [] and render(text, VALUES) == rendered


def test_values_are_escaped_in_html_and_the_templates_own_words_are_not() -> None:
    text = "<b>{{ lead.company }}</b>{{ lead.company | append: '<i>' }}{{ lead.name | prepend: '&' }}"
    assert render(text, VALUES, html=True) == "<b>Acme &amp; Sons</b>Acme &amp; Sons<i>&Jo Doe"
    attack = {"lead": {"name": "<script>'\"&"}}
    assert render("{{ lead.name }}", attack) == "<script>'\"&"
    assert render("{{ lead.name }}", attack, html=True) == "&lt;script&gt;&#39;&#34;&amp;"


@settings(max_examples=200, deadline=None)
@given(st.text(), st.sampled_from(FILTERS))
def test_no_filter_lets_markup_of_a_lead_through(name: str, chosen: str) -> None:
    arguments = {"append": ": 'x'", "prepend": ": 'x'", "replace": ": 'q', lead.name", "split": ": ''"}
    text = f"{{{{ lead.name | {chosen}{arguments.get(chosen, '')} }}}}"
    attack = {"lead": {"name": f"<b>{name}</b><img src=x>"}}
    if check(text):
        return
    try:
        rendered = render(text, attack, html=True)
    except TemplateBroken:
        return
    assert "<" not in rendered.replace("<br />", "")


# --- holes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "{{ lead.industry }}",
        "{{ lead.role }}",
        "{{ lead.industry | upcase }}",
        "{{ lead.industry | plus: 1 }}",
        "{{ 1 | plus: lead.industry }}",
        "{{ 'a' | append: lead.industry }}",
        "{{ lead.name | replace: 'Jo', lead.industry }}",
        "{{ lead.industry | default: lead.role }}",
        "{{ lead.industry | size }}",
        "{{ lead.industry | first }}",
        "{{ lead.industry | date: '%Y' }}",
        "{% assign x = lead.industry %}{{ x }}",
        "{% capture x %}{{ lead.industry }}{% endcapture %}",
        "{% for x in lead.industry %}{% endfor %}",
        "{% cycle lead.industry %}",
        "{{ link.demo }}",
        "{{ moment.cause }}",
        "{{ preferences_url }}",
    ],
)
def test_a_name_without_a_value_stops_the_mail(text: str) -> None:
    assert said(text) == []
    assert "has no value" in broken(text)


def test_a_hole_is_named_with_its_line() -> None:
    assert broken("Hello,\n\n you are in {{ lead.industry }}") == (
        "line 3: lead.industry has no value; | default: '…' says what to write instead"
    )


def test_a_name_that_nothing_was_given_for_stops_the_mail() -> None:
    assert broken("{{ lead.name }}", {}) == "line 1: lead has no value; | default: '…' says what to write instead"


# --- problems ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a\n\n{{ lead.frist_name }}", ["line 3: lead.frist_name is not known, did you mean first_name?"]),
        ("{{ first_name }}", ["line 1: first_name is not known, did you mean lead.first_name?"]),
        ("{{ laed.name }}", ["line 1: laed.name is not known, did you mean lead.name?"]),
        ("{{ lead }}", ["line 1: lead alone is no text; take a field, such as lead.buyer_role"]),
        ("{{ link }}", ["line 1: link is not known; a link has a name, such as link.guide"]),
        ("{{ owner.phone }}", ["line 1: owner.phone is not known"]),
        ("{{ lead.name.first }}", ["line 1: lead.name.first is not known"]),
        ("{{ lead[track.name] }}", ["line 1: lead[track.name] is not known"]),
        (
            "{{ lead.favourite_colour }}",
            ["line 1: lead.favourite_colour is not known; an imported field needs | default: right after it"],
        ),
        (
            "{{ lead.favourite_colour | upcase | default: 'x' }}",
            ["line 1: lead.favourite_colour is not known; an imported field needs | default: right after it"],
        ),
        ("{{ lead.Colour | default: 'x' }}", ["line 1: lead.Colour is not known, did you mean country?"]),
        ("{% if lead.industy == 'x' %}{% endif %}", ["line 1: lead.industy is not known, did you mean industry?"]),
        ("{{ 'a' | append: lead.nmae }}", ["line 1: lead.nmae is not known, did you mean name?"]),
        ("{{ lead.name | upcse }}", ["line 1: there is no filter upcse, did you mean upcase?"]),
        ("{{ lead.name | append }}", ["line 1: append: missing a required argument: 'arg'"]),
        ("{{ lead.name | upcase: 1 }}", ["line 1: upcase: too many positional arguments"]),
        ("{{ lead.name | safe }}", ["line 1: there is no filter safe"]),
        ("{% assign x = (1..3) %}", ["line 1: a range stands only in a for"]),
        ("{% assign lead = 1 %}", ["line 1: lead is Baton's own name, take another"]),
        ("{% for owner in lead.name %}{% endfor %}", ["line 1: owner is Baton's own name, take another"]),
        ("{% for x in lead.name %}{% endfor %}{{ x }}", ["line 1: x is not known"]),
        (
            "{{ lead.nmae }}\n{{ lead.name | upcse }}\n{{ now }}",
            [
                "line 1: lead.nmae is not known, did you mean name?",
                "line 2: there is no filter upcse, did you mean upcase?",
                "line 3: now is not known",
            ],
        ),
        ("a\n{{ lead.name", ["line 2: this {{ is never closed"]),
        ("a\n{% if lead.name %}\n\n", ["line 2: this {% if %} is never closed"]),
        ("{% if lead.name %}{% endfor %}", ["line 1: this {% endfor %} closes nothing"]),
        ("\n{% endif %}", ["line 2: this {% endif %} closes nothing"]),
        ("{% comment %}", ["line 1: this {% comment %} is never closed"]),
        ("{{ }}", ["line 1: there is nothing between {{ and }}"]),
        ("{% ! %}", ["line 1: this tag has no name"]),
        ("\n\n{{ lead.name | }}", ["line 3: expected word, found end of expression"]),
        ("{% asign x = 1 %}", ["line 1: there is no tag asign, did you mean assign?"]),
        ("{% break %}", ["line 1: break stands only in a for"]),
        ("{% else %}", ["line 1: unexpected tag 'else'"]),
        ("x" * (64 * 1024 + 1), ["line 1: a template has at most 64 KiB"]),
        ("{% if 1 %}" * 11 + "{% endif %}" * 11, ["line 1: blocks nest at most 10 deep"]),
    ],
)
def test_a_wrong_template_is_refused_with_its_line_and_the_word_that_was_meant(text: str, problems: list[str]) -> None:
    assert said(text) == problems
    assert broken(text) == "\n".join(problems)


def test_a_problem_knows_its_column() -> None:
    assert check("a\n  {{ lead.nmae }}") == (Problem(2, 6, "lead.nmae is not known, did you mean name?"),)


@pytest.mark.parametrize(
    "tag",
    ["include 'a'", "render 'a'", "extends 'a'", "block 'a'", "macro 'a'", "call 'a'", "import 'a'", "tablerow a in b",
     "increment a", "liquid assign a = 1", "echo 'a'", "ifchanged", "doc", "layout 'a'"],
)  # fmt: skip
def test_no_tag_reaches_another_file(tag: str) -> None:
    assert any("there is no tag" in one for one in said(f"{{% {tag} %}}"))


def test_what_is_known_is_what_the_schema_says() -> None:
    for root, fields in NAMES.items():
        texts = [f"{{{{ {root}.{field} }}}}" for field in fields or ()] or [f"{{{{ {root} }}}}"]
        if fields is not None:
            assert [said(text) for text in texts] == [[] for _ in texts]
    assert said("{{ link.any_name_at_all }}") == []


def test_the_links_of_templates_are_known_by_name() -> None:
    assert names("{{ link.guide }}", "{% if lead.name %}{{ link.tour | upcase }}{% endif %}") == {"guide", "tour"}
    with pytest.raises(TemplateBroken):
        names("{{ link.guide")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(["{{", "}}", "{%", "%}", "-", "|", ":", ",", ".", "..", "(", ")", "[", "]", "'", '"']),
            st.sampled_from(["if ", "endif", "for i in ", "endfor", "assign x = ", "lead", "name", "default", "case "]),
            st.sampled_from(["comment", "endcomment", "raw", "endraw", "capture x", "cycle ", "#", "1", " ", "\n"]),
            st.text(max_size=5),
        ),
        max_size=30,
    )
)
def test_whatever_is_written_is_checked_and_filled_in_or_refused_with_a_place_in_it(parts: list[str]) -> None:
    text = "".join(parts)
    problems = check(text)
    for problem in problems:
        assert 1 <= problem.line <= text.count("\n") + 1 and problem.column >= 1 and problem.said
    for html in (False, True):
        try:
            render(text, VALUES, html=html)
        except TemplateBroken:
            continue
        assert not problems


# --- what a lead is called --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("Jo Doe", "Jo"),
        ("Doe, Jo", "Jo"),
        ("Dr. Jo Doe", "Jo"),
        ("Prof. Dr. Jo Doe", "Jo"),
        ("  Jo  ", "Jo"),
        ("Jo,", "Jo"),
        ("李雷", "李雷"),
        ("jo@acme.test", None),
        ("Dr.", None),
        ("", None),
        (None, None),
    ],
)
def test_the_first_name_comes_of_the_name_where_anyone_can_tell(name: str | None, first: str | None) -> None:
    assert lead_values({"name": name}).get("first_name") == first


def test_a_first_name_of_its_own_wins_and_what_is_blank_has_no_value() -> None:
    values = lead_values({"name": "Johanna Doe", "first_name": "Jo", "company": "", "phone": None, "employees": 0})
    assert values == {"name": "Johanna Doe", "first_name": "Jo", "employees": 0}


# --- bombs ------------------------------------------------------------------------------------------------------

GROWN = "{% assign x = 'abcdefgh' %}" + "{% assign x = x | append: x %}" * 12
LOOP = "{% for i in (1..9000) %}"
LONG_IF = "{% if " + " and ".join(["1"] * 160) + " %}{% endif %}"

BOMBS = {
    "loops in loops": ("{% for a in (1..9999) %}" * 3 + "x" + "{% endfor %}" * 3, "loops more than"),
    "loops after loops": ("{% for a in (1..9000) %}{% endfor %}" * 900, "loops more than"),
    "chained replace": ("{{ 'a'" + (" | replace: 'a', '" + "a" * 100 + "'") * 6 + " }}", "replace: text"),
    "replace by itself": (GROWN + "{{ x | replace: 'a', x | replace: 'b', x }}", "replace: text"),
    "append in a loop": ("{% assign x = 'ab' %}" + LOOP + "{% assign x = x | append: x %}{% endfor %}", "append: text"),
    "prepend in a row": ("{% assign x = 'ab' %}" + "{% assign x = x | prepend: x %}" * 60, "prepend: text"),
    "escape upon escape": ("{% assign x = '&' %}" + "{% assign x = x | escape | append: x %}" * 40, "text has at most"),
    "huge times": ("{% assign x = 99 %}" + LOOP + "{% assign x = x | times: x %}{% endfor %}{{ x }}", "too large"),
    "a number of many digits": ("{% assign x = " + "9" * 900 + " | times: 1 %}", "too large"),
    "an endless fraction": ("{% assign x = 9.5 %}" + "{% assign x = x | times: x %}" * 30 + "{{ x | ceil }}", "large"),
    "capture of itself": (
        "{% capture x %}abcdefgh{% endcapture %}" + LOOP + "{% capture x %}{{ x }}{{ x }}{% endcapture %}{% endfor %}",
        "256 KiB come out",
    ),
    "many captures": (
        "".join(f"{{% capture x{i} %}}{'y' * 900}{{% endcapture %}}" for i in range(60))
        + LOOP
        + "".join(f"{{% capture y{i} %}}{{{{ x1 }}}}{{% endcapture %}}" for i in range(60))
        + "{% endfor %}",
        "256 KiB come out",
    ),
    "many names": (
        GROWN + "".join(f"{{% assign x{i} = x | append: '{i}' | split: '|' %}}" for i in range(900)),
        "keeps too much",
    ),
    "deep nesting": ("{% if 1 %}" * 3_000 + "{% endif %}" * 3_000, "nest at most"),
    "a deep path": ("{{ " + "a[" * 330 + "1" + "]" * 330 + " }}", "too deeply"),
    "a deep condition": ("{% if " + "lead.name == 'x' and " * 45 + "1 %}{% endif %}", "0"),
    "cycle": (LOOP + ("{% cycle " + "'xxxxxxxxxxxxxxxxxxxxxxxx', " * 30 + "'x' %}") * 70 + "{% endfor %}", "256 KiB"),
    "a large range in reverse": ("{% for i in (1..99999999999) reversed %}x{% endfor %}", "loops more than"),
    "a large range and an offset": ("{% for i in (1..9999999999) offset: 9999999990 %}{% endfor %}", "loops more than"),
    "a range up to a lead's field": ("{% for i in (1..lead.employees) reversed %}x{% endfor %}", "loops more than"),
    "a range that contains": ("{% if (1..99999999999999) contains 1.5 %}{% endif %}", "only in a for"),
    "a range joined": ("{{ (1..99999999999) | join: ',' }}", "only in a for"),
    "split and join": ("{% assign x = 'abcdefgh' %}" + "{% assign x = x | split: '' | join: x %}" * 9, "at most"),
    "join by much": (GROWN + "{{ 'a b c d e f' | split: ' ' | join: x }}", "join: text"),
    "slices put together": (
        "{% assign x = 'ab' %}" + "{% assign x = x | slice: 0, 99999999 | append: x | append: x %}" * 40,
        "append: text",
    ),
    "concat": ("{% assign x = 'a,b' | split: ',' %}" + "{% assign x = x | concat: x %}" * 40, "concat: a list"),
    "a wide date": ("{{ 'now' | date: '%999999999Y' }}", "0"),
    "a long date": (GROWN + "{{ x | date: '%Y' }}", "date: text"),
    "an open value and blanks": ("{{" + " " * 65_000, "never closed"),
    "a value of blanks": ("{{" + " " * 65_000 + "}}", "at most 1,000 characters"),
    "open values in a comment": ("{% comment %}" + "{{ " * 20_000, "never closed"),
    "open raws in a comment": ("{% comment %}" + "{% raw %}" * 7_000, "never closed"),
    "open brackets": (("{{ " + "(" * 990 + "1..2 }}") * 60, "too deeply"),
    "open strings": (("{{ a" + "['a\"" * 200 + " }}") * 60, "expected"),
    "many values": ("{{1}}" * 13_000, "at most 2,000 tags"),
    "many unknown names": (("{{ 1 | append: " + "qwertz, " * 120 + "1 }}") * 60, "too many positional"),
    "many filters": (("{{1" + "|abs" * 240 + "}}") * 60, "60"),
    "long conditions in a loop": (LOOP + LONG_IF * 60 + "{% endfor %}", "takes too long"),
    "filters in a loop": (GROWN + LOOP + ("{% assign y = x " + "|upcase|downcase" * 50 + " %}") * 50 + "{% endfor %}",
        "takes too long"),
    "silent loops": ("{% for a in (1..98) %}{% for b in (1..98) %}" + "{% if 1 %}{% endif %}" * 900
        + "{% endfor %}{% endfor %}", "the template takes too"),
    "searches in a loop": (GROWN + "{% assign y = x | append: 'b' %}{% assign z = x | append: x %}" + LOOP
        + "{% if z contains y %}{% endif %}" * 50 + "{% endfor %}", "the template takes too"),
    "uniq in a loop": ("{% assign x = 'a' %}{% for i in (1..900) %}{% assign x = x | append: i | append: ' ' %}"
        "{% endfor %}" + LOOP + "{% assign y = x | split: ' ' | uniq %}{% endfor %}", "takes too long"),
}  # fmt: skip


@pytest.fixture(scope="module")
def rendered() -> dict[str, tuple[int, str]]:
    return confined("render", {name: text for name, (text, _) in BOMBS.items()})


@pytest.fixture(scope="module")
def checked() -> dict[str, tuple[int, str]]:
    return confined("check", {name: text for name, (text, _) in BOMBS.items()})


@pytest.mark.parametrize("name", BOMBS)
def test_a_template_that_asks_for_too_much_is_cut_off_within_a_second_and_64_mb(
    name: str, rendered: dict[str, tuple[int, str]]
) -> None:
    status, outcome = rendered[name]
    assert status == 0, "it was killed"
    assert BOMBS[name][1] in outcome


@pytest.mark.parametrize("name", BOMBS)
def test_checking_a_template_takes_no_longer_whatever_it_would_do(
    name: str, checked: dict[str, tuple[int, str]]
) -> None:
    assert checked[name][0] == 0, "it was killed"


def test_what_takes_more_than_a_second_or_64_mb_is_killed() -> None:
    """Else the tests above would prove nothing."""
    ends = confined("run", {"loops": "while True: pass", "allocates": "bytearray(80 * 2**20)", "is small": "1"})
    assert [status == 0 for status, _ in ends.values()] == [False, False, True]


def test_the_two_ways_of_filling_in_offer_the_same() -> None:
    assert set(PLAIN.filters) == set(MARKUP.filters) == set(FILTERS) and set(PLAIN.tags) == set(MARKUP.tags)
