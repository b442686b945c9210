"""The embedded servers alone: what they keep through a crash, and where they refuse to start."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from serve import migrate
from serve.embedded import SEARCH_ATTRIBUTES, EmbeddedPostgres, EmbeddedTemporal
from serve.parts import CannotServe
from serve.temporal import connect, ensure_search_attributes
from settings import Settings


@pytest.fixture
def temporal_server(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> Iterator[EmbeddedTemporal]:
    port, ui_port = free_ports(2)
    server = EmbeddedTemporal(tmp_path, port=port, ui_port=ui_port)
    yield server
    server.stop()


async def test_temporal_continues_on_its_file_after_a_kill(temporal_server: EmbeddedTemporal) -> None:
    settings = Settings(temporal_address=temporal_server.address)
    temporal_server.start()
    client = await connect(settings)
    await client.start_workflow("Nobody", id="lead-1", task_queue="nobody")
    temporal_server.kill()
    temporal_server.start()
    described = await (await connect(settings)).get_workflow_handle("lead-1").describe()
    assert described.workflow_type == "Nobody"


async def test_temporal_keeps_closed_workflows_for_thirty_days(temporal_server: EmbeddedTemporal) -> None:
    temporal_server.start()
    client = await connect(Settings(temporal_address=temporal_server.address))
    namespace = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="default"))
    assert namespace.config.workflow_execution_retention_ttl.ToTimedelta().days == 30


def test_a_temporal_file_of_another_version_is_refused(temporal_server: EmbeddedTemporal, tmp_path: Path) -> None:
    (tmp_path / "temporal.db").touch()
    (tmp_path / "temporal.version").write_text("1.20\n")
    with pytest.raises(CannotServe, match=r"written by Temporal server 1\.20.*baton rebuild"):
        temporal_server.start()


async def test_temporal_out_of_reach_is_one_sentence(free_ports: Callable[[int], list[int]]) -> None:
    [port] = free_ports(1)
    with pytest.raises(CannotServe, match=rf"Temporal at 127\.0\.0\.1:{port} is out of reach"):
        await connect(Settings(temporal_address=f"127.0.0.1:{port}"), within=0)


async def test_an_unknown_namespace_is_named(temporal: WorkflowEnvironment) -> None:
    address = temporal.client.service_client.config.target_host
    with pytest.raises(CannotServe, match="has no namespace nowhere"):
        await connect(Settings(temporal_address=address, temporal_namespace="nowhere"))


async def test_search_attributes_are_registered_where_they_are_missing(temporal: WorkflowEnvironment) -> None:
    request = RegisterNamespaceRequest(namespace="bare")
    request.workflow_execution_retention_period.FromSeconds(86_400)
    await temporal.client.workflow_service.register_namespace(request)
    bare = Client(temporal.client.service_client, namespace="bare")
    await ensure_search_attributes(bare)
    await ensure_search_attributes(bare)  # the second worker finds them
    for name in SEARCH_ATTRIBUTES:
        assert (await bare.count_workflows(f"{name} IS NULL")).count == 0


def test_a_deep_data_directory_gets_its_socket_elsewhere(short_dir: Path) -> None:
    deep = short_dir / ("deep" * 25)
    server = EmbeddedPostgres(deep).start()
    try:
        assert server.socket_dir.parent == Path(tempfile.gettempdir())
        assert EmbeddedPostgres(deep).url == server.url
        with psycopg.connect(server.url.replace("+psycopg", "")) as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    finally:
        server.stop()
        shutil.rmtree(server.socket_dir, ignore_errors=True)


def test_a_half_made_database_is_made_anew(short_dir: Path) -> None:
    data_dir = short_dir / "half"
    (data_dir / "postgres.4711.new").mkdir(parents=True)
    (data_dir / "postgres").mkdir()
    server = EmbeddedPostgres(data_dir).start()
    server.stop()
    assert (data_dir / "postgres" / "PG_VERSION").exists()


def test_a_note_whose_process_number_is_another_programs_is_no_obstacle(short_dir: Path) -> None:
    server = EmbeddedPostgres(short_dir / "noted").start()
    server.kill()
    note = short_dir / "noted" / "postgres" / "postmaster.pid"
    lines = note.read_text().splitlines()
    note.write_text("\n".join(["1", *lines[1:]]))
    server.start()
    server.stop()


def test_migrating_twice_is_harmless_and_leaves_the_tables_of_the_code(database_url: str) -> None:
    migrate.upgrade(database_url)
    migrate.check(database_url)


def test_migrating_an_absent_database_is_one_sentence(short_dir: Path) -> None:
    with pytest.raises(CannotServe, match="The database is out of reach"):
        migrate.upgrade(f"postgresql+psycopg://baton@/baton?host={short_dir}/nowhere")
