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
# prefers pictures to noise, and that it is a matter of time. Stop it and average it without knowing the
# truth, and see what each way of doing so costs. Meet another architecture, the Deep Decoder.
#
# **The claim.** The unknown image is to be the output of a network, $x = \mathcal{T}_\Theta(z)$, with a fixed
# random input $z$, and Eq. (2) is all there is to solve,
#
# $$\min_\Theta \; \lVert \mathbf{H}\mathcal{T}_\Theta(z) - y \rVert_2^2 .$$
#
# There is no $\rho$. Overfitting "is avoided due to the implicit regularization imposed by the architecture of
# the network [...] and the early stopping"; smoothing over the last outputs and averaging over runs with other $z$ help
# (Sections 2.2 and 3.2).
#
# **Time.** The live parts take about a minute on one core.

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
import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown

import deepred
from deepred import comparisons, metrics, networks, plots, stopping, store, tables
from deepred.operators import Blur, Identity, degrade

plots.use_style()

# %% [markdown]
# ## The network
#
# An hourglass: the image is halved five times and doubled again, with convolutions between, and thin skip
# connections across. The paper's has 128 channels on each level. Ours for the live parts has 16, which
# costs a fiftieth and draws nearly as well.

# %%
for channels in (128, 16):
    net = networks.SkipNetwork((256, 256), channels=channels)
    print(f"{channels} channels: {networks.parameter_count(net):,} parameters")
print(f"an image of 256 x 256: {3 * 256**2:,} numbers")

# %% [markdown]
# The wide network has ten times as many parameters as that picture has numbers, and the narrow one three times
# as many as the small picture below (12,288). Either could fit anything, and given time it does.
#
# ## Pictures first, noise last
#
# Four targets for the same network: a picture, the picture with noise, the same pixels shuffled, and noise
# alone. How fast does Eq. (2) fall? (This is the experiment with which Ulyanov and others introduced the
# prior.)

# %%
image = (p.images or ["builtin/astronaut"])[0]
seed = (p.seeds or [0])[0]
sigma = 25 / 255
x = notebook.load(image, 64)
y = degrade(x, Identity(), sigma, seed)
shuffle = torch.randperm(64 * 64, generator=torch.Generator().manual_seed(seed))
white = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))
targets = {
    "picture": x,
    "picture and noise": y,
    "shuffled pixels": x.flatten(2)[..., shuffle].reshape(x.shape),
    "noise alone": white,
}

# %%
quick = deepred.preset("fast", method="dip").replace(
    runs=1, input_noise=0.0, iterations=p.live(350)
)
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

# %%
after = {name: result.history["residual"][-1] for name, result in fits.items()}
if p.profile != "smoke" and p.images is None and p.iterations is None:
    assert after["picture"] < 0.5 * after["picture and noise"]
    assert after["picture and noise"] < 0.7 * after["noise alone"]

# %% [markdown]
# **What we see.** The same network, the same number of steps: the picture is fitted to within a few greys
# while noise has hardly begun. Nobody told it what a picture is. Convolutions tie neighbours together and the
# doublings are smooth, so that what is smooth and repeats comes first (Chakrabarty and Maji 2019 measure it
# frequency by frequency).
#
# ## A matter of time
#
# For denoising that means: while the noisy picture is fitted, the picture comes first, and the noise after.
# In between lies the best moment. Rules and averages that know nothing of the truth look on at one run here
# (`deepred.stopping`); the truth is used for the curves alone.
#
# - **windowed and exponential variance** (Wang and others 2023): successive outputs move least when the picture
#   is there and the noise is not yet;
# - **discrepancy** (Morozov 1966): stop when the residual is at the noise, $\sigma$, which must be known;
# - **exponential mean** and **sliding mean** of the outputs: each output has learnt other noise.

# %%
rules = {
    "windowed variance": stopping.WindowedVariance(window=50, patience=200),
    "exponential variance": stopping.ExponentialVariance(weight=0.05, patience=200),
    "discrepancy": stopping.Discrepancy(sigma),
}
averages = {
    "exponential mean": stopping.ExponentialMean(0.01),
    "sliding mean": stopping.SlidingMean(100),
}
stops = {}


# %%
def look(state):
    """What the rules and averages make of an iteration, and its PSNR for the curves."""
    for name, rule in rules.items():
        if rule.update(state):
            stops.setdefault(name, state.k)
    found = {name: metrics.psnr(mean.update(state), x) for name, mean in averages.items()}
    return found | {"output": metrics.psnr(state.output, x)}


# %%
settings = deepred.preset("paper", method="dip").replace(
    channels=16, runs=1, iterations=p.live(700)
)  # fmt: skip
dip = deepred.restore(y, method="dip", settings=settings, callback=look, device=p.device)

# %%
figure, axis = plt.subplots(figsize=(8, 3.8))
lines = {name: dip.curve(name) for name in ("output", *averages)}
plots.curves(axis, lines, "PSNR [dB]", mark_best=True)
marks = {"windowed variance": "v", "exponential variance": "^", "discrepancy": "s"}
for name, rule in rules.items():
    if rule.best is not None and name in stops:
        k = rule.best[0]
        axis.plot(
            k, lines["output"][1][k - 1], marks[name], ms=9, mfc="none", color="black", label=name
        )
axis.set(ylim=(metrics.psnr(y, x) - 2, None))
axis.legend(loc="lower right", ncols=2)
plots.save(figure, p.figures, "dip_stopping")

# %% [markdown]
# Dots are the best moments, open marks are the iterations whose output a rule would return. What each would
# cost against the best output of the run:

