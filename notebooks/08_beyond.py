# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Beyond the paper: what its conclusion asks for
#
# **Goals.** Know what an iteration costs and how far that is from what the machine could do at best.
# See what precision, narrow networks, means over runs and a better conditioned data term save, each
# beside the paper's own settings. Try other denoisers. Measure, frequency by frequency, what DIP
# regularises and what RED adds to it.
#
# **The claim.** The paper's conclusion (Section 5) names four things to be done: (i) to make DIP and
# DeepRED faster (1800 iterations took its authors 7.5 minutes an image for DIP and 10.8 for DeepRED,
# on a TITAN Xp with the denoiser on the CPU); (ii) to use better denoisers; (iii) to study the
# regularisation effect of DIP, so as to find an explicit prior that complements it; (iv) to find out
# whether DIP or DeepRED is a maximum a posteriori estimate. This notebook takes them in turn.
#
# **Time.** The live parts take about a minute on one core; all else is read from stored results.

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
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown, display

import deepred
from deepred import metrics, networks
from deepred.operators import Identity, degrade
from deepred.paper import bench, comparisons, less_work, plots, store, tables

plots.use_style()

# %% [markdown]
# ## (i) Speed: what an iteration costs
#
# An iteration is one pass through the network forward and one backward, nearly all of it in
# convolutions. A convolution with $C$ channels in and out and a kernel of $3 \times 3$ takes
# $2 \cdot 9\, C^2$ operations a pixel, and the backward pass twice as many: so the cost goes with
# the number of pixels and with the **square** of the width.

# %%
rows = []
for channels in (128, 64, 32, 16):
    settings = deepred.preset("paper").replace(channels=channels)
    operations, moved = bench.work(256, settings)
    count = networks.parameter_count(networks.untrained((3, 256, 256), settings))
    rows.append((channels, count, round(operations / 1e9, 1), round(moved / 1e9, 2)))
columns = ["channels", "parameters", "10⁹ operations", "10⁹ bytes"]
Markdown(tables.markdown(pd.DataFrame(rows, columns=columns)))

# %% [markdown]
# The table is for 256 × 256 pixels. Bytes are the fewest that have to pass between the processor and
# its memory, in float32, if all but the convolutions were free. 115 · 10⁹ operations are a quarter of
# a millisecond to the matrix units of a large GPU in bfloat16, and seconds to two cores of a laptop.
#
# ## One iteration, as this project computes it
#
# `deepred bench` times every mode that a machine offers, beside eager float32 in the same call, and
# beside the **floor**: the operations and bytes above at the rates that a large matrix product and a
# large copy reach on that machine. Stored runs of it:

# %%
machines = notebook.machines()
for result in machines:
    timed = bench.tables(result)
    shown = {k: timed[k] for k in timed if "economy" not in k}
    if not shown:
        continue
    m = result["machine"]
    where = (
        m["gpu"] or f"{m['cpu']}, {m['cores']} cores, bf16 units: {'yes' if m['bf16'] else 'no'}"
    )
    print(f"{where}; torch {m['torch']}, {m['date']}, deepred {m['commit']}")
    for title, table in shown.items():
        same = table.columns.difference(["time [ms]", "ratio"])
        display(Markdown(f"*{title}*\n\n{tables.markdown(table.drop_duplicates(list(same)))}"))

# %% [markdown]
# **What we see.** On this processor, which has no bf16 units, eager float32 with 128 channels takes 1.6
# to 3.3 times its floor; with 16 channels it takes eight to twelve times, as small convolutions and
# everything between them do not reach the rates of a large matrix product. No mode changes that much:
# channels-last helps in one case only (8 %), and several problems taking turns gain up to 1.5 times on
# 64 × 64 pixels (four networks stacked into one with grouped convolutions gained nothing: 1.0 times at
# 16 channels and 64 × 64 pixels, 0.6 times at 256 × 256).
#
# What does is to write the network anew. The kernels in C++ (`deepred.compute`) keep a map's channels side by side in
# memory and write each map once: a convolution applies the normalisation and the LeakyReLU before it while it reads, and
# adds up the statistics of what it writes; 3 × 3 convolutions are Winograd's. On a processor with AVX-512 an iteration of
# DIP takes a third to a quarter of torch's processor time on 512 × 768 pixels, and about a third on 256 × 256 (2.6 to 3.2
# times less). The rest of this part is about doing less. What the modes
# for GPUs are worth (tf32, bf16, recorded graphs, batches on streams, denoisers on the device) is
# measured by the same command where there is one.
#
# ## What lower precision costs
#
# bfloat16 keeps 8 bits of each factor. Only the products of the convolutions are in it, their sums
# in float32; what lies between the layers, theta, Adam, batch statistics and the images stay in
# float32. (Rounding all that lies between the layers, too, as autocast has it, lost more.) Does the
# picture suffer? Four crops, three seeds, 600 iterations each, the difference of the final PSNR to
# eager float32 with the same seed:

