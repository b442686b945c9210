"""Names that the outside needs of the workflows: ids, task queue, search attributes."""

from typing import Final
from uuid import UUID

from temporalio.common import SearchAttributeKey

TASK_QUEUE: Final = "leads"

STAGE: Final = SearchAttributeKey.for_keyword("LeadStage")
OWNER: Final = SearchAttributeKey.for_keyword("LeadOwner")
ACCOUNT: Final = SearchAttributeKey.for_keyword("LeadAccount")
TRACK: Final = SearchAttributeKey.for_keyword("LeadTrack")
AGREEMENT: Final = SearchAttributeKey.for_int("LeadAgreement")
SLA_DUE: Final = SearchAttributeKey.for_datetime("LeadSlaDue")


def workflow_id(lead_id: UUID | str) -> str:
    """Return the id of the one workflow that a lead has."""
    return f"lead-{lead_id}"
