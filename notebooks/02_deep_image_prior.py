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
# prefers pictures to noise, and that it does so only for a while. Stop it and average it without knowing the
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
from deepred.paper import notebook

p = notebook.parameters(globals())

# %%
import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown

import deepred
from deepred import metrics, networks
from deepred.beyond import stopping
from deepred.operators import Blur, Identity, degrade
from deepred.paper import comparisons, plots, store, tables

plots.use_style()

# %% [markdown]
# ## The network
#
# An hourglass: its input $z$ is halved five times and doubled again, with convolutions between, and thin skip
# connections across. The paper's has 128 channels on each level. Ours for the live parts has 16: a fiftieth of
# the weights, less than a tenth of the time, and nearly as good a picture.

# %%
for channels in (128, 16):
    net = networks.SkipNetwork((256, 256), channels=channels)
    print(f"{channels} channels: {networks.parameter_count(net):,} parameters")
print(f"an image of 256 x 256: {3 * 256**2:,} numbers")

# %% [markdown]
# The wide network has ten times as many parameters as that picture has numbers, and the narrow one three times
# as many as the small picture below (12,288). Either has enough weights to fit noise as well, and given time it does.
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
quick = deepred.preset("fast", method="dip", small=True).replace(
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
    assert 255 * after["picture"] < 12 and after["noise alone"] > 0.1

# %% [markdown]
# **What we see.** The same network, the same number of steps: the picture is fitted to within some six grey levels of
# 255, while half of the noise (in amplitude) is still missing. Nobody told it what a picture is. Convolutions tie neighbours together and the
# doublings are smooth, so that what is smooth and repeats comes first (Chakrabarty and Maji 2019 measure it
# frequency by frequency).
#
# ## A matter of time
#
# For denoising that means: while the noisy picture is fitted, the picture comes first, and the noise after.
# The network's output on the way, fitted to the noisy picture of a face, 128 × 128 pixels:

# %%
frames = [k for k in (10, 50, 200, 700, 2000) if k <= p.live(2000)] or [p.live(2000)]
film = {}


def keep(state):
    """A callback of `restore`, called with every state."""
    if state.k in frames:
        film[state.k] = state.output


face = notebook.load("builtin/astronaut")
noisy = degrade(face, Identity(), sigma, seed)
long = deepred.preset("fast", method="dip").replace(iterations=p.live(2000))
_ = deepred.restore(noisy, method="dip", settings=long, callback=keep, device=p.device)

# %% tags=["nbval-ignore-output"]
panels = {f"k = {k}\n{metrics.psnr(image, face):.1f} dB": image for k, image in film.items()}
panels[f"noisy, the target\n{metrics.psnr(noisy, face):.1f} dB"] = noisy
plots.save(plots.compare(panels, inset=(50, 34, 56)), p.figures, "dip_film")

# %%
if p.profile != "smoke" and p.iterations is None:
    quality = [metrics.psnr(image, face) for image in film.values()]
    assert quality[2] > quality[1] + 2 and max(quality) > quality[-1] + 0.4

# %% [markdown]
# **What we see.** Colours and shapes first, then the rims, then the hair; after that, nothing but noise is left to be
# learnt, and it comes. In between lies the best moment. Rules and averages that know nothing of the truth watch one run here and do not
# interfere (`deepred.beyond.stopping`); the truth is used for the curves alone.
#
# - **windowed and exponential variance** (Wang and others 2023): successive outputs move least when the picture
#   is there and the noise is not yet;
# - **discrepancy** (Morozov 1966): stop when the residual is at the noise, $\sigma$, which must be known;
# - **exponential mean** and **sliding mean** of the outputs: each output has learnt somewhat different noise, so that
#   averaging removes some of it.

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
    if name in stops:
        k, image = rule.best
        axis.plot(
            k, metrics.psnr(image, x), marks[name], ms=9, mfc="none", color="black", label=name
        )
axis.set(ylim=(metrics.psnr(y, x) - 2, None))
axis.legend(loc="lower right", ncols=2)
plots.save(figure, p.figures, "dip_stopping")

# %% [markdown]
# Dots are the best moments; open marks are what a rule would return: a mean of its last outputs, at the iteration it
# goes by. Each against the best single output of the run:

# %%
output = lines["output"][1]
rows = [("last output", len(output), output[-1])]
rows += [
    (f"{name}: its image", rule.best[0], metrics.psnr(rule.best[1], x))
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
    found = dict(zip(table["what"], table["against the best output [dB]"]))
    assert len(stops) == 3 and found["discrepancy: its image"] < -0.2
    assert min(found["windowed variance: its image"], found["exponential variance: its image"]) > 0
    assert -1.5 < min(found["exponential mean, at the end"], found["sliding mean, at the end"]) < 0
    assert lines["exponential mean"][1].max() > output.max()

# %% [markdown]
# **What we see.** The last output has lost two decibels to the best one, which is why DIP is stopped. Both variances find the
# neighbourhood of the peak, 200 iterations (their patience) after it has passed, and as they return a mean of their
# last outputs they end about half a decibel *above* the best single output. The discrepancy stops too early here: clipping has
# left this dark picture with noise of 0.091, below $\sigma = 0.098$ (its option `target` allows for that). The averages that
# nobody stops have lost about a decibel or less at the end; but they lag: with a learning rate this high the output's
# best moment has passed when theirs, which are better, come.
# To have a rule end a run, not only look on, give it to the call: `restore(..., stop=stopping.WindowedVariance)`.
#
# ## Means over runs, and where they disagree
#
# Another $z$ and other random weights make another restoration, with partly other errors. Their mean is better
# than each. And where they disagree the measurement has left something open: the standard deviation of each
# pixel over the runs is a map of doubt that needs no truth.

# %%
# An average with a memory short enough to have forgotten the start after 300 iterations.
several = settings.replace(runs=4, iterations=p.live(300), smoothing=0.97)
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

# %% tags=["nbval-ignore-output"]
print(f"mean deviation {doubt.mean():.3f}, mean error {error.mean():.3f}")
print(f"correlation of their means over 9 x 9 pixels: {together:.2f}")

# %%
if p.profile != "smoke" and p.images is None and p.iterations is None:
    assert metrics.psnr(mean.image, x) > alone + 0.3  # dB
    assert 0.4 * error.mean() < doubt.mean() < 0.9 * error.mean() and together > 0.2

# %% [markdown]
# **What we see.** The mean gains a decibel. The map of doubt points the right way, but not reliably: over 9 × 9 pixels its
# correlation with the error is only 0.3 to 0.4, and it is only two thirds as large. What all runs get wrong alike it cannot
# show: they share the architecture's taste, and they learn the same noise. A small deviation is no promise.
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
# `settings.replace(network="decoder")` is all it takes, in DIP and in DeepRED. The table is of preset `fast` for crops (an hourglass of
# 16 channels) against a decoder of 4 layers and 64 channels without noise on $z$: PSNR in dB at the last iteration and at
# each run's best, means over four crops of 64 × 64 pixels and three seeds, $\sigma = 25$, 1500 iterations, from stored
# results:

# %%
stored = comparisons.of(store.read_runs(p.stored("paper")), "architectures")
table = comparisons.architectures(stored)
Markdown(tables.markdown(table))

# %%
for row in table.dropna().itertuples():
    assert 0.5 < row.DeepRED - row.DIP < 4  # with either network

# %% [markdown]
# **What we see.** Left to run, the Deep Decoder ends level with the hourglass. It overfits less, as it was built to: it ends
# 0.6 dB below its best, the hourglass 1.8 dB below a better one. RED adds one decibel to the decoder and two to the hourglass,
# and neither needs stopping any more. With it the richer network wins.
#
# ## Questions
#
# 1. Why is $z$ random, and why does it do no harm to change it a little in every step (`input_noise`)? Set it to 0
#    in the long run above and watch the best moment.
# 2. The discrepancy rule stops when the residual's root mean square is $\sigma$. For an output that has begun to learn
#    the noise, is the error of the *picture* then larger or smaller than for one that has not?
# 3. Shuffled pixels are fitted far more slowly than the picture, although their histogram is the picture's. What would
#    you change in the network for it to prefer shuffled pictures (with one fixed, known shuffle)?
#
# <details><summary>Answers</summary>
#
# 1. $z$ is only a place to start from; any fixed input that differs from pixel to pixel will do. Perturbed inputs make the
#    network find weights that draw the same picture for all of them, which is a regulariser: without it the best moment
#    comes earlier and passes faster: here at iteration 133 instead of 194, and by the end a decibel more is lost since.
# 2. Larger. The residual contains noise not yet learnt *and* picture not yet drawn. An output that has learnt some noise must still
#    lack some picture to have a residual of $\sigma$: its error has both.
# 3. Put the shuffle itself at its end: $\mathbf{S}\,\mathcal{T}_\Theta(z)$ with the known shuffle $\mathbf{S}$, so that
#    $\mathcal{T}_\Theta(z)$ has an ordinary picture to draw. The prior is in the architecture, and any known operator may be
#    part of it.
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
