# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Section 4.3: deblurring
#
# **Goals.** Undo a known blur. Understand why the plain data term needs tens of thousands of
# iterations, and how a reweighting of frequencies changes that. Compare our numbers with Table 5.
#
# **The claim.** Four images, two kernels (uniform, 9 × 9; Gaussian, 25 × 25 of width 1.6), Gaussian
# noise of $\sigma = \sqrt 2$. The paper reports averages of 31.22 and 32.30 dB for DeepRED, 30.51
# and 31.62 for DIP. RED with a trained denoiser (TNRD) and NCSR are close.
#
# **What you need.** Notebook [05](05_deepred.ipynb), or only its idea; the Fourier transform of a
# convolution; about a minute on one core for the live part. Everything else shows stored results; the
# paper's images are not needed.

# %% tags=["parameters", "hide-input"]
profile = "quick"
image = "builtin/astronaut"
seed = 0
iterations = None
device = "auto"
results = "../data/results"
figures = ""

# %% tags=["hide-input"]
import torch
from IPython.display import Markdown
from matplotlib import pyplot as plt

import deepred
from deepred import metrics
from deepred.operators import Blur, degrade
from deepred.paper import experiments, notebook, plots, store, tables

p = notebook.parameters(globals())
plots.use_style()

# %% [markdown]
# ## The measurement
#
# A circular convolution of each channel, as if the image continued at the opposite border, plus a little
# noise. The blur attenuates fine detail so much that even this small noise hides it.

# %%
x = notebook.load(image)
H = Blur.uniform()
sigma = 2**0.5 / 255
y = degrade(x, H, sigma, seed)
print(f"{image}, blurred: {metrics.psnr_y(y, x):.2f} dB")

# %% [markdown]
# ## What the blur does to frequencies
#
# In the Fourier domain the blur multiplies each frequency by a number $K$. Where the spectrum of the
# blurred image falls below that of the noise, only the priors can restore anything. The uniform kernel
# has zeros, the Gaussian one decays. Along one axis:

# %%
figure, axis = plt.subplots(figsize=(7, 2.8))
frequency = torch.arange(145) / 288  # 288 = 9 x 32: the zeros are among them
for name, blur, colour in [("uniform 9 × 9", H, "dip"), ("Gaussian, 1.6", Blur.gaussian(), "nlm")]:
    delta = torch.zeros(1, 1, 288, 288)
    delta[..., 0, 0] = 1
    K = torch.fft.rfft2(blur(delta))[0, 0, 0].abs()
    axis.semilogy(frequency, K, label=name, color=plots.COLOURS[colour])
axis.set(xlabel="frequency [cycles per pixel]", ylabel="|K|", ylim=(1e-4, 1.5))
axis.legend()
plots.save(figure, p.figures, "blur_spectrum")

# %% [markdown]
# ## Why the plain data term is slow
#
# The gradient of $\tfrac12\|\mathbf{H}\mathcal{T} - y\|^2$ with respect to the image is
# $\mathbf{H}^T(\mathbf{H}\mathcal{T} - y)$: the error at each frequency enters with $|K|^2$. A frequency
# attenuated to a tenth drives the network a hundred times less than one that the blur has not changed.
# For this reason the paper takes 15,000 and 20,000 iterations, its authors' code 30,000.
#
# Our presets `fast` and `best` weight the residual,
#
# $$\tfrac12\|\mathbf{W}(\mathbf{H}\mathcal{T} - y)\|^2
#   \quad\text{with}\quad W = (|K|^2 + \varepsilon)^{-1/2},$$
#
# scaled to mean 1. This is the back-projection fidelity of Tirer and Giryes, used for DIP by Zukerman,
# Tirer and Giryes. All frequencies with $|K|$ well above $\sqrt\varepsilon$ count alike. **This is not the
# paper's algorithm**: the presets `paper` and `authors` do not have it. The price is that the noise is
# amplified as well, so that DIP has to be stopped early here, too.
#
# ## A miniature, live
#
# 128 × 128 pixels, a network of 32 channels, one run each, the preconditioned data term for both.

# %%
settings = deepred.preset("fast", "deblur").replace(iterations=p.live(800))
common = dict(settings=settings, seed=seed, device=p.device)
restored = {method: deepred.restore(y, H, method=method, **common) for method in ("dip", "deepred")}

