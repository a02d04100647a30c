#!/usr/bin/env bash
# faiss-cpu 1.15.1: `IndexScalarQuantizer` with `QT_8bit` takes each dimension's range from the vectors it is trained on, and
# what is added later is cut to that range without a word. Of vectors with one dimension beyond it (an encoder's outlier
# dimension, another scanner) the cosine to their own copy is 0.50 in place of 1.00, so that a search for copies by a
# threshold finds none; with `QT_fp16` it is 1.00.
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
    cosines, _ = index.search(later, 1)
    seen[name] = float(cosines[:, 0].mean())
    print(
        f"{name}: largest value of dimension 5 trained {of_training[:, 5].max():.2f}, added {later[:, 5].max():.2f}, "
        f"kept {kept[:, 5].max():.2f}; largest cosine found for added vectors, mean {seen[name]:.2f} (true 1.00)"
    )
sys.exit(0 if seen["QT_fp16"] > 0.99 and seen["QT_8bit"] < 0.6 else 1)
PY
