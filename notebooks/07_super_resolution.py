# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Section 4.2: single image super-resolution
#
# **Goals.** Restore an image from one that has a sixteenth of its pixels. See what changes in
# Algorithm 1 when $\mathbf{H}$ is no longer the identity. Compare our numbers with Tables 2, 3 and 4,
# and follow the algorithm's behaviour as in Figure 3.
#
# **The claim.** Two data sets, Set5 and Set14, reduced 4 and 8 times. The paper reports that DeepRED is
# better than DIP on nearly every image and better than RED alone on average (Set5 ×4: 30.72 dB against
# 29.95 and 30.23), and close to networks trained for the task.
#
# **What you need.** Notebook [05](05_deepred.ipynb), or only its idea; about a minute on one core for the
# live part. Everything else shows stored results; the paper's images are not needed.

# %% tags=["parameters", "hide-input"]
profile = "quick"
image = "builtin/coffee"
seed = 0
iterations = None
device = "auto"
results = "../data/results"
figures = ""

# %% tags=["hide-input"]
import pandas as pd
from IPython.display import Markdown

import deepred
from deepred import metrics
from deepred.io import resize
from deepred.operators import Downsample
from deepred.paper import experiments, notebook, plots, store, tables

p = notebook.parameters(globals(), "builtin/coffee")
plots.use_style()

# %% [markdown]
# ## The measurement
#
# The low-resolution image is made as DIP's authors made theirs: Pillow's Lanczos filter, rounded to
# 8 bits. There is no other noise. The solver, however, assumes the operator of DIP's code, another
# Lanczos window with the border replicated. So $\mathbf{H}$ is slightly wrong, in the paper and here. The
# error in grey levels of 255:

# %%
x = resize.centre_crop(notebook.load(image), 4)
y = resize.shrink(x, 4)
H = Downsample(4)
print(f"{tuple(x.shape)} -> {tuple(y.shape)}, |Hx - y|: {255 * (H(x) - y).abs().mean():.2f}")

# %% [markdown]
# The baseline is bicubic interpolation. From here on PSNR is that of the luminance, as in the paper: the
# eye is more sensitive to errors of brightness than of colour.

# %%
bicubic = resize.bicubic(y, 4)
print(f"bicubic: {metrics.psnr_y(bicubic, x):.2f} dB")

# %% [markdown]
# ## Algorithm 1, for this task
#
# Only the Θ-update sees $\mathbf{H}$, Eq. (7): a step of Adam on
#
# $$\tfrac12 \|\mathbf{H}\mathcal{T}_\Theta(z) - y\|^2
#   {} + \tfrac{\mu}{2}\|x - \mathcal{T}_\Theta(z) - u\|^2 .$$
#
# The denoiser does not: the x-update, Eq. (11), is the same weighted mean as for denoising. This makes the
# scheme flexible. $x$ starts at zero, as $y$ has another size.
#
# Two points deserve care. First, the noise that the denoiser is to remove is not in $y$. It consists of
# the fluctuations of the network's output, and of patterns that $\mathbf{H}$ maps to zero. Second, the
# authors' code takes *means* of squares where Eq. (7) has sums, and the two means are over different
# numbers of pixels, 16 times more in the second term. In terms of sums, its $\mu = 0.06$ is $0.06/16$.
# The setting `data_term` selects one or the other.
#
# ## A miniature, live
#
# 128 × 128 pixels of 32 × 32, a network of 32 channels, one run of each method with equally many
# iterations.

# %%
settings = deepred.preset("fast", "sr").replace(iterations=p.live(600))
restored = {
    method: deepred.restore(y, H, method=method, settings=settings, seed=seed, device=p.device)
    for method in ("dip", "deepred")
}

# %% tags=["nbval-ignore-output"]
panels = {"bicubic": bicubic}
panels |= {tables.NAMES[method]: result.image for method, result in restored.items()}
titles = {f"{name}\n{metrics.psnr_y(z, x):.2f} dB": z for name, z in panels.items()}
figure = plots.compare({"truth": x, **titles}, inset=(64, 8, 56))
plots.save(figure, p.figures, "super_resolution_live")

# %% tags=["remove-cell"]
if p.unchanged:
    psnr = {method: metrics.psnr_y(result.image, x) for method, result in restored.items()}
    assert min(psnr.values()) > metrics.psnr_y(bicubic, x) + 0.7

# %% [markdown]
# **What we see.** Bicubic interpolation is blurred and shows the grid of large pixels along slanted
# edges. The network draws sharp edges. Where DIP adds a texture of its own, DeepRED is smoother.
#
# ## Tables 2 and 3
#
# Ours beside the paper's, PSNR of the luminance in dB. Preset `fast` is made for two cores (32 channels
# instead of 128, NLM instead of BM3D); DIP has the same network and number of iterations, RED alone
# settings of our own.

