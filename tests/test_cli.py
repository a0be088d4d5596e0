"""The command line: light, helpful, exit code 2 and one line for a user's mistake."""

import datetime
import decimal
import json
import subprocess
import sys
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from conftest import LABELS, ROOT, make_records, make_tiny_judge, make_tiny_model

from distjudge_trl.cli import main
from distjudge_trl.errors import RunFailedError, UserInputError, run_script, writing
from distjudge_trl.files.shipped_files import list_shipped, shipped_folder
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.labels import LabelSpace
from distjudge_trl.runtime.precision import decide_precision


def invoke(*args):
    return CliRunner().invoke(main, args)


@pytest.mark.parametrize(
    "statement",
    [
        "import distjudge_trl",
        "import distjudge_trl; distjudge_trl.__version__; dir(distjudge_trl)",
        "from distjudge_trl.cli import main; main(['--help'], standalone_mode=False)",
        "from distjudge_trl.cli import main; main(['train', 'vader', '--dry-run'], standalone_mode=False)",
        "from distjudge_trl.cli import main; main(['recipes'], standalone_mode=False)",
    ],
)
def test_light_commands_do_not_import_heavy_libraries(statement):
    heavy = {"torch", "transformers", "trl", "datasets", "numpy"}
    code = f"{statement}\nimport sys; print(sorted(set(sys.modules) & {heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_public_names_are_all_there():
    import distjudge_trl

    for name in distjudge_trl.__all__:
        assert getattr(distjudge_trl, name).__name__
    with pytest.raises(AttributeError, match="no attribute 'Judg'"):
        _ = distjudge_trl.Judg


def test_help_names_every_command():
    result = invoke("--help")
    assert result.exit_code == 0
    for command in ("tasks", "recipes", "train", "judge", "env"):
        assert f"\n  {command} " in result.output


@pytest.mark.parametrize("command", ["judge", "evaluate"])
def test_the_help_names_each_type_that_an_untrained_model_is_read_in(command):
    said = " ".join(invoke(command, "--help").output.split())
    types = "bfloat16 on a GPU (float16 where that is emulated, float32 where both are), float32 on the CPU"
    assert types in said
    # The same in the docs.
    page = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    assert types.replace("), ", "), in ") in page


def test_tasks_and_recipes_are_listed():
    assert "vader" in invoke("tasks").output and "1, 2, 3" in invoke("tasks").output
    output = invoke("recipes").output
    assert "vader" in output and str(ROOT / "recipes" / "vader.py") in output


def test_env_reports_versions_and_what_is_missing(monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    gone = ("cvxpy", "plotly")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else find(name))
    output = invoke("env").output
    assert f"computes in: {decide_precision().dtype} (" in output
    assert "torch: " in output and "pip install 'distjudge-trl[cvxpy]'" in output and "[deepspeed]" not in output
    assert "missing for the report's page: pip install 'distjudge-trl[report]'" in output


def test_train_builds_the_launch_line():
    result = invoke("train", "vader", "--accelerate-config", "zero2", "--dry-run", "--alpha", "0.5")
    assert result.exit_code == 0
    line = result.output.strip()
    assert "accelerate.commands.launch --config_file" in line and "zero2.yaml" in line
    assert line.endswith("recipes/vader.py --alpha 0.5")
    plain = invoke("train", "vader", "--dry-run").output
    assert "accelerate" not in plain and plain.strip().endswith("recipes/vader.py")


def test_the_number_of_processes_goes_to_the_launcher():
    line = invoke("train", "vader", "--accelerate-config", "zero2", "--num-processes", "2", "--dry-run").output
    assert line.index("--num_processes 2") < line.index("recipes/vader.py")
    result = invoke("train", "vader", "--num-processes", "2", "--dry-run")
    assert result.exit_code == 2 and "goes with --accelerate-config" in result.output


def test_a_yaml_task_is_trained_by_the_custom_recipe():
    result = invoke("train", "task.yaml", "--dry-run", "--alpha", "0.5")
    assert result.exit_code == 0
    assert result.output.split()[1:] == [str(ROOT / "recipes" / "custom.py"), "--task", "task.yaml", "--alpha", "0.5"]


