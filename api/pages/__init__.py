"""The pages: they read and show. Whatever changes something goes through the JSON API, from a form on a page."""

from . import (
    accounts,
    agreements,
    duplicates,
    front,
    imports,
    launches,
    lead,
    leads,
    mails,
    ops,
    people,
    queue,
    reports,
    signing,
    team,
    tracks,
)

PAGES = (
    front,
    signing,
    queue,
    leads,
    lead,
    accounts,
    agreements,
    imports,
    duplicates,
    ops,
    tracks,
    launches,
    mails,
    people,
    team,
    reports,
)
