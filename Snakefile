from snakemake.utils import min_version

min_version("9.20")


pathvars:
    logs="<results>/logs",
    benchmarks="<results>/benchmarks",
    data="<results>/data",


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/cmb.smk"
include: "workflow/rules/imported.smk"
include: "workflow/rules/images.smk"
include: "workflow/rules/estimates.smk"
include: "workflow/rules/sky.smk"
include: "workflow/rules/vgg16.smk"
include: "workflow/rules/inception.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/reconstruction.smk"
include: "workflow/rules/generalization.smk"
include: "workflow/rules/decomposition.smk"
include: "workflow/rules/foregrounds.smk"
include: "workflow/rules/inpainting.smk"
include: "workflow/rules/generation.smk"
include: "workflow/rules/denoising.smk"
include: "workflow/rules/prediction.smk"
include: "workflow/rules/scans.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        rules.report.output,
        prediction_files(),


rule datasets:
    input:
        expand(rules.prepare.output, cmb=CMB + IMPORTED),
        expand(rules.check_simulation.output, cmb=CMB),
        expand(rules.sky_statistics.output, sky=SKY),
        expand(rules.prepare_images.output, images=SERSIC + IMAGES),


rule reconstruction:
    input:
        expand(rules.evaluate.output, run=RECONSTRUCTION),
        expand(rules.draw_reconstruction.output, run=RECONSTRUCTION),
        expand(rules.generalize.output, run=RECONSTRUCTION),
        expand(rules.draw_generalization.output, run=TESTED),
        scan_tables("reconstruction"),
        rules.record_runs.output,


rule decomposition:
    input:
        expand(rules.evaluate_decomposition.output, run=DECOMPOSITION),
        expand(rules.draw_decomposition.output, run=DECOMPOSITION),
        scan_tables("decomposition"),
        rules.record_runs.output,


rule foregrounds:
    input:
        expand(rules.evaluate_foregrounds.output, run=FOREGROUNDS),
        expand(rules.draw_foregrounds.output, run=FOREGROUNDS),
        expand(rules.draw_full_sky.output, run=FULL_SKY),
        scan_tables("foregrounds"),
        rules.record_runs.output,


rule inpainting:
    input:
        expand(rules.evaluate_inpainting.output, run=INPAINTING),
        expand(rules.draw_inpainting.output, run=INPAINTING),
        scan_tables("inpainting"),
        rules.record_runs.output,


rule galaxies:
    input:
        expand(rules.evaluate_generation.output, run=GENERATION),
        expand(rules.draw_generation.output, run=GENERATION),
        expand(rules.evaluate_denoising.output, run=DENOISING),
        expand(rules.draw_denoising.output, run=DENOISING),
        expand(rules.draw_alphas.output, images=ALPHAS),
        scan_tables("generation"),
        scan_tables("denoising"),
        rules.record_runs.output,


rule predictions:
    input:
        prediction_files(),
