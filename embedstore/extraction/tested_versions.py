"""The versions that the project is tested with: those of constraints.txt, which does not travel with the package."""

from __future__ import annotations

TESTED_PYTHON = ((3, 11), (3, 12), (3, 13))
TESTED_VERSIONS = {
    "click": "8.5.1",
    "faiss-cpu": "1.15.1",
    "google-crc32c": "1.9.0",
    "h5py": "3.16.0",
    "imagecodecs": "2026.3.6",
    "jinja2": "3.1.6",
    "markupsafe": "3.0.4",
    "matplotlib": "3.11.2",
    "numpy": "2.4.6",
    "pillow": "13.0.0",
    "pyarrow": "26.0.1",
    "pydicom": "3.0.2",
    "ray": "2.60.0",
    "rich": "15.0.0",
    "safetensors": "0.8.0",
    "scikit-learn": "1.9.1",
    "scipy": "1.17.1",
    "sentencepiece": "0.2.3",
    "simplejpeg": "1.9.0",
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "xgboost": "3.2.0",
    "zarr": "3.1.6",
}
# Those of extras; their absence is no fault.
OPTIONAL_VERSIONS = ("ray", "sentencepiece")
