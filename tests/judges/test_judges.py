"""Local judges: order, batching, extraction, and folders that are damaged."""

import json

import numpy as np
import pytest
from conftest import LABELS, make_records, make_tiny_model

from distjudge_trl import Judge
from distjudge_trl.data import PromptTemplate
from distjudge_trl.errors import JudgmentDataError, UserInputError
from distjudge_trl.labels import LabelSpace


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    make_tiny_model(len(tokenizer)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def untrained(folder, **kwargs):
    return Judge.from_pretrained(folder, label_space=LabelSpace(LABELS), **kwargs)


def test_an_untrained_model_judges_with_a_label_space(folder):
    probabilities = untrained(folder).judge(make_records(9), batch_size=4)
    assert probabilities.shape == (9, 5) and probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-9)


def test_order_and_values_do_not_depend_on_the_batch_size_or_sharing(folder):
    records = make_records(11)
    expected = np.concatenate([untrained(folder).judge([row]) for row in records])
    for batch_size, share in ((1, False), (4, False), (32, False), (4, True), (32, True), (32, None)):
        judged = untrained(folder, share_prefixes=share).judge(records, batch_size)
        np.testing.assert_allclose(judged, expected, atol=1e-5)


def test_label_mass_is_what_the_full_vocabulary_gives(folder):
    judgments = untrained(folder).read(make_records(3))
    assert ((judgments.mass > 0) & (judgments.mass < 1)).all()
    np.testing.assert_allclose(judgments.probabilities, np.exp(judgments.log_probs))


def test_top_k_extraction_floors_labels_outside_it(folder):
    full, top = untrained(folder).judge(make_records(4)), untrained(folder, top_k=1).judge(make_records(4))
    assert not np.allclose(full, top)
    np.testing.assert_allclose(top.sum(-1), 1, atol=1e-9)


def test_no_records(folder):
    assert untrained(folder).judge([]).shape == (0, 5)


def test_a_template_renders_bare_items(folder):
    template = PromptTemplate([{"role": "user", "content": "rate the text: {{ text }}"}])
    judge = untrained(folder, template=template)
    direct = judge.judge([{"prompt": [{"role": "user", "content": "rate the text: no"}]}])
    np.testing.assert_allclose(judge.judge([{"text": "no"}]), direct)
    with pytest.raises(JudgmentDataError, match="row 2: the prompt template asks"):
        judge.judge([{"text": "no"}, {"txt": "no"}])
    with pytest.raises(
        JudgmentDataError, match="row 1, field `prompt`: is missing, and this judge has no prompt template"
    ):
        untrained(folder).judge([{"text": "no"}])


def test_a_field_called_prompt_is_a_field_unless_it_is_a_list_of_messages(folder):
    template = PromptTemplate([{"role": "user", "content": "rate {{ prompt }} / {{ response }}"}])
    judge = untrained(folder, template=template)
    finished = [{"role": "user", "content": "rate Hi / yo"}]
    expected = judge.judge([{"prompt": finished}])
    np.testing.assert_allclose(judge.judge([{"prompt": "Hi", "response": "yo"}]), expected)
    # What the template does not use may be called anything, too.
    template = PromptTemplate([{"role": "user", "content": "rate Hi / {{ response }}"}])
    judge = untrained(folder, template=template)
    np.testing.assert_allclose(judge.judge([{"prompt": "Hello", "response": "yo"}]), expected)
    with pytest.raises(JudgmentDataError, match="row 1, field `prompt`: must be a non-empty list of messages"):
        judge.judge([{"prompt": "rate Hi / yo"}])
    with pytest.raises(JudgmentDataError, match="row 1, field `prompt`: must be a non-empty list of messages"):
        judge.judge([{"prompt": [{"role": "user", "content": 3}], "response": "yo"}])


def test_too_long_a_prompt(folder):
    with pytest.raises(JudgmentDataError, match="max_length=5"):
        untrained(folder, max_length=5).judge(make_records(2))


def test_bad_batch_size(folder):
    with pytest.raises(ValueError, match="batch_size"):
        untrained(folder).judge(make_records(1), batch_size=0)


