"""The way to Temporal, for worker, web and commands: one client, made when the server answers."""

import asyncio
import sys
import time
from typing import Final

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.runtime import Runtime
from temporalio.service import RPCError, RPCStatusCode

import settings as environment
from serve import addresses
from serve.embedded import SEARCH_ATTRIBUTES
from serve.parts import CannotServe
from settings import Settings

_KINDS: Final = {
    "Keyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "Int": IndexedValueType.INDEXED_VALUE_TYPE_INT,
    "Datetime": IndexedValueType.INDEXED_VALUE_TYPE_DATETIME,
}
_AWAY: Final = {
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.CANCELLED,
}
_PAUSE: Final = 0.25


async def connect(settings: Settings, *, within: float = 30.0, runtime: Runtime | None = None) -> Client:
    """Return a client of the configured namespace, waiting up to `within` seconds for the server.

    Raises CannotServe with the address and the reason when it stays away or knows no such namespace.
    """
    address = addresses.temporal_address(settings)
    deadline = time.monotonic() + within
    while True:
        try:
            client = await Client.connect(
                address,
                namespace=settings.temporal_namespace,
                tls=settings.temporal_tls or bool(settings.temporal_api_key),
                api_key=settings.temporal_api_key.get_secret_value() or None,
                data_converter=pydantic_data_converter,
                runtime=runtime,
            )
            await client.workflow_service.describe_namespace(
                DescribeNamespaceRequest(namespace=settings.temporal_namespace)
            )
        except (
            RuntimeError,
            RPCError,
        ) as error:  # the SDK's answer to a refused connection is a RuntimeError
            if isinstance(error, RPCError) and error.status not in _AWAY:
                raise CannotServe(_refusal(settings, address, error)) from error
            if time.monotonic() > deadline:
                raise CannotServe(
                    f"Temporal at {address} is out of reach ({_first_line(error)}); see BATON_TEMPORAL_ADDRESS."
                ) from error
            await asyncio.sleep(_PAUSE)
        else:
            return client


async def ensure_search_attributes(client: Client, *, within: float = 60.0) -> None:
    """Register the missing ones of the search attributes that a lead's workflow sets; return once they count.

    Raises CannotServe when one exists with another type, or when they may not be registered.
    """
    kept = await _registered(client)
    for name, kind in SEARCH_ATTRIBUTES.items():
        if kept.get(name, _KINDS[kind]) != _KINDS[kind]:
            raise CannotServe(
                f"Temporal's namespace {client.namespace} has a search attribute {name} that is no {kind};"
                " remove it, or set BATON_TEMPORAL_NAMESPACE to a namespace of Baton's own."
            )
    missing = {name: _KINDS[kind] for name, kind in SEARCH_ATTRIBUTES.items() if name not in kept}
    if missing:
        await _register(client, missing)
        await _wait_until_known(client, within)


async def _registered(client: Client) -> dict[str, IndexedValueType.ValueType]:
    answer = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    return dict(answer.custom_attributes)


async def _register(client: Client, attributes: dict[str, IndexedValueType.ValueType]) -> None:
    try:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=attributes)
        )
    except RPCError as error:
        if error.status is RPCStatusCode.ALREADY_EXISTS:  # another worker was first
            return
        raise CannotServe(
            f"Temporal does not let Baton register search attributes ({_first_line(error)}); register "
            + ", ".join(f"{name} ({SEARCH_ATTRIBUTES[name]})" for name in attributes)
            + f" in the namespace {client.namespace} by hand."
        ) from error


async def _wait_until_known(client: Client, within: float) -> None:
    """Wait for the server's frontends, which learn of a new attribute some seconds later."""
    deadline = time.monotonic() + within
    query = " AND ".join(f"{name} IS NULL" for name in SEARCH_ATTRIBUTES)
    while True:
        try:
            await client.count_workflows(query)
        except RPCError as error:
            if time.monotonic() > deadline:
                raise CannotServe(
                    f"Temporal registered Baton's search attributes but refuses them ({_first_line(error)})."
                ) from error
            await asyncio.sleep(_PAUSE)
        else:
            return


def _refusal(settings: Settings, address: str, error: RPCError) -> str:
    if error.status is RPCStatusCode.NOT_FOUND:
        return (
            f"Temporal at {address} has no namespace {settings.temporal_namespace};"
            " create it, or set BATON_TEMPORAL_NAMESPACE."
        )
    return f"Temporal at {address} refuses Baton ({_first_line(error)}); see BATON_TEMPORAL_API_KEY and _TLS."


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


async def _check() -> None:
    client = await connect(environment.load(), within=5.0)
    await ensure_search_attributes(client)


def main() -> int:
    """Check that Temporal is there and has what Baton needs, for containers; return the exit code."""
    try:
        asyncio.run(_check())
    except CannotServe as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
