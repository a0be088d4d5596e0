"""Linear judges on features that stay as they are: how close they come to people, and what each loss makes of them.

    python scripts/benchmarks/linear_judges.py hs_brexit --data-path lewidi2023
    python scripts/benchmarks/linear_judges.py snli --data-path snli_1.0_test.jsonl --features model --cache states
    python scripts/benchmarks/linear_judges.py dices.yaml --data-path dices_990.jsonl --max-annotators 1 3 10 1,3,10
    python scripts/benchmarks/linear_judges.py convabuse --data-path lewidi2023 --alpha 0 0.4 0.8 --radius 0 0.25

A judge is a softmax over linear functions of features of the prompt: TF-IDF of its words, their pairs, and letters
(`words`); the hidden states of a language model that is not trained (`model`); or `both`. It is trained with the
trainer's own losses, in seconds; the hidden states take one forward pass a prompt. A seed draws the training items,
their annotators, and a fifth of the items to validate on: there training stops where KL is lowest, and there the
temperature is fitted. Test items and their votes are those of `distjudge-trl train` with the same options.
docs/linear-judges.md says what came out.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
from functools import partial
from pathlib import Path


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)
from tqdm import tqdm
from training_votes import add_task, read_parts

from distjudge_trl import get_task
from distjudge_trl.errors import UserInputError, run_script
from distjudge_trl.evaluation.noise_floor import noise_floor
from distjudge_trl.files.atomic import check_folder
from distjudge_trl.study.groups import REFERENCE
from distjudge_trl.study.hidden_states import FrozenModel
from distjudge_trl.study.linear_answers import write_answers
from distjudge_trl.study.linear_features import read_items
from distjudge_trl.study.linear_judges import CHOICES, Point, compare, measure, summary
from distjudge_trl.study.linear_study import FEATURES, LinearStudy
from distjudge_trl.study.linear_tables import points_table


OUT = (
    "write every judge's figures here (.json), and beside it what judges of no-adversary answer for the test items"
    " after temperature scaling (.parquet), if they have both kinds of features and one value of every option"
)
METHODS = ("single-point", "label-smoothing", "kl-only", "no-adversary", "dirichlet", "distribution", "coverage")


def read_annotators(text: str) -> int | str:
    """A number of annotators, or several of which each item draws one, as [`Point`] takes them.

    Raises:
        [`UserInputError`]: neither.
    """
    try:
        numbers = sorted({int(number) for number in text.split(",")})
    except ValueError:
        numbers = []
    lowest = 1 if len(numbers) > 1 else 0
    if not numbers or numbers[0] < lowest:
        raise UserInputError(
            f"--max-annotators {text}: give a number (0: all), or several of at least 1, as in 1,3,10."
        )
    return numbers[0] if len(numbers) == 1 else ",".join(map(str, numbers))


def called() -> str:
    """The command by which this script was called, without folders of this machine."""
    words = [word if not word.startswith("/") else Path(word).name for word in sys.argv[1:]]
    return shlex.join(["python", "scripts/benchmarks/linear_judges.py", *words])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_task(parser)
    parser.add_argument("--features", choices=FEATURES, default="words", help="default: words")
    parser.add_argument("--model", help="whose hidden states; default: smollm2-135m")
    parser.add_argument(
        "--layers", type=int, metavar="N", help="after so many of its layers; default: two thirds of them"
    )
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep the hidden states here, for the next time")
    parser.add_argument(
        "--max-train-samples", type=int, metavar="N", help="so many training items for all seeds; default: all"
    )
    parser.add_argument(
        "--items", type=int, nargs="+", metavar="N", help="so many of them for each seed; default: all"
    )
    parser.add_argument(
        *("--max-annotators", "--max_annotators"),  # `train` knows both
        nargs="+",
        default=["0"],
        metavar="M",
        help="draw this many of the annotators of every item that is trained on or held out; 1 3 10: three trainings;"
        " 1,3,10: one training, in which each item draws one of these numbers; default: 0, all",
    )
    parser.add_argument("--max-eval-samples", type=int, metavar="N", help="as `distjudge-trl train`; default: all")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--methods", nargs="+", choices=CHOICES, default=METHODS, help=f"default: {' '.join(METHODS)}")
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.8], help="default: 0.8")
    parser.add_argument("--radius", type=float, nargs="+", default=[0.25], help="epsilon; default: 0.25")
    parser.add_argument("--title", help="of the data, for tables; default: the task")
    parser.add_argument("--out", type=Path, metavar="FILE", help=OUT)
    args, rest = parser.parse_known_args()
    if min(args.seeds, *(args.items or [1])) < 1:
        raise UserInputError("--seeds and --items: at least 1.")
    annotators = [read_annotators(text) for text in args.max_annotators]
    if args.features == "words" and (args.model or args.cache or args.layers is not None):
        raise UserInputError("--model, --layers and --cache: are for --features model or both.")
    if args.split == "all":
        raise UserInputError("--split all: judges would be tested on what they are trained on. Choose another split.")
    frozen = None if args.features == "words" else FrozenModel(args.model or "smollm2-135m", args.layers)
    if args.cache is not None:
        check_folder(args.cache, "--cache")
    if args.out is not None:
        if args.out.suffix != ".json" or args.out.is_dir():
            raise UserInputError(f"--out {args.out}: give the name of a file that ends in .json.")
        check_folder(args.out.parent, "--out", shown=args.out)
    train, test, plan = read_parts(args, rest)
    sampled = plan.sample(train, args.max_train_samples), plan.sample(test, args.max_eval_samples)
    read_states = None
    if frozen is not None:
        read_states = frozen.read if args.cache is None else partial(frozen.read_cached, folder=args.cache)
    pool, tested = read_items(*sampled, words=args.features != "model", read_states=read_states)
    if max(args.items or [0]) > len(pool.counts):
        raise UserInputError(f"--items {max(args.items)}: there are {len(pool.counts)} training items.")
    items = args.items or [len(pool.counts)]
    # Once each, whatever was given twice.
    values = (dict.fromkeys(each) for each in (items, annotators, args.alpha, args.radius))
    points = list(itertools.starmap(Point, itertools.product(*values)))
    methods = list(dict.fromkeys(args.methods))
    found = measure(pool, tested, methods, points, range(args.seeds))
    judges = list(tqdm(found, total=len(points) * args.seeds * len(methods), unit="judge"))
    floor = noise_floor(tested.counts)
    about = summary(pool, tested, floor.value if floor is not None else 0.0, get_task(args.task).part_of)
    study = LinearStudy(
        title=args.title or args.task,
        features=args.features,
        model=None if frozen is None else f"{frozen.layers} layers of {frozen.name}",
        about=about,
        outcomes=[judge.outcome for judge in judges],
        comparisons=compare(judges, tested.groups.tolist()),
        command=called(),
    )
    print(points_table(study).markdown())
    if args.out is not None:
        answers = args.out.with_suffix(".parquet")
        answers.unlink(missing_ok=True)  # those of other judges
        # The answers first: whoever finds figures finds their answers.
        if args.features == "both" and len(points) == 1 and REFERENCE in methods:
            write_answers(answers, tested.ids.tolist(), judges)
        study.save(args.out)


if __name__ == "__main__":
    run_script(main)