CALIBRATED_ON_INF = {
    "scaling": {"kind": "temperature", "weight": [1, 1], "bias": [0, 0], "num_items": float("inf")},
    "conformal": {"level": 0.9, "kind": "sets", "threshold": 0.5, "num_items": 9, "num_groups": 9},
    "fitted_on": {},
}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "is damaged"),
        ("[]", "has no `label_space`"),
        ("{}", "has no `label_space`"),
        (json.dumps({"label_space": {"labels": ["A", "B"]}, "format_version": 99}), "format version 99"),
        (json.dumps({"label_space": {"labels": ["A", "B"]}, "format_version": 1, "x": 1}), "unknown keys: x"),
        (json.dumps({"labels": ["A", "B"], "format_version": 99}), "format version 99"),
        ("[" * 100_000, "is damaged"),
        (json.dumps({"label_space": {}, "format_version": 1}), "is damaged"),
        *(
            (json.dumps({"label_space": {"labels": ["A", "B"]}, "format_version": 1, **wrong}), "is damaged")
            for wrong in ({"data": []}, {"quantization": "x"}, {"base_model": 5}, {"calibration": CALIBRATED_ON_INF})
        ),
        (json.dumps({"label_space": {"labels": "AB"}, "format_version": 1}), "is damaged"),
        (json.dumps({"label_space": {"labels": ["A", "B"], "y": 1}, "format_version": 1}), "is damaged"),
        (
            json.dumps({"label_space": {"labels": ["A", "B"]}, "format_version": 1, "template": [{"role": "user"}]}),
            "is damaged",
        ),
    ],
)
def test_damaged_judge_files_are_named(tmp_path, content, match):
    (tmp_path / "judge.json").write_text(content)
    with pytest.raises(UserInputError, match=match) as error:
        Judge.from_pretrained(str(tmp_path))
    assert str(tmp_path / "judge.json") in str(error.value)


def test_missing_weights_are_one_line(tmp_path):
    (tmp_path / "judge.json").write_text(json.dumps({"label_space": {"labels": ["A", "B"]}, "format_version": 1}))
    with pytest.raises(UserInputError, match="cannot be loaded"):
        Judge.from_pretrained(str(tmp_path))


def test_a_judge_on_the_hub_is_fetched(folder, tmp_path, monkeypatch):
    import shutil

    import huggingface_hub

    from distjudge_trl.judge_folder.judge_file import JudgeFile

    snapshot = tmp_path / "snapshot"
    shutil.copytree(folder, snapshot)
    JudgeFile(label_space=LabelSpace(LABELS).to_dict()).write(snapshot)
    asked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, name: asked.append((repo, name)))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo: str(snapshot))
    assert Judge.from_pretrained("org/judge").judge(make_records(2)).shape == (2, 5)
    assert asked == [("org/judge", "judge.json")]


@pytest.mark.parametrize("prompt", [[], "text", [1, 2], [{"role": "user"}]])
def test_a_prompt_that_is_no_list_of_messages(folder, prompt):
    with pytest.raises(JudgmentDataError, match="row 1, field `prompt`: must be a non-empty list of messages"):
        untrained(folder).judge([{"prompt": prompt}])


def test_missing_weights_are_not_made_up(folder, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    copy = tmp_path / "partial"
    shutil.copytree(folder, copy)
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserInputError, match="lacks 1 weights, 'model.layers.1.mlp.up_proj.weight'"):
        untrained(str(copy))


def test_nan_weights_are_told(folder):
    judge = untrained(folder)
    judge.model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(UserInputError, match="returns NaN"):
        judge.judge(make_records(1))


def test_a_prompt_beyond_the_model_s_context_is_an_error(folder):
    with pytest.raises(JudgmentDataError, match="more than max_length=256"):
        untrained(folder).judge([{"prompt": [{"role": "user", "content": "no " * 400}]}])


def test_autocast_does_not_round_the_logits(folder):
    """In bfloat16 many label pairs would tie."""
    log_probs = untrained(folder, autocast="bfloat16").read(make_records(40)).log_probs
    assert all(len(set(row)) == len(LABELS) for row in log_probs.tolist())


def test_a_judge_file_cannot_allow_remote_code(folder, tmp_path):
    """judge.json may come from anywhere."""
    import shutil

    from distjudge_trl.judge_folder.judge_file import JudgeFile

    copy = tmp_path / "judge"
    shutil.copytree(folder, copy)
    JudgeFile(label_space=LabelSpace(LABELS).to_dict(), base_model="org/odd", trust_remote_code=True).write(copy)
    with pytest.raises(UserInputError, match="allow it with --trust-remote-code"):
        Judge.from_pretrained(str(copy))


def test_every_kind_of_judge_is_one_and_nothing_else_is():
    from distjudge_trl.judges.base import PromptJudge
    from distjudge_trl.judges.local import LocalJudge

    assert issubclass(LocalJudge, Judge) and issubclass(LocalJudge, PromptJudge)
    for kind in (Judge, PromptJudge):
        assert not isinstance(5, kind) and not issubclass(int, kind)
