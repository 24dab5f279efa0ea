# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Section 5: the paper's other questions
#
# **Goals.** Compare denoisers in DeepRED. Measure, frequency by frequency, what DIP regularises and what
# RED adds to it. See why the result of either is not a maximum a posteriori estimate.
#
# **The claim.** Beside speed (notebook [09](09_speed.ipynb)), the paper's conclusion (Section 5) names three
# tasks: to use better denoisers; to study the regularisation effect of DIP, so as to find an explicit prior
# that complements it; and to find out whether DIP or DeepRED is a maximum a posteriori (MAP) estimate.
#
# **What you need.** Notebooks [02](02_deep_image_prior.ipynb) and [03](03_red.ipynb); Fourier coefficients;
# Bayes' rule; half a minute on one core. The picture comes with scikit-image; one table shows stored
# results.

# %% tags=["parameters", "hide-input"]
profile = "quick"
image = "builtin/chelsea"
seed = 0
iterations = None
device = "auto"
results = "../data/results"
figures = ""

# %% tags=["hide-input"]
import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib import pyplot as plt

import deepred
from deepred import metrics
from deepred.operators import Identity, degrade
from deepred.paper import comparisons, notebook, plots, store, tables

p = notebook.parameters(globals(), "builtin/chelsea")
plots.use_style()

# %% [markdown]
# ## Better denoisers
#
# Which denoiser should RED use? The table compares six that need no training, each at a low level
# ($\sigma_f = 3$ of 255) and at a high one (10; the median has no level), in DeepRED with preset `fast`
# for crops, 16 channels and one run of 1000 iterations. It shows the gain over DIP with the same network,
# mean over four crops of 64 × 64 pixels and two seeds, and its standard error over the crops.

# %%
stored = store.read_runs(p.stored("paper"))
table = comparisons.denoisers(stored)
Markdown(tables.markdown(table))

# %% tags=["remove-cell"]
gains = table.set_index(["denoiser", "σ_f"])
if gains.notna().all(axis=None):
    asked_little = gains["denoising [dB]"].xs("3", level="σ_f")
    assert 0.5 < asked_little.min() and asked_little.max() < 1.5
    assert gains.loc[("BM3D", "10"), "super-resolution [dB]"] > 0.4

# %% [markdown]
# **What we see.** At the low level NLM, BM3D and wavelets are equal in denoising, the bilateral filter is
# 0.1 dB behind and total variation 0.25: nearly anything that removes a little noise again and again will
# do. At the high level the quality of the denoiser counts: BM3D gains most and loses nothing, NLM loses
# 0.4 dB, and total variation and the bilateral filter smooth away what they should keep. In
# super-resolution, where $y$ has no noise and the network's own patterns have to be removed, the higher
# level is better for NLM, BM3D and wavelets.
#
# These runs have weights that grow once the fit is at the noise. With constant weights, which let the
# network learn the noise, a higher level of NLM helps instead, as any heavier prior does (notebook
# [05](05_deepred.ipynb)). (In denoising the errors are large because pictures differ in what RED gains on
# them, from 0.1 to 1.7 dB. Denoisers compared on the same picture differ much more consistently.) A learned
# denoiser is passed as `denoiser=module`; notebook [04](04_denoisers.ipynb) trains a small one.
#
# ## What DIP regularises, and what RED adds
#
# Write the output of the network as $\mathcal{T}_\Theta(z) = a\,x + b\,v + r$: a share $a$ of the picture,
# a share $b$ of the noise in $y$, and a rest $r$ that is neither. The two shares can be measured in each
# band of frequencies (`metrics.shares`: least squares over the Fourier coefficients). A perfect restoration
# has $a = 1$ and $b = 0$ everywhere, and $y$ itself has $a = b = 1$. Chakrabarty and Maji (2019) call what
# follows the *spectral bias* of DIP.

