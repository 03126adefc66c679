"""Make the model folder: ``python make.py FOLDER``. Its environment has no package in it."""

import shutil
import sys
import venv
from pathlib import Path

from node.catalogue import pinned_files

HERE = Path(__file__).parent


def main(folder: Path) -> None:
    """Copy the program, make its environment, and pin the program."""
    folder.mkdir(parents=True)
    shutil.copy(HERE / "body.py", folder)
    venv.create(folder / "environment", with_pip=False)
    pins = pinned_files.stanza(folder, but=["environment"])
    stated = (HERE / "analysis.toml").read_text(encoding="utf-8")
    (folder / "analysis.toml").write_text(stated + pins, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
