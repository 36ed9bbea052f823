"""Files that are there whole or not at all, digests of them, and values as JSON knows them."""

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WAITS_S = (0.05, 0.1, 0.2, 0.4, 0.8)  # a virus scanner lets go within a second, a spreadsheet does not


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file in one step, by way of a hidden neighbour that carries the process's number: neither a kill nor a
    second process leaves half of one, and a failure leaves no neighbour. Returns where the content is: if another
    program holds the file (Windows), beside it, and a line on stderr says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    neighbour = path.parent / f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.{os.getpid()}.tmp"
    try:
        neighbour.write_bytes(content)
        for wait_s in WAITS_S:
            try:
                os.replace(neighbour, path)
                return path
            except PermissionError:
                time.sleep(wait_s)
    finally:
        neighbour.unlink(missing_ok=True)
    beside = path.with_name(f"{path.stem}.new{path.suffix}")
    beside.write_bytes(content)
    print(f"{path} is held open, it seems, and cannot be replaced: rename the new one, {beside}", file=sys.stderr)
    return beside


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and digests of all files below a folder; of nothing where nothing is."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    below = sorted(one for one in path.rglob("*") if one.is_file() and "__pycache__" not in one.parts)
    listed = "".join(f"{one.relative_to(path)} {digest(one)}\n" for one in below)
    return hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest()


def write_json(path: Path, content: Any) -> Path:
    """Write JSON in one step: a reader sees the old file or the whole new one, never a half. Returns where,
    as `write_bytes`."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # a file name that is no UTF-8 becomes JSON's own escape
    return write_bytes(path, text.encode(errors="backslashreplace"))


def plain(value: Any) -> Any:
    """`value` as JSON knows it: numpy's and torch's values become lists and numbers, keys text, NaN and infinities
    None. Floats keep every digit: equal runs must give equal records. Raises TypeError for the rest."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    raise TypeError(f"a record cannot hold a {type(value).__name__} ({value!r:.80}); paths go to run.note(...)")
