localrules:
    fetch_vgg16,


rule fetch_vgg16:
    output:
        "<data>/vgg16/vgg16.ckpt",
    log:
        "<logs>/fetch_vgg16.log",
    benchmark:
        "<benchmarks>/fetch_vgg16.tsv"
    retries: 2
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    message:
        "VGG16's weights, by package, version and checksum"
    script:
        "../scripts/fetch_vgg16.py"
