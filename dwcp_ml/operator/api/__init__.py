"""The custom resources ``ModelRollout`` and ``TrainingRun``: their types and pure conversions.

parts            base classes: camelCase names, validation rules, conditions
model_rollout    the type ModelRollout
template         the predictor that it deploys: a closed part of KServe's
scheduling       where its pods run
rollout_status   its status
training_run     the type TrainingRun
training_status  its status
convert          a resource -> the rollout's spec, the pipeline's arguments
"""
