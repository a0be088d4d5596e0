"""The results folder: what is kept of a run, and that the report and the tables read it as they read the run."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from small_study import ABOUT, CONTENT, make_items, make_judge, make_result, make_run, make_study, write_plan

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation import read_predictions, read_results
from distjudge_trl.report.build import all_tables
from distjudge_trl.report.comparisons import compare
from distjudge_trl.report.test_sets import load_test_sets
from distjudge_trl.study import read_plan, read_study
from distjudge_trl.study.groups import group_results
from distjudge_trl.study.named_files import _digest
from distjudge_trl.study.store import is_done, keep, result_folder
from distjudge_trl.study.tables import all_tables as study_tables


RUNS = {"main": {"data": ["first"], "methods": ["raw", "wide"], "seeds": [0, 1]}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A plan's runs as recipes leave them, and as they are kept."""
    folder = tmp_path_factory.mktemp("study")
    model = str(folder / "models/small")
    plan = read_plan(write_plan(folder, model=model, runs=RUNS))
    for run in plan.runs():
        made = folder / "made" / run.full_name
        provenance = {
            "git_revision": "abc",
            "training": {"output_dir": str(made)},
            "data_report": {"read": 40, "excluded": {f"known to {folder / 'kept' / run.data}": 3}},
            "evaluation": {"data_path": str(folder / "data"), "leave_out": [str(folder)], "seed": 0},
        }
        make_result(made, method=run.options["method"], seed=run.seed, provenance=provenance, model=model)
        keep(folder / "kept", run, made, ABOUT, places=[folder])
    return plan, folder / "made", folder / "kept"


def test_predictions_stay_and_texts_go(folders):
    plan, made, kept = folders
    for run in plan.runs():
        before, after = (read_predictions(root / run.full_name) for root in (made, kept))
        assert before["id"][:] == after["id"][:] and before["num_annotators"][:] == after["num_annotators"][:]
        for name in ("label_distribution", "judge_distribution"):
            assert np.abs(np.array(before[name][:]) - np.array(after[name][:])).max() < 1e-6
        assert all(not prompt for prompt in after["prompt"][:]) and all(before["prompt"][:])
        # Groups are numbered in their order.
        pairs = sorted(set(zip(before["group"][:], after["group"][:], strict=True)))
        assert [number for _, number in pairs] == [f"{i:06d}" for i in range(20)]
    everything = b"".join(path.read_bytes() for path in kept.rglob("*") if path.is_file())
    assert b"premise" not in everything and b"its text" not in everything
    size = sum(path.stat().st_size for path in (kept / plan.runs()[1].full_name).iterdir())
    assert size < 20_000


def test_no_path_of_this_machine_is_kept(folders):
    plan, made, kept = folders
    for run in plan.runs():
        text = (kept / run.full_name / "results.json").read_text(encoding="utf-8")
        assert str(made.parent) not in text and '"/' not in text
        results = json.loads(text)
        assert results["model"] == results["provenance"]["study"]["options"]["model_name_or_path"] == "small"
        assert results["provenance"]["data_report"]["excluded"] == {"known to kept/first": 3}
        assert results["provenance"]["evaluation"] == {"seed": 0} and "training" not in results["provenance"]
        # The plan names the folder of this machine, and knows its result again.
        assert run.options["model_name_or_path"].startswith("/") and is_done(kept, run)


def test_the_report_says_the_same_of_both(folders):
    _, made, kept = folders
    tables = []
    for root in (made, kept):
        test_sets = load_test_sets([root])
        assert [len(test_set.runs) for test_set in test_sets] == [3]
        tables.append({table.name: table for table in all_tables(test_sets, compare(test_sets))})
    before, after = tables
    assert before.keys() == after.keys() and len(before) > 3
    for name, table in before.items():
        assert table.rows == after[name].rows and table.header == after[name].header


def test_a_tiny_probability_is_not_lost(folders, tmp_path):
    plan, _, _ = folders
    run, source = plan.runs()[1], tmp_path / "made"
    records = make_items(12)
    log_q = make_judge(records, 1.0)
    log_q[0] = [-120.0, np.log(0.5), np.log(0.5)]
    make_run(source, records, log_q)
    kept = keep(tmp_path / "kept", run, source, ABOUT)
    assert kept.run.log_q.min() == pytest.approx(-120.0)


