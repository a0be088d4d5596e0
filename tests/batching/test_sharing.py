"""Packs give the loss and the gradients of single rows, for every kind of model that says so; others are refused."""

import random

import pytest
import torch
import transformers
from conftest import make_tiny_model
from torch.nn.attention.flex_attention import create_block_mask, create_mask
from transformers import AttentionInterface

from distjudge_trl.batching import (
    JudgmentCollator,
    PrefixSharing,
    agree_on_sharing,
    find_sharing,
    judgment_logits,
)
from distjudge_trl.batching import pack_attention as attention_module
from distjudge_trl.batching import sharing as sharing_module
from distjudge_trl.batching.pack_attention import block_mask, dense_mask, tile_mask
from distjudge_trl.batching.prefixes import tile_width
from distjudge_trl.errors import UserInputError


SIZES = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 1,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
FAMILIES = {
    "Llama": {},
    "Qwen2": {"use_sliding_window": False},
    "Qwen3": {"head_dim": 32},
    # The bundled model is a Llama whose head is its embedding; SmolLM3 leaves positions out of every fourth layer.
    "SmolLM3": {"num_hidden_layers": 4},
    "Mistral": {"sliding_window": 64},
}


def make_model(family, **changes):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SIZES, "tie_word_embeddings": True, **changes})
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    with torch.no_grad():  # at initialisation attention is all but uniform, and a wrong mask would hardly show
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.mul_(6 if "embed" not in name else 20)
    return model


def make_rows(seed=0):
    """An instruction, one of four texts, an answer each; one row twice, one that is another's beginning."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count):
        return torch.randint(2, 400, (count,), generator=generator).tolist()

    instruction, texts = draw(12), [draw(15) for _ in range(4)]
    rows = [[*instruction, *texts[i % 4], *draw(3 + i % 7)] for i in range(16)]
    return [*rows, rows[3], rows[5][:-2]]


def loss_and_gradients(model, rows, sharing):
    batch = JudgmentCollator(pad_token_id=1, sharing=sharing)([{"input_ids": row} for row in rows])
    assert ("judgment_positions" in batch) == (sharing is not None)
    model.zero_grad()
    logits = judgment_logits(model, batch, sharing)
    weights = torch.arange(1.0, 1 + len(rows)).unsqueeze(-1)  # rows that change places would show
    loss = -(weights * logits.log_softmax(-1)[:, [5, 9]]).sum() / weights.sum()
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(found, expected):
    """To 1e-5, relative, each weight's gradient by its norm."""
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=0)
    assert found[1].keys() == expected[1].keys() and found[1]
    for name, gradient in expected[1].items():
        assert (found[1][name] - gradient).norm() <= 1e-5 * gradient.norm(), name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", ["full", "checkpointing", "LoRA"])
def test_packs_give_the_loss_and_gradients_of_padded_rows(family, how):
    model = make_model(family, **FAMILIES[family]).train()
    if how == "checkpointing":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if how == "LoRA":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    sharing = find_sharing(model, True)
    assert sharing is not None and sharing.mask == "tiles"
    rows = make_rows()
    assert_same(loss_and_gradients(model, rows, sharing), loss_and_gradients(model, rows, None))


