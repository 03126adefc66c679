"""Make the model folder: ``python make.py FOLDER``."""

import shutil
import sys
from pathlib import Path

from node.catalogue import pinned_files

HERE = Path(__file__).parent


def main(folder: Path) -> None:
    """Copy the model, and pin it."""
    folder.mkdir(parents=True)
    shutil.copy(HERE / "model.py", folder)
    stated = (HERE / "analysis.toml").read_text(encoding="utf-8")
    (folder / "analysis.toml").write_text(stated + pinned_files.stanza(folder), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