def test_what_is_read_is_what_was_kept(folders):
    plan, made, kept = folders
    found = read_study(kept, plan=plan)
    assert [result.path for result in found] == sorted(result_folder(kept, run) for run in plan.runs())
    wide = next(result for result in found if result.path.name == "wide-seed1")
    assert wide.about["vary"] == {} and wide.about["seconds"] == 60.0 and wide.about["machine"]["cores"] == 2
    assert set(wide.rows) == {"plain", "temperature", "vector", "uniform", "training-prior", "training-majority"}
    before = read_results(made / "first/wide-seed1")
    assert wide.rows["temperature"].metrics["kl"]["value"] == pytest.approx(
        before["variants"][[row["method"] for row in before["variants"]].index("distribution + temperature")][
            "metrics"
        ]["kl"]["value"],
        rel=1e-5,
    )


def test_judges_without_scalings_have_tables_without_them(tmp_path):
    """As of a plan without `calibrate`."""
    size = {"data": ["first"], "methods": ["no-adversary", "wide"], "vary": {"max_train_samples": [20, None]}}
    runs = {**RUNS, "size": {**size, "seeds": [0, 1]}}
    tables = study_tables(*make_study(tmp_path, {**CONTENT, "runs": runs}, lambda run: {"calibrate": False}))
    assert {"data-first", "gains-plain", "curve-first-max_train_samples-plain"} <= tables.keys()
    assert not any("temperature" in name or "vector" in name for name in tables)
    data = tables["data-first"]
    column = data.header.index("+ temperature")
    assert all(row[column] in ("-", "") and row[column + 1] in ("-", "") for row in data.rows)
    assert all("-" not in row[1:2] for row in tables["gains-plain"].rows)


def test_a_method_of_the_plan_is_not_shown_as_the_recipes_method(folders):
    plan, _, kept = folders
    results = read_study(kept, plan=plan)
    assert {"wide"} < {result.about["method"] for result in results}
    (table,) = study_tables(plan, results, ["metrics_snli"]).values()
    judges = {row[table.header.index("method")] for row in table.rows}
    assert "raw" in judges and "distribution" not in judges  # which is the recipes' name for "wide"


@pytest.fixture()
def copied(folders, tmp_path):
    shutil.copytree(folders[2], tmp_path / "kept")
    return folders[0], tmp_path / "kept"


def test_runs_of_another_plan_are_left_aside(copied, tmp_path):
    plan, kept = copied
    only = {"main": {"data": ["first"], "methods": ["wide"], "seeds": [1]}}
    other = read_plan(write_plan(tmp_path, model=plan.content.model, runs=only))
    assert [result.path.name for result in read_study(kept, plan=other)] == ["wide-seed1"]
    assert len(read_study(kept)) == 3


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"options": {"num_train_epochs": 3}}, "made with other options than the plan's: num_train_epochs 2 and 3"),
        ({"data": {"first": {"task": "mnli"}}}, "made with other options than the plan's: task snli and mnli"),
    ],
)
def test_results_of_other_options_are_refused(copied, tmp_path, change, match):
    plan, kept = copied
    other = read_plan(write_plan(tmp_path, **{"model": plan.content.model, "runs": RUNS, **change}))
    with pytest.raises(UserInputError, match=match):
        read_study(kept, plan=other)