def test_data_without_a_task_shows_help_and_with_one_its_options():
    assert "TASK" in invoke("data", "--help").output
    result = invoke("data", "mtbench", "--help")
    assert result.exit_code == 0 and "--swap" in result.output and "--max_annotators" in result.output
    assert invoke("data").exit_code == 2


def test_recipes_are_listed_with_their_grids():
    output = invoke("recipes").output
    assert "summeval\n" in output and output.count("perturbation_radius: 0.0, 0.05") == len(
        list_shipped("recipes", ".py")
    )


def test_train_without_a_recipe_shows_help():
    for args in (("train", "--help"), ("train", "-h")):
        result = invoke(*args)
        assert result.exit_code == 0 and "--accelerate-config" in result.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("train", "vadr"), "There is no recipe 'vadr', nor a file of that name. Did you mean 'vader'?"),
        (("train", "vader", "--accelerate-config", "zero22"), "There is no accelerate config 'zero22'"),
        (("train", "none.yaml", "--dry-run", "--accelerate-config", "zero9"), "There is no accelerate config 'zero9'"),
        (("data", "snly"), "There is no task 'snly'. Did you mean 'snli'?"),
        (("data", "--min_annotators", "1", "snli"), "The task comes first: distjudge-trl data TASK --min_annotators"),
        (("train", "--alpha", "1", "vader"), "The recipe comes first: distjudge-trl train RECIPE --alpha"),
        (("data", "snli", "--out", "records.csv"), "records.csv: records are written as Parquet"),
        (("data", "none.yaml"), "none.yaml: cannot be read"),
        (("data", "snli", "--data_path", "nowhere.zip"), "nowhere.zip: no such file or folder"),
        (("data", "mtbench", "--swapp", "both"), "Unknown option --swapp. Did you mean --swap?"),
        (("data", "mtbench", "--swap", "all"), "argument --swap: invalid choice: 'all'"),
        (("data", "snli", "--max_annotators", "0"), "--max_annotators must be at least 1, got 0."),
        (("data", "snli", "--prompt-template", "none.jinja"), "none.jinja: cannot be read"),
        (
            ("judge", "--model", "nowhere", "--input", "nothing.jsonl", "--out", "x"),
            "nothing.jsonl: no such file or folder",
        ),
    ],
)
def test_a_user_s_mistake_is_one_line_and_exit_code_2(args, message):
    result = invoke(*args)
    assert result.exit_code == 2
    assert result.output.startswith(f"error: {message}") and len(result.output.strip().splitlines()) == 1


def test_shipped_accelerate_configs_are_read_by_accelerate():
    from accelerate.commands.config.config_args import load_config_from_file

    names = list_shipped("accelerate_configs", ".yaml")
    sharded = {"zero1", "zero2", "zero3", "zero2_offload", "zero3_offload", "fsdp2", "fsdp2_qlora"}
    several = {"multi_node_zero3", "multi_node_fsdp2"}
    assert {"single_gpu", "multi_gpu", "cpu", "zero1_cpu", "zero2_cpu", "zero3_cpu", *sharded, *several} == set(names)
    for name in names:
        path = shipped_folder("accelerate_configs") / f"{name}.yaml"
        config = load_config_from_file(str(path))
        assert config.num_machines == (2 if name in several else 1)
        text = path.read_text()
        # When to use it, how to launch it, what memory to expect.
        assert text.startswith("#") and f"accelerate_configs/{name}.yaml" in text and "\n# Memory" in text
        content = yaml.safe_load(text)
        stage = content.get("deepspeed_config", {}).get("zero_stage")
        assert stage == next((int(name[i + 4]) for i in [name.find("zero")] if i >= 0), None)
        assert content.get("fsdp_config", {}).get("fsdp_version") == (2 if "fsdp2" in name else None)
        offloads = content.get("deepspeed_config", {}).get("offload_optimizer_device") == "cpu"
        assert offloads == ("offload" in name) and content["use_cpu"] == ("cpu" in name)


# judge


