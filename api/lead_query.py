"""What a list of leads can be asked for in an address: the same for the API, the page and the file."""

from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from lifecycle.stages import Stage
from models.lead_filters import Asked, Sort, Waiting

_NUMBER: Final = 2**31 - 1


def _text(text: str) -> str:
    if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("holds a character that is no text")
    return text.strip()


def _without_blanks(given: Any) -> Any:
    return [one for one in given if one != ""] if isinstance(given, list) else given


BLANK: Final = BeforeValidator(lambda given: None if given == "" else given)
"""A form sends its empty fields too: they ask for nothing."""
Text = Annotated[Annotated[str, Field(max_length=200), AfterValidator(_text)] | None, BLANK]
Number = Annotated[Annotated[int, Field(ge=-_NUMBER, le=_NUMBER)] | None, BLANK]
Version = Annotated[Annotated[int, Field(ge=1, le=_NUMBER)] | None, BLANK]


class LeadQuery(BaseModel):
    """What is asked for, by what it is sorted, and after which row the part begins."""

    stage: Annotated[list[Stage], BeforeValidator(_without_blanks), Field(max_length=8)] = []
    owner: Annotated[Text, Field(description="an e-mail address, `me` or `none`")] = None
    account: Annotated[UUID | None, BLANK] = None
    q: Annotated[Text, Field(description="a part of name, e-mail address or company")] = None
    sla: Annotated[Literal["due", "overdue"] | None, BLANK] = None
    track: Annotated[Text, Field(description="a track's id, or `none`")] = None
    source: Text = None
    version: Annotated[Version, Field(description="of the agreement")] = None
    score_from: Number = None
    score_to: Number = None
    key_account: Annotated[bool | None, BLANK] = None
    waits_for: Annotated[Waiting | None, BLANK] = None
    sort: Annotated[Sort | None, BLANK] = None
    cursor: Annotated[str | None, BLANK] = None

    @property
    def asked(self) -> Asked:
        """What must hold of the leads."""
        return Asked(
            stage=self.stage, owner=self.owner, account=self.account, q=self.q, sla=self.sla, track=self.track,
            source=self.source, version=self.version, score_from=self.score_from, score_to=self.score_to,
            key_account=self.key_account, waits_for=self.waits_for,
        )  # fmt: skip

    @property
    def words(self) -> str:
        """The question as an address has it, the same for the same question: what a saved view keeps."""
        given = self.model_dump(mode="json", exclude_none=True, include={*Asked.__annotations__, "sort"})
        pairs = {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}
        pairs["stage"] = sorted(self.stage, key=list(Stage).index)
        return urlencode(sorted(pairs.items()), doseq=True)


class ListQuery(LeadQuery):
    """The question, and how much of the answer is to come at once."""

    limit: Annotated[int, Field(ge=1, le=500)] = 50
