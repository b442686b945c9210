"""How workflow code changes under running workflows, so that a release may be rolled forward, and back by one.

A change of what a workflow does stands behind `workflow.patched(name)`. The release that brings it has the name in
`DORMANT`: it can go on with workflows that took the new way, and lets none begin it. The release after that takes the
name out. So whichever of two releases in a row serves, it knows every way that a running workflow may have taken.
"""

from typing import Final

from temporalio.worker import PatchActivationInput

DORMANT: Final[frozenset[str]] = frozenset()
"""Changes that came with this release: known, and begun by the next."""


def may_begin(asked: PatchActivationInput) -> bool:
    """Whether a workflow that comes to a change for the first time takes the new way."""
    return asked.patch_id not in DORMANT
