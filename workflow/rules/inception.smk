localrules:
    fetch_inception,


rule fetch_inception:
    output:
        "<data>/inception/default_1.pt",
    log:
        "<logs>/fetch_inception.log",
    benchmark:
        "<benchmarks>/fetch_inception.tsv"
    retries: 2
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    message:
        "Inception's weights, by package, version and checksum"
    script:
        "../scripts/fetch_inception.py"
