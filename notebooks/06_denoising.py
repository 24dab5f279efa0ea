# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Section 4.1: image denoising
#
# **Goals.** Follow the paper's first experiment. See why the deep image prior has to be stopped in
# time, and what in DeepRED makes this unnecessary. Compare our numbers with the paper's.
#
# **The claim.** Nine colour images with Gaussian noise of $\sigma = 25$. The paper reports as average
# PSNR: non-local means 29.13 dB; RED with that denoiser 29.3 dB; DIP, stopped early and averaged
# over its last iterations and over two runs, 30.53 dB; DeepRED 31.06 dB. It says that DeepRED's
# explicit regulariser makes early stopping useful only "for saving computations" (Section 3.2).
#
# **What you need.** Notebooks [02](02_deep_image_prior.ipynb) and [05](05_deepred.ipynb), or only their
# idea; about a minute on one core for the live part. Everything else shows stored results; the paper's
# nine images are not needed.

# %% tags=["parameters", "hide-input"]
profile = "quick"
image = "builtin/astronaut"
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
from deepred.denoisers import nlm
from deepred.operators import Identity, degrade
from deepred.paper import experiments, notebook, plots, store, tables

p = notebook.parameters(globals())
plots.use_style()

# %% [markdown]
# ## The measurement
#
# In denoising $\mathbf{H} = \mathbf{I}$, so that $y = x + v$. As in the paper's code, $y$ is clipped
# to the range of an image, which makes the noise of dark and of bright pixels a little weaker: the
# noisy images have 20.3 to 20.6 dB, while unclipped noise would give 20.17.

# %%
sigma = 25 / 255
x = notebook.load(image)
y = degrade(x, Identity(), sigma, seed)
print(f"{image}, {x.shape[3]} x {x.shape[2]} pixels, noisy: {metrics.psnr(y, x):.1f} dB")

# %% [markdown]
# ## Algorithm 1, for this task
#
# One iteration of DeepRED does three updates. With $\mathbf{H} = \mathbf{I}$ they read:
#
# 1. **Θ-update**, Eq. (7), one step of Adam on
#    $\tfrac12 \|\mathcal{T}_\Theta(z) - y\|^2 + \tfrac{\mu}{2}\|x - \mathcal{T}_\Theta(z) - u\|^2$:
#    the network is drawn towards the noisy image *and* towards a cleaner one.
# 2. **x-update**, Eq. (11), $x \leftarrow \big(\lambda f(x) + \mu(\mathcal{T}_\Theta(z) + u)\big)
#    / (\lambda + \mu)$: a mean of the denoised image and of the network's output.
# 3. **u-update**, $u \leftarrow u - x + \mathcal{T}_\Theta(z)$: the difference of the two is accumulated
#    until they agree.
#
# DIP is the same loop with $\lambda = \mu = 0$, where only the first term of the first update is left.
# The paper's Table 1, generated from the preset `paper`:

# %%
Markdown(tables.markdown(tables.table_1("paper")))

# %% [markdown]
# The differences between the authors' notebooks and the paper's text, for denoising:

# %%
paper, authors = deepred.preset("paper"), deepred.preset("authors")
rows = [
    (name, getattr(paper, name), getattr(authors, name))
    for name in paper.as_dict()
    if getattr(paper, name) != getattr(authors, name)
]
Markdown(tables.markdown(pd.DataFrame(rows, columns=["setting", "paper", "authors' code"])))

# %% [markdown]
# The most important line is `growth`. The paper prints $\lambda = \mu = 0.5$. Its authors' code increases
# both by 0.03 whenever the network's output is closer to $y$ than 20 dB, and raises this threshold by
# 0.01 dB each time. At $\sigma = 25$ a distance of 20 dB is 1.02 times the noise level. So the rule says:
# once the image is fitted as well as the noise allows, give the prior more weight. In this package the
# rule is general: the target is a multiple of $\sigma$. (`growth` is relative: 0.06 of the initial 0.5 is
# the 0.03.)
#
# ## A miniature, live
#
# 128 × 128 pixels, a narrow network of 16 channels, one run of each method, and NLM for $f$ as in
# Table 1.

# %%
settings = deepred.preset("fast", denoiser="nlm").replace(iterations=p.live(800))
common = dict(settings=settings, sigma=sigma, seed=seed, device=p.device)
restored = {method: deepred.restore(y, method=method, **common) for method in ("dip", "deepred")}

# %% tags=["nbval-ignore-output"]
panels = {"noisy": y, "NLM": nlm(y, sigma)}
panels |= {tables.NAMES[method]: result.image for method, result in restored.items()}
titles = {f"{name}\n{metrics.psnr(z, x):.2f} dB": z for name, z in panels.items()}
figure = plots.compare({"truth": x, **titles}, inset=(50, 34, 56))
plots.save(figure, p.figures, "denoising_live")

