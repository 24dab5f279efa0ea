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
# it. Write all of it by hand, in a dozen lines, and see that the package does the same. Know which of
# its parameters matter.
#
# **The claim.** ADMM combines the prior of an untrained network with the prior of a denoiser, and the
# denoiser never has to be differentiated. A "tendency for a consistent descent and a convergence are
# obtained empirically" (Section 3.2). Table 1 lists the parameters; the paper does not say how
# sensitive the result is to them.
#
# **What you need.** Notebooks [02](02_deep_image_prior.ipynb) and [03](03_red.ipynb); Lagrange
# multipliers; about a minute on one core. The pictures come with scikit-image; the maps at the end show
# stored results.

# %% tags=["parameters", "hide-input"]
profile = "quick"
image = "builtin/chelsea"
seed = 0
iterations = None
device = "auto"
results = "../data/results"
figures = ""

# %% tags=["hide-input"]
import logging
from functools import partial

import torch
from matplotlib import pyplot as plt

import deepred
from deepred import metrics, networks, red
from deepred.denoisers import nlm
from deepred.errors import DivergedError
from deepred.operators import Blur, Identity, degrade
from deepred.paper import comparisons, notebook, plots, store
from deepred.paper.trace import Trace

p = notebook.parameters(globals(), "builtin/chelsea")
plots.use_style()

# %% [markdown]
# ## The objective
#
# Start from the inverse problem with a prior,
#
# $$\min_x \; \tfrac12 \lVert \mathbf{H}x - y\rVert_2^2 + \lambda\rho(x). \tag{1}$$
#
# DIP drops $\rho$ and requires the image to be a network's output
# (notebook [02](02_deep_image_prior.ipynb)),
#
# $$\min_\Theta \; \lVert \mathbf{H}\mathcal{T}_\Theta(z) - y\rVert_2^2. \tag{2}$$
#
# RED keeps $\rho$ and builds it from a denoiser (notebook [03](03_red.ipynb)),
#
# $$\rho(x) = \tfrac12\, x^T \big(x - f(x)\big). \tag{3}$$
#
# DeepRED does both, and couples the two by a constraint:
#
# $$\min_{x,\Theta}\; \tfrac12 \lVert \mathbf{H}\mathcal{T}_\Theta(z) - y\rVert_2^2 + \tfrac\lambda2\,
#   x^T\big(x - f(x)\big) \quad\text{s.t.}\quad x = \mathcal{T}_\Theta(z). \tag{4}$$
#
# Why introduce $x$ at all, if it must equal the network's output? So that the two terms can be treated
# separately: the network needs gradients, while the denoiser can only be called. (Notebook
# [04](04_denoisers.ipynb) shows what happens without $x$.)
#
# ## Multipliers
#
# The augmented Lagrangian adds a multiplier for the constraint, one number per pixel, and a penalty. The
# multiplier is written as $\mu u$, so that $u$ has the unit of the image:
#
# $$\min_{x,\Theta}\; \tfrac12 \lVert \mathbf{H}\mathcal{T}_\Theta(z) - y\rVert_2^2 + \tfrac\lambda2 x^T(x - f(x))
#   {} + \tfrac\mu2 \lVert x - \mathcal{T}_\Theta(z)\rVert_2^2 - \mu u^T (x - \mathcal{T}_\Theta(z)). \tag{5}$$
#
# Now $\tfrac\mu2\lVert a\rVert^2 - \mu u^T a = \tfrac\mu2\lVert a - u\rVert^2 - \tfrac\mu2\lVert u\rVert^2$, and the last term
# contains neither $x$ nor $\Theta$. With $a = x - \mathcal{T}_\Theta(z)$ the problem is
#
# $$\min_{x,\Theta}\; \tfrac12 \lVert \mathbf{H}\mathcal{T}_\Theta(z) - y\rVert_2^2 + \tfrac\lambda2 x^T(x - f(x))
#   {} + \tfrac\mu2 \lVert x - \mathcal{T}_\Theta(z) - u\rVert_2^2. \tag{6}$$
#
# The identity, checked on numbers (with $\mu = 1$):

# %%
a, u = torch.randn(2, 100, dtype=torch.float64)
left = 0.5 * a @ a - u @ a
assert torch.isclose(left, 0.5 * (a - u) @ (a - u) - 0.5 * u @ u)

# %% [markdown]
# ADMM alternates: minimise over $\Theta$ with $x$ and $u$ fixed, then over $x$ with $\Theta$ and $u$
# fixed, then change $u$ by the amount by which the constraint is violated.
#
# ## A small problem to work on

