"""What linear judges read of prompts: words, and what a language model holds of them."""

import numpy as np
import pytest
import torch
from conftest import make_tiny_model, make_tokenizer
from made_up_ratings import make_records
from transformers import AutoModelForCausalLM, AutoTokenizer

from distjudge_trl.batching import encode_prompts
from distjudge_trl.errors import UserInputError
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.study import hidden_states
from distjudge_trl.study.hidden_states import FrozenModel, last_and_mean
from distjudge_trl.study.linear_features import SQUARED_LENGTH, read_items, standardized, word_features


def test_features_are_of_training_texts_and_not_of_the_question():
    texts = ["How kind? lovely day", "How kind? dreadful day", "How kind? lovely sir", "How kind? okay"] * 2
    train_part, test_part = word_features(texts, ["lovely", "How kind?", "zzz xyz"])
    assert train_part.shape[0] == len(texts) and test_part.shape[1] == train_part.shape[1]
    assert test_part[0].nnz and not test_part[1].nnz and not test_part[2].multiply(train_part[0]).nnz


def test_too_few_words_are_a_clear_error():
    with pytest.raises(UserInputError, match="2 prompts have too few words in common"):
        word_features(["a", "b"], ["a"])


def test_states_have_one_scale_that_training_items_give():
    rng = np.random.default_rng(0)
    train_part, test_part = standardized(rng.normal(5, [1, 100], (50, 2)), np.array([[5.0, 5.0]]))
    np.testing.assert_allclose(train_part.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose((train_part**2).sum(-1).mean(), SQUARED_LENGTH, rtol=1e-5)
    assert abs(test_part).max() < 0.5 and train_part.dtype == test_part.dtype == np.float32


def test_what_never_changes_says_nothing():
    """A float32 mean of 4,001 times 0.33 is not 0.33."""
    states = np.full((4001, 2), 0.33, dtype=np.float32)
    states[:, 1] = np.arange(4001)
    train_part, test_part = standardized(states, np.array([[0.34, 1.0]], dtype=np.float32))
    assert not train_part[:, 0].any() and not test_part[:, 0].any() and test_part[:, 1].all()


def test_items_without_whole_votes_are_a_clear_error():
    train, test = make_records(20, seed=0), make_records(6, seed=1)
    halves = test.map(lambda row: {"label_distribution": [0.55, 0.45, 0.0]})
    with pytest.raises(UserInputError, match="No item has whole votes"):
        read_items(train, halves)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), layers=4)


def save_model(folder, seed=0, **options):
    tokenizer = make_tokenizer()
    tiny = make_tiny_model(len(tokenizer), **options)
    torch.manual_seed(seed)
    with torch.no_grad():
        tiny.model.norm.weight.normal_(1, 0.01)
    tiny.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def prompts():
    """Of different lengths, and with a beginning in common."""
    texts = ["lovely", "dreadful day , sir", "okay", "a lovely " * 7]
    return [[{"role": "user", "content": f"{'How kind is this? ' * 3}{text}"}] for text in texts * 2]