# %%
stored = store.read_runs(p.stored("paper"))
set5, set14 = experiments.TABLES["table2"], experiments.TABLES["table3"]
full = {name: stored[stored["experiment"] == name] for name in ("table2", "table3")}
Markdown(tables.shown(set5, "x4", full["table2"]))

# %%
Markdown(tables.shown(set5, "x8", full["table2"]))

# %%
Markdown(tables.shown(set14, "x4", full["table3"]))

# %%
Markdown(tables.shown(set14, "x8", full["table3"]))

# %% [markdown]
# **What we see.** On Set5 at ×4, DeepRED with 32 channels is half a decibel above RED alone and 0.2 dB below
# the paper's DeepRED, which has four times the channels and BM3D. On butterfly, a picture of long clean edges,
# it is above the paper's. On head, a picture of hair and skin with hardly an edge, RED alone is level with
# it: the network has little to add there. These are single runs with one seed.
#
# The bicubic means are what this protocol gives; the paper prints bicubic numbers for two images
# only (Figure 2), and those agree to 0.01 dB (`deepred verify`).
#
# ## Table 4: beside supervised methods
#
# Averages of the two tables beside networks trained on pairs of images, LapSRN ("Lap") and SRResNet
# ("SRR"), whose rows are quoted from the paper.

# %%
Markdown(tables.markdown(tables.table_4(stored[stored["experiment"].isin(full)])))

# %% [markdown]
# **Not like for like.** The supervised rows were scored on the frame that DIP's authors cropped
# (a border is left out, where restoration is hardest), DeepRED's rows on the full frame. A border of
# a few pixels is worth one or two tenths of a decibel. Also, the supervised networks were trained
# for bicubic down-sampling, and the images here are made by Lanczos. Read the distances between the
# upper and the lower half of this table accordingly.
#
# ## RED alone
#
# The paper's rows "RED (FP-BM3D)" come from running RED's own fixed-point strategy with BM3D, at
# settings that are not printed. Each step solves, by conjugate gradients,
# $(\mathbf{H}^T\mathbf{H} + \lambda \mathbf{I})\, x_{k+1} = \mathbf{H}^T y + \lambda f(x_k)$. With
# $\lambda = 0.02$, $\sigma_f = 25$ and 25 steps, on two of the images:

# %%
alone = stored[(stored["experiment"] == "table2") & (stored["setting"] == "x4")]
alone = alone[alone["method"] == "red"]
rows = [
    {
        "image": run.image,
        "ours [dB]": f"{run.psnr_y:.2f}",
        "paper [dB]": f"{set5.printed('x4', 'red', run.image):.2f}",
        "difference": f"{run.psnr_y - set5.printed('x4', 'red', run.image):+.2f}",
    }
    for run in alone.itertuples()
]
Markdown(tables.markdown(pd.DataFrame(rows)))

# %% [markdown]
# In each step so strong a denoiser smooths everything that the data do not determine. What the small image
# shows is determined by the data and stays. The settings were chosen on these two images.
#
# ## What it looks like
#
# `woman` of Set5, ×4, by preset `fast`: 32 channels, 3000 iterations.

# %% tags=["nbval-ignore-output"]
woman = notebook.pictures(p, "table2", "x4", "woman", ("fast",))
notebook.show(p, "super_resolution_woman", [woman], [(50, 80, 90)])

# %% [markdown]
# ## Figure 2
#
# `flowers` and `zebra` of Set14, ×4, by preset `fast`.

# %% tags=["nbval-ignore-output"]
rows = [notebook.pictures(p, "table3", "x4", name, ("fast",)) for name in ("flowers", "zebra")]
notebook.show(p, "figure2", rows, [(120, 180, 90), (60, 220, 90)])

# %% [markdown]
# ## Figure 3: how the algorithm behaves
#
# The paper looks at `head` of Set5, ×4. The same four panels from our own run.

# %%
head = full["table2"][(full["table2"]["image"] == "head") & (full["table2"]["setting"] == "x4")]
head = head[(head["method"] == "deepred") & (head["preset"] == "fast")].sort_values("seed")
if len(head):
    first, printed = head.iloc[0], set5.printed("x4", "deepred", "head")
    bicubic = stored[(stored["image"] == "head") & (stored["method"] == "bicubic")]
    bicubic = bicubic[bicubic["setting"] == "x4"]["psnr_y"].iloc[0]
    print(
        f"preset {first['preset']}: {first['psnr_y']:.2f} dB after {first['iterations']} iterations"
    )
    print(f"bicubic {bicubic:.2f}, the paper's DeepRED {printed:.2f}")

# %%
if len(head):
    curve = store.read_curves(p.stored("paper"), head["key"].iloc[0])
    figure = plots.behaviour(curve, values=3 * 280 * 280)
    plots.save(figure, p.figures, "figure3")

