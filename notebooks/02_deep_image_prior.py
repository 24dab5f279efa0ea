# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Section 2.2: the deep image prior
#
# **Goals.** Restore a picture with a network that has seen no other. See that its architecture alone
# prefers pictures to noise, but only for a while. Stop it and average it without knowing the truth,
# and see what each way costs. Meet another architecture, the Deep Decoder.
#
# **The claim.** The unknown image is to be the output of a network, $x = \mathcal{T}_\Theta(z)$, with a
# fixed random input $z$, and only Eq. (2) is solved,
#
# $$\min_\Theta \; \lVert \mathbf{H}\mathcal{T}_\Theta(z) - y \rVert_2^2 .$$
#
# There is no $\rho$. Overfitting "is avoided due to the implicit regularization imposed by the
# architecture of the network [...] and the early stopping". Smoothing over the last outputs and
# averaging over runs with other $z$ help (Sections 2.2 and 3.2).
#
# **What you need.** To have trained a network once; about a minute on one core. The pictures come
# with scikit-image; one table is read from stored results.

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
import torch
from IPython.display import Markdown
from matplotlib import pyplot as plt

import deepred
from deepred import metrics, networks
from deepred.beyond import stopping
from deepred.operators import Blur, Identity, degrade
from deepred.paper import comparisons, notebook, plots, store, tables

p = notebook.parameters(globals())
plots.use_style()

# %% [markdown]
# ## The network
#
# An hourglass: the input $z$ is halved five times and doubled again, with convolutions in between and
# thin skip connections across. The drawing is generated from the settings of preset `paper`. Below each
# box stand the channels and the size of a feature map, for an image of 256 × 256 pixels:

# %%
plots.save(plots.network(deepred.preset("paper")), p.figures, "dip_network")

# %% [markdown]
# Each black arrow on the left is a convolution with stride 2 and one with stride 1; each on the right
# doubles the size by bilinear interpolation, joins the skip connection and applies two convolutions. A
# batch normalisation and a LeakyReLU follow every convolution.
#
# The paper's network has 128 channels on each level. Ours for the live parts has 16: a fiftieth of the
# weights, less than a tenth of the time, and nearly the same quality.

# %%
for channels in (128, 16):
    net = networks.SkipNetwork((256, 256), channels=channels)
    print(f"{channels} channels: {networks.parameter_count(net):,} parameters")
print(f"an image of 256 x 256: {3 * 256**2:,} numbers")

# %% [markdown]
# The wide network has ten times as many parameters as that picture has numbers, and the narrow one
# three times as many as the small picture below (12,288). Both have enough weights to fit noise as well,
# and after enough iterations they do.
#
# ## Pictures first, noise last
#
# Four targets for the same network: a picture, the picture with noise, the same pixels shuffled, and
# noise alone. How fast does Eq. (2) fall? (With this experiment Ulyanov, Vedaldi and Lempitsky
# introduced the prior.)

# %%
sigma = 25 / 255
x = notebook.load(image, 64)
y = degrade(x, Identity(), sigma, seed)
generator = torch.Generator().manual_seed(seed)
shuffle = torch.randperm(64 * 64, generator=generator)

# %%
targets = {
    "picture": x,
    "picture and noise": y,
    "shuffled pixels": x.flatten(2)[..., shuffle].reshape(x.shape),
    "noise alone": torch.rand(x.shape, generator=generator),
}
quick = deepred.preset("fast", method="dip", small=True)
quick = quick.replace(runs=1, input_noise=0.0, iterations=p.live(350))

# %%
fits = {
    name: deepred.restore(t, method="dip", settings=quick, device=p.device)
    for name, t in targets.items()
}

# %%
figure, axis = plt.subplots(figsize=(7, 3.3))
lines = {name: (r.history["iteration"], r.history["residual"]) for name, r in fits.items()}
plots.curves(axis, lines, "residual ‖T(z) − target‖ (RMS)")
axis.set_yscale("log")
plots.save(figure, p.figures, "dip_targets")