def test_a_wrong_mask_would_show():
    """What the tests above compare depends on what a token sees."""
    model = make_model("Llama")
    sharing, rows = find_sharing(model, True), make_rows()
    expected = loss_and_gradients(model, rows, sharing)

    def all_before(ends, _):
        return tile_mask(torch.full_like(ends, ends.shape[-1]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distjudge_trl.batching.collator.pack_mask", all_before)
        found = loss_and_gradients(model, rows, sharing)
    with pytest.raises(AssertionError):
        assert_same(found, expected)


def test_block_masks_give_the_same_through_the_attention_that_takes_both(monkeypatch):
    """FlexAttention has no backward on CPUs but for its own reference in plain torch, which is run here; on GPUs the
    same call is compiled.
    """
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *_: None)
    model = make_model("Llama").train()
    rows = make_rows()
    dense = loss_and_gradients(model, rows, PrefixSharing(width=64, always=True))
    padded = loss_and_gradients(model, rows, None)
    model.set_attn_implementation(attention_module.PACK_ATTENTION)
    sharing = PrefixSharing(width=64, always=True, mask="blocks")
    with torch.compiler.set_stance("force_eager"):
        blocks = loss_and_gradients(model, rows, sharing)
    assert_same(blocks, dense)
    # What is no pack is read by sdpa as before.
    assert_same(loss_and_gradients(model, rows, None), padded)


def test_packs_of_block_masks_are_whole_blocks():
    sharing = PrefixSharing(width=64, always=True, mask="blocks")
    for multiple in (1, 16, 24):
        batch = JudgmentCollator(1, multiple, sharing)([{"input_ids": row} for row in make_rows()])
        assert batch["input_ids"].shape[1] % 128 == 0 and batch["input_ids"].shape[1] % multiple == 0
        blocks = block_mask(batch["subtree_ends"]).to_dense()
        assert blocks.shape[-1] == batch["input_ids"].shape[1] // 128


def random_packs(count, length, seed):
    """`subtree_ends` of packs of rows that share beginnings at random places."""
    rng = random.Random(seed)
    packs = []
    for _ in range(count):
        rows = [[rng.randrange(3) for _ in range(rng.randint(1, 60))] for _ in range(rng.randint(1, 30))]
        rows += [[7] * rng.randint(100, 200) + row for row in rows]
        ends = JudgmentCollator(1, 1, PrefixSharing(64, always=True))([{"input_ids": r} for r in rows])["subtree_ends"]
        ends = ends[0, :length].clamp(max=length)
        packs.append(torch.cat([ends, torch.arange(len(ends), length) + 1]))
    return torch.stack(packs)


def test_block_masks_are_what_torch_makes_of_the_same_rule():
    for seed in range(10):
        ends = random_packs(2, 128 * (seed + 1), seed)
        found = block_mask(ends)
        expected = create_block_mask(found.mask_mod, len(ends), None, *found.seq_lengths, device="cpu")
        for name in ("kv", "full_kv", "q", "full_q"):
            counts = getattr(expected, f"{name}_num_blocks")
            assert torch.equal(getattr(found, f"{name}_num_blocks"), counts)
            for row, other, count in zip(
                getattr(found, f"{name}_indices").flatten(0, 2),
                getattr(expected, f"{name}_indices").flatten(0, 2),
                counts.flatten(),
                strict=True,
            ):
                assert sorted(row[:count].tolist()) == sorted(other[:count].tolist())
        assert torch.equal(
            create_mask(found.mask_mod, len(ends), 1, *found.seq_lengths, device="cpu"), dense_mask(ends)
        )


def test_block_masks_are_made_without_a_number_per_pair_of_tokens():
    length = 4096
    ends = torch.full((1, length), length)
    with torch.profiler.profile(profile_memory=True) as profiled:
        block_mask(ends)
    assert max(event.cpu_memory_usage for event in profiled.events()) < length**2 / 8


TREES = {
    "one prefix": [[*range(2, 60), *range(60 + 20 * i, 80 + 20 * i)] for i in range(8)],
    "nested prefixes": [[*range(2, 30), 40 + i // 4, *range(50, 60), 70 + i // 2, 80 + i] for i in range(16)],
    "a row that begins another": [list(range(2, 40)), list(range(2, 90)), [*range(2, 40), 7, 8]],
    "nothing in common": [[i, *range(2, 30)] for i in range(100, 110)],
    "a single row": [list(range(2, 100))],
    "a single token": [[5]],
    "longer than a tile is wide": [[*range(2, 200)], [*range(2, 150), *range(300, 330)]],
}


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (6, 2), (4, 1)])
def test_tiles_give_the_logits_and_gradients_of_every_row_alone(tree, heads, key_heads):
    sizes = {"hidden_size": 16 * heads, "num_attention_heads": heads, "num_key_value_heads": key_heads}
    model = make_model("Llama", **sizes).double()
    sharing = find_sharing(model, True)
    assert sharing.mask == "tiles"

    def read(batches, how):
        collate = JudgmentCollator(1, 1, how)
        model.zero_grad()
        batches = [collate([{"input_ids": row} for row in rows]) for rows in batches]
        logits = torch.cat([judgment_logits(model, batch, how) for batch in batches])
        (logits.log_softmax(-1)[:, 3] * torch.arange(1.0, 1 + len(logits))).sum().backward()
        return [logits.detach(), *(p.grad.clone() for p in model.parameters())]

    rows = TREES[tree]
    for found, expected in zip(read([rows], sharing), read([[row] for row in rows], None), strict=True):
        # The norms of a Llama compute in float32. A token that sees itself alone has queries of gradient 0.
        assert (found - expected).norm() <= 1e-6 * expected.norm() + 1e-12


@pytest.mark.parametrize("common", [30, 1200])
def test_tiles_are_read_in_half_precision_too(common):
    """By matrix products where rows are short, by sdpa where they are long."""
    rows = [[*range(common), *range(2000 + 50 * i, 2050 + 50 * i)] for i in range(12)]
    batch = JudgmentCollator(1, 1, PrefixSharing(64, always=True))([{"input_ids": row} for row in rows])
    tiles, dense = tile_mask(batch["subtree_ends"]), dense_mask(batch["subtree_ends"])
    length = dense.shape[-1]
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(1, heads, length, 32, generator=generator, dtype=torch.float64) for heads in (6, 2, 2)]
    module = torch.nn.Module()
    module.num_key_value_groups = 3
    attend = AttentionInterface()[attention_module.PACK_ATTENTION]

    def read(dtype, mask):
        own = [state.to(dtype, copy=True).requires_grad_() for state in states]
        output = attend(module, *own, mask)[0]
        output.backward(torch.ones_like(output).cumsum(1) / length)
        return [output.detach().double(), *(state.grad.double() for state in own)]

    for name, limit in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        for found, expected in zip(read(name, tiles), read(torch.float64, dense), strict=True):
            assert found.shape == expected.shape and (found - expected).norm() <= limit * expected.norm()


