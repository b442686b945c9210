"""What requests may say: strict types, no unknown fields, text that PostgreSQL can keep."""

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from pydantic import (
    AfterValidator,
    AliasChoices,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    ValidationError,
)

from activities.channels import problem_of
from activities.guard import LONGEST_URL
from lifecycle.agreement import zone
from lifecycle.announcing import Announcement
from lifecycle.reasons import Bant, Channel, Outcome, Reason, Verdict
from lifecycle.stages import Stage
from models.calendars import read_calendar
from models.launches import RATE
from models.people import normal_email


def _storable(text: str) -> str:
    if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("holds a character that is no text")
    return text


def _service(url: str) -> str:
    if problem := problem_of(url):
        raise ValueError(problem)
    return url


def _hours(calendar: dict[str, Any] | str) -> dict[str, Any] | str:
    try:
        read_calendar(calendar)
    except ValidationError as error:
        first = error.errors()[0]
        if isinstance(calendar, str):
            raise ValueError("is neither a calendar nor 'always'") from None
        where = ".".join(str(part) for part in first["loc"] if not str(part).endswith(("Calendar", "Calendar]")))
        raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
    return calendar


def _written(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("is to be given as text")
    return value


Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_storable)]
Words = Annotated[str, Field(max_length=5_000), AfterValidator(_storable)]
Email = Annotated[str, Field(max_length=254), AfterValidator(normal_email)]
Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Domain = Annotated[
    str,
    Field(max_length=253, pattern=r"^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)+[A-Za-z0-9-]{2,63}\.?$"),
]
# enums, dates and times come as text in JSON, so only they are read leniently, and a number is no date
Day = Annotated[date, Field(strict=False), BeforeValidator(_written)]
Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_written)]
LaxReason = Annotated[Reason, Field(strict=False)]


class Body(BaseModel):
    """A request's body."""

    model_config = ConfigDict(strict=True, extra="forbid")


class NothingBody(Body):
    """Nothing: the path says it all."""


class AcceptBody(Body):
    """Take the lead."""

    note: Words | None = None


class RejectBody(Body):
    """Give the lead back."""

    reason: LaxReason
    note: Words | None = None
    bant_missing: list[Annotated[Bant, Field(strict=False)]] = Field(default=[], max_length=4)
    wake_on: Day | None = None


class AttemptBody(Body):
    """One try to reach the lead; `at` if it was not now."""

    channel: Annotated[Channel, Field(strict=False)]
    outcome: Annotated[Outcome, Field(strict=False)]
    note: Words | None = None
    at: Moment | None = None


class QualifyBody(Body):
    """What the conversation brought."""

    budget: bool
    authority: bool
    need: bool
    timeline: bool
    interest: Words | None = None
    urgency: bool | None = None
    pain_point: Words | None = None
    note: Words | None = None


class ReturnBody(Body):
    """Give the opportunity back."""

    reason: LaxReason
    note: Words | None = None


class CloseBody(Body):
    """How the opportunity ended."""

    outcome: Annotated[Verdict, Field(strict=False)]
    reason: Words | None = None
    amount: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)] | None = None
    note: Words | None = None


class AssignBody(Body):
    """Who is to have the lead, by e-mail address."""

    owner: Email
    note: Words | None = None


class AssignManyBody(AssignBody):
    """Who is to have these leads, by e-mail address."""

    leads: Annotated[list[Annotated[UUID, Field(strict=False)]], Field(min_length=1, max_length=200)]


class MergeBody(Body):
    """The lead that is the same person."""

    other: Annotated[UUID, Field(strict=False)]


class NotDuplicatesBody(Body):
    """Two leads that are two people."""

    leads: Annotated[list[Annotated[UUID, Field(strict=False)]], Field(min_length=2, max_length=2)]


class EnrollBody(Body):
    """Which track."""

    track: Slug


class AccountBody(Body):
    """A company."""

    name: Line
    domains: list[Domain] = Field(default=[], max_length=100)
    key_account: bool = False
    owner: Email | None = None


class AccountPatch(Body):
    """Changes of a company; a null owner removes the owner."""

    name: Line | None = None
    domains: list[Domain] | None = Field(default=None, max_length=100)
    key_account: bool | None = None
    owner: Email | None = None


class SignBody(Body):
    """For which side."""

    side: Literal["marketing", "sales"]


class ActivateBody(Body):
    """What happens to leads that are under way."""

    in_flight: Literal["stay", "next_stage", "rescore"] = "stay"


class ReviewBody(Body):
    """What a look at the agreement in force came to."""

    outcome: Literal["keep", "change"]
    note: Words | None = None


Role = Literal["rep", "manager", "marketing", "ops", "admin"]


