# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Section 3: DeepRED, from Eq. (1) to Algorithm 1
#
# **Goals.** Follow the derivation of the algorithm, each equation beside the line of code that computes
# it. Write the whole of it by hand, in a dozen lines, and see that it is what the package does. Know
# which of its parameters matter.
#
# **The claim.** The prior of an untrained network and the prior of a denoiser can be had at once,
# without differentiating the denoiser, by ADMM; and a "tendency for a consistent descent and a
# convergence are obtained empirically" (Section 3.2). Table 1 has the parameters; how sensitive the
# result is to them the paper does not say.
#
# **Time.** The live parts take about half a minute; the maps at the end are of stored results.

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
import logging
from functools import partial

import matplotlib.pyplot as plt
import torch

import deepred
from deepred import metrics, networks, red
from deepred.denoisers import nlm
from deepred.errors import DivergedError
from deepred.operators import Blur, Identity, degrade
from deepred.paper import comparisons, plots, store

plots.use_style()

# %% [markdown]
# ## The objective
#
# Start from the inverse problem with a prior,
#
# $$\min_x \; \tfrac12 \lVert \mathbf{H}x - y\rVert_2^2 + \lambda\rho(x). \tag{1}$$
#
# DIP drops $\rho$ and demands that the image be a network's output
# (notebook [02](02_deep_image_prior.ipynb)),
#
# $$\min_\Theta \; \lVert \mathbf{H}\mathcal{T}_\Theta(z) - y\rVert_2^2. \tag{2}$$
#
# RED keeps $\rho$ and makes it of a denoiser (notebook [03](03_red.ipynb)),
#
# $$\rho(x) = \tfrac12\, x^T \big(x - f(x)\big). \tag{3}$$
#
# Do both, and keep the two apart by a constraint:
#
# $$\min_{x,\Theta}\; \tfrac12 \lVert \mathbf{H}\mathcal{T}_\Theta(z) - y\rVert_2^2 + \tfrac\lambda2\,
#   x^T\big(x - f(x)\big) \quad\text{s.t.}\quad x = \mathcal{T}_\Theta(z). \tag{4}$$
#
# Why introduce $x$ at all, if it must equal the network's output? So that the two terms can be treated
# apart: the network needs gradients, the denoiser can only be called. (What happens without $x$ is in
# notebook [03](03_red.ipynb), too.)
#
# ## Multipliers
#
# The augmented Lagrangian adds a multiplier for the constraint, one number a pixel, and a penalty. The
# multiplier is written $\mu u$, so that $u$ is in the unit of the image:
#
# $$\min_{x,\Theta}\; \tfrac12 \lVert \mathbf{H}\mathcal{T}_\Theta(z) - y\rVert_2^2 + \tfrac\lambda2 x^T(x - f(x))
#   + \tfrac\mu2 \lVert x - \mathcal{T}_\Theta(z)\rVert_2^2 - \mu u^T (x - \mathcal{T}_\Theta(z)). \tag{5}$$
#
# Now $\tfrac\mu2\lVert a\rVert^2 - \mu u^T a = \tfrac\mu2\lVert a - u\rVert^2 - \tfrac\mu2\lVert u\rVert^2$, and the last term
# contains neither $x$ nor $\Theta$. With $a = x - \mathcal{T}_\Theta(z)$ the problem is
#
# $$\min_{x,\Theta}\; \tfrac12 \lVert \mathbf{H}\mathcal{T}_\Theta(z) - y\rVert_2^2 + \tfrac\lambda2 x^T(x - f(x))
#   + \tfrac\mu2 \lVert x - \mathcal{T}_\Theta(z) - u\rVert_2^2. \tag{6}$$
#
# The identity, checked on numbers (with $\mu = 1$):

# %%
a, u = torch.randn(2, 100, dtype=torch.float64)
left = 0.5 * a @ a - u @ a
assert torch.isclose(left, 0.5 * (a - u) @ (a - u) - 0.5 * u @ u)

# %% [markdown]
# ADMM takes turns: minimise over $\Theta$ with $x$ and $u$ fixed, over $x$ with $\Theta$ and $u$ fixed, then change
# $u$ by the amount by which the constraint is violated.
#
# ## A small problem to work on