# %%
sigma = 25 / 255
x = notebook.load(image, 64)
y = degrade(x, Identity(), sigma, seed)
bands = {"below 1/16": 0, "1/16 to 1/8": 1 / 16, "1/8 to 1/4": 1 / 8, "above 1/4": 1 / 4}
edges = [*bands.values(), 0.75]  # cycles per pixel


def look(state):
    """The two shares of the output in each band, and its PSNR, every five iterations."""
    if state.k % 5:
        return None
    pairs = dict(zip(bands, metrics.shares(state.output, x, y - x, edges)))
    found = {f"picture, {band}": a for band, (a, _) in pairs.items()}
    found |= {f"noise, {band}": b for band, (_, b) in pairs.items()}
    return found | {"output": metrics.psnr(state.output, x)}


# %%
watched = {}
for method in ("dip", "deepred"):
    s = deepred.preset("paper", method=method).replace(channels=16, runs=1)
    watched[method] = deepred.restore(
        y, method=method, settings=s.replace(iterations=p.live(500)), sigma=sigma, seed=seed,
        callback=look, device=p.device,
    )  # fmt: skip

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6))
for axis, what in zip(axes, ("picture", "noise")):
    lines = {band: watched["dip"].curve(f"{what}, {band}") for band in bands}
    plots.curves(axis, lines, f"share of the {what}")
    axis.set(ylim=(-0.1, 1.1), title=f"DIP: share of the {what}")
axes[0].legend(title="cycles per pixel")
axes[1].get_legend().remove()
trade = {
    f"{tables.NAMES[method]}, {band}": (
        result.curve(f"picture, {band}")[1], result.curve(f"noise, {band}")[1]
    )
    for band in list(bands)[2:]
    for method, result in watched.items()
}  # fmt: skip
plots.curves(axes[2], trade, "share of the noise", xlabel="share of the picture")
axes[2].legend(title="cycles per pixel")
axes[2].set_title("what is paid for what")
plots.save(figure, p.figures, "beyond_bands")

# %% tags=["remove-cell"]
ends = {method: result.curve("noise, 1/8 to 1/4")[1][-1] for method, result in watched.items()}
dip = {band: watched["dip"].curve(f"noise, {band}")[1] for band in bands}
if p.unchanged:
    middle = len(dip["above 1/4"]) // 2
    assert dip["1/16 to 1/8"][middle] > dip["1/8 to 1/4"][middle] > dip["above 1/4"][middle]
    assert ends["deepred"] < ends["dip"] - 0.05  # it is slower to learn the noise

# %% [markdown]
# **What we see.** DIP is a low-pass filter that opens with time. Low frequencies of the picture are learnt
# within a few dozen iterations, the highest are not complete after 500. But in each band the noise follows
# the picture, low frequencies first: stopping sets a cut-off, and everything below it is noisy. This is why
# DIP leaves coarse coloured blotches rather than fine grain. (In the lowest band the share of the noise
# means little at first: the band has few coefficients, and what is still lacking of the picture resembles
# the noise in them by chance.)
#
# The right panel shows what RED adds. A prior that *complements* DIP would learn less noise for the same
# share of the picture, that is, follow a lower curve. In the two bands shown RED follows nearly the same
# curve. With the paper's constant weights it mainly slows the way along the curve and does not stop it.
# Weights that grow once the fit is at the noise, as in preset `fast`, all but stop it (notebook
# [06](06_denoising.ipynb)). The gain is time near the best point, during which outputs can be averaged.
# Which prior would bend the curve, the paper's third question, remains open.
#
# ## A maximum a posteriori estimate?
#
# "DIP(+RED) is a Maximum-A'posteriori Probability estimate by definition", says Section 4.2, and
# Section 5 asks whether one could claim so. Consider the runs above. DIP has a likelihood and nothing else,
# so that the estimate would be the minimum of Eq. (2):

# %%
rows = []
for method, result in watched.items():
    k, psnr = result.curve("output")
    for what, i in (("best output", int(psnr.argmax())), ("last output", len(psnr) - 1)):
        fit = result.history["objective"][k[i] - 1]
        rows.append((tables.NAMES[method], what, k[i], round(fit, 1), round(psnr[i], 2)))
