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
# **The claim.** Of any denoiser $f$ one can make a prior, $\rho(x) = \tfrac12 x^T(x - f(x))$. "Under
# mild conditions" (footnote 4: $f$ differentiable, locally homogeneous, passive, with a symmetric
# Jacobian) its gradient is simply $x - f(x)$, and $\rho$ is convex (Romano, Elad and Milanfar 2017).
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
from deepred import notebook

p = notebook.parameters(globals())

# %%
from functools import partial
from itertools import pairwise

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown
from torch import nn

import deepred
from deepred import conditions, datasets, denoisers, metrics, plots, red, tables
from deepred.operators import Blur, Identity, degrade

plots.use_style()

# %% [markdown]
# ## What Eq. (3) measures
#
# $x - f(x)$ is what the denoiser would remove. $\rho(x) = \tfrac12 x^T (x - f(x))$ is small if that is
# little, or if it has nothing to do with the image. In code Eq. (3) is one line, `red.rho(x, fx)`.
# Here it is for a clean picture, the same blurred, and with more and more noise:

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
# expect 20, it may hold the patterns of 40 for structure. And it likes the blurred picture best of all:
# RED by itself has nothing against smooth images. The data term must hold the details.
#
# ## RED on its own
#
# With $\nabla\rho = x - f(x)$ the minimum of Eq. (1) satisfies $\mathbf{H}^T(\mathbf{H}x - y) + \lambda (x -
# f(x)) = 0$. RED's fixed-point strategy solves that with the denoised image of the step before:
# $(\mathbf{H}^T\mathbf{H} + \lambda) x_{k+1} = \mathbf{H}^T y + \lambda f(x_k)$. No network, a few seconds:

# %%
H = Blur.uniform(9)
y = degrade(x, H, 2**0.5 / 255, seed)
track = metrics.tracker(x)
settings = deepred.preset("fast", "deblur", "red").replace(iterations=p.live(30))
each = metrics.tracker(x, every=1)
alone = deepred.restore(y, H, method="red", settings=settings, callback=each, device=p.device)
print(f"blurred {metrics.psnr(y, x):.1f} dB, RED {metrics.psnr(alone.image, x):.1f} dB")

# %%
if p.profile != "smoke" and p.images is None:
    assert metrics.psnr(alone.image, x) > metrics.psnr(y, x) + 3

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3))
plots.curves(axes[0], {"PSNR of x": alone.curve("psnr")}, "PSNR [dB]")
plots.curves(axes[1], {"Eq. (1)": alone.curve("objective")}, "½‖Hx − y‖² + λρ(x)")
plots.save(figure, p.figures, "red_alone")

# %% [markdown]
# ## The conditions, measured
#
# Whether $x - f(x)$ is the gradient of $\rho$ can be computed on a small patch, with all of the
# Jacobian $J$ by differences: the gradient of Eq. (3) is $x - \tfrac12 f(x) - \tfrac12 J^T x$, whatever $f$ is,
# if it can be differentiated. It is $x - f(x)$ if $J^T x = f(x)$: if $J$ is symmetric, and $J x = f(x)$,
# which is local homogeneity. `conditions.measure` computes, for each $f$,
#
# - **homogeneity**: $\lVert Jx - f(x)\rVert / \lVert f(x)\rVert$, ideally 0;
# - **asymmetry**: $\lVert J - J^T\rVert_F / \lVert J\rVert_F$, ideally 0, and $\sqrt2$ if $J$ and $J^T$ have
#   nothing in common;
# - **radius**: the largest modulus of an eigenvalue of $J$; $f$ is passive if it is at most 1;
# - **kinks**: how much the derivatives from both sides disagree, for steps of $10^{-4}$;
# - **gradient**: the error of $x - f(x)$ as the gradient of $\rho$, relative to itself.
#
# A learned denoiser is among the nine, trained here on three photographs for some seconds:


