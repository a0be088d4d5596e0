"""Judges behind real servers: llama.cpp's with the bundled model, and one of the tests that answers from the bundled
model's logits; a run that is killed and goes on; the commands.
"""

import itertools
import json
import os
import signal
import subprocess
import threading
import time

import numpy as np
import pytest
import torch
from chat_server import chat_answer, serving
from conftest import ROOT, wait_for_lock
from transformers.convert_slow_tokenizer import bytes_to_unicode

from distjudge_trl import Judge, get_task
from distjudge_trl.batching import encode_prompts
from distjudge_trl.data import subsample
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.evaluation import read_predictions, read_results
from distjudge_trl.labels import LabelSpace


pytestmark = pytest.mark.usefixtures("bundled_model")

MODEL = "smollm2-135m"
TEXTS = (
    *("I love it", "It is awful", "so so", "What a day", "The soup was cold and I left", "Best film ever made"),
    *("They never called back", "My dog is happy", "Fine, I suppose", "The worst hotel in town", "We won!", "Rain"),
)
ITEMS = [{"text": text} for text in TEXTS]
FEELING = (
    LabelSpace(["positive", "negative"]),
    "Is this text positive or negative? Answer with one word, positive or negative.\n\nText: {{ text }}",
)
RATING = (
    LabelSpace(["1", "2", "3"], ordinal=True),
    "Text: {{ text }}\n\nRate the text from 1 to 3. Answer only with one number: 1, 2 or 3.",
)


def template(text):
    return PromptTemplate([{"role": "user", "content": text}])


@pytest.fixture(scope="module")
def llama(scripts):
    """The address of llama.cpp's server with the bundled model's file."""
    pytest.importorskip("xllamacpp")
    with scripts("serve_bundled").serve() as url:
        yield url


@pytest.fixture(scope="module")
def local():
    """The same model read here, whose tokenizer and weights a server of the tests answers from."""
    return Judge.from_pretrained(MODEL, label_space=FEELING[0], template=template(FEELING[1]), share_prefixes=False)


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path, bundled_model):
    monkeypatch.setenv("OPENAI_API_KEY", "")
    # The bundled model is in the usual cache folder.
    monkeypatch.setattr("distjudge_trl.judges.api.cache.cache_dir", lambda: tmp_path)


@pytest.mark.parametrize("by", ["text", "tokenizer"])
@pytest.mark.parametrize("question", [FEELING, RATING], ids=["nominal", "ordinal"])
def test_llama_cpp_and_a_local_judge_agree(llama, question, by):
    """The server computes with the quantised weights and rounded activations, the local judge with the dequantised
    weights."""
    space, text = question
    here = Judge.from_pretrained(MODEL, label_space=space, template=template(text)).read(ITEMS)
    judge = Judge.from_openai(
        MODEL,
        base_url=llama,
        label_space=space,
        template=template(text),
        top_logprobs=20,
        tokenizer=MODEL if by == "tokenizer" else None,
    )
    there = judge.read(ITEMS)
    kl = (here.probabilities * (here.log_probs - there.log_probs)).sum(-1)
    assert not there.floored.any() and kl.mean() < 0.01, kl
    assert there.mass == pytest.approx(here.mass, abs=0.1)
    assert np.ptp(here.probabilities[:, 0]) > 0.05  # it is not the same for all


def token_entries(judge, prompt, count):
    """The likeliest tokens of the local model in the documented format."""
    bytes_of = {character: byte for byte, character in bytes_to_unicode().items()}
    (ids,) = encode_prompts(judge.tokenizer, [prompt])
    with torch.inference_mode():
        log_probs = judge.model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
    values, tokens = log_probs.topk(count)
    entries = []
    for value, token in zip(values.tolist(), tokens.tolist(), strict=True):
        piece = judge.tokenizer.convert_ids_to_tokens(token)
        data = [bytes_of[character] for character in piece] if set(piece) <= set(bytes_of) else list(piece.encode())
        text = bytes(data).decode("utf-8", "replace")
        entries.append({"token": text, "bytes": data, "logprob": value})
    return entries


@pytest.mark.parametrize("top", [5, 20])
def test_the_same_logits_give_the_same_distributions(local, top):
    """After extraction from the k likeliest tokens, floor included; nine labels, most of which are not among five."""
    lock, found = threading.Lock(), {}

    def answer(body):
        assert body["top_logprobs"] == top
        prompt = body["messages"]
        with lock:
            entries = found.setdefault(prompt[-1]["content"], None) or token_entries(local, prompt, top)
            found[prompt[-1]["content"]] = entries
        return chat_answer(entries)

    task = get_task("vader")
    records = subsample(task.load(None), 6)
    here = Judge.from_pretrained(
        MODEL, label_space=task.label_space(), template=task.template, top_k=top, share_prefixes=False
    ).read(records)
    with serving(answer) as server:
        for number, tokenizer in enumerate((None, MODEL)):
            judge = Judge.from_openai(
                f"by {number}",
                base_url=server.url,
                label_space=task.label_space(),
                template=task.template,
                top_logprobs=top,
                tokenizer=tokenizer,
            )
            there = judge.read(records)
            assert there.probabilities == pytest.approx(here.probabilities, abs=1e-3)
            assert (there.floored == here.floored).all() and here.floored.any()
            # The local judge counts the mass under the full vocabulary.
            assert (there.mass <= here.mass + 1e-3).all()


