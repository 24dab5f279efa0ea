# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Start here: restoring a picture with two priors
#
# **What you will see.** A photograph drowned in noise comes back, in about a minute on a laptop,
# without a single training image. Three parts make it happen. The last two are shown alone before all
# three work together:
#
# 1. the **data term**, which keeps the result true to what was measured;
# 2. an **untrained network**, whose architecture prefers natural images to noise
#    (*deep image prior*, DIP);
# 3. a **denoiser**, which tells of any image how far from clean it looks
#    (*regularisation by denoising*, RED).
#
# DeepRED (Mataev, Elad and Milanfar, 2019) is the three together.
#
# **What you need.** To know what a convolution is; about a minute on one core; no data, as the
# picture comes with scikit-image.

# %% tags=["parameters", "hide-input"]
profile = "quick"
image = "builtin/chelsea"
seed = 0
iterations = None
device = "auto"
results = "../data/results"
figures = ""

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import torch

import deepred
from deepred import metrics
from deepred.denoisers import nlm
from deepred.operators import Identity, degrade
from deepred.paper import notebook, plots

p = notebook.parameters(globals(), "builtin/chelsea")
plots.use_style()

# %% [markdown]
# ## The problem
#
# A camera delivers $y = \mathbf{H} x + v$: the picture $x$ that we want, degraded by some
# $\mathbf{H}$ (a blur, a smaller size, lost pixels), plus noise $v$. Here $\mathbf{H}$ is the
# identity, and the noise is Gaussian with $\sigma = 25$ on the scale of 0 to 255, which is a lot. As
# in the paper's experiments, the noisy picture is then cut to the range of an image.
#
# Our picture is the eye of Chelsea, scikit-image's cat. In this package an image is a tensor of
# shape (1, channels, height, width) with values from 0 to 1.

# %%
x = notebook.load(image)
sigma = 25 / 255
H = Identity()
y = degrade(x, H, sigma, seed)
print(tuple(y.shape), f"{metrics.psnr(y, x):.1f} dB")

# %% [markdown]
# PSNR, in decibels, measures how close an image is to the truth: 6 dB more is half the error. The
# solver never sees the truth; only the measurements in this notebook do.
#
# ## The denoiser alone
#
# Non-local means (NLM) replaces each pixel by an average of the pixels whose surroundings look
# alike. It is fast, and good at flat regions. Where nothing else in the picture looks alike, for
# example at the rim of the pupil, the noise stays.

# %% tags=["nbval-ignore-output"]
denoised = nlm(y, sigma)
print(f"NLM alone: {metrics.psnr(denoised, x):.2f} dB")

# %% tags=["remove-cell"]
assert not p.unchanged or metrics.psnr(denoised, x) > metrics.psnr(y, x) + 7

# %% [markdown]
# ## The network alone
#
# Take an hourglass network $\mathcal{T}_\Theta$ with random weights $\Theta$, feed it a fixed
# random tensor $z$, and fit the weights so that its output matches the **noisy** picture, Eq. (2)
# of the paper:
#
# $$\min_\Theta \; \| \mathbf{H} \mathcal{T}_\Theta(z) - y \|_2^2 .$$
#
# After enough steps it reproduces the noise as well. But a convolutional network learns smooth
# shapes first and noise last, so that its output in between is a clean picture. This is the deep
# image prior. Its weak point is the question when to stop.

# %%
small = deepred.preset("fast", denoiser="nlm").replace(iterations=p.live(600))
track = metrics.tracker(x)
common = dict(settings=small, sigma=sigma, seed=seed, callback=track, device=p.device)
dip = deepred.restore(y, method="dip", **common)

# %% [markdown]
# ## Both: DeepRED
#
# RED turns a denoiser $f$ into a regulariser, Eq. (3): $\rho(x) = \tfrac12\, x^T (x - f(x))$. It
# is small if the denoiser finds nothing to remove from $x$, or if what it removes is uncorrelated
# with $x$. DeepRED asks for all three parts at once, Eq. (4):
#
# $$\min_{x,\Theta}\; \tfrac12 \| \mathbf{H} \mathcal{T}_\Theta(z) - y \|_2^2
#   {} + \tfrac{\lambda}{2}\, x^T \big(x - f(x)\big)
#   \quad\text{subject to}\quad x = \mathcal{T}_\Theta(z).$$
#
# Algorithm 1 of the paper alternates three updates: a step of the network towards $y$ and towards
# $x - u$; a new $x$, which is a weighted mean of the denoised $x$ and the network's output; and a
# correction of $u$, which makes the two agree. The call is the same:

# %%
both = deepred.restore(y, **common)

# %% tags=["nbval-ignore-output"]
for name, restored in [
    ("noisy", y), ("NLM", denoised), ("DIP", dip.image), ("DeepRED", both.image)
]:  # fmt: skip
    print(f"{name:8s} {metrics.psnr(restored, x):6.2f} dB")

# %% tags=["remove-cell"]
if p.unchanged:
    assert metrics.psnr(dip.image, x) > metrics.psnr(y, x) + 7
    assert metrics.psnr(both.image, x) > metrics.psnr(dip.image, x)

# %% tags=["nbval-ignore-output"]
panels = {"noisy": y, "NLM": denoised, "DIP": dip.image, "DeepRED": both.image}
titles = {f"{name}\n{metrics.psnr(z, x):.2f} dB": z for name, z in panels.items()}
figure = plots.compare({"truth": x, **titles}, inset=(20, 30, 56))
plots.save(figure, p.figures, "start_here")

