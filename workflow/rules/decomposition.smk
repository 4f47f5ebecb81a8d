localrules:
    draw_decomposition,


rule decompose:
    input:
        network=rules.train.output.network,
        card=rules.train.output.card,
        shards=run_shards,
        split=run_dataset("split.csv"),
        estimates=read_estimates("test"),
    output:
        "<results>/runs/{run}/predictions.h5",
    log:
        "<logs>/decompose/{run}.log",
    benchmark:
        "<benchmarks>/decompose/{run}.tsv"
    wildcard_constraints:
        run=one_of(DECOMPOSITION),
    conda:
        ENVIRONMENT
    threads: network_threads
    resources:
        mem_mb=maps_memory("test", decomposed_maps),
        runtime=decomposition_runtime,
    message:
        "Decomposition of the test set by {wildcards.run}"
    script:
        "../scripts/decompose.py"


rule decompose_elsewhere:
    input:
        network=rules.train.output.network,
        card=rules.train.output.card,
        shards=run_shards,
        split=run_dataset("split.csv"),
        estimates=lambda wildcards: (
            elsewhere_estimates(wildcards) if starts_from_estimates(wildcards) else []
        ),
    output:
        temp("<results>/runs/{run}/tests/{other}/decomposition.h5"),
    log:
        "<logs>/decompose_elsewhere/{run}/{other}.log",
    benchmark:
        "<benchmarks>/decompose_elsewhere/{run}/{other}.tsv"
    wildcard_constraints:
        run=one_of(DECOMPOSITION),
    conda:
        ENVIRONMENT
    threads: network_threads
    resources:
        mem_mb=maps_memory("test", decomposed_maps),
        runtime=decomposition_runtime,
    message:
        "Decomposition of the test set of {wildcards.other} by {wildcards.run}"
    script:
        "../scripts/decompose.py"


rule evaluate_decomposition:
    input:
        predictions=rules.decompose.output[0],
        beside=lambda wildcards: expand(rules.decompose.output, run=run_settings(wildcards).beside),
        tests=run_tests(None, rules.decompose_elsewhere.output),
    output:
        metrics="<results>/runs/{run}/metrics.csv",
        calibration="<results>/runs/{run}/calibration.csv",
        verdicts="<results>/runs/{run}/verdicts.json",
    log:
        "<logs>/evaluate_decomposition/{run}.log",
    benchmark:
        "<benchmarks>/evaluate_decomposition/{run}.tsv"
    wildcard_constraints:
        run=one_of(DECOMPOSITION),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        # A field at a time: truth, methods, and the samples of two runs.
        mem_mb=maps_memory("test", compared_maps),
        runtime=evaluation_runtime,
    params:
        run=evaluated_settings,
        plain=plain_beside,
    message:
        "Power and correlation of {wildcards.run} beside other runs and methods"
    script:
        "../scripts/evaluate_decomposition.py"


rule draw_decomposition:
    input:
        rules.train.output,
        rules.decompose.output,
        rules.evaluate_decomposition.output,
    output:
        examples=report(
            "<results>/runs/{run}/figures/examples.png",
            caption="../report/decomposition_examples.rst",
            category="Decomposition",
            labels={"run": "{run}", "figure": "example maps"},
        ),
        fidelity=report(
            "<results>/runs/{run}/figures/fidelity.svg",
            caption="../report/decomposition_fidelity.rst",
            category="Decomposition",
            labels={"run": "{run}", "figure": "power and correlation"},
        ),
        networks=report(
            "<results>/runs/{run}/figures/networks.svg",
            caption="../report/decomposition_networks.rst",
            category="Decomposition",
            labels={"run": "{run}", "figure": "training of both networks"},
        ),
        index="<results>/runs/{run}/figures/figures.json",
    log:
        "<logs>/draw_decomposition/{run}.log",
    benchmark:
        "<benchmarks>/draw_decomposition/{run}.tsv"
    wildcard_constraints:
        run=one_of(DECOMPOSITION),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=maps_memory("test", lambda run: 2),
        runtime=10,
    message:
        "Figures of {wildcards.run}"
    script:
        "../scripts/draw_decomposition.py"