# %%
image = (p.images or ["builtin/chelsea"])[0]
seed = (p.seeds or [0])[0]
x_true = notebook.load(image, 64)
sigma, H = 25 / 255, Identity()
y = degrade(x_true, H, sigma, seed)
settings = deepred.preset("paper").replace(channels=16, runs=1, input_noise=0.0, smoothing=0.0)
lam, mu = settings.lam, settings.mu
print(f"λ = {lam}, μ = {mu}, noisy {metrics.psnr(y, x_true):.2f} dB")

# %% [markdown]
# The network with random weights $\Theta_0$ and its fixed random input $z$:

# %%
z, T = networks.initialise(
    lambda: networks.untrained((3, 64, 64), settings), settings, 1000 * seed, y
)
print("z:", tuple(z.shape), "T(z):", tuple(T(z).shape))

# %% [markdown]
# ## The Θ-update
#
# $$\Theta_{k+1} = \arg\min_\Theta\; \tfrac12 \lVert \mathbf{H}\mathcal{T}_\Theta(z) - y\rVert_2^2 +
#   \tfrac\mu2\lVert x_k - \mathcal{T}_\Theta(z) - u_k\rVert_2^2 \tag{7}$$
#
# is DIP's fit with a second target: the output is to stay near $x_k - u_k$, which the denoiser has seen.
# It is not solved: the authors' code takes one step of Adam on it in each iteration, and so do we (the paper says
# "steepest descent"; notebook [09](09_paper_and_code.ipynb) tries it).

# %%
adam = torch.optim.Adam(T.parameters(), settings.learning_rate, fused=True)


def theta_update(x, u):
    """One step on Eq. (7); returns the new T(z)."""
    Tz = T(z)
    loss = 0.5 * (H(Tz) - y).square().sum() + mu / 2 * (x - Tz - u).square().sum()
    adam.zero_grad()
    loss.backward()
    adam.step()
    return T(z).detach()


# %% [markdown]
# ## The x-update
#
# $$x_{k+1} = \arg\min_x\; \tfrac\lambda2 x^T (x - f(x)) + \tfrac\mu2 \lVert x - \mathcal{T}_\Theta(z) - u\rVert_2^2 \tag{8}$$
#
# is RED's problem of denoising $v = \mathcal{T}_\Theta(z) + u$. With $\nabla\rho = x - f(x)$ its derivative is zero
# where
#
# $$\lambda (x - f(x)) + \mu (x - \mathcal{T}_\Theta(z) - u) = 0, \tag{9}$$
#
# Taking $f$ at the $x$ before,
#
# $$\lambda (x_{j+1} - f(x_j)) + \mu (x_{j+1} - \mathcal{T}_\Theta(z) - u) = 0, \tag{10}$$
#
# and solving for $x_{j+1}$ gives a weighted mean:
#
# $$x_{j+1} = \frac{1}{\lambda + \mu}\big(\lambda f(x_j) + \mu(\mathcal{T}_\Theta(z) + u)\big). \tag{11}$$
#
# In code: `red.fixed_point(fx, Tz + u, lam, mu)`. The other way is steepest descent on Eq. (8),
#
# $$x_{j+1} = x_j - c\,[\lambda (x_j - f(x_j)) + \mu (x_j - \mathcal{T}_\Theta(z) - u)], \tag{12}$$
#
# `red.steepest_descent(x, fx, Tz + u, lam, mu, c)`. With $c = 1/(\lambda+\mu)$ it is Eq. (11).

# %%
x, fx, v = torch.rand(3, 1, 3, 8, 8)
same = red.steepest_descent(x, fx, v, lam, mu, 1 / (lam + mu))
assert torch.allclose(same, red.fixed_point(fx, v, lam, mu), atol=1e-6)

# %% [markdown]
# ## How large may c be?
#
# "$c$ should be chosen so as to guarantee a descent", says the paper. If $f$ were linear with eigenvalues
# $w$ between 0 and 1, each step would multiply the error by $1 - c(\lambda(1 - w) + \mu)$, which stays between
# $-1$ and 1 as long as $c < 2/(\lambda + \mu)$. Two denoisers on our picture: a Gaussian filter, which is such
# an $f$, and NLM, which is not linear. Forty steps of Eq. (12) with a fixed $v = y$, and the distance to
# where Eq. (11) ends:

# %%
filters = {"Gaussian filter": Blur.gaussian(9, 1.5), "NLM": partial(nlm, sigma=sigma)}