# %%
output = lines["output"][1]
rows = [("last output", len(output), output[-1])]
rows += [
    (f"{name}: output", rule.best[0], output[rule.best[0] - 1])
    for name, rule in rules.items()
    if name in stops
]
rows += [(f"{name}, at the end", len(output), lines[name][1][-1]) for name in averages]
table = pd.DataFrame(rows, columns=["what", "iteration", "PSNR [dB]"])
table["against the best output [dB]"] = (table["PSNR [dB]"] - output.max()).round(2)
table["PSNR [dB]"] = table["PSNR [dB]"].round(2)

# %% tags=["nbval-ignore-output"]
Markdown(tables.markdown(table))

# %%
if p.profile != "smoke" and p.images is None and p.iterations is None:
    assert output[-1] < output.max() - 1.0  # it overfits
    assert len(stops) == 3
    assert lines["exponential mean"][1].max() > output.max()

# %% [markdown]
# **What we see.** The last output has lost two decibels to the best one, which is what DIP is stopped for. Both
# variances find the valley and give a third of a decibel away; they need some 200 iterations more to be sure. The
# discrepancy stops too early here: the residual of a single output, with $z$ just perturbed, reaches $\sigma$ before the
# picture is there, and clipping has made the noise of this dark picture weaker than $\sigma$ (its option `target` is for
# that). Averages are the better bargain: their best is above that of any output, and even at the end, with nobody
# stopping, they have lost less than a decibel. But they lag, and so rules and averages disagree on when to stop; with a
# learning rate this high the picture is there before a mean over a hundred outputs has caught up.
# To have a rule end a run, not only look on, give it to the call: `restore(..., stop=stopping.WindowedVariance)`.
#
# ## Means over runs, and where they disagree
#
# Another $z$ and other random weights make another restoration, with partly other errors. Their mean is better
# than each. And where they disagree the measurement has left something open: the standard deviation of each
# pixel over the runs is a map of doubt that needs no truth.

# %%
several = settings.replace(runs=4, iterations=p.live(300))
mean = deepred.restore(y, method="dip", settings=several, device=p.device)
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
smooth = Blur.uniform(9)  # doubt and error of regions, not of single pixels
together = torch.corrcoef(torch.stack([smooth(doubt).flatten(), smooth(error).flatten()]))[0, 1]
print(f"mean deviation {doubt.mean():.3f}, mean error {error.mean():.3f}")

# %% tags=["nbval-ignore-output"]
print(f"correlation of their means over 9 x 9 pixels: {together:.2f}")

# %%
if p.profile != "smoke" and p.images is None and p.iterations is None:
    assert metrics.psnr(mean.image, x) > alone + 0.3  # dB
    assert doubt.mean() < error.mean()

# %% [markdown]
# **What we see.** The mean gains over half a decibel. The map of doubt is another matter: it is less than half as
# large as the error, and its bright regions are not those of the error. What the runs get wrong they get wrong alike: they
# share the architecture's taste, and they learn the same noise. A small deviation is no promise.
#
# ## Another architecture: the Deep Decoder
#
# Footnote 5 of the paper: all of it holds for the Deep Decoder as well (Heckel and Hand 2019). It has no
# convolutions wider than a pixel: mix the channels, double, ReLU, normalise, four or five times. With few channels it has fewer
# parameters than a large image has numbers, and then *cannot* fit all of the noise, however long one waits. (On the
# small crops below it has about as many: 17,088 for 12,288 numbers.)

# %%
for layers, channels in ((4, 64), (5, 128)):
    net = networks.DeepDecoder((64, 64), channels=channels, layers=layers)
    print(f"{layers} layers of {channels} channels: {networks.parameter_count(net):,} parameters")

# %% [markdown]
# `settings.network = "decoder"` is all it takes, in DIP and in DeepRED. Four crops of 64 × 64 pixels and three seeds,
# sigma 25, 1500 iterations, from stored results:

# %%
stored = comparisons.of(store.read_runs(p.stored("paper")), "architectures")
table = comparisons.architectures(stored)
Markdown(tables.markdown(table))

# %%
for row in table.dropna().itertuples():
    assert row.DeepRED > row.DIP  # with either network

# %% [markdown]
# **What we see.** Alone, with nobody stopping it, the Deep Decoder ends level with the hourglass. It overfits less, as it was
# built to, but it does: 0.6 dB are lost to its best moment, where the hourglass loses 1.8 dB of a better one. RED improves both,
# by one decibel and by two, and takes the need to stop from both. With it the richer network wins.
#
# ## Questions
#
# 1. Why is $z$ random, and why does it do no harm to change it a little in every step (`input_noise`)? Set it to 0
#    in the long run above and watch the best moment.
# 2. The discrepancy rule stops when the residual's root mean square is $\sigma$. For an output that has begun to learn
#    the noise, is the error of the *picture* then larger or smaller than for one that has not?
# 3. Shuffled pixels are fitted as slowly as noise, although their histogram is the picture's. What would you change
#    in the network for it to prefer shuffled pictures (with one fixed, known shuffle)?
#
# <details><summary>Answers</summary>
#
# 1. $z$ is only a place to start from; any fixed input that differs from pixel to pixel will do. Perturbed inputs make the
#    network find weights that draw the same picture for all of them, which is a regulariser: without it the best moment
#    comes earlier, and is lower.
# 2. The residual contains noise not yet learnt *and* picture not yet drawn. An output that has learnt some noise must still
#    lack some picture to have a residual of $\sigma$: its error has both.
# 3. Put the inverse shuffle at its end: $\mathbf{P}\,\mathcal{T}_\Theta(z)$. The prior is in the architecture, so that any known
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
#   [arXiv:1904.07457](https://arxiv.org/abs/1904.07457): early stopping is no maximum a posteriori.
