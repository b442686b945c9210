"""Where anything about a lead is kept, table by table and column by column: erasing, exporting and a test go by it.

A table or column that is not in `HOLDINGS` fails the test: whoever adds one says here whether it holds what is a
lead's, and how the rows about one person are found.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import SQLModel, col, select

from . import tables as t

TAKEN_OUT: Final = "[erased]"
"""What stands where an erased person was named in words that are about others too."""
_SHORTEST: Final = 5
"""Characters; a shorter name or number would be found in everybody's words."""
_AT_ONCE: Final = 100
_DIGITS: Final = 9
"""Of a telephone number, so many from its end are looked for, however the beginning and the gaps are written."""
_NAMED: Final = (  # as Segment says it, and as we do
    r'(?:"?(?:userId|user_id|previousId|anonymousId|external_id)"?\s*:\s*|"names"\s*:\s*\[[^]]*)'
)
"""What stands before a name that is no address: `42` alone is also a number of employees."""


class Fate(StrEnum):
    """What an erasure does to the rows about a person."""

    GOES = "the row goes"
    CLEARED = "the person is taken out of the row"
    STAYS = "the row stays: it holds nothing about a lead"


@dataclass(frozen=True)
class Person:
    """Whom an erasure or an export is about: the leads that are this person, and what names them anywhere.

    The patterns are regular expressions of both Python and PostgreSQL, to be matched without regard to case.
    """

    ids: tuple[UUID, ...]
    names: tuple[str, ...]
    """Names by which sources know the person: e-mail addresses, user ids, anonymous ids."""
    phones: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    """What the person is called, as far as it tells one from others: full names."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The e-mail addresses among the names."""
        return tuple(name for name in self.names if "@" in name)

    @cached_property
    def surely(self) -> str:
        """A pattern for text that names this person and no other: ids, addresses, telephone numbers."""
        return "|".join(self._sure(re.escape))

    @cached_property
    def perhaps(self) -> str:
        """A pattern for text that may name this person: also by a full name, which others may have."""
        return "|".join([self.surely, *self._called(re.escape)])

    def in_text(self, column: Any, *, perhaps: bool = False) -> Any:
        """Return the condition that a column of text, or of JSON, names the person surely, or perhaps."""
        parts = [*self._sure(re.escape), *(self._called(re.escape) if perhaps else ())]
        return _any_of(sa.cast(column, sa.Text), parts)

    def in_bytes(self, column: Any, *, perhaps: bool = False) -> Any:
        """Return the same condition for bytes, in which JSON may have escaped what is beyond ASCII."""
        parts = [part for written in (_escaped, _in_json) for part in self._sure(written)]
        parts += [part for written in (_escaped, _in_json) for part in self._called(written)] if perhaps else []
        return _any_of(sa.func.encode(column, "escape"), parts)

    def taken_out_of(self, text: str) -> str:
        """Return an alert's text without what is about the person; paragraphs with a link are about who it leads to."""
        return "\n\n".join(self._without(paragraph) for paragraph in text.split("\n\n"))

    def about_in(self, text: str) -> str:
        """Return only the paragraphs of an alert's text that are about the person."""
        return "\n\n".join(one for one in text.split("\n\n") if self._without(one) != one)

    def _without(self, paragraph: str) -> str:
        if any(f"/leads/{id_}" in paragraph for id_ in self.ids):
            return TAKEN_OUT
        pattern = self.surely if "/leads/" in paragraph else self.perhaps
        lines = paragraph.split("\n")
        return "\n".join(TAKEN_OUT if re.search(pattern, line, re.IGNORECASE) else line for line in lines)

    def _sure(self, written: Callable[[str], str]) -> Iterator[str]:
        yield from (written(str(id_)) for id_ in self.ids)
        for name in self.names:
            yield rf"(?<![\w.+-]){written(name)}(?![\w-])" if "@" in name else f'{_NAMED}"{written(name)}"'
        for phone in self.phones:
            digits = re.sub(r"\D", "", phone)[-_DIGITS:]
            if len(digits) == _DIGITS:
                yield "[^0-9A-Za-z]{0,3}".join(digits) + "(?![0-9])"

    def _called(self, written: Callable[[str], str]) -> Iterator[str]:
        yield from (written(word) for word in self.words if len(word) >= _SHORTEST)


def _any_of(text: Any, parts: Sequence[str]) -> Any:
    """Match `text` with the parts of a pattern, some at a time: PostgreSQL refuses one of thousands."""
    some = (parts[first : first + _AT_ONCE] for first in range(0, len(parts), _AT_ONCE))
    return sa.or_(*(text.bool_op("~*")("|".join(group)) for group in some))


def _escaped(text: str) -> str:
    """Return the pattern for `text` as PostgreSQL's `encode(…, 'escape')` writes bytes: in octal beyond ASCII."""
    return "".join(rf"\\{byte:03o}" if byte > 127 else re.escape(chr(byte)) for byte in text.encode())