@pytest.mark.parametrize("added", [{"softcap": 50.0}, {"s_aux": torch.zeros(4)}, {"position_bias": torch.zeros(1)}])
def test_what_a_model_adds_to_its_scores_is_not_left_out_in_silence(added, monkeypatch):
    attend = AttentionInterface()[attention_module.PACK_ATTENTION]
    states, tiles = torch.zeros(1, 4, 8, 16), tile_mask(torch.full((1, 8), 8))
    attend(torch.nn.Module(), states, states, states, tiles, **dict.fromkeys(added))
    with pytest.raises(ValueError, match=f"tiles has no {next(iter(added))}"):
        attend(torch.nn.Module(), states, states, states, tiles, **added)

    # A model that hands it on reads its packs in another way, or none.
    inner = sharing_module.pack_mask
    tried = []
    monkeypatch.setattr(sharing_module, "pack_mask", lambda ends, kind: tried.append(kind) or inner(ends, kind))
    model = make_model("Llama")
    forward = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda *args, **kwargs: forward(*args, **kwargs, **added))
    sharing = find_sharing(model, "auto")
    assert sharing is None or sharing.mask == "dense"


@pytest.mark.parametrize("autocast", [False, True])
def test_packs_take_no_number_per_pair_of_tokens(autocast):
    """Neither their masks nor the attention, forward and backward."""
    model = make_model("Llama", vocab_size=3000)
    sharing = find_sharing(model, True)
    rows = [[*range(2, 40), *range(60 + 30 * i, 90 + 30 * i)] for i in range(80)]
    batch = JudgmentCollator(1, sharing=sharing)([{"input_ids": row} for row in rows])
    length = batch["input_ids"].shape[1]
    with torch.profiler.profile(profile_memory=True) as profiled:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = judgment_logits(model, batch, sharing)
        logits.sum().backward()
    assert max(event.cpu_memory_usage for event in profiled.events()) < length**2


def test_tiles_hold_the_mask_and_little_else():
    for seed in range(10):
        ends = random_packs(1, 100 * (seed + 1), seed)
        tiles, dense = tile_mask(ends), dense_mask(ends)[0, 0]
        found = torch.zeros(tiles.shape[0] * tiles.shape[2], len(dense), dtype=torch.bool)
        for tile, start in zip(tiles[:, 0], range(0, len(found), tiles.shape[2]), strict=True):
            queries, columns = (tile >= 0).nonzero().T
            found[start + queries, tile[queries, columns].long()] = True
        assert torch.equal(found[: len(dense)], dense)
        longest = int(dense.sum(-1).max())
        assert tiles.shape[2] == tile_width(len(dense), longest)
        assert tiles.shape[3] <= min(len(dense), longest + tiles.shape[2] + 15)
        # The last tile is not mostly empty.
        assert len(found) - len(dense) < 8 * len(tiles)


