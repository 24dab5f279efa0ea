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
# without a single training image. Three parts make it happen, and the last two are shown alone
# before all three work together:
#
# 1. the **data term**, which keeps the result true to what was measured;
# 2. an **untrained network**, whose architecture prefers natural images to noise
#    (*deep image prior*, DIP);
# 3. a **denoiser**, which says of any image how far from clean it looks
#    (*regularisation by denoising*, RED).
#
# DeepRED (Mataev, Elad and Milanfar, 2019) is the three together. You need to know what a
# convolution is; the rest is explained where it is used. Running everything takes about a
# minute on one core.

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
import matplotlib.pyplot as plt

import deepred
from deepred import metrics
from deepred.denoisers import nlm
from deepred.operators import Identity, degrade
from deepred.paper import plots

plots.use_style()

# %% [markdown]
# ## The problem
#
# What a camera delivers is $y = \mathbf{H} x + v$: the picture $x$ we want, put through some
# degradation $\mathbf{H}$ (a blur, a smaller size, missing pixels), plus noise $v$. Here
# $\mathbf{H}$ is the identity and the noise is Gaussian with $\sigma = 25$ on the scale of 0 to
# 255, which is a lot: about one step on a chart of ten greys. As in the paper's experiments the
# noisy picture is then cut to the range of an image.
#
# Our picture is the eye of Chelsea, scikit-image's cat. In this package an image is a tensor of
# shape (1, channels, height, width) with values from 0 to 1.

# %%
x = notebook.load((p.images or ["builtin/chelsea"])[0])
seed = (p.seeds or [0])[0]
sigma = 25 / 255
H = Identity()
y = degrade(x, H, sigma, seed)
print(tuple(y.shape), f"{metrics.psnr(y, x):.1f} dB")

# %% [markdown]
# PSNR, in decibels, says how close an image is to the truth: 6 dB more is half the error. The
# solver never sees the truth; only these lines of the notebook do.
#
# ## The denoiser alone
#
# Non-local means (NLM) replaces each pixel by an average of the pixels whose surroundings look
# alike. It is quick and it is good at flat regions. Where nothing else in the picture looks
# alike, at the rim of the pupil say, noise stays.

# %% tags=["nbval-ignore-output"]
denoised = nlm(y, sigma)
print(f"NLM alone: {metrics.psnr(denoised, x):.2f} dB")

# %%
assert p.images or metrics.psnr(denoised, x) > metrics.psnr(y, x) + 7

# %% [markdown]
# ## The network alone
#
# Take an hourglass network $\mathcal{T}_\Theta$ with random weights $\Theta$, feed it a fixed
# random tensor $z$, and fit the weights so that its output matches the **noisy** picture, Eq. (2)
# of the paper:
#
# $$\min_\Theta \; \| \mathbf{H} \mathcal{T}_\Theta(z) - y \|_2^2 .$$
#
# Left long enough it would reproduce the noise. But a convolutional network learns smooth shapes
# first and noise last, so if one stops in between, the output is a clean picture. That is the deep
# image prior; its weak point is the question when to stop.

# %%
small = deepred.preset("fast", denoiser="nlm").replace(iterations=p.live(600))
track = metrics.tracker(x)
common = dict(settings=small, sigma=sigma, seed=seed, callback=track, device=p.device)
dip = deepred.restore(y, method="dip", **common)

# %% [markdown]
# ## Both: DeepRED
#
# RED turns a denoiser $f$ into a regulariser, Eq. (3): $\rho(x) = \tfrac12\, x^T (x - f(x))$. It
# is small if the denoiser finds nothing to remove from $x$ (or if what it removes has nothing to
# do with $x$). DeepRED asks for all three at once, Eq. (4):
#
# $$\min_{x,\Theta}\; \tfrac12 \| \mathbf{H} \mathcal{T}_\Theta(z) - y \|_2^2
#   + \tfrac{\lambda}{2}\, x^T \big(x - f(x)\big)
#   \quad\text{subject to}\quad x = \mathcal{T}_\Theta(z).$$
#
# Algorithm 1 of the paper takes turns: a step of the network towards $y$ and towards $x - u$,
# then a new $x$ as a weighted mean of the denoised $x$ and the network's output, then a
# correction $u$ that makes the two agree. The call is the same one:

# %%
both = deepred.restore(y, **common)

