localrules:
    report,


rule report:
    input:
        expand(rules.draw_spectra.output, cmb=CMB),
        expand(rules.check_simulation.output, cmb=CMB),
        expand(rules.draw_sky.output, sky=SKY),
        expand(rules.draw_reconstruction.output, run=RECONSTRUCTION),
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
        results="<results>",
    message:
        "Report"
    script:
        "../scripts/report.py"
