"""A module of torch becomes an encoder whose rows are the same bits in any batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from embedstore.encoders import torch_module
from embedstore.errors import UsageError
from embedstore.images.preprocess import PreprocessSpec
from embedstore.testing import check_encoder, example_pictures

SPEC = PreprocessSpec("pad", size_px=32)


def wide_net(seed=0):
    """Wide enough that products of other shapes take other paths."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 48, 5, stride=2),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48 * 14 * 14, 96),
    )
    return net.eval()


class Doubled(nn.Module):
    """A module with a buffer that `state_dict` leaves out."""

    def __init__(self, factor=2.0):
        super().__init__()
        self.register_buffer("factor", torch.tensor(factor), persistent=False)

    def forward(self, pictures):
        return pictures.mean(dim=(2, 3)) * self.factor


def encoder_of(net, dim=96, **options):
    return torch_module(net, SPEC, dim, device="cpu", **options)


@pytest.mark.parametrize("rows", [None, 4])
def test_a_module_keeps_the_contract(rows):
    check_encoder(encoder_of(wide_net(), pass_rows=rows))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_module_keeps_the_contract_on_a_gpu(dtype):
    net = wide_net()
    encoder = torch_module(net, SPEC, 96, device="cuda", dtype=dtype)
    vectors = check_encoder(encoder)
    on_cpu = encoder_of(net, dtype=dtype).encode(example_pictures(SPEC))
    np.testing.assert_allclose(vectors, on_cpu, atol=1e-4 if dtype == "float32" else 0.05)


def test_the_module_sees_rgb_from_0_to_1_with_grey_in_three_channels():
    pictures = example_pictures(SPEC, count=3)
    net = wide_net()
    with torch.inference_mode():
        wanted = net(torch.from_numpy(pictures)[:, None].expand(-1, 3, -1, -1) / 255.0)
    np.testing.assert_allclose(encoder_of(net).encode(pictures), wanted.numpy(), atol=1e-5)
    half = np.full((1, 32, 32, 3), [0, 51, 255], np.uint8)
    np.testing.assert_allclose(encoder_of(Doubled().eval(), 3).encode(half), [[0, 0.4, 2.0]], atol=1e-6)


def test_the_identity_names_what_changes_vectors():
    plain = encoder_of(wide_net()).identity
    assert plain == encoder_of(wide_net()).identity
    assert (plain.encoder, plain.revision, plain.pooling, plain.compute_dtype) == (
        "sequential",
        "1",
        "module",
        "float32",
    )
    assert encoder_of(wide_net(seed=1)).identity.differences(plain).keys() == {"weights_sha256"}
    assert encoder_of(wide_net(), revision="2").identity.differences(plain).keys() == {"revision"}
    assert encoder_of(wide_net(), dtype="bfloat16").identity.differences(plain).keys() == {"compute_dtype"}
    assert encoder_of(wide_net(), options={"depth": 1}).identity.differences(plain).keys() == {
        "options.depth"
    }
    assert encoder_of(wide_net(), name="wide").identity.differences(plain).keys() == {"encoder"}


def test_structure_and_hidden_buffers_count_as_weights_do():
    def digest(net):
        return encoder_of(net.eval(), 3).identity.weights_sha256

    relu, gelu = (nn.Sequential(nn.Flatten(), activation) for activation in (nn.ReLU(), nn.GELU()))
    assert digest(relu) != digest(gelu)
    assert digest(Doubled(2.0)) != digest(Doubled(3.0))
    assert digest(Doubled(2.0)) == digest(Doubled(2.0))


def test_the_module_of_the_caller_stays_as_it_is():
    net = wide_net()
    encoder = encoder_of(net, dtype="bfloat16")
    before = encoder.encode(example_pictures(SPEC))
    assert {weight.dtype for weight in net.parameters()} == {torch.float32}
    with torch.no_grad():
        net[4].weight.zero_()
    np.testing.assert_array_equal(encoder.encode(example_pictures(SPEC)), before)


def test_a_module_that_changed_after_its_identity_was_asked_for_is_refused():
    net = wide_net()
    encoder = encoder_of(net)
    assert encoder.identity
    with torch.no_grad():
        net[4].weight.zero_()
    with pytest.raises(UsageError, match="'sequential' has changed since its identity"):
        encoder.load()


def test_a_module_in_training_mode_is_refused_with_the_part_that_is():
    net = wide_net()
    net[1].train()
    with pytest.raises(UsageError, match=r"'1' is in training mode. Call net.eval\(\)"):
        encoder_of(net).load()


class Pair(nn.Module):
    def forward(self, pictures):
        return pictures, pictures


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (
            nn.Conv2d(3, 8, 3),
            r"of shape \(1, 96\) for 1 pictures; found torch.float32 of shape \(1, 8, 30, 30\)",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 95)), r"found torch.float32 of shape \(1, 95\)"),
        (Pair(), "must return a tensor; found tuple"),
        (
            nn.Linear(7, 96),
            r"must take torch.float32 pictures of shape \(1, 3, 32, 32\).*raised RuntimeError: mat1",
        ),
        (nn.Conv2d(3, 8, 3, device="meta"), "must hold dense tensors with values; 'bias' is none"),
    ],
)
def test_a_module_that_does_not_fit_is_refused_before_an_image_is_read(net, said):
    with pytest.raises(UsageError, match=said):
        encoder_of(net.eval()).load()


def test_options_with_another_value_are_refused():
    for wrong, said in (
        ({"device": "tpu"}, "device must be"),
        ({"dtype": "int8"}, "dtype must be"),
        ({"pass_rows": 0}, "pass_rows must be at least 1"),
        ({"dim": 0}, "dim must be at least 1"),
    ):
        with pytest.raises(UsageError, match=said):
            torch_module(wide_net(), SPEC, **{"dim": 96, **wrong})
