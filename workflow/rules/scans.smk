localrules:
    tabulate_scan,
    record_runs,


rule tabulate_scan:
    input:
        metrics=scanned("metrics.csv"),
        verdicts=scanned("verdicts.json"),
    output:
        "<results>/scans/{scan}/table.csv",
    log:
        "<logs>/tabulate_scan/{scan}.log",
    benchmark:
        "<benchmarks>/tabulate_scan/{scan}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        members=lambda wildcards: STUDY.members(wildcards.scan),
        fields=lambda wildcards: list(STUDY.scans[wildcards.scan].fields),
    message:
        "Table of scan {wildcards.scan}"
    script:
        "../scripts/tabulate_scan.py"


rule record_runs:
    output:
        configs=expand("<results>/runs/{run}/config.yaml", run=sorted(STUDY.runs)),
        commands=expand("<results>/runs/{run}/command.txt", run=sorted(STUDY.runs)),
    log:
        "<logs>/record_runs.log",
    benchmark:
        "<benchmarks>/record_runs.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        study=plain(STUDY),
        snakefile=os.path.relpath(workflow.main_snakefile),
    message:
        "Settings and command of each run"
    script:
        "../scripts/record_runs.py"