def distances(f, c, steps=40):
    """Root mean square distance to the fixed point after each step of Eq. (12)."""
    end = y
    for _ in range(60):
        end = red.fixed_point(f(end), y, lam, mu)
    x, found = torch.zeros_like(y), []
    for _ in range(steps):
        x = red.steepest_descent(x, f(x), y, lam, mu, c)
        found.append((x - end).square().mean().sqrt().item())
    return found


# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.3), sharey=True)
ends = {}
for axis, (name, f) in zip(axes, filters.items()):
    found = {share: distances(f, share / (lam + mu)) for share in (0.25, 1, 1.5, 1.9, 2.1, 4.1)}
    lines = {f"{share:g}/(λ+μ)": (range(1, 41), values) for share, values in found.items()}
    plots.curves(axis, lines, "distance to the fixed point (RMS)", xlabel="step j")
    axis.set(yscale="log", title=name, ylim=(1e-6, 30))
    ends[name] = {share: values[-1] for share, values in found.items()}
axes[0].get_legend().remove()
axes[1].set_ylabel("")
axes[1].legend(title="c", loc="upper left", bbox_to_anchor=(1, 1))
plots.save(figure, p.figures, "deepred_steps")

# %%
if p.images is None:
    assert max(ends["Gaussian filter"][c] for c in (0.25, 1, 1.5, 1.9)) < 0.02
    assert ends["Gaussian filter"][2.1] > 0.5
    assert max(ends["NLM"][c] for c in (0.25, 1, 1.5)) < 0.02
    assert 0.01 < ends["NLM"][2.1] < 0.5 < ends["NLM"][4.1]

# %% [markdown]
# **What we see.** For the filter the bound is sharp: a little below it the error still shrinks, a little
# above it explodes. For NLM $c = 1.5/(\lambda+\mu)$ is the fastest of these, and already at 1.9 it does not converge:
# its Jacobian has other eigenvalues than the theory allows (notebook [03](03_red.ipynb)). But it does not explode
# either: what has grown large, NLM takes for structure and leaves alone; then only the $\mu$ term pulls it back, and
# the bound becomes $2/\mu$, here $4/(\lambda + \mu)$. The fixed point is the safe choice, and a fast one.
#
# ## The u-update, and all of it
#
# The multiplier climbs: the gradient of Eq. (5) in $u$ is $-\mu(x - \mathcal{T}_\Theta(z))$, and an ascent step of
# $1/\mu$ along it is
#
# $$u_{k+1} = u_k - x_{k+1} + \mathcal{T}_{\Theta_{k+1}}(z).$$
#
# Algorithm 1 with $J = 1$, $f$ called every ten iterations, is then:

# %%
count = p.live(60)
x, u = y.clone(), torch.zeros_like(y)  # x_0 = y, u_0 = 0
engine = deepred.compute.engine.Engine()  # torch's own operations, as above and in the solver below
with engine.session():
    for k in range(1, count + 1):
        if k == 1 or k % settings.denoise_every == 0:
            fx = nlm(x, settings.sigma_f)
        Tz = theta_update(x, u)  # Eq. (7)
        x = red.fixed_point(fx, Tz + u, lam, mu)  # Eq. (11)
        u = u - x + Tz

# %% [markdown]
# The package's solver (`deepred.solver.ADMM`) does the same, and also survives a lost fit or an interruption, and runs
# on several devices. That it is the same algorithm can be seen to the last bit, where both leave the network to torch (by
# default the package computes it with kernels of its own, which round in another order):

# %%
once = settings.replace(iterations=count)
result = deepred.restore(y, settings=once, seed=seed, engine=engine)
print("largest difference:", (result.image - x).abs().max().item())

# %%
assert torch.equal(result.image, x)

# %% [markdown]
# ## The four images at work
#
# What the loop holds, as pictures: 128 × 128 pixels of a cat, $\sigma = 25$, preset `fast` with NLM for $f$.
# $u$ and $f(x) - x$ are small, so they are enlarged five times around grey.

# %%
when = [k for k in (20, 100, 300, 600) if k <= p.live(600)] or [p.live(600)]
seen = {}


def keep(state):
    """A callback of `restore`, called with every state."""
    if state.k in when:
        seen[state.k] = state


cat = notebook.load("builtin/chelsea")
watched = deepred.preset("fast", denoiser="nlm").replace(iterations=p.live(600))
noisy = degrade(cat, H, sigma, seed)
_ = deepred.restore(noisy, settings=watched, sigma=sigma, seed=seed, callback=keep, device=p.device)

