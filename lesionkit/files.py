"""Files that are there whole or not at all."""

import hashlib
import os
from pathlib import Path


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
