"""The lungs of real people, as the node runs the model: in its own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from models.lungs import LOW_ATTENUATION, VOLUME
from models.types import Findings, Inputs
from node.catalogue import catalogue
from node.errors import UnfitInput
from node.processes.workers import Workers, WorkerSpec
from node.series import volume
from tests.support.data import require_data
from tests.support.made_series import real_series
from tests.support.model_runs import run

Analysed = Callable[[Path], Findings]
MOST_MEMORY_MB = 1500


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Analysed]:
    workers = Workers(tmp_path_factory.mktemp("data"))

    def analysed(series: Path) -> Findings:
        spec = WorkerSpec(catalogue.describe("lungs"), memory_mb=MOST_MEMORY_MB)
        with workers.lease(spec) as worker, worker.job_folder() as job:
            built = volume.build(real_series(series), job.allocate)
            return run(worker, Inputs({"volume": built.volume}), job, 240)

    yield analysed
    workers.stop()


def test_a_real_chest_is_measured_with_little_memory(analysed: Analysed) -> None:
    findings = analysed(require_data("series/CT_chest_LIDC-0314"))
    assert [check.reason for check in findings.checks if not check.passed] == []
    left, right = findings.segments
    assert 1850 < left.measurements[0].value < 1950
    assert 890 < right.measurements[0].value < 960
    assert left.measurements[0].concept == VOLUME
    assert left.measurements[2].concept == LOW_ATTENUATION
    assert 0.5 < left.measurements[2].value < 6
    # Columns run to the patient's left in this series.
    assert np.nonzero(left.mask)[2].mean() > np.nonzero(right.mask)[2].mean()


def test_the_lung_bases_of_a_real_abdomen_give_no_numbers(analysed: Analysed) -> None:
    findings = analysed(require_data("series/CT_abdomen_CRLM-1004"))
    assert all(segment.mask.any() and not segment.measurements for segment in findings.segments)
    reasons = [check.reason for check in findings.checks if not check.passed]
    assert [reason.partition(":")[0] for reason in reasons] == [
        "the scan cuts the left lung",
        "the scan cuts the right lung",
    ]


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("series/PT_wholebody_STS-001", "the modality is PT"),
        ("series/MR_T1_brain_HFS", "the modality is MR"),
        ("series/STS-003_CT", "nothing in the body has the size, density and place of a lung"),
    ],
)
def test_what_is_no_chest_ct_is_refused(folder: str, reason: str, analysed: Analysed) -> None:
    with pytest.raises(UnfitInput, match=reason):
        analysed(require_data(folder))
