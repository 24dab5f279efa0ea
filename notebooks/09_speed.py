# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Section 5: speed, or the same image for less work
#
# **Goals.** Know what an iteration costs and how far that is from the best that the machine could do.
# See what precision, narrow networks, means over runs and a better conditioned data term save, each
# compared with the paper's own settings. Stop a run without knowing the truth.
#
# **The claim.** The paper's conclusion (Section 5) asks for a faster DIP and DeepRED: 1800 iterations
# took its authors 7.5 minutes per image for DIP and 10.8 for DeepRED, on a TITAN Xp with the denoiser on
# the CPU.
#
# **What you need.** Notebook [02](02_deep_image_prior.ipynb) or its idea; how a convolution is computed;
# a few seconds on one core. Nearly everything shows stored results.

# %% tags=["parameters", "hide-input"]
profile = "quick"
image = "builtin/chelsea"
seed = 0
iterations = None
device = "auto"
results = "../data/results"
figures = ""

# %% tags=["hide-input"]
from functools import partial

import pandas as pd
from IPython.display import Markdown, display

import deepred
from deepred import networks
from deepred.paper import bench, comparisons, less_work, notebook, plots, store, tables

p = notebook.parameters(globals(), "builtin/chelsea")
plots.use_style()

# %% [markdown]
# ## What an iteration costs
#
# An iteration is one pass forward and one backward through the network, and nearly all of the work is in
# convolutions. A convolution with $C$ channels in and out and a kernel of $3 \times 3$ takes
# $2 \cdot 9\, C^2$ operations per pixel, and the backward pass twice as many. So the cost is
# proportional to the number of pixels and to the **square** of the width.

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
# The table is for 256 × 256 pixels. *Bytes* is the least traffic between the processor and its memory,
# in float32, if everything but the convolutions were free. The matrix units of a large GPU compute
# 115 · 10⁹ operations in bfloat16 in a quarter of a millisecond, two cores of a laptop in seconds.
#
# ## One iteration, as this project computes it
#
# `deepred bench` times every mode of a machine and compares it with eager float32 in the same call, and
# with the **floor**: the time for the operations and bytes above at the rates that a large matrix product
# and a large copy reach on that machine. Stored results:

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
# to 3.3 times its floor. With 16 channels it takes eight to twelve times its floor, as small convolutions
# and everything between them do not reach the rates of a large matrix product. No mode changes that
# much. Channels-last helps in one case only (8 %), and several problems taking turns gain up to 1.5
# times on 64 × 64 pixels. (Four networks stacked into one with grouped convolutions gained nothing: 1.0
# times at 16 channels and 64 × 64 pixels, 0.6 times at 256 × 256.)
#
# A new implementation of the network does. The kernels in C++ (`deepred.compute`) keep the channels of a
# map side by side in memory and write each map once. A convolution applies the preceding normalisation
# and LeakyReLU while it reads, and accumulates the statistics of what it writes; 3 × 3 convolutions
# use Winograd's algorithm. On a processor with AVX-512 an iteration of DIP takes a third to a quarter of
# torch's processor time on 512 × 768 pixels, and about a third on 256 × 256 (2.6 to 3.2 times less).
# The rest of this notebook is about doing less work. The modes for GPUs (tf32, bf16, recorded graphs,
# batches on streams, denoisers on the device) are measured by the same command where there is a GPU.
#
# ## What lower precision costs
#
# bfloat16 keeps 8 bits of each factor. Only the products of the convolutions use it; their sums, the
# maps between the layers, theta, Adam, batch statistics and the images stay in float32. (Rounding the maps
# between the layers as well, as autocast does, lost more.) Does the picture suffer? Four crops, three
# seeds, 600 iterations each, the difference in the final PSNR from eager float32 with the same seed:

# %%
stored = store.read_runs(p.stored("paper"))
precisions = less_work.precisions(stored)
Markdown(tables.markdown(precisions))

# %% tags=["remove-cell"]
for row in precisions.dropna(subset="mean").itertuples():
    assert abs(row.mean) < 0.1  # dB: what a mode may lose on average

