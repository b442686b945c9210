"""Taking a person out of a file that was uploaded and is still to be read: line numbers stay what they were."""

from collections.abc import Callable

from .csvfile import Row, UnreadableFile, Upload, lines_of, read_rows, shape_of

Concerns = Callable[[Row, str], bool]
"""Whether a record is about somebody: its cells, and its lines as they stand in the file."""


def without(file: Upload, concerns: Concerns) -> bytes | None:
    """Return the file with blank lines for the records that are about somebody; None when there are none.

    It comes out as UTF-8, whatever it was. What cannot be read as a table is emptied when it is about somebody.
    """
    try:
        shape = shape_of(file)
        lines = list(lines_of(file, shape.encoding))
        begins = list(read_rows(file, shape=shape))
    except UnreadableFile:
        text = file.content.decode(errors="replace")
        return b"" if concerns(Row(0, {}), text) else None
    found = False
    for number, row in enumerate(begins):
        end = begins[number + 1].line - 1 if number + 1 < len(begins) else len(lines)
        if concerns(row, "\n".join(lines[row.line - 1 : end])):
            lines[row.line - 1 : end] = [""] * (end - row.line + 1)
            found = True
    if not found:
        return None
    text = "".join(f"{line}\n" for line in lines)
    return text.encode("utf-8-sig", "surrogateescape")  # bytes that were no text stay ones that are none