def test_block_masks_are_for_gpus():
    model = make_model("Llama")
    sharing = find_sharing(model, "auto")
    assert sharing == PrefixSharing(width=64, mask="tiles")


def test_where_flex_attention_does_not_run_packs_are_read_in_tiles(monkeypatch):
    """A GPU is faked: FlexAttention is tried and fails (there is no compiler for it)."""
    model = make_model("Llama")
    tried = []

    def fail(*args, **kwargs):
        tried.append(True)
        raise RuntimeError("no compiler")

    monkeypatch.setattr(sharing_module, "flex_attention_forward", fail)
    monkeypatch.setattr(sharing_module, "_is_on_gpu", lambda weight: True)
    assert find_sharing(model, "auto") == PrefixSharing(width=64, mask="tiles") and tried


def test_where_flex_attention_runs_the_model_takes_block_masks(monkeypatch):
    model = make_model("Llama")
    monkeypatch.setattr(sharing_module, "flex_attention_forward", lambda m, q, *_: (q, None))
    monkeypatch.setattr(sharing_module, "_is_on_gpu", lambda weight: True)
    for _ in range(2):
        assert find_sharing(model, "auto") == PrefixSharing(width=64, mask="blocks")
        assert model.config._attn_implementation == attention_module.PACK_ATTENTION


def test_flex_attention_is_tried_as_it_will_run(monkeypatch):
    """With the model's heads, in the type that it computes in, and without drawing a random number."""
    model = make_model("Qwen2")
    tried = []

    def attend(module, query, key, value, mask):
        tried.append((query.shape[1], key.shape[1], query.shape[3], query.dtype))
        return query, None

    monkeypatch.setattr(sharing_module, "flex_attention_forward", attend)
    monkeypatch.setattr(sharing_module, "_is_on_gpu", lambda weight: True)
    state = torch.random.get_rng_state()
    assert find_sharing(model, "auto", torch.bfloat16).mask == "blocks"
    config = model.config
    width = config.hidden_size // config.num_attention_heads
    assert tried == [(config.num_attention_heads, config.num_key_value_heads, width, torch.bfloat16)]
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("others", "agreed"),
    [
        ([PrefixSharing(64, mask="blocks")], PrefixSharing(64, mask="blocks")),
        ([PrefixSharing(64, mask="tiles")], PrefixSharing(64, mask="tiles")),
        ([PrefixSharing(64, mask="tiles"), PrefixSharing(64)], PrefixSharing(64)),
        ([None], None),
    ],
)
def test_processes_share_alike_or_not_at_all(monkeypatch, others, agreed):
    """What one device cannot do, none does: they would draw other batches, and wait for each other."""
    monkeypatch.setattr(sharing_module, "gather_object", lambda mine: [*mine, *others])
    assert agree_on_sharing(PrefixSharing(64, mask="blocks")) == agreed
    assert agree_on_sharing(None) is None


def test_rows_longer_than_a_sliding_window_are_padded():
    model = make_model("Mistral", sliding_window=16)
    sharing = find_sharing(model, True)
    rows = make_rows()
    assert max(map(len, rows)) > 16
    batch = JudgmentCollator(1, sharing=sharing)([{"input_ids": row} for row in rows])
    assert "judgment_positions" not in batch
    short = [row[:16] for row in rows]
    assert_same(loss_and_gradients(model, short, sharing), loss_and_gradients(model, short, None))


def test_layers_with_and_without_windows_are_read_exactly_within_the_window():
    model = make_model("Qwen2", use_sliding_window=True, sliding_window=64, max_window_layers=1, num_hidden_layers=2)
    assert set(model.config.layer_types) == {"full_attention", "sliding_attention"}
    rows = make_rows()
    sharing = find_sharing(model, True)
    assert sharing.longest == 64
    assert_same(loss_and_gradients(model, rows, sharing), loss_and_gradients(model, rows, None))


