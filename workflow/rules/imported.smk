rule import_maps:
    input:
        lambda wildcards: list(dataset_settings(wildcards).paths),
    output:
        "<results>/datasets/{imported}/shards/{shard}.h5",
    log:
        "<logs>/import_maps/{imported}/{shard}.log",
    benchmark:
        "<benchmarks>/import_maps/{imported}/{shard}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        seed=STUDY.seed,
        # A new split is no reason to read the maps again, nor are more realizations.
        dataset=lambda wildcards: dataset_settings(wildcards).model_dump(
            mode="json", exclude={"split", "shard_size", "realizations"}
        ),
        realizations=lambda wildcards: realizations_of(wildcards),
    message:
        "Realizations {params.realizations} of {wildcards.imported}, from the user's files"
    script:
        "../scripts/import_maps.py"