# %%
stored = store.read_runs(p.stored("paper"))
precisions = less_work.precisions(stored)
Markdown(tables.markdown(precisions))

# %%
for row in precisions.dropna(subset="mean").itertuples():
    assert abs(row.mean) < 0.1  # dB: what a mode may lose on average

# %% [markdown]
# A single run may end some tenths of a dB higher or lower in another precision, as it may with
# another seed: the paths part after a few dozen steps. On average it is less than 0.1 dB. If a run in
# bfloat16 produces infinities or NaN, it returns to its last good state and continues in float32.
#
# ## Means over narrow networks, live
#
# The mean of several restorations with different $z$ and $\Theta$ is better than each: their errors
# are partly independent. A network of 16 channels needs a fiftieth of the operations of one with 128,
# and on this CPU between a sixth and a nineteenth of its time, so that one can afford a few.

# %%
image = (p.images or ["builtin/chelsea"])[0]
seed = (p.seeds or [0])[0]
x = notebook.load(image, 64)
sigma = 25 / 255
y = degrade(x, Identity(), sigma, seed)
settings = deepred.preset("fast", small=True).replace(runs=4, iterations=p.live(350))
restored = deepred.restore(y, settings=settings, sigma=sigma, seed=seed, device=p.device)

# %% tags=["nbval-ignore-output"]
single = restored.images[0]
psnr = partial(metrics.psnr, truth=x)
panels = {"truth": x, f"noisy\n{psnr(y):.2f} dB": y, f"one run\n{psnr(single):.2f} dB": single}
panels[f"mean of four\n{psnr(restored.image):.2f} dB"] = restored.image
plots.save(plots.compare(panels, inset=(16, 16, 32)), p.figures, "beyond_mean")

# %%
alone = [metrics.psnr(one, x) for one in restored.images]
gain = metrics.psnr(restored.image, x) - sum(alone) / len(alone)
if p.profile != "smoke" and p.iterations is None:
    assert gain > 0.15  # dB

# %% [markdown]
# ## The same image for less work
#
# DeepRED by preset `paper` (for denoising with the 1800 iterations of the paper's run-time paragraph,
# not Table 1's 5000; for deblurring with 3000 of 15,000) and by cheaper settings, on four crops of
# 64 × 64 pixels, so that a CPU gets to the end of the 128 channels, too. Means over the crops. *reaches paper at*: the iteration
# at which the first run is as good as preset `paper` ever is, the mean of the crops on which that
# happens and their number; *after*: its time. Times are those of `deepred bench` in one call on two
# cores.

# %%
curves = partial(store.read_curves, p.stored("paper"))
timing = next((m["economy"] for m in machines if m["economy"]), [])
titles = {"denoise": "Denoising, σ = 25", "sr": "Super-resolution, x4", "deblur": "Deblurring"}
for task, title in titles.items():
    table = less_work.economy(task, stored, curves, timing)
    display(Markdown(f"*{title}*\n\n{tables.markdown(table)}"))

# %%
panels = {}
shown = (("paper", ""), ("fast", ""), ("fast", "4 runs"), ("fast", "4 × 16 channels"))
for task, title in titles.items():
    panels[title] = less_work.economy_lines(task, shown, stored, curves)
figure = plots.against_work(panels, "PSNR, mean of four crops [dB]")
plots.save(figure, p.figures, "beyond_work")