# %% tags=["nbval-ignore-output"]
panels = {f"T(z), k = {k}": state.output for k, state in seen.items()}
panels |= {f"x, k = {k}": state.x for k, state in seen.items()}
panels |= {f"0.5 + 5 u, k = {k}": 0.5 + 5 * state.u for k, state in seen.items()}
panels |= {f"0.5 + 5 (f(x) − x), k = {k}": 0.5 + 5 * (s.fx - s.x) for k, s in seen.items()}
plots.save(plots.compare(panels, columns=len(seen), width=9.0), p.figures, "deepred_images")

# %% [markdown]
# **What we see.** The network draws large shapes first, then the rims of the eyes, then the fur. $x$ is the
# same picture without the grain of a single output: a mean of it and of what the denoiser makes of an
# earlier $x$. $u$ remembers where the two still disagree, at $k = 100$ in the outline of the eye and the
# colour of the skin beside it, and pulls the network there; it fades as they agree. $f(x) - x$ is what the
# denoiser would still change. It opposes $u$: where Eq. (9) holds, $\lambda (f(x) - x)$ and $\mu u$ cancel once
# $x = \mathcal{T}_\Theta(z)$.
#
# ## How large may c be in Algorithm 1?
#
# Smaller than for Eq. (8) alone, since $u$ answers every step. With $\mathcal{T}$ and $f(x)$ fixed the errors of $x$ and
# $u$ follow a linear recursion of two numbers a pixel. Its matrix has the trace $2 - c(\lambda + 2\mu)$ and the determinant
# $1 - c(\lambda + \mu)$, and both eigenvalues are inside the unit circle as long as
#
# $$c < \frac{4}{2\lambda + 3\mu},$$
#
# which is $1.6$ for $\lambda = \mu = .5$, where $2/(\lambda + \mu)$ would be 2.


# %%
def radius(c):
    """The largest eigenvalue's modulus of the recursion of (x, u)."""
    a = 1 - c * (lam + mu)
    return torch.linalg.eigvals(torch.tensor([[a, c * mu], [-a, 1 - c * mu]])).abs().max().item()


for c in (0.25, 1, 1.5, 1.59, 1.61, 1.75):
    print(f"c = {c:<5g} largest eigenvalue {radius(c):.3f}")

# %%
assert radius(1.59) < 1 < radius(1.61)

# %% [markdown]
# And the solver itself? It checks its fit every 25 iterations, returns to the last good state when the fit is lost, and
# gives up after three returns:

# %% tags=["nbval-ignore-output"]
logging.getLogger("deepred").setLevel(logging.ERROR)  # it tells of each return
steepest = settings.replace(x_update="steepest-descent", iterations=100)
outcomes = {}
for c in (1.5, 1.75):
    try:
        deepred.restore(y, settings=steepest.replace(c=c), seed=seed, device=p.device)
        outcomes[c] = "done"
    except DivergedError as error:
        outcomes[c] = str(error).partition(":")[0]
    print(f"c = {c}: {outcomes[c]}")

# %%
assert outcomes[1.5] == "done" != outcomes[1.75]

# %% [markdown]
# ## Which parameters matter
#
# Nothing of this says what $\lambda$ and $\mu$ should be. The maps are of denoising at $\sigma = 25$ with preset
# `paper`, narrowed to 16 channels, one run of 1000 iterations with one seed, mean of two crops of 64 × 64 pixels: the
# PSNR at the end, and at each run's best iteration, which one could not know. (`deepred run --profile paper --only
# sensitivity` makes them again.)

# %%
stored = store.read_runs(p.stored("paper"))
maps = {
    "last iteration": comparisons.sensitivity_map(stored),
    "best iteration": comparisons.sensitivity_map(stored, "best_psnr"),
}
plots.save(plots.weights_map(maps), p.figures, "deepred_weights")

# %%
end, best = maps.values()
if end.notna().all(axis=None):
    assert end.loc[1.5, 0.5] > end.loc[0.05, 0.5] + 1  # a heavier prior overfits less

# %% [markdown]
# And one parameter at a time, $\lambda = \mu = 0.5$:

