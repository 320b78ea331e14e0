"""Kubeflow Pipelines components, one file per stage: they declare inputs and outputs, and call the stage.

Data travels as URIs in string parameters; artifacts carry what a person looks at.
"""
