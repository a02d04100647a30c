"""Image collections into a store of embeddings, and the views and indices read from it.

The names below are the public ones; modules underneath may move in any release.

>>> import embedstore as es
>>> sorted(es.dataset_names())[:2]
['dicom-folder', 'mura']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedstore.lazy_names import lazy_names

if TYPE_CHECKING:
    from embedstore.datasets.base import Collection, DatasetReader, dataset_names, read_dataset
    from embedstore.encoders.base import Encoder, EncoderDefaults
    from embedstore.encoders.registry import encoder_names, image_encoder
    from embedstore.errors import (
        CorruptStore,
        DataError,
        EmbedError,
        IdentityMismatch,
        ImageRefused,
        MissingDependency,
        MissingWeights,
        PluginError,
        StoreBusy,
        StoreError,
        UsageError,
    )
    from embedstore.exchange.export import ExportOptions, ExportSummary, export_store
    from embedstore.exchange.import_store import ImportOptions, ImportSummary, import_vectors
    from embedstore.extraction.extract import Choose, ExtractOptions, ExtractSummary, Observer, extract
    from embedstore.identity import Identity
    from embedstore.images.preprocess import PreprocessSpec
    from embedstore.manifest import Manifest, Record, manifest_from_columns, manifest_from_table
    from embedstore.phantoms.lumbar import write_phantom_lumbar
    from embedstore.phantoms.mura import write_phantom_mura
    from embedstore.queries.load_view import load_units, load_view, load_views
    from embedstore.queries.search import Index, Neighbor, build_index
    from embedstore.queries.similar_images import search
    from embedstore.queries.store_grids import StoreGrids
    from embedstore.store.reader import Store, open_store
    from embedstore.store.repair import repair_store
    from embedstore.store.stored_array import StoredArray
    from embedstore.store.tasks import read_task, task_names, write_task
    from embedstore.store.upgrade import upgrade_store
    from embedstore.store.verify import Verification, verify_store
    from embedstore.task import Task
    from embedstore.view import MISSING, ArrayRows, Embeddings, Units, View

    __version__: str

__all__ = [
    "MISSING",
    "ArrayRows",
    "Choose",
    "Collection",
    "CorruptStore",
    "DataError",
    "DatasetReader",
    "EmbedError",
    "Embeddings",
    "Encoder",
    "EncoderDefaults",
    "ExportOptions",
    "ExportSummary",
    "ExtractOptions",
    "ExtractSummary",
    "Identity",
    "IdentityMismatch",
    "ImageRefused",
    "ImportOptions",
    "ImportSummary",
    "Index",
    "Manifest",
    "MissingDependency",
    "MissingWeights",
    "Neighbor",
    "Observer",
    "PluginError",
    "PreprocessSpec",
    "Record",
    "Store",
    "StoreBusy",
    "StoreError",
    "StoreGrids",
    "StoredArray",
    "Task",
    "Units",
    "UsageError",
    "Verification",
    "View",
    "__version__",
    "build_index",
    "dataset_names",
    "encoder_names",
    "export_store",
    "extract",
    "image_encoder",
    "import_vectors",
    "load_units",
    "load_view",
    "load_views",
    "manifest_from_columns",
    "manifest_from_table",
    "open_store",
    "read_dataset",
    "read_task",
    "repair_store",
    "search",
    "task_names",
    "upgrade_store",
    "verify_store",
    "write_phantom_lumbar",
    "write_phantom_mura",
    "write_task",
]

_NAMES_OF_MODULE = {
    "embedstore.datasets.base": ["Collection", "DatasetReader", "dataset_names", "read_dataset"],
    "embedstore.encoders.base": ["Encoder", "EncoderDefaults"],
    "embedstore.encoders.registry": ["encoder_names", "image_encoder"],
    "embedstore.errors": [
        "CorruptStore",
        "DataError",
        "EmbedError",
        "IdentityMismatch",
        "ImageRefused",
        "MissingDependency",
        "MissingWeights",
        "PluginError",
        "StoreBusy",
        "StoreError",
        "UsageError",
    ],
    "embedstore.exchange.export": ["ExportOptions", "ExportSummary", "export_store"],
    "embedstore.exchange.import_store": ["ImportOptions", "ImportSummary", "import_vectors"],
    "embedstore.extraction.extract": ["Choose", "ExtractOptions", "ExtractSummary", "Observer", "extract"],
    "embedstore.identity": ["Identity"],
    "embedstore.images.preprocess": ["PreprocessSpec"],
    "embedstore.manifest": ["Manifest", "Record", "manifest_from_columns", "manifest_from_table"],
    "embedstore.phantoms.lumbar": ["write_phantom_lumbar"],
    "embedstore.phantoms.mura": ["write_phantom_mura"],
    "embedstore.queries.load_view": ["load_units", "load_view", "load_views"],
    "embedstore.queries.search": ["Index", "Neighbor", "build_index"],
    "embedstore.queries.similar_images": ["search"],
    "embedstore.queries.store_grids": ["StoreGrids"],
    "embedstore.store.reader": ["Store", "open_store"],
    "embedstore.store.stored_array": ["StoredArray"],
    "embedstore.store.repair": ["repair_store"],
    "embedstore.store.tasks": ["read_task", "task_names", "write_task"],
    "embedstore.store.upgrade": ["upgrade_store"],
    "embedstore.store.verify": ["Verification", "verify_store"],
    "embedstore.task": ["Task"],
    "embedstore.view": ["MISSING", "ArrayRows", "Embeddings", "Units", "View"],
}

# Not for type checkers, to whom an unknown name would be anything.
if not TYPE_CHECKING:
    _get, __dir__ = lazy_names(__name__, _NAMES_OF_MODULE)

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            return version("embedstore")
        return _get(name)
