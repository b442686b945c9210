"""Alerts on their way out: every way in which a service can take, refuse or lose one."""

import asyncio
import contextvars
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import requests
import structlog

from activities.channels import Chat, _current, _Talk, masked, problem_of, wait_asked
from activities.outcomes import Fate, Outcome
from tests.outside import Deed, Service, a_service, answers, drips, hangs, hangs_up
from tests.support import AT_HOME

pytestmark = pytest.mark.usefixtures("no_proxy")
SHORT = timedelta(seconds=0.5)
LONG = timedelta(seconds=20)


async def chatted(service: Service, patience: timedelta = LONG, url: str = "") -> Outcome:
    return await Chat(patience, AT_HOME).send(url or service.url(), "A lead waits", "Jo Doe of Acme")


async def test_a_service_takes_the_plain_text_once() -> None:
    with a_service(answers(200)) as service:
        outcome = await Chat(LONG, AT_HOME).send(service.url(), "A lead\r\nwaits", "Jo <b>Doe</b>\nof *Acme*")
    assert outcome == Outcome(Fate.SENT, "the service answered 200 OK")
    (body,) = service.arrived
    assert (body["title"], body["message"]) == ("A lead waits", "Jo <b>Doe</b>\nof *Acme*")


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        (201, Fate.SENT),
        (400, Fate.IMPOSSIBLE),
        (401, Fate.IMPOSSIBLE),
        (404, Fate.IMPOSSIBLE),
        (410, Fate.IMPOSSIBLE),
        (408, Fate.REFUSED),
        (429, Fate.REFUSED),
        (500, Fate.REFUSED),
        (503, Fate.REFUSED),
        (599, Fate.REFUSED),
    ],
)
async def test_the_status_of_the_answer_decides(status: int, fate: Fate) -> None:
    with a_service(answers(status)) as service:
        outcome = await chatted(service)
    assert outcome.fate is fate and str(status) in outcome.said and len(service.arrived) == 1


async def test_a_service_says_when_to_come_again() -> None:
    with a_service(answers(429, Retry_After="30")) as service:
        outcome = await chatted(service)
    assert outcome == Outcome(Fate.REFUSED, "the service answered 429 Too Many Requests", timedelta(seconds=30))


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("0", 0),
        ("86400", 3_600),
        ("9" * 5_000, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("Fri, 01 May 2026 12:01:00 GMT", 60),
        ("Fri, 01 May 2026 11:00:00 GMT", 0),
        ("Sat, 02 May 2026 12:00:00 -0000", 3_600),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 3_600),
    ],
)
def test_a_wait_is_read_in_seconds_or_as_a_date_and_never_exceeds_an_hour(asked: str, seconds: int | None) -> None:
    wait = wait_asked(asked, datetime(2026, 5, 1, 12, tzinfo=UTC))
    assert wait == (None if seconds is None else timedelta(seconds=seconds))


async def test_a_redirect_is_not_followed_whatever_the_url_asks_for() -> None:
    with a_service(answers(307, Location="/elsewhere")) as service:
        outcome = await chatted(service, url=service.url(rest="path?redirect=yes"))
    assert outcome.fate is Fate.IMPOSSIBLE and "redirect" in outcome.said and len(service.arrived) == 1


async def test_a_target_that_hangs_may_have_got_it() -> None:
    with a_service(hangs) as service:
        outcome = await chatted(service, SHORT)
        assert outcome == Outcome(Fate.UNKNOWN, "no answer came in time; it may have arrived")
        assert len(service.arrived) == 1


async def test_a_target_that_hangs_up_may_have_got_it() -> None:
    with a_service(hangs_up) as service:
        outcome = await chatted(service)
    assert outcome.fate is Fate.UNKNOWN and "broke off" in outcome.said and len(service.arrived) == 1


async def test_an_answer_without_an_end_is_left_when_the_patience_is_over() -> None:
    with a_service(drips) as service:
        outcome = await chatted(service, SHORT)
        assert outcome == Outcome(Fate.UNKNOWN, "no answer came in time; it may have arrived")
        assert len(service.arrived) == 1