# %% tags=["remove-cell"]
after = {name: result.history["residual"][-1] for name, result in fits.items()}
if p.unchanged:
    assert after["picture"] < 0.5 * after["picture and noise"]
    assert after["picture and noise"] < 0.7 * after["noise alone"]
    assert 255 * after["picture"] < 12 and after["noise alone"] > 0.1

# %% [markdown]
# **What we see.** With the same network and the same number of steps, the picture is fitted to within
# about seven grey levels of 255, while most of the noise is still absent from the fit of the noisy one. The
# network was never told what a picture is. Convolutions couple neighbouring pixels, and the
# interpolation is smooth, so that smooth and repeated structures are learnt first. (Chakrabarty and
# Maji 2019 measure this frequency by frequency, and so does notebook [10](10_open_questions.ipynb).)
#
# ## A matter of time
#
# For denoising this means that the fit of a noisy picture learns the picture first and the noise after
# it. Here is the network's output during a fit of a noisy face, 128 × 128 pixels:

# %%
last = p.live(2000)
shown = [*(k for k in (10, 50, 200, 700) if k < last), last]
more = [k for k in (20, 30, 75, 100, 150, 300, 400, 500, 1000, 1400) if k < last]
film = {}


def keep(state):
    """A callback of `restore`, which is called with every state."""
    if state.k in shown or state.k in more:
        film[state.k] = state.output


# %%
face = notebook.load("builtin/astronaut")
noisy = degrade(face, Identity(), sigma, seed)
long = deepred.preset("fast", method="dip").replace(iterations=last)
_ = deepred.restore(noisy, method="dip", settings=long, seed=seed, callback=keep, device=p.device)

# %% tags=["nbval-ignore-output"]
panels = {f"k = {k}\n{metrics.psnr(film[k], face):.1f} dB": film[k] for k in shown}
panels[f"noisy, the target\n{metrics.psnr(noisy, face):.1f} dB"] = noisy
plots.save(plots.compare(panels, inset=(50, 34, 56), columns=3), p.figures, "dip_film")

# %% tags=["remove-cell"]
if p.unchanged:
    quality = [metrics.psnr(film[k], face) for k in shown]
    assert quality[2] > quality[1] + 2 and max(quality) > quality[-1] + 0.4

# %% [markdown]
# **What we see.** Colours and shapes come first, then edges, then the hair. After that only noise is
# left to be learnt, and the network learns it. The best moment lies in between.
#
# Find it with the slider (it needs a running kernel): the output, and the error that is left, three
# times enlarged around grey.

# %% tags=["nbval-ignore-output"]
figures_of = {}
for k in sorted(film):
    title = f"k = {k}, {metrics.psnr(film[k], face):.2f} dB"
    error = (0.5 + 3 * (film[k] - face)).clamp(0, 1)
    figures_of[k] = plots.compare({title: film[k], "error × 3": error}, width=7)
notebook.slider(figures_of, shown[-3] if len(shown) > 2 else shown[-1], "iteration")

# %% [markdown]
# ## Stopping without the truth
#
# Rules and averages that do not know the truth watch runs here and do not interfere
# (`deepred.beyond.stopping`); the truth is used for the evaluation alone.
#
# - **Windowed and exponential variance** (Wang and others 2023): successive outputs vary least when
#   the picture has been learnt and the noise has not.
# - **Discrepancy** (Morozov 1966): stop when the residual has fallen to the noise level $\sigma$, which
#   must be known.
# - **Exponential mean** and **sliding mean** of the outputs: the outputs contain different parts of the
#   noise, and averaging removes some of it.


# %%
def rules():
    """Stopping rules at the start of a run."""
    return {
        "windowed variance": stopping.WindowedVariance(window=50, patience=200),
        "exponential variance": stopping.ExponentialVariance(weight=0.05, patience=200),
        "discrepancy": stopping.Discrepancy(sigma),
    }


