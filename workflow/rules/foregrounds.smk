localrules:
    fetch_template,
    draw_foregrounds,


rule pairs:
    input:
        patches=rules.sky_patches.output.patches,
        places=rules.sky_patches.output.places,
    output:
        pairs="<results>/datasets/{sky}/pairs.h5",
        split="<results>/datasets/{sky}/split.csv",
        normalization="<results>/datasets/{sky}/normalization.json",
    log:
        "<logs>/pairs/{sky}.log",
    benchmark:
        "<benchmarks>/pairs/{sky}.tsv"
    priority: 1
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards: pairs_memory(dataset_settings(wildcards).patches),
        runtime=30,
    message:
        "Pairs of patches of {wildcards.sky} to train on"
    script:
        "../scripts/pairs.py"


rule add_small_scales:
    input:
        network=rules.train.output.network,
        card=rules.train.output.card,
        pairs=run_dataset("pairs.h5"),
        split=run_dataset("split.csv"),
    output:
        "<results>/runs/{run}/predictions.h5",
    log:
        "<logs>/add_small_scales/{run}.log",
    benchmark:
        "<benchmarks>/add_small_scales/{run}.tsv"
    wildcard_constraints:
        run=one_of(FOREGROUNDS),
    conda:
        ENVIRONMENT
    threads: pairs_threads
    resources:
        mem_mb=maps_memory("test", None),
        runtime=60,
    message:
        "Small scales of {wildcards.run} on its test set"
    script:
        "../scripts/add_small_scales.py"


rule evaluate_foregrounds:
    input:
        predictions=rules.add_small_scales.output[0],
        pairs=run_dataset("pairs.h5"),
        split=run_dataset("split.csv"),
    output:
        metrics="<results>/runs/{run}/metrics.csv",
        curves="<results>/runs/{run}/curves.csv",
        scores="<results>/runs/{run}/scores.csv",
        nearest="<results>/runs/{run}/nearest.csv",
        verdicts="<results>/runs/{run}/verdicts.json",
    log:
        "<logs>/evaluate_foregrounds/{run}.log",
    benchmark:
        "<benchmarks>/evaluate_foregrounds/{run}.tsv"
    wildcard_constraints:
        run=one_of(FOREGROUNDS),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=maps_memory("test", None),
        runtime=240,
    params:
        seed=STUDY.seed,
    message:
        "Statistics of {wildcards.run} beside the truth and Gaussian small scales"
    script:
        "../scripts/evaluate_foregrounds.py"


rule draw_foregrounds:
    input:
        rules.train.output,
        rules.add_small_scales.output,
        rules.evaluate_foregrounds.output,
    output:
        examples=report(
            "<results>/runs/{run}/figures/examples.png",
            caption="../report/foregrounds_examples.rst",
            category="Foregrounds",
            labels={"run": "{run}", "figure": "example patches"},
        ),
        spectra=report(
            "<results>/runs/{run}/figures/spectra.svg",
            caption="../report/foregrounds_spectra.rst",
            category="Foregrounds",
            labels={"run": "{run}", "figure": "power spectra"},
        ),
        minkowski=report(
            "<results>/runs/{run}/figures/minkowski.svg",
            caption="../report/foregrounds_minkowski.rst",
            category="Foregrounds",
            labels={"run": "{run}", "figure": "Minkowski functionals"},
        ),
        index="<results>/runs/{run}/figures/figures.json",
    log:
        "<logs>/draw_foregrounds/{run}.log",
    benchmark:
        "<benchmarks>/draw_foregrounds/{run}.tsv"
    wildcard_constraints:
        run=one_of(FOREGROUNDS),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=4000,
        runtime=20,
    message:
        "Figures of {wildcards.run}"
    script:
        "../scripts/draw_foregrounds.py"


rule fetch_template:
    output:
        "<data>/cosmoglobe/mask_template_n256.fits",
    log:
        "<logs>/fetch_template.log",
    benchmark:
        "<benchmarks>/fetch_template.tsv"
    retries: 2
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    message:
        "Template of polarization, by package, version and checksum"
    script:
        "../scripts/fetch_template.py"


rule large_scales:
    input:
        map=run_map,
        template=run_template,
    output:
        tiles="<results>/sky/{run}/tiles.h5",
        large="<results>/sky/{run}/large.fits",
        high="<results>/sky/{run}/high.fits",
    log:
        "<logs>/large_scales/{run}.log",
    benchmark:
        "<benchmarks>/large_scales/{run}.tsv"
    wildcard_constraints:
        run=one_of(FULL_SKY),
    conda:
        ENVIRONMENT
    threads: full_sky_threads
    resources:
        mem_mb=full_sky_memory,
        runtime=120,
    params:
        truth=lambda wildcards: run_settings(wildcards).amplitude == "truth",
        dataset=lambda wildcards: run_settings(wildcards).dataset,
        patches=run_patches,
        fwhm_arcmin=lambda wildcards: STUDY.datasets[
            run_settings(wildcards).dataset
        ].map.fwhm_arcmin,
        full_sky=lambda wildcards: sky_settings(
            wildcards, {"realizations", "bb_over_ee", "second_stage"}
        ),
    message:
        "Tiles of the sky of {wildcards.run} at low resolution"
    script:
        "../scripts/large_scales.py"