columns = ["method", "what", "iteration", "objective, ½ of Eq. (2), or Eq. (4)", "PSNR [dB]"]
ended = pd.DataFrame(rows, columns=columns)

# %% tags=["nbval-ignore-output"]
Markdown(tables.markdown(ended))

# %% tags=["remove-cell"]
if p.unchanged:
    for method in ("DIP", "DeepRED"):
        (best, last) = ended[ended["method"] == method][columns[3]]
        assert last < 0.95 * best

# %% [markdown]
# **What we see.** The objective continues to fall while the picture gets worse, for both. The picture that is
# returned is not the minimum of the objective, so it is not the estimate that the objective defines: early
# stopping is part of the method and not of the posterior. (Cheng and others 2019 sample DIP's posterior by
# Langevin dynamics instead; the posterior *mean* does not overfit.) For DeepRED there is a second reason.
# Eq. (4) would be a posterior with the prior $e^{-\lambda\rho}$. But the steps follow $x - f(x)$, which for
# a real denoiser is the gradient of no function at all (notebook [04](04_denoisers.ipynb); Reehorst and
# Schniter 2019).
#
# ## Exercises
#
# **In code.** Find the shares $a$ and $b$ of DIP's result `watched["dip"].image` over all frequencies at
# once, by least squares on the pixels (`torch.linalg.lstsq`). Replace `None`:

# %% tags=["exercise"]
restored = watched["dip"].image.double()
shares = None
(right,) = metrics.shares(restored, x, y - x, [0, 0.75])
print(notebook.check(shares, right))

# %% tags=["solution", "hide-cell"]
parts = torch.stack([x.flatten(), (y - x).flatten()], 1).double()
shares = torch.linalg.lstsq(parts, restored.flatten()[:, None]).solution[:, 0]
print(notebook.check(shares, right))

# %% [markdown]
# **To think about.**
#
# 1. For which $y$ would the highest band of frequencies be no reason to stop late: a portrait out of
#    focus, or a photograph of grass? Use the left two panels of the figure.
# 2. The table of denoisers has standard errors of 0.3 to 0.4 dB in denoising. Does that mean that NLM and
#    TV cannot be told apart?
#
# <details><summary>Answers</summary>
#
# 1. The portrait: it has almost nothing in that band, so that the network could learn only noise there.
#    The highest band of the grass holds much of the picture, and each share of it has to be paid with
#    noise in the bands below.
# 2. No. The error is that of the gain over DIP, which differs a lot between pictures. The difference
#    between two denoisers on the same picture varies much less and should be tested pair by pair.
# </details>
#
# ## Further reading
#
# - G. Mataev, M. Elad and P. Milanfar, *DeepRED: Deep Image Prior Powered by RED*, ICCV Workshops
#   2019, Section 5, [arXiv:1903.10176](https://arxiv.org/abs/1903.10176).
# - P. Chakrabarty and S. Maji, *The Spectral Bias of the Deep Image Prior*,
#   2019, [arXiv:1912.08905](https://arxiv.org/abs/1912.08905).
# - Z. Cheng, M. Gadelha, S. Maji and D. Sheldon, *A Bayesian Perspective on the Deep Image Prior*, CVPR
#   2019, [arXiv:1904.07457](https://arxiv.org/abs/1904.07457).
# - E. T. Reehorst and P. Schniter, *Regularization by Denoising: Clarifications and New
#   Interpretations*, IEEE Transactions on Computational Imaging 5, 2019,
#   [arXiv:1806.02296](https://arxiv.org/abs/1806.02296).
# - K. Dabov, A. Foi, V. Katkovnik and K. Egiazarian, *Image Denoising by Sparse 3-D
#   Transform-Domain Collaborative Filtering*, IEEE Transactions on Image Processing 16, 2007: BM3D,
#   of which `deepred.denoise.bm3d` is an implementation for any device.
