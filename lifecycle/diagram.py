"""The lifecycle as a picture, drawn from the table, so that the docs cannot drift from the code."""

from .stages import RULES, TERMINAL, Stage


def mermaid() -> str:
    """Return the table as a Mermaid state diagram; events that leave a lead where it is are gathered in notes."""
    lines = ["stateDiagram-v2", f"    [*] --> {Stage.INQUIRY}"]
    between: dict[tuple[Stage, Stage], list[str]] = {}
    staying: dict[Stage, list[str]] = {}
    for rule in RULES:
        if rule.source is rule.target:
            staying.setdefault(rule.source, []).append(rule.event)
        else:
            between.setdefault((rule.source, rule.target), []).append(rule.event)
    lines += [f"    {a} --> {b}: {', '.join(events)}" for (a, b), events in between.items()]
    lines += [f"    {stage} --> [*]" for stage in Stage if stage in TERMINAL]
    for stage, events in staying.items():
        lines += [f"    note right of {stage}", f"        stays on {', '.join(events)}", "    end note"]
    return "\n".join(lines)


def table() -> str:
    """Return the table's rows in Markdown."""
    rows = [
        f"| {rule.source} | {rule.event} | {rule.target} | {(rule.effect or '').replace('_', ' ')} |" for rule in RULES
    ]
    return "\n".join(["| in stage | on event | moves to | and then |", "|---|---|---|---|", *rows])
