"""Judges behind a server, over real HTTP: what is sent, what is kept, what fails and how."""

import asyncio
import dataclasses
import itertools
import json
import logging
import socket
import sqlite3
import time
import traceback

import numpy as np
import pytest
from chat_server import Cut, Failure, chat_answer, entry, serving, wait
from click.testing import CliRunner

from distjudge_trl.cli import main
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import JudgmentDataError, UserInputError
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.judges import Judge
from distjudge_trl.judges.files import judge_file
from distjudge_trl.judges.opening import open_judge
from distjudge_trl.judges.work import JudgingOptions
from distjudge_trl.labels import LabelSpace


SPACE = LabelSpace(["yes", "no"])
TEMPLATE = PromptTemplate([{"role": "user", "content": "{{ text }}"}])
KEY = "sk-test-1234567890abcdef"
ITEMS = [{"text": f"text {i}"} for i in range(12)]
TOKENS = [("yes", 0.5), (" Yes", 0.1), ("no", 0.3), ("The", 0.05), ("I", 0.01)]


def usual(body):
    return chat_answer(TOKENS)


def failing_first(*failures):
    """Answers as usual after these failures, one a request."""
    queue = list(failures)

    def answer(body):
        if queue:
            failure = queue.pop(0)
            if isinstance(failure, Exception):
                raise failure
            if callable(failure):
                failure()
            else:
                return failure
        return usual(body)

    return answer


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("DISTJUDGE_CACHE", str(tmp_path))


def judge_at(server, **options):
    return Judge.from_openai("stand-in", label_space=SPACE, template=TEMPLATE, base_url=server.url, **options)


def test_a_prompt_is_one_request_of_one_token():
    with serving(usual) as server:
        judge = judge_at(server)
        judged = judge.read(ITEMS[:2])
    assert judged.probabilities == pytest.approx(np.array([[2 / 3, 1 / 3]] * 2))
    assert judged.mass == pytest.approx([0.9, 0.9]) and not judged.floored.any()
    assert server.bodies[0] == {
        "model": "stand-in",
        "messages": [{"role": "user", "content": "text 0"}],
        "max_tokens": 1,
        "temperature": 1,
        "logprobs": True,
        "top_logprobs": 5,
    }
    assert isinstance(judge, Judge) and judge.asker.usage.tokens_in == 40
    assert judge.reading()["base_url"] == server.url


def test_nothing_is_asked_twice():
    with serving(usual) as server:
        first = judge_at(server).judge([*ITEMS, *ITEMS])
        assert len(server.bodies) == len(ITEMS)
        assert (judge_at(server).judge(ITEMS) == first[: len(ITEMS)]).all()
        assert len(server.bodies) == len(ITEMS)
    # Not even a server is needed.
    again = judge_at(server)
    assert (again.judge(ITEMS) == first[: len(ITEMS)]).all() and again.asker.usage.from_cache == len(ITEMS)


@pytest.mark.parametrize("change", [{"top_logprobs": 6}, {"readout": "samples", "samples": 2}, {"cache": "other"}])
def test_what_matters_to_the_answer_is_asked_again(change, tmp_path):
    if "cache" in change:
        change = {"cache": str(tmp_path / "other.sqlite")}
    with serving(usual) as server:
        judge_at(server).judge(ITEMS[:1])
        judge_at(server, **change).judge(ITEMS[:1])
    assert len(server.bodies) == 1 + change.get("samples", 1)


def test_requests_go_out_together():
    def slow(body):
        wait(0.1)
        return usual(body)

    with serving(slow) as server:
        judge_at(server, concurrency=4).judge(ITEMS)
    assert server.most_at_once == 4


