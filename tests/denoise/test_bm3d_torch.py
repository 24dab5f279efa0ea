"""BM3D in torch: its parts against closed forms and loops, the whole against the package."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage import data

from deepred import metrics
from deepred.denoise.bm3d import (
    BLOCK,
    DISTANCE,
    FRACTION,
    _aggregated,
    _blocks,
    _framed,
    _haar,
    _match,
    _opponent,
    _stage,
    _transform,
    bm3d_torch,
)
from deepred.denoisers import nlm
from deepred.errors import InputError

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        # The order of atomic additions is open on a GPU alone; the CPU case beside this one checks
        # the same otherwise.
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
    ),
]
SIGMA = 25 / 255


def some(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def astronaut():
    """A 64x64 crop with edges and skin, and with noise of sigma 25, clipped: (1, 3, 64, 64)."""
    truth = torch.from_numpy(data.astronaut()[226:290, 126:190].copy()).permute(2, 0, 1)[None] / 255
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    return truth, (truth + SIGMA * noise).clamp(0, 1)


# Transforms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["opponent", "dct", "bior"])
def test_matrices_have_an_inverse_and_rows_of_norm_1(name):
    forward, back = _transform(name, torch.device("cpu"))
    eye = torch.eye(len(forward), dtype=torch.float64)
    assert torch.allclose(back @ forward, eye, atol=1e-13)  # float64, sums of 64 terms
    assert torch.allclose(forward.norm(dim=1), eye.sum(1), atol=1e-14)  # float64
    if name != "bior":  # which is biorthogonal
        assert torch.allclose(forward @ forward.T, eye, atol=1e-14)


def test_the_wavelet_of_a_constant_is_its_mean_and_that_of_a_line_has_no_fine_detail():
    forward, _ = _transform("bior", torch.device("cpu"))
    flat = forward @ torch.ones(64, dtype=torch.float64)
    assert abs(flat[0]) > 1 and flat[1:].abs().max() < 1e-14  # float64
    step = torch.ones(BLOCK, BLOCK, dtype=torch.float64)
    step[:, 4:] = 0  # between two pairs of pixels, which Haar's finest details do not see
    fine = (forward @ step.flatten()).view(BLOCK, BLOCK)[:, 4:]
    assert fine.abs().max() < 1e-14


@pytest.mark.parametrize("size", [1, 2, 8, 32])
def test_haar_is_orthonormal_and_its_own_way_back(size):
    t = torch.eye(size, dtype=torch.float64)
    matrix = _haar(t.clone())
    assert torch.allclose(matrix @ matrix.T, t, atol=1e-14)  # float64, 5 levels
    assert torch.allclose(_haar(matrix, back=True), t, atol=1e-14)
    constant = _haar(torch.ones(size, 1, dtype=torch.float64))
    assert torch.allclose(constant[0], torch.tensor(size, dtype=torch.float64).sqrt())
    assert not constant[1:].any()


def test_the_opponent_transform_keeps_energy_and_returns():
    image = some(3, 5, 4)
    there = _opponent(image)
    assert torch.allclose(there[0], image.sum(0) / 3**0.5)  # luminance
    assert torch.allclose(there.square().sum(0), image.square().sum(0))
    assert torch.allclose(_opponent(there, back=True), image)
    assert torch.equal(_opponent(image[:1]), image[:1])


def test_blocks_are_all_blocks_in_order():
    image = some(2, 9, 10)
    blocks = _blocks(image, torch.eye(64, dtype=torch.float64))
    assert blocks.shape == (2 * 3, 2, 64)
    assert torch.equal(blocks[1 * 3 + 2, 1], image[1, 1:9, 2:10].flatten())


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (8, 8), (9, 12), (33, 70)])
def test_a_frame_is_mirrored_so_that_reference_blocks_end_at_its_border(size):
    image = some(1, *size)
    frame = _framed(image, 3)
    assert all(n >= BLOCK and (n - BLOCK) % 3 == 0 for n in frame.shape[1:])
    more = [(0, n - m) for n, m in zip(frame.shape, image.shape)]
    assert np.array_equal(frame.numpy(), np.pad(image.numpy(), more, mode="reflect"))


# Matching and aggregation -------------------------------------------------------------------------


def test_matching_is_a_search_by_brute_force():
    plane, step, size = some(32, 35), 3, 8
    high, wide = 25, 28
    place = _match(plane, 2, 6, step, size)  # rows 6 to 15: some blocks are beyond reach of some
    assert place.shape == (4 * 10, size)
    array = plane.numpy()
    expected = []
    for row in range(6, 16, step):
        for column in range(0, wide, step):
            block = array[row : row + 8, column : column + 8]
            found = [
                (np.square(block - array[r : r + 8, c : c + 8]).mean(), r * wide + c)
                for r in range(max(row - DISTANCE, 0), min(row + DISTANCE + 1, high))
                for c in range(max(column - DISTANCE, 0), min(column + DISTANCE + 1, wide))
            ]
            expected.append([where for _, where in sorted(found)[:size]])
    assert place.tolist() == expected  # no two distances of random blocks are as near as float64


def test_a_block_is_the_first_of_its_group_among_equals():
    place = _match(torch.zeros(14, 17), 0, 3, 3, 4)
    assert place[:, 0].tolist() == [
        row * 10 + column for row in (0, 3, 6) for column in (0, 3, 6, 9)
    ]


def test_aggregation_is_a_loop():
    height, width, channels, size, references = 11, 13, 2, 4, 6
    generator = torch.Generator().manual_seed(0)
    place = torch.randint(0, 4 * 6, (size, references), generator=generator)
    group = some(size, references, channels, 64) - 0.5
    weight = some(references, channels, seed=1)
    back = _transform("bior", group.device)[1]
    window = np.outer(np.kaiser(8, 2), np.kaiser(8, 2))
    total, weights = np.zeros((2, channels, height, width))
    for k in range(size):
        for n in range(references):
            row, column = divmod(int(place[k, n]), 6)
            for c in range(channels):
                block = (back @ group[k, n, c]).view(8, 8).numpy()
                here = c, slice(row, row + 8), slice(column, column + 8)
                total[here] += weight[n, c].item() * window * block
                weights[here] += weight[n, c].item() * window
    ours = _aggregated(group.clone(), FRACTION * weight, place, back, height, width)
    for a, b in zip(ours, (total, weights)):
        # Integers hold multiples of 2^-44 = 6e-14; torch rounds its Kaiser window to 1e-8.
        assert np.allclose(a.numpy() / FRACTION, b, atol=1e-6)


# The whole ----------------------------------------------------------------------------------------


def test_a_threshold_of_0_returns_the_image():
    image = some(3, 20, 26)
    basic = _stage(image, None, torch.tensor(0.0, dtype=torch.float64), 3, 1000)
    assert torch.allclose(basic, image, atol=1e-12)  # what the integers drop, 6e-14, some times


def test_wiener_by_the_image_itself_without_noise_returns_it():
    image = some(3, 20, 26)
    final = _stage(image, image, torch.tensor(1e-12, dtype=torch.float64), 3, 1000)
    assert torch.allclose(final, image, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_it_denoises_better_than_nlm(astronaut, device):
    truth, y = astronaut
    ours = bm3d_torch(y.to(device), SIGMA).cpu()
    # 28.43 against 25.73 dB seen: on so small a crop NLM finds few patches.
    assert metrics.psnr(ours, truth) > metrics.psnr(nlm(y, SIGMA), truth) + 2


@pytest.mark.parametrize("sigma", [25 / 255, 5 / 255])
def test_it_does_as_well_as_the_package(astronaut, sigma):
    package = pytest.importorskip("bm3d")
    truth, _ = astronaut
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    y = (truth + sigma * noise).clamp(0, 1)
    profile = package.BM3DProfile()
    profile.num_threads = 1
    theirs = package.bm3d_rgb(y[0].permute(1, 2, 0).numpy(), sigma, profile).transpose(2, 0, 1)
    theirs = torch.from_numpy(theirs)[None]
    # They choose groups and borders otherwise: up to 0.07 dB on crops of 128x128, 0.09 dB here.
    assert abs(metrics.psnr(bm3d_torch(y, sigma), truth) - metrics.psnr(theirs, truth)) < 0.15


@pytest.mark.parametrize("device", DEVICES)
def test_equal_calls_are_equal_to_the_bit(astronaut, device):
    y = astronaut[1].to(device)
    once = bm3d_torch(y, SIGMA)
    assert all(torch.equal(bm3d_torch(y, SIGMA), once) for _ in range(2))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_batch_is_each_image_on_its_own(device, channels):
    x = some(2, channels, 24, 21, dtype=torch.float32).to(device)
    x[1] *= 3  # beyond [0, 1], as an image of a solver may be
    both = bm3d_torch(x, 0.1)
    assert both.shape == x.shape and both.dtype == x.dtype and both.device == x.device
    assert torch.equal(both, torch.cat([bm3d_torch(one[None], 0.1) for one in x]))
    if channels == 2:
        planes = bm3d_torch(x[:, 1:], 0.1)
        assert torch.equal(both[:, 1:], planes)


def test_chunks_change_the_last_digits_only(astronaut):
    y = astronaut[1].double()
    whole = bm3d_torch(y, SIGMA, chunk=10**6)
    for chunk in (1, 100):  # a row of references at a time, five
        # The bands' sums are added in float64, each of integers of 6e-14.
        assert torch.allclose(bm3d_torch(y, SIGMA, chunk=chunk), whole, atol=1e-11)


def test_float32_is_near_float64(astronaut):
    y = astronaut[1]
    apart = (bm3d_torch(y, SIGMA) - bm3d_torch(y.double(), SIGMA)).abs()
    # 7e-7 seen, but rounding may take a coefficient over the threshold or a block into a group.
    assert apart.mean() < 1e-5 and apart.max() < 0.02


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 5), (33, 70)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_size_will_do(size, dtype):
    x = some(1, 3, *size, dtype=dtype)
    out = bm3d_torch(x, 0.2)
    assert out.shape == x.shape and out.dtype == dtype and out.isfinite().all()
    constant = torch.full_like(x, 0.3)
    # Rounding of the transforms; in float64 also what the integers drop, 6e-14 of a block's weight.
    close = 1e-6 if dtype == torch.float32 else 1e-11
    assert torch.allclose(bm3d_torch(constant, 0.2), constant, rtol=0, atol=close)


@pytest.mark.parametrize("scale", [0, 1e-38, 1e-30, 1e30, 3.4e38])
@pytest.mark.parametrize("sigma", [1e-30, 0.1, 1e30])
def test_no_finite_image_gives_nan(scale, sigma):
    x = (some(1, 3, 12, 9) * 2 - 1).mul(scale).float()
    assert not bm3d_torch(x, sigma).isnan().any()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_host_waits_for_no_value(channels):
    x = torch.empty(1, channels, 40, 33, device="meta")  # has none, nor mixes with a CPU's tensors
    assert bm3d_torch(x, 0.1).shape == x.shape


def test_it_scales_with_the_image(astronaut):
    y = astronaut[1]
    assert torch.equal(bm3d_torch(4 * y, 4 * SIGMA), 4 * bm3d_torch(y, SIGMA))  # powers of two


def test_sigma_0_returns_a_copy():
    x = some(1, 3, 9, 9)
    out = bm3d_torch(x, 0)
    assert torch.equal(out, x) and out.data_ptr() != x.data_ptr()


def test_the_image_itself_and_its_gradient_stay_out_of_it():
    x = some(1, 1, 9, 9).requires_grad_()
    before = x.detach().clone()
    assert not bm3d_torch(x, 0.1).requires_grad
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("x", "arguments", "message"),
    [
        (torch.zeros(3, 9, 9), dict(sigma=0.1), "(N, C, H, W)"),
        (torch.zeros(1, 3, 9, 9, dtype=torch.uint8), dict(sigma=0.1), "uint8"),
        (torch.zeros(1, 3, 9, 9), dict(sigma=-0.1), "got -0.1"),
        (torch.zeros(1, 3, 9, 9), dict(sigma=float("nan")), "got nan"),
        (torch.zeros(1, 3, 9, 9), dict(sigma=0.1, step=9), "step must be at most 8"),
    ],
)
def test_bad_input_is_told_in_one_line(x, arguments, message):
    with pytest.raises(InputError) as told:
        bm3d_torch(x, **arguments)
    assert message in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_stays_so(value):
    """No position out of range, which would be the end of a GPU's context; the solver sees it."""
    x = torch.rand(2, 1, 24, 28, generator=torch.Generator().manual_seed(0))
    whole = bm3d_torch(x, 0.1)
    x[1, 0, 5, 7] = value
    got = bm3d_torch(x, 0.1)
    assert torch.equal(got[0], whole[0])
    assert not got[1].isfinite().any()