def command(*arguments, **kwargs):
    return subprocess.Popen(
        [*arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, **kwargs
    )


def test_a_run_that_is_killed_pays_for_nothing_twice(tmp_path, warm_python):
    task = tmp_path / "task.yaml"
    (tmp_path / "empty.jsonl").write_text("")
    task.write_text(
        "name: mine\nlabels: ['yes', 'no']\ntemplate: '{{ text }}'\nsource: empty.jsonl\nvotes: {list: v}\n"
    )
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(40)))
    gate, calls = threading.Event(), itertools.count()

    def answer(body):
        # After 15 answers none comes any more, until the process is dead.
        if next(calls) >= 15 and not gate.is_set():
            gate.wait(60)
            raise ConnectionResetError
        return chat_answer([("yes", 0.6), ("no", 0.2)])

    with serving(answer) as server:
        words = (
            *("-m", "distjudge_trl", "judge", "--model", "openai:stand-in", "--base-url", server.url),
            *("--task", str(task), "--input", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")),
            *("--cache", str(tmp_path / "cache.sqlite"), "--concurrency", "4"),
        )
        first = command(warm_python, *words)
        deadline = time.monotonic() + 120
        while len(server.bodies) < 19 and time.monotonic() < deadline and first.poll() is None:
            time.sleep(0.05)
        assert len(server.bodies) == 19, first.communicate()
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        wait_for_lock(tmp_path / "out.jsonl.part" / "lock")
        assert not (tmp_path / "out.jsonl").exists()
        gate.set()
        paid = server.answered
        second = command(warm_python, *words)
        _, err = second.communicate(timeout=120)
        assert second.returncode == 0, err
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == [f"text {i}" for i in range(40)]
    assert all(row["label_distribution"] == pytest.approx({"yes": 0.75, "no": 0.25}) for row in rows)
    assert paid == 15 and server.answered == 40, (paid, server.answered)
    assert "25 requests to send, 15 answers from the cache" in err


def test_evaluate_and_report_on_a_real_server(llama, tmp_path, warm_python, lexicon):
    """A row of Table 1 as of a closed model, beside the raw local judge on the same items."""
    shared = ("--task", "vader", "--data-path", str(lexicon), "--max-eval-samples", "8")
    environment = {**os.environ, "OPENAI_API_KEY": "sk-secret-1234"}
    there = (
        *("evaluate", "--model", f"openai:{MODEL}", "--base-url", llama, "--top-logprobs", "20"),
        *("--missing-labels", "bound", "--cache", str(tmp_path / "cache.sqlite"), "--out", str(tmp_path / "there")),
    )
    here = ("evaluate", "--model", MODEL, "--extraction", "top5", "--out", str(tmp_path / "here"))
    for words in ((*there, *shared), (*here, *shared)):
        done = command(warm_python, "-m", "distjudge_trl", *words, env=environment)
        out, err = done.communicate(timeout=300)
        assert done.returncode == 0, err
        if words[0:3] == there[0:3]:
            assert "8 requests to send" in err and "8 requests sent" in out and "allows a KL between" in out
    results, local = read_results(tmp_path / "there"), read_results(tmp_path / "here")
    assert results["test_fingerprint"] == local["test_fingerprint"]
    assert results["model"] == f"openai:{MODEL}" and results["method"] == "raw" and results["trained_on"] is None
    found = results["extraction"]
    assert found["kind"] == "top20" and found["floor"] == 1e-6 and found["missing_labels"] == "bound"
    assert found["kl_low"] <= results["metrics"]["kl"]["value"] <= found["kl_high"] + 1e-9
    assert results["provenance"]["reading"]["base_url"] == llama
    assert results["provenance"]["usage"]["requests"] == 8
    assert len(read_predictions(tmp_path / "there")) == 8
    # Not calibrated unasked: held-out items would have to be paid for.
    assert [row["method"] for row in results["variants"]] == ["uniform", "training-prior", "training-majority"]
    for path in (tmp_path / "there").rglob("*"):
        assert b"sk-secret-1234" not in path.read_bytes()
    report = command(
        *(warm_python, "-m", "distjudge_trl", "report", str(tmp_path / "there"), str(tmp_path / "here")),
        *("--out", str(tmp_path / "report")),
    )
    _, err = report.communicate(timeout=300)
    assert report.returncode == 0, err
    page = "".join(path.read_text() for path in (tmp_path / "report").rglob("*.md"))
    assert "openai:smollm2-135m (top20)" in page and "smollm2-135m (top5)" in page
    assert "% of the items have a label that is not among the returned tokens" in page