def test_it_waits_as_long_as_the_server_says():
    with serving(failing_first(Failure(429, headers={"Retry-After": "1.2"}))) as server:
        start = time.monotonic()
        judge_at(server).judge(ITEMS[:1])
        assert time.monotonic() - start >= 1.2
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    "failure",
    [Failure(500), Failure(503, raw="<html>busy</html>"), Cut(), lambda: wait(1), Failure(200, raw='{"choices": [')],
    ids=["500", "503", "cut", "timeout", "malformed"],
)
def test_what_passes_by_is_tried_again(failure):
    with serving(failing_first(failure)) as server:
        judged = judge_at(server, timeout=0.5).judge(ITEMS[:1])
    assert judged == pytest.approx(np.array([[2 / 3, 1 / 3]])) and len(server.bodies) == 2


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (Failure(500), "answers with an error 500 (no). Try later."),
        (Failure(429, headers={"Retry-After": "9"}), "takes no more requests now (no). Try again in 9 s."),
        (Cut(), "cannot be reached"),
        (lambda: wait(1), "does not answer within 0.5 s"),
        (Failure(200, raw="<html>hi"), "answers with '<html>hi', not JSON"),
        ({"choices": []}, "its answer is not in the format of chat completions (IndexError"),
        (Failure(404, "The model does not exist"), "has no model 'stand-in', or no chat completions at this address"),
        (Failure(400, "too many tokens"), "prompt`: the server refuses the request (too many tokens)"),
    ],
    ids=["500", "429", "cut", "timeout", "malformed", "format", "404", "400"],
)
def test_what_does_not_pass_is_one_line_and_what_was_paid_is_kept(failure, message):
    failures = [usual(None)] * 3 + [failure] * 2
    with serving(failing_first(*failures)) as server:
        with pytest.raises(UserInputError) as caught:
            judge_at(server, concurrency=1, max_retries=0, timeout=0.5).judge(ITEMS)
        assert message in str(caught.value) and "\n" not in str(caught.value)
        before = len(server.bodies)
        server.answer = usual
        judge_at(server).judge(ITEMS)
    assert len(server.bodies) - before == len(ITEMS) - 3


def test_after_a_failure_what_is_under_way_is_kept():
    started = itertools.count()

    def answer(body):
        if next(started) == 0:
            wait(0.2)  # the others are under way
            raise Failure(400, "no")
        wait(0.5)
        return usual(body)

    with serving(answer) as server:
        with pytest.raises(JudgmentDataError, match="row 1, field `prompt`"):
            judge_at(server, concurrency=4).judge(ITEMS)
        assert len(server.bodies) == 4
        server.answer = usual
        judge_at(server).judge(ITEMS)
    assert len(server.bodies) == 4 + len(ITEMS) - 3


@pytest.mark.parametrize(
    "failure",
    [chat_answer(TOKENS, log_probs=False), Failure(400, "You are not allowed to request logprobs from this model.")],
)
def test_a_model_without_log_probabilities_names_the_way_out(failure):
    with serving(failing_first(*[failure] * 20)) as server:
        with pytest.raises(UserInputError, match=r"gives no log-probabilities.*--readout samples --samples 20"):
            judge_at(server, concurrency=2).judge(ITEMS)
        assert len(server.bodies) <= 5
        server.answer = usual
        judge_at(server, concurrency=2).judge(ITEMS)  # nothing unusable was kept


def test_a_server_that_returns_fewer_tokens_says_so():
    failure = Failure(400, "Requested sample logprobs of 500, which is greater than max allowed: 20")
    with (
        serving(failing_first(failure)) as server,
        pytest.raises(UserInputError, match=r"--top-logprobs 500: .* greater than max"),
    ):
        judge_at(server, top_logprobs=500).judge(ITEMS[:1])
    assert server.bodies[0]["top_logprobs"] == 500


def test_an_answer_without_log_probabilities_among_others_is_asked_for_again():
    """As of llama.cpp's server, when it samples a part of a character."""
    none = chat_answer(TOKENS, log_probs=False)
    with serving(failing_first(usual(None), none, none, usual(None), none, none, none)) as server:
        judge = judge_at(server, concurrency=1)
        judged = judge.read(ITEMS[:3])
    assert judged.probabilities == pytest.approx(np.array([[2 / 3, 1 / 3]] * 2 + [[0.5, 0.5]]))
    assert len(server.bodies) == 7 == judge.asker.usage.requests and judge.findings()["refused"] == 1


