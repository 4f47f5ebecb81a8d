"""The figures of a study: one function a kind of folder."""

from skyweave.report.alphas import draw_alphas
from skyweave.report.cmb import draw_spectra
from skyweave.report.decomposition import draw_decomposition
from skyweave.report.denoising import draw_denoising
from skyweave.report.foregrounds import draw_foregrounds
from skyweave.report.full_sky import draw_full_sky
from skyweave.report.generalization import draw_generalization
from skyweave.report.generation import draw_generation
from skyweave.report.inpainting import draw_inpainting
from skyweave.report.reconstruction import draw_reconstruction
from skyweave.report.sky import draw_sky
from skyweave.report.training_cost import draw_training_cost

__all__ = [
    "draw_alphas",
    "draw_decomposition",
    "draw_denoising",
    "draw_foregrounds",
    "draw_full_sky",
    "draw_generalization",
    "draw_generation",
    "draw_inpainting",
    "draw_reconstruction",
    "draw_sky",
    "draw_spectra",
    "draw_training_cost",
]
