"""Label spaces: binding under several tokenizers, and reading logits."""

import math

import pytest
import torch
from conftest import SHARED

from distjudge_trl.errors import LabelSpaceError
from distjudge_trl.labels import TOP_K_FLOOR, LabelSpace


NLI = ["entailment", "neutral", "contradiction"]
CHATML_END = "<|im_start|>user\nJudge this.<|im_end|>\n<|im_start|>assistant\n"
LLAMA3_END = "<|start_header_id|>assistant<|end_header_id|>\n\n"


def first_token_text(space, label):
    return {b.token for b in space.bindings if b.label == label and not b.ambiguous}


def test_binds_digits_after_the_chat_template(tokenizer):
    space = LabelSpace(["1", "2", "3"]).bind(tokenizer)
    assert space.token_ids == tuple((tokenizer.convert_tokens_to_ids(d),) for d in "123")


def test_case_and_space_variants_are_summed_into_their_label(tokenizer):
    space = LabelSpace(["yes", "no"]).bind(tokenizer)
    spellings = {b.spelling for b in space.bindings if b.label == "yes"}
    assert {"yes", "Yes", "YES", " yes"} <= spellings
    # Each is bound to the first token that it really adds to the prompt.
    prompt_ids = tokenizer("<|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
    for binding in space.bindings:
        joint = tokenizer("<|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\n" + binding.spelling)["input_ids"]
        assert joint[len(prompt_ids)] == binding.token_id


def test_a_variant_that_two_labels_share_counts_for_neither(tokenizer):
    """In this vocabulary a leading space is a token of its own before digits, for every label alike."""
    space = LabelSpace(["1", "2"]).bind(tokenizer)
    assert all(b.spelling.strip() == b.spelling for b in space.bindings)
    assert not set(space.token_ids[0]) & set(space.token_ids[1])


def test_synonyms_bind_to_their_label(tokenizer):
    space = LabelSpace(["A", "B"], {"A": ["first", "x"]}).bind(tokenizer)
    assert tokenizer.convert_tokens_to_ids("x") in space.token_ids[0]
    assert space.index("FIRST ") == 0


def test_colliding_labels_are_refused_by_name_with_their_tokens_and_a_way_out(tokenizer):
    with pytest.raises(LabelSpaceError) as error:
        LabelSpace(["1", "10"]).bind(tokenizer)
    message = str(error.value)
    assert "'1', '10'" in message and "['1', '0']" in message and "`answers: letters`" in message


def test_a_synonym_whose_first_token_is_not_its_own_is_no_answer(tokenizer):
    """The data's numbers and names are synonyms of letters."""
    space = LabelSpace(["A", "B", "C"], {"A": ["1", "model_a"], "B": ["1.5", "model_b"], "C": ["7", " 7"]})
    assert space.index("1.50") == 1 and space.index("MODEL_A") == 0
    space.bind(tokenizer)
    digit = tokenizer.convert_tokens_to_ids
    assert not any(digit("1") in ids for ids in space.token_ids) and digit("7") in space.token_ids[2]
    assert set(space.uncounted) == {"1", "1.5", "model_a", "model_b", " 7"}
    assert "as 'B' does" in space.uncounted["1"] and "blank token" in space.uncounted[" 7"]


def test_a_synonym_takes_no_token_from_a_label(tokenizer):
    space = LabelSpace(["1", "2"], {"2": ["12"]}).bind(tokenizer)
    assert space.token_ids == tuple((tokenizer.convert_tokens_to_ids(d),) for d in "12") and "12" in space.uncounted


def test_blank_first_token_is_refused(tokenizer):
    with pytest.raises(LabelSpaceError, match="blank token.*`answers: letters`"):
        LabelSpace([" 7", "2"]).bind(tokenizer)


def test_a_fragment_of_a_variant_is_no_answer(tokenizer):
    """The "T" of "Toxic" is no answer for "toxic"; a label itself may be read off a fragment."""
    space = LabelSpace(["toxic", "other"]).bind(tokenizer)
    tokens = {binding.spelling: binding for binding in space.bindings}
    assert tokens["Toxic"].token == "T" and tokens["Toxic"].ambiguous and not tokens["toxic"].ambiguous
    assert tokens["toxic"].fragment and tokens["toxic"].token_id in space.token_ids[0]
    assert tokenizer.convert_tokens_to_ids("T") not in space.token_ids[0]
    # Unless it is spelled out.
    spelled = LabelSpace(["toxic", "other"], {"toxic": ["Toxic"]}).bind(tokenizer)
    assert tokenizer.convert_tokens_to_ids("T") in spelled.token_ids[0]


def test_the_first_word_of_a_label_is_no_fragment(tokenizer):
    space = LabelSpace(["a b", "c-d"]).bind(tokenizer)
    assert all(binding.fragment is None for binding in space.bindings if binding.explicit)


def test_half_a_letter_is_no_variant(tokenizer):
    """Byte-level vocabularies split letters that they do not know into bytes."""
    space = LabelSpace(["\u0646\u0639\u0645", "no"]).bind(tokenizer)
    own, *others = (binding for binding in space.bindings if binding.label != "no")
    assert own.explicit and own.fragment
    assert all(binding.ambiguous or binding.token_id == own.token_id for binding in others)


def test_answers_take_the_place_of_labels(tokenizer):
    space = LabelSpace(["1", "1.5", "10"], answers={"1": "A", "1.5": "B", "10": "C"}, ordinal=True).bind(tokenizer)
    assert space.token_ids[1] == LabelSpace(["A", "B", "C"]).bind(tokenizer).token_ids[1]
    assert space.index("1,5") == 1 and space.index_of_answer("b") == 1 and space.answer(2) == "C"
    with pytest.raises(KeyError, match="unknown answer '10'; the judge answers A, B, C"):
        space.index_of_answer("10")
    again = LabelSpace(**space.to_dict())
    assert again.answers == space.answers and again.legend == "A: 1\nB: 1.5\nC: 10"
    assert "answers" not in LabelSpace(["1", "2"]).to_dict()


@pytest.mark.parametrize(
    ("label", "same"),
    [("2", [2, 2.0, "2.0", "2,0", " 02 ", "+2"]), ("-1", [-1, "-1.0", "-1,00"]), ("1.5", [1.5, "1,5", "1.50"])]
    + [("0", ["-0", "0.0"]), ("tr\u00e8s", ["TRE\u0300S"]), ("ok", ["\u200bOK\u00a0", "ok\ufeff"])],
)
def test_numbers_by_value_and_texts_in_one_unicode_form(label, same):
    space = LabelSpace([label, "other"])
    assert [space.index(value) for value in same] == [0] * len(same)


@pytest.mark.parametrize("other", ["20", "2.5", "1,234", "2,000", "two", True, "2_0", "2e0"])
def test_what_is_another_number(other):
    with pytest.raises(KeyError, match="unknown label"):
        LabelSpace(["1", "2"]).index(other)


def test_unknown_token_is_refused():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "yes": 1, "judge": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
    with pytest.raises(LabelSpaceError, match="unknown to the tokenizer"):
        LabelSpace(["yes", "no"]).bind(tokenizer, "judge ")


def test_a_prompt_end_that_merges_with_the_answer_is_refused(tokenizer):
    with pytest.raises(LabelSpaceError, match="merges with the end of the prompt"):
        LabelSpace(["neutral", "entail"]).bind(tokenizer, "the judge rates the text neut")


@pytest.mark.parametrize(
    ("labels", "synonyms", "match"),
    [
        (["A"], None, "at least two"),
        ("AB", None, "list of strings"),
        (["A", "A"], None, "may have it once"),
        (["A", "a"], None, "may have it once"),
        (["A", ""], None, "empty"),
        (["A", "  "], None, "empty"),
        (["A", 2], None, "non-text"),
        (["A", "B"], {"A": [""]}, "empty"),
        (["A", "B"], {"A": ["b"]}, "may have it once"),
        (["Apple", "B"], {"Aple": ["x"]}, "did you mean 'Apple'"),
        (["A", "B"], {"A": "x"}, "list of strings"),
    ],
)
def test_bad_label_spaces_are_refused(labels, synonyms, match):
    with pytest.raises(LabelSpaceError, match=match):
        LabelSpace(labels, synonyms)


def test_reading_before_binding_is_refused():
    with pytest.raises(LabelSpaceError, match="bind"):
        LabelSpace(["A", "B"]).log_probs(torch.zeros(1, 10))


def test_reading_logits_of_a_smaller_vocabulary_is_refused(tokenizer):
    with pytest.raises(LabelSpaceError, match="this model's own tokenizer"):
        LabelSpace(["1", "2"]).bind(tokenizer).log_probs(torch.zeros(1, 5))


def test_a_copy_has_its_own_binding(tokenizer):
    space = LabelSpace(["yes", "no"])
    assert space.copy().bind(tokenizer).token_ids and not space.bindings


def test_bad_extraction_settings_are_refused():
    with pytest.raises(ValueError, match="top_k"):
        FixedSpace().log_probs(torch.zeros(1, 8), top_k=0)
    with pytest.raises(ValueError, match="floor"):
        FixedSpace().log_probs(torch.zeros(1, 8), top_k=1, floor=0.0)


def test_round_trip_through_a_dict():
    space = LabelSpace(NLI, {"contradiction": ["contra"]}, ordinal=True)
    again = LabelSpace(**space.to_dict())
    assert again.to_dict() == space.to_dict() and again.index("CONTRA") == 2


class FixedSpace(LabelSpace):
    """Three labels bound to the tokens {0, 1}, {2} and {3, 4, 5} of a vocabulary of eight."""

    def __init__(self):
        super().__init__(["A", "B", "C"])
        self._token_ids = ((0, 1), (2,), (3, 4, 5))


def naive_label_probabilities(logits):
    probabilities = [math.exp(x) for x in logits]
    summed = [probabilities[0] + probabilities[1], probabilities[2], sum(probabilities[3:6])]
    return summed, sum(probabilities)


def test_log_probs_sum_synonyms():
    logits = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    log_q = FixedSpace().log_probs(logits)
    assert log_q.shape == (4, 3) and log_q.dtype == torch.float32
    for row, expected in zip(log_q, logits, strict=True):
        summed, _ = naive_label_probabilities(expected.tolist())
        torch.testing.assert_close(row.exp(), torch.tensor([s / sum(summed) for s in summed]), atol=1e-6, rtol=1e-5)


def test_vocab_normalization_and_mass():
    logits = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    space = FixedSpace()
    log_q = space.log_probs(logits, normalization="vocab")
    for row, mass, expected in zip(log_q, space.mass(logits), logits, strict=True):
        summed, total = naive_label_probabilities(expected.tolist())
        torch.testing.assert_close(row.exp(), torch.tensor([s / total for s in summed]), atol=1e-6, rtol=1e-5)
        assert mass.item() == pytest.approx(sum(summed) / total, abs=1e-6)


def test_half_precision_logits_are_read_in_float32():
    logits = torch.randn(2, 8, generator=torch.Generator().manual_seed(2)).bfloat16()
    assert FixedSpace().log_probs(logits).dtype == torch.float32
    torch.testing.assert_close(FixedSpace().log_probs(logits), FixedSpace().log_probs(logits.float()))


@pytest.mark.parametrize("normalization", ["labels", "vocab"])
@pytest.mark.parametrize("top_k", [None, 5])
def test_minus_infinity_never_becomes_nan(normalization, top_k):
    from distjudge_trl.objective import kl_divergence

    logits = torch.zeros(2, 8)
    logits[0, :3] = -math.inf
    logits[1, :6] = -math.inf
    logits.requires_grad_()
    log_q = FixedSpace().log_probs(logits, top_k=top_k, normalization=normalization)
    assert torch.isfinite(log_q).all()
    kl_divergence(torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), log_q).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_top_k_keeps_only_the_likeliest_tokens_of_the_vocabulary():
    #        A    A    B    C    C    C   others
    logits = torch.tensor([[4.0, 1.0, 3.0, -9.0, 0.0, -9.0, 5.0, 3.5]])
    log_q = FixedSpace().log_probs(logits, top_k=5)
    # The five likeliest are tokens 6, 0, 7, 2 and 1: A keeps both of its tokens, C none and gets the floor.
    total = logits.exp().sum()
    kept = torch.stack([logits[0, [0, 1]].exp().sum() / total, logits[0, 2].exp() / total, torch.tensor(TOP_K_FLOOR)])
    torch.testing.assert_close(log_q[0].exp(), kept / kept.sum(), atol=1e-6, rtol=1e-4)


