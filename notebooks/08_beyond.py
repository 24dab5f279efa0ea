# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Beyond the paper: the same image for less work
#
# **Goals.** Know what an iteration costs and what the machine could do in that time. See what
# precision, narrow networks, means over runs and a better conditioned data term save, each beside
# the paper's own settings. Know where the presets `fast` and `best` come from.
#
# **The claim.** The paper's conclusion asks for speed first: 1800 iterations took its authors 7.5
# minutes an image for DIP and 10.8 for DeepRED, on a TITAN Xp with the denoiser on the CPU.
#
# **Time.** The live part takes about half a minute; all else is read from stored results.

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
from functools import partial

import pandas as pd
from IPython.display import Markdown, display

import deepred
from deepred import bench, metrics, networks, plots, restoration, store, tables
from deepred.operators import Identity, degrade

plots.use_style()

# %% [markdown]
# ## What an iteration costs
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
    count = networks.parameter_count(restoration.untrained((3, 256, 256), settings))
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
    m = result["machine"]
    where = (
        m["gpu"] or f"{m['cpu']}, {m['cores']} cores, bf16 units: {'yes' if m['bf16'] else 'no'}"
    )
    print(f"{where}; torch {m['torch']}, {m['date']}, deepred {m['commit']}")
    for title, table in bench.tables(result).items():
        if "economy" not in title:
            display(Markdown(f"*{title}*\n\n{tables.markdown(table)}"))

# %%
for kind, there in [("CPU", machines), ("GPU", [m for m in machines if m["machine"]["gpu"]])]:
    if not there:
        print(f"{kind}: missing")

# %% [markdown]
# **What we see.** On a processor without bf16 units eager float32 is within a small factor of its
# floor, and no mode changes that: torch's own layout is the best, and several problems taking turns
# on the same cores gain little over one after the other (nor did four networks stacked into one with
# grouped convolutions: 1.0 times at 16 channels and 64 × 64 pixels, 0.6 times at 256 × 256). The
# way to be faster on such a machine is to do less, which is the rest of this notebook. What the modes
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
precisions = tables.precisions(stored)
Markdown(tables.markdown(precisions))

# %%
for row in precisions.dropna(subset="mean").itertuples():
    assert abs(row.mean) < 0.1  # dB: what a mode may lose on average

# %% [markdown]
# A single run may end some tenths of a dB higher or lower in another precision, as it may with
# another seed: the paths part after a few dozen steps. On average it is less than 0.1 dB. A run that does
# become non-finite in bfloat16 goes back to its last good state and on in float32, and says so.
#
# ## Means over narrow networks, live
#
# The mean of several restorations with different $z$ and $\Theta$ is better than each: their errors
# are partly independent. A network of 16 channels costs a fiftieth of one with 128, so that one can
# afford a few.

# %%
image = (p.images or ["builtin/chelsea"])[0]
seed = (p.seeds or [0])[0]
x = notebook.load(image, 64)
sigma = 25 / 255
y = degrade(x, Identity(), sigma, seed)
settings = deepred.preset("fast").replace(runs=4, iterations=p.live(350))
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
# DeepRED by preset `paper` and by cheaper settings, on four crops of 64 × 64 pixels, so that a CPU
# gets to the end of the 128 channels, too. Means over the crops. *reaches paper at*: the iteration
# at which the first run is as good as preset `paper` ever is, the mean of the crops on which that
# happens and their number; *after*: its time. Times are those of `deepred bench` in one call on two
# cores.

# %%
curves = partial(store.read_curves, p.stored("paper"))
timing = next((m["economy"] for m in machines if m["economy"]), [])
titles = {"denoise": "Denoising, σ = 25", "sr": "Super-resolution, x4", "deblur": "Deblurring"}
for task, title in titles.items():
    table = tables.economy(task, stored, curves, timing)
    display(Markdown(f"*{title}*\n\n{tables.markdown(table)}"))

