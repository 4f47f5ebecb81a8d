localrules:
    draw_reconstruction,


rule predict:
    input:
        network=rules.train.output.network,
        card=rules.train.output.card,
        shards=run_shards,
        split=run_dataset("split.csv"),
        estimates=read_estimates("test", "validation"),
    output:
        predictions="<results>/runs/{run}/predictions.h5",
        validation="<results>/runs/{run}/validation.h5",
    log:
        "<logs>/predict/{run}.log",
    benchmark:
        "<benchmarks>/predict/{run}.tsv"
    wildcard_constraints:
        run=one_of(RECONSTRUCTION),
    conda:
        ENVIRONMENT
    threads: network_threads
    resources:
        # Inputs, truth, prediction and its error, two estimates; of E two more, and Q and U.
        mem_mb=larger_part(lambda run: len(run.inputs) + 5 * len(run.targets) + 4),
        runtime=both_parts_runtime,
    message:
        "Predictions of {wildcards.run} on its test and validation sets"
    script:
        "../scripts/predict.py"


rule evaluate:
    input:
        predictions=rules.predict.output.predictions,
        validation=rules.predict.output.validation,
        theory=expected_correlation,
    output:
        metrics="<results>/runs/{run}/metrics.csv",
        calibration="<results>/runs/{run}/calibration.csv",
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
        # A field at a time: truth, network and another method, regressed, of both parts.
        mem_mb=larger_part(lambda run: 10),
        runtime=evaluation_runtime,
    message:
        "Metrics of {wildcards.run} beside classical methods"
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
        spectrum=report(
            "<results>/runs/{run}/figures/spectrum.svg",
            caption="../report/spectrum.rst",
            category="Reconstruction",
            labels={"run": "{run}", "figure": "debiased spectrum"},
        ),
        calibration=report(
            "<results>/runs/{run}/figures/calibration.svg",
            caption="../report/calibration.rst",
            category="Reconstruction",
            labels={"run": "{run}", "figure": "calibration"},
        ),
        loss=report(
            "<results>/runs/{run}/figures/loss.svg",
            caption="../report/loss.rst",
            category="Reconstruction",
            labels={"run": "{run}", "figure": "loss"},
        ),
        tables=expand(
            "<results>/runs/{{run}}/figures/{figure}.csv",
            figure=[
                "examples",
                "correlation",
                "transfer",
                "residual",
                "spectrum",
                "calibration",
                "loss",
            ],
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
