"""Named sets of cosmological parameters, and CAMB's settings for them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from skyweave.config import Cosmology, Range, Spectra
from skyweave.seeds import generator

if TYPE_CHECKING:
    import camb

#: Parameters by name. `planck2018`: the defaults of the settings (arXiv:1807.06209, table 2,
#: TT,TE,EE+lowE+lensing); `resunet_cmb_2013`: Planck+WP+highL, as in arXiv:2101.01214.
NAMED = {
    "planck2018": Cosmology(),
    "resunet_cmb_2013": Cosmology(
        H0=67.94,
        ombh2=0.022199,
        omch2=0.11847,
        omnuh2=0.0006449,
        tau=0.0943,
        ns=0.9624,
        As=2.208061336e-9,
        r=0.0,
        YHe=0.24725,
        TCMB=2.7255,
        halofit_version="takahashi",
    ),
}

#: Effective number of neutrinos, that of both named sets.
NNU = 3.046

#: CAMB loses accuracy in the lensed spectra over this many multipoles below its highest: the
#: lensed B at 8000 is 15 % low without and 1 % with it.
LENSING_MARGIN = 2000


def parameters_of(cosmology: str | Cosmology) -> Cosmology:
    """The parameters themselves, of a name too."""
    return NAMED[cosmology] if isinstance(cosmology, str) else cosmology


def camb_parameters(cosmology: str | Cosmology, lmax: int) -> camb.CAMBparams:
    """Parameters with which CAMB's spectra hold up to `lmax` to 1 %, the lensed B among them."""
    import camb

    values = parameters_of(cosmology)
    parameters = camb.CAMBparams()
    parameters.set_cosmology(
        H0=values.H0,
        ombh2=values.ombh2,
        omch2=values.omch2,
        mnu=None,
        omnuh2_active=values.omnuh2,
        num_massive_neutrinos=1 if values.omnuh2 > 0 else 0,
        nnu=NNU,
        tau=values.tau,
        YHe=values.YHe,
        TCMB=values.TCMB,
        Alens=values.Alens,
    )
    parameters.InitPower.set_params(As=values.As, ns=values.ns, r=values.r)
    parameters.WantTensors = values.r > 0
    parameters.set_for_lmax(lmax, lens_output_margin=LENSING_MARGIN)
    if values.r > 0:
        # Tensor power has fallen by 1e-4 from its recombination peak (ell 80) there.
        parameters.max_l_tensor, parameters.max_eta_k_tensor = 2000, 5000.0
    parameters.NonLinearModel.set_params(halofit_version=values.halofit_version)
    return parameters


def points(settings: Spectra, seed: int) -> list[dict[str, float]]:
    """The values of the varied parameters in each set that a realization may draw.

    Classes alone are combined, each with each. With an interval there are `settings.points` sets, a
    Latin hypercube: each interval is cut into as many equal parts, each part used once, and each
    class as often as the others. Without anything varied there is one set of no values.
    """
    vary = settings.vary
    classes = [values for values in vary.values() if not isinstance(values, Range)]
    if len(classes) == len(vary):
        return [dict(zip(vary, each, strict=True)) for each in itertools.product(*classes)]
    count = settings.points
    columns = {}
    for name, values in vary.items():
        # Without the dataset's name: datasets with the same intervals share their spectra.
        random = generator(seed, "cosmology", name)
        order = random.permutation(count)
        if isinstance(values, Range):
            inside = (order + random.random(count)) / count
            columns[name] = values.low + (values.high - values.low) * inside
        else:
            columns[name] = np.asarray(values)[order % len(values)]
    return [
        {name: float(column[index]) for name, column in columns.items()} for index in range(count)
    ]


def at_point(settings: Spectra, values: dict[str, float]) -> Spectra:
    """Settings of one set of parameters, nothing left to vary."""
    if not settings.vary:
        return settings
    cosmology = parameters_of(settings.cosmology).model_copy(update=values)
    return settings.model_copy(update={"cosmology": cosmology, "vary": {}})
