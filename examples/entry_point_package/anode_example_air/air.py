"""How much of a CT is air."""

import numpy as np

from models.base import ModelCard, Need, Parameter
from models.types import Code, Findings, Inputs, Measurement


class Air:
    """The model ``example-air``: voxels below a threshold, counted."""

    card = ModelCard(
        name="example-air",
        version="1.0.0",
        title="Air in a CT (example package)",
        manufacturer="anode examples",
        licence="Apache-2.0",
        intended_use="Show how another package brings a model",
        limits="Research only, not for diagnosis. The air around the patient counts, too.",
        evidence="None: a threshold.",
        inputs="one CT series as a volume in HU",
        outputs="volume of air in ml",
        family=Code("123105", "DCM", "Histogram Analysis"),
    )
    needs = (Need("volume", "volume", modalities=("CT",), unit="[hnsf'U]"),)
    parameters = (Parameter("threshold_hu", -950.0, "what is less dense is air", -1024.0, 0.0),)

    def predict(self, inputs: Inputs) -> Findings:
        """Count the voxels of ``inputs.volume`` below the threshold."""
        below = inputs.volume.voxels < inputs.parameters["threshold_hu"]
        air = int(np.count_nonzero(below)) * inputs.volume.voxel_ml
        concept, unit = Code("118565006", "SCT", "Volume"), Code("ml", "UCUM", "milliliter")
        return Findings(measurements=(Measurement(concept, air, unit, name="air volume"),))
