"""Kubeflow Pipelines: submit the compiled pipeline, wait for it, read the gate's verdict.

client     the REST API v2beta1
run_state  Kubeflow's JSON of a run -> its state, pure
package    the compiled pipeline: its inputs, tasks and cache keys, pure
arguments  arguments of the command line -> pipeline parameters, pure
wait       submits a run and waits for its end, across lost connections and renewed tokens
verdict    the gate's verdict from a run that has ended
"""