# %% [markdown]
# A single run may end some tenths of a dB higher or lower in another precision, as with another seed: the
# runs diverge after a few dozen steps. On average the difference is less than 0.1 dB. If a run in bfloat16
# produces infinities or NaN, it returns to its last good state and continues in float32.
#
# ## Means over narrow networks
#
# The mean of several restorations with different $z$ and $\Theta$ is better than each, since their errors
# are partly independent (notebook [02](02_deep_image_prior.ipynb) has a picture of it). A network of 16
# channels needs a fiftieth of the operations of one with 128, and on this CPU between a sixth and a
# nineteenth of its time, so that several are affordable. The next table has the mean of two and of four.
#
# ## The same image for less work
#
# DeepRED by preset `paper` and by cheaper settings, on four crops of 64 × 64 pixels, so that a CPU can
# finish 128 channels, too. (Preset `paper` takes 1800 iterations for denoising, as in the paper's run-time
# paragraph, instead of Table 1's 5000, and 3000 of 15,000 for deblurring.) Means over the crops. *reaches
# paper at*: the iteration at which the first run is as good as preset `paper` ever is, as a mean over the
# crops on which that happens, with their number. *after*: the time until then. Times are those of one
# call of `deepred bench` on two cores.

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
# Curves show one run, diamonds the mean of all runs of a variant.
#
# **What we see.** In super-resolution, `fast` (32 channels, one run, NLM instead of BM3D, ten times the
# learning rate) ends level with `paper` for a twentieth of the operations. A somewhat wider network helps
# more there than the mean of several narrow ones: noise differs from run to run, but detail that is
# absent from a small picture is absent in each run. A decreasing learning rate loses 0.15 dB. Three
# scales instead of five lose nothing at this size. Preconditioning, which deblurring needs, is worth little
# here: the operator's window attenuates no frequency of the small image to less than a quarter of the
# strongest.
#
# In denoising, 128 channels overfit a picture this small within a few hundred iterations, and the constant
# weights of the paper's text do not prevent it: at its best moment the reference has 28.5 dB, at its end
# 22.2 dB. `fast`, whose weights grow once the fit has reached the noise, passes that best moment in a
# sixth of the time and stays above it. Means of runs are the most economical: a second run gains 0.3 dB,
# four gain half a decibel.
#
# In deblurring the preconditioned data term is decisive: 1000 iterations of 16 channels end above 3000 of
# the paper's settings, which are a fifth of Table 1's and still rising. Two more runs gain 0.35 dB in the
# table, of which 0.14 is the difference between the two first runs and about 0.2 the averaging. (The
# first runs of `fast` and `fast, 4 runs` should be one curve. Their measurements were blurred on two
# threads and on one, differ in the last bit, and after a thousand steps by 0.14 dB. No comparison of single
# runs deserves more digits than that.)
#
# Whether the wide network is better on 256 × 256 or 512 × 512 pixels, where it overfits later, only a
# GPU can tell.
#
# ## Stopping without the truth
#
# DIP has to be stopped, and the truth that would tell when is not known. Three rules
# (`deepred.beyond.stopping`) watch runs of 2000 iterations on the four crops, without stopping them. The
# variance of the last outputs, windowed or exponentially weighted, is smallest about where the picture is
# best (Wang and others 2023). The discrepancy principle stops when the residual has fallen to the known
# noise level. The columns are
#
# - *images*: on how many of the four crops the rule stops at all;
# - *stops at*: the iteration at which it does; *takes*: the earlier iteration that it considers best;
# - *PSNR*: of the image that it returns, a mean of the last outputs before that iteration;
# - *lost*: compared with the best moment of what the same run would have returned.
#
# The rule *none* is the last iteration.

# %%
table = less_work.stops(stored)
Markdown(tables.markdown(table))

# %% tags=["remove-cell"]
lost = table.set_index(["task", "method", "rule"])["lost [dB]"]
if lost.drop("discrepancy", level="rule").notna().all():
    for task, method in (("denoise", "DIP"), ("deblur", "DIP"), ("deblur", "DeepRED")):
        assert lost[task, method, "exponential-variance"] < lost[task, method, "none"] - 0.7
    assert lost["denoise", "DeepRED", "none"] < 0.5