# %% [markdown]
# Curves are of one run, diamonds of the mean of all its runs.
#
# **What we see.** In super-resolution `fast` (32 channels, one run, NLM for BM3D, ten times the
# learning rate) ends level with `paper` for a twentieth of the operations. The mean of several narrower
# runs helps less there than a somewhat wider network: unlike noise, what is missing in a small
# picture is missing in each run. A learning rate that falls loses 0.15 dB, three scales instead of
# five lose nothing at this size, and preconditioning, which deblurring needs, is worth little here:
# the operator's window weakens no frequency of the small image to less than a quarter of the
# strongest, so that there is little to even out.
#
# In denoising, 128 channels overfit a picture this small within a few hundred iterations, and the
# constant weights of the paper's text do not hold them back: at its best moment the reference has
# 28.5 dB, at its end 22.2 dB. `fast`, whose weights grow once the fit is at the noise, passes that
# best moment in a sixth of its time and stays above it. The mean of runs is the best bargain: a
# second one gains 0.3 dB, four gain half a decibel.
#
# In deblurring the preconditioned data term does it: 1000 iterations of 16 channels end above 3000 of
# the paper's settings, which are a fifth of Table 1's and still rising. Here two more runs gain 0.35
# dB in the table, of which 0.14 is the difference between the two first runs and about 0.2 the
# averaging. (The first runs of `fast` and `fast, 4 runs` should be one curve. Their measurements were
# blurred on two threads and on one, differ in the last bit, and a thousand steps later by 0.14 dB: more
# digits than that no comparison of single runs deserves.)
#
# Whether the wide network has the last word on 256 × 256 or 512 × 512 pixels, where it overfits
# later, takes a GPU to say.
#
# ## Stopping without the truth
#
# DIP has to be stopped, and without the truth nobody knows when. Three stopping rules watch runs of 2000
# iterations on the four crops of above without stopping them, so that one sees where they would have: the
# variance of the last outputs, windowed or exponentially weighted, is least about where the picture is
# best (`deepred.beyond.stopping`; Wang and others 2023), and the discrepancy principle stops when the residual
# is down to the known noise. *images*: on how many of the four crops the rule stops at all; *stops at*:
# the iteration at which it does; *takes*: the earlier iteration that it goes by; *PSNR*: of the image it
# returns, a mean of the last outputs there; *lost*: against the best moment of what the same run would
# have returned. The rule *none* is the last iteration.

# %%
table = less_work.stops(stored)
Markdown(tables.markdown(table))

# %%
lost = table.set_index(["task", "method", "rule"])["lost [dB]"]
if lost.drop("discrepancy", level="rule").notna().all():
    for task, method in (("denoise", "DIP"), ("deblur", "DIP"), ("deblur", "DeepRED")):
        assert lost[task, method, "exponential-variance"] < lost[task, method, "none"] - 0.7
    assert lost["denoise", "DeepRED", "none"] < 0.5

# %% [markdown]
# **What we see.** DIP is what the rules are for. In denoising it loses 2.9 dB if nobody stops it, and
# 1.1 to 1.3 with one of the variances, after two fifths of the iterations (patience included); in
# deblurring 2.9 against 0.5. In denoising the discrepancy stops too early: clipping leaves less noise in
# $y$ than the $\sigma$ that the rule is told (notebook [02](02_deep_image_prior.ipynb); its option
# `target`). In deblurring it mostly never stops. DeepRED needs no rule in denoising: its last iteration is
# 0.3 dB from its best, and a rule that goes by iteration 600 (and stops at 900) loses 1.5, as the picture
# is there, but not yet at its cleanest. In deblurring, where 2000 iterations are twice what the preset
# takes on crops, the exponentially weighted variance wins back 1.0 of the 1.2 dB that DeepRED
# loses, in half the iterations. So the presets have fixed numbers of iterations (in denoising
# `fast` and `best` may end before that, once the image is at rest: `settle`), and the rules are there
# for DIP and for measurements unlike ours: `restore(..., stop=...)`, `deepred restore --stop`.

# %% [markdown]
# ## What the presets make of it
#
# `fast` is meant to give the quality of the paper's settings in the least time, on whole photographs.
# `best` is meant to give the highest PSNR in about the time of `paper`. The stored runs on crops, above
# and below, are of those for crops, `preset("fast", task, small=True)`.