# %% [markdown]
# **What we see.** NLM loses the fur and leaves a coloured fringe along the dark edge. DIP brings the
# fur back, together with coloured blotches that were never there: noise that the network has begun
# to learn. They show best in the iris. DeepRED keeps the fur, has fewer blotches, and is closest to
# the truth. The yellow frame marks the part that is enlarged below each picture.
#
# ## How they get there
#
# The same comparison over the iterations. Thin lines show the network's current output; thick lines
# show the average over roughly the last hundred outputs, which is what is returned.

# %% tags=["nbval-ignore-output"]
figure, axis = plt.subplots(figsize=(7, 3.4))
for name, result in [("DIP", dip), ("DeepRED", both)]:
    colour = plots.COLOURS[name.lower()]
    axis.plot(*result.curve("psnr_output"), color=colour, lw=0.6, alpha=0.6)
    axis.plot(*result.curve("psnr"), color=colour, label=name)
axis.axhline(metrics.psnr(denoised, x), color=plots.COLOURS["nlm"], ls="--", label="NLM")
axis.set(xlabel="iteration", ylabel="PSNR [dB]", ylim=(metrics.psnr(y, x) - 2, None))
axis.legend(loc="lower right")
plots.save(figure, p.figures, "start_here_curves")

# %% [markdown]
# DIP rises first, because nothing holds it back. The denoiser makes DeepRED slower and steadier:
# its single outputs scatter less, and it keeps rising where DIP turns down.
# [Notebook 06](06_denoising.ipynb) shows what happens when neither is stopped.
#
# ## Your own picture
#
# The cells above take NLM for $f$, as the paper does. The default, `preset("fast")`, takes BM3D, a
# stronger denoiser, and is better on a whole photograph: one to two processor minutes for
# 256 × 256 pixels. From the command line (the noise level is estimated unless you give `--sigma`):
#
# ```
# deepred restore photo.jpg -o clean.png
# ```
#
# From Python, `deepred.io.images.read("photo.jpg").image` is the tensor for `deepred.restore`, and
# `deepred.io.images.write` writes the result.
#
# ## Where to go from here
#
# | notebook | subject | live part, one core |
# |---|---|---|
# | [01](01_inverse_problems.ipynb) | Section 2.1: five degradations, why a prior is needed, other noise | 30 s |
# | [02](02_deep_image_prior.ipynb) | Section 2.2: the untrained network; stopping and averaging | 1 min |
# | [03](03_red.ipynb) | Section 2.3: a denoiser as a prior | 20 s |
# | [04](04_denoisers.ipynb) | Section 2.3: what RED assumes of a denoiser, measured | 1 min |
# | [05](05_deepred.ipynb) | Section 3: from Eq. (1) to Algorithm 1, line by line | 40 s |
# | [06](06_denoising.ipynb), [07](07_super_resolution.ipynb), [08](08_deblurring.ipynb) | Section 4: the experiments, beside the paper's numbers | 40 s each |
# | [09](09_speed.ipynb) | Section 5: what an iteration costs, and the same image for less work | 5 s |
# | [10](10_open_questions.ipynb) | Section 5: other denoisers, what DIP regularises, MAP estimates | 20 s |
# | [11](11_paper_and_code.ipynb) | the paper against its authors' code | 35 s |
# | [12](12_your_own_problem.ipynb) | holes, projections, photons, your own photograph | 1 min |
#
# ## Exercises
#
# **In code.** Compute the PSNR of the noisy picture yourself, from the mean of the squared errors of
# all values. Replace `None`:

# %% tags=["exercise"]
my_psnr = None
print(notebook.check(my_psnr, metrics.psnr(y, x)))

# %% tags=["solution", "hide-cell"]
my_psnr = -10 * torch.log10((y - x).square().mean())
print(notebook.check(my_psnr, metrics.psnr(y, x)))

# %% [markdown]
# **To try and to think about.**
#
# 1. Give `nlm` half and twice the true noise level. Which error is worse? Why does DeepRED call
#    its denoiser with $\sigma_f = 3$ where the noise is 25?
# 2. Set `seed = 1` in the first cell, which gives other noise and other weights. How much do the
#    numbers change, and how much does the *difference* between the methods change?
# 3. Set `denoiser="tv"`, or write your own: any function of an image and a noise level that
#    returns an image. What does `lambda x, sigma: x` do?
#
# <details><summary>Answers</summary>
#
# 1. Half the level is worse: the noise stays, and seven decibels are lost. Twice the level blurs and
#    costs three. DeepRED's denoiser does not see $y$ but $x$, which is close to the network's output
#    and nearly clean already. It has to remove the little that is left, again and again.
# 2. Both methods see the same noise, so that the difference should change less than the numbers do.
#    One seed shows neither: differences should be averaged over images and seeds.
# 3. With $f(x) = x$, $\rho$ is zero for every image. The x-update then pulls $x$ back to an older
#    $x$: nothing is left of the regulariser but inertia.
# </details>
#
# ## Further reading
#
# - G. Mataev, M. Elad and P. Milanfar, *DeepRED: Deep Image Prior Powered by RED*, ICCV Workshops
#   2019, [arXiv:1903.10176](https://arxiv.org/abs/1903.10176).
# - D. Ulyanov, A. Vedaldi and V. Lempitsky, *Deep Image Prior*, CVPR 2018,
#   [arXiv:1711.10925](https://arxiv.org/abs/1711.10925).
# - Y. Romano, M. Elad and P. Milanfar, *The Little Engine That Could: Regularization by Denoising
#   (RED)*, SIAM Journal on Imaging Sciences 10, 2017,
#   [arXiv:1611.02862](https://arxiv.org/abs/1611.02862).
