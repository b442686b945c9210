"""A relay of its own on a Temporal server whose time can be skipped: months pass in seconds."""

import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

import pytest_asyncio
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import TimeSkippingConfig, WorkflowEnvironment

from models.session import make_engine, sessions
from serve.embedded import SEARCH_ATTRIBUTES
from tests.support import Relay, running
from workflows.names import workflow_id

_SKIPPING = {  # without the last three each skipped timer takes a second
    "frontend.WorkflowTimeSkippingEnabled": "true",
    "frontend.enableServerVersionCheck": "false",
    "history.timerProcessorMaxTimeShift": '"1ms"',
    "history.timerProcessorMaxPollRPS": "2000",
    "history.transferProcessorMaxPollRPS": "2000",
}


@dataclass(slots=True)
class Months:
    """A relay in which the clock of each lead stands still until a test moves it on."""

    relay: Relay
    environment: WorkflowEnvironment

    async def to(self, lead_id: UUID, at: datetime) -> None:
        """Let the lead's time pass until `at`; everything that is due before happens on its way."""
        handle = self.relay.client.get_workflow_handle(workflow_id(lead_id))
        left = at - await self.environment.get_current_time(handle)
        assert await self.environment.fast_forward(handle, left)
        await self.relay.until(lead_id, lambda lead: (next_ := lead.deadline()) is None or next_.at > at)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def months(own_database: Callable[[str], str]) -> AsyncIterator[Months]:
    async with await WorkflowEnvironment.start_time_skipping_v2(
        ts_config=TimeSkippingConfig(max_session_skip_count=100_000),
        data_converter=pydantic_data_converter,
        dev_server_existing_path=str(Path(sys.executable).parent / "temporal"),
        dev_server_extra_args=[
            *(word for key, value in _SKIPPING.items() for word in ("--dynamic-config-value", f"{key}={value}")),
            *(word for name, kind in SEARCH_ATTRIBUTES.items() for word in ("--search-attribute", f"{name}={kind}")),
        ],
        dev_server_log_level="error",
    ) as environment:
        engine = make_engine(own_database("months"))
        with environment.with_time_skipping_disabled():
            async with running(engine, sessions(engine), environment.client) as relay:
                yield Months(relay, environment)
        await engine.dispose()
