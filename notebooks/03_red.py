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
# **Goals.** Turn a denoiser into a prior, Eq. (3), and see what it measures. Restore a blurred picture
# with it alone. See what the weight $\lambda$ does, and that the best picture need not be the end of the
# iteration.
#
# **The claim.** Any denoiser $f$ gives a prior, $\rho(x) = \tfrac12 x^T(x - f(x))$. Under "mild
# conditions" its gradient is simply $x - f(x)$, and $\rho$ is convex (Romano, Elad and Milanfar 2017).
# Notebook [04](04_denoisers.ipynb) measures these conditions.
#
# **What you need.** Gradients of quadratic forms; half a minute on one core. The picture comes with
# scikit-image.

# %% tags=["parameters", "hide-input"]
profile = "quick"
image = "builtin/chelsea"
seed = 0
iterations = None
device = "auto"
results = "../data/results"
figures = ""

# %% tags=["hide-input"]
from functools import partial

from matplotlib import pyplot as plt

from deepred import denoisers, metrics, red
from deepred.operators import Blur, Identity, degrade
from deepred.paper import notebook, plots

p = notebook.parameters(globals(), "builtin/chelsea")
plots.use_style()

# %% [markdown]
# ## What Eq. (3) measures
#
# $x - f(x)$ is what the denoiser would remove. $\rho(x) = \tfrac12 x^T (x - f(x))$ is small if that is
# little, or if it is uncorrelated with the image. In code Eq. (3) is one line, `red.rho(x, fx)`. Here is
# its value for a clean picture, for the same picture blurred, and with more and more noise:

# %%
x = notebook.load(image)


def f(t):
    """Non-local means, told to expect noise of level 20."""
    return denoisers.nlm(t, 20 / 255)


# %%
variants = {"clean": x, "blurred": Blur.gaussian(9, 1.5)(x)}
variants |= {f"σ = {s}": degrade(x, Identity(), s / 255, seed, clip=False) for s in (5, 10, 20, 40)}
rho = {name: red.rho(v, f(v)).item() for name, v in variants.items()}
panels = {f"{name}\nρ = {rho[name]:.1f}": v for name, v in variants.items()}
plots.save(plots.compare(panels, columns=3, width=8), p.figures, "red_rho")

# %% tags=["remove-cell"]
assert rho["blurred"] < rho["clean"] < rho["σ = 5"] < rho["σ = 10"] < rho["σ = 20"]

# %% [markdown]
# **What we see.** $\rho$ rises with the noise as long as the denoiser recognises it as noise. Told to
# expect a level of 20, it takes part of the noise of level 40 for structure, and $\rho$ no longer
# tells how much there is. And $\rho$ is smallest for the blurred picture: RED by itself does not object
# to smooth images. The data term must keep the details.
#
# ## RED on its own
#
# With $\nabla\rho = x - f(x)$ the minimum of Eq. (1) is where two forces are in balance,
#
# $$\mathbf{H}^T(\mathbf{H}x - y) + \lambda \big(x - f(x)\big) = 0.$$
#
# RED's fixed-point strategy solves this equation with the denoised image of the previous step,
#
# $$(\mathbf{H}^T\mathbf{H} + \lambda)\, x_{k+1} = \mathbf{H}^T y + \lambda f(x_k),$$
#
# without any network. In code it is `red.solve`, and with the settings of the presets
# `deepred.restore(y, H, method="red")`. Here is a deblurring with two denoisers, NLM and a slight
# Gaussian blur.

# %%
H, lam, level = Blur.uniform(9), 0.03, 5 / 255
y = degrade(x, H, 2**0.5 / 255, seed)
smoother = Blur.gaussian(5, 0.6)
simple = {"NLM": partial(denoisers.nlm, sigma=level), "Gaussian filter": smoother}

# %%
steps = range(1, p.live(60) + 1)
iterates = {
    name: [x_k for _, (x_k, _) in zip(steps, red.solve(y, H, g, lam))] for name, g in simple.items()
}


# %%
def state(x_k, g):
    """PSNR, Eq. (1) and how far the two forces are from balance, all at x_k."""
    residual, fx = H(x_k) - y, g(x_k)
    objective = 0.5 * residual.square().sum() + lam * red.rho(x_k, fx)
    balance = H.adjoint(residual) + lam * red.gradient(x_k, fx)
    return metrics.psnr(x_k, x), objective.item(), balance.norm().item()


alone = {name: [state(x_k, simple[name]) for x_k in found] for name, found in iterates.items()}

# %% tags=["nbval-ignore-output"]
labels = ["PSNR [dB]", "½‖Hx − y‖² + λρ(x)", "‖Hᵀ(Hx − y) + λ(x − f(x))‖"]
figure, axes = plt.subplots(1, 3, figsize=(11, 3))
for i, (axis, label) in enumerate(zip(axes, labels)):
    plots.curves(axis, {n: (steps, [t[i] for t in ts]) for n, ts in alone.items()}, label)
axes[1].set_yscale("log")
axes[2].set_yscale("log")
plots.save(figure, p.figures, "red_alone")