# %%
panels = {}
shown = ("paper", "fast", "fast, 4 runs", "fast, 4 × 16 channels")
for task, title in titles.items():
    panels[title] = tables.economy_lines(task, shown, stored, curves)
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
# the window leaves every frequency at least a quarter of its power.
#
# In denoising, 128 channels overfit a picture this small within a few hundred iterations, and the
# constant weights of the paper's text do not hold them back: at its best moment the reference has
# 28.5 dB, at its end 22.2 dB. `fast`, whose weights grow once the fit is at the noise, passes that
# best moment in a sixth of its time and stays above it. The mean of runs is the best bargain: a
# second one gains 0.3 dB, four gain half a decibel.
#
# In deblurring the preconditioned data term does it: 1000 iterations of 16 channels end above 3000 of
# the paper's settings, which are a fifth of Table 1's and still rising. Here two more runs gain a
# quarter of a decibel. (The first runs of `fast` and `fast, 4 runs` should be one curve. Their
# measurements were blurred on two threads and on one, differ in the last bit, and a thousand steps
# later by 0.1 dB: more digits than that no comparison of single runs deserves.)
#
# Whether the wide network has the last word on 256 × 256 or 512 × 512 pixels, where it overfits
# later, takes a GPU to say.
#
# ## Stopping without the truth
#
# DIP has to be stopped, and without the truth nobody knows when. Three rules look on at runs of 2000
# iterations and stop nothing, so that one sees where they would have: the variance of the last
# outputs, windowed or exponentially weighted, is least about where the picture is best
# (`deepred.stopping`; Wang and others 2023), and the discrepancy principle stops when the residual
# is down to the known noise. *lost* is against the best PSNR of the same run.

# %%
Markdown(tables.markdown(tables.stops(stored)))

# %% [markdown]
# **What we see.** At the presets' high learning rate the rules do not earn their place in denoising:
# they stop within the first 300 to 900 iterations, when the returned image, an average with a memory
# of a hundred iterations, has not caught up with the network. The valley of the variance is no
# clearer than its dents, and the residual is at the noise when the bare output, which has learnt
# some of the noise by then, is still at 25 to 27 dB. DeepRED has no need of them there: its last
# iteration is 0.2 dB from its best. In deblurring, where 2000 iterations are twice what preset
# `fast` takes, the exponentially weighted variance wins back 0.7 of the 1.1 dB that DeepRED loses
# and 1.2 of the 3.0 of DIP, in half the iterations. So the presets have fixed numbers of iterations,
# and the rules are there for measurements unlike ours: `restore(..., stop=...)`, `deepred restore --stop`.

# %% [markdown]
# ## What the presets make of it
#
# `fast` is what gives the paper's settings' quality for the least time, `best` the highest PSNR for
# about the time of `paper`:

# %%
rows = []
for task in titles:
    for name in ("paper", "fast", "best"):
        s = deepred.preset(name, task)
        rows.append((task, name, s.channels, s.iterations, s.runs, s.denoiser, s.precondition))
columns = ["task", "preset", "channels", "iterations", "runs", "denoiser", "ε of the data term"]
Markdown(tables.markdown(pd.DataFrame(rows, columns=columns)))

# %% [markdown]
# ## Questions
#
# 1. An iteration on 512 × 512 pixels has four times the operations of one on 256 × 256. Why may it
#    take a GPU less than four times as long?
# 2. Four independent restorations have the same error against the truth, of which a share $b$ (a mean
#    square) is common to all. By how many dB does their mean gain, and what is the most that any
#    number of runs can gain?
# 3. Why is the windowed variance of DIP's outputs small near the best picture, and not only at the
#    end?
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
# </details>
#
# ## Further reading
#
# - The paper, Section 5 and the run-time paragraph of Section 4.1:
#   [arXiv:1903.10176](https://arxiv.org/abs/1903.10176).
# - H. Wang, T. Li, Z. Zhuang, T. Chen, H. Liang and J. Sun, *Early Stopping for Deep Image Prior*,
#   TMLR 2023, [arXiv:2112.06074](https://arxiv.org/abs/2112.06074).
# - P. Chakrabarty and S. Maji, *The Spectral Bias of the Deep Image Prior*,
#   [arXiv:1912.08905](https://arxiv.org/abs/1912.08905).
# - K. Dabov, A. Foi, V. Katkovnik and K. Egiazarian, *Image Denoising by Sparse 3-D
#   Transform-Domain Collaborative Filtering*, IEEE Transactions on Image Processing 16, 2007: BM3D,
#   of which `deepred.bm3d_torch` is an implementation for any device.
