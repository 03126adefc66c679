"""A box around the body: arrays in, findings out."""

import numpy as np

from models.types import Code, Findings, Inputs, Mark, Measurement, Picture

CATEGORY = Code("91723000", "SCT", "Anatomical Structure")
BODY = Code("38266002", "SCT", "Entire body")
SHARE = Code("BOX-SHARE", "99ANODE", "Share of the volume in the box")
PERCENT = Code("%", "UCUM", "percent")
LEAST_SHARE = 0.01


class Box:
    """Finds where more than one voxel in a hundred of a plane is denser than the threshold."""

    def predict(self, inputs: Inputs) -> Findings:
        """Return the box; raises ValueError when nothing is dense enough."""
        volume = inputs.volume
        dense = volume.voxels > inputs.parameters["threshold_hu"]
        corners = []
        for axis in range(3):
            others = tuple(one for one in range(3) if one != axis)
            planes = np.flatnonzero(dense.mean(axis=others) > LEAST_SHARE)
            if not planes.size:
                raise ValueError("nothing in the volume is as dense as a body")
            corners.append((planes[0], planes[-1]))
        box = np.array(corners, np.float64).T
        share = 100.0 * float(np.prod(box[1] - box[0] + 1)) / volume.voxels.size
        return Findings(
            marks=(Mark("body", "Body", "box", box, CATEGORY, BODY),),
            measurements=(Measurement(SHARE, share, PERCENT, name="box share"),),
            pictures=(Picture("densest", "Densest value along each column", self._picture(volume.voxels)),),
        )

    def _picture(self, voxels: np.ndarray) -> np.ndarray:
        """From the front, the highest values along each line, as RGB."""
        grey = np.clip((voxels.max(axis=1).astype(np.float32) + 200) / 1200 * 255, 0, 255).astype(np.uint8)
        return np.repeat(grey[::-1, :, np.newaxis], 3, axis=2)
