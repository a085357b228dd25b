"""Finding lines in a log file: forwards by number, backwards from its end. Blocking reads."""

from __future__ import annotations

import os
import re

_BLOCK_BYTES = 1 << 16
_SEQ = re.compile(rb'\{"seq":(\d+)[,}]')
_SEQ_BYTES = 32


def offset_after(fd: int, end: int, seq: int) -> int:
    """Return where the first line begins whose number is greater than *seq*; else *end*.

    The lines before *end* are whole and in order, so that this takes a few reads however long
    the log is.
    """
    low, high, found = 0, end, end
    while low < high:
        middle = (low + high) // 2
        start = 0 if middle == 0 else _after_newline(fd, middle - 1, end)
        if start >= high:
            high = middle
        elif _seq_at(fd, start) > seq:
            high, found = middle, start
        else:
            low = _after_newline(fd, start, end)
    return found


def last_line_start(fd: int, end: int) -> int:
    """Return where the last line begins of those that end at or before *end*.

    *end* stands behind a newline. With one more than a file's size, this is where a torn last
    line begins (or the file's end, if none is torn).
    """
    position = end - 1
    while position > 0:
        start = max(0, position - _BLOCK_BYTES)
        newline = os.pread(fd, position - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def _after_newline(fd: int, position: int, end: int) -> int:
    """Return where the line after the first newline at or after *position* begins."""
    while position < end:
        block = os.pread(fd, min(_BLOCK_BYTES, end - position), position)
        newline = block.find(b"\n")
        if newline >= 0:
            return position + newline + 1
        if not block:
            break
        position += len(block)
    return end


def _seq_at(fd: int, start: int) -> int:
    """Return the number of the line at *start*: it is what every line begins with.

    Raises:
        ValueError: That is no line of a log.
    """
    matched = _SEQ.match(os.pread(fd, _SEQ_BYTES, start))
    if matched is None:
        raise ValueError("not a numbered line")
    return int(matched[1])
