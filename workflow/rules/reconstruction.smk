localrules:
    draw_reconstruction,


rule predict:
    input:
        network=rules.train.output.network,
        card=rules.train.output.card,
        shards=run_shards,
        split=run_dataset("split.csv"),
    output:
        "<results>/runs/{run}/predictions.h5",
    log:
        "<logs>/predict/{run}.log",
    benchmark:
        "<benchmarks>/predict/{run}.tsv"
    wildcard_constraints:
        run=one_of(RECONSTRUCTION),
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        # Inputs, truth, prediction, and of the baseline what it is made from and gives.
        mem_mb=maps_memory("test", lambda run: len(run.inputs) + 2 * len(run.targets) + 3),
        runtime=prediction_runtime,
    message:
        "Predictions of {wildcards.run} on its test set"
    script:
        "../scripts/predict.py"


rule evaluate:
    input:
        predictions=rules.predict.output[0],
    output:
        metrics="<results>/runs/{run}/metrics.csv",
        verdicts="<results>/runs/{run}/verdicts.json",
    log:
        "<logs>/evaluate/{run}.log",
    benchmark:
        "<benchmarks>/evaluate/{run}.tsv"
    wildcard_constraints:
        run=one_of(RECONSTRUCTION),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=maps_memory("test", lambda run: 2 * len(run.targets) + 1),
        runtime=30,
    message:
        "Metrics of {wildcards.run} against its baseline"
    script:
        "../scripts/evaluate.py"


rule draw_reconstruction:
    input:
        rules.train.output,
        rules.predict.output,
        rules.evaluate.output,
    output:
        examples=report(
            "<results>/runs/{run}/figures/examples.png",
            caption="../report/examples.rst",
            category="Reconstruction",
            labels={"run": "{run}", "figure": "example maps"},
        ),
        correlation=report(
            "<results>/runs/{run}/figures/correlation.svg",
            caption="../report/correlation.rst",
            category="Reconstruction",
            labels={"run": "{run}", "figure": "correlation"},
        ),
        transfer=report(
            "<results>/runs/{run}/figures/transfer.svg",
            caption="../report/transfer.rst",
            category="Reconstruction",
            labels={"run": "{run}", "figure": "transfer"},
        ),
        residual=report(
            "<results>/runs/{run}/figures/residual.svg",
            caption="../report/residual.rst",
            category="Reconstruction",
            labels={"run": "{run}", "figure": "residual power"},
        ),
        loss=report(
            "<results>/runs/{run}/figures/loss.svg",
            caption="../report/loss.rst",
            category="Reconstruction",
            labels={"run": "{run}", "figure": "loss"},
        ),
        tables=expand(
            "<results>/runs/{{run}}/figures/{figure}.csv",
            figure=["examples", "correlation", "transfer", "residual", "loss"],
        ),
        index="<results>/runs/{run}/figures/figures.json",
    log:
        "<logs>/draw_reconstruction/{run}.log",
    benchmark:
        "<benchmarks>/draw_reconstruction/{run}.tsv"
    wildcard_constraints:
        run=one_of(RECONSTRUCTION),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    message:
        "Figures of {wildcards.run}"
    script:
        "../scripts/draw_reconstruction.py"
