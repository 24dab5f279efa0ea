# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Section 2.3: regularisation by denoising
#
# **Goals.** Turn a denoiser into a prior, Eq. (3), and see what it measures. Restore with it alone.
# Measure on real denoisers the conditions under which its gradient is what RED says it is. Try what
# the paper calls a near dead-end, differentiating through the denoiser, and see what it costs.
#
# **The claim.** Of any denoiser $f$ one can make a prior, $\rho(x) = \tfrac12 x^T(x - f(x))$.
# "Under mild conditions" (footnote 4: $f$ differentiable, locally homogeneous, passive, with a
# symmetric Jacobian) its gradient is simply $x - f(x)$, and $\rho$ is convex (Romano, Elad and
# Milanfar 2017).
#
# **Time.** Everything runs live, in about a minute on one core.

# %% tags=["parameters"]
profile = "quick"
images = None
seeds = None
iterations = None
device = "auto"
results = "../data/results"
figures = ""

# %%
from deepred.paper import notebook

p = notebook.parameters(globals())

# %%
from collections import Counter
from functools import partial
from itertools import pairwise
from math import nan

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown
from torch import nn

import deepred
from deepred import denoisers, metrics, red
from deepred.beyond import conditions, stopping
from deepred.denoise.nlm import nlm_torch
from deepred.io import datasets
from deepred.operators import Blur, Identity, degrade
from deepred.paper import plots, tables

plots.use_style()

# %% [markdown]
# ## What Eq. (3) measures
#
# $x - f(x)$ is what the denoiser would remove. $\rho(x) = \tfrac12 x^T (x - f(x))$ is small if that
# is little, or if it is uncorrelated with the image. In code Eq. (3) is one line,
# `red.rho(x, fx)`. Here it is for a clean picture, the same blurred, and with more and more noise:

# %%
image = (p.images or ["builtin/chelsea"])[0]
seed = (p.seeds or [0])[0]
x = notebook.load(image, 64)


def f(t):
    """Non-local means, told to expect noise of level 20."""
    return denoisers.nlm(t, 20 / 255)


# %%
variants = {"clean": x, "blurred": Blur.gaussian(9, 1.5)(x)}
variants |= {f"σ = {s}": degrade(x, Identity(), s / 255, seed, clip=False) for s in (5, 10, 20, 40)}
rho = {name: red.rho(v, f(v)).item() for name, v in variants.items()}
panels = {f"{name}\nρ = {rho[name]:.2f}": v for name, v in variants.items()}
plots.save(plots.compare(panels), p.figures, "red_rho")

# %%
assert rho["blurred"] < rho["clean"] < rho["σ = 5"] < rho["σ = 10"] < rho["σ = 20"]

# %% [markdown]
# **What we see.** $\rho$ rises with the noise, as long as the denoiser takes it for noise: told to
# expect 20, it takes the patterns of 40 for structure, and $\rho$ no longer tells how much there is. And it likes the blurred picture best of
# all: RED by itself has nothing against smooth images. The data term must hold the details.
#
# ## RED on its own
#
# With $\nabla\rho = x - f(x)$ the minimum of Eq. (1) is where two pulls are in balance,
#
# $$\mathbf{H}^T(\mathbf{H}x - y) + \lambda \big(x - f(x)\big) = 0.$$
#
# RED's fixed-point strategy solves it with the denoised image of the step before,
# $(\mathbf{H}^T\mathbf{H} + \lambda) x_{k+1} = \mathbf{H}^T y + \lambda f(x_k)$, without any
# network (`red.solve`; with the presets' settings it is `deepred.restore(y, H, method="red")`).
# Deblurring with two denoisers: NLM, and a slight Gaussian blur.

# %%
H, lam, level = Blur.uniform(9), 0.03, 5 / 255
y = degrade(x, H, 2**0.5 / 255, seed)
smoother = Blur.gaussian(5, 0.6)
simple = {"NLM": partial(denoisers.nlm, sigma=level), "Gaussian filter": smoother}


def state(x_k, g):
    """PSNR, Eq. (1) and how far the two pulls are from balance, all at x_k."""
    residual, fx = H(x_k) - y, g(x_k)
    objective = 0.5 * residual.square().sum() + lam * red.rho(x_k, fx)
    balance = H.adjoint(residual) + lam * red.gradient(x_k, fx)
    return metrics.psnr(x_k, x), objective.item(), balance.norm().item()


# %%
steps = range(1, p.live(60) + 1)
alone = {
    name: [state(x_k, g) for _, (x_k, _) in zip(steps, red.solve(y, H, g, lam))]
    for name, g in simple.items()
}