# %% tags=["nbval-ignore-output"]
quality, _, balance = zip(*alone["NLM"])
best = quality.index(max(quality))
shown = {"blurred": y, f"NLM, step {best + 1}": iterates["NLM"][best]}
shown[f"NLM, step {len(steps)}"] = iterates["NLM"][-1]
shown[f"Gaussian, step {len(steps)}"] = iterates["Gaussian filter"][-1]
panels = {f"{name}\n{metrics.psnr(z, x):.1f} dB": z for name, z in shown.items()}
plots.save(plots.compare({"truth": x, **panels}, inset=(20, 30, 56)), p.figures, "red_deblurred")

# %% tags=["remove-cell"]
if p.unchanged:
    assert max(quality) > metrics.psnr(y, x) + 3 and max(quality) > quality[-1] + 0.3
    assert min(balance) < balance[0] / 30 and balance[-1] >= min(balance)
    assert alone["Gaussian filter"][-1][2] < balance[-1] / 10

# %% [markdown]
# **What we see.** With the Gaussian filter the two forces come ever closer to balance. This filter meets
# RED's conditions, so that a minimum exists and the iteration converges to it. With NLM the edges are
# sharper after about ten steps, but the iteration does not settle. The imbalance falls to a small value
# and stays there, isolated wrong pixels appear, and the image gets worse while Eq. (1) goes on falling.
# Notebook [04](04_denoisers.ipynb) measures why. With such a denoiser one has to stop in time, or combine it
# with another prior, such as a network.
#
# ## The weight of the prior
#
# $\lambda$ balances data and prior. The slider (it needs a running kernel) shows 25 steps with NLM for
# six values.


# %%
def solved(lam):
    """The image after 25 steps of RED's fixed point with NLM."""
    for _, (x_k, _) in zip(range(25), red.solve(y, H, simple["NLM"], lam)):
        pass
    return x_k


by_weight = {lam: solved(lam) for lam in (0.001, 0.003, 0.01, 0.03, 0.1, 1.0)}

# %% tags=["nbval-ignore-output"]
by_figure = {}
for weight, z in by_weight.items():
    panels = {"blurred": y, f"λ = {weight:g}, {metrics.psnr(z, x):.1f} dB": z, "truth": x}
    by_figure[weight] = plots.compare(panels, inset=(20, 30, 56), width=8)
notebook.slider(by_figure, 0.03, "λ")

# %% tags=["remove-cell"]
by_quality = {weight: metrics.psnr(z, x) for weight, z in by_weight.items()}
if p.unchanged:
    assert max(by_quality, key=by_quality.get) not in (0.001, 1.0)

# %% [markdown]
# With a small $\lambda$ the division by the blur's small frequencies amplifies the noise. With a large one
# the image stays smooth.
#
# ## Exercises
#
# **In code.** Write RED's fixed point for denoising, $\mathbf{H} = \mathbf{I}$: one step from $x_k = y$
# with $\lambda = 0.5$ and the `smoother`. Replace `None`:

# %% tags=["exercise"]
y = degrade(x, Identity(), 25 / 255, seed)
step = None
first, _ = next(red.solve(y, Identity(), smoother, 0.5))
print(notebook.check(step, first))

# %% tags=["solution", "hide-cell"]
step = (y + 0.5 * smoother(y)) / 1.5
print(notebook.check(step, first))

# %% [markdown]
# **To think about.**
#
# 1. Show that $\nabla\rho = x - \tfrac12 f(x) - \tfrac12 J^T x$ with the Jacobian $J$ of $f$. When is it
#    $x - f(x)$?
# 2. For a linear $f(x) = Wx$ with $W$ not symmetric, which symmetric denoiser gives the same
#    $\rho$? What does RED with $W$ solve, then?
# 3. The Gaussian filter meets all the conditions. Why is it no good denoiser, and why do the good ones fail
#    the conditions?
#
# <details><summary>Answers</summary>
#
# 1. The derivative of $x^T f(x)$ is $f(x) + J^T x$. It is $x - f(x)$ if $J^T x = f(x)$. Homogeneity,
#    $f((1 + \epsilon) x) = (1 + \epsilon) f(x)$, gives $Jx = f(x)$ in the limit, and symmetry
#    $J^T x = J x$.
# 2. $x^T W x = x^T \tfrac12 (W + W^T) x$: the symmetric part. RED's fixed point solves
#    $\mathbf{H}^T(\mathbf{H}x - y) + \lambda(x - Wx) = 0$, with $W$ itself. The left-hand side of this
#    equation is the gradient of no energy.
# 3. It treats edges as it treats noise. A good denoiser adapts to what it sees: its weights or choices
#    depend on $x$, and this is where symmetry and homogeneity are lost.
# </details>
#
# ## Further reading
#
# - Y. Romano, M. Elad and P. Milanfar, *The Little Engine That Could: Regularization by Denoising
#   (RED)*, SIAM Journal on Imaging Sciences 10, 2017,
#   [arXiv:1611.02862](https://arxiv.org/abs/1611.02862).
# - S. V. Venkatakrishnan, C. A. Bouman and B. Wohlberg, *Plug-and-play priors for model based
#   reconstruction*, GlobalSIP 2013.
