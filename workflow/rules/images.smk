localrules:
    fetch_cosmos,


rule fetch_cosmos:
    output:
        catalogue="<data>/cosmos/real_galaxy_catalog_23.5_example.fits",
        images="<data>/cosmos/real_galaxy_images.fits",
    log:
        "<logs>/fetch_cosmos.log",
    benchmark:
        "<benchmarks>/fetch_cosmos.tsv"
    retries: 2
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    message:
        "Stamps of COSMOS, by package, version and checksum"
    script:
        "../scripts/fetch_cosmos.py"


rule render_sersic:
    output:
        "<results>/datasets/{images}/shards/{shard}.h5",
    log:
        "<logs>/render_sersic/{images}/{shard}.log",
    benchmark:
        "<benchmarks>/render_sersic/{images}/{shard}.tsv"
    wildcard_constraints:
        images=one_of(SERSIC),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=rendering_runtime,
    params:
        seed=STUDY.seed,
        # A new split is no reason to render the images again, nor are more realizations.
        dataset=lambda wildcards: dataset_settings(wildcards).model_dump(
            mode="json", exclude={"split", "stretch", "shard_size", "realizations"}
        ),
        realizations=lambda wildcards: realizations_of(wildcards),
    message:
        "Realizations {params.realizations} of {wildcards.images}"
    script:
        "../scripts/render_sersic.py"


rule import_images:
    input:
        imported_images,
    output:
        "<results>/datasets/{images}/shards/{shard}.h5",
    log:
        "<logs>/import_images/{images}/{shard}.log",
    benchmark:
        "<benchmarks>/import_images/{images}/{shard}.tsv"
    wildcard_constraints:
        images=one_of(IMAGES),
        shard="0",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        seed=STUDY.seed,
        dataset=lambda wildcards: dataset_settings(wildcards).model_dump(
            mode="json", exclude={"split", "stretch"}
        ),
        files=imported_digest,
    message:
        "Images of {wildcards.images}"
    script:
        "../scripts/import_images.py"


rule prepare_images:
    input:
        lambda wildcards: expand(
            "<results>/datasets/{images}/shards/{shard}.h5",
            images=wildcards.images,
            shard=range(len(dataset_settings(wildcards).shards)),
        ),
    output:
        split="<results>/datasets/{images}/split.csv",
        normalization="<results>/datasets/{images}/normalization.json",
        stretch="<results>/datasets/{images}/stretch.json",
    log:
        "<logs>/prepare_images/{images}.log",
    benchmark:
        "<benchmarks>/prepare_images/{images}.tsv"
    wildcard_constraints:
        images=one_of(SERSIC + IMAGES),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=5000,
        runtime=60,
    params:
        seed=STUDY.seed,
        split=lambda wildcards: plain(dataset_settings(wildcards).split),
        stretch=lambda wildcards: plain(dataset_settings(wildcards).stretch),
    message:
        "Split and stretch of {wildcards.images}"
    script:
        "../scripts/prepare_images.py"