# %% tags=["nbval-ignore-output"]
labels = ["PSNR [dB]", "½‖Hx − y‖² + λρ(x)", "‖Hᵀ(Hx − y) + λ(x − f(x))‖"]
figure, axes = plt.subplots(1, 3, figsize=(11, 3))
for axis, label, i in zip(axes, labels, range(3)):
    plots.curves(axis, {n: (steps, [t[i] for t in ts]) for n, ts in alone.items()}, label)
axes[1].set_yscale("log")
axes[2].set_yscale("log")
plots.save(figure, p.figures, "red_alone")

# %%
quality, _, balance = zip(*alone["NLM"])
print(f"blurred {metrics.psnr(y, x):.1f} dB, best with NLM {max(quality):.1f} dB")

# %%
if p.profile != "smoke" and p.images is None and p.seeds is None and p.iterations is None:
    assert max(quality) > metrics.psnr(y, x) + 5 and max(quality) > quality[-1] + 1
    assert min(balance) < balance[0] / 30 and balance[-1] > min(balance)
    assert alone["Gaussian filter"][-1][2] < 1e-4

# %% [markdown]
# **What we see.** With the Gaussian filter the pulls come ever closer to balance, and only at the end
# does rounding begin to show: it meets the conditions, so there is a minimum to arrive at. With NLM
# the best image is far better, and it never settles: the imbalance falls to a fiftieth and stays there, and
# from the fifteenth step on the image gets worse, while Eq. (1) goes on falling. The next part
# measures why. With such a denoiser one has to stop in time, or to have another prior beside it,
# such as a network.
#
# ## The conditions, measured
#
# Whether $x - f(x)$ is the gradient of $\rho$ can be computed on a small patch, with the whole
# Jacobian $J$ by differences. The gradient of Eq. (3) is
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
# - **norm**: $\lVert J\rVert_2$, the most that a small change grows by; the radius for a symmetric
#   $J$;
# - **kinks**: how far $f(x + h) + f(x - h)$ is from $2 f(x)$ against $f(x + h) - f(x - h)$, for
#   random $h$ of a quarter of a grey level: 0 for a linear $f$;
# - **gradient**: the error of $x - f(x)$, relative to the true gradient of $\rho$;
# - **mismatch**: that of the true gradient itself, against differences of $\rho$ in random
#   directions. It is no condition, it says whether $J$ can be trusted.
#
# Reehorst and Schniter (2019) measured the same on patches of this size; their errors are the
# squares of these (and one of their two measures of homogeneity is $10^{-6}$ times the square of
# ours, by definition: it is not divided by its step of $10^{-3}$).
#
# A learned denoiser is among the eight, trained here on three photographs for some seconds, for
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
network.requires_grad_(False)
learned = denoisers.learned(network)

# %% tags=["nbval-ignore-output"]
z = degrade(x, Identity(), 2 * level, seed, clip=False)
for name, image in [
    ("noise of level 10", z),
    ("NLM", denoisers.nlm(z, 2 * level)),
    ("learned", learned(z, 2 * level)),
]:
    print(f"{name}: {metrics.psnr(image, x):.2f} dB")

# %% [markdown]
# Now the measurement, at two grey patches of 16 × 16 pixels with noise of level 10, which all
# denoisers are told: each Jacobian has 256 × 256 entries. NLM is the one in torch, as scikit-image
# rounds its weights to $2^{-20}$, too coarse for differences of $10^{-7}$.

# %%
names = {"NLM": nlm_torch, "BM3D": denoisers.named("bm3d"), "TV": denoisers.tv}
names |= {"wavelet": denoisers.wavelet, "bilateral": denoisers.bilateral}
names |= {"median": denoisers.median, "learned": learned}
candidates = {"Gaussian filter": smoother}
candidates |= {name: partial(g, sigma=2 * level) for name, g in names.items()}
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

# %%
filtered = means["Gaussian filter"]
assert max(filtered[key] for key in ("homogeneity", "asymmetry", "kinks", "gradient")) < 1e-5
assert filtered["radius"] < 1 + 1e-6
if p.profile != "smoke" and p.images is None and p.seeds is None:
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
# (Two dots a denoiser, one a patch; what is below $10^{-5}$ is drawn there.)
#
# **What we see.** The Gaussian filter, linear and symmetric, meets all conditions to rounding. No
# other does.
#
# - *Homogeneity* is off by some per cent, for NLM and the wavelets by about a tenth: all of these
#   compare with a $\sigma$ that does not grow with the image. Of the nonlinear ones only the median
#   has it exactly.
# - *Symmetry* fails most for the median and for NLM, where each pixel chooses its neighbours or
#   normalises its weights on its own, and clearly for BM3D. TV comes closest: exactly solved, it is
#   the minimiser of $\tfrac12\lVert v - x\rVert^2$ plus a convex function of $v$, and the map from
#   $x$ to that has a symmetric Jacobian.
# - *Passivity* fails for NLM and the wavelets, by little or nothing for the others. But the norm
#   shows that the median, with a radius of 1, more than doubles some changes. TV enlarges nothing.
# - *Differentiability*: the next figure.
# - *The gradient*: for every real denoiser $x - f(x)$ is wrong by a fifth of the true gradient or
#   far more. Even a small asymmetry is enough: $x$ is large against $x - f(x)$, so that a few per
#   cent of $J^T x$ weigh as much as all that is removed.
#
# ## Can it be differentiated?
#
# The same ratio for changes of other sizes. Where $f$ is smooth it falls in proportion to the
# change; where $f$ jumps it does not.