def expected_states(model, prompts, layer):
    """One prompt after the other, by transformers."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    whole = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    rows = []
    outputs = []
    hook = whole.model.layers[layer - 1].register_forward_hook(lambda *call: outputs.append(call[-1]))
    with torch.inference_mode():
        for ids in encode_prompts(tokenizer, prompts):
            outputs.clear()
            whole(torch.tensor([ids]))
            states = (outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0])[0]
            rows.append(torch.cat([states[-1], states.mean(0)]).numpy())
    hook.remove()
    return np.stack(rows)


@pytest.mark.parametrize("shares", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("layers", [1, 4])
def test_states_are_those_of_transformers(model, prompts, layers, shares, monkeypatch):
    find = hidden_states.find_sharing
    monkeypatch.setattr(hidden_states, "find_sharing", lambda whole, share: find(whole, shares))
    monkeypatch.setattr(hidden_states, "BATCH_SIZE", 3)
    seen = []

    def note(states, batch):
        seen.append("subtree_ends" in batch)
        return last_and_mean(states, batch)

    monkeypatch.setattr(hidden_states, "last_and_mean", note)
    found = FrozenModel(model, layers).read(prompts)
    assert set(seen) == {shares} and len(seen) == 3 and found.dtype == np.float32
    np.testing.assert_allclose(found, expected_states(model, prompts, layers), atol=1e-4)


def test_two_thirds_of_the_layers_are_the_default(model, prompts):
    frozen = FrozenModel(model)
    assert frozen.layers == 3
    np.testing.assert_allclose(frozen.read(prompts[:2]), expected_states(model, prompts[:2], 3), atol=1e-4)
    for layers in (0, 5):
        with pytest.raises(UserInputError, match=rf"--layers must be from 1 to 4, .*; got {layers}"):
            FrozenModel(model, layers)


def test_states_are_kept_for_the_same_weights_layers_and_prompts(model, prompts, tmp_path, monkeypatch):
    folder = tmp_path / "states"
    folder.mkdir()
    frozen, other = FrozenModel(model, 1), FrozenModel(save_model(tmp_path / "other", seed=1, layers=4), 1)
    asked = []
    read = FrozenModel.read

    def note(self, prompts):
        asked.append(list(prompts))
        return read(self, prompts)

    monkeypatch.setattr(FrozenModel, "read", note)
    states = frozen.read_cached(prompts, folder)
    np.testing.assert_allclose(states, read(frozen, prompts), atol=1e-4)
    np.testing.assert_array_equal(
        frozen.read_cached([*prompts[1:], prompts[1]], folder), states[[*range(1, len(prompts)), 1]]
    )
    assert len(asked) == 1, "what is kept was read again"
    new = [{"role": "user", "content": "another one"}]
    np.testing.assert_array_equal(frozen.read_cached([new, *prompts, new], folder)[1:-1], states)
    assert asked[1:] == [[new]], "new prompts alone are read, once"
    assert not np.allclose(FrozenModel(model, 2).read_cached(prompts, folder), states)
    other.read_cached(prompts, folder)
    assert len(asked) == 4, "other weights"
    save_model(tmp_path / "other", seed=2, layers=4)
    FrozenModel(str(tmp_path / "other"), 1).read_cached(prompts, folder)
    assert len(asked) == 5, "other weights in the folder"


def test_a_reading_that_was_killed_goes_on_behind_its_last_file(model, prompts, tmp_path, monkeypatch):
    monkeypatch.setattr(hidden_states, "_PROMPTS_IN_A_FILE", 2)
    frozen, read, asked = FrozenModel(model, 1), FrozenModel.read, []

    def killed(self, prompts):
        asked.extend(prompts)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return read(self, prompts)

    monkeypatch.setattr(FrozenModel, "read", killed)
    with pytest.raises(KeyboardInterrupt):
        frozen.read_cached(prompts, tmp_path)
    states = frozen.read_cached(prompts, tmp_path)
    np.testing.assert_allclose(states, read(frozen, prompts), atol=1e-4)
    assert len(asked) == 4 + 2 and len(prompts) == 2 * 4, "more than the file that was being made is read again"


def test_a_damaged_cache_is_named(model, prompts, tmp_path):
    frozen = FrozenModel(model, 1)
    frozen.read_cached(prompts, tmp_path)
    (path,) = tmp_path.iterdir()
    for content in (path.read_bytes()[:-30], b""):
        path.write_bytes(content)
        with pytest.raises(UserInputError, match=rf"{path.name}: is damaged \(.*\). Remove it"):
            frozen.read_cached(prompts, tmp_path)


def test_what_a_frozen_model_cannot_read_is_a_clear_error(model, prompts, tmp_path):
    with pytest.raises(UserInputError, match="1 of 3 prompts are longer than the 256 tokens"):
        FrozenModel(model).read([*prompts[:2], [{"role": "user", "content": "lovely " * 300}]])
    broken = FrozenModel(model)
    with torch.no_grad():
        broken.model.model.embed_tokens.weight.fill_(torch.nan)
    with pytest.raises(UserInputError, match="returns NaN"):
        broken.read(prompts)
    save_model(tmp_path)
    JudgeFile(label_space={"labels": ["a", "b"]}, base_model=model).write(tmp_path)
    with pytest.raises(UserInputError, match="is a trained judge, which may have seen the test items"):
        FrozenModel(str(tmp_path))


def test_features_are_words_states_or_both(model):
    train, test = make_records(40, seed=0), make_records(10, seed=1)

    read = FrozenModel(model).read
    words, states, both = (
        read_items(train, test, **options)
        for options in ({}, {"words": False, "read_states": read}, {"read_states": read})
    )
    assert [len(each[0].features) for each in (words, states, both)] == [1, 1, 2]
    for part in (0, 1):
        np.testing.assert_array_equal(both[part].features[1], states[part].features[0])
        assert (both[part].features[0] != words[part].features[0]).nnz == 0
        assert states[part].counts.tolist() == words[part].counts.tolist()
