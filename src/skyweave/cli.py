"""`skyweave`: a trained network on one's own maps, and what it is."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

from skyweave.errors import UserError

_PREDICT = """\
What the network makes of the maps in INPUT.

INPUT is one of
  a FITS image with a WCS: (T,) Q, U, as pixell.enmap.write_map or this project writes it
  an .npz or HDF5 file of arrays (y, x) or (n, y, x) named as the network's inputs, or q and u;
    also, if they are there: pixel_arcmin or size_deg, taper_deg, units. A shard is such a file.
  a HEALPix FITS map with Q and U, in Galactic coordinates

The maps are to have the pixels, beam and noise of the network's training set (`skyweave card`).
They get the taper of the training set, unless they carry it (--tapered). Q and U of arrays have
angles from +x towards +y, those of FITS files as POLCCONV says (--convention for others). Larger
flat maps and HEALPix maps are cut in overlapping tiles and put together again.
"""

_INPAINT = """\
Fill the holes of a HEALPix map with the network of an inpainting run.

MAP and MASK are HEALPix FITS files of the whole sky in Galactic coordinates, RING or NESTED. MAP
has the fields that the network fills: T, Q and U, or all three. MASK is 0 where pixels are missing;
its nside may be another. Pixels of MAP without a value (UNSEEN, NaN) are missing, too.

OUTPUT is a copy of MAP in which the missing pixels of these fields have values, and no other pixel
differs. The map is to have the beam and noise of the network's training set, and holes no larger
than those it was trained on (`skyweave card`).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code. A mistake of the user is one line on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(words)
    # Before TensorFlow is loaded, which else tells about processors and threads.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        if options.command == "card":
            from skyweave.tasks.model_card import describe

            print(describe(options.model))
        elif options.command == "inpaint":
            from skyweave.tasks.sky_inpainting import inpaint_map

            inpaint_map(
                options.model,
                options.input,
                options.mask,
                options.output,
                unit=options.unit,
                sampled=not options.mean,
                overwrite=options.overwrite,
                threads=options.threads,
                command=shlex.join(["skyweave", *words]),
            )
        else:
            from skyweave.tasks.prediction import predict_maps

            predict_maps(
                options.model,
                options.input,
                options.output,
                tapered=options.tapered,
                unit=options.unit,
                convention=options.convention,
                pixel_arcmin=options.pixel_arcmin,
                overwrite=options.overwrite,
                threads=options.threads,
                command=shlex.join(["skyweave", *words]),
            )
    except UserError as error:
        print(f"skyweave: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename or getattr(options, "output", options.model)
        print(f"skyweave: {where}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="skyweave", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    card = commands.add_parser("card", help="what a network takes and gives")
    predict = commands.add_parser(
        "predict",
        help="predict from one's own maps",
        description=_PREDICT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inpaint = commands.add_parser(
        "inpaint",
        help="fill the holes of a HEALPix map",
        description=_INPAINT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for one in (card, predict, inpaint):
        one.add_argument(
            "model", metavar="MODEL", help="folder of network.keras and card.json, or one of them"
        )
    add = predict.add_argument
    add("input", metavar="INPUT", help="the maps")
    add("-o", "--output", required=True, metavar="OUTPUT", help=".fits, .h5 or .npz file to write")
    add("--tapered", action="store_true", help="the maps carry the network's taper already")
    add(
        "--convention",
        choices=("flat", "iau", "cosmo", "mirrored"),
        help="how Q and U are meant, where the file says nothing or something wrong",
    )
    add("--pixel-arcmin", type=float, metavar="SIDE", help="side of a pixel, likewise")
    add = inpaint.add_argument
    add("input", metavar="MAP", help="the map")
    add("mask", metavar="MASK", help="0 where the map is to be filled")
    add("-o", "--output", required=True, metavar="OUTPUT", help=".fits file to write")
    add("--mean", action="store_true", help="without the fluctuations that the network leaves out")
    for one in (predict, inpaint):
        add = one.add_argument
        add("--unit", help="unit of the maps (K_CMB, uK), where the file says none or a wrong one")
        add("--overwrite", action="store_true", help="replace OUTPUT if it is there")
        add("--threads", type=int, help="threads to use (default: all)")
    return parser
