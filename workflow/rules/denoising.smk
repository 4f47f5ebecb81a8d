localrules:
    compare_alphas,
    draw_alphas,
    draw_denoising,


rule evaluate_denoising:
    input:
        network=rules.train.output.network,
        card=rules.train.output.card,
        shards=run_shards,
        split=run_dataset("split.csv"),
    output:
        metrics="<results>/runs/{run}/metrics.csv",
        examples="<results>/runs/{run}/restored.h5",
        verdicts="<results>/runs/{run}/verdicts.json",
    log:
        "<logs>/evaluate_denoising/{run}.log",
    benchmark:
        "<benchmarks>/evaluate_denoising/{run}.tsv"
    wildcard_constraints:
        run=one_of(DENOISING),
    conda:
        ENVIRONMENT
    threads: network_threads
    resources:
        mem_mb=restored_memory,
        runtime=restored_runtime,
    params:
        seed=STUDY.seed,
        run=lambda wildcards: run_settings(wildcards).model_dump(
            mode="json", include={"task", "dataset", "fields", "degradation"}
        ),
    message:
        "Images restored by {wildcards.run} against the truth"
    script:
        "../scripts/evaluate_denoising.py"


rule draw_denoising:
    input:
        rules.train.output,
        rules.evaluate_denoising.output,
        stretch=image_stretch,
    output:
        examples=report(
            "<results>/runs/{run}/figures/examples.png",
            caption="../report/denoising_examples.rst",
            category="Galaxies",
            labels={"run": "{run}", "figure": "restored images"},
        ),
        errors=report(
            "<results>/runs/{run}/figures/errors.svg",
            caption="../report/denoising_errors.rst",
            category="Galaxies",
            labels={"run": "{run}", "figure": "errors"},
        ),
        losses=report(
            "<results>/runs/{run}/figures/losses.svg",
            caption="../report/denoising_losses.rst",
            category="Galaxies",
            labels={"run": "{run}", "figure": "training"},
        ),
        index="<results>/runs/{run}/figures/figures.json",
    log:
        "<logs>/draw_denoising/{run}.log",
    benchmark:
        "<benchmarks>/draw_denoising/{run}.tsv"
    wildcard_constraints:
        run=one_of(DENOISING),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    message:
        "Figures of {wildcards.run}"
    script:
        "../scripts/draw_denoising.py"


rule compare_alphas:
    input:
        lambda wildcards: expand("<results>/runs/{run}/metrics.csv", run=ALPHAS[wildcards.images]),
    output:
        table="<results>/datasets/{images}/alphas/table.csv",
        verdicts="<results>/datasets/{images}/alphas/verdicts.json",
    log:
        "<logs>/compare_alphas/{images}.log",
    benchmark:
        "<benchmarks>/compare_alphas/{images}.tsv"
    wildcard_constraints:
        images=one_of(ALPHAS),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        runs=lambda wildcards: ALPHAS[wildcards.images],
    message:
        "What generated images in the training buy on {wildcards.images}"
    script:
        "../scripts/compare_alphas.py"


rule draw_alphas:
    input:
        rules.compare_alphas.output,
    output:
        alphas=report(
            "<results>/datasets/{images}/alphas/figures/alphas.svg",
            caption="../report/alphas.rst",
            category="Galaxies",
            labels={"dataset": "{images}", "figure": "what generated images buy"},
        ),
        index="<results>/datasets/{images}/alphas/figures/figures.json",
    log:
        "<logs>/draw_alphas/{images}.log",
    benchmark:
        "<benchmarks>/draw_alphas/{images}.tsv"
    wildcard_constraints:
        images=one_of(ALPHAS),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    message:
        "Figure of what generated images buy on {wildcards.images}"
    script:
        "../scripts/draw_alphas.py"
