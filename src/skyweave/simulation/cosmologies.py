"""Named sets of cosmological parameters, and CAMB's settings for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skyweave.config import Cosmology

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
    ),
}

#: Non-linear matter power of the sets that were published with another than today's model.
HALOFIT = {"resunet_cmb_2013": "takahashi"}

#: Effective number of neutrinos, that of both named sets.
NNU = 3.046

#: CAMB loses accuracy in the lensed spectra over this many multipoles below its highest: the
#: lensed B at 8000 is 15 % low without and 1 % with it.
LENSING_MARGIN = 2000


def camb_parameters(cosmology: str | Cosmology, lmax: int) -> camb.CAMBparams:
    """Parameters with which CAMB's spectra hold up to `lmax` to 1 %, the lensed B among them."""
    import camb

    values = NAMED[cosmology] if isinstance(cosmology, str) else cosmology
    halofit = HALOFIT.get(cosmology, "mead2020") if isinstance(cosmology, str) else "mead2020"
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
    )
    parameters.InitPower.set_params(As=values.As, ns=values.ns, r=values.r)
    parameters.WantTensors = values.r > 0
    parameters.set_for_lmax(lmax, lens_output_margin=LENSING_MARGIN)
    if values.r > 0:
        # Tensor power has fallen by 1e-4 from its recombination peak (ell 80) there.
        parameters.max_l_tensor, parameters.max_eta_k_tensor = 2000, 5000.0
    parameters.NonLinearModel.set_params(halofit_version=halofit)
    return parameters
