localrules:
    draw_inpainting,


rule cut_holes:
    input:
        mask=hole_mask,
        sources=hole_sources,
    output:
        "<results>/runs/{run}/holes.h5",
    log:
        "<logs>/cut_holes/{run}.log",
    benchmark:
        "<benchmarks>/cut_holes/{run}.tsv"
    wildcard_constraints:
        run=one_of(CUT_HOLES),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        seed=STUDY.seed,
        holes=lambda wildcards: plain(run_settings(wildcards).holes),
        grid=lambda wildcards: patch_grid(run_settings(wildcards).dataset),
    message:
        "Pieces of a mask for the holes of {wildcards.run}"
    script:
        "../scripts/cut_holes.py"


rule inpaint:
    input:
        network=rules.train.output.network,
        card=rules.train.output.card,
        shards=run_shards,
        split=run_dataset("split.csv"),
        covariance=filled_maps_covariance,
        holes=cut_pieces,
    output:
        directory("<results>/runs/{run}/inpainted"),
    log:
        "<logs>/inpaint/{run}.log",
    benchmark:
        "<benchmarks>/inpaint/{run}.tsv"
    wildcard_constraints:
        run=one_of(INPAINTING),
    conda:
        ENVIRONMENT
    threads: network_threads
    resources:
        mem_mb=inpainting_memory,
        runtime=inpainting_runtime,
    params:
        run=filled_settings,
    message:
        "Holes in the test set, filled by {wildcards.run}"
    script:
        "../scripts/inpaint.py"


rule evaluate_inpainting:
    input:
        inpainted=rules.inpaint.output[0],
        # What classes look like is learned on whole maps.
        shards=lambda wildcards: (
            run_shards(wildcards) if run_settings(wildcards).classes is not None else []
        ),
        split=run_dataset("split.csv"),
        covariance=filled_maps_covariance,
    output:
        metrics="<results>/runs/{run}/metrics.csv",
        values="<results>/runs/{run}/values.csv",
        classes="<results>/runs/{run}/classes.csv",
        verdicts="<results>/runs/{run}/verdicts.json",
    log:
        "<logs>/evaluate_inpainting/{run}.log",
    benchmark:
        "<benchmarks>/evaluate_inpainting/{run}.tsv"
    wildcard_constraints:
        run=one_of(INPAINTING),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=inpainting_memory,
        runtime=inpainting_runtime,
    params:
        seed=STUDY.seed,
        run=lambda wildcards: (
            filled_settings(wildcards) | {"classes": run_settings(wildcards).classes}
        ),
    message:
        "Holes filled by {wildcards.run} against the truth and the optimum"
    script:
        "../scripts/evaluate_inpainting.py"


rule draw_inpainting:
    input:
        rules.train.output,
        rules.inpaint.output,
        rules.evaluate_inpainting.output,
    output:
        examples=report(
            "<results>/runs/{run}/figures/examples.png",
            caption="../report/inpainting_examples.rst",
            category="Inpainting",
            labels={"run": "{run}", "figure": "example maps"},
        ),
        errors=report(
            "<results>/runs/{run}/figures/errors.svg",
            caption="../report/inpainting_errors.rst",
            category="Inpainting",
            labels={"run": "{run}", "figure": "errors in holes"},
        ),
        spectra=report(
            "<results>/runs/{run}/figures/spectra.svg",
            caption="../report/inpainting_spectra.rst",
            category="Inpainting",
            labels={"run": "{run}", "figure": "power of filled maps"},
        ),
        values=report(
            "<results>/runs/{run}/figures/values.svg",
            caption="../report/inpainting_values.rst",
            category="Inpainting",
            labels={"run": "{run}", "figure": "values in holes"},
        ),
        losses=report(
            "<results>/runs/{run}/figures/losses.svg",
            caption="../report/inpainting_losses.rst",
            category="Inpainting",
            labels={"run": "{run}", "figure": "training"},
        ),
        index="<results>/runs/{run}/figures/figures.json",
    log:
        "<logs>/draw_inpainting/{run}.log",
    benchmark:
        "<benchmarks>/draw_inpainting/{run}.tsv"
    wildcard_constraints:
        run=one_of(INPAINTING),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    message:
        "Figures of {wildcards.run}"
    script:
        "../scripts/draw_inpainting.py"