# %% tags=["remove-cell"]
if p.unchanged:
    psnr = {method: metrics.psnr(r.image, x) for method, r in restored.items()}
    assert metrics.psnr(y, x) + 7 < psnr["dip"] < psnr["deepred"]
    assert metrics.psnr(nlm(y, sigma), x) < psnr["deepred"]

# %% [markdown]
# **What we see.** Both methods are better than the denoiser that DeepRED itself uses, which blurs the hair
# and the skin. DIP has begun to fit the noise, visible as blotches on the skin and the wall. DeepRED's
# skin is smoother, and its hair as sharp.
#
# ## What happens without early stopping
#
# The image house of the paper's nine, a network of 32 channels, 1800 iterations, one run each, from
# stored results. The paper says that all its tests have a Gaussian input $z$ with standard deviation 0.1,
# and that its DIP results come from DIP's released code, whose input is uniform on $(0, 0.1)$. Both are
# shown. DeepRED is shown as in the text (Gaussian input, constant weights) and as in its authors' code
# (uniform input, growing weights). A dot marks the best moment of each curve.

# %%
runs = store.read_runs(p.stored("paper"))
house = runs[(runs["experiment"] == "overfitting") & (runs["seed"] == 0)]
house = house.set_index(["method", "preset"])
names = {
    ("dip", "paper"): "DIP, Gaussian z",
    ("dip", "authors"): "DIP, released code",
    ("deepred", "paper"): "DeepRED, text: Gaussian z, constant λ",
    ("deepred", "authors"): "DeepRED, code: growing λ",
}
there = {which: name for which, name in names.items() if which in house.index}
curves = {
    name: store.read_curves(p.stored("paper"), house.loc[which, "key"])
    for which, name in there.items()
}

# %%
if curves:
    figure = plots.overfitting(curves, 24.7 / 255)  # what clipping leaves of the 25, measured
    plots.save(figure, p.figures, "overfitting_house")

# %%
ends = [
    {
        "method": name,
        "at the end [dB]": f"{curve['psnr'].iloc[-1]:.2f}",
        "at its best [dB]": f"{curve['psnr'].max():.2f}",
        "best iteration": int(curve["iteration"][curve["psnr"].idxmax()]),
        "lost since [dB]": f"{curve['psnr'].max() - curve['psnr'].iloc[-1]:.2f}",
    }
    for name, curve in curves.items()
]
Markdown(tables.markdown(pd.DataFrame(ends)))

# %% [markdown]
# **What we see.** The input matters as much as the method. With Gaussian input both methods learn fast, are
# at their best before iteration 1000, and then fall. Panel (b) shows that their residuals fall below the
# noise, to 23.3 and 23.9 (the noise is 24.7 here, as clipping has removed a little of the 25): they have
# learnt noise. With constant weights DeepRED reaches a better best and falls more slowly, but it falls. So
# early stopping "only for saving computations" (Section 3.2) does not hold for the printed
# $\lambda = \mu = 0.5$.
#
# The input of the released codes has a standard deviation of 0.029. This is a third of the Gaussian one's and
# less than the noise added in each step, and everything takes longer. At 1800 iterations DIP has not turned
# yet. DeepRED's code is slower still (a learning rate of 0.008 instead of 0.01, and a pull towards an older
# $x$), so that it is below DIP's code here. But its weights begin to grow (panel c) when its residual reaches
# 25.5, which is 1.02 times the nominal $\sigma$ and a little above the dotted line. From there on the residual
# falls more slowly (panel b), and the curve in (a) still rises. The small runs further below show what growing
# weights are worth once DIP turns.
#
# In pictures, by the text (Gaussian input, constant weights): each method at its best iteration and at
# the end. (Profile `paper` computes them anew.)


# %%
def moments(method):
    """House restored by preset paper: at the best iteration of the stored curve and at the end."""
    plan = experiments.plan("paper", ["overfitting"])
    run = next(r for r in plan if (r.method, r.preset) == (method, "paper"))
    truth, when = run.truth(), (int(house.loc[(method, "paper"), "best_iteration"]), run.iterations)
    found = {"truth": truth} if method == "dip" else {}

    def keep(state):
        if state.k in when:
            name = f"{tables.NAMES[method]}, k = {state.k}"
            found[f"{name}\n{metrics.psnr(state.estimate, truth):.2f} dB"] = state.estimate

    y = run.measurement(truth)
    deepred.restore(y, method=method, settings=run.settings, sigma=sigma, callback=keep)
    return found


# %% tags=["nbval-ignore-output"]
(first, *_) = experiments.plan("paper", ["overfitting"])
again = p.profile == "paper" and len(curves) == 4 and not experiments.missing(first)
pictures = moments("dip") | moments("deepred") if again else {}
notebook.show(p, "house_moments", [pictures], [(90, 70, 80)])

