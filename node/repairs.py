"""What a start finds left in the middle by a run that was cut short, and puts right."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields


@dataclass
class Repairs:
    """How much of what a start put right; all zero after a run that was stopped.

    Attributes
    ----------
    instances_indexed : int
        Durable in the receive log, and not in the index yet.
    records_torn : int
        Of the receive log whose end never became durable, so that nobody was told Success: left out.
    records_kept : int
        Of the receive log that could not be dealt with: kept, and tried again at the next start.
    files_removed : int
        Unfinished ones of the archive and of the receive log.
    analyses_removed : int
        Folders of analyses that were running.
    jobs_given_back : int
        Begun and not ended; they are done again.
    """

    instances_indexed: int = 0
    records_torn: int = 0
    records_kept: int = 0
    files_removed: int = 0
    analyses_removed: int = 0
    jobs_given_back: int = 0

    def counts(self) -> dict[str, int]:
        """What was put right, by name; what was not found is not there."""
        return {name: count for name, count in asdict(self).items() if count}

    @classmethod
    def of(cls, counts: object) -> Repairs:
        """Make it from what ``counts`` gave; raises TypeError or ValueError where that is something else."""
        if not isinstance(counts, dict):
            raise TypeError("the repairs are no object")
        return cls(**{field.name: int(counts.get(field.name, 0)) for field in fields(cls)})
