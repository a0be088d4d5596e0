"""A report from result files: what stands in which table, what is averaged, what is refused."""

import csv
import json

import numpy as np
import pytest
from made_runs import make_items, make_judge, make_run
from scipy.stats import ttest_1samp, ttest_rel

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation import item_kl
from distjudge_trl.evaluation.statistics import holm, paired_test
from distjudge_trl.report.build import all_tables, build_report
from distjudge_trl.report.comparisons import compare
from distjudge_trl.report.judge_tables import halves_table, metrics_table
from distjudge_trl.report.paper_tables import (
    ablation_table,
    budget_table,
    main_table,
    robustness_by_task,
    transfer_table,
)
from distjudge_trl.report.plots import all_plots, figure_3
from distjudge_trl.report.test_sets import load_test_sets


RECORDS = make_items()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "raw", RECORDS, make_judge(RECORDS, 0.2), method="raw", calibrate=True)
    for seed in (0, 1):
        sp = make_judge(RECORDS, 1.0, seed)
        make_run(folder / f"sp{seed}", RECORDS, sp, method="single-point", seed=seed, settings={"alpha": 0.0})
        make_run(folder / f"d{seed}", RECORDS, make_judge(RECORDS, 3.0, seed), seed=seed, calibrate=True)
    make_run(folder / "no-adversary", RECORDS, make_judge(RECORDS, 2.5), method="no-adversary")
    for alpha in (0.0, 0.4, 1.0):
        for radius in (0.0, 0.1):
            own = {"alpha": alpha, "perturbation_radius": radius, "num_train_items": 40}
            log_q = make_judge(RECORDS, 1 + alpha + radius, 7)
            make_run(folder / f"grid-{alpha}-{radius}", RECORDS, log_q, settings=own)
    for n in (1, 5):
        own = {"max_annotators": n, "num_train_items": 100 // n, "num_train_votes": 100}
        make_run(folder / f"budget-{n}", RECORDS, make_judge(RECORDS, 2.0, n), settings=own)
    other = make_items(name="chaos", seed=5)
    make_run(folder / "transfer", other, make_judge(other, 2.0), task="chaosnli", trained_on="snli")
    return folder


def row_of(table, *start):
    found = [row for row in table.rows if tuple(row[: len(start)]) == start]
    assert len(found) == 1, (start, table.rows)
    return dict(zip(table.header, found[0], strict=True))


def mean_kl(runs, *names):
    return [json.loads((runs / name / "results.json").read_text())["metrics"]["kl"]["value"] for name in names]


def test_table_1_has_ours_with_seeds_and_the_paper_s_marked(runs):
    sets = load_test_sets([runs])
    table = main_table(sets, compare(sets))
    ours = row_of(table, "small-model", "distribution")
    kls = mean_kl(runs, "d0", "d1")
    assert ours["source"] == "ours, 2 seeds"
    assert ours["SNLI KL"].startswith(f"{np.mean(kls):.3f} ± {np.std(kls, ddof=1):.3f}")
    raw = row_of(table, "small-model", "raw")["SNLI KL"]
    assert raw.startswith(f"{mean_kl(runs, 'raw')[0]:.3f} [")
    theirs = row_of(table, "Qwen2.5-7B", "distribution", "paper")
    assert (theirs["SNLI KL"], theirs["SNLI acc. %"], theirs["MT-Bench KL"]) == ("0.23", "93.3", "0.68")
    assert {table.rows[i][2] for i in table.paper_rows} == {"paper"} and len(table.paper_rows) == 8
    assert all(row[2] != "paper" for i, row in enumerate(table.rows) if i not in table.paper_rows)
    floor = row_of(table, "-", "noise floor")["SNLI KL"]
    assert float(floor) == pytest.approx(sets[-1].noise_floor, abs=1e-3)
    assert ours["SNLI excess"].startswith(f"{np.mean(kls) - sets[-1].noise_floor:.3f} ± ")
    assert row_of(table, "-", "uniform")["MNLI KL"] == "-"


def test_a_grid_run_is_no_seed_of_the_default_setting(runs):
    (snli,) = [t for t in load_test_sets([runs]) if t.name == "snli"]
    chosen = [cell for cell in snli.main_cells if cell.method == "distribution"]
    assert len(chosen) == 1 and [row.seed for row in chosen[0].rows] == [0, 1]
    assert {row.settings["num_train_items"] for row in chosen[0].rows} == {100}
    assert "8 further configurations" in "".join(metrics_table(snli).notes)


def comparison(found, method, against="single-point"):
    (one,) = [c for c in found if (c.a.method, c.b.method) == (method, against)]
    return one


def test_several_seeds_are_tested_by_seeds(runs):
    found = [c for c in compare(load_test_sets([runs])) if c.test_set.name == "snli"]
    ours = comparison(found, "distribution")
    assert ours.test == "t-test, 2 seeds"
    kls = [mean_kl(runs, *names) for names in (("d0", "d1"), ("sp0", "sp1"))]
    assert ours.kl.value == pytest.approx(np.mean(kls[0]) - np.mean(kls[1]))
    assert ours.raw_p == pytest.approx(ttest_rel(*kls).pvalue) and ours.kl.low < ours.kl.value < ours.kl.high
    # An untrained model is the same for every seed.
    theirs = comparison(found, "distribution", "raw + vector")
    scaled = json.loads((runs / "raw" / "results.json").read_text())["variants"][-1]
    assert scaled["method"] == "raw + vector" and theirs.test == "t-test, 2 seeds"
    assert theirs.raw_p == pytest.approx(ttest_1samp(kls[0], scaled["metrics"]["kl"]["value"]).pvalue)
    # Its own seed is one, the baseline's are two: a star could contradict the figures that it stands beside.
    assert comparison(found, "no-adversary").p is None
    assert comparison(found, "no-adversary").test == "none: other seeds"


def test_one_seed_is_tested_by_items_and_holm_runs_over_the_report(tmp_path):
    other = make_items(40, name="other", seed=9)
    for task, records in (("snli", RECORDS), ("mnli", other)):
        for sharpness, method in ((1.0, "single-point"), (1.6, "distribution"), (1.2, "no-adversary")):
            make_run(tmp_path / task / method, records, make_judge(records, sharpness), task=task, method=method)
    sets = load_test_sets([tmp_path])
    found = compare(sets)
    assert {(c.a.method, c.b.method) for c in found} == {
        ("distribution", "single-point"),
        ("no-adversary", "single-point"),
        ("distribution", "no-adversary"),
    }
    assert [c.p for c in found] == pytest.approx(holm([c.raw_p for c in found])) and len(found) == 6
    ours = comparison([c for c in found if c.test_set.name == "snli"], "no-adversary")
    assert ours.test == "permutation of items"
    kls = [item_kl(cell.rows[0].run.p, cell.rows[0].log_q) for cell in (ours.a, ours.b)]
    assert ours.kl.value == pytest.approx((kls[0] - kls[1]).mean())
    assert ours.raw_p == pytest.approx(paired_test(*kls, ours.a.rows[0].run.items["group"][:]))
    table = main_table(sets, found)
    for c in found:
        if c.b.method == "single-point":
            cell = row_of(table, "small-model", c.a.method)[f"{c.test_set.name.upper()} KL"]
            assert cell.endswith("*") == (c.p < 0.05)


def test_judges_that_were_trained_in_other_ways_are_not_tested(tmp_path):
    make_run(tmp_path / "a", RECORDS, make_judge(RECORDS, 1.0), method="single-point")
    make_run(tmp_path / "b", RECORDS, make_judge(RECORDS, 3.0), settings={"num_train_items": 1000})
    (found,) = compare(load_test_sets([tmp_path]))
    assert found.p is None and found.test == "none: trained in other ways"


def test_a_table_takes_the_setup_that_its_methods_share(tmp_path):
    """A run of a grid with the default setting, on more items than the methods, is none of their seeds."""
    for seed in (0, 1, 2):
        make_run(tmp_path / f"sp{seed}", RECORDS, make_judge(RECORDS, 1.0, seed), method="single-point", seed=seed)
        make_run(tmp_path / f"d{seed}", RECORDS, make_judge(RECORDS, 3.0, seed), seed=seed)
    make_run(tmp_path / "grid", RECORDS, make_judge(RECORDS, 2.0), settings={"num_train_items": 111})
    (test_set,) = load_test_sets([tmp_path])
    seeds = {cell.method: len(cell.rows) for cell in test_set.main_cells}
    assert seeds["distribution"] == 3 and seeds["single-point"] == 3
    assert comparison(compare([test_set]), "distribution").test == "t-test, 3 seeds"


def test_a_budget_run_hides_no_ordinary_judge(tmp_path):
    make_run(tmp_path / "a", RECORDS, make_judge(RECORDS, 1.0), settings={"alpha": 0.4})
    own = {"alpha": 0.4, "max_annotators": 3, "num_train_items": 500}
    make_run(tmp_path / "b", RECORDS, make_judge(RECORDS, 2.0), settings=own)
    (test_set,) = load_test_sets([tmp_path])
    (cell,) = [cell for cell in test_set.main_cells if cell.method == "distribution"]
    assert cell.rows[0].settings["num_train_items"] == 100


@pytest.mark.parametrize(
    "changes", [{"settings": {"adapter": "LORA r=64"}}, {"model": "other/small-model", "seed": 1}]
)
def test_other_adapters_and_models_are_other_judges(tmp_path, changes):
    make_run(tmp_path / "a", RECORDS, make_judge(RECORDS, 1.0))
    make_run(tmp_path / "b", RECORDS, make_judge(RECORDS, 2.0), **changes)
    (test_set,) = load_test_sets([tmp_path])
    cells = [cell for cell in test_set.cells if cell.method == "distribution"]
    assert [len(cell.rows) for cell in cells] == [1, 1]
    models = {"org/small-model", "other/small-model"} if "model" in changes else {"small-model"}
    assert {cell.model for cell in cells} == models


def test_judges_from_two_sources_do_not_share_a_column(tmp_path):
    for source in ("snli", "mnli"):
        for method, sharpness in (("single-point", 1.0), ("distribution", 2.0)):
            log_q = make_judge(RECORDS, sharpness + (source == "mnli"))
            folder = tmp_path / source / method
            make_run(folder, RECORDS, log_q, task="chaosnli", trained_on=source, method=method)
    sets = load_test_sets([tmp_path])
    assert [t.name for t in sets] == ["mnli to chaosnli", "snli to chaosnli"]
    assert {c.test_set.name for c in compare(sets)} == {"mnli to chaosnli", "snli to chaosnli"}
    table = transfer_table(sets, compare(sets))
    theirs = row_of(table, "Qwen2.5-7B", "distribution")
    assert theirs["snli to chaosnli acc. %"] == "67.8" and theirs["mnli to chaosnli acc. %"] == "-"


def test_humans_and_judges_are_set_against_the_same_halves(runs):
    table = halves_table(load_test_sets([runs]))
    metrics = json.loads((runs / "no-adversary" / "results.json").read_text())["metrics"]["human_ceiling"]
    (ours,) = [row for row in table.rows if row[:3] == ["snli", "small-model", "no-adversary"]]
    assert ours[3:] == [
        f"{metrics['judge_kl']:.3f}",
        f"{metrics['judge_total_variation']:.3f}",
        f"{100 * metrics['judge_accuracy']:.1f}",
    ]
    (humans,) = [row for row in table.rows if row[0] == "snli" and "annotators" in row[2]]
    assert humans[3] == f"{metrics['kl']:.3f}"


def test_a_judge_evaluated_twice_counts_once(runs, tmp_path):
    make_run(tmp_path / "again", RECORDS, make_judge(RECORDS, 3.0, 0), seed=0)
    sets = load_test_sets([runs, tmp_path])
    (cell,) = [c for c in sets[-1].main_cells if c.method == "distribution"]
    assert len(cell.rows) == 2
    (note,) = [note for note in metrics_table(sets[-1]).notes if "equals" in note]
    assert "again" in note and "d0" in note and "differs by 0.0000" in note


def test_five_tokens_are_another_judge(tmp_path):
    log_q = make_judge(RECORDS, 1.0)
    for kind, floor in (("full", None), ("top5", 1e-6)):
        for method in ("single-point", "distribution"):
            extraction = {"kind": kind, "floor": floor}
            make_run(tmp_path / kind / method, RECORDS, log_q, method=method, extraction=extraction)
    sets = load_test_sets([tmp_path])
    assert {cell.model for cell in sets[0].main_cells} == {"", "small-model", "small-model (top5)"}
    assert {(c.a.model, c.b.model) for c in compare(sets)} == {("small-model",) * 2, ("small-model (top5)",) * 2}
    assert row_of(robustness_by_task(sets), "snli", "small-model (top5)", "distribution")


def test_other_test_items_are_another_test_set(tmp_path):
    for name, records in (("a", RECORDS), ("b", make_items(40, seed=9))):
        make_run(tmp_path / name, records, make_judge(records, 1.0))
    sets = load_test_sets([tmp_path])
    assert [t.name.split(" (")[0] for t in sets] == ["snli", "snli"] and len({t.name for t in sets}) == 2
    assert not compare(sets)


def test_tables_2_to_6(runs):
    sets = load_test_sets([runs])
    ablation = row_of(ablation_table(sets), "small-model", "snli")
    assert (
        ablation["w/o Adv KL"].startswith(f"{mean_kl(runs, 'no-adversary')[0]:.3f}") and ablation["w/o KL KL"] == "-"
    )
    robust = row_of(robustness_by_task(sets), "snli", "small-model", "no-adversary")
    points = json.loads((runs / "no-adversary" / "results.json").read_text())["robustness"]
    assert robust["δ = 0.25"] == f"{points[-1]['kl']:.3f} ± {points[-1]['std']:.3f}"
    assert row_of(robustness_by_task(sets), "SNLI", "Qwen2.5-7B", "single-point")["δ = 0.25"] == "0.709"
    budget = budget_table(sets)
    assert [row[2:5] for row in budget.rows[:2]] == [["100", "1", "100"], ["20", "5", "100"]]
    assert budget.rows[2][2:4] == ["8,000", "1"] and budget.paper_rows == {2, 3, 4}
    moved = transfer_table(sets, compare(sets))
    assert "snli to chaosnli KL" in moved.header
    assert row_of(moved, "small-model", "distribution")["snli to chaosnli KL"].startswith(
        f"{mean_kl(runs, 'transfer')[0]:.3f}"
    )
    assert row_of(moved, "Qwen2.5-7B", "distribution")["snli to chaosnli acc. %"] == "67.8"


def test_an_untrained_model_is_the_baseline_of_a_transfer(tmp_path):
    for name, trained_on in (("raw", None), ("moved", "snli")):
        log_q = make_judge(RECORDS, 1.0)
        method = "distribution" if trained_on else "raw"
        make_run(tmp_path / name, RECORDS, log_q, task="chaosnli", trained_on=trained_on, method=method)
    (test_set,) = load_test_sets([tmp_path])
    assert test_set.source == "snli" and {"raw", "distribution"} <= {cell.method for cell in test_set.main_cells}


def test_figure_3_has_a_line_an_epsilon(runs):
    plot = figure_3(load_test_sets([runs]))
    (panel,) = [p for p in plot.panels if "40 items" in p.title]
    assert [line.name for line in panel.lines] == ["ε = 0", "ε = 0.1"]
    for line in panel.lines:
        assert line.x == [0.0, 0.4, 1.0]
        radius = line.name.split(" = ")[1]
        names = [f"grid-{alpha}-{float(radius)}" for alpha in line.x]
        assert line.y == pytest.approx(mean_kl(runs, *names))


def test_a_report_is_markdown_csv_png_and_a_page(runs, tmp_path):
    lines = list(build_report([runs], tmp_path / "out"))
    assert lines[0].startswith("15 runs on 2 test sets")
    tables = sorted(p.name for p in (tmp_path / "out" / "tables").glob("*.csv"))
    assert tables == sorted(
        [
            "comparisons.csv",
            "halves.csv",
            "metrics_snli-to-chaosnli.csv",
            "metrics_snli.csv",
            *(f"table{i}.csv" for i in range(1, 7)),
        ]
    )
    figures = {p.name for p in (tmp_path / "out" / "figures").iterdir()}
    assert figures == {"kl.png", "figure3.png", "reliability.png", "entropy.png"}
    with (tmp_path / "out" / "all_runs.csv").open() as file:
        everything = list(csv.DictReader(file))
    grid = [row for row in everything if "grid-0.4-0.1" in row["file"] and row["method"] == "distribution"]
    assert float(grid[0]["kl"]) == mean_kl(runs, "grid-0.4-0.1")[0] and grid[0]["alpha"] == "0.4"
    text = (tmp_path / "out" / "report.md").read_text()
    assert "## Table 1" in text and "figures/figure3.png" in text
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Plotly" in page and 'http-equiv="Content-Security-Policy"' in page
    # All tables of the page are those of the files.
    for table in all_tables(load_test_sets([runs]), compare(load_test_sets([runs]))):
        assert (tmp_path / "out" / "tables" / f"{table.name}.md").read_text().startswith(f"## {table.title}")


def test_an_own_task_comes_first_and_empty_tables_of_the_paper_last_or_not_at_all(runs, tmp_path):
    def names(*folders):
        test_sets = load_test_sets(list(folders))
        return [table.name for table in all_tables(test_sets, compare(test_sets))]

    log_q = make_judge(RECORDS, 1.0)
    make_run(tmp_path / "mine", RECORDS, log_q, task="replies")
    assert names(tmp_path) == ["other_tasks", "table3", "halves", "metrics_replies"]
    make_run(tmp_path / "theirs", RECORDS, log_q, task="mtbench")
    both = names(tmp_path)
    assert both[:3] == ["other_tasks", "table1", "table3"]
    assert both[-4:] == ["table2", "table4", "table5", "table6"]
    assert next(build_report([tmp_path / "mine"], tmp_path / "out")) == "1 run on 1 test set: replies."


def test_plots_without_a_grid_leave_figure_3_out(tmp_path):
    make_run(tmp_path / "a", RECORDS, make_judge(RECORDS, 1.0))
    assert [plot.name for plot in all_plots(load_test_sets([tmp_path]))] == ["kl", "reliability", "entropy"]


def damage_json(folder):
    (folder / "results.json").write_text("{")


def damage_parquet(folder):
    (folder / "predictions.parquet").write_bytes(b"")


def other_items(folder):
    few = RECORDS.select(range(10))
    make_run(folder / "other", few, make_judge(few, 1.0))
    (folder / "other" / "predictions.parquet").rename(folder / "predictions.parquet")
    (folder / "other" / "results.json").unlink()


def changed_order(folder):
    """As many items, other ones."""
    other = make_items(name="else", seed=8)
    make_run(folder / "other", other, make_judge(other, 1.0))
    (folder / "other" / "predictions.parquet").rename(folder / "predictions.parquet")
    (folder / "other" / "results.json").unlink()


def without_kl(folder):
    content = json.loads((folder / "results.json").read_text())
    del content["variants"][0]["metrics"]["kl"]
    (folder / "results.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (damage_json, "results.json: is damaged"),
        (damage_parquet, "predictions.parquet: is damaged"),
        (other_items, "predictions.parquet: is not the one that results.json was computed from"),
        (changed_order, "predictions.parquet: is not the one that results.json was computed from"),
        (without_kl, "results.json: is damaged .`variants.0.metrics.kl` is missing"),
    ],
)
def test_damaged_runs_are_named(tmp_path, damage, match):
    make_run(tmp_path / "runs" / "good", RECORDS, make_judge(RECORDS, 1.0), method="single-point")
    make_run(tmp_path / "runs" / "bad", RECORDS, make_judge(RECORDS, 1.0))
    damage(tmp_path / "runs" / "bad")
    with pytest.raises(UserInputError, match=match):
        list(build_report([tmp_path / "runs"], tmp_path / "out"))
    assert not (tmp_path / "out" / "index.html").exists()


