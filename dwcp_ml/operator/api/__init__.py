"""The custom resources ``ModelRollout`` and ``TrainingRun``: their types and pure conversions.

parts            base classes: camelCase names, validation rules, conditions
template         the predictor of a rollout, as far as its fields are known here
model_rollout    the type ModelRollout
rollout_status   its status
state            the state of a rollout, in ``status.state``
training_run     the type TrainingRun
training_status  its status
convert          a resource -> the rollout's spec, the pipeline's arguments
"""