# %% [markdown]
# **What we see.** The rules are made for DIP. In denoising DIP loses 2.9 dB without stopping, and 1.1 to 1.3
# with one of the variances, after two fifths of the iterations (patience included); in deblurring 2.9
# against 0.5. In denoising the discrepancy stops too early, since clipping leaves less noise in $y$ than
# the $\sigma$ that the rule is told (its option `target` can correct this). In deblurring it mostly never
# stops. DeepRED needs no rule in denoising: its last iteration is 0.3 dB below its best, and a rule that
# takes iteration 600 (and stops at 900) loses 1.5, because the picture is there, but not yet at its
# cleanest. In deblurring, where 2000 iterations are twice as many as the preset takes on crops, the
# exponentially weighted variance recovers 1.0 of the 1.2 dB that DeepRED loses, in half the iterations. So
# the presets have fixed numbers of iterations (in denoising `fast` and `best` may end earlier, once the
# image has settled: `settle`). The rules are for DIP and for measurements unlike ours:
# `restore(..., stop=...)`, `deepred restore --stop`.
#
# ## The presets
#
# `fast` is meant to give the quality of the paper's settings in the least time, on whole photographs.
# `best` is meant to give the highest PSNR in about the time of `paper`. The stored runs on crops above use
# the presets for crops, `preset("fast", task, small=True)`.

# %%
rows = []
for task in titles:
    for name in ("paper", "fast", "best"):
        s = deepred.preset(name, task)
        rows.append((task, name, s.channels, s.iterations, s.runs, s.denoiser, s.precondition))
columns = ["task", "preset", "channels", "iterations", "runs", "denoiser", "ε of the data term"]
Markdown(tables.markdown(pd.DataFrame(rows, columns=columns)))

# %% [markdown]
# **The effect of each choice.** Preset `fast` on one whole image of each task, and the same with one choice
# undone, in processor minutes of one thread:

# %%
Markdown(tables.markdown(comparisons.choices(stored)))

# %% [markdown]
# ## Exercises
#
# **In code.** How many operations does one pass forward through a single convolution of 128 channels with
# 3 × 3 kernels take, for 256 × 256 pixels? Replace `None`:

# %% tags=["exercise"]
flops = None
print(notebook.check(flops, 19_327_352_832))

# %% tags=["solution", "hide-cell"]
flops = 2 * 9 * 128**2 * 256**2
print(notebook.check(flops, 19_327_352_832))

# %% [markdown]
# **To think about.**
#
# 1. An iteration on 512 × 512 pixels has four times the operations of one on 256 × 256. Why may it take
#    a GPU less than four times as long?
# 2. Four restorations each have the mean square error $b + v$: the part $b$ is the same in all of them,
#    the part $v$ is independent from run to run. By how many dB does their mean gain, and how much can
#    any number of runs gain at most?
# 3. Why is the windowed variance of DIP's outputs small near the best picture, and not only at the end?
#
# <details><summary>Answers</summary>
#
# 1. On the smaller image the deepest scales have a few hundred pixels, too few to occupy the device. The
#    time is then that of launching kernels and waiting, which does not grow. Batches of problems fill
#    the same gap.
# 2. With mean square error $b + v$ each, the mean of $n$ has $b + v/n$: a gain of
#    $10 \log_{10} \frac{b + v}{b + v/n}$, at most $10 \log_{10}(1 + v/b)$.
# 3. While the network still learns structure, each step changes the picture a lot. When the structure is
#    learnt and the noise is not, little changes. Then the noise is learnt and changes the picture again,
#    differently from step to step, as z is perturbed.
# </details>
#
# ## Further reading
#
# - G. Mataev, M. Elad and P. Milanfar, *DeepRED: Deep Image Prior Powered by RED*, ICCV Workshops
#   2019, Section 5 and the run-time paragraph of Section 4.1,
#   [arXiv:1903.10176](https://arxiv.org/abs/1903.10176).
# - H. Wang, T. Li, Z. Zhuang, T. Chen, H. Liang and J. Sun, *Early Stopping for Deep Image Prior*,
#   TMLR 2023, [arXiv:2112.06074](https://arxiv.org/abs/2112.06074).
