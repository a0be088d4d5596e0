"""Prompts, left padding and prefix packs: the same logits whichever way a row is laid out."""

import pytest
import torch

from distjudge_trl.batching import JudgmentCollator, PrefixSharing, encode_prompts, judgment_logits, render_prompt
from distjudge_trl.batching.pack_attention import dense_mask
from distjudge_trl.errors import JudgmentDataError, UserInputError


ROWS = [[5, 6, 7, 8, 9, 10], [5, 6, 7, 8, 20], [5, 6, 30, 31, 32, 33, 34], [40, 41], [5, 6, 7, 8, 20], [5, 6, 7]]
ALWAYS = PrefixSharing(width=32, always=True)


def features(rows=ROWS):
    return [{"input_ids": row, "label_distribution": [0.5, 0.5], "reference": 0, "num_annotators": 2} for row in rows]


def test_left_padding_puts_every_judgment_last():
    batch = JudgmentCollator(pad_token_id=0, pad_to_multiple_of=4)(features())
    assert batch["input_ids"].shape == (6, 8)
    for row, ids, mask, positions in zip(
        ROWS, batch["input_ids"], batch["attention_mask"], batch["position_ids"], strict=True
    ):
        assert ids[-len(row) :].tolist() == row
        assert mask.tolist() == [0] * (8 - len(row)) + [1] * len(row)
        assert positions[-len(row) :].tolist() == list(range(len(row)))
    assert next(iter(batch)) == "label_distribution", "Trainer takes the batch size from the first tensor"


def test_pack_holds_a_shared_beginning_once():
    batch = JudgmentCollator(pad_token_id=0, pad_to_multiple_of=1, sharing=ALWAYS)(features())
    # 5 6 7 8 9 10 | 20 | 30..34 | 40 41; the duplicate and the row that is another's beginning add nothing.
    assert batch["input_ids"].shape == (1, 6 + 1 + 5 + 2)
    mask = dense_mask(batch["subtree_ends"])
    for row, position in zip(ROWS, batch["judgment_positions"].tolist(), strict=True):
        visible = mask[0, 0, position].nonzero().squeeze(-1)
        assert batch["input_ids"][0, visible].tolist() == row
        assert batch["position_ids"][0, visible].tolist() == list(range(len(row)))


@pytest.mark.parametrize("multiple", [1, 16])
def test_padded_and_packed_logits_equal_the_unpadded_ones(tiny_model, multiple):
    single = [tiny_model(torch.tensor([row])).logits[0, -1] for row in ROWS]
    for sharing in (None, ALWAYS):
        batch = JudgmentCollator(pad_token_id=0, pad_to_multiple_of=multiple, sharing=sharing)(features())
        logits = judgment_logits(tiny_model, batch)
        assert logits.shape == (len(ROWS), tiny_model.config.vocab_size)
        torch.testing.assert_close(logits, torch.stack(single), atol=2e-5, rtol=1e-5)


def test_packed_gradients_equal_the_padded_ones(tiny_model):
    gradients = []
    for sharing in (None, ALWAYS):
        batch = JudgmentCollator(pad_token_id=0, sharing=sharing)(features())
        tiny_model.zero_grad()
        judgment_logits(tiny_model, batch).log_softmax(-1)[:, 3].sum().backward()
        gradients.append([p.grad.clone() for p in tiny_model.parameters()])
    for padded, packed in zip(*gradients, strict=True):
        torch.testing.assert_close(padded, packed, atol=1e-4 * padded.abs().max().item(), rtol=1e-4)


def test_gpt2_with_absolute_positions_is_left_padded_correctly():
    """GPT-2 does not derive positions from the mask: without explicit position ids padded rows are off."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=64, n_embd=32, n_layer=2, n_head=4)).eval()
    single = torch.stack([model(torch.tensor([row])).logits[0, -1] for row in ROWS])
    batch = JudgmentCollator(pad_token_id=0)(features())
    torch.testing.assert_close(judgment_logits(model, batch), single, atol=1e-5, rtol=1e-5)


def test_chat_template_is_used_and_special_tokens_are_not_doubled(tokenizer):
    messages = [{"role": "system", "content": "judge"}, {"role": "user", "content": "rate"}]
    text = render_prompt(tokenizer, messages)
    assert text == "<|im_start|>system\njudge<|im_end|>\n<|im_start|>user\nrate<|im_end|>\n<|im_start|>assistant\n"
    (ids,) = encode_prompts(tokenizer, [messages])
    assert tokenizer.decode(ids) == text


def test_plain_text_without_a_chat_template(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", None)
    messages = [{"role": "system", "content": "judge"}, {"role": "user", "content": "rate"}]
    assert render_prompt(tokenizer, messages) == "judge\n\nrate\n\nAnswer:\n"


def test_thinking_is_switched_off_where_the_template_knows_it(tokenizer, monkeypatch):
    monkeypatch.setattr(
        tokenizer, "chat_template", "{{ messages[0].content ~ ('+think' if enable_thinking | default(true) else '') }}"
    )
    assert render_prompt(tokenizer, [{"role": "user", "content": "x"}]) == "x"


def test_a_template_without_a_system_role_gets_it_in_the_first_user_message(tokenizer, monkeypatch):
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ m.content }}|{% endfor %}"
    )
    monkeypatch.setattr(tokenizer, "chat_template", template)
    messages = [{"role": "system", "content": "judge"}, {"role": "user", "content": "rate"}]
    assert render_prompt(tokenizer, messages) == "judge\n\nrate|"
    with pytest.raises(UserInputError, match="does not take this prompt"):
        render_prompt(tokenizer, [{"role": "system", "content": "judge"}])


def test_a_tokenizer_that_closes_every_text_does_not_close_the_prompt(tokenizer, monkeypatch):
    from copy import deepcopy

    from tokenizers.processors import TemplateProcessing

    closing = deepcopy(tokenizer)
    closing.chat_template = None
    closing._tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 0), ("<|im_end|>", 1)]
    )
    (ids,) = encode_prompts(closing, [[{"role": "user", "content": "rate"}]])
    assert closing.decode(ids) == "<|im_start|>rate\n\nAnswer:\n"


def test_too_long_a_prompt_is_an_error_that_names_the_row(tokenizer):
    prompts = [[{"role": "user", "content": "rate"}], [{"role": "user", "content": "rate the text " * 40}]]
    with pytest.raises(
        JudgmentDataError, match=r"train, row b, field `prompt`: the prompt has \d+ tokens.*--max_length"
    ):
        encode_prompts(tokenizer, prompts, max_length=60, ids=["a", "b"], source="train")
