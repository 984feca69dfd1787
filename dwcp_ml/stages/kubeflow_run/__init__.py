"""A run of the compiled pipeline on Kubeflow: what is sent, and what is waited for.

package    the compiled pipeline: its inputs, its tasks, what its cache knows; pure
arguments  words of the command line -> arguments that the pipeline takes; pure
waiting    hands a run over and waits for its end, through lost connections and renewed tokens
verdict    what the gate said, from a run that has ended
"""