Share = Annotated[int, Field(ge=0, le=10_000)]
Territories = Annotated[list[Slug], Field(max_length=100)]
AlertUrl = Annotated[str, Field(min_length=1, max_length=2_000), AfterValidator(_storable), AfterValidator(_service)]
AlertUrls = Annotated[list[AlertUrl], Field(max_length=10)]
Zone = Annotated[str, Field(max_length=64), AfterValidator(zone)]
Hours = Annotated[dict[str, Any] | str, AfterValidator(_hours)]


class UserBody(Body):
    """A person who is to use Baton.

    `weight` is a rep's share of the round robin, `capacity` how many leads in 30 days at most (null: no limit),
    `hours` a calendar of their own as the agreement writes one, `alert_urls` the services by which they are told.
    """

    email: Email
    name: Line
    role: Role
    password: Annotated[str, Field(min_length=8, max_length=1_024)]
    weight: Share = 1
    capacity: Share | None = None
    territories: Territories = []
    timezone: Zone | None = None
    hours: Hours | None = None
    alert_urls: AlertUrls = []
    team_alert_urls: AlertUrls = []
    manager: Email | None = None


class UserPatch(Body):
    """Changes of a person; a null `capacity`, `timezone`, `hours` or `manager` removes it."""

    name: Line | None = None
    role: Role | None = None
    active: bool | None = None
    weight: Share | None = None
    capacity: Share | None = None
    territories: Territories | None = None
    timezone: Zone | None = None
    single_keys: bool | None = None
    hours: Hours | None = None
    alert_urls: AlertUrls | None = None
    team_alert_urls: AlertUrls | None = None
    manager: Email | None = None
    password: Annotated[str, Field(min_length=8, max_length=1_024)] | None = None


class PasswordBody(Body):
    """One's own new password, and the one so far."""

    current: Annotated[str, Field(max_length=1_024)]
    new: Annotated[str, Field(min_length=8, max_length=1_024)]


class AbsenceBody(Body):
    """When a person is away: days (the last one included, in the person's zone) or instants."""

    begins: Day | Moment = Field(validation_alias=AliasChoices("from", "start"))
    ends: Day | Moment = Field(validation_alias=AliasChoices("to", "end"))
    reason: Annotated[str, Field(max_length=200), AfterValidator(_storable)] = ""


class HolidayBody(Body):
    """A day on which the house is closed; with `country` (`US`, `DE-BY`) where calendars keep its holidays."""

    date: Day
    name: Line
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,5})?$")] | None = None


class TokenBody(Body):
    """What the token is for."""

    label: Annotated[str, Field(max_length=200), AfterValidator(_storable)] = ""


Listens = Annotated[list[Annotated[Announcement, Field(strict=False)]], Field(min_length=1, max_length=100)]
Target = Annotated[str, Field(min_length=1, max_length=LONGEST_URL), AfterValidator(_storable)]
About = Annotated[str, Field(max_length=200), AfterValidator(_storable)]


class WebhookBody(Body):
    """Another system that is to be told of the `events`, at `url`."""

    url: Target
    events: Listens
    description: About = ""
    enabled: bool = True


class WebhookPatch(Body):
    """Changes of a webhook; enabling it sends what waits first."""

    url: Target | None = None
    events: Listens | None = None
    description: About | None = None
    enabled: bool | None = None


class RedriveBody(Body):
    """Which deliveries to send once more: events of `from` until before `to`, those that failed or `all` that ended."""

    begins: Moment = Field(validation_alias="from")
    ends: Moment | None = Field(default=None, validation_alias="to")
    which: Literal["failed", "all"] = "failed"


class LeadView(BaseModel):
    """A lead; people are named by e-mail address, times are UTC."""

    id: str
    stage: Stage
    cycle: int
    version: int
    owner: str | None
    account: str | None
    account_name: str | None
    key_account: bool
    score: int
    fit: int
    behaviour: int
    agreement_version: int | None
    track: str | None
    sla: dict[str, Any] | None
    persona: str | None
    profile: dict[str, Any]
    issues: dict[str, str]
    bant: dict[str, bool]
    waits_for: str | None
    unable_to_reach: dict[str, Any] | None
    suggestion: dict[str, str] | None
    merged_from: list[str] = []
    created_at: datetime
    updated_at: datetime


class MergeView(BaseModel):
    """A merge of two leads; `under_way` until both workflows have taken it up (or the undo)."""

    id: str
    kept: str
    merged: str
    by: str
    at: datetime
    undo_until: datetime
    undone_at: datetime | None
    state: Literal["under_way", "done", "undone"]


class MergeList(BaseModel):
    """A part of the list of merges."""

    items: list[MergeView]
    next: str | None


class SuggestionView(BaseModel):
    """Two leads that may be one person; `score` is how sure that is, of 100."""

    leads: list[dict[str, Any]]
    score: int
    reason: str


