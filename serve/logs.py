"""What the parts print: to a file per part, rotated by size, and to the console with the part's name."""

import asyncio
import logging
import sys
from collections import deque
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

_FILE_BYTES: Final = 10_000_000
_FILES: Final = 3
_LINE_BYTES: Final = 32_768  # a longer line is cut into several, so that no part can fill the memory


class PartLog:
    """The log of one part; keeps its last lines for the sentence that is said when it fails."""

    def __init__(self, name: str, directory: Path, *, quiet: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"{name}.log"
        self.last: deque[str] = deque(maxlen=30)
        self._name = name
        self._quiet = quiet
        self._file = RotatingFileHandler(
            self.path, maxBytes=_FILE_BYTES, backupCount=_FILES, encoding="utf-8", errors="replace"
        )

    def line(self, text: str) -> None:
        """Write one line to the file and, unless quiet, to the console."""
        if text.strip():
            self.last.append(text)
        self._file.emit(logging.LogRecord(self._name, logging.INFO, "", 0, text, None, None))
        if self._quiet:
            return
        with suppress(OSError, ValueError):  # a closed console must not stop the server
            sys.stdout.write(f"{self._name:<8} | {text}\n")
            sys.stdout.flush()

    async def follow(self, stream: asyncio.StreamReader) -> None:
        """Write everything that a part prints, until it closes its end."""
        rest = b""
        while chunk := await stream.read(_LINE_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self.line(line.decode(errors="replace").rstrip("\r"))
            if len(rest) >= _LINE_BYTES:
                self.line(rest.decode(errors="replace"))
                rest = b""
        if rest:
            self.line(rest.decode(errors="replace"))

    def close(self) -> None:
        """Close the file."""
        self._file.close()
