rule calibrate:
    input:
        channel_files,
        spectra=spectra_tables,
        shards=shards,
        split="<results>/datasets/{cmb}/split.csv",
    output:
        "<results>/datasets/{cmb}/estimator.json",
    log:
        "<logs>/calibrate/{cmb}.log",
    benchmark:
        "<benchmarks>/calibrate/{cmb}.tsv"
    wildcard_constraints:
        cmb=one_of(ESTIMATED),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=calibration_memory,
        runtime=estimation_runtime,
    params:
        settings=lambda wildcards: plain(dataset_settings(wildcards).estimates),
        channel=lambda wildcards: dataset_settings(wildcards).estimated_from,
        hfi=lambda wildcards: [str(path) for path in instrument_model(wildcards)],
    message:
        "Calibration of the estimates of {wildcards.cmb}"
    script:
        "../scripts/calibrate.py"


rule expect:
    input:
        calibration=rules.calibrate.output[0],
    output:
        "<results>/datasets/{cmb}/theory.csv",
    log:
        "<logs>/expect/{cmb}.log",
    benchmark:
        "<benchmarks>/expect/{cmb}.tsv"
    wildcard_constraints:
        cmb=one_of(ESTIMATED),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=theory_memory,
        runtime=60,
    params:
        effects=lambda wildcards: plain(dataset_settings(wildcards).effects),
    message:
        "What theory expects of the estimates of {wildcards.cmb}"
    script:
        "../scripts/expect.py"


rule estimate:
    input:
        calibration=rules.calibrate.output[0],
        shards=shards_together,
        split="<results>/datasets/{cmb}/split.csv",
    output:
        "<results>/datasets/{cmb}/estimates/{part}/{chunk}.h5",
    log:
        "<logs>/estimate/{cmb}/{part}/{chunk}.log",
    benchmark:
        "<benchmarks>/estimate/{cmb}/{part}/{chunk}.tsv"
    wildcard_constraints:
        cmb=one_of(ESTIMATED),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=estimation_memory,
        runtime=estimation_runtime,
    message:
        "Estimates of {wildcards.cmb}, {wildcards.part}, {wildcards.chunk}"
    script:
        "../scripts/estimate.py"


rule estimate_elsewhere:
    input:
        # What a network was trained with, not what could be known of the other dataset.
        calibration=rules.calibrate.output[0],
        shards=other_shards,
        split="<results>/datasets/{other}/split.csv",
    output:
        "<results>/datasets/{cmb}/elsewhere/{other}.h5",
    log:
        "<logs>/estimate_elsewhere/{cmb}/{other}.log",
    benchmark:
        "<benchmarks>/estimate_elsewhere/{cmb}/{other}.tsv"
    wildcard_constraints:
        cmb=one_of(ESTIMATED),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=estimation_memory,
        runtime=elsewhere_runtime,
    message:
        "Estimates of the test set of {wildcards.other} by the calibration of {wildcards.cmb}"
    script:
        "../scripts/estimate.py"
