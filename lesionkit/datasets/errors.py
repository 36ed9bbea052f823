"""What can be wrong with a data set; every message is one sentence: what, where, what to do."""

from collections.abc import Sequence


class DatasetError(RuntimeError):
    """A data set is not as it should be."""


class UnknownDataset(DatasetError):
    """The name is not one the kit knows."""


class MissingData(DatasetError):
    """The files are not where they are expected."""


class InvalidData(DatasetError):
    """The files are there, but they are not what they should be."""


def listing(names: Sequence[str], limit: int = 3) -> str:
    """The first names, and how many more there are, for messages."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
