# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own problem: holes, projections, photons, photographs
#
# **Goals.** Use the method on problems that the paper names and does not show: inpainting, tomography, a
# low-light photograph with Poisson noise. Learn which choices to make (operator, likelihood, settings,
# denoiser), and in which order. Restore a colour photograph of your own.
#
# **The claim.** "By modifying the operator $\mathbf{H}$, we can switch between several popular problems"
# (Section 2.1). Nothing else in the algorithm changes.
#
# **What you need.** Notebook [00](00_start_here.ipynb); about a minute on one core. The live pictures come
# with scikit-image; the large ones are from stored results.

# %% tags=["parameters", "hide-input"]
profile = "quick"
image = "builtin/chelsea"
seed = 0
iterations = None
device = "auto"
results = "../data/results"
figures = ""

# %% tags=["hide-input"]
import torch
from IPython.display import Markdown

import deepred
from deepred import metrics
from deepred.beyond import baselines
from deepred.beyond.likelihoods import Poisson
from deepred.beyond.operators import Composed
from deepred.beyond.radon import Radon
from deepred.io import datasets
from deepred.operators import Blur, Inpaint, degrade
from deepred.paper import comparisons, notebook, plots, store, tables

p = notebook.parameters(globals(), "builtin/chelsea")
plots.use_style()
stored = store.read_runs(p.stored("paper"))

# %% [markdown]
# Every problem below is solved in three lines: an operator, a measurement, a call.
#
# ## Holes: inpainting
#
# $\mathbf{H}$ keeps the pixels that are seen. A mask comes from a file (`io.kernels.read_mask`) or from
# numbers. Here it is a grid of scratches over a quarter of the picture.

# %%
x = notebook.load(image)
mask = torch.ones(x.shape[2:], dtype=bool)
for k in range(3):
    mask[k::24] = mask[:, 10 + k :: 24] = False
H = Inpaint.of(mask)
y = degrade(x, H, 0.0, seed)
print(f"seen: {100 * H.seen:.0f} %")

# %%
settings = deepred.preset("fast", "inpaint").replace(channels=16, iterations=p.live(700))
common = dict(settings=settings, seed=seed, device=p.device)
filled = {method: deepred.restore(y, H, method=method, **common) for method in ("dip", "deepred")}

# %% [markdown]
# The seen pixels are known without noise. They are kept, and the restored image is taken in the holes alone,
# as `deepred restore --task inpaint` does.

# %% tags=["nbval-ignore-output"]
smooth = baselines.total_variation(y, H, 1e-3)
estimates = {"TV": smooth} | {tables.NAMES[name]: r.image for name, r in filled.items()}
inpainted = {name: torch.where(H.mask(x) > 0, y, z.cpu()) for name, z in estimates.items()}
panels = {"truth": x, "measured": y}
panels |= {f"{name}\n{metrics.psnr(z, x):.2f} dB": z for name, z in inpainted.items()}
plots.save(plots.compare(panels, inset=(20, 30, 56)), p.figures, "own_inpainting")

# %% tags=["remove-cell"]
psnr = {name: metrics.psnr(z, x) for name, z in inpainted.items()}
if p.unchanged:
    assert min(psnr.values()) > metrics.psnr(y, x) + 8
    assert min(psnr["DIP"], psnr["DeepRED"]) > psnr["TV"] + 0.5

# %% [markdown]
# The two examples of DIP's authors at full size: a photograph from which a vase is to be removed (320 × 320)
# and a library with gaps (704 × 448). Networks of 16 channels, 1500 iterations, products in bfloat16, from
# stored results; RED has no network.

# %%
table = comparisons.methods(stored, "inpainting")
Markdown(tables.markdown(table))

# %% tags=["nbval-ignore-output"]
large = [
    notebook.pictures(p, "inpainting", "mask", name, ("fast",)) for name in ("vase", "library")
]
notebook.show(p, "own_large", large, [(120, 110, 130), (60, 400, 200)])

# %% tags=["remove-cell"]
library = table[table["image"] == "library"].set_index("method")["PSNR [dB]"]
if library.notna().all():
    assert 3 < min(library["DIP"], library["DeepRED"]) - library["RED"] < 6
vase = table[table["image"] == "vase"].set_index("method")["PSNR [dB]"]
if vase.notna().all():
    assert vase.drop("masked").max() - vase.drop("masked").min() < 1.5