# %%
titles = {
    "sigma_f": "σ_f, of 255", "denoise_every": "denoiser every … iterations",
    "inner_steps": "J, inner steps", "lag": "lag of f(x), in intervals",
    "input_noise": "noise on z", "c": "c of Eq. (12)",
}  # fmt: skip
lines = {title: comparisons.sensitivity_line(stored, name) for name, title in titles.items()}
lines["σ_f, of 255"]["value"] *= 255
usual = {title: getattr(settings, name) for name, title in titles.items()}
usual |= {"σ_f, of 255": 3, "noise on z": 0.033, "c of Eq. (12)": 1}

# %%
study = comparisons.of(stored, "sensitivity")
figure = plots.parameter_lines(lines, usual, study[study["method"] == "dip"]["dB"].mean())
plots.save(figure, p.figures, "deepred_parameters")

# %% [markdown]
# **What we see.** At the last iteration heavier priors are better, by more than three decibels over the map, since they keep the
# network from the noise; at the best iteration, which nobody knows, all values of $\mu$ and a thirtyfold range of $\lambda$ (0.05
# to 1.5) lie within one decibel. Table 1's values for denoising are light ones, on pictures this small: they move the overfitting
# later and do not end it (notebook [05](05_denoising.ipynb) has the weights that grow). At $\lambda = 5$ the picture may not be
# finished after 1000 iterations.
#
# Of the rest one thing matters far more than all others: **the noise on $z$**. Three times Table 1's value brings 2.9 dB at the
# last iteration (1.3 dB at the best), without any other change. It is what notebook [09](09_paper_and_code.ipynb) finds behind
# the authors' uniform input. A small step $c$ of Eq. (12) acts like a heavier prior, as $x$ moves slowly: 0.25 brings 1.6 dB at the
# last iteration. A stronger denoiser ($\sigma_f$ of 10) brings 1.1. How often the denoiser is called, how many times ($J$) and
# how late change 0.6 dB at most, which two pictures and one seed cannot tell from chance: the paper's choices to save time cost
# nothing that one could see here.
#
# ## Questions
#
# 1. For $\mu \to 0$ with $\lambda = 0$, what do the three updates become? And for $\lambda \to \infty$ with $\mu$ fixed?
# 2. At a fixed point of Algorithm 1, $x = \mathcal{T}_\Theta(z)$. Which equation does $u$ satisfy there, and what is
#    the gradient of Eq. (7) with respect to the network's output?
# 3. Replace Adam's one step by ten steps an iteration (`theta_steps=10`) with a tenth of the iterations. Same
#    number of gradient steps: same picture?
#
# <details><summary>Answers</summary>
#
# 1. $x = v$, $u_{k+1} = u_k - (\mathcal{T} + u_k) + \mathcal{T} = 0$, and Eq. (7) is DIP's Eq. (2): the package's DIP is this
#    loop with $\lambda = \mu = 0$. For large $\lambda$, $x = f(x)$: the image is the denoiser's alone, and the network follows.
# 2. Eq. (9) gives $\lambda(x - f(x)) = \mu u$, so that $u$ is what the denoiser would remove, times $\lambda/\mu$. The
#    gradient of Eq. (7) is $\mathbf{H}^T(\mathbf{H}\mathcal{T} - y) + \mu (\mathcal{T} - x + u) = \mathbf{H}^T(\mathbf{H}x - y) + \lambda (x - f(x))$:
#    RED's equation, with the network's image for $x$.
# 3. Not the same: between two x-updates the network follows $y$ ten times as long. It costs the same, since nearly all
#    the time goes into the network.
# </details>
#
# ## Further reading
#
# - G. Mataev, M. Elad and P. Milanfar, *DeepRED: Deep Image Prior Powered by RED*, ICCV Workshops 2019, Sections 3.1
#   and 3.2, [arXiv:1903.10176](https://arxiv.org/abs/1903.10176).
# - S. Boyd, N. Parikh, E. Chu, B. Peleato and J. Eckstein, *Distributed optimization and statistical learning via
#   the alternating direction method of multipliers*, Foundations and Trends in Machine Learning 3, 2011.
# - M. V. Afonso, J. M. Bioucas-Dias and M. A. T. Figueiredo, *Fast image recovery using variable splitting and
#   constrained optimization*, IEEE Transactions on Image Processing 19, 2010: the scaled form.
# - J. Liu, Y. Sun, X. Xu and U. S. Kamilov, *Image restoration using total variation regularized deep image
#   prior*, ICASSP 2019, [arXiv:1810.12864](https://arxiv.org/abs/1810.12864).
