localrules:
    draw_training_cost,
    report,


rule draw_training_cost:
    input:
        compared("history.csv", "sweep.csv"),
        metrics=compared("metrics.csv"),
    output:
        training_cost=report(
            "<results>/datasets/{cmb}/training_cost/figures/training_cost.svg",
            caption="../report/training_cost.rst",
            category="Reconstruction",
            labels={"dataset": "{cmb}", "figure": "what training buys"},
        ),
        table="<results>/datasets/{cmb}/training_cost/figures/training_cost.csv",
        index="<results>/datasets/{cmb}/training_cost/figures/figures.json",
    log:
        "<logs>/draw_training_cost/{cmb}.log",
    benchmark:
        "<benchmarks>/draw_training_cost/{cmb}.tsv"
    wildcard_constraints:
        cmb=one_of(COMPARED),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        ell=lambda wildcards: list(STUDY.runs[COMPARED[wildcards.cmb][0]].training.select.ell),
    message:
        "Figure of what training buys on {wildcards.cmb}"
    script:
        "../scripts/draw_training_cost.py"


rule report:
    input:
        expand(rules.draw_spectra.output, cmb=CMB),
        expand(rules.prepare.output, cmb=CMB + IMPORTED),
        expand(rules.check_simulation.output, cmb=CMB),
        expand(rules.sky_mask.output, sky=SKY),
        expand(rules.sky_patches.output, sky=SKY),
        expand(rules.sky_statistics.output, sky=SKY),
        expand(rules.draw_sky.output, sky=SKY),
        expand(rules.train.output, run=sorted(STUDY.runs)),
        expand(rules.evaluate_decomposition.output, run=DECOMPOSITION),
        expand(rules.draw_decomposition.output, run=DECOMPOSITION),
        expand(rules.evaluate.output, run=RECONSTRUCTION),
        expand(rules.draw_reconstruction.output, run=RECONSTRUCTION),
        expand(rules.generalize.output, run=RECONSTRUCTION),
        expand(rules.draw_generalization.output, run=TESTED),
        expand(rules.draw_training_cost.output, cmb=COMPARED),
        expand(rules.evaluate_foregrounds.output, run=FOREGROUNDS),
        expand(rules.draw_foregrounds.output, run=FOREGROUNDS),
        expand(rules.evaluate_inpainting.output, run=INPAINTING),
        expand(rules.draw_inpainting.output, run=INPAINTING),
        expand(rules.prepare_images.output, images=SERSIC + IMAGES),
        expand(rules.evaluate_generation.output, run=GENERATION),
        expand(rules.draw_generation.output, run=GENERATION),
        expand(rules.evaluate_denoising.output, run=DENOISING),
        expand(rules.draw_denoising.output, run=DENOISING),
        expand(rules.draw_alphas.output, images=ALPHAS),
        expand(rules.judge_sky.output, run=FULL_SKY),
        expand(rules.draw_full_sky.output, run=FULL_SKY),
        expand(rules.tabulate_scan.output, scan=STUDY.scans),
        rules.record_runs.output,
    output:
        "<results>/report/index.html",
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        study=plain(STUDY),
    message:
        "Report"
    script:
        "../scripts/report.py"