# %%
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
# is DIP's fit with a second target: the output is to stay near $x_k - u_k$, which the denoiser has
# influenced. It is not solved exactly. The authors' code takes one step of Adam in each iteration, and
# so do we. (The paper says "steepest descent"; notebook [11](11_paper_and_code.ipynb) tries it.)

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
# is RED's denoising of $v = \mathcal{T}_\Theta(z) + u$. With $\nabla\rho = x - f(x)$ its derivative is zero
# where
#
# $$\lambda (x - f(x)) + \mu (x - \mathcal{T}_\Theta(z) - u) = 0, \tag{9}$$
#
# Taking $f$ at the previous $x$,
#
# $$\lambda (x_{j+1} - f(x_j)) + \mu (x_{j+1} - \mathcal{T}_\Theta(z) - u) = 0, \tag{10}$$
#
# and solving for $x_{j+1}$ gives a weighted mean:
#
# $$x_{j+1} = \frac{1}{\lambda + \mu}\big(\lambda f(x_j) + \mu(\mathcal{T}_\Theta(z) + u)\big). \tag{11}$$
#
# In code: `red.fixed_point(fx, Tz + u, lam, mu)`. The alternative is steepest descent on Eq. (8),
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
# $w$ between 0 and 1, each step would multiply the error by $1 - c(\lambda(1 - w) + \mu)$, which stays
# between $-1$ and 1 as long as $c < 2/(\lambda + \mu)$. We try two denoisers: a Gaussian filter, which
# is such an $f$, and NLM, which is not linear. The figure shows forty steps of Eq. (12) with a fixed
# $v = y$, as the distance to the fixed point of Eq. (11):

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

# %% tags=["remove-cell"]
if p.unchanged:
    assert max(ends["Gaussian filter"][c] for c in (0.25, 1, 1.5, 1.9)) < 0.02
    assert ends["Gaussian filter"][2.1] > 0.5
    assert max(ends["NLM"][c] for c in (0.25, 1, 1.5)) < 0.02
    assert 0.01 < ends["NLM"][2.1] < 0.5 < ends["NLM"][4.1]

# %% [markdown]
# **What we see.** For the filter the bound is sharp: a little below it the error still shrinks, a little
# above it the error grows exponentially. For NLM $c = 1.5/(\lambda+\mu)$ is the fastest of these, and
# 1.9 does not converge: NLM's Jacobian has other eigenvalues than the theory allows (notebook
# [04](04_denoisers.ipynb)). But the error does not grow without limit, either. NLM takes a large error for
# structure and leaves it unchanged. Then only the $\mu$ term reduces it, and the bound becomes $2/\mu$,
# here $4/(\lambda + \mu)$. The fixed point is safe, and fast.
#
# ## The u-update, and all of it
#
# The multiplier is updated by gradient ascent. The gradient of Eq. (5) with respect to $u$ is
# $-\mu(x - \mathcal{T}_\Theta(z))$, and a step of $1/\mu$ along it is
#
# $$u_{k+1} = u_k - x_{k+1} + \mathcal{T}_{\Theta_{k+1}}(z).$$
#
# Algorithm 1 with $J = 1$, where $f$ is called every ten iterations, is then:

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
# The package's solver (`deepred.solver.ADMM`) does the same. It also recovers from a collapsed fit or an
# interruption, and runs on CPU and GPU. The two agree to the last bit if both compute the network with
# torch. (By default the package has its own kernels, which round in another order.)

# %%
once = settings.replace(iterations=count)
result = deepred.restore(y, settings=once, seed=seed, engine=engine)
print("largest difference:", (result.image - x).abs().max().item())

# %% tags=["remove-cell"]
assert torch.equal(result.image, x)

# %% [markdown]
# ## The four images at work
#
# The variables of the loop as pictures: 128 × 128 pixels of a cat, $\sigma = 25$, preset `fast` with NLM
# for $f$. $u$ and $f(x) - x$ are small and are shown five times enlarged, around grey.

# %%
when = [k for k in (20, 100, 300, 600) if k <= p.live(600)] or [p.live(600)]
seen = {}


def keep(state):
    """A callback of `restore`, called with every state."""
    if state.k in when:
        seen[state.k] = state


# %%
cat = notebook.load("builtin/chelsea")
watched = deepred.preset("fast", denoiser="nlm").replace(iterations=p.live(600))
noisy = degrade(cat, H, sigma, seed)
common = dict(settings=watched, sigma=sigma, seed=seed, device=p.device)
_ = deepred.restore(noisy, callback=keep, **common)

