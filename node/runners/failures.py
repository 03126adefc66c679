"""How a run fails for which nobody can blame the images."""

from __future__ import annotations


class RunFailed(RuntimeError):
    """No result, and no fault of the input; its words say all, where in anode it was raised says nothing."""


class FolderFault(RunFailed):
    """What ``analysis.toml`` says does not fit what its model is given, or what that answers."""


class NotAsAgreed(RunFailed):
    """What ``predict`` returned is no Findings, or none that its input can have."""


class ModelReplaced(RunFailed):
    """The model is not the one any more that the run is for; the next one finds out which it is."""