# %% [markdown]
# **What we see.** (a) The loss of Eq. (4) falls on the whole although nothing guarantees it: one step of
# Adam is not the minimiser that ADMM's theory asks for. (b) Enlarged, it fluctuates: new noise
# is added to $z$ in every iteration, and $f(x)$ is that of an $x$ some iterations old. (c) The quality
# rises without a turn, and passes bicubic interpolation only after half of the iterations. (d) $x$ and
# $\mathcal{T}_\Theta(z)$ come together, to a few grey levels; the noise on $z$ keeps them from
# agreeing any better. A word of caution: NLM's Jacobian is not symmetric, so that the second term of
# the curve in (a) is not quite what the x-update descends (Reehorst and Schniter 2018).
#
# ## The same in small
#
# The profile `quick` runs on a laptop: 128 × 128 pixels (32 × 32 measured) of three of scikit-image's
# photographs, ×4 only, preset `fast` (32 channels instead of 128, NLM instead of BM3D, ten times the
# learning rate) for 1000 iterations, one seed. Its numbers are not the paper's.

# %%
small = p.stored("smoke" if p.profile == "smoke" else "quick")
quick = store.read_runs(small)
quick = quick[quick["experiment"] == "table2"]
Markdown(tables.markdown(tables.summary(quick)))

# %%
solved = quick[quick["method"].isin(["dip", "deepred"])]
by_image = {
    image: {row.method: store.read_curves(small, row.key) for row in group[::-1].itertuples()}
    for image, group in solved[solved["seed"] == solved["seed"].min()].groupby("image")
}
if by_image:
    figure = plots.pairs_of_curves(by_image, "PSNR-Y of the result [dB]")
    plots.save(figure, p.figures, "super_resolution_quick")

# %% tags=["remove-cell"]
if len(quick) and p.profile != "smoke":
    mean = tables.by_method(quick, ["bicubic", "dip", "deepred"])
    assert mean["bicubic"] < mean["dip"] < mean["deepred"]

# %% [markdown]
# **What we see.** There is no noise to overfit, and all curves rise. DeepRED is ahead of DIP on each picture,
# by 0.24, 0.22 and 0.17 dB. The gain of the network depends on the picture: 2.9 dB over bicubic
# interpolation where there are long clean edges (coffee), a third of a decibel on the fur of chelsea, where
# RED alone is nearly as good.
#
# ## Your own picture
#
# ```
# deepred restore small.jpg -o large.png --task sr --scale 4
# ```
#
# with a scale of 2, 3, 4 or 8. A photograph that was sharpened or compressed contains patterns that are not
# part of the scene; the network takes them for detail.
#
# ## Exercises
#
# **In code.** The authors' code has means for sums in Eq. (7). Compute the weight $\mu$ of an equal Eq. (7)
# with sums, for the $x$ and $y$ above and the setting `mu` of preset `authors`. Replace `None`:

# %% tags=["exercise"]
mu = deepred.preset("authors", "sr").mu
mu_of_sums = None
print(notebook.check(mu_of_sums, 0.00375))

# %% tags=["solution", "hide-cell"]
mu_of_sums = mu * y.numel() / x.numel()
print(notebook.check(mu_of_sums, 0.00375))

# %% [markdown]
# **To think about.**
#
# 1. `Downsample(4)` maps 16 values to one. How many images have the same $y$? What, in DIP and in
#    DeepRED, chooses between them?
# 2. Why is early stopping less of an issue here than for denoising? When would it matter?
# 3. Start $x$ from the bicubic image instead of zeros. Which iterations does that change, directly and
#    indirectly?
#
# <details><summary>Answers</summary>
#
# 1. An affine space of fifteen sixteenths of the dimensions. DIP takes the one that its network
#    reaches first from random weights. In DeepRED the denoiser contributes: it penalises what it
#    would remove.
# 2. There is no noise in $y$ to be learnt (only rounding, and the error of the operator). It would
#    matter for a noisy small image, or once the network fits the error of the operator.
# 3. Indirectly all, as $x_0$ enters $u$ and through it $\Theta$; directly only the first 20, until $f(x)$
#    of a newer $x$ arrives.
# </details>
#
# ## Further reading
#
# - G. Mataev, M. Elad and P. Milanfar, *DeepRED: Deep Image Prior Powered by RED*, ICCV Workshops 2019, Section 4.2,
#   [arXiv:1903.10176](https://arxiv.org/abs/1903.10176).
# - W.-S. Lai, J.-B. Huang, N. Ahuja and M.-H. Yang, *Deep Laplacian Pyramid Networks for Fast and
#   Accurate Super-Resolution*, CVPR 2017; C. Ledig, L. Theis, F. Huszár, J. Caballero, A. Cunningham,
#   A. Acosta, A. Aitken, A. Tejani, J. Totz, Z. Wang and W. Shi, *Photo-Realistic Single Image
#   Super-Resolution Using a Generative Adversarial Network*, CVPR 2017: the quoted rows.
# - E. T. Reehorst and P. Schniter, *Regularization by Denoising: Clarifications and New
#   Interpretations*, IEEE Transactions on Computational Imaging 5, 2019, [arXiv:1806.02296](https://arxiv.org/abs/1806.02296).
