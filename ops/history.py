"""A workflow's history in sentences: what happened, who asked for it, what failed and why."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.enums.v1 import EventType, TimeoutType, WorkflowTaskFailedCause
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.contrib.pydantic import pydantic_data_converter

LONGEST: Final = 300
"""Characters of what somebody else wrote (a failure, a result) in one sentence."""
_ROUTINE: Final = frozenset({"workflow_task_scheduled", "workflow_task_started", "workflow_task_completed"})
_ATTRIBUTES: Final = "_event_attributes"


def tell(events: Iterable[HistoryEvent], people: Mapping[str, str], *, raw: bool = False) -> Iterator[dict[str, Any]]:
    """Yield each event: number, time, kind in words, one sentence, the failure if it tells of one.

    `people` are the names by which ids are shown; `routine` marks what only says that the workflow's code ran.
    The events are to begin with the first: later ones speak of what earlier ones began.
    """
    teller = _Teller(people)
    for event in events:
        what = (event.WhichOneof("attributes") or "").removesuffix(_ATTRIBUTES)
        said, failure = teller.sentence(what, event)
        item: dict[str, Any] = {
            "number": event.event_id,
            "at": event.event_time.ToDatetime(tzinfo=UTC),
            "kind": kind(event),
            "said": said,
            "failure": failure,
            "routine": what in _ROUTINE,
        }
        yield item | ({"raw": MessageToDict(event)} if raw else {})


def kind(event: HistoryEvent) -> str:
    """Return an event's type in words: `workflow update accepted`, `timer started`."""
    name = EventType.Name(event.event_type).removeprefix("EVENT_TYPE_").lower().replace("_", " ")
    return name.replace("workflow execution ", "workflow ").replace("activity task ", "activity ")


def failure_said(failure: Failure) -> str:
    """Return a failure in one line, down to its cause; stack traces are for the log."""
    parts = []
    while True:
        type_ = failure.application_failure_info.type
        parts.append(": ".join(part for part in (type_, failure.message) if part))
        if not failure.HasField("cause"):
            return _short(" ← ".join(dict.fromkeys(parts)))
        failure = failure.cause


def value_of(payload: Payload) -> Any:
    """Return what a payload holds, or None when it is in a form that nobody here knows."""
    try:
        return pydantic_data_converter.payload_converter.from_payload(payload)
    except Exception:  # noqa: BLE001 - whatever it is, it is no reason not to show the rest of a history
        return None