# %% [markdown]
# At their best both images are clean, but the bricks are lost. At the end some bricks are back, and the noise
# is back with them: in DIP's sky and wall everywhere, in DeepRED's much less. (The pictures have been
# computed anew. The stored curves are of an earlier computation; the ends of single runs differ by 0.2 to
# 0.3 dB between the two.)
#
# ## The nine images
#
# Mean PSNR over the nine images, ours (stored results of profile `paper`) beside the paper's, then image
# by image. Preset `fast` is made for two cores: a network of 16 channels instead of 128, one run, BM3D
# for $f$.

# %%
nine, section = runs[runs["experiment"] == "denoising"], experiments.TABLES["denoising"]
Markdown(tables.markdown(tables.section_41(nine)))

# %%
Markdown(tables.shown(section, "sigma 25", nine))

# %% [markdown]
# **What we see.** DeepRED by preset `fast` has 31.24 dB on average, 0.18 dB more than the paper's and
# 1.9 dB more than RED alone, and it is above NLM and above RED on each of the nine images. But it owes
# most of this to its denoiser: CBM3D alone has 31.49 dB. On house, peppers, lena and f16 the two are
# within 0.15 dB of each other; on kodim02, 03 and 12 DeepRED is 0.25 to 0.34 dB below, and on baboon and
# kodim01, which are texture almost everywhere, 0.7 to 0.8 dB. Only house was finished before the 3000
# iterations ended: the other networks of 16 channels were still fitting. Seven tenths of what a network has
# not fitted are given back to $f$, and the rest is lost. The paper's DeepRED has NLM for $f$, and with
# 31.06 dB it is below CBM3D, too. One seed each: a tenth of a decibel on one image says nothing.
#
# The difference in NLM comes from the version of scikit-image. Up to 0.18 its fast mode counted the centre
# pixel of each neighbourhood twice, which leaves a little more noise
# ([PR 5923](https://github.com/scikit-image/scikit-image/pull/5923)). The paper's number is from that
# time. If the centre is counted twice, NLM reaches 29.12 dB here (`deepred verify`).
#
# **RED alone.** The paper says that NLM gains 0.2 dB when it is plugged into RED, and does not print
# the settings. Ours: start from $f(y)$ with NLM at the level of the noise, then two fixed-point steps
# with $\lambda = 20$ and Table 1's $\sigma_f = 3$, which bring back a little of $y$ and take out what
# noise NLM has left. It gains 0.16 dB. These settings were chosen with the truth of these nine images
# in hand, and stopping is part of them: from 30.83 dB after one step, `house` is at 29.57 after
# twelve, so that RED's fixed point with NLM lies below NLM (30.60). NLM, asked to remove noise that
# is no longer there, averages all patches that differ by less.
#
# **SNR** is $20\log_{10}(\|x\|/\|\hat x - x\|)$, in which DIP-TV's authors report: 0.24 dB above
# DIP at $\sigma = 25$. The paper sets its own gain of 0.53 dB beside that, and doubts the DIP of that
# comparison. Differences between methods on one image are the same in SNR and in PSNR. Our DIP-TV is
# DIP plus a weight times the anisotropic total variation of the network's output; 0.002 was the best
# of four weights on a crop of `chelsea`.
#
# ## What averaging is worth
#
# DIP comes plain (the last output), with an exponential average over the iterations, and as the mean
# of two runs with different $z$ and $\Theta$. The paper uses all of it for its 30.53 dB.

# %%
Markdown(tables.markdown(tables.averaging(nine)))

# %% [markdown]
# The same for the small runs of the next part, one run each. (DeepRED's result by preset `fast` is
# BM3D of the average, which is what makes its step that large.)

# %%
small = p.stored("smoke" if p.profile == "smoke" else "quick")
quick = store.read_runs(small)
quick = quick[quick["experiment"] == "denoising"]
Markdown(tables.markdown(tables.averaging(quick)))

# %% [markdown]
# ## The same in small
#
# The profile `quick` runs on a laptop: 128 × 128 pixels of three of scikit-image's photographs, preset
# `fast` (16 channels instead of 128, one run instead of the mean of two, BM3D for $f$), at most 1000
# iterations. Its numbers are not the paper's; three crops and one seed decide nothing.

# %%
Markdown(tables.markdown(tables.summary(quick)))

# %%
solved = quick[quick["method"].isin(["dip", "deepred"])]
by_image = {
    image: {row.method: store.read_curves(small, row.key) for row in group[::-1].itertuples()}
    for image, group in solved[solved["seed"] == solved["seed"].min()].groupby("image")
}
if by_image:
    figure = plots.pairs_of_curves(by_image, "PSNR of the network's mean [dB]")
    plots.save(figure, p.figures, "denoising_quick")

