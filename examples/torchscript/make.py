"""Make the model folder: ``python make.py FOLDER``. Needs the extra ``torch``."""

import sys
import warnings
from pathlib import Path

import torch

from node.catalogue import pinned_files

HERE = Path(__file__).parent


class Border(torch.nn.Module):
    """Compare the mean of the outer eighth of an image with that of the rest."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scores (batch, 2) and the difference (batch, 1) of an image (batch, 1, row, column)."""
        edge = image.shape[-1] // 8
        middle = image[..., edge:-edge, edge:-edge]
        inside = middle.mean(dim=(1, 2, 3))
        count = image[0].numel() - middle[0].numel()
        border = (image.sum(dim=(1, 2, 3)) - middle.sum(dim=(1, 2, 3))) / count
        difference = (border - inside).unsqueeze(1)
        return torch.cat([-10.0 * difference, 10.0 * difference], dim=1), difference


def main(folder: Path) -> None:
    """Compile the network, and pin it."""
    folder.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Border().eval()), folder / "border.pt")
    stated = (HERE / "analysis.toml").read_text(encoding="utf-8")
    (folder / "analysis.toml").write_text(stated + pinned_files.stanza(folder), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
