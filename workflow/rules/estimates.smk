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
        runtime=60,
    params:
        settings=lambda wildcards: plain(dataset_settings(wildcards).estimates),
        channel=lambda wildcards: dataset_settings(wildcards).estimated_from,
        hfi=lambda wildcards: [str(path) for path in instrument_model(wildcards)],
    message:
        "Calibration of the estimates of {wildcards.cmb}"
    script:
        "../scripts/calibrate.py"


rule estimate:
    input:
        calibration=rules.calibrate.output[0],
        shards=shards,
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
        mem_mb=2000,
        runtime=120,
    params:
        chunks=lambda wildcards: chunks(wildcards.cmb, wildcards.part),
    message:
        "Estimates of {wildcards.cmb}, {wildcards.part}, {wildcards.chunk}"
    script:
        "../scripts/estimate.py"