def test_paths_without_results_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, match in (("empty", "holds no results.json"), ("none", "neither a folder nor a result file")):
        with pytest.raises(UserInputError, match=match):
            load_test_sets([tmp_path / path])


def test_an_output_folder_that_cannot_be_written(tmp_path):
    make_run(tmp_path / "run", RECORDS, make_judge(RECORDS, 1.0))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserInputError, match="Choose another --out"):
        list(build_report([tmp_path / "run"], tmp_path / "file" / "out"))


HOSTILE = ("=cmd|' /C calc'!A0", "-1+cmd|' /C calc'!A0", " =1+1", "@SUM(1)")


@pytest.mark.parametrize("method", HOSTILE)
def test_markdown_and_csv_take_hostile_names(tmp_path, method):
    task = "<img src=x onerror=alert(1)>"
    picture = "a|b<script>![x](http:evil)"
    make_run(tmp_path / "run", RECORDS, make_judge(RECORDS, 1.0), method=method, model=picture, task=task)
    list(build_report([tmp_path / "run"], tmp_path / "out", title="# [a](javascript:x)"))
    text = (tmp_path / "out" / "report.md").read_text()
    assert "<" not in text.replace("&lt;", "") and "](javascript" not in text and "](http" not in text
    assert "a\\|b&lt;script>![x]\\(http:evil)" in text
    for path in (tmp_path / "out").rglob("*.csv"):
        with path.open() as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [c for c in cells if c.strip()[:1] in ("=", "@") or ("cmd" in c and c[:1] != "'")]


def test_signed_figures_stay_figures(tmp_path):
    for method, sharpness in (("single-point", 1.0), ("distribution", 2.0)):
        make_run(tmp_path / "runs" / method, RECORDS, make_judge(RECORDS, sharpness), method=method)
    list(build_report([tmp_path / "runs"], tmp_path / "out"))
    with (tmp_path / "out" / "tables" / "comparisons.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["KL"]) < 0 and row["KL"].startswith("-")