# %%
rows = []
for task in titles:
    for name in ("paper", "fast", "best"):
        s = deepred.preset(name, task)
        rows.append((task, name, s.channels, s.iterations, s.runs, s.denoiser, s.precondition))
columns = ["task", "preset", "channels", "iterations", "runs", "denoiser", "ε of the data term"]
Markdown(tables.markdown(pd.DataFrame(rows, columns=columns)))

# %% [markdown]
# **What each choice buys.** Preset `fast` on one whole image of each task, and the same with one choice
# taken back; processor minutes of one thread.

# %%
Markdown(tables.markdown(comparisons.choices(stored)))

# %% [markdown]
# ## (ii) Better denoisers
#
# Which denoiser should RED have? Six that need no training, each asked for little ($\sigma_f = 3$ of
# 255) and for much (10; the median is not asked), in DeepRED with preset `fast` for crops, 16 channels and one
# run of 1000 iterations: the gain over DIP with the same network, mean over four crops of 64 × 64
# pixels and two seeds, its standard error over the crops.

# %%
table = comparisons.denoisers(stored)
Markdown(tables.markdown(table))

# %%
gains = table.set_index(["denoiser", "σ_f"])
if gains.notna().all(axis=None):
    asked_little = gains["denoising [dB]"].xs("3", level="σ_f")
    assert 0.5 < asked_little.min() and asked_little.max() < 1.5
    assert gains.loc[("BM3D", "10"), "super-resolution [dB]"] > 0.4

# %% [markdown]
# **What we see.** Asked for little, NLM, BM3D and wavelets are level in denoising, the bilateral filter
# is 0.1 dB behind and total variation 0.25: whatever removes a little noise again and again will nearly
# do. Asked for much, the better denoiser shows: BM3D gains most, total variation and the bilateral
# filter smooth away what they should keep. In super-resolution, where there is no noise in $y$ and the
# network's own patterns are what is to be removed, more is better for NLM, BM3D and wavelets. (In
# denoising the errors are large because pictures differ in what RED gains on them, from 0.1 to 1.7 dB;
# denoisers compared on the same picture differ much more consistently.) A learned denoiser is one argument away,
# `denoiser=module`; notebook [03](03_red.ipynb) trains a small one.
#
# ## (iii) What DIP regularises, and what RED adds
#
# Let the output of the network be $\mathcal{T}_\Theta(z) = a\,x + b\,v + r$: a share $a$ of the
# picture, a share $b$ of the noise that $y$ has on it, and a rest $r$ that is neither. The two shares
# can be measured in each band of frequencies alone (`metrics.shares`: least squares over the Fourier
# coefficients). A perfect restoration has $a = 1$ and $b = 0$ everywhere, and $y$ itself $a = b = 1$.
# Chakrabarty and Maji (2019) call what we shall see the *spectral bias* of DIP.

# %%
bands = {"below 1/16": 0, "1/16 to 1/8": 1 / 16, "1/8 to 1/4": 1 / 8, "above 1/4": 1 / 4}
edges = [*bands.values(), 0.75]  # cycles a pixel


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
axes[0].legend(title="cycles a pixel")
axes[1].get_legend().remove()
trade = {
    f"{tables.NAMES[method]}, {band}": (
        result.curve(f"picture, {band}")[1], result.curve(f"noise, {band}")[1]
    )
    for band in list(bands)[2:]
    for method, result in watched.items()
}  # fmt: skip
plots.curves(axes[2], trade, "share of the noise", xlabel="share of the picture")
axes[2].legend(title="cycles a pixel")
axes[2].set_title("what is paid for what")
plots.save(figure, p.figures, "beyond_bands")

# %%
ends = {method: result.curve("noise, 1/8 to 1/4")[1][-1] for method, result in watched.items()}
dip = {band: watched["dip"].curve(f"noise, {band}")[1] for band in bands}
if p.profile != "smoke" and p.images is None and p.seeds is None and p.iterations is None:
    middle = len(dip["above 1/4"]) // 2
    assert dip["1/16 to 1/8"][middle] > dip["1/8 to 1/4"][middle] > dip["above 1/4"][middle]
    assert ends["deepred"] < ends["dip"] - 0.05  # it is slower to learn the noise

