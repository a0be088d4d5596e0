"""Judges that were saved before fragments had to be spelled out."""

import pytest

from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.labels import LabelSpace
from distjudge_trl.tasks import get_task


EARLIER = {
    "snli": {
        "entailment": ["entail", "entails", "entailed"],
        "contradiction": ["contradict", "contradicts", "contra"],
    },
    "mtbench": {"tie": ["draw", "equal"]},
}


@pytest.mark.parametrize("name", EARLIER)
def test_a_judge_of_a_shipped_task_reads_the_tokens_of_its_training(name, tokenizer):
    task = get_task(name)
    saved = LabelSpace(task.labels, EARLIER[name])
    now = task.label_space().bind(tokenizer)
    for space in (saved, task.label_space()):
        read = JudgeFile(space.to_dict(), task=name).make_label_space().bind(tokenizer)
        assert read.token_ids == now.token_ids
    assert saved.bind(tokenizer).token_ids != now.token_ids
    assert JudgeFile(saved.to_dict(), task="mine").make_label_space().to_dict() == saved.to_dict()