# %%
class Residual(nn.Module):
    """The noise, by four convolutions (Zhang and others 2017 have seventeen): grey or colour."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        sizes = [1, width, width, width, 1]
        layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes)]
        self.body = nn.Sequential(*(m for c in layers[:-1] for m in (c, nn.ReLU())), layers[-1])

    def forward(self, x, sigma):
        planes = x.flatten(0, 1)[:, None]  # each channel on its own
        return x - sigma * self.body(planes).reshape(x.shape)


# %%
level = 5 / 255  # of the noise that it learns to remove
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
    noisy = clean + level * torch.randn(clean.shape, generator=generator)
    loss = (network(noisy, level) - clean).square().mean()
    adam.zero_grad()
    loss.backward()
    adam.step()
network.requires_grad_(False)
learned = denoisers.learned(network)

# %% tags=["nbval-ignore-output"]
z = degrade(x, Identity(), level, seed, clip=False)
for name, g in [("NLM", denoisers.nlm), ("learned", learned)]:
    print(
        f"noise of level 5: {metrics.psnr(z, x):.2f} dB, {name} {metrics.psnr(g(z, level), x):.2f} dB"
    )

# %% [markdown]
# Now the measurement, at a grey patch of 16 × 16 pixels with noise of the denoisers' level: its Jacobian
# has 256 × 256 entries.

# %%
candidates = {"Gaussian filter": Blur.gaussian(5, 0.6)}
names = {"nlm": "NLM", "bm3d": "BM3D", "tv": "TV", "wavelet": "wavelet"}
names |= {"bilateral": "bilateral", "median": "median"}
for key, name in names.items():
    candidates[name] = partial(denoisers.named(key), sigma=2 * level)
candidates["learned"] = partial(learned, sigma=level)
size = 10 if p.profile == "smoke" else 16
patch = x.mean(1, keepdim=True)[..., 20 : 20 + size, 20 : 20 + size].double()
patch = patch + 2 * level * torch.randn(patch.shape, generator=generator)

# %%
found = {name: conditions.measure(g, patch) for name, g in candidates.items()}
rows = [(name, *(f"{v:.2g}" for v in vars(c).values())) for name, c in found.items()]
table = pd.DataFrame(rows, columns=["denoiser", *vars(found["NLM"])])

# %% tags=["nbval-ignore-output"]
Markdown(tables.markdown(table))

# %%
smoother = found["Gaussian filter"]
assert max(smoother.homogeneity, smoother.asymmetry, smoother.kinks, smoother.gradient) < 1e-6
assert smoother.radius < 1 + 1e-6
if p.profile != "smoke":
    assert all(found[name].asymmetry > 0.2 for name in ("NLM", "BM3D", "median"))
    assert all(found[name].gradient > 0.1 for name in names.values())

# %% tags=["nbval-ignore-output"]
titles = {
    "homogeneity": "homogeneity", "asymmetry": "asymmetry of J", "radius": "spectral radius",
    "kinks": "kinks", "gradient": "error of the gradient",
}  # fmt: skip
figure, axes = plt.subplots(1, 5, figsize=(12, 3.2), sharey=True)
for axis, (field, title) in zip(axes, titles.items()):
    values = [max(getattr(c, field), 1e-6) for c in found.values()]
    axis.plot(values, range(len(found)), "o", color=plots.COLOURS["deepred"])
    axis.axvline(1, color="black", lw=0.7, ls=":")
    axis.set(title=title, xscale="linear" if field == "radius" else "log")
axes[0].set_yticks(range(len(found)), found)
axes[0].invert_yaxis()
plots.save(figure, p.figures, "red_conditions")

# %% [markdown]
# **What we see.** The Gaussian filter, linear and symmetric, meets all conditions to rounding. No
# denoiser that one would use does. Homogeneity is off by some per cent (NLM: by a quarter; the median has it exactly). The Jacobians of NLM, BM3D and
# the median are far from symmetric: each pixel normalises its weights, or chooses its neighbours, on its
# own. TV, which minimises something, and wavelets are nearly symmetric. BM3D jumps: it
# selects what it stacks, and its derivatives from the two sides have little to do with each other. Most have a direction in which they amplify a little. (Dots at $10^{-6}$ are below that.)
#
# The last column is what follows: $x - f(x)$ misses the gradient of Eq. (3) by as much as itself and
# more, for every real denoiser. Even TV with its nearly symmetric Jacobian misses it: $x$ is large
# against $x - f(x)$, so that a few per cent of $J^T x$ weigh as much as all that is removed. Reehorst and
# Schniter (2019) found the same on other denoisers and images.
#
# So **Eq. (4) is not what DeepRED minimises**, and a plot of it (the paper's Figure 3, notebook
# [06](06_super_resolution.ipynb)) need not fall. What is solved is the equation of the fixed point: an image at
# which the pull of the data and the denoiser's are in balance. That is also all that Algorithm 1 uses.
#
# ## The near dead-end
#
# Why not put $x = \mathcal{T}_\Theta(z)$ into Eq. (4) and let backpropagation do the rest? Then $f$ has to be
# differentiated. For BM3D that is hopeless, as the paper says; for our small learned denoiser it is one
# line, since a data term of one's own may be any function of $\mathbf{H}\mathcal{T}_\Theta(z)$ and $y$:

# %%
y = degrade(x, Identity(), 25 / 255, seed)
settings = deepred.preset("paper").replace(
    channels=16, runs=1, iterations=p.live(500), sigma_f=level
)  # fmt: skip
lam = settings.lam


def direct(Tz, y):
    """Eq. (4) with x = T(z): gradients flow through the denoiser."""
    return 0.5 * (Tz - y).square().sum() + lam * red.rho(Tz, network(Tz, level))


# %%
common = dict(settings=settings, callback=track, device=p.device, seed=seed)
results = {
    "DIP": deepred.restore(y, method="dip", **common),
    "direct": deepred.restore(y, method="dip", likelihood=direct, **common),
    "ADMM": deepred.restore(y, denoiser=learned, **common),
}

# %% tags=["nbval-ignore-output"]
rows = []
for name, result in results.items():
    iteration, psnr = result.curve("psnr")
    milliseconds = 1000 * result.seconds / len(result.history["run"])
    rows.append((name, f"{milliseconds:.0f}", f"{psnr.max():.2f}", f"{psnr[-1]:.2f}"))
columns = ["method", "ms an iteration", "best PSNR [dB]", "last PSNR [dB]"]
Markdown(tables.markdown(pd.DataFrame(rows, columns=columns)))

# %%
figure, axis = plt.subplots(figsize=(7, 3.2))
lines = {name: result.curve("psnr") for name, result in results.items()}
colours = {"DIP": plots.COLOURS["dip"], "direct": plots.COLOURS["red"]}
plots.curves(axis, lines, "PSNR [dB]", colours=colours | {"ADMM": plots.COLOURS["deepred"]})
plots.save(figure, p.figures, "red_direct")

# %%
last = {name: lines[name][1][-1] for name in lines}
if p.profile != "smoke" and p.images is None and p.iterations is None:
    assert last["ADMM"] > last["direct"] > last["DIP"]
    assert results["direct"].seconds > 1.2 * results["ADMM"].seconds

# %% [markdown]
# **What we see.** The direct way works, and the prior helps DIP. But every iteration now runs the denoiser
# forwards and backwards at the full size, where ADMM calls it once in ten iterations, and without a graph:
# nearly twice the time even with a denoiser of four small layers. And ADMM ends higher: its second
# penalty, $\tfrac\mu2 \lVert x - \mathcal{T}_\Theta(z) - u\rVert^2$, holds the network back from the noise as well.
#
# ## Questions
#
# 1. Show that $\nabla\rho = x - \tfrac12 f(x) - \tfrac12 J^T x$, and that it is $x - f(x)$ under the conditions.
# 2. For a linear $f(x) = Wx$ with $W$ not symmetric, which symmetric denoiser gives the same $\rho$? What does
#    RED with $W$ solve, then?
# 3. Measure the conditions at the clean patch instead of the noisy one, and with a `step` of $10^{-2}$. Which
#    numbers stay?
#
# <details><summary>Answers</summary>
#
# 1. The derivative of $x^T f(x)$ is $f(x) + J^T x$. Homogeneity, $f((1 + \epsilon) x) = (1 + \epsilon) f(x)$,
#    gives $Jx = f(x)$ in the limit, symmetry $J^T x = J x$; so $\tfrac12 (f(x) + J^T x) = f(x)$.
# 2. $x^T W x = x^T \tfrac12 (W + W^T) x$: the symmetric part. RED's fixed point solves
#    $\mathbf{H}^T(\mathbf{H}x - y) + \lambda(x - Wx) = 0$, with $W$ itself: the stationary point of no energy.
# 3. The conclusions stay: asymmetries of the same size for NLM, BM3D and the median. On the clean patch
#    most pixels lie on no threshold of BM3D's, so that its kinks are fewer.
# </details>
#
# ## Further reading
#
# - Y. Romano, M. Elad and P. Milanfar, *The Little Engine That Could: Regularization by Denoising (RED)*,
#   SIAM Journal on Imaging Sciences 10, 2017, [arXiv:1611.02862](https://arxiv.org/abs/1611.02862).
# - E. T. Reehorst and P. Schniter, *Regularization by Denoising: Clarifications and New Interpretations*,
#   IEEE Transactions on Computational Imaging 5, 2019,
#   [arXiv:1806.02296](https://arxiv.org/abs/1806.02296).
# - S. V. Venkatakrishnan, C. A. Bouman and B. Wohlberg, *Plug-and-play priors for model based
#   reconstruction*, GlobalSIP 2013.
# - K. Zhang, W. Zuo, Y. Chen, D. Meng and L. Zhang, *Beyond a Gaussian denoiser: residual learning of deep
#   CNN for image denoising*, IEEE Transactions on Image Processing 26, 2017: DnCNN.