@pytest.mark.parametrize("batch", [False, True])
def test_the_first_answer_may_lack_log_probabilities(batch):
    with serving(lambda body: chat_answer(TOKENS, log_probs=body["messages"] != [message(0)])) as server:
        judge = judge_at(server, concurrency=1, batch=batch, poll=0.05)
        assert judge.judge(ITEMS[:2]) == pytest.approx(np.array([[0.5, 0.5], [2 / 3, 1 / 3]]))
        # A later process that has such a row alone to ask for knows the model.
        server.answer = lambda body: chat_answer(TOKENS, log_probs=False)
        assert judge_at(server, concurrency=1).judge(ITEMS[2:3]) == pytest.approx(np.array([[0.5, 0.5]]))


def message(i):
    return {"role": "user", "content": f"text {i}"}


def test_refusals_are_counted_and_not_asked_again():
    refusal = chat_answer([], content=None, refusal="I cannot help with that.")
    filtered = Failure(400, "The prompt was filtered.", code="content_filter")
    with serving(failing_first(refusal, filtered)) as server:
        judge = judge_at(server, concurrency=1)
        judged = judge.read(ITEMS[:3])
        judge_at(server).judge(ITEMS[:3])
    assert judged.probabilities == pytest.approx(np.array([[0.5, 0.5]] * 2 + [[2 / 3, 1 / 3]]))
    assert judge.findings()["refused"] == 2 and len(server.bodies) == 3


def test_sampled_answers_are_counted():
    answers = itertools.cycle(["yes", "Yes.", "no", "well"])
    with serving(lambda body: chat_answer([], content=next(answers))) as server:
        judge = judge_at(server, readout="samples", samples=8, smoothing=0.5, concurrency=1)
        judged = judge.read(ITEMS[:1])
        judge_at(server, readout="samples", samples=8).judge(ITEMS[:1])
        assert len(server.bodies) == 8
        judge_at(server, readout="samples", samples=10).judge(ITEMS[:1])  # two more
        assert len(server.bodies) == 10
    assert judged.probabilities == pytest.approx(np.array([[4.5 / 7, 2.5 / 7]]))
    assert judged.unparsed.tolist() == [0.25] and judge.findings()["kind"] == "samples8"
    assert "logprobs" not in server.bodies[0] and server.bodies[0]["temperature"] == 1


def test_a_budget_that_is_too_small_sends_nothing():
    with serving(usual) as server:
        judge_at(server).judge(ITEMS[:4])
        judge = judge_at(server, max_requests=7)
        with pytest.raises(UserInputError, match="--max-requests 7: 8 requests more would be needed, and nothing"):
            judge.judge(ITEMS)
        with pytest.raises(UserInputError, match="8 requests more"):
            judge.expect(ITEMS)
        assert len(server.bodies) == 4
        judge.judge(ITEMS[:11])
        with pytest.raises(UserInputError, match="1 request more would be needed, after the 7 that were sent"):
            judge.judge(ITEMS)
    assert len(server.bodies) == 11


def test_costs_are_told_before_and_after(capsys):
    with serving(usual) as server:
        judge_at(server).judge(ITEMS[:2])
        judge_at(server, price_in=2.0, price_out=10.0).read(ITEMS, progress=True)
    said = capsys.readouterr().err
    # 6 characters are 1 token, 4 more are for the role, and 3 for the answer.
    assert "10 requests to send, 2 answers from the cache. About 80 tokens in (estimated from the characters)" in said
    assert "at most 10 out, a price of 0.0003." in said
    assert "10 requests sent: 200 tokens in, 10 out, a price of 0.0005." in said


# Keys


def shown(error):
    """All that a traceback with local variables shows of an exception and those behind it, apart from this test's own
    variables. The client's exceptions, which hold the request, are not among them.
    """
    texts = []
    while error is not None:
        assert type(error).__module__.startswith("distjudge_trl."), error
        within = error.__traceback__.tb_next
        frames = traceback.StackSummary.extract(traceback.walk_tb(within), capture_locals=True)
        texts += [repr(error), str(error), *frames.format()]
        error = error.__cause__ or error.__context__
    assert "connection" in "".join(texts)
    return "".join(texts)


