# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Section 2.1: inverse problems
#
# **Goals.** Know the five degradations $\mathbf{H}$ that the paper names, as code: what each does to
# a picture, and what its adjoint does. See why undoing them needs a prior. Know what the data term
# says about the noise, and what changes when the noise is not Gaussian.
#
# **The claim.** All of the paper's problems are $y = \mathbf{H}x + v$ with a known linear
# $\mathbf{H}$ and Gaussian $v$, and are put as Eq. (1),
#
# $$\min_x \; \tfrac12 \| \mathbf{H} x - y \|_2^2 + \lambda \rho(x).$$
#
# For other noise, the paper says, the negative log-likelihood "should" replace the squares; the
# authors of the deep image prior keep the squares. The paper tries neither. This notebook compares
# the two.
#
# **What you need.** Linear algebra (adjoint, inner product) and the Gaussian density; half a minute
# on one core. The picture comes with scikit-image; one table is read from stored results.

# %% tags=["parameters", "hide-input"]
profile = "quick"
image = "builtin/astronaut"
seed = 0
iterations = None
device = "auto"
results = "../data/results"
figures = ""

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown

from deepred import metrics
from deepred.beyond import baselines
from deepred.beyond.likelihoods import Gamma, Gaussian, Laplace, Poisson
from deepred.beyond.radon import Radon
from deepred.operators import Blur, Downsample, Identity, Inpaint, degrade
from deepred.paper import comparisons, notebook, plots, store, tables

p = notebook.parameters(globals())
plots.use_style()

# %% [markdown]
# ## Five degradations
#
# An operator maps an image tensor (1, channels, height, width) to a measurement. The operators of
# this package are plain objects without state. They work in any precision and on any device, and have
# an `adjoint`:
#
# | problem | $\mathbf{H}$ | here |
# |---|---|---|
# | denoising | the identity | `Identity()` |
# | deblurring | a convolution | `Blur.uniform(9)`, circular as in the paper's Section 4.3 |
# | inpainting | the identity without some rows | `Inpaint.random((h, w), 0.5)`, or `read_mask(file)` |
# | super-resolution | a blur and a sub-sampling | `Downsample(4)`, Lanczos as in the code of DIP |
# | tomography | Radon projections | `Radon.views(side, 30)` |

# %%
x = notebook.load(image)
side = x.shape[-1]
problems = {
    "denoising": Identity(),
    "deblurring": Blur.uniform(9),
    "inpainting": Inpaint.random((side, side), 0.5, seed=seed),
    "super-resolution": Downsample(4),
    "tomography": Radon.views(side, 30),
}

# %%
measurements = {name: degrade(x, H, 5 / 255, seed) for name, H in problems.items()}
measurements["denoising"] = degrade(x, problems["denoising"], 25 / 255, seed)
for name, y in measurements.items():
    print(f"{name:17s} {tuple(x.shape)} -> {tuple(y.shape)}")

# %% [markdown]
# Noise of level 5 of 255 has been added (25 for denoising), and the measurement has been cut to
# $[0, 1]$, as for the paper's tables. The two smaller measurements are drawn at the size of the
# image. The sinogram has one row for each of the 30 angles; each value is the mean along a ray.


# %%
def full(y):
    """A measurement enlarged to the size of the image without interpolation."""
    rows = torch.arange(side) * y.shape[2] // side
    columns = torch.arange(side) * y.shape[3] // side
    return y[..., rows, :][..., columns]


panels = {"truth": x} | {name: full(y) for name, y in measurements.items()}
plots.save(plots.compare(panels, columns=3), p.figures, "problems_measured")

# %% [markdown]
# **What we see.** Each measurement has lost something else. Noise hides faint details, the blur
# removes the strands of the hair, the mask whole pixels, and the small grid the sharpness. Tomography
# does not deliver a picture at all.
#
# ## The adjoint
#
# Gradients need $\mathbf{H}^T$: that of $\tfrac12\|\mathbf{H}x-y\|^2$ is
# $\mathbf{H}^T(\mathbf{H}x - y)$. An adjoint is exact if $\langle \mathbf{H}a, b\rangle = \langle a,
# \mathbf{H}^T b\rangle$ for all images $a$ and measurements $b$. In float64 the two sides must agree to
# about ten digits:

# %% tags=["remove-cell"]
for name, H in problems.items():
    a, b = torch.randn_like(x, dtype=torch.float64), torch.randn_like(H(x).double())
    left, right = (H(a) * b).sum(), (a * H.adjoint(b)).sum()
    assert torch.isclose(left, right, rtol=1e-10, atol=1e-10), name

# %% [markdown]
# Operators can be chained and scaled, `Composed(outer, inner)` and `Scaled(H, factor)`; a physics
# object of the library deepinv, or any differentiable function of your own, works as well.
#
# ## Why a prior
#
# Without $\rho$, Eq. (1) asks for the image that explains the measurement best, noise included: the
# maximum-likelihood estimate. For the blur it can be computed by a division in the Fourier domain.
# Where the kernel's spectrum is small, the quotient is mostly amplified noise. Where it is zero (the
# mean of nine pixels of a pattern of period three, for example), *every* value fits the
# measurement, and we take 0.