def _in_json(text: str) -> str:
    return re.escape(json.dumps(text)[1:-1].replace("\\", "\\\\"))


@dataclass(frozen=True)
class Holding:
    """One table: its columns that hold what is a lead's, those about people who use Baton, and those about nobody.

    `find` is the condition for the rows about a person.
    """

    table: type[SQLModel]
    fate: Fate
    lead: tuple[str, ...] = ()
    staff: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    find: Callable[[Person], Any] | None = None

    @property
    def name(self) -> str:
        """The table's name."""
        return str(self.table.__tablename__)


def _of(column: Any) -> Callable[[Person], Any]:
    return lambda person: column.in_(person.ids)


def _mails_of(person: Person) -> Any:
    return select(t.Mail.id).where(col(t.Mail.lead_id).in_(person.ids))


def _events_of(person: Person) -> Any:
    return select(t.WebhookDelivery.id).where(col(t.WebhookDelivery.lead_id).in_(person.ids))


def _names(*columns: Any) -> Callable[[Person], Any]:
    return lambda person: sa.or_(*(person.in_text(column) for column in columns))


def _merged(person: Person) -> Any:
    return col(t.Merge.kept_id).in_(person.ids) | col(t.Merge.merged_id).in_(person.ids)


def _imported(person: Person) -> Any:
    return col(t.ImportRow.lead_id).in_(person.ids) | _names(t.ImportRow.before, t.ImportRow.problems)(person)


def _quarantined(person: Person) -> Any:
    return person.in_bytes(col(t.Quarantined.payload), perhaps=True)


def _answered(person: Person) -> Any:
    return person.in_text(t.IdempotencyKey.route) | person.in_bytes(col(t.IdempotencyKey.body))


def _told(person: Person) -> Any:
    alerts = select(t.EffectEntry.message_id).where(
        col(t.EffectEntry.lead_id).in_(person.ids), col(t.EffectEntry.message_id).is_not(None)
    )
    text = col(t.Message.subject).concat("\n").concat(col(t.Message.text))
    return col(t.Message.id).in_(alerts) | person.in_text(text, perhaps=True)


def _viewed(person: Person) -> Any:
    """A saved list that looks for the person; in the address of a page a blank is a plus or `%20`, an @ is `%40`."""
    query: Any = col(t.SavedView.query)
    for written, meant in (("+", " "), ("%20", " "), ("%40", "@")):
        query = sa.func.replace(query, written, meant)
    return sa.or_(*(person.in_text(text, perhaps=True) for text in (col(t.SavedView.name), query)))


def _c(names: str) -> tuple[str, ...]:
    return tuple(names.split())