# %% tags=["nbval-ignore-output"]
panels = {"blurred": y}
panels |= {tables.NAMES[method]: result.image for method, result in restored.items()}
titles = {f"{name}\n{metrics.psnr_y(z, x):.2f} dB": z for name, z in panels.items()}
figure = plots.compare({"truth": x, **titles}, inset=(50, 34, 56))
plots.save(figure, p.figures, "deblurring_live")

# %% tags=["remove-cell"]
if p.unchanged:
    psnr = {method: metrics.psnr_y(result.image, x) for method, result in restored.items()}
    assert metrics.psnr_y(y, x) + 4 < psnr["dip"] < psnr["deepred"]

# %% [markdown]
# **What we see.** Both restore the edges. DIP has begun to fit the amplified noise, visible as a grain in
# flat regions. In DeepRED the denoiser removes it as it appears.
#
# ## Table 5
#
# Ours beside the paper's, PSNR of the luminance in dB. The blurred images are deterministic but for
# the noise, and agree to 0.01 dB (`deepred verify`, mean of ten seeds). The rows NCSR and RED
# (FP-TNRD) are quoted; our RED has NLM. Preset `fast` is made for two cores: 32 channels instead of
# 128, and 4000 iterations with the preconditioned data term instead of 15,000 and 20,000.

# %%
stored = store.read_runs(p.stored("paper"))
table5 = experiments.TABLES["table5"]
full = stored[stored["experiment"] == "table5"]
Markdown(tables.shown(table5, "uniform", full))

# %%
Markdown(tables.shown(table5, "gaussian", full))

# %%
ours = tables.averages(stored).set_index("mean over the images [dB]")["DeepRED, ours"]
print(ours[[name for name in ours.index if "Table 5" in name]].to_string())

# %% [markdown]
# **What we see.** With 32 channels and the preconditioned data term DeepRED reaches the paper's quality in six
# and a half processor minutes per image: 0.04 dB below it for the uniform kernel, 0.08 for the Gaussian
# one, 0.6 to 0.7 above the paper's DIP, and above RED alone on every image, by 2.6 and 1.4 dB on average.
# With the uniform kernel our DIP, with the same network and number of iterations, has the paper's mean
# (30.52 dB against 30.51), and DeepRED is above it on each of the four images, by 0.7 dB on average.
# It is further ahead where the picture is smooth (parrots) and behind where it is all texture (leaves,
# starfish), as one would expect of a network with a quarter of the channels. At the last of 4000
# iterations the quality still rises. These are single runs with one seed: a tenth of a decibel on one
# image says nothing.
#
# ## Figures 4, 5 and 6
#
# `butterfly`, `parrots` and `leaves`, uniform kernel, by preset `fast`.

# %% tags=["nbval-ignore-output"]
butterfly = notebook.pictures(p, "table5", "uniform", "butterfly", ("fast",))
notebook.show(p, "figure4", [butterfly], [(90, 90, 70)])

# %% tags=["nbval-ignore-output"]
parrots = notebook.pictures(p, "table5", "uniform", "parrots", ("fast",))
notebook.show(p, "figure5", [parrots], [(60, 60, 70)])

# %% tags=["nbval-ignore-output"]
leaves = notebook.pictures(p, "table5", "uniform", "leaves", ("fast",))
notebook.show(p, "figure6", [leaves], [(90, 90, 70)])

# %% [markdown]
# ## The same in small
#
# The profile `quick` runs on a laptop: 128 × 128 pixels of three of scikit-image's photographs, preset
# `fast` (32 channels instead of 128 and, above all, the preconditioned data term) for 1000 iterations
# instead of tens of thousands; one seed. Its numbers are not the paper's.

# %%
small = p.stored("smoke" if p.profile == "smoke" else "quick")
quick = store.read_runs(small)
quick = quick[quick["experiment"] == "table5"]
Markdown(tables.markdown(tables.summary(quick)))