# %%
H, y = problems["deblurring"], measurements["deblurring"]
impulse = torch.zeros(1, 1, side, side)
impulse[..., 0, 0] = 1
K = torch.fft.rfft2(H(impulse))
there = K.abs() > 1e-6

# %%
quotient = torch.where(there, torch.fft.rfft2(y) / torch.where(there, K, 1), 0)
divided = torch.fft.irfft2(quotient, s=(side, side))
print(f"blurred {metrics.psnr(y, x):.1f} dB, divided {metrics.psnr(divided.clamp(0, 1), x):.1f} dB")

# %% tags=["remove-cell"]
assert metrics.psnr(divided.clamp(0, 1), x) < metrics.psnr(y, x) - 5

# %% [markdown]
# A prior $\rho$ says which of the images that fit are likely. The classical one is the total
# variation (Rudin, Osher and Fatemi 1992), the sum of the lengths of all gradients. It is small for
# pictures with few edges. `baselines.total_variation` minimises Eq. (1) with it, for any operator that
# has an adjoint (the weights were chosen by hand on this picture):

# %%
weights = {
    "denoising": 0.06, "deblurring": 1e-3, "inpainting": 0.01, "super-resolution": 5e-4,
    "tomography": 1e-3,
}  # fmt: skip
steps = 200 if p.profile == "smoke" else 800

# %%
restored = {
    name: baselines.total_variation(measurements[name], H, weights[name], iterations=steps)
    for name, H in problems.items()
}

# %% tags=["nbval-ignore-output"]
psnr = {name: metrics.psnr(image.clamp(0, 1), x) for name, image in restored.items()}
panels = {"truth": x, "blurred, divided": divided.clamp(0, 1)}
panels |= {f"{name}, TV\n{psnr[name]:.1f} dB": image for name, image in restored.items()}
plots.save(plots.compare(panels, inset=(50, 34, 56), columns=4), p.figures, "problems_tv")

# %% tags=["remove-cell"]
if p.unchanged:
    assert psnr["denoising"] > metrics.psnr(measurements["denoising"], x) + 5
    assert psnr["deblurring"] > metrics.psnr(y, x) + 1
    assert min(psnr.values()) > 20

# %% [markdown]
# **What we see.** One prior serves all five problems: that is the appeal of Eq. (1). Its mark is
# visible in each result: flat patches, steps where the grey should change evenly, no texture. The next
# notebooks are about better priors: an untrained network ([02](02_deep_image_prior.ipynb)), a
# denoiser ([03](03_red.ipynb)), and the two together ([05](05_deepred.ipynb)).
#
# ## Other noise
#
# The squares in Eq. (1) are the negative log-likelihood of Gaussian noise. Other noise has another
# one (up to constants, for one pixel with $h = (\mathbf{H}x)_i$):
#
# | noise | source | negative log-likelihood | standard deviation |
# |---|---|---|---|
# | Gaussian, $\sigma$ | electronics | $(h - y)^2 / 2\sigma^2$ | $\sigma$ |
# | Poisson, peak $P$ | photons counted | $P\,(h - y \log h)$ | $\sqrt{h / P}$ |
# | Laplace, scale $b$ | outliers | $\lvert h - y\rvert / b$ | $\sqrt2\, b$ |
# | Gamma, $L$ looks | speckle: radar, ultrasound, laser | $L\,(\log h + y / h)$ | $h / \sqrt L$ |
#
# `deepred.beyond.likelihoods` has the four, each with a sampler. Their terms are scaled to the
# curvature of $\tfrac12(h-y)^2$ at a middle grey, so that $\lambda$ and $\mu$ keep their meaning.
# (Laplace's term has no curvature; it is scaled to the slope of the squares where
# $\lvert h-y\rvert = b$.)

# %%
models = {
    "Gaussian, σ = 0.1": Gaussian(0.1), "Poisson, peak 10": Poisson(10),
    "Laplace, scale 0.1": Laplace(0.1), "Gamma, 10 looks": Gamma(10),
}  # fmt: skip

# %%
noisy = {name: model.sample(x, seed) for name, model in models.items()}
panels = {"truth": x} | {
    f"{name}\n{metrics.psnr(z.clamp(0, 1), x):.1f} dB": z for name, z in noisy.items()
}
plots.save(plots.compare(panels, inset=(50, 34, 56)), p.figures, "problems_noise")

# %% [markdown]
# Compare the eyes and the shadows under the hair: photon noise and speckle are weak there, the other
# two are not. The darker a pixel of a Poisson measurement, the smaller its absolute error, and the
# squares do not take that into account.
#
# The four terms as functions of $h$, for a dark and for a bright measurement, each minus its minimum:

# %%
h = torch.linspace(0.01, 1, 500, dtype=torch.float64)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
for axis, value in zip(axes, (0.15, 0.75)):
    terms = {name: model(h, torch.full_like(h, value)) for name, model in models.items()}
    lines = {name: (h, term - term.min()) for name, term in terms.items()}
    plots.curves(axis, lines, "data term", xlabel="h, what the image would give")
    axis.axvline(value, color="black", lw=0.7)
    axis.set(title=f"y = {value}", ylim=(0, 0.12))