def test_other_files_of_the_same_name_are_another_model(tmp_path):
    """Paths are not kept, so that the files have to tell two models apart."""
    models = [tmp_path / name / "final" for name in ("one", "two")]
    for number, folder in enumerate(models):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(bytes([number]) * 200_000)
    runs = {"main": {"data": ["first"], "methods": ["wide"]}}
    plans = [read_plan(write_plan(tmp_path, model=str(folder), runs=runs)) for folder in models]
    ((run,), (other,)) = (plan.runs() for plan in plans)
    make_result(tmp_path / "made")
    keep(tmp_path / "kept", run, tmp_path / "made", ABOUT)
    assert is_done(tmp_path / "kept", run)
    with pytest.raises(
        UserInputError, match="wide-seed0: was made with other .* model_name_or_path names other files"
    ):
        is_done(tmp_path / "kept", other)
    # Where the model is not, its name has to do.
    (models[0] / "training_args.bin").touch()  # no part of the model
    (models[0] / "config.json").write_text('{"transformers_version": "9.0"}')
    _digest.cache_clear()
    assert is_done(tmp_path / "kept", run)
    (models[0] / "chat_template.jinja").touch()
    _digest.cache_clear()
    with pytest.raises(UserInputError, match="model_name_or_path names other files"):
        is_done(tmp_path / "kept", run)
    (gone,) = read_plan(write_plan(tmp_path, model="/elsewhere/final", runs=runs)).runs()
    assert is_done(tmp_path / "kept", gone)


def test_long_numbers_of_a_start_are_known_again(tmp_path):
    data = {"first": {"task": "snli", "options": {"num_train_epochs": 1.6666667}}}
    data["second"] = {"task": "vader", "start_from": "first"}
    content = {"data": data, "runs": {"main": {"data": ["first", "second"], "methods": ["kl-only"]}}}
    plan, results = make_study(tmp_path, content)
    assert len(results) == 2 and all(is_done(tmp_path / "kept", run) for run in plan.runs())


@pytest.mark.parametrize("role", ["transfer", "start"])
def test_a_changed_task_file_of_a_test_or_a_start_is_noticed(tmp_path, role):
    task = """{name: mine, labels: ["no", "yes"], template: "%s {{ text }}", source: x.jsonl, votes: {list: votes}}"""
    (tmp_path / "mine.yaml").write_text(task % "first")
    data = {"second": {"task": "mine.yaml"}, "first": {"task": "mine.yaml", "transfer": {"mine.yaml": None}}}
    if role == "start":
        data["first"] = {"task": "hs_brexit", "start_from": "second"}
    content = {"data": data, "runs": {"main": {"data": [*data], "methods": ["kl-only"]}}}
    kept, transfer = tmp_path / "kept", "mine.yaml" if role == "transfer" else None
    make_result(tmp_path / "made")
    for words in ("first", "second"):
        (tmp_path / "mine.yaml").write_text(task % words)
        run = next(run for run in read_plan(write_plan(tmp_path, content)).runs() if run.data == "first")
        run = replace(run, task="what it was")
        if words == "first":
            keep(kept, run, tmp_path / "made", ABOUT, transfer)
            assert is_done(kept, run, transfer)
    with pytest.raises(UserInputError, match=f"{role}_task mine.yaml [0-9a-f]+ and mine.yaml [0-9a-f]+ "):
        is_done(kept, run, transfer)


def test_damaged_and_foreign_results_are_named(copied):
    plan, kept = copied
    run = plan.runs()[1]
    folder = result_folder(kept, run)
    results = json.loads((folder / "results.json").read_text())
    (folder / "predictions.parquet").rename(folder / "elsewhere")
    with pytest.raises(UserInputError, match=f"{folder}: lacks its predictions.parquet"):
        is_done(kept, run)
    (folder / "elsewhere").rename(folder / "predictions.parquet")
    other = plan.runs()[2]
    shutil.copytree(folder, result_folder(kept, other), dirs_exist_ok=True)
    with pytest.raises(UserInputError, match=f"{result_folder(kept, other)}: was made with other options"):
        is_done(kept, other)
    shutil.rmtree(kept)
    make_result(folder)
    with pytest.raises(UserInputError, match=f"{folder}: holds results that are no study's"):
        is_done(kept, run)
    (folder / "results.json").write_text(json.dumps(results)[:-9])
    with pytest.raises(UserInputError, match="results.json: is damaged"):
        is_done(kept, run)
    for name, value in (("options", 3), ("machine", {}), ("seconds", "60"), ("seed", None)):
        broken = json.loads(json.dumps(results))
        broken["provenance"]["study"][name] = value
        (folder / "results.json").write_text(json.dumps(broken))
        for read in (lambda: is_done(kept, run), lambda: read_study(kept)):
            with pytest.raises(UserInputError, match=f"has no valid `{name}`.*Delete the folder"):
                read()
    (folder / "results.json").unlink()
    assert not is_done(kept, run)