# %% tags=["nbval-ignore-output"]
panels = {f"T(z), k = {k}": state.output for k, state in seen.items()}
panels |= {f"x, k = {k}": state.x for k, state in seen.items()}
panels |= {f"0.5 + 5 u, k = {k}": 0.5 + 5 * state.u for k, state in seen.items()}
panels |= {f"0.5 + 5 (f(x) − x), k = {k}": 0.5 + 5 * (s.fx - s.x) for k, s in seen.items()}
plots.save(plots.compare(panels, columns=len(seen), width=9.0), p.figures, "deepred_images")

# %% [markdown]
# **What we see.** The network draws large shapes first, then the rim of the eye, then the fur. $x$ is
# the same picture without the grain of a single output: it is a mean of that output and of the denoised
# previous $x$. $u$ accumulates where the two disagree, at $k = 100$ along the outline of the eye and in the
# colour of the skin beside it, and draws the network there. It fades as the two come to agree.
# $f(x) - x$ is what the denoiser would still change. It is opposed to $u$: where Eq. (9) holds and
# $x = \mathcal{T}_\Theta(z)$, $\lambda (f(x) - x)$ and $\mu u$ cancel.
#
# ## The schedule: Figure 1
#
# Figure 1 of the paper is a drawing of the schedule: the denoiser runs beside the Θ-updates. Here it is
# drawn from measured times. Each call of the denoiser starts with the iteration that asks for it and runs
# in its own thread; its result is used ten iterations later.

# %% tags=["nbval-ignore-output"]
trace = Trace()
timed = dict(common, settings=watched.replace(iterations=60), callback=trace)
_ = deepred.restore(noisy, denoiser=trace.denoiser(nlm), **timed)
figure = plots.schedule(trace.steps[10:50], trace.calls[1:])
plots.save(figure, p.figures, "figure1")

# %% [markdown]
# As in the released code, $f(x)$ is one interval late (lag 1). NLM on a crop of this size takes about
# as long as one iteration. With BM3D, or with a GPU for the network, the lower bars would fill the row, and
# the schedule would save the most.
#
# ## How large may c be in Algorithm 1?
#
# Smaller than for Eq. (8) alone, since $u$ reacts to every step. With $\mathcal{T}$ and $f(x)$ fixed, the
# errors of $x$ and $u$ follow a linear recursion with two numbers per pixel. Its matrix has the trace
# $2 - c(\lambda + 2\mu)$ and the determinant $1 - c(\lambda + \mu)$. Both eigenvalues are inside the unit
# circle as long as
#
# $$c < \frac{4}{2\lambda + 3\mu},$$
#
# which is $1.6$ for $\lambda = \mu = 0.5$, where $2/(\lambda + \mu)$ would be 2.


# %%
def radius(c):
    """The largest eigenvalue's modulus of the recursion of (x, u)."""
    a = 1 - c * (lam + mu)
    return torch.linalg.eigvals(torch.tensor([[a, c * mu], [-a, 1 - c * mu]])).abs().max().item()


for c in (0.25, 1, 1.5, 1.59, 1.61, 1.75):
    print(f"c = {c:<5g} largest eigenvalue {radius(c):.3f}")

# %% tags=["remove-cell"]
assert radius(1.59) < 1 < radius(1.61)

# %% [markdown]
# And the solver itself? It checks the fit every 25 iterations, returns to the last good state if the fit
# has collapsed, and gives up after three returns:

# %% tags=["nbval-ignore-output"]
logging.getLogger("deepred").setLevel(logging.ERROR)  # it would report each return
steepest = settings.replace(x_update="steepest-descent", iterations=100)
outcomes = {}
for c in (1.5, 1.75):
    try:
        deepred.restore(y, settings=steepest.replace(c=c), seed=seed, device=p.device)
        outcomes[c] = "done"
    except DivergedError as error:
        outcomes[c] = str(error).partition(":")[0]
    print(f"c = {c}: {outcomes[c]}")

# %% tags=["remove-cell"]
assert outcomes[1.5] == "done" != outcomes[1.75]

# %% [markdown]
# ## Which parameters matter
#
# The derivation does not say what $\lambda$ and $\mu$ should be. The maps show denoising at $\sigma = 25$
# with preset `paper` reduced to 16 channels, one run of 1000 iterations with one seed, mean of two crops of
# 64 × 64 pixels: the PSNR at the end, and at each run's best iteration, which is unknown in practice.
# (`deepred run --profile paper --only sensitivity` recomputes them.)

# %%
stored = store.read_runs(p.stored("paper"))
maps = {
    "last iteration": comparisons.sensitivity_map(stored),
    "best iteration": comparisons.sensitivity_map(stored, "best_psnr"),
}
plots.save(plots.weights_map(maps), p.figures, "deepred_weights")

