rule predict_maps:
    input:
        network=prediction_network("network.keras"),
        card=prediction_network("card.json"),
        maps=lambda wildcards: STUDY.predictions[wildcards.prediction].path,
        mask=lambda wildcards: STUDY.predictions[wildcards.prediction].mask or [],
    output:
        "<results>/predictions/{prediction}.{format}",
    log:
        "<logs>/predict_maps/{prediction}.{format}.log",
    benchmark:
        "<benchmarks>/predict_maps/{prediction}.{format}.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        mem_mb=prediction_memory,
        runtime=240,
    params:
        settings=lambda wildcards: plain(STUDY.predictions[wildcards.prediction]),
    message:
        "Prediction {wildcards.prediction} of the user's own maps"
    script:
        "../scripts/predict_maps.py"