async def test_a_port_with_nothing_behind_it_refuses(free_ports: Callable[[int], list[int]]) -> None:
    outcome = await Chat(guard=AT_HOME).send(f"json://127.0.0.1:{free_ports(1)[0]}/path", "A lead waits", "Jo Doe")
    assert outcome == Outcome(Fate.REFUSED, "no connection")


async def test_a_name_that_no_host_has_refuses() -> None:
    outcome = await Chat(LONG, AT_HOME).send("json://nowhere.invalid/path", "A lead waits", "Jo Doe")
    assert outcome.fate is Fate.REFUSED


@pytest.mark.parametrize("rest", ["00000/path", "/path?+X-Key=a%0D%0AX-More:%20b", "/path?+X-Key=→"])
async def test_a_request_that_cannot_be_written_is_impossible(rest: str) -> None:
    with a_service(answers(200)) as service:
        outcome = await chatted(service, url=f"json://127.0.0.1:{service.server_port}{rest}")
    assert outcome == Outcome(Fate.IMPOSSIBLE, "the URL leads nowhere") and service.arrived == []


async def test_a_url_cannot_ask_for_retries_or_hide_a_failure() -> None:
    with a_service(answers(500)) as service:
        outcome = await chatted(service, url=service.url(rest="path?retry=3&wait=0&optional=yes&cto=60&rto=60"))
    assert outcome.fate is Fate.REFUSED and len(service.arrived) == 1


TWO_CHANNELS = "0123456789abcdefghijklmnop?channels=one,two"


async def test_two_targets_of_which_one_took_it_are_not_to_be_tried_again() -> None:
    with a_service(answers(200), answers(500)) as service:
        outcome = await chatted(service, url=service.url("mmost", TWO_CHANNELS))
    assert outcome.fate is Fate.UNKNOWN and "in part" in outcome.said and len(service.arrived) == 2


async def test_two_targets_of_which_neither_took_it_may_be_tried_again() -> None:
    with a_service(answers(404), answers(503)) as service:
        outcome = await chatted(service, url=service.url("mmost", TWO_CHANNELS))
    assert outcome.fate is Fate.REFUSED and len(service.arrived) == 2


def test_a_talk_that_was_given_up_lets_no_further_request_out() -> None:
    Chat()
    with a_service(answers(200)) as service:
        talk = _Talk()
        assert talk.start() and talk.give_up().fate is Fate.UNKNOWN

        def late() -> None:
            _current.set(talk)
            with pytest.raises(requests.ConnectionError):
                requests.post(f"http://127.0.0.1:{service.server_port}/", json={}, timeout=5)

        contextvars.copy_context().run(late)
        assert service.arrived == []


def test_a_talk_that_never_started_may_be_tried_again() -> None:
    talk = _Talk()
    assert talk.give_up().fate is Fate.REFUSED and not talk.start()


def test_requests_of_others_are_left_alone() -> None:
    Chat()
    with a_service(answers(307, Location="/elsewhere"), answers(200)) as service:
        answer = requests.post(f"http://127.0.0.1:{service.server_port}/", json={}, timeout=5)
    assert answer.status_code == 200 and len(service.arrived) == 2


async def test_a_failure_that_nothing_was_heard_of_may_have_arrived(free_ports: Callable[[int], list[int]]) -> None:
    outcome = await Chat(guard=AT_HOME).send(f"irc://127.0.0.1:{free_ports(1)[0]}/baton", "A lead waits", "Jo Doe")
    assert outcome.fate is Fate.UNKNOWN