# %% tags=["nbval-ignore-output"]
changes = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
bends = {
    name: [conditions.kinks(candidates[name], spots[0], change) or nan for change in changes]
    for name in ("BM3D", "NLM", "median", "wavelet", "TV", "bilateral")
}
figure, axis = plt.subplots(figsize=(7, 3.2))
grey_levels = [255 * change for change in changes]
lines = {name: (grey_levels, values) for name, values in bends.items()}
plots.curves(axis, lines, "kinks", xlabel="change [grey levels of 255]")
axis.set(xscale="log", yscale="log", ylim=(1e-6, 3))
axis.legend(ncols=2, loc="lower right")
plots.save(figure, p.figures, "red_kinks")

# %%
assert bends["bilateral"][3] < bends["bilateral"][1] / 50
if p.profile != "smoke" and p.images is None and p.seeds is None:
    assert bends["BM3D"][2] > 0.5 and bends["TV"][3] < bends["TV"][2] / 5

# %% [markdown]
# **What we see.** The bilateral filter is smooth, and TV is below a tenth of a grey level; above,
# its iterations stop one earlier or later. The wavelets have bends, which are met less and less
# often. NLM drops weights below $e^{-5}$, and BM3D selects blocks and cuts coefficients off: their
# lines stay up until the change is so small that no threshold lies within. They have a derivative
# at almost every image. BM3D's says nothing about an image that differs by a hundredth of a grey
# level; NLM's is off by a tenth. (A line ends where the ratio is 0, as the median's.)
#
# ## What follows for Eq. (4)
#
# Where $x - f(x)$ is not the gradient of $\rho$, **Eq. (4) is not what RED's steps minimise**. If
# $J$ is not symmetric, $x - f(x)$ is the gradient of no function at all (Reehorst and Schniter
# 2019), so that no other objective mends this. A plot of Eq. (4) such as the paper's Figure 3
# (notebook [06](06_super_resolution.ipynb)) shows that something settles; it need not fall, and its
# lowest point need not be the best image, as above. What is solved is the balance of two pulls, and
# that is all that Algorithm 1 uses.
#
# ## The near dead-end
#
# Why not put $x = \mathcal{T}_\Theta(z)$ into Eq. (4) and let backpropagation do the rest? Then $f$
# has to be differentiated. For most denoisers this is, in the paper's words, "a daunting task that
# must be avoided"; for BM3D the last figure shows why. For our small learned denoiser it is one line, since a data term of one's own (`likelihood`) may
# be any function of $\mathbf{H}\mathcal{T}_\Theta(z)$ and $y$. Here is denoising, with the same $f$
# and $\lambda$ in three ways.

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
# **Linearised**: if one believes in $\nabla\rho = x - f(x)$, nothing has to be differentiated here,
# either. A linear term whose gradient in $\mathcal{T}_\Theta(z)$ is $x - f(x)$ sends just that back
# through the network, and $f$ may be anything.


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
# What is compared is the same of all four: the mean of the last hundred outputs of the network.


# %%
def tracker():
    """PSNR of the mean of the last hundred outputs, every ten iterations."""
    mean = stopping.SlidingMean(100)

    def look(state):
        now = mean.update(state)
        return {"psnr": metrics.psnr(now, x)} if state.k % 10 == 0 else None

    return look


# %%
common = dict(settings=settings, device=p.device, seed=seed)
dip = dict(method="dip", **common)
results = {
    "DIP": deepred.restore(y, callback=tracker(), **dip),
    "direct": deepred.restore(y, likelihood=direct, callback=tracker(), **dip),
    "linearised": deepred.restore(y, likelihood=linearised, callback=tracker(), **dip),
    "ADMM": deepred.restore(y, denoiser=counted, callback=tracker(), **common),
}