def averages():
    """Running means at the start of a run."""
    return {
        "exponential mean": stopping.ExponentialMean(0.01),
        "sliding mean": stopping.SlidingMean(100),
    }


# %%
settings = deepred.preset("paper", method="dip")
settings = settings.replace(channels=16, runs=1, iterations=p.live(700))


def watched(s):
    """A run with seed s, its rules, and the iteration at which each would have stopped it."""
    looking, means, stops = rules(), averages(), {}

    def look(state):
        for name, rule in looking.items():
            if name not in stops and rule.update(state):
                stops[name] = state.k
        found = {name: metrics.psnr(mean.update(state), x) for name, mean in means.items()}
        return found | {"output": metrics.psnr(state.output, x)}

    y = degrade(x, Identity(), sigma, s)
    run = deepred.restore(
        y, method="dip", settings=settings, seed=s, callback=look, device=p.device
    )
    return run, looking, stops


# %% [markdown]
# Three runs, each with other noise, another $z$ and other initial weights:

# %%
runs = [watched(s) for s in range(seed, seed + 3)]

# %% tags=["nbval-ignore-output"]
dip, looking, stops = runs[0]
figure, axis = plt.subplots(figsize=(8, 3.8))
lines = {name: dip.curve(name) for name in ("output", *averages())}
plots.curves(axis, lines, "PSNR [dB]", mark_best=True)
for mark, name in zip("v^s", stops):
    k, restored = looking[name].best
    style = dict(ms=9, mfc="none", color="black", label=name)
    axis.plot(k, metrics.psnr(restored, x), mark, **style)
axis.set(ylim=(metrics.psnr(y, x) - 2, None))
axis.legend(loc="lower right", ncols=2)
plots.save(figure, p.figures, "dip_stopping")

# %% [markdown]
# The first of the runs. Dots are the best moments. Open marks are what a rule returns: a mean of
# recent outputs, at the iteration that the rule considers best. The table compares each with the best
# single output of the same run, and gives the mean over the three runs:


# %%
def outcomes(run, looking, stops):
    """What each way returns: (way, iteration, PSNR, PSNR against the best output)."""
    output = run.curve("output")[1]
    found = [("last output", len(output), output[-1])]
    found += [
        (f"{n}: its image", looking[n].best[0], metrics.psnr(looking[n].best[1], x)) for n in stops
    ]
    found += [(f"{n}, at the end", len(output), run.curve(n)[1][-1]) for n in averages()]
    return [(*row, row[2] - output.max()) for row in found]


# %%
columns = ["way", "iteration", "PSNR [dB]", "against the best output [dB]"]
table = pd.DataFrame([row for run in runs for row in outcomes(*run)], columns=columns)
mean = table.groupby("way", sort=False).mean().round(2).reset_index()
mean["iteration"] = mean["iteration"].round().astype(int)

# %% tags=["nbval-ignore-output"]
Markdown(tables.markdown(mean))

# %% tags=["remove-cell"]
if p.unchanged:
    assert all(len(stops) == 3 for _, _, stops in runs)
    found = mean.set_index("way")[columns[3]]
    assert found["last output"] < -1.0  # it overfits
    assert found["discrepancy: its image"] < min(
        found["windowed variance: its image"], found["exponential variance: its image"]
    )
    assert min(found.filter(like="variance")) > found["last output"] + 1

# %% [markdown]
# **What we see.** As a mean over the three runs, the last output is 1.8 dB below the best one, which is why
# DIP has to be stopped. Both variances find the neighbourhood of the peak, 200 iterations (their patience)
# after it has passed. As they return a mean of recent outputs, their images are 0.7 to 0.8 dB *above* the
# best single output. The discrepancy stops somewhat earlier, which costs a little. (For pictures with many
# dark or bright pixels clipping leaves less noise than $\sigma$, and it stops too early; its option
# `target` corrects this.) The averages that are not stopped end 0.2 and 0.6 dB below the best output. They
# lag behind: their best moments, which are better than any single output, come a hundred iterations later.
#
# To let a rule end a run instead of watching it, pass it to the call:
# `restore(..., stop=stopping.WindowedVariance)`.
#
# ## Means over runs, and where they disagree
#
# Another $z$ and other random weights give another restoration, whose errors are partly independent of
# the first. The mean of several restorations is therefore better than each. Where they disagree, the
# measurement leaves something open: the standard deviation of each pixel over the runs is a map of
# uncertainty that does not need the truth.