@pytest.fixture(scope="module")
def judge_folder(tokenizer, tmp_path_factory):
    return make_tiny_judge(tmp_path_factory.mktemp("judge"), tokenizer)


def judge_lines(judge_folder, tmp_path, content):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    return invoke("judge", "--model", judge_folder, "--input", str(source), "--out", str(target)), target


def test_judge_adds_a_distribution_to_every_line(judge_folder, tmp_path):
    prompt = make_records(1)[0]["prompt"]
    content = '{"text": "yes", "id": 7}\n' + json.dumps({"prompt": prompt}) + "\n"
    result, target = judge_lines(judge_folder, tmp_path, content)
    assert result.exit_code == 0, result.output
    first, second = (json.loads(line) for line in target.read_text().splitlines())
    assert first["id"] == 7 and first["text"] == "yes" and second["prompt"] == prompt
    for item in (first, second):
        assert list(item["label_distribution"]) == LABELS
        assert sum(item["label_distribution"].values()) == pytest.approx(1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "in.jsonl: holds no items"),
        ('{"text": "a"}\n{"text": \n', "in.jsonl, row 2: is not valid JSON"),
        ('["a"]\n', "in.jsonl, row 1: is a JSON list, not an object"),
        ('{"text": "a"}\n{"txt": "a"}\n', "in.jsonl, row 2: the prompt template asks for a field the item lacks"),
        ('{"prompt": "rate"}\n', "in.jsonl, row 1, field `prompt`: must be a non-empty list of messages"),
        ('{"text": "a", "label_distribution": {}}\n', "in.jsonl, row 1, field `label_distribution`: is in the input"),
        ('{"text": null}\n', "in.jsonl, row 1, field `text`: is None, and the prompt needs it"),
        ('{"text": ""}\n', "in.jsonl, row 1, field `text`: is ''"),
        ("[" * 100_000 + "\n", "in.jsonl, row 1: "),
        ('{"text": "caf\u00e9"}\n'.encode("latin-1"), "in.jsonl, row 1: is not UTF-8"),
    ],
)
def test_bad_items_leave_no_output(judge_folder, tmp_path, content, message):
    result, target = judge_lines(judge_folder, tmp_path, content)
    assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output
    assert not target.exists() and [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


ODD = {
    "when": [datetime.datetime(2026, 1, 2, 3), None],
    "day": [datetime.date(2026, 1, 2)] * 2,
    "price": [decimal.Decimal("1.50"), decimal.Decimal("2.00")],
    "score": [1.5, float("nan")],
    "nested": [{"at": [datetime.time(3, 4)]}, None],
}


def test_judge_writes_every_type_of_a_table_as_json(judge_folder, tmp_path):
    pq.write_table(pa.table({"text": ["yes", "no"], **ODD}), tmp_path / "in.parquet")
    target = tmp_path / "out.jsonl"
    result = invoke("judge", "--model", judge_folder, "--input", str(tmp_path / "in.parquet"), "--out", str(target))
    assert result.exit_code == 0, result.output
    strict = partial(json.loads, parse_constant=pytest.fail)
    first, second = (strict(line) for line in target.read_text().splitlines())
    assert [first[name] for name in ODD] == ["2026-01-02T03:00:00", "2026-01-02", 1.5, 1.5, {"at": ["03:04:00"]}]
    assert [second[name] for name in ODD] == [None, "2026-01-02", 2, None, None]


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        ([None, b"\xff"], "b'\\xff'"),
        ([[1.0], [float("inf")]], "[inf]"),
        (pa.array([None, 5], pa.duration("s")), "datetime.timedelta"),
    ],
)
def test_what_json_cannot_say_is_refused_before_the_model_is_loaded(tmp_path, column, shown):
    pq.write_table(pa.table({"text": ["yes", "no"], "odd": column}), tmp_path / "in.parquet")
    (tmp_path / "judge").mkdir()
    JudgeFile(LabelSpace(LABELS).to_dict(), [{"role": "user", "content": "{{ text }}"}]).write(tmp_path / "judge")
    command = ["judge", "--model", str(tmp_path / "judge"), "--input", str(tmp_path / "in.parquet")]
    result = invoke(*command, "--out", str(tmp_path / "out"))
    assert result.exit_code == 2 and "in.parquet, row 2, field `odd`: holds" in result.output
    assert shown in result.output and "cannot be written as JSON" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "judge"]