# %% tags=["nbval-ignore-output"]
for name, image in [("noisy", y), ("NLM", denoised), ("DIP", dip.image), ("DeepRED", both.image)]:
    print(f"{name:8s} {metrics.psnr(image, x):6.2f} dB")
print(f"DIP {dip.seconds:.0f} s, DeepRED {both.seconds:.0f} s")

# %%
if p.profile != "smoke" and p.images is None and p.seeds is None and p.iterations is None:
    assert metrics.psnr(dip.image, x) > metrics.psnr(y, x) + 7
    assert metrics.psnr(both.image, x) > metrics.psnr(dip.image, x)

# %% tags=["nbval-ignore-output"]
panels = {"truth": x, "noisy": y, "NLM": denoised, "DIP": dip.image, "DeepRED": both.image}
titles = {k if k == "truth" else f"{k}\n{metrics.psnr(v, x):.2f} dB": v for k, v in panels.items()}
figure = plots.compare(titles, inset=(20, 30, 56))
plots.save(figure, p.figures, "start_here")

# %% [markdown]
# **What we see.** NLM loses the fur and leaves a coloured fringe along the dark edge. DIP brings the
# fur back, and with it a mottle of colours that was never there: noise that the network has begun
# to learn, plain to see in the iris. DeepRED keeps the fur, has less of the mottle, and is the closest.
# The yellow frame marks what is enlarged below each picture.
#
# ## How they get there
#
# The same comparison over the iterations. Thin lines: the network's output at the moment; thick
# lines: the average over the last hundred or so, which is what is returned.

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
# its single outputs scatter less, and it keeps rising where DIP turns down. What happens when one
# does not stop is the subject of [notebook 05](05_denoising.ipynb).
#
# ## Your own picture
#
# The cells above take NLM for $f$, as the paper does. The default, `preset("fast")`, has BM3D, a
# stronger denoiser, and is better on a whole photograph: one to two minutes of a processor for
# 256 × 256 pixels. From the command line (the noise level is estimated unless you give
# `--sigma`):
#
# ```
# deepred restore photo.jpg -o clean.png
# ```
#
# From Python: `deepred.io.images.read("photo.jpg").image` is the tensor to give to
# `deepred.restore`, and `deepred.io.images.write` the way back.
#
# ## Where to go from here
#
# | notebook | what it is about | live, one core |
# |---|---|---|
# | [01](01_inverse_problems.ipynb) | Section 2.1: five degradations, why a prior, other noise | 15 s |
# | [02](02_deep_image_prior.ipynb) | Section 2.2: the untrained network; stopping and averaging | 1 min |
# | [03](03_red.ipynb) | Section 2.3: a denoiser as a prior, and what it takes | 1 min |
# | [04](04_deepred.ipynb) | Section 3: from Eq. (1) to Algorithm 1, line by line | 30 s |
# | [05](05_denoising.ipynb), [06](06_super_resolution.ipynb), [07](07_deblurring.ipynb) | Section 4: the experiments, beside the paper's numbers | 40 s each |
# | [08](08_beyond.ipynb) | Section 5: less work, other denoisers, what DIP regularises | 50 s |
# | [09](09_paper_and_code.ipynb) | the paper against its authors' code | 35 s |
# | [10](10_your_own_problem.ipynb) | holes, projections, photons, your own photograph | 35 s |
#
# ## Questions
#
# 1. Give `nlm` half and twice the true noise level. Which error is worse, and why does DeepRED ask
#    its denoiser for $\sigma_f = 3$ where the noise is 25?
# 2. Set `seeds = [1]` in the first cell: other noise, other weights. How much do the
#    numbers move, and how much does the *difference* between the methods move?
# 3. Set `denoiser="tv"`, or write your own: any function of an image and a noise level that
#    returns an image. What does `lambda x, sigma: x` do?
#
# <details><summary>Answers</summary>
#
# 1. Half the level is worse: it leaves the noise in, and seven decibels are lost; twice the level
#    blurs, and three are. DeepRED's denoiser does not see $y$ but $x$, which is close to the network's output
#    and nearly clean already: it has to remove the little that is left, again and again.
# 2. Both methods see the same noise, so expect the difference to move less than the numbers do. One
#    seed shows neither: differences should be averaged over images and seeds.
# 3. With $f(x) = x$, $\rho$ is zero for every image: the x-update pulls $x$ back to an older $x$,
#    and only its inertia is left of the regulariser.
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