# In the order in which rows go: what names another row before that row. A reader finds here what is held on a person.
HOLDINGS: Final[Sequence[Holding]] = (
    Holding(t.MailLink, Fate.GOES, lead=_c("mail_id"), plain=_c("name url"),
            find=lambda person: col(t.MailLink.mail_id).in_(_mails_of(person))),
    Holding(t.LaunchLead, Fate.GOES, lead=_c("launch_id lead_id state reason"), find=_of(col(t.LaunchLead.lead_id))),
    Holding(t.ImportRow, Fate.GOES, lead=_c("lead_id outcome before problems"), plain=_c("import_id line"),
            find=_imported),
    Holding(t.Import, Fate.CLEARED, lead=_c("filename content said"), staff=_c("by"),
            plain=_c("id edition mapping state line lines rows created updated unchanged errors flagged created_at"
                     " ended_at")),
    Holding(t.Launch, Fate.CLEARED, lead=_c("segment"), staff=_c("by"),
            plain=_c("id track_id track_version state rate total enrolled skipped created_at ended_at"),
            find=_names(t.Launch.segment)),
    Holding(t.SavedView, Fate.GOES, lead=_c("name query"), staff=_c("user_id"), plain=_c("id path shared created_at"),
            find=_viewed),
    Holding(t.Message, Fate.CLEARED, lead=_c("subject text"), staff=_c("recipient_id"),
            plain=_c("id mailbox created_at"), find=_told),
    Holding(t.Delivery, Fate.CLEARED, lead=_c("said"), staff=_c("channel digest"),
            plain=_c("id message_id state tries next_at updated_at"), find=_names(t.Delivery.said)),
    Holding(t.EffectEntry, Fate.GOES, lead=_c("key lead_id kind data at"), staff=_c("recipient_id mailbox"),
            plain=_c("called_at message_id"), find=_of(col(t.EffectEntry.lead_id))),
    Holding(t.WebhookAttempt, Fate.GOES, lead=_c("delivery_id at took_ms status answer said"), plain=_c("id"),
            find=lambda person: col(t.WebhookAttempt.delivery_id).in_(_events_of(person))),
    Holding(t.WebhookDelivery, Fate.GOES, lead=_c("lead_id event_id sequence type payload at state"),
            plain=_c("id webhook_id tries next_at updated_at called_at"), find=_of(col(t.WebhookDelivery.lead_id))),
    Holding(t.Assignment, Fate.GOES, lead=_c("lead_id version cycle at by why considered"), staff=_c("owner_id"),
            find=_of(col(t.Assignment.lead_id))),
    Holding(t.ClockSpell, Fate.GOES,
            lead=_c("id lead_id cycle kind opened_version opened_at due_at breached_at ended_version ended_at ended_by"
                    " used"), staff=_c("owner_id"), plain=_c("agreement_version"), find=_of(col(t.ClockSpell.lead_id))),
    Holding(t.Consent, Fate.GOES, lead=_c("lead_id topic channel granted source at"), find=_of(col(t.Consent.lead_id))),
    Holding(t.Note, Fate.GOES, lead=_c("id lead_id at body"), staff=_c("by"), find=_of(col(t.Note.lead_id))),
    Holding(t.OutboxMoment, Fate.GOES, lead=_c("id lead_id key body evidence topic created_at"),
            plain=_c("delivered_at"), find=_of(col(t.OutboxMoment.lead_id))),
    Holding(t.TimelineEntry, Fate.GOES, lead=_c("id lead_id version kind at data plan"), staff=_c("by"),
            find=_of(col(t.TimelineEntry.lead_id))),
    Holding(t.Mail, Fate.GOES,
            lead=_c("id lead_id step cycle topic address subject text html state said created_at sent_at opened_at"
                    " clicked_at"),
            plain=_c("track_id track_version tries updated_at"), find=_of(col(t.Mail.lead_id))),
    Holding(t.Merge, Fate.GOES, lead=_c("id kept_id merged_id at before undone_at"), staff=_c("by"), find=_merged),
    Holding(t.Engagement, Fate.GOES, lead=_c("message_id visitor_id event at received_at properties"),
            find=_of(col(t.Engagement.visitor_id))),
    Holding(t.Identity, Fate.GOES, lead=_c("value visitor_id"), find=_of(col(t.Identity.visitor_id))),
    Holding(t.Quarantined, Fate.GOES, lead=_c("message_id payload"), plain=_c("id received_at field reason"),
            find=_quarantined),
    Holding(t.IdempotencyKey, Fate.CLEARED, lead=_c("route fingerprint body"), staff=_c("user_id"),
            plain=_c("key status created_at"), find=_answered),
    Holding(t.LeadWords, Fate.GOES, lead=_c("lead_id name words source"), find=_of(col(t.LeadWords.lead_id))),
    Holding(t.Lead, Fate.GOES,
            lead=_c("id email profile issues account_id persona score fit behaviour profile_at assessed_at stage cycle"
                    " cycle_since version track awaits merged_into sla_kind sla_due_at sla_breached_at bant state"
                    " created_at updated_at track_version track_path track_held"),
            staff=_c("owner_id"), plain=_c("agreement_version"), find=_of(col(t.Lead.id))),
    # Keyed digests, which name nobody to whoever has no key: what is left of an erased person.
    Holding(t.Suppression, Fate.STAYS, plain=_c("digest reason at")),
    Holding(t.Erasure, Fate.STAYS, staff=_c("by"), plain=_c("id digest at counts pending")),
    # People who use Baton, the house's own words, and companies.
    Holding(t.User, Fate.STAYS,
            staff=_c("id email name role password_hash active single_keys weight credit capacity territories timezone"
                     " alert_urls team_alert_urls manager_id created_at")),
    Holding(t.WorkingHours, Fate.STAYS, staff=_c("id user_id since calendar")),
    Holding(t.Absence, Fate.STAYS, staff=_c("id user_id begins_at ends_at reason created_at removed_at")),
    Holding(t.Webhook, Fate.STAYS,
            plain=_c("id url description events enabled seed previous_seed previous_until failing_since rests_until"
                     " gave_up_at said created_at")),
    Holding(t.Token, Fate.STAYS, staff=_c("id user_id digest label created_at revoked_at")),
    Holding(t.WebSession, Fate.STAYS, staff=_c("digest user_id agent created_at seen_at")),
    Holding(t.Throttle, Fate.STAYS, staff=_c("key"), plain=_c("free_at")),
    Holding(t.Holiday, Fate.STAYS, plain=_c("id day name country created_at removed_at")),
    Holding(t.AgreementVersion, Fate.STAYS, staff=_c("author_id"),
            plain=_c("version name source body status in_flight created_at activated_at")),
    Holding(t.Signature, Fate.STAYS, staff=_c("user_id"), plain=_c("version side at")),
    Holding(t.Account, Fate.STAYS, staff=_c("owner_id"), plain=_c("id name key_account created_at")),
    Holding(t.AccountDomain, Fate.STAYS, plain=_c("domain account_id")),
    Holding(t.Track, Fate.STAYS, plain=_c("id version paused_at created_at")),
    Holding(t.TrackVersion, Fate.STAYS, staff=_c("author_id"),
            plain=_c("track_id version name source body created_at")),
    Holding(t.Link, Fate.STAYS, plain=_c("name url updated_at")),
)  # fmt: skip
