"""The stages of the workflow, a plain function each: inputs and outputs are URIs in the object store."""
