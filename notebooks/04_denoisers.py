# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Section 2.3: what RED asks of a denoiser
#
# **Goals.** Measure on real denoisers the conditions under which the gradient of Eq. (3) is what RED
# says it is. Try what the paper calls a near dead-end, differentiating through the denoiser, and see
# what it costs.
#
# **The claim.** "Under mild conditions" (footnote 4: $f$ differentiable, locally homogeneous, passive,
# with a symmetric Jacobian) the gradient of $\rho(x) = \tfrac12 x^T(x - f(x))$ is simply $x - f(x)$, and
# $\rho$ is convex (Romano, Elad and Milanfar 2017). Differentiating $f$ itself is "a daunting task that
# must be avoided".
#
# **What you need.** Notebook [03](03_red.ipynb); eigenvalues and Jacobians; about a minute on one core.
# The pictures come with scikit-image.

# %% tags=["parameters", "hide-input"]
profile = "quick"
image = "builtin/chelsea"
seed = 0
iterations = None
device = "auto"
results = "../data/results"
figures = ""

# %% tags=["hide-input"]
import math
from collections import Counter
from functools import partial
from itertools import pairwise

import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib import pyplot as plt
from torch import nn

import deepred
from deepred import denoisers, metrics, red
from deepred.beyond import conditions, stopping
from deepred.denoise.nlm import nlm_torch
from deepred.io import datasets
from deepred.operators import Blur, Identity, degrade
from deepred.paper import notebook, plots, tables

p = notebook.parameters(globals(), "builtin/chelsea")
plots.use_style()
level = 5 / 255

# %% [markdown]
# ## The conditions, measured
#
# Whether $x - f(x)$ is the gradient of $\rho$ can be computed on a small patch, where differences give
# the whole Jacobian $J$ of $f$. The gradient of Eq. (3) is
#
# $$\nabla\rho(x) = x - \tfrac12 f(x) - \tfrac12 J^T x,$$
#
# whatever $f$ is, as long as it can be differentiated. It is $x - f(x)$ if $J^T x = f(x)$, and that
# follows from $J^T = J$ (symmetry) and $J x = f(x)$ (local homogeneity). `conditions.measure` finds
#
# - **homogeneity**: $\lVert Jx - f(x)\rVert / \lVert f(x)\rVert$, ideally 0;
# - **asymmetry**: $\lVert J - J^T\rVert_F / \lVert J\rVert_F$, ideally 0, and $\sqrt2$ if $J$ and
#   $J^T$ have nothing in common;
# - **radius**: the largest modulus of an eigenvalue of $J$; $f$ is passive if it is at most 1;
# - **norm**: $\lVert J\rVert_2$, the largest factor by which a small change grows; it equals the radius
#   for a symmetric $J$;
# - **kinks**: how far $f(x + h) + f(x - h)$ is from $2 f(x)$ against $f(x + h) - f(x - h)$, for
#   random $h$ of a quarter of a grey level: 0 for a linear $f$;
# - **gradient**: the error of $x - f(x)$, relative to the true gradient of $\rho$;
# - **mismatch**: the error of the true gradient itself, against differences of $\rho$ in random
#   directions. This is not a condition; it tells whether $J$ can be trusted.
#
# Reehorst and Schniter (2019) measured the same on patches of this size. Their errors are the squares of
# ours. (One of their two measures of homogeneity is also multiplied by $10^{-6}$, because it is not
# divided by its step of $10^{-3}$.)
#
# One of the eight denoisers is learned. It is trained here for a few seconds on three photographs, for
# noise of any level up to 15:


