"""What Prefect's server does by itself about runs of this project: restart what crashed, tell what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from prefect.automations import Automation
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, CallWebhook, ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture

TAG = "mixdpo"  # of the deployments in prefect.yaml, and so of their runs
Labels = dict[str, str | list[str]]
RUNS: Labels = {"prefect.resource.id": ["prefect.flow-run.*"]}
TAGGED: Labels = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
DEPLOYED: Labels = {"prefect.resource.role": "deployment"}
# a run that breaks what it runs on must not do so for ever
RESTARTS = 2
REPORTED = timedelta(seconds=30)  # after which everybody who saw a crash has said so

SUBJECT = "{{ flow.name }} {{ flow_run.name }}: {{ flow_run.state.name }}"
BODY = "{{ flow_run.state.message }}\n{{ flow_run | ui_url }}"
# a webhook gets JSON, whatever the words hold
PAYLOAD = (
    '{"flow": {{ flow.name | tojson }}, "run": {{ flow_run.name | tojson }}, '
    '"id": {{ flow_run.id | string | tojson }}, "state": {{ flow_run.state.name | tojson }}, '
    '"message": {{ flow_run.state.message | tojson }}, "url": {{ flow_run | ui_url | tojson }}}'
)


def lost_worker(silence: timedelta) -> Automation:
    """A run whose process said nothing for `silence` is CRASHED: nobody else would tell of a machine that is gone.

    The pool's job template asks for a heartbeat every 30 s, in place of Prefect's 180.
    """
    return Automation(
        name="mixdpo: lost worker",
        description="A run without heartbeat is taken for crashed",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},  # the next heartbeat, or its end, whatever that is called
            match=RUNS,
            match_related=TAGGED,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=silence,
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed",
                state=StateType.CRASHED,
                force=False,  # one that has ended stays as it ended
                message=f"no heartbeat for {silence.total_seconds():.0f} s: the worker or its machine is gone",
            )
        ],
    )


def restart() -> Automation:
    """A deployed run that crashed starts again, from the stages that are finished, RESTARTS times at most.

    Not at once: a crash is reported by the runner and, seconds later, by the worker, and each would start it.
    """
    return Automation(
        name="mixdpo: restart",
        description=f"A crashed run starts again, {RESTARTS} times at most",
        trigger=EventTrigger(
            after={"prefect.flow-run.Crashed"},
            expect={"prefect.flow-run.*"},  # another report, or somebody who started it again already
            # the count is of starts: one that never started would only crash again
            match=RUNS | {"prefect.run-count": [str(count) for count in range(1, RESTARTS + 1)]},
            match_related=[TAGGED, DEPLOYED],
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=REPORTED,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.SCHEDULED,
                name="AwaitingRetry",
                message="it crashed; finished stages are kept",
                force=True,
            )
        ],
    )


def notices(webhooks: Sequence[UUID], others: Sequence[UUID]) -> Automation:
    """Whoever these blocks reach hears of runs that failed, were refused, crashed or wait for an approval."""
    tell: list[ActionTypes] = [CallWebhook(block_document_id=each, payload=PAYLOAD) for each in webhooks]
    tell += [SendNotification(block_document_id=each, subject=SUBJECT, body=BODY) for each in others]
    trouble = [StateType.FAILED.value, StateType.CRASHED.value, StateType.PAUSED.value]
    return Automation(
        name="mixdpo: notices",
        description="Tells of runs that failed, crashed or wait for an approval",
        trigger=EventTrigger(
            expect={"prefect.flow-run.*"},
            match=RUNS | {"prefect.state-type": trouble},
            match_related=[TAGGED, DEPLOYED],
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=tell,
    )
