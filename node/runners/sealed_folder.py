"""A model folder that has to stay as it was: looked at before each run of a model that was loaded once.

Between two runs somebody may have put another file in its place, or one more beside it. A program is started
anew for each run, and Python imports some modules late: they would run what no result tells of.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from models.base import Model
from models.types import Findings, Inputs
from node.catalogue import catalogue, pinned_files
from node.catalogue.catalogue import Description
from node.runners.failures import ModelReplaced


class SealedFolder:
    """The folder of a model, proven now.

    Raises
    ------
    registry.UnusableModel
        as of ``catalogue.verify``
    """

    def __init__(self, description: Description) -> None:
        assert description.folder is not None
        self._folder = description.folder
        self._description = description
        # before the digests are taken, so that what changes meanwhile is noticed
        self._seen = self._identities()
        self._seen_folders = self._folder_times()
        catalogue.verify(description)

    def refuse_touches(self) -> None:
        """End the time in which the model is loaded: what was touched in it may have been another file.

        Digests would not tell, of a file that was put back.

        Raises
        ------
        ModelReplaced
            something was
        """
        now = self._identities()
        if now != self._seen or not now or self._folder_times() != self._seen_folders:
            raise ModelReplaced(f"{self._folder} was touched while the model was loaded")

    def refuse_changes(self) -> None:
        """Compare the folder with what it was; digests are taken again only of what was touched.

        Raises
        ------
        ModelReplaced
            naming each file that is missing, another one or not pinned
        """
        now = self._identities()
        is_touched = now != self._seen or not now
        describe = catalogue.faults if is_touched else catalogue.unpinned
        if found := describe(self._description):
            raise ModelReplaced(f"since the model was loaded: {'; '.join(found)}")
        self._seen = now

    def _identities(self) -> tuple[tuple[int, ...], ...]:
        """Return what would change with a file; nothing when one of them cannot be looked at."""
        try:
            return pinned_files.identities(self._folder, self._description.files)
        except OSError:
            # which one, and why, is told with the digests
            return ()

    def _folder_times(self) -> dict[Path, tuple[int, int]]:
        """Return what would change where a file comes or goes beside those of the model."""
        folders = {self._folder, *((self._folder / one.path).parent for one in self._description.files)}
        times = {}
        for folder in folders:
            with suppress(OSError):
                facts = folder.stat()
                times[folder] = facts.st_mtime_ns, facts.st_ctime_ns
        return times


class SealedModel:
    """A ``models.base.Model`` of a folder; it runs only while the folder is what it was."""

    def __init__(self, model: Model, folder: SealedFolder) -> None:
        self.card, self.needs, self.parameters = model.card, model.needs, model.parameters
        self._model = model
        self._folder = folder

    def predict(self, inputs: Inputs) -> Findings:
        """Return what the model finds; raises ``ModelReplaced`` when its folder is another one by now."""
        self._folder.refuse_changes()
        return self._model.predict(inputs)
