"""Result folders as runs leave them, from judges that are made up: the numbers are scored by the real code."""

from __future__ import annotations

import numpy as np
import optuna

from distjudge_trl.data import build_dataset, fingerprint, make_record
from distjudge_trl.evaluation import TestItems, human_side, write_results
from distjudge_trl.labels import LabelSpace
from distjudge_trl.sweep.definition import Definition
from distjudge_trl.sweep.space import Parameter, grid
from distjudge_trl.sweep.store import Store
from distjudge_trl.sweep.table import write_trials


LABELS = ("entailment", "neutral", "contradiction")


def make_items(count=60, labels=LABELS, *, name="item", text="a text", group="group", seed=0):
    """Judgment records with five annotators each."""
    rng = np.random.default_rng(seed)
    space = LabelSpace(list(labels))
    records = [
        make_record(
            id=f"{name}-{i}",
            group=f"{group}-{i // 2}",
            prompt=[{"role": "user", "content": f"{text} {i}"}],
            counts=rng.multinomial(5, rng.dirichlet(np.ones(len(labels)))).tolist(),
            label_space=space,
        )
        for i in range(count)
    ]
    return build_dataset(records, space)


def make_judge(records, sharpness, seed=0):
    """Label log-probabilities near the annotators' own; the larger `sharpness`, the nearer."""
    p, _ = human_side(records)
    rng = np.random.default_rng(seed)
    logits = sharpness * p + 0.3 * rng.standard_normal(p.shape)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def make_run(folder, records, log_q, *, task="snli", method="distribution", seed=0, calibrate=False, **changes):
    """Write a run; `settings` among the changes are laid over a trained run's. `calibrate` fits the scalings on other
    items, of a judge of the same kind.
    """
    settings = {
        "alpha": 0.8,
        "adversary": "pgd",
        "perturbation_radius": 0.25,
        "perturbation_step_size": 0.05,
        "perturbation_steps": 5,
        "radius_scaling": "constant",
        "label_smoothing": 0.0,
        "target_smoothing": 0.0,
        "ordinal_loss_weight": 0.0,
        "learning_rate": 5e-5,
        "adapter": None,
        "seed": seed,
        "num_train_epochs": 1.0,
        "max_annotators": None,
        "num_train_items": 100,
        "num_train_votes": 500,
    }
    if method in ("single-point", "no-adversary"):
        settings["adversary"] = "none"
    settings |= changes.pop("settings", {})
    items = TestItems.of(records, ordinal=False)
    p, _ = human_side(records)
    variants = items.score_constants(p)
    if calibrate:
        held_out = make_items(40, name="held-out", seed=99)
        held_out_p, _ = human_side(held_out)
        variants += items.score_calibrated(method, log_q, held_out_p, make_judge(held_out, 1.0, seed or 0))
    results = {
        "task": task,
        "trained_on": None if method == "raw" else task,
        "method": method,
        "model": "org/small-model",
        "labels": list(LABELS),
        "ordinal": False,
        "seed": None if method == "raw" else seed,
        "settings": {} if method == "raw" else settings,
        "extraction": {"kind": "full", "floor": None},
        **items.score(log_q, mass=0.9),
        "variants": variants,
        "test_fingerprint": fingerprint(records),
        "provenance": {"git_revision": "abc"},
        **changes,
    }
    write_results(folder, results, records, log_q)
    return results


ALPHAS, RADII = (0.0, 0.4, 0.8), (0.0, 0.25)
SWEEP = Definition(
    recipe="snli",
    task="snli",
    parameters=(Parameter("alpha", ALPHAS), Parameter("perturbation_radius", RADII)),
    options={},
    sampler="grid",
    sampler_seed=0,
    pruner="none",
    metric="kl",
    seeds=(0,),
    train_fingerprint="a",
    scored_fingerprint="b",
    defaults="d",
    precision="float32",
    processes=1,
    sharding="NO",
    heartbeat=60,
)


def make_sweep(out):
    """A study as a sweep leaves it: alpha matters much, the radius little; result files of trials and of the best."""
    validation, test = make_items(40, name="validation"), make_items(60)
    store = Store(None, out, out.name)
    store.make(SWEEP, grid(SWEEP.parameters))
    for place in range(6):
        with store.claim(lambda number: optuna.samplers.RandomSampler()) as trial:
            alpha = trial.suggest_categorical("alpha", list(ALPHAS))
            radius = trial.suggest_categorical("perturbation_radius", list(RADII))
            settings = {"alpha": alpha, "perturbation_radius": radius}
            judge = make_judge(validation, 1.0 + 3 * alpha + 0.2 * radius, seed=1)
            folder = out / "trials" / str(place) / "seed-0"
            results = make_run(folder, validation, judge, settings=settings, scored_on="validation")
            store.study.tell(trial, results["metrics"]["kl"]["value"])
    make_run(out / "best" / "seed-0", test, make_judge(test, 3.0), settings={"alpha": 0.8})
    write_trials(store)
