rule train:
    input:
        shards=run_shards,
        split=run_dataset("split.csv"),
        normalization=run_dataset("normalization.json"),
        estimates=training_estimates,
        calibration=training_calibration,
        after=needed_network("after"),
        start=needed_network("start"),
        covariance=filled_maps_covariance,
        features=looked_through,
        holes=cut_pieces,
        stretch=image_stretch,
        samples=mixed_in,
    output:
        network="<results>/runs/{run}/network.keras",
        card="<results>/runs/{run}/card.json",
        history="<results>/runs/{run}/history.csv",
        sweep="<results>/runs/{run}/sweep.csv",
    log:
        "<logs>/train/{run}.log",
    benchmark:
        "<benchmarks>/train/{run}.tsv"
    # What takes longest, and what leads to the longest chain, starts first: the sky.
    priority: 1
    conda:
        ENVIRONMENT
    threads: network_threads
    resources:
        gpu=1,
        mem_mb=training_memory,
        runtime=240,
    params:
        seed=STUDY.seed,
        # What is made with the network afterwards is no reason to train it again.
        run=trained_settings,
        # Beside the outputs, not among them: Snakemake deletes outputs before a job starts.
        state=lambda wildcards, output: output.network.replace("network.keras", "state"),
    message:
        "Training of {wildcards.run}"
    script:
        "../scripts/train.py"