# %%
solved = quick[quick["method"].isin(["dip", "deepred"]) & (quick["setting"] == "uniform")]
by_image = {
    image: {row.method: store.read_curves(small, row.key) for row in group[::-1].itertuples()}
    for image, group in solved[solved["seed"] == solved["seed"].min()].groupby("image")
}
if by_image:
    figure = plots.pairs_of_curves(by_image, "PSNR-Y of the result [dB]")
    plots.save(figure, p.figures, "deblurring_quick")

# %% tags=["remove-cell"]
if len(quick) and p.profile != "smoke":
    for _, group in quick.groupby("setting"):
        mean = tables.by_method(group, ["blurred", "dip", "deepred"])
        assert mean["blurred"] < mean["dip"] < mean["deepred"]

# %% [markdown]
# **What we see.** With the noise amplified, DIP turns after 500 to 800 iterations, sooner where the
# picture is smooth; DeepRED does not turn, and ends 1.2 dB above it (1.7 for the Gaussian kernel). RED
# alone, without any network and in two seconds, is above DIP in both settings and 0.4 dB below DeepRED: at
# this low noise a denoiser and an exact solution of the linear system suffice for small pictures. On the
# paper's whole images they do not: there our RED is 2 dB (1.6 for the Gaussian kernel) below the paper's
# RED with TNRD.
#
# ## Your own picture
#
# ```
# deepred restore blurred.jpg -o sharp.png --task deblur --kernel psf.png
# ```
#
# with `uniform9`, `gauss25` or a file: an image, or a table of numbers. A photograph does not wrap
# around at its border, so the command restores an image that is larger by what the kernel reaches
# (`beyond.operators.Framed`), and returns the part that was seen. The kernel must be known: with a wrong
# one, edges ring.
#
# ## Exercises
#
# **In code.** How much does $\mathbf{W}$ amplify a frequency with $|K| = 0.1$, relative to one with
# $|K| = 1$, for $\varepsilon = 0.01$? Replace `None`:

# %% tags=["exercise"]
K, eps = torch.tensor([0.1, 1.0]), 0.01
amplified = None
print(notebook.check(amplified, 7.1063))

# %% tags=["solution", "hide-cell"]
W = (K**2 + eps) ** -0.5
amplified = W[0] / W[1]
print(notebook.check(amplified, 7.1063))

# %% [markdown]
# **To try and to think about.**
#
# 1. The uniform kernel of 9 × 9 has zeros at the multiples of 1/9 cycles per pixel (except 0) along
#    either axis. What can any method know of the image at these frequencies?
# 2. With $\mathbf{W}$ and $\varepsilon \to 0$, what becomes of the noise in the data term, and what
#    does that do to a network that is not stopped? Try `precondition=0.001` and `0.1`.
# 3. For the plain data term, estimate by how much the error at $|K| = 0.1$ shrinks while the error at
#    $|K| = 1$ is divided by ten, if gradient descent with a small step $c$ acted on the image itself.
#
# <details><summary>Answers</summary>
#
# 1. Nothing from $y$. What appears there comes from the priors: edges and textures that are likely
#    given the rest.
# 2. It is amplified without bound at the zeros of $K$, and the network fits it as soon as it can. A small
#    ε is faster and overfits earlier; a large one is slower and safer.
# 3. Errors shrink like $(1 - c|K|^2)^k$. When one has shrunk by a factor of 10, the other has shrunk by
#    a factor of $10^{0.01}$, that is by 2 per cent.
# </details>
#
# ## Further reading
#
# - G. Mataev, M. Elad and P. Milanfar, *DeepRED: Deep Image Prior Powered by RED*, ICCV Workshops 2019, Section 4.3,
#   [arXiv:1903.10176](https://arxiv.org/abs/1903.10176).
# - T. Tirer and R. Giryes, *Back-Projection Based Fidelity Term for Ill-Posed Linear Inverse
#   Problems*, IEEE Transactions on Image Processing 29, 2020; J. Zukerman, T. Tirer and R. Giryes,
#   *BP-DIP: A Backprojection based Deep Image Prior*,
#   [arXiv:2003.05417](https://arxiv.org/abs/2003.05417).
# - W. Dong, L. Zhang, G. Shi and X. Li, *Nonlocally Centralized Sparse Representation for Image
#   Restoration*, IEEE Transactions on Image Processing 22, 2013: the images and the row NCSR.
