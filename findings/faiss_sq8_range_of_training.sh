#!/usr/bin/env bash
# faiss-cpu 1.15.1: `IndexScalarQuantizer` with `QT_8bit` takes each dimension's range from the vectors it is trained on, and
# what is added later is cut to that range without a word. A vector with a dimension beyond it (an encoder's outlier
# dimension, another scanner) no longer finds itself; `QT_fp16` of the same vectors does.
#
# Exits 0 while this is so, 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import faiss
import numpy as np

print("faiss", faiss.__version__, "numpy", np.__version__)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


generator = np.random.default_rng(0)
of_training = unit(generator.normal(size=(2000, 64)))
# Of another scanner: the same kind of vectors, but for one dimension.
shifted = generator.normal(size=(500, 64))
shifted[:, 5] += 20
later = unit(shifted)

seen = {}
for name in ("QT_8bit", "QT_fp16"):
    index = faiss.IndexScalarQuantizer(64, getattr(faiss.ScalarQuantizer, name), faiss.METRIC_INNER_PRODUCT)
    index.train(of_training)
    index.add(of_training)
    index.add(later)
    kept = index.reconstruct_n(len(of_training), len(later))
    cosine, found = index.search(later, 1)
    own = float(np.mean(found[:, 0] == np.arange(len(later)) + len(of_training)))
    seen[name] = own
    print(
        f"{name}: largest value of dimension 5 trained {of_training[:, 5].max():.2f}, added {later[:, 5].max():.2f}, "
        f"kept {kept[:, 5].max():.2f}; own cosine {np.mean(np.sum(kept * later, axis=1)):.2f} (true 1.00), "
        f"finds itself {own:.2f}"
    )
sys.exit(0 if seen["QT_fp16"] == 1 and seen["QT_8bit"] < 1 else 1)
PY