# %%
# An average with a memory short enough to have forgotten the start after 300 iterations.
several = settings.replace(runs=4, iterations=p.live(300), smoothing=0.97)
mean = deepred.restore(y, method="dip", settings=several, seed=seed, device=p.device)
error = (mean.images[0] - x).abs().mean(1, keepdim=True)
doubt = mean.deviation.mean(1, keepdim=True)

# %% tags=["nbval-ignore-output"]
panels = {
    f"one run\n{metrics.psnr(mean.images[0], x):.2f} dB": mean.images[0],
    f"mean of four\n{metrics.psnr(mean.image, x):.2f} dB": mean.image,
    "deviation over\nthe runs, × 10": (10 * doubt).clamp(0, 1),
    "error of one\nrun, × 4": (4 * error).clamp(0, 1),
}
plots.save(plots.compare(panels), p.figures, "dip_runs")

# %%
alone = sum(metrics.psnr(one, x) for one in mean.images) / 4
smooth = Blur.uniform(9)  # uncertainty and error of regions, not of single pixels
together = torch.corrcoef(torch.stack([smooth(doubt).flatten(), smooth(error).flatten()]))[0, 1]

# %% tags=["nbval-ignore-output"]
print(f"mean of four {metrics.psnr(mean.image, x):.2f} dB, each alone {alone:.2f} dB on average")
print(f"mean deviation {doubt.mean():.3f}, mean error {error.mean():.3f}")
print(f"correlation of their means over 9 x 9 pixels: {together:.2f}")

# %% tags=["remove-cell"]
if p.unchanged:
    assert metrics.psnr(mean.image, x) > alone + 0.3  # dB
    assert 0.3 * error.mean() < doubt.mean() < 0.9 * error.mean() and together > 0.2

# %% [markdown]
# **What we see.** The mean of four is 1.3 dB better than one run on average. The map of uncertainty points the
# right way: its correlation with the error, both averaged over 9 × 9 pixels, is about one half. But it is only
# two thirds as large as the error. It cannot show what all runs get wrong alike: they share the
# architecture and learn the same noise. A small deviation is no guarantee.
#
# ## Another architecture: the Deep Decoder
#
# Footnote 5 of the paper says that everything holds for the Deep Decoder as well (Heckel and Hand
# 2019). Its convolutions are one pixel wide. Each layer mixes the channels, doubles the size, applies a
# ReLU and normalises, four or five times. With few channels it has fewer parameters than a large image
# has numbers, and then it *cannot* fit all of the noise, whatever the number of iterations. (For the
# small crops below it has about as many: 17,088 for 12,288 numbers.)

# %%
for layers, channels in ((4, 64), (5, 128)):
    net = networks.DeepDecoder((64, 64), channels=channels, layers=layers)
    print(f"{layers} layers of {channels} channels: {networks.parameter_count(net):,} parameters")

# %% [markdown]
# `settings.replace(network="decoder")` selects it, in DIP and in DeepRED. The table compares preset
# `fast` for crops (an hourglass of 16 channels) with a decoder of 4 layers and 64 channels without noise
# on $z$: PSNR in dB at the last iteration and at each run's best, means over four crops of 64 × 64 pixels
# and three seeds, $\sigma = 25$, 1500 iterations, from stored results.

# %%
stored = comparisons.of(store.read_runs(p.stored("paper")), "architectures")
table = comparisons.architectures(stored)
Markdown(tables.markdown(table))

