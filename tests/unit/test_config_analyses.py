"""What a stanza says of an analysis is held against its model and the other analyses when it is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from node.config import config_file
from node.config.settings import AnalysisConfig, Config
from node.errors import ConfigurationError

MODEL = """\
[analysis]
name = "two-inputs"
version = "1"
title = "A model for tests"
manufacturer = "nobody"
intended_use = "tests"
limits = "all"
licence = "none"
evidence = "none"
family = { value = "123105", scheme = "DCM", meaning = "Histogram Analysis" }

[runner]
kind = "python"
entry = "model.py:Nothing"
files = [{ path = "model.py", sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" }]

[[input]]
name = "ct"
as = "volume"

[[input]]
name = "pet"
as = "volume"
from = "study"

[[input]]
name = "mask"
as = "volume"
from = "study"
optional = true

[[input]]
name = "before"
as = "volume"
from = "prior"

[[parameter]]
name = "threshold"
default = 0.5
minimum = 0
maximum = 1
meaning = "where to begin"

[[parameter]]
name = "mode"
default = "fast"
choices = ["fast", "exact"]
meaning = "how"

[[parameter]]
name = "window"
default = [0, 100]
meaning = "what is shown"
"""
PET = 'inputs = { pet = { Modality = "PT" } }'
SIMPLE = '[[analyses]]\nname = "{}"\nmodel = "series-quality"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "models" / "two"
    model.mkdir(parents=True)
    (model / "analysis.toml").write_text(MODEL)
    return tmp_path


def load(folder: Path, text: str) -> Config:
    file = folder / "config.toml"
    file.write_text(text)
    return config_file.load(file)


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(folder, text)
    return [problem.removeprefix(f"{folder}/config.toml:") for problem in caught.value.problems]


def stanza(*lines: str) -> str:
    return "\n".join(['[[analyses]]\nname = "two"\nmodel = "models/two"', *lines, ""])


def only(folder: Path, *lines: str) -> AnalysisConfig:
    (analysis,) = load(folder, stanza(*lines)).analyses
    return analysis


def test_all_that_a_stanza_may_say_is_read(folder: Path) -> None:
    analysis = only(
        folder,
        'when = { Modality = "CT" }',
        'parameters = { threshold = 1, window = [5, 50], mode = "fast" }',
        PET,
        'priors = { before = { StudyDescription = "CT*" } }',
        'results = ["sr", "labelmap", "rtstruct"]',
        "quiet_seconds = 3",
        "timeout_seconds = 60",
        "memory_mb = 4000",
        'device = "cpu"',
        "allow_network = true",
    )
    assert analysis == AnalysisConfig(
        name="two",
        model=str(folder / "models" / "two"),
        when={"Modality": "CT"},
        # What is set to its default is as if it were not set.
        parameters={"threshold": 1.0, "window": (5, 50)},
        inputs={"pet": {"Modality": "PT"}},
        priors={"before": {"StudyDescription": "CT*"}},
        results=("sr", "labelmap", "rtstruct"),
        quiet_seconds=3.0,
        timeout_seconds=60.0,
        memory_mb=4000,
        device="cpu",
        allow_network=True,
    )


@pytest.mark.parametrize("written", ["./models/two", "models/two", "~/models/two", "{folder}/models/two"])
def test_a_model_with_a_separator_or_a_dot_is_a_folder_beside_the_file(
    folder: Path, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir("/")
    text = f'[[analyses]]\nname = "two"\nmodel = "{written.format(folder=folder)}"\n{PET}\n'
    assert load(folder, text).analyses[0].model == str(folder / "models" / "two")


def test_a_name_stays_a_name(tmp_path: Path) -> None:
    assert load(tmp_path, SIMPLE.format("q")).analyses[0].model == "series-quality"


def test_every_fault_of_a_model_folder_is_told(folder: Path) -> None:
    path = folder / "models" / "two" / "analysis.toml"
    path.write_text(MODEL.replace("licence =", "license =").replace('kind = "python"', 'kind = "pyton"'))
    found = problems(folder, stanza(PET))
    assert len(found) >= 2
    assert all(one.startswith("3: [[analyses]] model: ") and "analysis.toml:" in one for one in found)
    assert any("did you mean 'licence'?" in one for one in found)


def test_a_folder_that_is_not_there_is_told(folder: Path) -> None:
    (found,) = problems(folder, '[[analyses]]\nname = "x"\nmodel = "./nowhere"\n')
    assert found.startswith("3: [[analyses]] model: ")
    assert f"{folder}/nowhere" in found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("parameters = { treshold = 1 }", "parameters: treshold: unknown parameter; did you mean "
         "'threshold'?"),
        ("parameters = { threshold = 'a' }", 'parameters: threshold: expected a number, not "a"'),
        ("parameters = { threshold = 2 }", "parameters: threshold: expected a number from 0 to 1, not 2"),
        ("parameters = { mode = 'fats' }", "parameters: mode: \"fats\" is none of"),
        ("parameters = 3", "parameters: expected a table in braces, not 3"),
        ("priors = { befor = {} }", "priors: befor: the model has no such input of an earlier study; "
         "did you mean 'before'?"),
        ("priors = { pet = {} }", "priors: pet: this input is one of the study; it belongs in inputs"),
        ("priors = { ct = {} }", "priors: ct: that is the series that the analysis is started for, and "),
        ("priors = { before = { Modalty = 'CT' } }", "priors: before: Modalty: not a DICOM keyword; did you "
         "mean 'Modality'?"),
        ("priors = { before = 'CT' }", "priors: before: expected a table such as"),
        ("after = 'two'", "after: 'two' is this analysis itself"),
        ("after = ['lungs']", "after: there is no analysis 'lungs'"),
        ("after = 3", "after: expected a list in square brackets, not 3"),
        ("when = { two.x = '1' }", "when: two.x: a result of this analysis itself"),
        ("when = { 'tow.x' = '1' }", "when: tow.x: no analysis is called 'tow', whose result this would be; "
         "did you mean 'two'?"),
        ("device = 'gpu'", "device: 'gpu' is none of auto, cpu, cuda; did you mean 'cuda'?"),
        ("device = 'CPU'", "device: 'CPU' is none of auto, cpu, cuda; did you mean 'cpu'?"),
        ("memory_mb = 99999999999999999999", "memory_mb: expected a whole number from 0 to 16777216"),
        ("memory_mb = 1.5", "memory_mb: expected a whole number"),
        ("timeout_seconds = 0", "timeout_seconds: expected a number above 0"),
        ("allow_network = 1", "allow_network: expected true or false"),
        ("param = {}", "param: unknown key; did you mean 'parameters'?"),
    ],
)  # fmt: skip
def test_each_fault_of_a_stanza_is_told_with_its_line(folder: Path, line: str, expected: str) -> None:
    found = problems(folder, stanza(PET, line))
    assert len(found) == 1
    assert found[0].startswith(f"5: [[analyses]] {expected}")


def test_a_needed_input_of_the_study_has_to_be_named_and_a_prior_has_not(folder: Path) -> None:
    assert problems(folder, stanza()) == [
        "1: [[analyses]] inputs: the model needs 'pet', another series of the study: say which, "
        'inputs = { pet = { Modality = "..." } }'
    ]
    assert only(folder, PET).priors == {}


def test_a_modality_that_the_model_would_refuse_is_told(folder: Path) -> None:
    path = folder / "models" / "two" / "analysis.toml"
    text = MODEL.replace('name = "ct"', 'name = "ct"\nmodality = ["CT", "PT"]')
    path.write_text(text.replace('name = "before"', 'name = "before"\nmodality = "CT"'))
    for pattern in ('"C*"', '["ct", "PT"]', '"*"'):
        only(folder, PET, f"when = {{ Modality = {pattern} }}", 'priors = { before = { Modality = "CT" } }')
    refused = "the model takes {} here, and would refuse every '{}'"
    assert problems(folder, stanza(PET, 'when = { Modality = "MR" }')) == [
        f"5: [[analyses]] when: Modality: {refused.format('CT or PT', 'MR')}"
    ]
    assert problems(folder, stanza(PET, 'when = { Modality = ["CT", "M?"] }')) == [
        f"5: [[analyses]] when: Modality: {refused.format('CT or PT', 'M?')}"
    ]
    assert problems(folder, stanza(PET, 'priors = { before = { Modality = "PT" } }')) == [
        f"5: [[analyses]] priors: before: Modality: {refused.format('CT', 'PT')}"
    ]


def test_inputs_of_a_model_that_has_none_are_told(tmp_path: Path) -> None:
    assert problems(tmp_path, SIMPLE.format("q") + PET) == [
        "4: [[analyses]] inputs: pet: the model has no such input of the study"
    ]


def test_one_analysis_or_several_may_be_named_after(tmp_path: Path) -> None:
    text = (
        SIMPLE.format("a") + SIMPLE.format("b") + 'after = "a"\n' + SIMPLE.format("c") + 'after = ["b", "a"]'
    )
    assert [one.after for one in load(tmp_path, text).analyses] == [(), ("a",), ("b", "a")]


def test_analyses_that_wait_for_each_other_are_told_once(tmp_path: Path) -> None:
    text = "".join(
        SIMPLE.format(name) + f'after = ["{after}"]\n' for name, after in (("a", "c"), ("b", "a"), ("c", "b"))
    )
    text += SIMPLE.format("d") + 'after = ["a"]\n'
    assert problems(tmp_path, text) == [
        "4: [[analyses]] after: a, c and b wait for each other: none of them would ever begin"
    ]


@pytest.mark.parametrize(
    "written",
    [
        'when = { Modality = "MR", "mr.type.kind" = "t1w", "mr.type.Score" = ">= 0.9" }',
        'when = { Modality = "MR", mr.type.kind = "t1w", mr.type.Score = ">= 0.9" }',
    ],
)
def test_results_of_an_earlier_analysis_are_asked_for_by_its_name(tmp_path: Path, written: str) -> None:
    text = SIMPLE.format("mr.type") + SIMPLE.format("brain") + f'after = "mr.type"\n{written}\n'
    assert load(tmp_path, text).analyses[1].when == {
        "Modality": "MR",
        "mr.type.kind": "t1w",
        "mr.type.Score": ">= 0.9",
    }


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("'<much'", "expected a number after <, not 'much'"), ("3", "expected a pattern in quotes, not 3")],
)
def test_a_pattern_of_a_result_is_a_text_or_a_comparison(tmp_path: Path, pattern: str, expected: str) -> None:
    text = SIMPLE.format("mr") + SIMPLE.format("brain") + f'after = "mr"\nwhen = {{ mr.x = {pattern} }}\n'
    (found,) = problems(tmp_path, text)
    assert found.startswith(f"8: [[analyses]] when: mr.x: {expected}")


def test_a_result_of_an_analysis_that_is_not_waited_for_is_told(tmp_path: Path) -> None:
    text = SIMPLE.format("mr") + SIMPLE.format("brain") + 'when = { mr.x = "1" }'
    assert problems(tmp_path, text) == [
        "7: [[analyses]] when: mr.x: a result of 'mr', which has to be over first; add after = [\"mr\"]"
    ]


def test_a_file_without_analyses_is_read_without_numpy(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[node]\nae_title = "X"\n')
    code = (
        "import sys; from pathlib import Path; from node.config import config_file; "
        f"config_file.load(Path({str(tmp_path / 'config.toml')!r})); sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ('when = { SliceThickness = "<= 3" }', "when: SliceThickness"),
        ('inputs = { pet = { SliceThickness = ">2" } }', "inputs: pet: SliceThickness"),
    ],
)
def test_a_comparison_of_an_attribute_is_a_fault_as_it_would_never_match(
    folder: Path, line: str, place: str
) -> None:
    lines = (line, PET) if line.startswith("when") else (line,)
    (problem,) = problems(folder, stanza(*lines))
    assert f"[[analyses]] {place}: '" in problem
    assert "compares numbers, which only results of other analyses can be asked for" in problem


def test_a_text_that_begins_as_a_comparison_does_is_a_pattern(folder: Path) -> None:
    assert only(folder, 'when = { SeriesDescription = "<MPR Range*" }', PET).when == {
        "SeriesDescription": "<MPR Range*"
    }


def test_several_patterns_may_be_given_wherever_one_may(tmp_path: Path) -> None:
    text = (
        '[[peers]]\nae_title = "PACS"\nhost = "h"\nport = 104\n'
        '[[routes]]\nwhen = { Modality = ["CT", "MR"] }\nsend_to = ["PACS"]\n'
        '[[transcode.rules]]\nto = "rle"\nwhen = { Modality = ["CR", "DX"] }\n'
        '[[analyses]]\nname = "a"\nmodel = "series-quality"\nwhen = { Modality = ["CT", "MR"] }\n'
        '[[analyses]]\nname = "b"\nmodel = "series-quality"\nafter = "a"\n'
        'when = { "a.kind" = ["t1*", "<5"], SeriesDescription = "x" }\n'
    )
    config = load(tmp_path, text)
    assert config.routes[0].when == config.analyses[0].when == {"Modality": ("CT", "MR")}
    assert config.transcode.rules[0].when == {"Modality": ("CR", "DX")}
    assert config.analyses[1].when == {"a.kind": ("t1*", "<5"), "SeriesDescription": "x"}


def test_inputs_and_priors_may_be_any_of_several(folder: Path) -> None:
    analysis = only(
        folder,
        'inputs = { pet = { Modality = ["PT", "NM"] } }',
        'priors = { before = { Modality = ["CT", "MR"] } }',
    )
    assert analysis.inputs == {"pet": {"Modality": ("PT", "NM")}}
    assert analysis.priors == {"before": {"Modality": ("CT", "MR")}}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[]", "Modality: expected at least one pattern"),
        ('["CT", 3]', 'Modality: expected a pattern in quotes, not 3; write "3"'),
        ('["CT", "CT"]', "Modality: pattern 'CT' is listed twice"),
        ('["CT", "<5"]', "Modality: '<5' compares numbers"),
        ('[["CT"]]', "Modality: expected a pattern in quotes, not a list"),
    ],
)
def test_a_list_that_is_none_of_patterns_is_a_fault(folder: Path, written: str, said: str) -> None:
    (problem,) = problems(folder, stanza(f"when = {{ Modality = {written} }}", PET))
    assert said in problem
