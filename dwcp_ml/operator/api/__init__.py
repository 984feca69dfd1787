"""The custom resources ``ModelRollout`` and ``TrainingRun``: their types and pure conversions.

parts            base classes: camelCase names, validation rules, conditions
model_rollout    the type ModelRollout, and the predictor that it deploys
rollout_status   its status
training_run     the type TrainingRun
training_status  its status
convert          a resource -> the rollout's spec, the pipeline's arguments
"""
