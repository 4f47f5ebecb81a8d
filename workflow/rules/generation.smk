localrules:
    draw_generation,


rule generate:
    input:
        network=rules.train.output.network,
        card=rules.train.output.card,
    output:
        samples="<results>/runs/{run}/samples.h5",
        grids="<results>/runs/{run}/grids.npz",
    log:
        "<logs>/generate/{run}.log",
    benchmark:
        "<benchmarks>/generate/{run}.tsv"
    wildcard_constraints:
        run=one_of(GENERATION),
    conda:
        ENVIRONMENT
    threads: network_threads
    resources:
        mem_mb=generation_memory,
        runtime=generation_runtime,
    params:
        seed=STUDY.seed,
        run=generator_settings,
        # Not an input: a training keeps its grids of samples beside its state.
        state=lambda wildcards, input: input.network.replace("network.keras", "state"),
    message:
        "Images made by {wildcards.run}"
    script:
        "../scripts/generate.py"


rule evaluate_generation:
    input:
        samples=rules.generate.output.samples,
        shards=run_shards,
        split=run_dataset("split.csv"),
        stretch=image_stretch,
        inception=inception,
    output:
        metrics="<results>/runs/{run}/metrics.csv",
        morphology="<results>/runs/{run}/morphology.csv",
        spectra="<results>/runs/{run}/spectra.csv",
        verdicts="<results>/runs/{run}/verdicts.json",
    log:
        "<logs>/evaluate_generation/{run}.log",
    benchmark:
        "<benchmarks>/evaluate_generation/{run}.tsv"
    wildcard_constraints:
        run=one_of(GENERATION),
    priority: 1
    conda:
        ENVIRONMENT
    threads: judged_images_threads
    resources:
        mem_mb=judged_images_memory,
        runtime=judged_images_runtime,
    params:
        seed=STUDY.seed,
        fields=lambda wildcards: list(run_settings(wildcards).fields),
        metrics=lambda wildcards: plain(run_settings(wildcards).metrics),
        dataset=lambda wildcards: plain(STUDY.datasets[run_settings(wildcards).dataset]),
        # What is measured of real images is kept by their content.
        measured=lambda wildcards, input: str(Path(input.split[0]).parent / "measured"),
    message:
        "Images of {wildcards.run} against real ones"
    script:
        "../scripts/evaluate_generation.py"


rule draw_generation:
    input:
        rules.train.output,
        rules.generate.output,
        rules.evaluate_generation.output,
        shards=run_shards,
        split=run_dataset("split.csv"),
        stretch=image_stretch,
    output:
        samples=report(
            "<results>/runs/{run}/figures/samples.png",
            caption="../report/generation_samples.rst",
            category="Galaxies",
            labels={"run": "{run}", "figure": "real and generated images"},
        ),
        spectra=report(
            "<results>/runs/{run}/figures/spectra.svg",
            caption="../report/generation_spectra.rst",
            category="Galaxies",
            labels={"run": "{run}", "figure": "power spectra"},
        ),
        morphology=report(
            "<results>/runs/{run}/figures/morphology.svg",
            caption="../report/generation_morphology.rst",
            category="Galaxies",
            labels={"run": "{run}", "figure": "morphology"},
        ),
        distances=report(
            "<results>/runs/{run}/figures/distances.svg",
            caption="../report/generation_distances.rst",
            category="Galaxies",
            labels={"run": "{run}", "figure": "distances from real images"},
        ),
        grids=report(
            "<results>/runs/{run}/figures/grids.png",
            caption="../report/generation_grids.rst",
            category="Galaxies",
            labels={"run": "{run}", "figure": "samples along the training"},
        ),
        losses=report(
            "<results>/runs/{run}/figures/losses.svg",
            caption="../report/generation_losses.rst",
            category="Galaxies",
            labels={"run": "{run}", "figure": "training"},
        ),
        index="<results>/runs/{run}/figures/figures.json",
    log:
        "<logs>/draw_generation/{run}.log",
    benchmark:
        "<benchmarks>/draw_generation/{run}.tsv"
    wildcard_constraints:
        run=one_of(GENERATION),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    message:
        "Figures of {wildcards.run}"
    script:
        "../scripts/draw_generation.py"