@pytest.mark.parametrize(
    "failure", [None, Failure(500, f"{'x' * 180}{KEY}"), Cut(), Failure(429, KEY), Failure(400, KEY)]
)
def test_the_key_is_sent_and_never_shown(failure, monkeypatch, caplog, tmp_path, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    answers = [chat_answer(TOKENS, content=KEY), failure or chat_answer(TOKENS)]
    with serving(failing_first(*answers), key=KEY) as server:
        judge = judge_at(server, concurrency=1, max_retries=0)
        if failure is None:
            judge.read(ITEMS[:2], progress=True)
            said = ""
        else:
            with pytest.raises(UserInputError) as caught:
                judge.read(ITEMS[:2], progress=True)
            said = shown(caught.value)
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"chatcmpl-1" in kept and KEY.encode() not in kept
    output = capsys.readouterr()
    for text in (said, caplog.text, output.out, output.err, repr(judge.reading()), repr(judge.findings())):
        assert KEY not in text
    assert KEY not in repr(vars(judge)) + repr(vars(judge.asker)) + repr(judge.options)
    assert KEY[:12] not in said.partition("x" * 180)[2]


def test_a_key_that_cannot_be_sent_is_not_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nmore")
    with serving(usual) as server, pytest.raises(UserInputError, match="OPENAI_API_KEY holds a line break") as caught:
        judge_at(server).judge(ITEMS[:1])
    assert KEY not in str(caught.value)


def test_a_stand_in_for_a_key_is_not_taken_out_of_answers(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "yes")
    with serving(usual) as server:
        assert judge_at(server).judge(ITEMS[:1])[0, 0] == pytest.approx(2 / 3)


def test_a_wrong_key_is_one_line_that_names_its_variable(monkeypatch):
    monkeypatch.setenv("OTHER_KEY", "sk-wrong-key")
    with serving(usual, key=KEY) as server:
        with pytest.raises(UserInputError, match=r"refuses the key.* variable OTHER_KEY is wrong") as caught:
            judge_at(server, api_key_env="OTHER_KEY").judge(ITEMS[:1])
        assert "sk-wrong-key" not in shown(caught.value)
        with pytest.raises(UserInputError, match="environment variable OPENAI_API_KEY is not set"):
            judge_at(server).judge(ITEMS[:1])
    assert not server.bodies


def test_openai_without_a_key_is_not_called():
    with pytest.raises(UserInputError, match="The environment variable OPENAI_API_KEY is not set"):
        Judge.from_openai("gpt-4o-mini", label_space=SPACE, template=TEMPLATE).judge(ITEMS[:1])


@pytest.mark.parametrize(
    "url",
    [
        *(
            f"http://me:{KEY}@localhost/v1",
            f"http://localhost/v1?key={KEY}",
            f"{KEY}/v1",
            f"http://localhost/v1#{KEY}",
        ),
        *(f"http://localhost/{KEY}/v1", "http://[bad/v1", "http://localhost:x/v1", "http://localhost:99999/v1"),
    ],
)
def test_an_address_holds_no_key(url, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(UserInputError, match="--base-url") as caught:
        Judge.from_openai("x", label_space=SPACE, base_url=url)
    assert KEY not in str(caught.value)


# Servers


def test_an_unreachable_server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    judge = Judge.from_openai("x", label_space=SPACE, template=TEMPLATE, base_url=url, max_retries=0)
    with pytest.raises(UserInputError, match=r"cannot be reached .*Is the server running") as caught:
        judge.judge(ITEMS[:1])
    assert caught.value.__context__ is None


def test_a_model_that_a_server_does_not_list():
    with (
        serving(usual, owner="vllm", models=("stand-inn", "other")) as server,
        pytest.raises(UserInputError, match=r"serves no model 'stand-in' \(did you mean 'stand-inn'\?\); it serves"),
    ):
        judge_at(server).judge(ITEMS[:1])


def test_servers_of_ones_own_are_asked_for_the_uncut_distribution():
    with serving(usual, owner="llamacpp") as server:
        judge = judge_at(server)
        judge.judge(ITEMS[:1])
    assert {key: server.bodies[0][key] for key in ("top_k", "top_p", "min_p")} == {"top_k": 0, "top_p": 1, "min_p": 0}
    assert server.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert server.bodies[0]["temperature"] == 0
    assert judge.reading()["server"] == "llamacpp"


def test_vllm_is_asked_for_the_labels_own_tokens(tokenizer, tmp_path):
    """In the format of its documentation: the sampled token and the chosen ones, by id on request."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")

    def answer(body):
        chosen = body["logprob_token_ids"]
        assert body["logprobs"] is True and body["return_tokens_as_token_ids"] is True
        probabilities = {tokenizer("yes", add_special_tokens=False)["input_ids"][0]: 1e-9}
        probabilities[tokenizer("no", add_special_tokens=False)["input_ids"][0]] = 3e-9
        ids = [0, *chosen]
        return chat_answer([entry(f"token_id:{i}", probabilities.get(i, 1e-30)) for i in ids], content="the")

    with serving(answer, owner="vllm") as server:
        judge = judge_at(server, tokenizer=str(tmp_path / "tokenizer"))
        judged = judge.read(ITEMS[:1])
    assert judged.probabilities == pytest.approx(np.array([[0.25, 0.75]]))  # far below any floor
    assert not judged.floored.any() and judge.findings()["kind"] == "full" and judge.findings()["floor"] is None


def test_an_older_vllm_that_returns_the_likeliest_tokens_instead(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    yes = tokenizer("yes", add_special_tokens=False)["input_ids"][0]
    tokens = [entry("token_id:0", 0.5), entry(f"token_id:{yes}", 0.2)]
    with serving(lambda body: chat_answer(tokens), owner="vllm") as server:
        judge = judge_at(server, tokenizer=str(tmp_path / "tokenizer"))
        judged = judge.read(ITEMS[:1])
    assert judged.floored.tolist() == [[False, True]] and judge.findings()["kind"] == "top5"


def test_the_newer_name_of_the_limit():
    def answer(body):
        if "max_tokens" in body:
            raise Failure(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        assert body["max_completion_tokens"] == 16
        return chat_answer([], content="yes")

    with serving(answer) as server:
        judge_at(server, readout="samples", samples=3, concurrency=1).judge(ITEMS[:2])
        assert len(server.bodies) == 7
        judge_at(server, readout="samples", samples=3).judge(ITEMS[:2])
    assert len(server.bodies) == 7


def test_a_trained_judge_whose_weights_a_server_holds(tmp_path):
    space = LabelSpace(["good", "bad"], answers={"good": "A", "bad": "B"})
    calibration = {
        "scaling": {"kind": "temperature", "weight": [2, 2], "bias": [0, 0], "num_items": 20},
        "conformal": {"level": 0.9, "kind": "sets", "threshold": 0.5, "num_items": 20, "num_groups": 20},
        "fitted_on": {},
    }
    template = [{"role": "user", "content": "Rate: {{ text }}"}]
    JudgeFile(space.to_dict(), template, task="mine", calibration=calibration).write(tmp_path)
    with serving(lambda body: chat_answer([("B", 0.6), (" A", 0.2)])) as server:
        options = judge_at(server, judge_file=str(tmp_path)).options
        judged = open_judge("openai:stand-in", api=options, calibrated=False).judge([{"text": "x"}])
        assert judged == pytest.approx(np.array([[0.25, 0.75]]))
        assert open_judge("openai:stand-in", api=options).judge([{"text": "x"}])[0, 1] == pytest.approx(0.9)
        # The scaling says nothing about counted answers.
        options = dataclasses.replace(options, readout="samples", samples=2)
        judged = open_judge("openai:stand-in", api=options).judge([{"text": "x"}])
        assert judged == pytest.approx(np.array([[0.5 / 3, 2.5 / 3]]))
    assert server.bodies[0]["messages"] == [{"role": "user", "content": "Rate: x"}]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Judge.from_openai("x"), "its labels are not known"),
        (lambda: Judge.from_openai("x", judge_file="/nowhere"), "no such file, so this is not a trained judge"),
        (lambda: Judge.from_openai("x", label_space=SPACE, top_logprobs=21), "OpenAI's server returns at most 20"),
        (lambda: Judge.from_openai("x", label_space=SPACE, max_length=10), "give --tokenizer"),
        (lambda: Judge.from_openai("x", label_space=SPACE, concurrency=0), "--concurrency: must be at least 1"),
        (lambda: open_judge("openai:", label_space=SPACE), "names no model"),
        (lambda: open_judge("openai:x", label_space=SPACE, device="cpu"), "--device: is for models on this machine"),
    ],
)
def test_mistakes_are_one_line(call, message):
    with pytest.raises(UserInputError, match=message):
        call()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "evaluate --model tiny --task vader --base-url http://x/v1 --batch",
            "--base-url, --batch: for models",
        ),
        ("evaluate --model openai:x --task vader --device cpu", "--device: is for models on this machine"),
        ("evaluate --model openai:x --task vader --top-logprobs 0", "--top-logprobs: must be at least 1"),
        ("evaluate --model openai:x --task vader --judge-file nowhere", "nowhere/judge.json: no such file"),
        ("judge --model openai:x --input {items} --out {out}", "openai:x: its labels are not known. Give --task"),
        ("judge --model openai:x --input {items} --out {out} --task vader", "variable OPENAI_API_KEY is not set"),
        ("judge --model openai:x --input {items} --out {out} --task vader --cache {folder}", "--cache"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(words, message, tmp_path, lexicon):
    (tmp_path / "items.jsonl").write_text('{"text": "good"}\n')
    places = {"items": tmp_path / "items.jsonl", "out": tmp_path / "out.jsonl", "folder": tmp_path}
    done = CliRunner().invoke(main, words.format(**places).split())
    assert done.exit_code == 2 and message in done.output.splitlines()[-1], done.output
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("log_prob", [float("nan"), float("inf"), "nan", 5.0, -(10**400)])
def test_no_distribution_is_made_of_what_is_no_log_probability(log_prob):
    wrong = {"token": "yes", "bytes": None, "logprob": log_prob}
    with serving(lambda body: chat_answer([wrong, *TOKENS[2:]])) as server:
        with pytest.raises(UserInputError, match="not in the format of chat completions"):
            judge_at(server).judge(ITEMS[:1])
        server.answer = usual
        judge_at(server).judge(ITEMS[:1])


def test_answers_in_the_cache_that_cannot_be_read_are_asked_for_again(tmp_path):
    with serving(usual) as server:
        judge_at(server).judge(ITEMS[:2])
        with sqlite3.connect(tmp_path / "api.sqlite") as connection:
            connection.execute("UPDATE responses SET response = '{}' WHERE rowid = 1")
        with pytest.raises(UserInputError, match=r"api.sqlite: 1 answer in it could not be read"):
            judge_at(server).judge(ITEMS[:2])
        judge_at(server).judge(ITEMS[:2])
    assert len(server.bodies) == 3


def test_a_damaged_cache_is_one_line(tmp_path):
    with serving(usual) as server:
        judge_at(server).judge(ITEMS[:1])
        path = tmp_path / "api.sqlite"
        content = path.read_bytes()
        path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
        with pytest.raises(UserInputError, match="--cache"):
            judge_at(server).judge(ITEMS)


def test_the_database_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "places.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    before = path.read_bytes()
    with pytest.raises(UserInputError, match=r"--cache .*places.sqlite.*another program"):
        Judge.from_openai("x", label_space=SPACE, cache=str(path))
    assert path.read_bytes() == before


def test_a_cache_that_is_none(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database, but long enough to look at" * 30)
    with pytest.raises(UserInputError, match=r"--cache .*notes.txt: cannot be used"):
        Judge.from_openai("x", label_space=SPACE, cache=str(tmp_path / "notes.txt"))


def test_asynchronous_programs_and_notebooks():
    async def notebook(server):
        judge = judge_at(server)
        return await judge.ajudge(ITEMS[:2]), judge.judge(ITEMS[1:3])

    with serving(usual) as server:
        first, second = asyncio.run(notebook(server))
    assert first == pytest.approx(np.array([[2 / 3, 1 / 3]] * 2)) and (first == second).all()
    assert len(server.bodies) == 3


# Batches


def batch_judge(server, **options):
    return judge_at(server, batch=True, poll=0.05, **options)


def test_a_batch_is_submitted_polled_and_collected():
    with serving(usual) as server:
        judge_at(server).judge(ITEMS[:2])
        judged = batch_judge(server).judge(ITEMS)
        assert judged == pytest.approx(np.array([[2 / 3, 1 / 3]] * len(ITEMS)))
        assert len(server.batches) == 1 and server.batches["batch-1"]["polls"] == 2
        lines = [json.loads(line) for line in server.files["file-1"].splitlines()]
        assert len(lines) == len(ITEMS) - 2 and lines[0]["url"] == "/v1/chat/completions"
        assert lines[0]["method"] == "POST" and lines[0]["body"]["messages"][0]["content"] == "text 2"
        judge_at(server).judge(ITEMS)  # from the same cache
        assert len(server.bodies) == len(ITEMS)


@pytest.mark.parametrize("noted", [True, False], ids=["id noted", "died before the id was noted"])
def test_a_batch_under_way_is_found_again(noted, tmp_path):
    with serving(usual) as server:
        judge = batch_judge(server)
        server.polls_needed = 10**9
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(judge.ajudge(ITEMS), 1))
        assert len(server.batches) == 1 and not server.bodies
        if not noted:
            with sqlite3.connect(tmp_path / "api.sqlite") as connection:
                connection.execute("UPDATE batches SET batch = NULL")
        server.polls_needed = 1
        batch_judge(server).judge([*ITEMS, {"text": "new"}])
    assert len(server.batches) == 2 and len(server.bodies) == len(ITEMS) + 1


@pytest.mark.parametrize(
    ("method", "answer", "problem"),
    [
        ("upload", [], "not as OpenAI's API documents"),
        ("submit", {"object": "batch"}, "not as OpenAI's API documents"),
        ("retrieve", {"id": "batch-1", "status": "failed", "errors": "x"}, "not as OpenAI's API documents"),
        ("retrieve", {"id": "batch-1", "status": "completed"}, "2 requests in its batches got no answer"),
    ],
)
def test_a_provider_that_answers_nonsense_about_batches(method, answer, problem, monkeypatch):
    with serving(usual) as server:
        monkeypatch.setattr(server, method, lambda *_: answer)
        with pytest.raises(UserInputError, match=problem):
            batch_judge(server).judge(ITEMS[:2])


def test_a_file_is_one_batch_and_a_row_that_is_refused_is_marked(tmp_path):
    def answer(body):
        if body["messages"] == [message(1)]:
            raise Failure(400, "no")
        return usual(body)

    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    # More rows than a local judge would get at once.
    rows.write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(20)))
    with serving(answer) as server:
        options = JudgingOptions(batch_size=1, on_error="mark")
        judge_file(lambda _: batch_judge(server), rows, out, options)
        assert len(server.batches) == 1
    errors = [json.loads(line)["error"] for line in out.read_text().splitlines()]
    assert errors[1] == "field `prompt`: the server refuses the request (no)." and errors.count(None) == 19


def test_what_failed_in_a_batch_is_named_and_the_rest_kept():
    def answer(body):
        if body["messages"][0]["content"] == "text 3":
            raise Failure(400, "too long")
        return usual(body)

    with serving(answer) as server:
        with pytest.raises(UserInputError, match=r"row 4, field `prompt`: the server refuses .* \(too long\)"):
            batch_judge(server).judge(ITEMS)
        server.answer = usual
        batch_judge(server).judge(ITEMS)
    assert len(server.files["file-4"].splitlines()) == 1