# %% [markdown]
# **What we see.** DIP is a low-pass filter that opens with time. Low frequencies of the picture are
# there within 30 iterations, the highest not after 500. But in each band the noise follows the picture,
# low frequencies first: stopping sets a cut-off, and what lies below it is noisy. That is why DIP
# leaves coarse coloured blotches rather than fine grain. (In the lowest band the noise's share means
# little at first: the band has few coefficients, and what is still missing of the picture resembles
# the noise in them by chance.)
#
# The right panel says what RED adds. A prior that *complements* DIP would pay less noise for the same
# share of the picture, a lower curve. In the two bands shown it is nearly the same curve: after 500
# iterations DeepRED's output has the shares that DIP's had after about 350. So with the paper's constant
# weights RED mainly slows the way along the curve (its best output is some tenths of a decibel better),
# and does not halt it: the last output is more than two decibels below the best. Weights that grow once
# the fit is at the noise, as in preset `fast`, all but halt it (notebook [05](05_denoising.ipynb)). What one gains is time near the best
# point, in which outputs can be averaged. The paper's third question, which prior would bend the curve,
# is open.
#
# ## (iv) A maximum a posteriori estimate?
#
# "DIP(+RED) is a Maximum-A'posteriori Probability estimate by definition", says Section 4.2, and
# Section 5 asks whether one could claim so. Take the run above. For DIP the likelihood is all there is,
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

# %%
if p.profile != "smoke" and p.images is None and p.seeds is None and p.iterations is None:
    for method in ("DIP", "DeepRED"):
        (best, last) = ended[ended["method"] == method][columns[3]]
        assert last < 0.95 * best

# %% [markdown]
# **What we see.** The objective goes on falling where the picture gets worse, for both. The picture that
# is returned is not where the objective is least, so it is not the estimate that the objective defines:
# early stopping is part of the method and no part of the posterior. (Cheng and others 2019 sample
# DIP's posterior by Langevin dynamics instead: the posterior *mean* does not overfit.) For DeepRED there
# is a second reason. Eq. (4) would be a posterior with the prior $e^{-\lambda\rho}$; but the steps follow
# $x - f(x)$, which for a real denoiser is the gradient of no function at all (notebook
# [03](03_red.ipynb); Reehorst and Schniter 2019).
#
# ## Questions
#
# 1. An iteration on 512 × 512 pixels has four times the operations of one on 256 × 256. Why may it
#    take a GPU less than four times as long?
# 2. Four restorations each have the mean square error $b + v$: the part $b$ is the same in all of them,
#    the part $v$ is independent from run to run. By how many dB does their mean gain, and what is the
#    most that any number of runs can gain?
# 3. Why is the windowed variance of DIP's outputs small near the best picture, and not only at the
#    end?
# 4. For which $y$ would the highest band of frequencies be no reason to stop late: a portrait out of
#    focus, or a photograph of grass? Say it with the left two panels of (iii).
#
# <details><summary>Answers</summary>
#
# 1. On the smaller image the deepest scales have a few hundred pixels, too few to fill the device:
#    the time is that of launching and waiting, which does not grow. Batches of problems fill the same
#    gap.
# 2. With mean square error $b + v$ each, the mean of $n$ has $b + v/n$: a gain of
#    $10 \log_{10} \frac{b + v}{b + v/n}$, at most $10 \log_{10}(1 + v/b)$.
# 3. While the network still learns structure each step moves the picture a lot; when the structure is
#    there and the noise not yet, little is left to move. Then the noise comes in and moves it again,
#    differently from step to step as z is perturbed.
# 4. The portrait: it has next to nothing there, so that all that the network could still learn in that
#    band is noise. Of the grass the highest band holds much, and each share of it has to be paid with
#    noise in the bands below.
# </details>
#
# ## Further reading
#
# - G. Mataev, M. Elad and P. Milanfar, *DeepRED: Deep Image Prior Powered by RED*, ICCV Workshops
#   2019, Section 5 and the run-time paragraph of Section 4.1,
#   [arXiv:1903.10176](https://arxiv.org/abs/1903.10176).
# - H. Wang, T. Li, Z. Zhuang, T. Chen, H. Liang and J. Sun, *Early Stopping for Deep Image Prior*,
#   TMLR 2023, [arXiv:2112.06074](https://arxiv.org/abs/2112.06074).
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
