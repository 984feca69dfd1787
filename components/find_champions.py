"""The champions of a run: the live bundle of each model, which the new one is compared with."""

from components._component import component


@component
def find_champions(stable_uri: str, models: str, rollout_namespace: str) -> dict:
    """Return where the champion of each model is; a model without one is absent.

    Its result is never reused, because what is live changes. The evaluation has it as an input.

    Args:
        stable_uri: The bundle that serves now, or ``MODEL=URI,MODEL=URI``; if it is empty, the live
            bundles of the ModelRollouts are the champions.
        models: The models of the run, comma-separated.
        rollout_namespace: Where the ModelRollouts are; empty for none.

    Returns:
        Full name of a model -> its champion, as JSON.
    """
    import json
    import os

    from dwcp_ml.kube.client import connect
    from dwcp_ml.training_run import champions
    from dwcp_ml.training_run.options import run_options

    on_this_machine = os.environ.get(champions.CHAMPIONS_VARIABLE)
    if on_this_machine:
        return json.loads(on_this_machine)
    options = run_options(models=models, stable_uri=stable_uri, rollout_namespace=rollout_namespace)
    api = connect() if rollout_namespace else None
    return champions.to_json(champions.champions_on_cluster(options, api))