def test_a_bad_item_is_named_by_its_line(judge_folder, tmp_path):
    (tmp_path / "in.csv").write_text("id,text\n1,yes\n\n2,\n")
    target = tmp_path / "out.jsonl"
    result = invoke("judge", "--model", judge_folder, "--input", str(tmp_path / "in.csv"), "--out", str(target))
    assert result.exit_code == 2 and "in.csv, row 4, field `text`: is ''" in result.output
    result, _ = judge_lines(judge_folder, tmp_path, '{"text": "a"}\n\n{"text": ""}\n')
    assert "in.jsonl, row 3, field `text`: is ''" in result.output


def test_bad_items_leave_an_older_output_alone(judge_folder, tmp_path):
    (tmp_path / "out.jsonl").write_text("old")
    result, target = judge_lines(judge_folder, tmp_path, '{"txt": "a"}\n')
    assert result.exit_code == 2 and target.read_text() == "old"


def test_the_input_is_not_overwritten(judge_folder, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "a"}\n')
    result = invoke("judge", "--model", judge_folder, "--input", str(path), "--out", str(path))
    assert result.exit_code == 2 and "is the input" in result.output and path.read_text() == '{"text": "a"}\n'


def test_an_output_that_is_a_folder_is_refused(judge_folder, tmp_path):
    (tmp_path / "out.jsonl").mkdir()
    result, _ = judge_lines(judge_folder, tmp_path, '{"text": "a"}\n')
    assert result.exit_code == 2 and "is a folder" in result.output


def test_an_output_in_a_missing_folder_is_refused_before_the_model_is_loaded(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    result = invoke(
        "judge", "--model", "x", "--input", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "no" / "out")
    )
    assert result.exit_code == 2 and "cannot be written" in result.output


def test_a_model_that_is_no_judge(tmp_path, tokenizer):
    make_tiny_model(len(tokenizer)).save_pretrained(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    result = invoke(
        "judge", "--model", str(tmp_path), "--input", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "o")
    )
    assert result.exit_code == 2 and "judge.json: no such file, so this is not a trained judge" in result.output


# A full disk


FULL = OSError(28, "No space left on device", "/data/table.parquet")
FULL_LINE = "error: /data/table.parquet: cannot be written (No space left on device). Make room and try again.\n"


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_full_disk_is_one_line_from_every_command(monkeypatch):
    monkeypatch.setattr("distjudge_trl.tasks.list_tasks", failing(FULL))
    result = invoke("tasks")
    assert result.exit_code == 1 and result.output == FULL_LINE
    monkeypatch.setattr("distjudge_trl.tasks.list_tasks", failing(PermissionError(13, "Permission denied")))
    assert isinstance(invoke("tasks").exception, PermissionError)


def test_a_full_disk_is_one_line_from_every_script(capsys):
    with pytest.raises(SystemExit) as caught:
        run_script(failing(FULL))
    assert caught.value.code == 1 and capsys.readouterr().err == FULL_LINE


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("a library's own words"), "a library's own words"),
        # As safetensors and torch.save raise it.
        (Exception("I/O error: No space left on device (os error 28)"), "I/O error: No space left on device"),
        (RuntimeError("PytorchStreamWriter failed writing file"), "PytorchStreamWriter failed"),
    ],
)
def test_what_says_that_the_disk_failed(error, reason):
    with pytest.raises(RunFailedError) as caught, writing("out", "Do this."):
        raise error
    assert str(caught.value).startswith(f"out: cannot be written ({reason}") and str(caught.value).endswith("Do this.")


def test_other_errors_while_writing_stay_what_they_are():
    with pytest.raises(UserInputError, match="No space left in the template"), writing("out"):
        raise UserInputError("No space left in the template")
    with pytest.raises(KeyError), writing("out"):
        raise KeyError("a")
