# python experiments/scale/score_ray.py RUN ROWS OUT --workers 8
# A student scores Parquet on as many machines as a Ray cluster has; gnnkd.data.parquet.score does the same on one.
# RUN: the folder of a trained student (model.safetensors), which all machines must see. ROWS: a Parquet file or a
# folder of them, local or in a bucket, with `features` (a list of numbers in each row) and `id`. OUT: a folder; Ray
# writes its files of `id`, `class` and `probabilities` there.
# Needs: pip install 'gnnkd[parquet]' 'ray[data]' on each machine.
# Expected: the classes that the student's predict() gives. Seeds: none. Runtime: not measured.
"""Score rows in Parquet with Ray Data: each worker loads the student once, and answers about batch after batch."""

from __future__ import annotations

import argparse
from typing import Any

import ray

import gnnkd
from gnnkd.data import parquet


class Student:
    """A worker: it has the student in memory, and is called with Arrow tables."""

    def __init__(self, run: str) -> None:
        self.predictor = gnnkd.load(run)
        parquet.check_rowwise(self.predictor)

    def __call__(self, table: Any) -> Any:
        return parquet.answers(self.predictor, table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("rows")
    parser.add_argument("out")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch_rows", type=int, default=65536)
    args = parser.parse_args()
    parquet.check_rowwise(gnnkd.load(args.run))  # a mistake is said before a cluster is asked for
    rows = ray.data.read_parquet(args.rows, columns=[parquet.ID, parquet.FEATURES])
    scored = rows.map_batches(
        Student,
        fn_constructor_args=(args.run,),
        batch_format="pyarrow",
        batch_size=args.batch_rows,
        compute=ray.data.ActorPoolStrategy(size=args.workers),
    )
    scored.write_parquet(args.out)


if __name__ == "__main__":
    main()