def test_auto_packs_batches_that_gain_alone():
    sharing = find_sharing(make_model("Llama"), "auto")
    collate = JudgmentCollator(1, sharing=sharing)
    assert "judgment_positions" in collate([{"input_ids": [7] * 40 + [i]} for i in range(2, 10)])
    assert "attention_mask" in collate([{"input_ids": [i] * 40} for i in range(2, 10)])
    assert "attention_mask" in collate([{"input_ids": [5, 6]}])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"_attn_implementation": "eager"}, "attention implementation is 'eager'"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
        ({"layer_types": ["chunked_attention", "full_attention"]}, "chunked_attention"),
        ({"alibi": True}, "ALiBi"),
    ],
)
def test_models_that_reach_past_the_mask_are_padded_and_true_is_refused(tokenizer, change, match):
    model = make_tiny_model(len(tokenizer))
    for name, value in change.items():
        setattr(model.config, name, value)
    assert find_sharing(model, "auto") is None and find_sharing(model, False) is None
    with pytest.raises(UserInputError, match=match):
        find_sharing(model, True)


def test_models_that_read_packs_otherwise_are_found_by_trying():
    """Whatever their configs say: a model whose tokens take their neighbour in."""

    class Leaky(transformers.LlamaModel):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            states = output.last_hidden_state
            output.last_hidden_state = states + torch.roll(states, 9, dims=1)
            return output

    model = make_model("Llama")
    assert find_sharing(model, "auto") is not None
    model.model.layers[0].eval()  # a part that is frozen
    model.model.__class__ = Leaky
    modes = [module.training for module in model.modules()]
    assert find_sharing(model, "auto") is None and [module.training for module in model.modules()] == modes
    with pytest.raises(UserInputError, match="differ from those of the row alone"):
        find_sharing(model, True)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_bundled_model_is_shared_in_half_precision(bundled_model, dtype):
    """Of its 49,152 logits half precision rounds some by more than a tenth of their spread; a mask that is not
    honoured is told from that.
    """
    model = transformers.AutoModelForCausalLM.from_pretrained(bundled_model, dtype=dtype)
    said = []
    assert find_sharing(model, "auto", log=said.append) == PrefixSharing(width=576, mask="tiles") and not said
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing_module, "pack_mask", lambda ends, _: torch.ones_like(dense_mask(ends)).tril())
        assert find_sharing(model, "auto", log=said.append) is None
    problem = "a row's logits in a pack differ from those of the row alone"
    assert said == [f"Common prefixes of prompts are computed again in every row: {problem}."]


@pytest.mark.parametrize("family", ["Mamba", "Bloom", "Falcon", "GPT2", "Gemma2", "Phi3", "Mixtral", "GPTNeoX"])
def test_other_families_are_read_exactly_or_padded(family):
    changes = {"Falcon": {"alibi": True}, "Gemma2": {"head_dim": 16}}.get(family, {})
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()  # some have dropout
    sharing = find_sharing(model, "auto")
    if sharing is None:
        assert family in ("Mamba", "Bloom", "Falcon", "Gemma2")
        return
    rows = make_rows()
    assert_same(loss_and_gradients(model, rows, sharing), loss_and_gradients(model, rows, None))


def test_models_with_their_own_attention_are_read_with_a_dense_mask():
    config = transformers.FalconConfig(**{**SIZES, "alibi": False})
    torch.manual_seed(0)
    model = transformers.FalconForCausalLM(config).eval()
    sharing = find_sharing(model, True)
    assert sharing.mask == "dense" and model.config._attn_implementation == "sdpa"
    rows = make_rows()
    assert_same(loss_and_gradients(model, rows, sharing), loss_and_gradients(model, rows, None))


def test_where_weights_are_in_parts_known_models_alone_are_trusted():
    for family, trusted in (("Llama", True), ("GPTNeoX", False)):
        config = getattr(transformers, f"{family}Config")(**SIZES)
        with torch.device("meta"):
            model = getattr(transformers, f"{family}ForCausalLM")(config)
        assert (find_sharing(model, "auto") is not None) is trusted
    assert set(FAMILIES) == {"Llama", "Mistral", "Qwen2", "Qwen3", "SmolLM3"}
    assert {name.lower() for name in FAMILIES} == sharing_module.KNOWN_MODEL_TYPES