class _Teller:
    """Remembers by number what was begun, so that the events that follow can name it."""

    def __init__(self, people: Mapping[str, str]) -> None:
        self._people = people
        self._begun: dict[int, str] = {}

    def sentence(self, what: str, event: HistoryEvent) -> tuple[str, str | None]:
        """Return the sentence, and the failure that the event tells of."""
        about = getattr(event, f"{what}{_ATTRIBUTES}") if what else None
        known = _FAILS.get(what)
        if known and about is not None:
            failure = failure_said(about.failure) if about.HasField("failure") else None
            return f"{known}{self._of(about)}" + (f": {failure}" if failure else ""), failure
        tell = getattr(self, f"_{what}", None)
        if tell is None or about is None:
            return f"{kind(event)}{self._of(about)}", None
        told: str | tuple[str, str | None] = tell(event, about)
        return told if isinstance(told, tuple) else (told, None)

    def _of(self, about: Any) -> str:
        for field in ("scheduled_event_id", "started_event_id", "initiated_event_id", "accepted_event_id"):
            if begun := self._begun.get(getattr(about, field, 0)):
                return f" of {begun}"
        return ""

    def _named(self, about: Any, field: str = "scheduled_event_id") -> str:
        return self._begun.get(getattr(about, field), "something")

    def _who(self, id_: Any) -> str:
        return self._people.get(str(id_), str(id_))

    def _workflow_execution_started(self, event: HistoryEvent, about: Any) -> str:
        name = about.workflow_type.name
        if about.continued_execution_run_id:
            return f"{name} went on from the run {about.continued_execution_run_id}"
        if about.parent_workflow_execution.workflow_id:
            return f"{name} was started by {about.parent_workflow_execution.workflow_id}"
        return f"{name} was started"

    def _workflow_execution_completed(self, event: HistoryEvent, about: Any) -> str:
        return f"the workflow ended{_result(about.result)}"

    def _workflow_execution_terminated(self, event: HistoryEvent, about: Any) -> str:
        return f"the workflow was terminated{f': {about.reason}' if about.reason else ''}"

    def _workflow_execution_continued_as_new(self, event: HistoryEvent, about: Any) -> str:
        return f"the workflow goes on as the run {about.new_execution_run_id}"

    def _workflow_execution_signaled(self, event: HistoryEvent, about: Any) -> str:
        return f"signal {about.signal_name}{self._arguments(about.input)}"

    def _workflow_execution_update_accepted(self, event: HistoryEvent, about: Any) -> str:
        asked = about.accepted_request.input
        command = self._command(_first(asked.args)) or asked.name
        self._begun[event.event_id] = f"update {command}"
        return f"update {command} accepted"

    def _workflow_execution_update_completed(self, event: HistoryEvent, about: Any) -> tuple[str, str | None]:
        named = self._named(about, "accepted_event_id")
        if about.outcome.HasField("failure"):
            failure = failure_said(about.outcome.failure)
            return f"{named} refused: {failure}", failure
        stands = _first(about.outcome.success)
        where = f": the lead is {stands['stage']}" if isinstance(stands, dict) and "stage" in stands else ""
        return f"{named} answered{where}", None

    def _activity_task_scheduled(self, event: HistoryEvent, about: Any) -> str:
        self._begun[event.event_id] = f"activity {about.activity_type.name}"
        return f"activity {about.activity_type.name} waits for a worker of {about.task_queue.name}"

    def _activity_task_started(self, event: HistoryEvent, about: Any) -> tuple[str, str | None]:
        failure = failure_said(about.last_failure) if about.HasField("last_failure") else None
        before = f"; the try before failed: {failure}" if failure else ""
        return f"{self._named(about)} began, try {about.attempt}{before}", failure

    def _activity_task_completed(self, event: HistoryEvent, about: Any) -> str:
        return f"{self._named(about)} done{_result(about.result)}"

    def _timer_started(self, event: HistoryEvent, about: Any) -> str:
        at = event.event_time.ToDatetime(tzinfo=UTC) + about.start_to_fire_timeout.ToTimedelta()
        summary = value_of(event.user_metadata.summary) if event.HasField("user_metadata") else None
        self._begun[event.event_id] = f"timer ({summary})" if summary else "timer"
        return f"timer until {_time(at)}{f' ({summary})' if summary else ''}"

    def _timer_fired(self, event: HistoryEvent, about: Any) -> str:
        return f"{self._named(about, 'started_event_id')} rang"

    def _timer_canceled(self, event: HistoryEvent, about: Any) -> str:
        return f"{self._named(about, 'started_event_id')} set aside"

    def _marker_recorded(self, event: HistoryEvent, about: Any) -> tuple[str, str | None]:
        data = _first(about.details["data"]) if "data" in about.details else None
        name = data.get("activity_type") if isinstance(data, dict) else None
        if about.marker_name != "core_local_activity" or name is None:
            return f"marker {about.marker_name}", None
        if about.HasField("failure"):
            failure = failure_said(about.failure)
            return f"local activity {name} failed: {failure}", failure
        tries = data.get("attempt", 1) if isinstance(data, dict) else 1
        return f"local activity {name} done{f' at try {tries}' if tries > 1 else ''}", None

    def _upsert_workflow_search_attributes(self, event: HistoryEvent, about: Any) -> str:
        fields = {name: value_of(payload) for name, payload in about.search_attributes.indexed_fields.items()}
        shown = ", ".join(
            f"{name} {self._who(value) if value is not None else 'none'}" for name, value in sorted(fields.items())
        )
        return f"search attributes: {shown}"

    def _workflow_properties_modified(self, event: HistoryEvent, about: Any) -> str:
        return f"memo: {', '.join(about.upserted_memo.fields)}"

    def _workflow_task_failed(self, event: HistoryEvent, about: Any) -> tuple[str, str | None]:
        cause = WorkflowTaskFailedCause.Name(about.cause).removeprefix("WORKFLOW_TASK_FAILED_CAUSE_")
        failure = failure_said(about.failure) if about.HasField("failure") else cause.lower().replace("_", " ")
        return f"the workflow's code failed ({cause.lower().replace('_', ' ')}): {failure}", failure

    def _workflow_task_scheduled(self, event: HistoryEvent, about: Any) -> str:
        return "the workflow's code is to run"

    def _workflow_task_started(self, event: HistoryEvent, about: Any) -> str:
        return f"the workflow's code runs at {about.identity}"

    def _workflow_task_completed(self, event: HistoryEvent, about: Any) -> str:
        return "the workflow's code ran"

    def _activity_task_timed_out(self, event: HistoryEvent, about: Any) -> tuple[str, str | None]:
        which = TimeoutType.Name(about.failure.timeout_failure_info.timeout_type).removeprefix("TIMEOUT_TYPE_").lower()
        failure = failure_said(about.failure)
        return f"{self._named(about)} timed out ({which.replace('_', ' ')}): {failure}", failure

    def _start_child_workflow_execution_initiated(self, event: HistoryEvent, about: Any) -> str:
        self._begun[event.event_id] = about.workflow_id
        return f"{about.workflow_type.name} {about.workflow_id} is to start"

    def _child_workflow_execution_started(self, event: HistoryEvent, about: Any) -> str:
        return f"{about.workflow_type.name} {about.workflow_execution.workflow_id} started"

    def _arguments(self, payloads: Payloads) -> str:
        """What a signal brought: the moments by what caused them, a decision by who made it."""
        given = _first(payloads)
        if isinstance(given, list) and given and all(isinstance(one, dict) and "cause" in one for one in given):
            return ": " + ", ".join(f"{one['cause']} (cycle {one.get('cycle', '?')})" for one in given)
        command = self._command(given)
        return f": {command}" if command else ""

    def _command(self, given: Any) -> str | None:
        if not isinstance(given, dict) or "do" not in given:
            return None
        return f"{given['do']} by {self._who(given.get('by', 'somebody'))}"


# fmt: off
_FAILS: Final[Mapping[str, str]] = {
    # event                             what failed
    "workflow_execution_failed":        "the workflow failed",
    "activity_task_failed":             "the try failed",
    "child_workflow_execution_failed":  "the workflow that was started failed",
    "workflow_execution_update_rejected": "an update was refused",
}
# fmt: on


def _first(payloads: Payloads) -> Any:
    return value_of(payloads.payloads[0]) if payloads.payloads else None


def _result(payloads: Payloads) -> str:
    """What something came to, if that can be said in a word."""
    value = _first(payloads)
    if isinstance(value, dict):
        value = value.get("state")
    return f": {_short(str(value))}" if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _time(at: datetime) -> str:
    at = (at + timedelta(milliseconds=500)).replace(microsecond=0)
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