# %% tags=["remove-cell"]
for row in table.dropna().itertuples():
    assert 0.5 < row.DeepRED - row.DIP < 4  # with either network

# %% [markdown]
# **What we see.** At the last iteration, DIP with the Deep Decoder is level with DIP with the
# hourglass. The decoder overfits less, as intended by its authors: it ends 0.6 dB below its best, the
# hourglass 1.8 dB below a better one. RED adds one decibel to the decoder and two to the hourglass, and
# neither has to be stopped any more. With RED the network with more parameters wins.
#
# ## Exercises
#
# **In code.** The residual that the discrepancy rule compares with $\sigma$ is the root mean square of
# $\mathbf{H}\mathcal{T}_\Theta(z) - y$. Compute it for the last frame of the film, `film[last]`. Replace
# `None`:

# %% tags=["exercise"]
residual = None
print(notebook.check(residual, torch.dist(film[last], noisy) / noisy.numel() ** 0.5))

# %% tags=["solution", "hide-cell"]
residual = (film[last] - noisy).square().mean().sqrt()
print(notebook.check(residual, torch.dist(film[last], noisy) / noisy.numel() ** 0.5))

# %% [markdown]
# **To try and to think about.**
#
# 1. Why is $z$ random, and why does it do no harm to change it a little in every step
#    (`input_noise`)? Set it to 0 in `settings` above and watch the best moment.
# 2. The discrepancy rule stops when the residual's root mean square is $\sigma$. Compare two outputs with
#    that residual, one of which has begun to learn the noise. Which is closer to the true picture?
# 3. Shuffled pixels are fitted far more slowly than the picture, although both have the same histogram.
#    How would you change the network so that it prefers pictures shuffled by one known permutation?
#
# <details><summary>Answers</summary>
#
# 1. $z$ is only a starting point; any fixed input that differs from pixel to pixel will do. With a
#    perturbed input the network has to draw the same picture for all perturbations, which regularises
#    it. Without the perturbation the best moment comes earlier, and more is lost after it.
# 2. The one that has learnt no noise. The residual contains noise not yet learnt *and* picture not yet
#    drawn. An output that has learnt some of the noise must lack more of the picture to have the same
#    residual, so that its error has both parts.
# 3. Append the permutation $\mathbf{S}$ to it: $\mathbf{S}\,\mathcal{T}_\Theta(z)$, so that
#    $\mathcal{T}_\Theta(z)$ draws an ordinary picture. The prior is in the architecture, and any known
#    operator may be part of it.
# </details>
#
# ## Further reading
#
# - D. Ulyanov, A. Vedaldi and V. Lempitsky, *Deep Image Prior*, CVPR 2018 and IJCV 128, 2020,
#   [arXiv:1711.10925](https://arxiv.org/abs/1711.10925).
# - R. Heckel and P. Hand, *Deep Decoder: Concise Image Representations from Untrained Non-convolutional Networks*, ICLR
#   2019, [arXiv:1810.03982](https://arxiv.org/abs/1810.03982).
# - P. Chakrabarty and S. Maji, *The Spectral Bias of the Deep Image Prior*, 2019,
#   [arXiv:1912.08905](https://arxiv.org/abs/1912.08905).
# - H. Wang, T. Li, Z. Zhuang, T. Chen, H. Liang and J. Sun, *Early Stopping for Deep Image Prior*, TMLR 2023,
#   [arXiv:2112.06074](https://arxiv.org/abs/2112.06074).
# - Z. Cheng, M. Gadelha, S. Maji and D. Sheldon, *A Bayesian Perspective on the Deep Image Prior*, CVPR 2019,
#   [arXiv:1904.07457](https://arxiv.org/abs/1904.07457): early-stopped DIP is not a maximum a
#   posteriori estimate.
# - V. A. Morozov, *On the solution of functional equations by the method of regularization*, Soviet Mathematics
#   Doklady 7, 1966: the discrepancy principle.