@pytest.mark.parametrize("deed", [answers(200), answers(404), answers(500), hangs, hangs_up])
async def test_no_secret_is_said_or_logged(
    deed: Deed, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.NOTSET)
    with a_service(deed) as service, structlog.testing.capture_logs() as logged:
        url = f"json://user:canary-secret@127.0.0.1:{service.server_port}/canary-path?+X-Key=canary-key"
        outcome = await chatted(service, SHORT if deed is hangs else LONG, url)
        assert len(service.arrived) == 1
        await chatted(service, url=f"json://user:canary-secret@[not-a-host/canary-path {url}")
        assert problem_of(f"nosuch://{url}") and masked(url) == f"json://127.0.0.1:{service.server_port}"
    printed = "".join(capfd.readouterr())
    assert "canary" not in f"{outcome} {logged} {printed}" + caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "dbus://",
        "glib://",
        "gio://",
        "gnome://",
        "kde://",
        "qt://",
        "macosx://",
        "windows://",
        "syslog://",
        "SysLog://",
        " syslog://",
        "blink1://",
        "vapid://jo@acme.com/jo@acme.com",
    ],
)
def test_a_url_that_acts_on_this_machine_is_refused(url: str) -> None:
    assert "machine" in (problem_of(url) or "")


@pytest.mark.parametrize("url", ["mailto://jo:pw@gmail.com", "mailtos://smtp.acme.com", "deltachat://jo:pw@acme.com"])
def test_mail_has_a_way_of_its_own(url: str) -> None:
    assert "mail" in (problem_of(url) or "")


@pytest.mark.parametrize(
    "url",
    [
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/?template=/etc/hostname",
        "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ?template=/etc/hostname",
        "fcm://project/device?keyfile=/etc/hostname",
    ],
)
def test_a_url_that_would_send_a_file_of_this_machine_is_refused(url: str) -> None:
    assert "file" in (problem_of(url) or "")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "garbage",
        "json://",
        "nosuch://host/path",
        "slack://short",
        "json://a\nb",
        "json://a\x00b",
        "://",
        "json://127.0.0.1/" + "a" * 2_000,
        "json://a.acme.com,json://b.acme.com",
    ],
)
async def test_a_url_that_leads_nowhere_is_refused_and_never_sent_to(url: str) -> None:
    problem = problem_of(url)
    assert problem
    assert await Chat().send(url, "A lead waits", "Jo Doe") == Outcome(Fate.IMPOSSIBLE, problem)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#c", "slack://…"),
        ("https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "slack://…"),
        ("https://discord.com/api/webhooks/4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js", "discord://…"),
        ("tgram://123456789:abcdefg_hijklmnop/12315544/", "tgram://…"),
        ("jsons://user:secret@hooks.acme.com/secret?+Authorization=secret", "jsons://hooks.acme.com"),
        ("json://[::1]:8080/secret", "json://[::1]:8080"),
        ("matrix://jo:secret@matrix.acme.com/#leads", "matrix://matrix.acme.com"),
        ("ntfy://secrettopic", "ntfys://…"),
        ("nosuch://secret/secret", "nosuch://…"),
        ("secret", "…"),
        ("json://" + "s" * 3_000, "json://…"),
    ],
)
def test_people_see_scheme_and_host_and_no_secret(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize("url", ["ntfys://ntfy.acme.com/leads", "tgram://123456789:abcdefg_hijklmnop/12315544/"])
def test_a_service_that_apprise_knows_is_no_problem(url: str) -> None:
    assert problem_of(url) is None


@pytest.mark.parametrize("scheme", ["json", "irc"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433"])
async def test_an_alert_goes_to_no_address_inside_the_house(scheme: str, host: str) -> None:
    with a_service(answers(200)) as service:
        outcome = await Chat(LONG).send(f"{scheme}://{host}:{service.server_port}/path", "A lead waits", "Jo Doe")
    assert outcome.fate is Fate.IMPOSSIBLE and "not on the internet" in outcome.said and not service.arrived


async def test_a_proxy_that_the_environment_names_may_stand_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_service(answers(200)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url("http", ""))
        monkeypatch.setenv("NO_PROXY", "")
        outcome = await Chat(LONG).send("json://hooks.test/path", "A lead waits", "Jo Doe")
    assert outcome.fate is Fate.SENT and len(proxy.arrived) == 1


async def test_what_else_goes_on_in_the_process_is_not_guarded() -> None:
    await Chat(SHORT).send("json://127.0.0.1:9/path", "A lead waits", "Jo Doe")
    with a_service(answers(200)) as service:
        mine = await asyncio.to_thread(requests.post, service.url("http"), json={}, timeout=5)
    assert mine.status_code == 200