# %% [markdown]
# **What we see.** In the small picture the networks are better than total variation, and RED adds little to
# DIP, since there is no noise to keep it from. In the large ones RED alone leaves the holes grey: its denoiser
# looks at a few pixels around, and nothing else tells it what a hole may contain. DIP and DeepRED continue
# what leads into a hole, the balustrade behind the vase and the white gallery of the library, and fill the
# rest with a blur in the surrounding colours.
#
# In the library this is worth four decibels. In the vase's table it seems to be worth nothing (RED 31.5, DIP
# 31.3, DeepRED 30.6 dB), because PSNR compares with the picture that has the vase in it. Where a hole is to be
# filled with something else, PSNR measures nothing useful. DeepRED is below DIP in both, by 0.75 and 0.25 dB:
# there is no noise in $y$ from which the denoiser could protect the network. (Two pictures; three seeds of the
# vase, one of the library.)
#
# ## Projections: tomography
#
# A scanner measures integrals along rays. Here they are divided by the side of the image, so that a sinogram
# stays in $[0, 1]$. Up to that factor the transform, a sparse matrix, equals scikit-image's `radon`. The
# picture is Shepp and Logan's phantom of a head, 128 × 128 pixels, in thirty views with a little noise.
# Filtered back-projection (FBP) leaves streaks; total variation was made for such pictures.

# %%
phantom = datasets.load("builtin", datasets.PHANTOM).image
H = Radon.views(128, 30)
y = degrade(phantom, H, 0.0025, seed, clip=False)
direct = {"FBP": H.fbp(y).clamp(0, 1), "TV": baselines.total_variation(y, H, 3e-5).clamp(0, 1)}

# %% [markdown]
# The data term is preconditioned with the root of the ramp filter, as for deblurring, so that coarse structures
# and fine details count alike. A third of the preset's iterations shows the effect.

# %%
settings = deepred.preset("fast", "tomography").replace(iterations=p.live(400), smoothing=0.9)
live = deepred.restore(y, H, settings=settings, seed=seed, device=p.device)

# %% tags=["nbval-ignore-output"]
scans = direct | {"DeepRED, begun": live.image}
panels = {"truth": phantom, "sinogram": torch.nn.functional.interpolate(y / y.max(), (128, 128))}
panels |= {f"{name}\n{metrics.psnr(z, phantom):.2f} dB": z for name, z in scans.items()}
plots.save(plots.compare(panels, inset=(78, 40, 44)), p.figures, "own_tomography")

# %% tags=["remove-cell"]
found = {name: metrics.psnr(z, phantom) for name, z in scans.items()}
assert found["TV"] > found["FBP"] + 5
if p.unchanged:
    assert found["DeepRED, begun"] > found["FBP"] + 3

# %% [markdown]
# **What we see.** After a third of the iterations DeepRED is already above total variation in PSNR. But look at
# the enlarged part: the three small spots, which total variation keeps, are lost. In medical images such
# spots are what one looks for, and PSNR hardly counts them.
#
# The finished restoration, 1200 iterations, mean of three seeds, from stored results:

# %%
table = comparisons.methods(stored, "tomography")
Markdown(tables.markdown(table))

# %% tags=["remove-cell"]
end = table.set_index("method")["PSNR [dB]"]
if end.notna().all():
    assert end["DeepRED"] > max(end["RED"], end["DIP"]) + 1.5
    assert min(end["RED"], end["DIP"]) > end["TV"] > end["FBP"] + 5

# %% tags=["nbval-ignore-output"]
finished = notebook.pictures(p, "tomography", "30 views", datasets.PHANTOM, ("fast",))
notebook.show(p, "own_phantom", [finished], [(78, 40, 44)])

# %% [markdown]
# **What we see.** Total variation is the ideal prior for this picture. RED with NLM and DIP are 1.0 and 0.6 dB
# above it in PSNR, and DeepRED 2.9 dB above the better of them. In SSIM RED is highest (0.944; DeepRED
# 0.933). The paper has no tomography, but this is the kind of gain that it promises.
# The three spots are still lost: a better PSNR does not mean that one sees more.
#
# ## Photons: a low-light photograph
#
# With ten photons for a white pixel the noise is not Gaussian, and its level depends on the picture. The
# likelihood is one more argument (notebook [01](01_inverse_problems.ipynb) compares it with squares):

# %%
model = Poisson(10)
y = model.sample(x, seed)
settings = deepred.preset("fast", small=True).replace(runs=1, iterations=p.live(600))
low_light = deepred.restore(y, likelihood=model, settings=settings, seed=seed, device=p.device)

# %% tags=["nbval-ignore-output"]
panels = {"truth": x, f"10 photons\n{metrics.psnr(y, x):.2f} dB": y.clamp(0, 1)}
panels[f"DeepRED\n{metrics.psnr(low_light.image, x):.2f} dB"] = low_light.image
plots.save(plots.compare(panels, inset=(20, 30, 56)), p.figures, "own_photons")

# %% tags=["remove-cell"]
if p.unchanged:
    assert 8 < metrics.psnr(low_light.image, x) - metrics.psnr(y, x) < 18

