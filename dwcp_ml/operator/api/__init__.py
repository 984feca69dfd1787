"""The custom resources ``ModelRollout`` and ``TrainingRun``: types, pure conversions, their CRDs.

parts           what every part of a resource has: camelCase names, rules, conditions
template        the predictor that a rollout deploys, as far as it is known here
model_rollout   the type ModelRollout; its status is in rollout_status
training_run    the type TrainingRun; its status is in training_status
convert         a resource -> what ``rollout`` and the pipeline read, their answers -> a status
memory          what a rollout remembers, as text that only the operator can have written
schema          a pydantic type -> a structural schema
crd             the CustomResourceDefinitions, as YAML
reference       the tables of the documentation
"""
