"""How a tower is run: attention kernel, compilation, CUDA graph; the first two candidates are measured.

A choice by stop-watch must not make two workers with the same device differ, because other kernels round
differently. So a candidate must win by a clear margin against those that stand before it in a fixed order,
and the choice is written to the log.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from embedstore.encoders.passes import Forward
from embedstore.encoders.vision_tower import CHANNELS, VisionShape
from embedstore.errors import UsageError

EXECUTIONS = ("auto", "eager", "compile", "graph")
# In order of preference among equals. `math` holds the whole attention matrix: only where all else fails.
BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
MARGIN = 0.9  # a later candidate must take less than this share of the time
_WARM_UP = 2
_REPEATS = 5

_log = logging.getLogger(__name__)


def check_execution(execution: str, device: torch.device) -> str:
    """Return how to run on a device: ``auto`` is ``eager`` on a CPU, and is measured on CUDA.

    Raises
    ------
    UsageError
        For another name, or a CUDA graph on a CPU.
    """
    if execution not in EXECUTIONS:
        raise UsageError(f"execution must be one of {', '.join(EXECUTIONS)}; found {execution!r}")
    if execution == "graph" and device.type != "cuda":
        raise UsageError(f"execution 'graph' needs a CUDA device; found {device}")
    return "eager" if execution == "auto" and device.type == "cpu" else execution


def prepare_forward(
    tower: nn.Module,
    shape: VisionShape,
    *,
    rows: int,
    dtype: torch.dtype,
    device: torch.device,
    execution: str,
    attention: str = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> Forward:
    """Return the function that runs a pass, after the measurements that a CUDA device calls for.

    Parameters
    ----------
    tower
        (rows, 3, size, size) -> (rows, dim) float32; on the device, in `dtype`.
    shape
        Its shape.
    rows
        Pictures in every pass.
    dtype, device, execution
        Arithmetic, place, and a name that `check_execution` returned.
    attention
        Name of an attention kernel of `BACKENDS`; ``auto`` measures them on CUDA and leaves it to torch on a CPU.
    say
        Receives a line for people if a CUDA graph does not fit.
    """
    if attention == "auto":
        attention = _quickest_backend(shape, rows, dtype, device) if device.type == "cuda" else ""
    run: Forward = torch.compile(tower, dynamic=False) if execution == "compile" else tower

    def forward(pictures: torch.Tensor) -> torch.Tensor:
        with _kernel(attention), exact_float32(dtype):
            vectors: torch.Tensor = run(pictures)
            return vectors

    if execution not in ("graph", "auto"):
        return forward
    size = shape.image_size
    example = torch.zeros((rows, CHANNELS, size, size), dtype=dtype, device=device)
    try:
        graphed = _graphed(forward, example)
    except torch.OutOfMemoryError:
        # A graph keeps its memory. Without one the passes can be halved until they fit.
        say(f"{device} has not the memory for a CUDA graph of {rows} pictures; going on without")
        return forward
    if execution == "graph":
        return graphed
    candidates = {"eager": lambda: forward(example), "graph": lambda: graphed(example)}
    chosen = quickest(candidates, lambda run_once: _milliseconds(run_once, device))
    _log.info("passes on %s run as %s", device, chosen)
    return {"eager": forward, "graph": graphed}[chosen]


def quickest(
    candidates: Mapping[str, Callable[[], object]], measure: Callable[[Callable[[], object]], float]
) -> str:
    """Return the first candidate that no later one beats by the margin.

    Parameters
    ----------
    candidates
        Name -> what to run, in order of preference. One that raises ``RuntimeError`` is left out.
    measure
        Runs a candidate and returns its time.

    Raises
    ------
    RuntimeError
        If no candidate ran.
    """
    best, best_time = "", float("inf")
    for name, candidate in candidates.items():
        try:
            time = measure(candidate)
        except RuntimeError as error:  # this kernel does not exist for this shape, arithmetic or device
            _log.debug("%s does not run here: %s", name, error)
            continue
        if time < MARGIN * best_time:
            best, best_time = name, time
    if not best:
        raise RuntimeError(f"none of {', '.join(candidates)} runs on this device")
    return best


def _quickest_backend(shape: VisionShape, rows: int, dtype: torch.dtype, device: torch.device) -> str:
    """Return the name of the attention kernel for this shape, by a trial of a few milliseconds."""
    size = (rows, shape.num_attention_heads, shape.tokens, shape.head_dim)
    query, key, content = (torch.randn(size, dtype=dtype, device=device) for _ in range(3))

    def attend(name: str) -> Callable[[], object]:
        def run() -> object:
            with _kernel(name), warnings.catch_warnings():
                # torch explains by warnings why a kernel does not apply, before it raises.
                warnings.simplefilter("ignore")
                return nn.functional.scaled_dot_product_attention(query, key, content)

        return run

    usual = {name: attend(name) for name in BACKENDS if name != "math"}
    with torch.inference_mode():
        try:
            chosen = quickest(usual, lambda run_once: _milliseconds(run_once, device))
        except RuntimeError:
            chosen = "math"
    _log.info("attention on %s runs as %s", device, chosen)
    return chosen


def _kernel(name: str) -> AbstractContextManager[None]:
    return sdpa_kernel(BACKENDS[name]) if name else nullcontext()


@contextmanager
def exact_float32(dtype: torch.dtype) -> Iterator[None]:
    """Keep float32 convolutions on CUDA from being rounded to TF32, which torch allows by default."""
    if dtype != torch.float32:
        yield
        return
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _graphed(forward: Forward, example: torch.Tensor) -> Forward:
    """Record one pass as a CUDA graph and return its replay."""
    static = example.clone()
    with torch.cuda.device(example.device):
        graph, recorded = _recorded(forward, static)

    def replay(pictures: torch.Tensor) -> torch.Tensor:
        if pictures.shape != static.shape:  # memory ran out since, and the passes are smaller now
            return forward(pictures)
        static.copy_(pictures)
        graph.replay()
        return recorded.clone()

    return replay


def _recorded(forward: Forward, static: torch.Tensor) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode(), torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            forward(static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        recorded = forward(static)
    return graph, recorded


def _milliseconds(run_once: Callable[[], object], device: torch.device) -> float:
    """Return the median time of a run, by the device's own clock."""
    times: list[float] = []
    for _ in range(_WARM_UP):
        run_once()
    for _ in range(_REPEATS):
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        stop = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        start.record(torch.cuda.current_stream(device))
        run_once()
        stop.record(torch.cuda.current_stream(device))
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    return sorted(times)[_REPEATS // 2]
