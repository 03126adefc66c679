"""Make the bundle: ``python make.py FOLDER``. Needs the extra ``monai``; trains for a few seconds."""

import shutil
import sys
import warnings
from pathlib import Path

import torch

from node.catalogue import pinned_files

HERE = Path(__file__).parent
STEPS = 60


def shapes(generator: torch.Generator) -> torch.Tensor:
    """Smooth random shapes (batch, 1, x, y, z) in 0 to 1."""
    coarse = torch.rand(2, 1, 4, 4, 2, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(32, 32, 16), mode="trilinear")


def trained() -> torch.nn.Module:
    """A tiny U-Net that has learned what is brighter than 0.625, which in the bundle's window is 250 HU."""
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    network = UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=2,
        channels=(4, 8),
        strides=(2,),
        num_res_units=1,
        norm="batch",
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        image = shapes(generator)
        loss = torch.nn.functional.cross_entropy(network(image), (image[:, 0] > 0.625).long())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()


def main(folder: Path) -> None:
    """Write the bundle with its weights, and pin its files."""
    (folder / "models").mkdir(parents=True)
    shutil.copytree(HERE / "configs", folder / "configs")
    shutil.copy(HERE.parents[1] / "LICENSE", folder / "LICENSE")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(trained().state_dict(), folder / "models" / "model.pt")
    stated = (HERE / "analysis.toml").read_text(encoding="utf-8")
    (folder / "analysis.toml").write_text(stated + pinned_files.stanza(folder), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
