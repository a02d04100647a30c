"""Passes of one shape: no vector depends on its company, and memory that runs out is survived."""

import time

import numpy as np
import pytest
import torch

from embedstore import compute_device as devices
from embedstore.compute_device import DeviceLost, has_bfloat16, resolve_device, resolve_dtype
from embedstore.encoders.execution import check_execution, quickest
from embedstore.encoders.medgemma import MedGemmaEncoder
from embedstore.encoders.passes import FixedPasses, PassStream, default_pass_rows
from embedstore.encoders.siglip import SiglipEncoder
from embedstore.encoders.vision_tower import normalise, normalised_levels
from embedstore.errors import UsageError
from tests.checkpoints import cosines, pictures, write_gemma, write_siglip

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "wide-siglip"
    folder.mkdir()
    # Wide enough that matrix products of other shapes do take other paths.
    write_siglip(folder, hidden_size=256, intermediate_size=1000, num_attention_heads=4, image_size=112)
    return str(folder)


class Recorder:
    """A tower that returns (first level, mean) of each picture, notes its shapes, and can be told to fail."""

    def __init__(self, failure=None, largest=10**6):
        self.shapes = []
        self.failure = failure
        self.largest = largest

    def __call__(self, images):
        if len(images) > self.largest:
            raise self.failure
        self.shapes.append(tuple(images.shape))
        return torch.stack([images[:, 0, 0, 0], images.mean(dim=(1, 2, 3))], dim=1)


def passes_of(tower, rows, say=lambda line: None):
    return FixedPasses(tower, torch.from_numpy(normalised_levels()), dim=2, rows=rows, say=say)


def through(stream, batches):
    """Return the vectors of each batch, in the order in which they come out."""
    found = [encoded.vectors for batch in batches for encoded in stream.put(batch)]
    return found + [encoded.vectors for encoded in stream.drain()]


