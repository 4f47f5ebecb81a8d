localrules:
    fetch_hfi,
    export_patch,
    draw_spectra,


rule fetch_hfi:
    output:
        "<data>/hfi/HFI_RIMO_R1.10.fits",
    log:
        "<logs>/fetch_hfi.log",
    benchmark:
        "<benchmarks>/fetch_hfi.tsv"
    retries: 2
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    message:
        "Planck HFI's instrument model, by package, version and checksum"
    script:
        "../scripts/fetch_hfi.py"


rule spectra:
    input:
        lambda wildcards: user_files(SPECTRA[wildcards.spectra], "path", "tau_path"),
    output:
        "<results>/spectra/{spectra}.csv",
    log:
        "<logs>/spectra/{spectra}.log",
    benchmark:
        "<benchmarks>/spectra/{spectra}.tsv"
    conda:
        ENVIRONMENT
    # With more, CAMB's lensed spectra have other last digits.
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        spectra=lambda wildcards: plain_spectra(SPECTRA[wildcards.spectra]),
    message:
        "Angular power spectra {wildcards.spectra}"
    script:
        "../scripts/spectra.py"


rule simulate:
    input:
        channel_files,
        spectra=spectra_tables,
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
        mem_mb=simulation_memory,
        runtime=simulation_runtime,
    params:
        seed=STUDY.seed,
        grid=lambda wildcards: plain(dataset_settings(wildcards).grid),
        effects=lambda wildcards: plain(dataset_settings(wildcards).effects),
        channels=lambda wildcards: {
            name: plain(channel) for name, channel in dataset_settings(wildcards).channels.items()
        },
        fields=lambda wildcards: dataset_settings(wildcards).fields,
        points=lambda wildcards: POINTS[wildcards.cmb],
        realizations=lambda wildcards: realizations_of(wildcards),
        hfi=lambda wildcards: [str(path) for path in instrument_model(wildcards)],
    message:
        "Realizations {params.realizations} of {wildcards.cmb}"
    script:
        "../scripts/simulate.py"


rule export_patch:
    input:
        shard_of,
    output:
        directory("<results>/datasets/{cmb}/fits/{realization}"),
    log:
        "<logs>/export_patch/{cmb}/{realization}.log",
    benchmark:
        "<benchmarks>/export_patch/{cmb}/{realization}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    message:
        "Realization {wildcards.realization} of {wildcards.cmb} as FITS maps"
    script:
        "../scripts/export_patch.py"


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
    wildcard_constraints:
        cmb=one_of(CMB + IMPORTED),
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
        spectra=spectra_tables,
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


rule covariance:
    input:
        channel_files,
        spectra=spectra_tables,
    output:
        "<results>/datasets/{cmb}/covariance/{channel}.csv",
    log:
        "<logs>/covariance/{cmb}/{channel}.log",
    benchmark:
        "<benchmarks>/covariance/{cmb}/{channel}.tsv"
    wildcard_constraints:
        channel=one_of(
            [
                "prim",
                *sorted({channel for name in CMB for channel in STUDY.datasets[name].channels}),
            ]
        ),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        grid=lambda wildcards: plain(dataset_settings(wildcards).grid),
        effects=lambda wildcards: plain(dataset_settings(wildcards).effects),
        # None of the primordial sky.
        channel=lambda wildcards: (
            None
            if wildcards.channel == "prim"
            else plain(dataset_settings(wildcards).channels[wildcards.channel])
        ),
        hfi=lambda wildcards: [str(path) for path in instrument_model(wildcards)],
    message:
        "Covariance of {wildcards.channel} of {wildcards.cmb}"
    script:
        "../scripts/covariance.py"


rule measure_covariance:
    input:
        shards=shards,
        split="<results>/datasets/{cmb}/split.csv",
    output:
        "<results>/datasets/{cmb}/covariance/{channel}.csv",
    log:
        "<logs>/measure_covariance/{cmb}/{channel}.log",
    benchmark:
        "<benchmarks>/measure_covariance/{cmb}/{channel}.tsv"
    wildcard_constraints:
        cmb=one_of(IMPORTED),
        channel=one_of(
            sorted(
                {
                    field[2:]
                    for name in IMPORTED
                    for field in STUDY.datasets[name].fields
                    if field[:2] in ("t_", "q_")
                }
            )
        ),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "Covariance of {wildcards.channel} of {wildcards.cmb}, from its maps"
    script:
        "../scripts/covariance.py"


rule draw_spectra:
    input:
        lambda wildcards: spectra_tables(wildcards)[0],
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
