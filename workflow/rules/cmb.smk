rule spectra:
    input:
        lambda wildcards: user_files(dataset_settings(wildcards).spectra, "path", "tau_path"),
    output:
        "<results>/datasets/{cmb}/spectra.csv",
    log:
        "<logs>/spectra/{cmb}.log",
    benchmark:
        "<benchmarks>/spectra/{cmb}.tsv"
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        spectra=lambda wildcards: plain(dataset_settings(wildcards).spectra),
    message:
        "Angular power spectra of {wildcards.cmb}"
    script:
        "../scripts/spectra.py"


rule simulate:
    input:
        rules.spectra.output,
    output:
        "<results>/datasets/{cmb}/shards/{shard}.h5",
    log:
        "<logs>/simulate/{cmb}/{shard}.log",
    benchmark:
        "<benchmarks>/simulate/{cmb}/{shard}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        seed=STUDY.seed,
        grid=lambda wildcards: plain(dataset_settings(wildcards).grid),
        effects=lambda wildcards: plain(dataset_settings(wildcards).effects),
        fields=lambda wildcards: dataset_settings(wildcards).fields,
        realizations=lambda wildcards: realizations_of(wildcards),
    message:
        "Realizations {params.realizations} of {wildcards.cmb}"
    script:
        "../scripts/simulate.py"


rule prepare:
    input:
        shards,
    output:
        split="<results>/datasets/{cmb}/split.csv",
        normalization="<results>/datasets/{cmb}/normalization.json",
    log:
        "<logs>/prepare/{cmb}.log",
    benchmark:
        "<benchmarks>/prepare/{cmb}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        seed=STUDY.seed,
        split=lambda wildcards: plain(dataset_settings(wildcards).split),
    message:
        "Split and normalization of {wildcards.cmb}"
    script:
        "../scripts/prepare.py"


rule check_simulation:
    input:
        spectra=rules.spectra.output[0],
        shards=shards,
    output:
        metrics="<results>/datasets/{cmb}/metrics.csv",
        verdicts="<results>/datasets/{cmb}/verdicts.json",
    log:
        "<logs>/check_simulation/{cmb}.log",
    benchmark:
        "<benchmarks>/check_simulation/{cmb}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "Check of {wildcards.cmb} against theory"
    script:
        "../scripts/check_simulation.py"


rule draw_spectra:
    input:
        rules.spectra.output,
    output:
        spectra=report(
            "<results>/datasets/{cmb}/figures/spectra.svg",
            caption="../report/spectra.rst",
            category="Datasets",
            labels={"dataset": "{cmb}", "figure": "spectra"},
        ),
        table="<results>/datasets/{cmb}/figures/spectra.csv",
        index="<results>/datasets/{cmb}/figures/figures.json",
    log:
        "<logs>/draw_spectra/{cmb}.log",
    benchmark:
        "<benchmarks>/draw_spectra/{cmb}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Figures of {wildcards.cmb}"
    script:
        "../scripts/draw_spectra.py"