class SuggestionList(BaseModel):
    """A part of the list of suggestions, the surest first."""

    items: list[SuggestionView]
    next: str | None


class Listed(BaseModel):
    """A part of a list; `next` is the cursor of the following part."""

    items: list[dict[str, Any]]
    next: str | None


class AssignedOne(BaseModel):
    """What became of one of the leads that somebody else is to have; `detail` says why it was refused."""

    lead: UUID
    outcome: Literal["done", "refused"]
    detail: str | None


class AssignedMany(BaseModel):
    """What became of each lead that somebody else is to have, and how many were given and refused."""

    items: list[AssignedOne]
    done: int
    refused: int


class LeadList(BaseModel):
    """A part of the list of leads."""

    items: list[LeadView]
    next: str | None


def _from_json(value: Any) -> Any:
    try:
        return orjson.loads(value) if isinstance(value, str) else value
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error}") from None


ProfileField = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")]


class ImportOptions(BaseModel):
    """What may come with an uploaded file, as fields of the form or in the query.

    `mapping` says which profile field a column becomes (`external_id`: the id another system has; null: none, the
    column is left out), `id_column` which column holds that id.
    """

    mapping: Annotated[dict[str, ProfileField | None], Field(max_length=1_000), BeforeValidator(_from_json)] = {}
    id_column: str | None = None
    dry_run: bool = False
    filename: str | None = None


class ImportView(BaseModel):
    """An import: `line` of `lines` are taken, and what became of the rows; `undo` once it was undone."""

    id: str
    filename: str
    state: Literal["waiting", "running", "checking", "checked", "done", "failed", "cancelled", "undoing", "undone"]
    said: str
    dry_run: bool
    mapping: dict[str, str]
    line: int
    lines: int
    rows: int
    created: int
    updated: int
    unchanged: int
    errors: int
    flagged: int
    by: str
    created_at: datetime
    ended_at: datetime | None
    undo: dict[str, Any] | None


class ImportList(BaseModel):
    """A part of the list of imports."""

    items: list[ImportView]
    next: str | None


class PreviewView(BaseModel):
    """How a file would be taken; nothing of it is kept."""

    filename: str
    encoding: str
    separator: str
    columns: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    counts: dict[str, int]
    problems: list[dict[str, Any]]


class PreviewBody(Body):
    """Which lead the track is previewed on."""

    lead: Annotated[UUID, Field(strict=False)]


class ResumeBody(Body):
    """What happens to what was due while the track was paused."""

    how: Literal["send_now", "skip", "shift"]


class MoveBody(Body):
    """Nothing yet: everybody moves."""


class BounceBody(Body):
    """A mail that came back: which one, by its Message-ID or its address, and whether for good."""

    message_id: Annotated[str, Field(max_length=200), AfterValidator(_storable)] | None = None
    email: Email | None = None
    type: Literal["hard", "soft"] = "hard"
    reason: Annotated[str, Field(max_length=500), AfterValidator(_storable)] = "reported"


class ConsentBody(Body):
    """What the lead said of a topic; `*` is every topic."""

    topic: Annotated[str, Field(pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9_-]{0,63})$")] = "*"
    granted: bool
    source: Annotated[str, Field(max_length=200), AfterValidator(_storable)] = ""


class LinkBody(Body):
    """Where a link in mails leads."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    url: Annotated[HttpUrl, Field(strict=False)]


class LaunchBody(Body):
    """A launch of a track: the `segment` says for which leads, `rate` how many are enrolled a second.

    A dry run only counts: who would be enrolled, and who not, with the reasons.
    """

    segment: dict[str, Any]
    dry_run: bool = False
    rate: Annotated[float, Field(ge=0.01, le=1_000, allow_inf_nan=False)] = RATE


class LaunchView(BaseModel):
    """A launch: of `total` leads in its segment so many are enrolled, were passed over, or wait."""

    id: str
    track: str
    track_version: int
    state: Literal["running", "paused", "cancelled", "done"]
    rate: float
    total: int
    enrolled: int
    skipped: int
    waiting: int
    segment: dict[str, Any]
    by: str
    created_at: datetime
    ended_at: datetime | None


class LaunchDetails(LaunchView):
    """A launch, and how many leads were passed over for which reason."""

    reasons: dict[str, int]


class LaunchList(BaseModel):
    """A part of the list of launches."""

    items: list[LaunchView]
    next: str | None


class LaunchTrial(BaseModel):
    """What a launch would do: how many of `total` would be enrolled, how many not and why, and some of each."""

    track: str
    track_version: int
    total: int
    would_enroll: int
    skipped: int
    reasons: dict[str, int]
    sample: dict[str, Any]