# %% tags=["remove-cell"]
end, best = maps.values()
if end.notna().all(axis=None):
    assert end.loc[1.5, 0.5] > end.loc[0.05, 0.5] + 1  # a heavier prior overfits less

# %% [markdown]
# The same numbers as lines over $\lambda$, for one $\mu$ at a time (the slider needs a running kernel):

# %% tags=["nbval-ignore-output"]
by_figure = {}
for value in maps["last iteration"].columns:
    by_figure[f"{value:g}"], axis = plt.subplots(figsize=(6, 3))
    both = {name: (table.index, table[value]) for name, table in maps.items()}
    plots.curves(axis, both, "PSNR [dB]", xlabel="λ")
    axis.set(xscale="log", ylim=(22.5, 29.5), title=f"μ = {value:g}")
notebook.slider(by_figure, "0.5", "μ")

# %% [markdown]
# And one parameter at a time, with $\lambda = \mu = 0.5$:

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
# **What we see.** At the last iteration heavier priors are better, by more than three decibels over the
# map, since they keep the network from learning the noise. At the best iteration all values of $\mu$ and a
# thirtyfold range of $\lambda$ (0.05 to 1.5) lie within one decibel. On pictures this small, Table 1's
# values for denoising are light: they delay the overfitting and do not end it. (Notebook
# [06](06_denoising.ipynb) has weights that grow.) At $\lambda = 5$ some pictures are not finished after
# 1000 iterations.
#
# Of the other parameters one matters far more than the rest, **the noise on $z$**. Three times Table 1's
# value brings 2.9 dB at the last iteration (1.3 dB at the best), without any other change. Notebook
# [11](11_paper_and_code.ipynb) finds the same mechanism behind the authors' uniform input. Two others act
# like a heavier prior in these runs, which overfit. A small step $c$ of Eq. (12) slows $x$ down: 0.25
# brings 1.6 dB at the last iteration. A larger $\sigma_f$, 10 instead of 3, brings 1.1 dB (0.5 at the
# best). With weights that grow, which already hold the noise back, the larger $\sigma_f$ helps only a
# good denoiser (notebook [10](10_open_questions.ipynb)). How often the denoiser is called, how many times
# ($J$) and how late change 0.6 dB at most, which two pictures and one seed cannot distinguish from chance.
# So the paper's choices to save time cost nothing that could be measured here.
#
# ## Exercises
#
# **In code.** Write the x-update, Eq. (11), yourself, from `fx`, the network's output `Tz`, `u`, `lam` and
# `mu`. Replace `None`:

# %% tags=["exercise"]
new_x = None
print(notebook.check(new_x, red.fixed_point(fx, Tz + u, lam, mu)))

# %% tags=["solution", "hide-cell"]
new_x = (lam * fx + mu * (Tz + u)) / (lam + mu)
print(notebook.check(new_x, red.fixed_point(fx, Tz + u, lam, mu)))

# %% [markdown]
# **To think about.**
#
# 1. For $\mu \to 0$ with $\lambda = 0$, what do the three updates become? And for $\lambda \to \infty$ with $\mu$ fixed?
# 2. At a fixed point of Algorithm 1, $x = \mathcal{T}_\Theta(z)$. Which equation does $u$ satisfy there, and what is
#    the gradient of Eq. (7) with respect to the network's output?
# 3. Take ten steps of Adam in each iteration (`theta_steps=10`) and a tenth of the iterations. The number
#    of gradient steps is the same. Is the picture?
#
# <details><summary>Answers</summary>
#
# 1. $x = v$, $u_{k+1} = u_k - (\mathcal{T} + u_k) + \mathcal{T} = 0$, and Eq. (7) is DIP's Eq. (2): the
#    package's DIP is this loop with $\lambda = \mu = 0$. For large $\lambda$, $x = f(x)$: the denoiser alone
#    determines the image, and the network follows.
# 2. Eq. (9) gives $\lambda(x - f(x)) = \mu u$, so that $u$ is what the denoiser would remove, times $\lambda/\mu$. The
#    gradient of Eq. (7) is $\mathbf{H}^T(\mathbf{H}\mathcal{T} - y) + \mu (\mathcal{T} - x + u) = \mathbf{H}^T(\mathbf{H}x - y) + \lambda (x - f(x))$:
#    RED's equation, with the network's image for $x$.
# 3. No: between two x-updates the network follows $y$ for ten times as many steps. The cost is the same,
#    since the network takes nearly all of the time.
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
