"""Writing tracks as people would: YAML that reads back as the very same track."""

import json
import re
import textwrap
from typing import Any, Final

import yaml

from lifecycle.tracks import Track

from .reader import SCALARS, AgreementInvalid, read_tracks

WIDTH: Final = 110


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such, and quotes whatever its reader, or YAML's own, would take for no text."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists below their key, as people do."""
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        """Write what stands twice twice: the reader takes no aliases."""
        return True


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
for _tag, _form in SCALARS.items():
    if _form:
        _Dumper.add_implicit_resolver(_tag, re.compile(_form[0]), list(_form[1]))


def body_of(track: Track) -> dict[str, Any]:
    """Return the track as JSON: what is kept of it, and compared."""
    return track.model_dump(mode="json", by_alias=True, exclude_none=True)


def write_track(track: Track) -> str:
    """Return the track as YAML that reads back as the same; what it leaves to the defaults is not written."""
    written = yaml.dump(_plain(body_of(track)), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH)
    return written if _reads_as(written, track) else _as_json(track)


def own_source(source: str, track: Track) -> str:
    """Return the part of a file that is about the track, comments and all, if it can stand alone; else written anew."""
    for text in (source, _cut(source, track.id)):
        if text and _reads_as(text, track):
            return text
    return write_track(track)


def _as_json(track: Track) -> str:
    return json.dumps(body_of(track), indent=2, ensure_ascii=False)


def _cut(source: str, track_id: str) -> str:
    """Return the lines of one item of a list of tracks, moved to the left; empty if they cannot be told."""
    try:
        root = yaml.compose(source, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return ""
    for node in root.value if isinstance(root, yaml.SequenceNode) else ():
        keys = {key.value: value.value for key, value in node.value} if isinstance(node, yaml.MappingNode) else {}
        if keys.get("id") == track_id:
            start, end = node.start_mark, node.end_mark
            return textwrap.dedent(" " * start.column + source[start.index : end.index]).rstrip() + "\n"
    return ""


def _reads_as(text: str, track: Track) -> bool:
    try:
        return read_tracks(text) == [track]
    except AgreementInvalid:
        return False


def _plain(value: Any) -> Any:
    """Leave out what the reader puts there by itself, and write whole numbers as such."""
    match value:
        case dict():
            kept = {key: _plain(inner) for key, inner in value.items() if not _is_default(key, inner, value)}
            return {"field": kept.pop("field"), **kept} if "field" in kept else kept
        case list():
            return [_plain(one) for one in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


def _is_default(key: str, value: Any, beside: dict[str, Any]) -> bool:
    match key:
        case "topic":
            return "steps" in beside and bool(value == "marketing")
        case "catch_up":
            return bool(value == {"after": "1d", "policy": "collapse"})
        case "where":
            return bool(value == {}) and "event" in beside
        case "at_least":
            return bool(value == 1) and "event" in beside
        case "then" | "else" | "otherwise":
            return bool(value == [])
        case _:
            return False
