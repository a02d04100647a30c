"""Exact search: milliseconds per query and recall against a brute-force scan.

python benchmarks/search.py            190,000 clustered vectors; needs 3 GB of memory
"""

from __future__ import annotations

import statistics
import time
from argparse import ArgumentParser

import numpy as np
import pyarrow as pa
from table import parse, show

from embedstore.queries.search import Index, normalized, scan_of

DIM = 1152
K = 10


def main() -> None:
    """Run and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=190_000)
    parser.add_argument("--queries", type=int, default=50)
    arguments = parse(parser)
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((500, DIM), dtype=np.float32)
    unit = normalized(
        centres[generator.integers(0, 500, arguments.rows)]
        + generator.standard_normal((arguments.rows, DIM), dtype=np.float32)
    )
    ids = np.array([f"image{row}" for row in range(arguments.rows)], dtype=object)
    patients = [f"patient{row // 4}" for row in range(arguments.rows)]
    index = Index(pa.table({"patient_id": patients}), ids, np.arange(arguments.rows), unit, scan_of(unit))
    rows = []
    for what, patient in (("all images", None), ("without one patient", "patient7")):
        # All queries first: threads of the brute-force product would still spin during the next query.
        taken, answers = [], []
        for query in unit[: arguments.queries]:
            started = time.perf_counter()
            answers.append(index.search(query, k=K, exclude_patient=patient))
            taken.append(time.perf_counter() - started)
        hits = 0
        for query, found in zip(unit, answers, strict=False):
            similarity = unit @ query
            if patient:
                similarity[28:32] = -2
            hits += len({entry.row for entry in found} & set(np.argpartition(-similarity, K)[:K].tolist()))
        median_ms = 1000 * statistics.median(taken)
        recall = hits / (K * arguments.queries)
        rows.append(
            {
                "search": what,
                "ms per query (median)": median_ms,
                "recall": recall,
                "promise": "<= 15 ms, 1.000",
            }
        )
    show(f"exact search of {arguments.rows:,} x {DIM}", rows, json_path=arguments.json)


if __name__ == "__main__":
    main()
