localrules:
    report,


rule report:
    input:
        expand(rules.draw_spectra.output, cmb=CMB),
        expand(rules.prepare.output, cmb=CMB),
        expand(rules.check_simulation.output, cmb=CMB),
        expand(rules.sky_mask.output, sky=SKY),
        expand(rules.sky_patches.output, sky=SKY),
        expand(rules.sky_statistics.output, sky=SKY),
        expand(rules.draw_sky.output, sky=SKY),
        expand(rules.train.output, run=RECONSTRUCTION + FOREGROUNDS),
        expand(rules.evaluate.output, run=RECONSTRUCTION),
        expand(rules.draw_reconstruction.output, run=RECONSTRUCTION),
        expand(rules.evaluate_foregrounds.output, run=FOREGROUNDS),
        expand(rules.draw_foregrounds.output, run=FOREGROUNDS),
        expand(rules.judge_sky.output, run=FULL_SKY),
        expand(rules.draw_full_sky.output, run=FULL_SKY),
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