def test_moved_targets_as_trained_and_scaled(tmp_path):
    plan, results = make_study(tmp_path)
    (table,) = study_tables(plan, results, ["moved"]).values()
    assert table.title.endswith("by 0.25 (L2), minus KL to the targets") and table.header == ["method", "first"]
    cells = dict(table.rows)
    assert list(cells) == ["raw", "no-adversary", "a wide ball"]
    judges = [result.results for result in results if result.about["method"] == "wide"]
    scaled = [
        next(row for row in judge["variants"] if row["method"].endswith("+ temperature"))["robustness"]
        for judge in judges
    ]
    growth = [
        [points[-1]["kl"] - points[0]["kl"] for points in each]
        for each in ([judge["robustness"] for judge in judges], scaled)
    ]
    expected = (f"{np.mean(each):.3f} ± {np.std(each, ddof=1):.3f}" for each in growth)
    assert cells["a wide ball"] == " / ".join(expected)


def test_judges_beside_the_papers_and_its_own_other_seeds(tmp_path):
    runs = {"main": {"data": ["first"], "methods": ["kl-only", "distribution"], "seeds": [0, 1]}}
    # made_runs makes judges of the method "no-adversary" worse, so that the two methods differ.
    plan, results = make_study(
        tmp_path,
        {"data": {"first": {"task": "snli"}}, "runs": runs},
        lambda run: {"method": "no-adversary" if run.method == "kl-only" else run.method},
    )
    (table,) = study_tables(plan, results, ["likeness-first"]).values()
    rows = {row[0]: row[1:] for row in table.rows}
    answers = {(r.about["method"], r.about["seed"]): r for r in results}

    def apart(one, other, reading):
        p, q = (answers[key].rows[reading].log_q for key in (one, other))
        return (np.exp(p) * (p - q)).sum(-1).mean()

    for place, reading in enumerate(("plain", "temperature")):
        same = [apart(("distribution", seed), ("kl-only", seed), reading) for seed in (0, 1)]
        other = [apart(("distribution", seed), ("distribution", 1 - seed), reading) for seed in (0, 1)]
        assert min(*same, *other) > 0.005
        for name, found in (("kl-only (2 seeds)", same), ("distribution (2 seeds), another seed", other)):
            assert rows[name][place] == f"{np.mean(found):.3f} ± {np.std(found, ddof=1):.3f}"


def test_untrained_models_of_several_sizes_are_no_seeds(tmp_path):
    content = {
        "data": {"first": {"task": "snli"}},
        "runs": {
            "main": {
                "data": ["first"],
                "methods": ["raw", "no-adversary"],
                "vary": {"model_name_or_path": ["small", "large", None]},
            }
        },
    }
    _, results = make_study(tmp_path, content)
    assert len(results) == 6
    for vary in ({}, {"model_name_or_path": "small"}):
        groups = group_results(results, vary=vary)["first"]
        assert [len(groups[name].results) for name in ("raw", "no-adversary")] == [1, 1]
        assert all(group.results[0].about["vary"] == vary for group in groups.values())


def test_what_was_tested_on_other_items_is_not_compared(tmp_path):
    _, results = make_study(tmp_path, {**CONTENT, "runs": RUNS}, lambda run: {"count": 30 + 10 * run.seed})
    with pytest.raises(UserInputError, match=r"wide-seed1: was tested on other items than .*, so that no table"):
        group_results(results)


def test_a_judge_that_was_trained_further_is_called_by_its_model_and_its_start(tmp_path):
    content = {
        "model": "org/base",
        "data": {"first": {"task": "snli"}, "second": {"task": "snli", "start_from": "first"}},
        "runs": {"main": {"data": ["first", "second"], "methods": ["kl-only"]}},
    }
    _, results = make_study(tmp_path, content, lambda run: {"model": str(tmp_path / "work/first/kl-only-seed0")})
    assert [result.results["model"] for result in results] == ["kl-only-seed0", "org/base, from first/kl-only-seed0"]