axes[1].get_legend().remove()
axes[1].set_ylabel("")
plots.save(figure, p.figures, "problems_terms")

# %% [markdown]
# **What we see.** For the dark pixel the terms of Poisson and Gamma are narrow: they hold the image
# close to the measurement. For the bright one they are wide: a deviation means little there.
# Laplace's term grows linearly, so that a single outlier cannot pull the image far.
#
# Does it matter? The table compares the squares with the noise's own likelihood, for DIP and DeepRED:
# four crops of 64 × 64 pixels, three seeds, 1000 iterations of preset `fast` for crops
# (`small=True`), from stored results. The standard error is that of the mean gain over the four
# pictures, where each picture counts with the mean of its three seeds.

# %%
stored = comparisons.of(store.read_runs(p.stored("paper")), "noise")
Markdown(tables.markdown(comparisons.noise(stored)))

# %% tags=["remove-cell"]
for row in comparisons.noise(stored).dropna(subset="gain").itertuples():
    assert (0.5 if row.method == "DIP" else 0) < row.gain < 6, row  # dB
    assert row.method == "DIP" or row.gain > 1 or row.gain < 2 * row[-1], row  # the standard error

# %% [markdown]
# **What we see.** DIP, run to the end, gains from the right likelihood with each noise: 0.8 dB with
# photons and 4 dB with speckle, whose level differs most between dark and bright. With the squares it
# fits the noisy pixels at the cost of the reliable ones. DeepRED is better throughout. It gains two
# decibels with speckle; with outliers and photons its gain of two or three tenths is within two
# standard errors of zero, probably because its denoiser and its growing weights already compensate
# most of what the squares do wrong. So the paper is right, but for Poisson noise of this strength the
# likelihood matters less for DeepRED than for DIP.
#
# ## Exercises
#
# **In code.** Write the gradient of the data term $\tfrac12\|\mathbf{H}x-y\|^2$ at $x$ for the
# super-resolution problem. Replace `None`:

# %% tags=["exercise"]
H, y = problems["super-resolution"], measurements["super-resolution"]
gradient = None
print(notebook.check(gradient, torch.func.grad(lambda t: 0.5 * (H(t) - y).square().sum())(x)))

# %% tags=["solution", "hide-cell"]
gradient = H.adjoint(H(x) - y)
print(notebook.check(gradient, torch.func.grad(lambda t: 0.5 * (H(t) - y).square().sum())(x)))

# %% [markdown]
# **To think about.**
#
# 1. Write $\mathbf{H}$ for a camera that sees through a dirty window *and* out of focus. Which of the
#    two comes first in `Composed(outer, inner)`, and does the order matter?
# 2. The data term $\tfrac12\|\mathbf{H}x-y\|^2$ of 30 views and 128 detectors has fewer equations than
#    the image has unknowns. How many fewer? Name an image that a parallel-beam scanner with 30 views
#    cannot see at all.
# 3. Derive the Poisson term, and show that its minimum over one grey for all pixels is their mean, as
#    for the squares. For which noise is it the median?
#
# <details><summary>Answers</summary>
#
# 1. Light first passes the window, then is blurred by the lens: `Composed(Blur.of(kernel),
#    Inpaint.of(mask))`. It matters: in the other order the dirt would be in focus.
# 2. $128^2 - 30 \cdot 128 = 12544$ fewer, at least. Any image that has mean zero along every ray of the 30
#    directions; with two directions, a checkerboard of $+1, -1$ seen along its rows and columns.
# 3. With counts $n = P y$ of mean $P h$, $-\log \big(e^{-Ph} (Ph)^n / n!\big) = P h - P y \log h$ + a
#    constant. Its derivative summed over the pixels, $\sum_i P (1 - y_i / h)$, is zero at $h = \bar y$.
#    The median minimises $\sum_i \lvert h - y_i \rvert$, Laplace's.
# </details>
#
# ## Further reading
#
# - L. I. Rudin, S. Osher and E. Fatemi, *Nonlinear total variation based noise removal algorithms*,
#   Physica D 60, 1992.
# - A. Chambolle and T. Pock, *A first-order primal-dual algorithm for convex problems with applications
#   to imaging*, Journal of Mathematical Imaging and Vision 40, 2011: how `total_variation` works.
# - M. Bertero, P. Boccacci and V. Ruggiero, *Inverse Imaging with Poisson Data*, IOP, 2018.
# - A. Rond, R. Giryes and M. Elad, *Poisson inverse problems by the plug-and-play scheme*, Journal of
#   Visual Communication and Image Representation 41, 2016: the likelihood in the place of the squares.
# - J. Salmon, Z. Harmany, C.-A. Deledalle and R. Willett, *Poisson noise reduction with non-local
#   PCA*, Journal of Mathematical Imaging and Vision 48, 2014.
# - A. C. Kak and M. Slaney, *Principles of Computerized Tomographic Imaging*, IEEE Press, 1988.