# %% tags=["nbval-ignore-output"]
lines = {name: result.curve("psnr") for name, result in results.items()}
rows = []
for name, result in results.items():
    each, psnr = result.seconds / len(result.history["run"]), lines[name][1]
    rows.append(
        (name, calls[name], f"{1000 * each:.0f}", f"{psnr.max():.2f}", f"{psnr[-1]:.2f}")
    )  # fmt: skip
columns = ["method", "calls of f", "ms an iteration", "best PSNR [dB]", "last PSNR [dB]"]
Markdown(tables.markdown(pd.DataFrame(rows, columns=columns)))

# %% tags=["nbval-ignore-output"]
figure, axis = plt.subplots(figsize=(7, 3.2))
colours = {"DIP": "dip", "direct": "red", "linearised": "dip-2", "ADMM": "deepred"}
plots.curves(
    axis, lines, "PSNR [dB]", colours={name: plots.COLOURS[c] for name, c in colours.items()}
)  # fmt: skip
axis.set_ylim(bottom=20 if p.profile != "smoke" else None)
plots.save(figure, p.figures, "red_direct")

# %%
assert calls["direct"] >= settings.iterations > 5 * calls["ADMM"]
last = {name: psnr[-1] for name, (_, psnr) in lines.items()}
if p.profile != "smoke" and p.images is None and p.seeds is None and p.iterations is None:
    assert last["ADMM"] > max(last["direct"], last["linearised"]) + 0.1
    assert last["direct"] > last["DIP"] + 0.1 and last["linearised"] > last["direct"] - 0.3

# %% [markdown]
# **What we see.** Both ways through the network work, and the prior helps DIP. The linearised one
# is about as good as the direct one, although by the table above their gradients differ by more than
# half: as in RED alone, what matters is that the pull leads to cleaner images, and not that it
# belongs to Eq. (4). So "a near dead-end" is said of one road only: the differentiation can be
# spared without ADMM, too: what must not be differentiated need not be.
#
# What ADMM spares besides are calls of $f$: one in ten iterations, which may run beside the
# network's steps, where the others need one in each. Even four small layers may cost more than
# the network's own step, and about twice that if they are differentiated; BM3D takes longer
# than many steps of the network. At their best both ways are one or two tenths of a decibel ahead of
# ADMM here; ADMM falls later and ends higher, probably as its penalty $\tfrac\mu2 \lVert x - \mathcal{T}_\Theta(z) - u\rVert^2$
# holds the network back from the noise as well. (One picture and one seed: differences of a few tenths
# of a decibel may go either way on another.)
#
# ## Questions
#
# 1. Show that $\nabla\rho = x - \tfrac12 f(x) - \tfrac12 J^T x$, and that it is $x - f(x)$ under
#    the conditions.
# 2. For a linear $f(x) = Wx$ with $W$ not symmetric, which symmetric denoiser gives the same
#    $\rho$? What does RED with $W$ solve, then?
# 3. Measure the conditions at the clean patches (`places`) instead of the noisy ones; then at the
#    noisy ones with `step=1e-3`. Which numbers stay, and what does the mismatch say?
# 4. Why does the Gaussian filter, which meets all the conditions, restore so much less well in "RED
#    on its own"?
#
# <details><summary>Answers</summary>
#
# 1. The derivative of $x^T f(x)$ is $f(x) + J^T x$. Homogeneity,
#    $f((1 + \epsilon) x) = (1 + \epsilon) f(x)$, gives $Jx = f(x)$ in the limit, symmetry
#    $J^T x = J x$; so $\tfrac12 (f(x) + J^T x) = f(x)$.
# 2. $x^T W x = x^T \tfrac12 (W + W^T) x$: the symmetric part. RED's fixed point solves
#    $\mathbf{H}^T(\mathbf{H}x - y) + \lambda(x - Wx) = 0$, with $W$ itself: an equation whose left-hand
#    side is the gradient of no energy.
# 3. At the clean patches nearly all stay. But grey values of a photograph are rounded, so that the
#    median has ties, where it has no derivative: its mismatch rises to nearly 0.1, and with it its
#    homogeneity and radius go astray. With the large step,
#    BM3D's radius comes out as 4 or 11, and its mismatch as about 1: the differences straddle
#    jumps, and this $J$ is an artefact.
# 4. It treats edges as it treats noise. A good denoiser adapts to what it sees; the weights or
#    choices by which it does so depend on $x$, and there symmetry and homogeneity are lost.
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
# - S. V. Venkatakrishnan, C. A. Bouman and B. Wohlberg, *Plug-and-play priors for model based
#   reconstruction*, GlobalSIP 2013.
# - K. Zhang, W. Zuo, Y. Chen, D. Meng and L. Zhang, *Beyond a Gaussian denoiser: residual learning
#   of deep CNN for image denoising*, IEEE Transactions on Image Processing 26, 2017: DnCNN.