# %%
class Residual(nn.Module):
    """The noise, by four convolutions that are told its level; each channel on its own."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        sizes = [2, width, width, width, 1]
        layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes)]
        self.body = nn.Sequential(*(m for c in layers[:-1] for m in (c, nn.ReLU())), layers[-1])

    def forward(self, x, sigma):
        planes = x.flatten(0, 1)[:, None]
        told = torch.cat([planes, torch.full_like(planes, 10 * sigma)], 1)
        return x - sigma * self.body(told).reshape(x.shape)


# %%
torch.manual_seed(seed)
generator = torch.Generator().manual_seed(seed)
photographs = [
    datasets.load("builtin", name).image.mean(1) for name in ("coffee", "rocket", "astronaut")
]
network = Residual()
adam = torch.optim.Adam(network.parameters(), 2e-3)


def patches(count=8, side=40):
    """Random clean patches (count, 1, side, side)."""
    found = []
    for i in range(count):
        photograph = photographs[i % 3]
        rows, columns = (n - side for n in photograph.shape[1:])
        top = int(torch.randint(rows, (), generator=generator))
        left = int(torch.randint(columns, (), generator=generator))
        found.append(photograph[:, top : top + side, left : left + side])
    return torch.stack(found)


# %%
for _ in range(p.live(400)):
    clean = patches()
    noise = 15 / 255 * float(torch.rand((), generator=generator))
    noisy = clean + noise * torch.randn(clean.shape, generator=generator)
    loss = (network(noisy, noise) - clean).square().mean()
    adam.zero_grad()
    loss.backward()
    adam.step()

# %%
network.requires_grad_(False)
learned = denoisers.learned(network)

# %% tags=["nbval-ignore-output"]
x = notebook.load(image, 64)
z = degrade(x, Identity(), 2 * level, seed, clip=False)
compared = {"noise of level 10": z, "NLM": denoisers.nlm(z, 2 * level)}
for name, restored in (compared | {"learned": learned(z, 2 * level)}).items():
    print(f"{name}: {metrics.psnr(restored, x):.2f} dB")

# %% [markdown]
# Now the measurement, at two grey patches of 16 × 16 pixels with noise of level 10, which every denoiser
# is told. Each Jacobian has 256 × 256 entries. NLM is our implementation in torch: scikit-image rounds
# its weights to $2^{-20}$, which is too coarse for differences of $10^{-7}$.

# %%
names = {"NLM": nlm_torch, "BM3D": denoisers.named("bm3d"), "TV": denoisers.tv}
names |= {"wavelet": denoisers.wavelet, "bilateral": denoisers.bilateral}
names |= {"median": denoisers.median, "learned": learned}
candidates = {"Gaussian filter": Blur.gaussian(5, 0.6)}
candidates |= {name: partial(g, sigma=2 * level) for name, g in names.items()}

# %%
size = 10 if p.profile == "smoke" else 16
grey, noise = x.mean(1, keepdim=True).double(), torch.Generator().manual_seed(seed)
places = [grey[..., i : i + size, j : j + size] for i, j in ((20, 20), (40, 44))]
spots = [t + 2 * level * torch.randn(t.shape, generator=noise, dtype=t.dtype) for t in places]

# %%
found = {name: [conditions.measure(g, t) for t in spots] for name, g in candidates.items()}
means = {
    name: {key: sum(vars(c)[key] for c in both) / 2 for key in vars(both[0])}
    for name, both in found.items()
}

# %% tags=["nbval-ignore-output"]
rows = [(name, *(f"{v:.2g}" for v in mean.values())) for name, mean in means.items()]
table = pd.DataFrame(rows, columns=["denoiser", *means["NLM"]])
Markdown(tables.markdown(table))

# %% tags=["remove-cell"]
filtered = means["Gaussian filter"]
assert max(filtered[key] for key in ("homogeneity", "asymmetry", "kinks", "gradient")) < 1e-5
assert filtered["radius"] < 1 + 1e-6
if p.unchanged:
    assert all(mean["mismatch"] < 0.05 for mean in means.values())
    assert all(means[name]["asymmetry"] > 0.2 for name in ("NLM", "BM3D", "median"))
    assert all(means[name]["gradient"] > 0.1 for name in names)
    assert means["NLM"]["radius"] > 1.3 and means["TV"]["norm"] < 1.01
    assert means["BM3D"]["kinks"] > 0.3

# %% tags=["nbval-ignore-output"]
titles = {
    "homogeneity": "error of homogeneity", "asymmetry": "asymmetry of J",
    "radius": "spectral radius of J", "kinks": "kinks", "gradient": "error of x − f(x)",
}  # fmt: skip
figure, axes = plt.subplots(1, 5, figsize=(12, 3.2), sharey=True)
for axis, (field, title) in zip(axes, titles.items()):
    for row, both in enumerate(found.values()):
        values = [max(getattr(c, field), 1e-5) for c in both]
        axis.plot(values, [row - 0.12, row + 0.12], "o", ms=5, color=plots.COLOURS["deepred"])
    axis.axvline(1, color="black", lw=0.7, ls=":")
    axis.set(title=title, xscale="linear" if field == "radius" else "log", xlabel="ratio")
axes[0].set_yticks(range(len(found)), found)
axes[0].invert_yaxis()
plots.save(figure, p.figures, "red_conditions")

# %% [markdown]
# (Two dots per denoiser, one per patch. Values below $10^{-5}$ are drawn there.)
#
# **What we see.** The Gaussian filter, which is linear and symmetric, meets all conditions up to
# rounding. None of the others does.
#
# - *Homogeneity* is violated by 4 to 7 per cent, by NLM and the wavelets by 15 to 20, since all of these
#   denoisers compare with a $\sigma$ that does not grow with the image. Of the nonlinear ones only the
#   median is exactly homogeneous.
# - *Symmetry* fails most for the median and for NLM, where each pixel chooses its neighbours or
#   normalises its weights independently, and clearly for BM3D. TV comes closest: solved exactly, it
#   is the minimiser of $\tfrac12\lVert v - x\rVert^2$ plus a convex function of $v$, and the map from
#   $x$ to this minimiser has a symmetric Jacobian.
# - *Passivity* fails for NLM and the wavelets, and by a little for the bilateral filter and the learned
#   denoiser. The norm shows that the median, with a radius of 1, more than doubles some changes. TV
#   enlarges none.
# - *Differentiability* is the subject of the next figure.
# - *The gradient*: for every real denoiser the error of $x - f(x)$ is more than a third of the true
#   gradient, or exceeds it. Even a small asymmetry is enough: $x$ is large compared with $x - f(x)$, so
#   that a few per cent of $J^T x$ are as large as everything that is removed.
#
# ## Can it be differentiated?
#
# The figure shows the same ratio (*kinks*) for changes of other sizes. Where $f$ is smooth, it falls in
# proportion to the change. Where $f$ jumps, it does not.

# %% tags=["nbval-ignore-output"]
changes = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
bends = {
    name: [conditions.kinks(candidates[name], spots[0], change) or math.nan for change in changes]
    for name in ("BM3D", "NLM", "median", "wavelet", "TV", "bilateral")
}

# %% tags=["nbval-ignore-output"]
figure, axis = plt.subplots(figsize=(7, 3.2))
grey_levels = [255 * change for change in changes]
lines = {name: (grey_levels, values) for name, values in bends.items()}
plots.curves(axis, lines, "kinks", xlabel="change [grey levels of 255]")
axis.set(xscale="log", yscale="log", ylim=(1e-6, 3))
axis.legend(ncols=2, loc="lower right")
plots.save(figure, p.figures, "red_kinks")

# %% tags=["remove-cell"]
assert bends["bilateral"][3] < bends["bilateral"][1] / 50
if p.unchanged:
    assert bends["BM3D"][2] > 0.5 and bends["TV"][3] < bends["TV"][2] / 5

# %% [markdown]
# **What we see.** The bilateral filter is smooth. So is TV for changes below a tenth of a grey level; for
# larger ones its solver stops an iteration earlier or later. The wavelets have kinks, which small
# changes meet less and less often. NLM drops weights below $e^{-5}$, and BM3D selects blocks and
# thresholds coefficients: their ratio stays large until the change is so small that no threshold is
# crossed. Both have a derivative at almost every image, but BM3D's says nothing about an image that
# differs by a hundredth of a grey level. (A line ends where the ratio is 0, as the median's does.)
#
# ## What follows for Eq. (4)
#
# Where $x - f(x)$ is not the gradient of $\rho$, **RED's steps do not minimise Eq. (4)**. If $J$ is not
# symmetric, $x - f(x)$ is the gradient of no function at all (Reehorst and Schniter 2019), so that
# no other objective repairs this. A plot of Eq. (4) such as the paper's Figure 3 (notebook
# [07](07_super_resolution.ipynb)) shows that the iteration settles. The curve need not fall, and its
# minimum need not be the best image (notebook [03](03_red.ipynb)). What is solved is the balance of two
# forces, and this is all that Algorithm 1 uses.
#
# ## The near dead-end
#
# Why not put $x = \mathcal{T}_\Theta(z)$ into Eq. (4) and let backpropagation do the rest? Because $f$
# would have to be differentiated. For BM3D the last figure shows what such a derivative is worth. For
# our small learned denoiser, however, it is one line, since a data term of one's own (`likelihood`) may
# be any function of $\mathbf{H}\mathcal{T}_\Theta(z)$ and $y$. The following cells solve a denoising
# problem in three ways, with the same $f$ and $\lambda$.

# %%
y = degrade(x, Identity(), 25 / 255, seed)
settings = deepred.preset("paper").replace(channels=16, runs=1, iterations=p.live(400))
settings = settings.replace(sigma_f=level)
lam, calls = settings.lam, Counter()

# %% [markdown]
# **Direct**: Eq. (4) as it stands, with gradients through the denoiser.


# %%
def direct(Tz, y):
    """Eq. (4) with x = T(z)."""
    calls["direct"] += 1
    return 0.5 * (Tz - y).square().sum() + lam * red.rho(Tz, network(Tz, level))


# %% [markdown]
# **Linearised**: with $\nabla\rho = x - f(x)$ the denoiser does not have to be differentiated here,
# either. A linear term whose gradient with respect to $\mathcal{T}_\Theta(z)$ is $x - f(x)$ propagates
# this gradient back through the network, and $f$ may be any denoiser.


# %%
def linearised(Tz, y):
    """The data term, and a linear one whose gradient is lam (x - f(x)) at x = T(z)."""
    calls["linearised"] += 1
    with torch.no_grad():
        pull = red.gradient(Tz, network(Tz, level))
    return 0.5 * (Tz - y).square().sum() + lam * (pull * Tz).sum()


# %% [markdown]
# **ADMM**: Algorithm 1 of the paper, which calls $f$ once in ten iterations.


# %%
def counted(x, sigma):
    """The same f, and how often it is called."""
    calls["ADMM"] += 1
    return learned(x, sigma)


# %% [markdown]
# For DIP and all three ways we compare the same quantity, the mean of the last hundred outputs of the
# network, over three runs with other noise and other weights.


# %%
def tracker():
    """PSNR of the mean of the last hundred outputs, every ten iterations."""
    mean = stopping.SlidingMean(100)

    def look(state):
        now = mean.update(state)
        return {"psnr": metrics.psnr(now, x)} if state.k % 10 == 0 else None

    return look


# %%
ways = {
    "DIP": dict(method="dip"),
    "direct": dict(method="dip", likelihood=direct),
    "linearised": dict(method="dip", likelihood=linearised),
    "ADMM": dict(denoiser=counted),
}


def solved(s):
    """One run of each way with seed s: PSNR over the iterations."""
    y = degrade(x, Identity(), 25 / 255, s)
    common = dict(settings=settings, device=p.device, seed=s)
    return {
        name: deepred.restore(y, callback=tracker(), **way, **common).curve("psnr")
        for name, way in ways.items()
    }


# %%
runs = [solved(s) for s in range(seed, seed + 3)]

# %% tags=["nbval-ignore-output"]
rows = []
for name in ways:
    psnr = [run[name][1] for run in runs]
    best, last = (sum(map(g, psnr)) / 3 for g in (max, lambda values: values[-1]))
    rows.append((name, calls[name] // 3, f"{best:.2f}", f"{last:.2f}"))
columns = ["way", "calls of f", "best PSNR [dB]", "last PSNR [dB]"]
Markdown(tables.markdown(pd.DataFrame(rows, columns=columns)))

# %% tags=["nbval-ignore-output"]
figure, axis = plt.subplots(figsize=(7, 3.2))
colours = {"DIP": "dip", "direct": "red", "linearised": "dip-2", "ADMM": "deepred"}
colours = {name: plots.COLOURS[c] for name, c in colours.items()}
plots.curves(axis, runs[0], "PSNR [dB]", colours=colours)
axis.set_ylim(bottom=20 if p.profile != "smoke" else None)
plots.save(figure, p.figures, "red_direct")

# %% tags=["remove-cell"]
assert calls["direct"] >= 3 * settings.iterations > 5 * calls["ADMM"]
last = {row[0]: float(row[3]) for row in rows}
if p.unchanged:
    assert last["ADMM"] > max(last["direct"], last["linearised"]) + 0.1
    assert last["direct"] > last["DIP"] + 0.1 and last["linearised"] > last["direct"] - 0.3

# %% [markdown]
# **What we see.** Both ways through the network work, and the prior helps DIP. The linearised one is
# about as good as the direct one, although by the table above their gradients differ considerably. As
# for RED alone, it matters that the force leads to cleaner images, and not that it is the gradient of
# Eq. (4). So the "near dead-end" concerns the direct way only: the denoiser never has to be
# differentiated, with or without ADMM.
#
# ADMM also saves calls of $f$: it makes one in ten iterations, which may run beside the network's steps,
# where the other ways need one in each. Even four small layers may cost more than the network's own
# step, and about twice that with their derivative; BM3D takes longer than many steps of the network. All
# three ways are within 0.2 dB at their best. ADMM falls later and ends 0.7 to 0.9 dB higher, probably because its penalty
# $\tfrac\mu2 \lVert x - \mathcal{T}_\Theta(z) - u\rVert^2$ holds the network back from the noise as well.
#
# ## Exercises
#
# **In code.** Estimate the product $Jx$ of NLM's Jacobian with the first noisy patch itself by a central
# difference with a step of $10^{-4}$ (`spots[0]`, and `g`, which is NLM). Replace `None`:

# %% tags=["exercise"]
g, t = candidates["NLM"], spots[0]
Jx = None
right = (g(1.0001 * t) - g(0.9999 * t)) / 2e-4
print(notebook.check(Jx, right))

# %% tags=["solution", "hide-cell"]
h = 1e-4
Jx = (g(t + h * t) - g(t - h * t)) / (2 * h)
print(notebook.check(Jx, right))

# %% [markdown]
# **To try and to think about.**
#
# 1. How far is $Jx$ from $f(x)$, relative to $f(x)$? Compare with the column *homogeneity* of the table.
# 2. Measure the conditions at the clean patches (`places`) instead of the noisy ones; then at the
#    noisy ones with `step=1e-3`. Which numbers stay, and what does the mismatch say?
# 3. Of the denoisers in the table, which would you choose for RED if convergence mattered more than
#    quality?
#
# <details><summary>Answers</summary>
#
# 1. `(Jx - g(t)).norm() / g(t).norm()` is the definition of that column (the table has the mean over the
#    two patches).
# 2. At the clean patches nearly all stay. But the grey values of a photograph are rounded, so that the
#    median has ties, where it has no derivative: its mismatch rises, and its homogeneity and radius
#    become unreliable. With the large step the differences for BM3D straddle jumps: its mismatch rises
#    to about 1, and this $J$ is an artefact.
# 3. Total variation: its Jacobian is nearly symmetric and its norm is at most 1.
# </details>
#
# ## Further reading
#
# - Y. Romano, M. Elad and P. Milanfar, *The Little Engine That Could: Regularization by Denoising
#   (RED)*, SIAM Journal on Imaging Sciences 10, 2017,
#   [arXiv:1611.02862](https://arxiv.org/abs/1611.02862).
# - E. T. Reehorst and P. Schniter, *Regularization by Denoising: Clarifications and New
#   Interpretations*, IEEE Transactions on Computational Imaging 5, 2019,
#   [arXiv:1806.02296](https://arxiv.org/abs/1806.02296).
# - K. Zhang, W. Zuo, Y. Chen, D. Meng and L. Zhang, *Beyond a Gaussian denoiser: residual learning
#   of deep CNN for image denoising*, IEEE Transactions on Image Processing 26, 2017: DnCNN.
