localrules:
    draw_generalization,


rule predict_elsewhere:
    input:
        network=rules.train.output.network,
        card=rules.train.output.card,
        shards=run_shards,
        split=run_dataset("split.csv"),
        estimates=elsewhere_estimates,
    output:
        temp("<results>/runs/{run}/tests/{other}/predictions.h5"),
    log:
        "<logs>/predict_elsewhere/{run}/{other}.log",
    benchmark:
        "<benchmarks>/predict_elsewhere/{run}/{other}.tsv"
    wildcard_constraints:
        run=one_of(TESTED),
    conda:
        ENVIRONMENT
    threads: network_threads
    resources:
        mem_mb=maps_memory("test", lambda run: len(run.inputs) + 5 * len(run.targets) + 4),
        runtime=prediction_runtime,
    message:
        "Predictions of {wildcards.run} on the test set of {wildcards.other}"
    script:
        "../scripts/predict_elsewhere.py"


rule evaluate_elsewhere:
    input:
        predictions=rules.predict_elsewhere.output[0],
    output:
        metrics="<results>/runs/{run}/tests/{other}/metrics.csv",
        means="<results>/runs/{run}/tests/{other}/means.csv",
    log:
        "<logs>/evaluate_elsewhere/{run}/{other}.log",
    benchmark:
        "<benchmarks>/evaluate_elsewhere/{run}/{other}.tsv"
    wildcard_constraints:
        run=one_of(TESTED),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        # A field at a time: truth, network and another method.
        mem_mb=maps_memory("test", lambda run: 6),
        runtime=30,
    message:
        "Metrics of {wildcards.run} on the test set of {wildcards.other}"
    script:
        "../scripts/evaluate_elsewhere.py"


rule generalize:
    input:
        predictions=rules.predict.output.predictions,
        metrics=run_tests(rules.evaluate.output.metrics, rules.evaluate_elsewhere.output.metrics),
        means=run_tests(None, rules.evaluate_elsewhere.output.means),
    output:
        table="<results>/runs/{run}/generalization.csv",
        verdicts="<results>/runs/{run}/generalization/verdicts.json",
    log:
        "<logs>/generalize/{run}.log",
    benchmark:
        "<benchmarks>/generalize/{run}.tsv"
    wildcard_constraints:
        run=one_of(RECONSTRUCTION),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=maps_memory("test", lambda run: 4),
        runtime=30,
    params:
        dataset=lambda wildcards: run_settings(wildcards).dataset,
        tests=lambda wildcards: run_settings(wildcards).tests,
    message:
        "Scores of {wildcards.run} on all its test sets and on null maps"
    script:
        "../scripts/generalize.py"


rule draw_generalization:
    input:
        run_tests(rules.evaluate.output.metrics, rules.evaluate_elsewhere.output.metrics),
    output:
        generalization=report(
            "<results>/runs/{run}/generalization/figures/generalization.svg",
            caption="../report/generalization.rst",
            category="Reconstruction",
            labels={"run": "{run}", "figure": "other test sets"},
        ),
        table="<results>/runs/{run}/generalization/figures/generalization.csv",
        index="<results>/runs/{run}/generalization/figures/figures.json",
    log:
        "<logs>/draw_generalization/{run}.log",
    benchmark:
        "<benchmarks>/draw_generalization/{run}.tsv"
    wildcard_constraints:
        run=one_of(TESTED),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        dataset=lambda wildcards: run_settings(wildcards).dataset,
        tests=lambda wildcards: run_settings(wildcards).tests,
    message:
        "Figure of {wildcards.run} on all its test sets"
    script:
        "../scripts/draw_generalization.py"