# %% tags=["remove-cell"]
if len(quick) and p.profile != "smoke":
    mean = quick.groupby("method")["psnr"].mean()
    assert mean["noisy"] < mean["nlm"] < mean["red"] < mean["deepred"]
    best = solved[solved["method"] == "dip"]["best_psnr"].mean()
    assert mean["noisy"] + 7 < mean["dip"] < mean["nlm"] < best < mean["deepred"]

# %% [markdown]
# **What we see.** The smoother the picture, the earlier DIP turns, as there is little to learn before the noise.
# After 1000 iterations DIP has lost 0.2 dB on the astronaut, 1.1 on chelsea and 1.7 on the coffee. On average
# it is below NLM by then, and at its best moments 0.7 dB above it. DeepRED's network rises as fast, keeps
# rising, and stops when it has reached the noise and its image has settled, on the coffee after 600
# iterations. The curve is that of the network. The result in the table is BM3D of it, with seven tenths of
# the residual given back (preset `fast`), which is 0.5 to 1.0 dB better. Compared with BM3D alone this is
# little: BM3D has 30.80 dB, DeepRED 30.83. With so strong a denoiser as $f$, at this size, the network
# adds next to nothing; with NLM, as in the paper and in the live part above, it adds more than a decibel. DIP
# has DeepRED's Gaussian $z$ here.
#
# ## Run-time
#
# The paper: 7.5 minutes per image for DIP and 10.8 for DeepRED, both with 1800 iterations, on a
# TITAN Xp with NLM on the CPU; DeepRED takes 1.44 times as long. Here the denoiser runs
# beside the Θ-update, as in the paper's Figure 1, and only every two hundredth iteration has one, of
# BM3D. Processor time in the quick runs above, BM3D's at the end included:

# %%
each = solved.assign(ms=1000 * solved["processor_seconds"] / solved["iterations"])
each = each.groupby("method")["ms"]
rows = [
    {
        "method": tables.NAMES[method],
        "ms per iteration": f"{mean:.0f}",
        "ratio to DIP": f"{mean / each.mean()['dip']:.2f}",
    }
    for method, mean in each.mean().sort_values().items()
]
print(", ".join(solved["cpu"].unique()), "with", solved["threads"].max(), "thread(s) a run")
Markdown(tables.markdown(pd.DataFrame(rows)))

# %% [markdown]
# Notebook [05](05_deepred.ipynb) draws this schedule from measured times.
#
# ## Exercises
#
# **In code.** The authors' rule compares the PSNR of $\mathcal{T}_\Theta(z)$ against $y$ with 20 dB. To
# which residual, as a multiple of $\sigma = 25/255$, does this correspond? Replace `None`:

# %% tags=["exercise"]
multiple = None
print(notebook.check(multiple, 1.02, atol=0.001))

# %% tags=["solution", "hide-cell"]
multiple = 10 ** (-20 / 20) / sigma
print(notebook.check(multiple, 1.02, atol=0.001))

# %% [markdown]
# **To try and to think about.**
#
# 1. In panel (b) of the overfitting figure, DIP's residual falls below the dotted line. What has
#    the network learnt by then, and why can the residual alone not tell when to stop?
# 2. Change the target of the controller: `settings.replace(residual_target=0.95)` or `1.1`. Which
#    way does the result move, and which error would you rather make?
# 3. The clipped noise of a dark image has a mean above zero. What does that do to every method
#    here, and how could one undo it?
#
# <details><summary>Answers</summary>
#
# 1. Parts of the noise: the true image has a residual of σ, so that any image with a smaller one
#    contains noise. But an image with a residual of σ need not be the true one: half-learnt edges and
#    half-learnt noise can add up to the same number.
# 2. With a lower target the prior acts later: the result is sharper and noisier. With a higher one it is
#    smoother, and fine texture is lost for good, while remaining noise can still be removed afterwards.
# 3. All of them estimate the mean of $y$, which is too bright near black (by 0.4 σ at zero). With σ
#    known, the mean is a known, increasing function of the true value and can be inverted.
# </details>
#
# ## Further reading
#
# - G. Mataev, M. Elad and P. Milanfar, *DeepRED: Deep Image Prior Powered by RED*, ICCV Workshops 2019, Sections 4.1 and
#   3.2, [arXiv:1903.10176](https://arxiv.org/abs/1903.10176).
# - A. Buades, B. Coll and J.-M. Morel, *A non-local algorithm for image denoising*, CVPR 2005.
# - V. A. Morozov, *On the solution of functional equations by the method of regularization*,
#   Soviet Mathematics Doklady 7, 1966:
#   the discrepancy principle behind the growing weights.
# - P. Chakrabarty and S. Maji, *The Spectral Bias of the Deep Image Prior*,
#   [arXiv:1912.08905](https://arxiv.org/abs/1912.08905): why smooth shapes come first.
