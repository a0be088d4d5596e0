"""The table of the data sets: items, steps and annotators, read from the results."""

from small_study import make_study

from distjudge_trl.study.tables import all_tables


CONTENT = {
    "data": {"nli": {"task": "snli", "title": "NLI"}, "untrained": {"task": "snli"}},
    "runs": {
        "main": {"data": ["nli"], "methods": ["raw", "kl-only"]},
        "short": {"data": ["nli"], "methods": ["kl-only"], "vary": {"max_train_samples": [30]}},
        "raw": {"data": ["untrained"], "methods": ["raw"]},
    },
}


def sizes(folder, **settings):
    def changes_of(run):
        return {"settings": {"train_batch_size": 16, "num_train_epochs": 1.5, **settings, **sizes_of[bool(run.vary)]}}

    sizes_of = {False: {"num_train_items": 100}, True: {"num_train_items": 30}}
    plan, results = make_study(folder, CONTENT, changes_of)
    table = all_tables(plan, results, ["sizes"])["sizes"]
    return [dict(zip(table.header, row, strict=True)) for row in table.rows], results


def test_a_data_set_has_the_sizes_of_its_longest_training(tmp_path):
    (row,), results = sizes(tmp_path)  # an untrained data set has no row
    metrics = results[0].results["metrics"]
    assert (row["data"], row["labels"], row["training items"]) == ("NLI", "3", "100")
    assert row["steps"] == "11 of 16"  # an epoch and a half of seven batches
    assert row["test items (groups)"] == f"{metrics['num_items']} ({metrics['num_groups']})"
    assert row["noise floor"] == f"{metrics['noise_floor']:.3f}"
    assert row["people predict people"] == f"{metrics['human_ceiling']['kl']:.3f}"
    scaling = next(r for r in results if "temperature" in r.rows).rows["temperature"].content["scaling"]
    assert row["held out"] == str(scaling["num_items"])
    assert 0 < float(row["entropy corr. of the truth"]) < 1
    votes = {row["num_annotators"] for row in results[0].run.items}
    assert row["annotators a test item"] == " to ".join(str(n) for n in sorted({min(votes), max(votes)}))


def test_a_number_of_steps_comes_before_epochs(tmp_path):
    (row,), _ = sizes(tmp_path, max_steps=7)
    assert row["steps"] == "7 of 16"
