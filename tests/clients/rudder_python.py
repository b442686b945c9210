"""A program that sends with rudder-sdk-python, as its users write it: URL, write key and a name as arguments."""

import sys

from rudderstack.analytics import Client  # type: ignore[import-untyped]


def main(url: str, key: str, name: str) -> None:
    failed: list[object] = []
    client = Client(key, host=url, on_error=lambda error, batch: failed.append(error))
    for number in range(1_000):
        who, properties = f"{name}-{number % 20}", {"client": name, "number": number}
        if number < 20:
            client.identify(who, {"name": "Jo Doe", "email": f"{who}@clients.test", "number": number})
        elif number % 2:
            client.track(who, "Email Opened", properties)
        else:
            client.page(who, None, "Pricing", {"path": "/pricing", **properties})
    client.shutdown()
    if failed:
        sys.exit(str(failed[0]))


main(*sys.argv[1:])