def test_top_k_without_any_label_is_uniform():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0, 9.0]])
    torch.testing.assert_close(FixedSpace().log_probs(logits, top_k=2).exp(), torch.full((1, 3), 1 / 3))


def real_tokenizer(name):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = SHARED / "tokenizers" / name
    if (folder / "tokenizer_config.json").is_file():
        return AutoTokenizer.from_pretrained(folder)
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))


@pytest.mark.shared
@pytest.mark.parametrize(("name", "prompt"), [("qwen2.5", CHATML_END), ("llama3", LLAMA3_END)])
class TestRealTokenizers:
    def test_digits_letters_and_words(self, name, prompt):
        tokenizer = real_tokenizer(name)
        for labels in (list("123456789"), ["A", "B", "tie"], NLI, ["Yes", "No", "Unsure"]):
            space = LabelSpace(labels).bind(tokenizer, prompt)
            flat = [token for tokens in space.token_ids for token in tokens]
            assert len(flat) == len(set(flat)) and all(space.token_ids)

    def test_stems_reach_other_tokens_than_the_full_word(self, name, prompt):
        tokenizer = real_tokenizer(name)
        plain = LabelSpace(NLI).bind(tokenizer, prompt)
        stems = LabelSpace(NLI, {"entailment": ["entail"], "contradiction": ["contradict", "contra"]})
        stems.bind(tokenizer, prompt)
        for few, many in zip(plain.token_ids, stems.token_ids, strict=True):
            assert set(few) <= set(many)
        assert sum(map(len, stems.token_ids)) > sum(map(len, plain.token_ids))

    def test_what_is_bound_is_what_the_tokenizer_writes(self, name, prompt):
        tokenizer = real_tokenizer(name)
        space = LabelSpace(NLI).bind(tokenizer, prompt)
        for label, token_ids in zip(NLI, space.token_ids, strict=True):
            ids = tokenizer(prompt + label, add_special_tokens=False)["input_ids"]
            assert ids[len(tokenizer(prompt, add_special_tokens=False)["input_ids"])] in token_ids

    def test_ratings_from_1_to_10(self, name, prompt):
        """Qwen2.5 splits numbers into digits, so 1 and 10 collide; Llama 3 keeps up to three digits together."""
        tokenizer = real_tokenizer(name)
        labels = [str(i) for i in range(1, 11)]
        if name == "qwen2.5":
            with pytest.raises(LabelSpaceError, match="'1', '10'"):
                LabelSpace(labels).bind(tokenizer, prompt)
        else:
            assert all(len(tokens) == 1 for tokens in LabelSpace(labels).bind(tokenizer, prompt).token_ids)
