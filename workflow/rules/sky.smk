localrules:
    fetch_sfd98,
    draw_sky,


rule fetch_sfd98:
    output:
        expand(
            "<data>/sfd98/SFD_{kind}_4096_{pole}.fits", kind=["dust", "mask"], pole=["ngp", "sgp"]
        ),
    log:
        "<logs>/fetch_sfd98.log",
    benchmark:
        "<benchmarks>/fetch_sfd98.tsv"
    priority: 1
    retries: 2
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    message:
        "SFD98 dust map, by package, version and checksum"
    script:
        "../scripts/fetch_sfd98.py"


rule sky_map:
    input:
        map_files,
    output:
        "<results>/datasets/{sky}/map.fits",
    log:
        "<logs>/sky_map/{sky}.log",
    benchmark:
        "<benchmarks>/sky_map/{sky}.tsv"
    priority: 1
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        # Not the beam, which counts when the patches are cut: only whether the file has to say it.
        map=lambda wildcards: dataset_settings(wildcards).map.model_dump(exclude={"fwhm_arcmin"}),
        needs_beam=lambda wildcards: dataset_settings(wildcards).map.fwhm_arcmin is None,
    message:
        "HEALPix map of {wildcards.sky}"
    script:
        "../scripts/sky_map.py"


rule sky_sources:
    input:
        map=rules.sky_map.output[0],
        catalogue=lambda wildcards: user_files(dataset_settings(wildcards).sources, "path"),
    output:
        cleaned="<results>/datasets/{sky}/cleaned.fits",
        sources="<results>/datasets/{sky}/sources.csv",
    log:
        "<logs>/sky_sources/{sky}.log",
    benchmark:
        "<benchmarks>/sky_sources/{sky}.tsv"
    conda:
        ENVIRONMENT
    threads: sky_threads
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        sources=lambda wildcards: plain(dataset_settings(wildcards).sources),
        fwhm_arcmin=lambda wildcards: dataset_settings(wildcards).map.fwhm_arcmin,
    message:
        "Point sources of {wildcards.sky}, filled in"
    script:
        "../scripts/sky_sources.py"


rule sky_mask:
    input:
        rules.sky_map.output,
    output:
        mask="<results>/datasets/{sky}/mask.fits",
        steps="<results>/datasets/{sky}/mask_steps.csv",
    log:
        "<logs>/sky_mask/{sky}.log",
    benchmark:
        "<benchmarks>/sky_mask/{sky}.tsv"
    priority: 1
    conda:
        ENVIRONMENT
    threads: sky_threads
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        mask=lambda wildcards: plain(dataset_settings(wildcards).mask),
    message:
        "Mask of {wildcards.sky}"
    script:
        "../scripts/sky_mask.py"


rule sky_patches:
    input:
        map=branch(
            lambda wildcards: dataset_settings(wildcards).sources.remove == "none",
            then=rules.sky_map.output[0],
            otherwise=rules.sky_sources.output.cleaned,
        ),
        mask=rules.sky_mask.output.mask,
    output:
        patches="<results>/datasets/{sky}/patches.h5",
        places="<results>/datasets/{sky}/places.csv",
    log:
        "<logs>/sky_patches/{sky}.log",
    benchmark:
        "<benchmarks>/sky_patches/{sky}.tsv"
    priority: 1
    conda:
        ENVIRONMENT
    threads: sky_threads
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        seed=STUDY.seed,
        patches=lambda wildcards: plain(dataset_settings(wildcards).patches),
        split=lambda wildcards: plain(dataset_settings(wildcards).split),
        fwhm_arcmin=lambda wildcards: dataset_settings(wildcards).map.fwhm_arcmin,
    message:
        "Patches of {wildcards.sky}"
    script:
        "../scripts/sky_patches.py"


rule sky_statistics:
    input:
        patches=rules.sky_patches.output.patches,
        places=rules.sky_patches.output.places,
    output:
        spectra="<results>/datasets/{sky}/spectra.csv",
        minkowski="<results>/datasets/{sky}/minkowski.csv",
        minkowski_sigma="<results>/datasets/{sky}/minkowski_sigma.csv",
        overlap="<results>/datasets/{sky}/overlap.csv",
        verdicts="<results>/datasets/{sky}/verdicts.json",
    log:
        "<logs>/sky_statistics/{sky}.log",
    benchmark:
        "<benchmarks>/sky_statistics/{sky}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        seed=STUDY.seed,
    message:
        "Spectra and Minkowski functionals of {wildcards.sky}"
    script:
        "../scripts/sky_statistics.py"


rule draw_sky:
    input:
        rules.sky_map.output,
        rules.sky_mask.output,
        rules.sky_patches.output,
        rules.sky_statistics.output,
    output:
        map=report(
            "<results>/datasets/{sky}/figures/map.png",
            caption="../report/map.rst",
            category="Sky",
            labels={"dataset": "{sky}", "figure": "map and mask"},
        ),
        places=report(
            "<results>/datasets/{sky}/figures/places.png",
            caption="../report/places.rst",
            category="Sky",
            labels={"dataset": "{sky}", "figure": "places"},
        ),
        patches=report(
            "<results>/datasets/{sky}/figures/patches.png",
            caption="../report/patches.rst",
            category="Sky",
            labels={"dataset": "{sky}", "figure": "patches"},
        ),
        spectra=report(
            "<results>/datasets/{sky}/figures/spectra.svg",
            caption="../report/sky_spectra.rst",
            category="Sky",
            labels={"dataset": "{sky}", "figure": "power spectra"},
        ),
        minkowski=report(
            "<results>/datasets/{sky}/figures/minkowski.svg",
            caption="../report/minkowski.rst",
            category="Sky",
            labels={"dataset": "{sky}", "figure": "Minkowski functionals"},
        ),
        tables=expand(
            "<results>/datasets/{{sky}}/figures/{figure}.csv",
            figure=["map", "places", "patches", "spectra", "minkowski"],
        ),
        index="<results>/datasets/{sky}/figures/figures.json",
    log:
        "<logs>/draw_sky/{sky}.log",
    benchmark:
        "<benchmarks>/draw_sky/{sky}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=4000,
        runtime=20,
    message:
        "Figures of {wildcards.sky}"
    script:
        "../scripts/draw_sky.py"
