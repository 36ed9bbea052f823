"""Files that are there whole or not at all, digests of them, and values as JSON knows them."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step, by way of a hidden neighbour that carries the process's number: neither a kill nor a
    second process leaves half of one, and a failure leaves no neighbour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    neighbour = path.parent / f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.{os.getpid()}.tmp"
    try:
        neighbour.write_bytes(content)
        neighbour.replace(path)
    finally:
        neighbour.unlink(missing_ok=True)


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and digests of all files below a folder; of nothing where nothing is."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    below = sorted(one for one in path.rglob("*") if one.is_file() and "__pycache__" not in one.parts)
    listed = "".join(f"{one.relative_to(path)} {digest(one)}\n" for one in below)
    return hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest()


def write_json(path: Path, content: Any) -> Path:
    """Write JSON in one step: a reader sees the old file or the whole new one, never a half."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode(errors="backslashreplace"))  # a file name that is no UTF-8 becomes JSON's own escape
    return path


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