class SlowLane:
    """A device that works beside the host, with a clock of its own: it moves on by a second with every mark."""

    ahead = 1

    def __init__(self):
        self.calls = []
        self.clock = 0

    def copied(self, pixels):
        self.calls.append(f"copy {pixels[0, 0, 0].item()}")
        return pixels

    def fetched(self, vectors):
        self.calls.append("fetch")
        return vectors

    def mark(self):
        self.clock += 1
        return self.clock

    def wait(self, mark):
        self.calls.append("wait")

    def seconds(self, began, ended):
        return ended - began


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("count", [1, 4, 5])
def test_every_pass_has_the_same_shape_and_nothing_is_lost(rows, count):
    tower = Recorder()
    (vectors,) = through(PassStream(passes_of(tower, rows)), [pictures(count, size=6)])
    assert set(tower.shapes) == {(rows, 3, 6, 6)}
    assert len(tower.shapes) == -(-count // rows)
    np.testing.assert_array_equal(vectors[:, 0], normalised_levels()[pictures(count, size=6)[:, 0, 0]])


def test_batches_come_back_in_order_and_may_be_empty():
    batches = [pictures(3, size=6, seed=1), pictures(0, size=6), pictures(2, size=6, seed=2)]
    found = through(PassStream(passes_of(Recorder(), 2)), batches)
    assert [len(vectors) for vectors in found] == [3, 0, 2]
    np.testing.assert_array_equal(found[2][:, 0], normalised_levels()[batches[2][:, 0, 0]])


def test_on_a_cpu_a_batch_is_through_when_it_is_put():
    stream = PassStream(passes_of(Recorder(), 2))
    (encoded,) = stream.put(pictures(3, size=6))
    assert len(encoded.vectors) == 3
    assert encoded.busy_s > 0
    assert stream.drain() == []


def test_a_device_gets_the_next_batch_before_the_last_is_waited_for():
    lane = SlowLane()
    stream = PassStream(passes_of(Recorder(), 2), lane=lane)
    batches = [np.full((count, 6, 6), count, np.uint8) for count in (1, 3, 2)]
    assert stream.put(batches[0]) == []
    (first,) = stream.put(batches[1])
    # One pass of the first batch, two of the second, and only then the wait for the first.
    assert lane.calls == ["copy 1", "fetch", "copy 3", "fetch", "copy 3", "fetch", "wait"]
    (second,) = stream.put(batches[2])
    (third,) = stream.drain()
    assert [len(encoded.vectors) for encoded in (first, second, third)] == [1, 3, 2]
    levels = normalised_levels()
    found = [float(encoded.vectors[-1, 0]) for encoded in (first, second, third)]
    assert found == [levels[1], levels[3], levels[2]]
    # The device's clock stands at a second per mark: each pass lies between two, the last of a batch is no pass.
    assert [encoded.busy_s for encoded in (first, second, third)] == [1, 2, 1]


def test_grey_and_its_rgb_copy_are_the_same_bits_in_the_same_layout():
    levels = torch.from_numpy(normalised_levels())
    grey = torch.from_numpy(pictures(2, size=6))
    colour = grey[..., None].expand(-1, -1, -1, 3).contiguous()
    from_grey, from_colour = normalise(grey, levels), normalise(colour, levels)
    assert torch.equal(from_grey, from_colour)
    assert from_grey.stride() == from_colour.stride()


def test_colours_keep_their_places():
    levels = torch.from_numpy(normalised_levels())
    colour = torch.tensor([[[[255, 0, 51]]]], dtype=torch.uint8)
    np.testing.assert_allclose(normalise(colour, levels)[0, :, 0, 0], [1, -1, -0.6], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_neither_batch_nor_order_nor_company_change_a_bit(siglip, dtype):
    encoder = SiglipEncoder(siglip, device="cpu", dtype=dtype)
    images = pictures(7, size=112)
    together = encoder.encode(images)
    order = np.array([4, 0, 6, 2, 5, 1, 3])
    np.testing.assert_array_equal(encoder.encode(images[order]), together[order])
    for size in (1, 2, 3, 5):
        batches = [images[start : start + size] for start in range(0, 7, size)]
        np.testing.assert_array_equal(np.concatenate(through(encoder.open_stream(), batches)), together)
    company = np.concatenate([images[:1], np.zeros_like(images[:3]), images[:1]])
    np.testing.assert_array_equal(encoder.encode(company)[4], together[0])


@pytest.mark.parametrize("rows", [4, 8])
def test_larger_passes_of_one_shape_do_not_depend_on_company_either(siglip, rows):
    encoder = SiglipEncoder(siglip, device="cpu", dtype="float32", pass_rows=rows)
    images = pictures(6, size=112)
    together = encoder.encode(images)
    for row in range(6):
        np.testing.assert_array_equal(encoder.encode(images[row : row + 1])[0], together[row])
    one_by_one = SiglipEncoder(siglip, device="cpu", dtype="float32").encode(images)
    assert cosines(together, one_by_one).min() > 1 - 1e-6  # equal to rounding, not bit for bit


def test_the_number_of_threads_changes_nothing_beyond_rounding(siglip):
    encoder = SiglipEncoder(siglip, device="cpu", dtype="float32")
    images = pictures(2, size=112)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = encoder.encode(images)
        torch.set_num_threads(2)
        shared = encoder.encode(images)
    finally:
        torch.set_num_threads(before)
    assert cosines(alone, shared).min() > 1 - 1e-6


def test_medgemma_runs_in_the_same_passes(tmp_path):
    write_gemma(tmp_path / "g")
    encoder = MedGemmaEncoder(str(tmp_path / "g"), device="cpu")
    images = pictures(5)
    np.testing.assert_array_equal(encoder.encode(images[::-1])[::-1], encoder.encode(images))


@pytest.mark.parametrize(
    ("name", "tokens", "rows"),
    [
        ("cpu", 1024, 1),
        ("cpu", 9, 1),
        ("cuda", 1024, 32),
        ("cuda", 4096, 8),
        ("cuda", 9, 32),
        ("cuda", 10**6, 1),
    ],
)
def test_a_pass_holds_one_picture_on_a_cpu_and_32768_tokens_on_cuda(name, tokens, rows):
    assert default_pass_rows(torch.device(name), tokens) == rows


def test_memory_that_runs_out_halves_the_pass_says_so_and_goes_on():
    tower = Recorder(torch.OutOfMemoryError("CUDA out of memory"), largest=2)
    said = []
    passes = passes_of(tower, 8, say=said.append)
    (vectors,) = through(PassStream(passes), [pictures(5, size=6)])
    assert passes.rows == 2
    np.testing.assert_array_equal(vectors[:, 0], normalised_levels()[pictures(5, size=6)[:, 0, 0]])
    assert len(said) == 2
    assert "with 8 pictures in a pass; going on with 4" in said[0]
    assert "with 4 pictures in a pass; going on with 2" in said[1]


def test_memory_too_small_for_one_picture_is_an_error_with_advice():
    tower = Recorder(torch.OutOfMemoryError("CUDA out of memory"), largest=0)
    with pytest.raises(UsageError, match=r"not the memory for one picture.*`dtype='bfloat16'`"):
        PassStream(passes_of(tower, 4)).put(pictures(1, size=6))


def test_a_device_that_disappears_is_named_with_how_to_go_on():
    passes = passes_of(Recorder(RuntimeError("CUDA error: device lost\nstack"), largest=0), 1)
    passes.device = torch.device("cuda", 1)
    with pytest.raises(DeviceLost, match=r"device cuda:1 stopped answering .CUDA error: device lost.*again"):
        PassStream(passes, lane=SlowLane()).put(pictures(1, size=6))


def test_a_device_that_disappears_while_it_is_waited_for_is_named_too():
    class DeadLane(SlowLane):
        def wait(self, mark):
            raise RuntimeError("CUDA error: unspecified launch failure")

    stream = PassStream(passes_of(Recorder(), 1), lane=DeadLane())
    assert stream.put(pictures(1, size=6)) == []
    with pytest.raises(DeviceLost, match="unspecified launch failure"):
        stream.drain()


def test_another_error_of_the_tower_is_not_dressed_up():
    passes = passes_of(Recorder(RuntimeError("a mistake in the code"), largest=0), 1)
    with pytest.raises(RuntimeError, match="a mistake"):
        PassStream(passes).put(pictures(1, size=6))


# -- choices ---------------------------------------------------------------------------------------------


def test_a_later_candidate_must_win_by_a_tenth():
    seconds = {"first": 10.0, "near": 9.5, "clear": 8.9, "last": 8.5}
    candidates = {name: (lambda: None) for name in seconds}
    by_name = dict(zip(map(id, candidates.values()), seconds, strict=True))
    assert quickest(candidates, lambda run: seconds[by_name[id(run)]]) == "clear"


def test_a_candidate_that_does_not_run_here_is_left_out():
    def measure(run):
        run()
        return 1.0

    def absent():
        raise RuntimeError("No available kernel")

    assert quickest({"flash": absent, "efficient": lambda: None}, measure) == "efficient"
    with pytest.raises(RuntimeError, match="none of flash runs"):
        quickest({"flash": absent}, measure)


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bfloat16"),
        ({"avx512_bf16": False, "avx512_f": True}, "float32"),
        ({}, "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_cpu_has_the_instruction(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(devices.torch.cpu, "get_capabilities", lambda: capabilities)
    assert has_bfloat16(CPU) == (dtype == "bfloat16")
    assert resolve_dtype("auto", CPU) == dtype
    assert resolve_dtype("float32", CPU) == "float32"


def test_a_torch_that_does_not_tell_computes_in_float32(monkeypatch):
    monkeypatch.delattr(devices.torch.cpu, "get_capabilities")
    assert resolve_dtype("auto", CPU) == "float32"


def test_execution_is_eager_on_a_cpu():
    assert check_execution("auto", CPU) == "eager"
    assert check_execution("compile", CPU) == "compile"


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a CUDA device that is not there")
def test_a_cuda_device_that_is_not_there_is_named():
    assert resolve_device("auto") == CPU
    with pytest.raises(UsageError, match="'cuda:1' is not there"):
        resolve_device("cuda:1")


# torch.compile imports torch.utils.mkldnn, which still defines script methods (torch 2.13).
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.slow
def test_a_compiled_tower_gives_the_same_vectors_to_rounding(siglip):
    images = pictures(3, size=112)
    compiled = SiglipEncoder(siglip, device="cpu", dtype="float32", execution="compile").encode(images)
    eager = SiglipEncoder(siglip, device="cpu", dtype="float32").encode(images)
    np.testing.assert_allclose(compiled, eager, rtol=1e-4, atol=1e-5)


# -- CUDA ------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("execution", ["eager", "graph", "auto"])
def test_cuda_gives_the_vectors_of_the_cpu_in_any_company(siglip, execution):
    images = pictures(41, size=112)
    encoder = SiglipEncoder(siglip, device="cuda", dtype="float32", execution=execution)
    together = encoder.encode(images)
    assert (
        cosines(together, SiglipEncoder(siglip, device="cpu", dtype="float32").encode(images)).min()
        > 1 - 1e-5
    )
    np.testing.assert_array_equal(encoder.encode(images[::-1])[::-1], together)
    np.testing.assert_array_equal(encoder.encode(images[5:6])[0], together[5])
    batches = [images[start : start + 10] for start in range(0, 41, 10)]
    np.testing.assert_array_equal(np.concatenate(through(encoder.open_stream(), batches)), together)


@pytest.mark.gpu
def test_the_time_of_passes_on_cuda_is_the_devices_and_less_than_the_clocks(siglip):
    stream = SiglipEncoder(siglip, device="cuda", dtype="float32").open_stream()
    started = time.perf_counter()
    found = [encoded for _ in range(4) for encoded in stream.put(pictures(41, size=112))]
    assert len(found) == 3
    found += stream.drain()
    elapsed = time.perf_counter() - started
    assert 0 < sum(encoded.busy_s for encoded in found) < 1.01 * elapsed


@pytest.mark.gpu
def test_bfloat16_on_cuda_stays_close(siglip):
    images = pictures(5, size=112)
    exact = SiglipEncoder(siglip, device="cpu", dtype="float32").encode(images)
    assert cosines(SiglipEncoder(siglip, device="cuda", dtype="bfloat16").encode(images), exact).min() > 0.999