# %% [markdown]
# **What we see.** From 14 dB to about 27. The eye is back. The skin comes back smooth, since too few photons
# tell of single hairs. (Preset `fast` without `small=True` is tuned for Gaussian noise of one level.)
#
# ## A photograph of your own
#
# From the command line, with the noise level estimated, and with a mask painted in any program (white stays, black is
# filled):
#
# ```
# deepred restore photo.jpg -o clean.png
# deepred restore photo.jpg -o filled.png --task inpaint --mask mask.png
# ```
#
# From Python the same in a few lines, in colour, 8 or 16 bits:
#
# ```python
# import deepred
# from deepred.io import images
#
# picture = images.read("photo.jpg")
# result = deepred.restore(picture.image)
# images.write("clean.png", images.Picture(result.image, picture.bits))
# ```
#
# Large photographs are better cropped to what matters, or reduced. With preset `fast`, 256 × 256 pixels take one
# to seven processor minutes, and 512 × 512 about thirteen in denoising. Make the choices in this order:
#
# 1. **The operator.** What happened to the light? Chain operators with `Composed(last, first)`: the first event
#    is the last argument, as in $\mathbf{H}_2\mathbf{H}_1 x$. If none fits, write a function. If it has an
#    adjoint, RED alone works, too.
# 2. **The likelihood.** Read noise: the default. Few photons: `Poisson`, with the peak from the camera's gain.
#    Outliers: `Laplace`. Radar, ultrasound: `Gamma`.
# 3. **The settings.** Preset `fast`; for crops of up to 100 pixels `preset("fast", small=True)`. In denoising
#    `fast` has a Gaussian $z$; its $f$ is BM3D, applied after seven tenths of the residual $y - x$ have been
#    given back (`strengthen`); the result is $f$ of the network's mean; and a run ends when the fit is at
#    the noise and the image has settled (`settle`). If the result is too smooth, halve `lam` and `mu`; if it
#    is noisy, double them, or end earlier.
# 4. **The denoiser.** The preset's (BM3D in denoising, NLM elsewhere) unless you know better; TV for cartoons, a
#    learned one through `denoisers.learned(module)`. With weights that grow, as in the presets for
#    denoising, keep `sigma_f` at 3 of 255 for NLM; a better denoiser such as BM3D also works at 10 (notebook
#    [10](10_open_questions.ipynb)).
# 5. **The truth** is unknown: look at `result.history["residual"]`, which should settle near the noise level, and
#    at the difference between two runs (`runs=2`), `result.deviation`.
#
# ## Exercises
#
# **In code.** The picture is out of focus (`Blur.gaussian()`) *and* has scratches in front of the sensor (`mask`).
# Build the operator and apply it to `x`. Replace `None`:

# %% tags=["exercise"]
measured = None
print(notebook.check(measured, Blur.gaussian()(x) * mask))

# %% tags=["solution", "hide-cell"]
measured = Composed(Inpaint.of(mask), Blur.gaussian())(x)
print(notebook.check(measured, Blur.gaussian()(x) * mask))

# %% [markdown]
# **To try and to think about.**
#
# 1. A mask hides half of the pixels at random, another hides one square of the same area. Which is harder, and what does
#    the network do in the middle of the square?
# 2. Limited angle: `Radon.views(128, 30, span=90)`. Which edges of the phantom are lost, and does any prior bring them back?
# 3. How would you restore a photograph that is blurred *and* has few photons?
#
# <details><summary>Answers</summary>
#
# 1. The square. Around a single lost pixel everything is known. In the middle of the square the nearest
#    information is far away, and the network continues what it finds at the border, with the structures that
#    its architecture favours.
# 2. Those along directions to which no ray is parallel, since an edge is seen by rays that touch it. A prior may
#    guess them where the rest of the shape suggests it. It may also guess wrongly: no measurement contradicts
#    it.
# 3. `restore(y, Blur.of(kernel), likelihood=Poisson(peak))`: the likelihood is a function of $\mathbf{H}x$.
#    Without `settings` the preconditioned data term, which holds for squares alone, is left out; if you pass
#    settings, add `.replace(precondition=0.0)`.
# </details>
#
# ## Further reading
#
# - D. Ulyanov, A. Vedaldi and V. Lempitsky, *Deep Image Prior*, CVPR 2018: the two pictures with holes.
# - L. A. Shepp and B. F. Logan, *The Fourier reconstruction of a head section*, IEEE Transactions on Nuclear Science 21, 1974.
# - J. Zukerman, T. Tirer and R. Giryes, *BP-DIP: A Backprojection based Deep Image Prior*, EUSIPCO 2020,
#   [arXiv:2003.05417](https://arxiv.org/abs/2003.05417): the preconditioned data term.
# - D. Otero Baguer, J. Leuschner and M. Schmidt, *Computed tomography reconstruction using deep image prior and learned
#   reconstruction methods*, Inverse Problems 36, 2020, [arXiv:2003.04989](https://arxiv.org/abs/2003.04989).