rule full_sky:
    input:
        network=rules.train.output.network,
        card=rules.train.output.card,
        tiles=rules.large_scales.output.tiles,
        large=rules.large_scales.output.large,
        mask=run_dataset("mask.fits"),
    output:
        "<results>/sky/{run}/sky_{realization}.fits",
    log:
        "<logs>/full_sky/{run}_{realization}.log",
    benchmark:
        "<benchmarks>/full_sky/{run}_{realization}.tsv"
    wildcard_constraints:
        run=one_of(FULL_SKY),
    conda:
        ENVIRONMENT
    threads: full_sky_threads
    resources:
        mem_mb=full_sky_memory,
        runtime=full_sky_runtime,
    params:
        full_sky=lambda wildcards: sky_settings(wildcards, {"realizations"}),
    message:
        "Full sky of {wildcards.run}, realization {wildcards.realization}"
    script:
        "../scripts/full_sky.py"


rule judge_sky:
    input:
        sky="<results>/sky/{run}/sky_0.fits",
        large=rules.large_scales.output.large,
        high=rules.large_scales.output.high,
        mask=run_dataset("mask.fits"),
    output:
        spectra="<results>/sky/{run}/spectra.csv",
        verdicts="<results>/sky/{run}/verdicts.json",
    log:
        "<logs>/judge_sky/{run}.log",
    benchmark:
        "<benchmarks>/judge_sky/{run}.tsv"
    wildcard_constraints:
        run=one_of(FULL_SKY),
    conda:
        ENVIRONMENT
    threads: full_sky_threads
    resources:
        mem_mb=lambda wildcards: int(1.5 * full_sky_memory(wildcards)),
        runtime=240,
    params:
        patches=run_patches,
        full_sky=lambda wildcards: sky_settings(wildcards, {"realizations"}),
    message:
        "Spectra and seams of the full sky of {wildcards.run}"
    script:
        "../scripts/judge_sky.py"


rule compare_skies:
    input:
        skies=skies("sky_{realization}.fits"),
        large=rules.large_scales.output.large,
        mask=run_dataset("mask.fits"),
    output:
        realizations="<results>/sky/{run}/realizations.csv",
        spread="<results>/sky/{run}/spread.fits",
    log:
        "<logs>/compare_skies/{run}.log",
    benchmark:
        "<benchmarks>/compare_skies/{run}.tsv"
    wildcard_constraints:
        run=one_of(MANY_SKIES),
    conda:
        ENVIRONMENT
    threads: full_sky_threads
    resources:
        mem_mb=lambda wildcards: int(1.5 * full_sky_memory(wildcards)),
        runtime=240,
    params:
        patches=run_patches,
        full_sky=lambda wildcards: sky_settings(wildcards, {"realizations"}),
    message:
        "Realizations of the full sky of {wildcards.run}"
    script:
        "../scripts/compare_skies.py"


rule draw_full_sky:
    input:
        branch(lambda wildcards: wildcards.run in MANY_SKIES, then=rules.compare_skies.output),
        rules.large_scales.output,
        rules.judge_sky.output,
        "<results>/sky/{run}/sky_0.fits",
        mask=run_dataset("mask.fits"),
    output:
        map=report(
            "<results>/sky/{run}/figures/map.png",
            caption="../report/full_sky_map.rst",
            category="Full sky",
            labels={"run": "{run}", "figure": "map"},
        ),
        zooms=report(
            "<results>/sky/{run}/figures/zooms.png",
            caption="../report/full_sky_zooms.rst",
            category="Full sky",
            labels={"run": "{run}", "figure": "zooms"},
        ),
        spectra=report(
            "<results>/sky/{run}/figures/spectra.svg",
            caption="../report/full_sky_spectra.rst",
            category="Full sky",
            labels={"run": "{run}", "figure": "power spectra"},
        ),
        index="<results>/sky/{run}/figures/figures.json",
    log:
        "<logs>/draw_full_sky/{run}.log",
    benchmark:
        "<benchmarks>/draw_full_sky/{run}.tsv"
    wildcard_constraints:
        run=one_of(FULL_SKY),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=full_sky_memory,
        runtime=20,
    message:
        "Figures of the full sky of {wildcards.run}"
    script:
        "../scripts/draw_full_sky.py"
