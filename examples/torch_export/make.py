"""Make the model folder: ``python make.py FOLDER``. Needs the extra ``torch``."""

import sys
from pathlib import Path

import torch

from node.catalogue import pinned_files

HERE = Path(__file__).parent


class Tissues(torch.nn.Module):
    """Smooth over three voxels each way, and compare with the densities of three tissues."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.full((1, 1, 3, 3, 3), 1 / 27))
        self.register_buffer("densities", torch.tensor([-1000.0, 40.0, 700.0]).reshape(1, 3, 1, 1, 1))

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Return the scores (batch, tissue, x, y, z) of HU (batch, 1, x, y, z)."""
        smooth = torch.nn.functional.conv3d(volume, self.kernel, padding=1)
        return -(((smooth - self.densities) / 100.0) ** 2)


def main(folder: Path) -> None:
    """Export the network for volumes of any size that four divides, and pin it."""
    folder.mkdir(parents=True)
    sizes = {
        axis: 4 * torch.export.Dim(name, min=1, max=1024) for axis, name in ((2, "x"), (3, "y"), (4, "z"))
    }
    program = torch.export.export(
        Tissues().eval(), (torch.zeros(1, 1, 16, 20, 24),), dynamic_shapes={"volume": sizes}
    )
    torch.export.save(program, folder / "tissues.pt2")
    stated = (HERE / "analysis.toml").read_text(encoding="utf-8")
    (folder / "analysis.toml").write_text(stated + pinned_files.stanza(folder), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
