"""Kubeflow Pipelines components, one file per stage: they declare inputs and outputs, and call the stage.

Data is passed as URIs in string parameters, because KFP's launcher uploads an artifact only inside the pipeline root's
bucket; artifacts hold what a person looks at.
"""
