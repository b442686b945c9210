"""Workflow code is for ever: every committed history replays on the code of today."""

import asyncio
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from worker import WORKFLOWS

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def test_there_are_histories_to_replay() -> None:
    assert len(HISTORIES) >= 5


@pytest.mark.parametrize("file", HISTORIES, ids=lambda file: file.stem)
async def test_a_committed_history_replays(file: Path) -> None:
    replayer = Replayer(workflows=WORKFLOWS, data_converter=pydantic_data_converter)
    history = await asyncio.to_thread(file.read_text)
    await replayer.replay_workflow(WorkflowHistory.from_json("lead-replayed", history))
